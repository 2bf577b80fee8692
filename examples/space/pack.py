"""Pack a Space into one folder, including scar-hf itself: `python examples/space/pack.py -o out/space`."""

import argparse
import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FILES = ("README.md", "app.py", "view.py", "style.css")
EXAMPLE = ("mixed_styles.jsonl", "README.md", "LICENSE")


def pack(folder: Path) -> None:
    """
    Fill a new folder, ready for `hf upload`. A Space installs only what its requirements.txt lists, which cannot refer to
    files next to it. Therefore, scar-hf is copied as plain packages, and its requirements go into requirements.txt.

    Args:
        folder (`Path`): the output folder; must not exist.

    Raises:
        `ValueError`: if the folder exists.
    """
    if folder.exists():
        raise ValueError(f"The folder {folder} exists. Remove it, or choose another.")
    folder.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--target",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    shutil.rmtree(folder / "bin", ignore_errors=True)
    installed = next(folder.glob("scar_hf-*.dist-info"))
    (installed / "direct_url.json").unlink(missing_ok=True)  # it contains the path of the checkout
    needs = [Requirement(text) for text in Distribution.at(installed).requires or []]
    lines = [f"{need.name}{extras(need)}{need.specifier}" for need in needs if wanted(need)]
    torch = "--extra-index-url https://download.pytorch.org/whl/cpu"  # otherwise a Space without a GPU installs 2 GB of CUDA
    (folder / "requirements.txt").write_text("\n".join([torch, *lines]) + "\n", encoding="utf-8")
    for name in FILES:
        shutil.copy(HERE / name, folder / name)
    for name in EXAMPLE:
        target = name if name == EXAMPLE[0] else f"mixed_styles.{name}"
        shutil.copy(HERE.parent / "mixed_styles" / name, folder / target)


def wanted(need: Requirement) -> bool:
    """Return whether the Space needs a requirement. Spaces install gradio themselves, in the version that the README names."""
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("report", "curation"))


def extras(need: Requirement) -> str:
    """Return the extras of a requirement, in brackets."""
    return f"[{','.join(sorted(need.extras))}]" if need.extras else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/space"), help="a new folder; out/space by default")
    output = parser.parse_args().output
    pack(output)
    print(f"Wrote {output}. Push it:")
    print("  hf repos create USER/scar-hf --type space --sdk gradio")
    print(f"  hf upload USER/scar-hf {output} . --type space")
