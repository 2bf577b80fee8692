"""Put together mixed_styles.jsonl from Dolly and from a small model's answers to Dolly's prompts.

Example:

    python recipes/generate_smollm2.py dolly15k.jsonl -o smollm2_triples.jsonl --rows 768
    python examples/mixed_styles/make.py dolly15k.jsonl smollm2_triples.jsonl
"""

import argparse
import json
import random
from pathlib import Path

OUTPUT = Path(__file__).parent / "mixed_styles.jsonl"
HUMAN, MODEL = 700, 240


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dolly", type=Path, help="JSONL with instruction and response")
    parser.add_argument("triples", type=Path, help="what recipes/generate_smollm2.py wrote")
    args = parser.parse_args()

    rng = random.Random(13)
    triples = [t for t in rows_of(args.triples) if t["direct"]][:MODEL]
    rows = []
    for t in triples:
        for kind in ("direct", "referenced"):
            rows += [
                {"instruction": t["instruction"], "response": text, "source": f"{model} {kind}"}
                for model, text in t[kind].items()
            ]
    answered = {t["instruction"] for t in rows_of(args.triples)}
    humans = [r for r in rows_of(args.dolly) if r["instruction"] not in answered and len(r["instruction"].split()) <= 40]
    humans = [r for r in humans if 12 <= len(r["response"].split()) <= 100]
    rows += [
        {"instruction": r["instruction"], "response": r["response"], "source": "Dolly human"} for r in rng.sample(humans, HUMAN)
    ]
    rng.shuffle(rows)
    OUTPUT.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows in {OUTPUT}")


if __name__ == "__main__":
    main()
