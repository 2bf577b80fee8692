"""`python -m scar_hf` is `scar-hf`."""

from .cli import main

raise SystemExit(main())
