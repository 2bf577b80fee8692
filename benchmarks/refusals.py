"""Measure precision and recall of `Refusals` on labelled responses, and its time per row."""

import argparse
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scar_hf.curation.refusals import refusal_reason
from scar_hf.files import read_json_rows

LABELLED = Path(__file__).parent.parent / "tests" / "refusals_labelled.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", default=LABELLED, help="JSON Lines with response, label and part")
    rows = list(read_json_rows(parser.parse_args().data))

    began = time.process_time()
    found = [refusal_reason(row["response"]) for row in rows]
    microseconds = 1e6 * (time.process_time() - began) / len(rows)

    table = Table(title=f"{len(rows)} labelled responses, {microseconds:.0f} µs a row")
    for name in ("part", "refusals and the like", "answers", "precision", "recall", "of the right kind"):
        table.add_column(name, justify="left" if name == "part" else "right")
    parts = list(dict.fromkeys(row["part"] for row in rows))
    for part in [*parts, "all"]:
        chosen = [(row["label"], kind) for row, kind in zip(rows, found, strict=True) if part in (row["part"], "all")]
        counts = Counter((label is not None, kind is not None) for label, kind in chosen)
        hits, false, missed = counts[True, True], counts[False, True], counts[True, False]
        same = sum(label == kind for label, kind in chosen if label and kind)
        table.add_row(
            part,
            f"{hits + missed}",
            f"{false + counts[False, False]}",
            *(f"{share:.1%}" for share in (hits / (hits + false), hits / (hits + missed), same / hits)),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
