"""Check that `ds.filter(scar_filter(k))` keeps the same rows as `scar_select(ds, k)`, by num_proc, with and without cache."""

import argparse
import sys
import tempfile
import time

import datasets

from scar_hf import scar_filter, scar_select
from scar_hf.files import read_dataset


def main() -> int:
    """Select once, filter in each configuration, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="an instruction set that scar-hf reads")
    parser.add_argument("--rows", type=int, default=5000, help="(default: %(default)s)")
    parser.add_argument("-k", type=float, default=0.1, help="(default: %(default)s)")
    parser.add_argument("--num-proc", type=int, nargs="+", default=[1, 2], help="(default: %(default)s)")
    args = parser.parse_args()

    ds = read_dataset(args.data)
    ds = ds.select(range(min(args.rows, len(ds))))
    with tempfile.TemporaryDirectory() as folder:
        ds.save_to_disk(folder)  # a dataset in memory has no cache files
        ds = datasets.load_from_disk(folder)
        start = time.monotonic()
        expected = scar_select(ds, k=args.k, progress=False)
        print(f"scar_select: {len(expected):,} of {len(ds):,} rows in {time.monotonic() - start:.1f} s", flush=True)
        same = True
        for caching in (True, False):
            (datasets.enable_caching if caching else datasets.disable_caching)()
            for num_proc in args.num_proc:
                for call in ("first", "second"):
                    start = time.monotonic()
                    kept = ds.filter(scar_filter(k=args.k, progress=False), num_proc=num_proc)
                    seconds = time.monotonic() - start
                    equal = kept.to_list() == expected.remove_columns("scar_score").to_list()
                    same &= equal
                    print(f"cache {'on ' if caching else 'off'} num_proc {num_proc} {call:>6} call: {len(kept):,} rows in "
                          f"{seconds:5.1f} s, {'the same' if equal else 'DIFFERENT'}", flush=True)  # fmt: skip
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
