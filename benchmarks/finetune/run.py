"""
Run the grids of docs/evidence.md: SCAR and baselines on rows of mixed styles or of one source, with LoRA on a small model.

`python benchmarks/finetune/run.py MODEL FOLDER` runs or resumes them, and writes results to FOLDER. The rows are those of
examples/mixed_styles, or with --dolly FILE the same number of rows of Dolly.
"""

import argparse
import gzip
import json
from hashlib import sha256
from pathlib import Path

from datasets import Dataset, load_dataset

from scar_hf.ablation import AblationSettings, ablate

ROOT = Path(__file__).parent.parent.parent
_MIXED = str(ROOT / "examples" / "mixed_styles" / "mixed_styles.jsonl")
# Held-out pairs are cut to 160 tokens, so use only answers that fit.
_MOST_WORDS = 70


def held_out_rows() -> list[dict]:
    """Return instructions of Dolly with human and model answers, except those in examples/mixed_styles."""
    with gzip.open(ROOT / "recipes" / "qwen_triples.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    mixed = Path(_MIXED).read_text(encoding="utf-8").splitlines()
    known = {json.loads(line)["instruction"].strip().lower() for line in mixed}

    def short(row: dict) -> bool:
        texts = [row["human"], *(row["direct"] or {}).values()]
        return len(texts) > 1 and all(len(text.split()) <= _MOST_WORDS for text in texts)

    return [
        {name: row[name] for name in ("instruction", "direct", "human")}
        for row in rows
        if row["source"] == "dolly_qwen" and row["instruction"].strip().lower() not in known and short(row)
    ]


def rows_to_select_from(dolly: str | None) -> Dataset:
    """Return the rows of examples/mixed_styles, or the same number of rows of Dolly, chosen by a hash of their content."""
    mixed = load_dataset("json", data_files=_MIXED, split="train")
    if dolly is None:
        return mixed
    ds = load_dataset("json", data_files=dolly, split="train").select_columns(["instruction", "response"])
    order = sorted(range(len(ds)), key=lambda i: sha256(f"{ds[i]['instruction']} {ds[i]['response']}".encode()).digest())
    return ds.select(sorted(order[: len(mixed)]))


def main() -> None:
    """Run the missing cells, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dolly", metavar="FILE", help="databricks-dolly-15k: select from its rows instead")
    parser.add_argument("--lm", help="for IFD; by default the model that is tuned")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--constraints", type=int, default=16)
    parser.add_argument("--budgets", nargs="+", default=["steps"])
    parser.add_argument("--methods", nargs="+", default=["scar", "random", "longest", "ifd", "everything"])
    args = parser.parse_args()
    settings = AblationSettings(
        args.model,
        k=(0.1,),
        methods=args.methods,
        budgets=args.budgets,
        seeds=args.seeds,
        steps=args.steps,
        batch_size=4,
        max_length=160,
        prompts=args.prompts,
        max_new_tokens=40,
        constraints=args.constraints,
    )
    print(ablate(rows_to_select_from(args.dolly), settings, args.folder, evaluation=held_out_rows(), lm=args.lm))


if __name__ == "__main__":
    main()
