"""
Build mixed_styles.jsonl from Dolly's human answers and a language model's answers to other prompts of Dolly. Each instruction
occurs once, so no two rows answer the same question.

Example:

    scar-hf synthesize dolly15k.jsonl -o triples.jsonl --model MODEL
    python examples/mixed_styles/make.py dolly15k.jsonl triples.jsonl
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scar_hf.curation.refusals import refusal_reason
from scar_hf.files import read_json_rows

OUTPUT = Path(__file__).parent / "mixed_styles.jsonl"
ROWS = 1000
# Shares of the rows; the remaining rows are human.
DIRECT, REFERENCED = 0.3, 0.15
# Maximum number of words of an instruction, and of a human response.
INSTRUCTION = 40
RESPONSE = range(12, 101)


def key_of(instruction: str) -> str:
    """Return the key of an instruction: its words, ignoring case and spaces."""
    return " ".join(instruction.lower().split())


def most_frequent_model(triples: Sequence[Mapping[str, Any]]) -> str:
    """Return the model with the most responses; on ties, the first by name."""
    counts = Counter(model for triple in triples for kind in ("direct", "referenced") for model in triple.get(kind) or {})
    if not counts:
        raise ValueError("The triples have no direct or referenced response; give the file that `scar-hf synthesize` wrote.")
    return min(counts, key=lambda model: (-counts[model], model))


def mixed_rows(
    dolly: Sequence[Mapping[str, Any]], triples: Sequence[Mapping[str, Any]], model: str | None = None, rows: int = ROWS
) -> list[dict[str, str]]:
    """
    Choose the rows. The same input always gives the same rows.

    Args:
        dolly (`Sequence[Mapping]`): rows with `instruction` and `response`.
        triples (`Sequence[Mapping]`): rows with `instruction`, and `direct` and `referenced`, each `{model: text}`. Triples
            whose instruction is not in `dolly` are left out, and so are refusals, deflections and empty phrases.
        model (`str`, *optional*): the model whose responses to use; by default the one with the most responses.
        rows (`int`, *optional*, defaults to 1000): the requested number of rows. If the triples have too few responses for the
            shares, the result has fewer rows of each kind.

    Returns:
        `list[dict]`: `instruction`, `response` and `source`, one of `"human"`, `"direct"` and `"referenced"`, in random order.

    Raises:
        `ValueError`: if no rows can be built from the input.
    """
    rng = random.Random(13)
    model = model or most_frequent_model(triples)
    answered = {key_of(triple["instruction"]) for triple in triples}
    humans = {
        key_of(row["instruction"]): row
        for row in dolly
        if len(row["instruction"].split()) <= INSTRUCTION and refusal_reason(row["response"]) is None
    }
    given: dict[str, dict[str, str]] = {}
    for triple in triples:
        texts = {kind: (triple.get(kind) or {}).get(model) for kind in ("direct", "referenced")}
        fine = {kind: text for kind, text in texts.items() if text and refusal_reason(text) is None}
        if fine and key_of(triple["instruction"]) in humans:
            given.setdefault(key_of(triple["instruction"]), fine)
    # Prompts with both kinds are used as referenced first, because there are fewer of these.
    prompts = sorted(given)
    rng.shuffle(prompts)
    referenced = [key for key in prompts if "referenced" in given[key]][: round(REFERENCED * rows)]
    direct = [key for key in prompts if "direct" in given[key] and key not in set(referenced)][: round(DIRECT * rows)]
    left = [key for key, row in sorted(humans.items()) if key not in answered and len(row["response"].split()) in RESPONSE]
    rows = min(rows, round((len(direct) + len(referenced)) / (DIRECT + REFERENCED)))
    human = rng.sample(left, min(len(left), rows - len(direct) - len(referenced)))
    if not human or not direct or not referenced:
        raise ValueError(
            f"Found {len(human)} human, {len(direct)} direct and {len(referenced)} referenced responses; there must be some of "
            f"each. Are the triples of {model!r} made from other prompts of the same Dolly file?"
        )
    chosen = [(humans[key]["instruction"], humans[key]["response"], "human") for key in human]
    for source, keys in (("direct", direct), ("referenced", referenced)):
        chosen += [(humans[key]["instruction"], given[key][source], source) for key in keys]
    rng.shuffle(chosen)
    return [{"instruction": i, "response": r, "source": source} for i, r, source in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dolly", type=Path, help="JSON Lines with instruction and response")
    parser.add_argument("triples", type=Path, help="what `scar-hf synthesize` wrote from some of these rows")
    parser.add_argument("--model", help="whose responses to take; by default of the model that gave the most")
    parser.add_argument("--rows", type=int, default=ROWS, help="how many rows to make (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT, help="where to write (default: mixed_styles.jsonl here)")
    args = parser.parse_args()
    try:
        rows = mixed_rows(list(read_json_rows(args.dolly)), list(read_json_rows(args.triples)), args.model, args.rows)
    except (OSError, ValueError) as error:
        sys.exit(f"make.py: {error}")
    args.output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    counts = Counter(row["source"] for row in rows)
    print(f"{len(rows)} rows in {args.output}: " + ", ".join(f"{n} {source}" for source, n in counts.most_common()))


if __name__ == "__main__":
    main()
