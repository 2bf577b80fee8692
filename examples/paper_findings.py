"""
Test the paper's finding on your rows: human answers spread more in style than an LLM's direct answers, and the rows that SCAR
keeps of a mixture of both spread less than the mixture.

    python examples/paper_findings.py --data pairs.jsonl --lm FOLDER --out out

`pairs.jsonl` has one row per instruction: `instruction`, `human`, `direct` ({model: text}) and `source`.
"""

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset

from scar_hf import scar_rank
from scar_hf.style import LINGUISTIC_FORM, MEASURES, SURPRISAL, StyleChange, StyleMeasures, Surprisal, compare, style_measures

# Larger changes are drawn at the edge of the figure.
SHOWN_RATIOS = (1 / 16, 32)
SHOWN = ("ttr", "mtld", "flesch", "sentence_length", "punctuation", "function_words", "surprisal", "ifd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines of instruction, human, direct, source")
    parser.add_argument("--lm", help="folder, GGUF file or Hub id of a causal language model, for surprisal")
    parser.add_argument("--lm-rows", type=int, default=200, help="rows of each set that the language model reads")
    parser.add_argument("--max-length", type=int, default=512, help="tokens that it reads of each")
    parser.add_argument("--k", type=float, default=0.25, help="share of the mixture that SCAR keeps")
    parser.add_argument("--rows", type=int, help="number of rows to draw at random, by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the figures and findings.json")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)

    rows = [json.loads(line) for line in args.data.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["human"] and row["direct"]]
    if args.rows:
        rows = [rows[i] for i in np.sort(rng.permutation(len(rows))[: args.rows])]
    sources = np.array([row.get("source", "") for row in rows])
    human = dataset([row["instruction"] for row in rows], [row["human"] for row in rows])
    direct = dataset([row["instruction"] for row in rows], [next(iter(row["direct"].values())) for row in rows])
    is_human = rng.random(len(rows)) < 0.5
    mixture = dataset(human["instruction"], np.where(is_human, human["response"], direct["response"]).tolist())

    kept = scar_rank(mixture).indices(args.k)
    form_human, form_direct, form_mixture = (style_measures(ds) for ds in (human, direct, mixture))
    findings = {
        "direct against human": compare(form_human, form_direct),
        "direct against human, within sources": compare(within(form_human, sources), within(form_direct, sources)),
        "kept against the mixture": compare(form_mixture, form_mixture.select(kept)),
        "kept against the mixture, within sources": compare(
            within(form_mixture, sources), within(form_mixture.select(kept), sources[kept])
        ),
    }
    if args.lm:
        lm = Surprisal(args.lm, max_length=args.max_length)
        some = np.sort(rng.permutation(len(rows))[: args.lm_rows])
        some_kept = np.sort(rng.permutation(kept)[: args.lm_rows])
        read_human, read_direct = only_surprisal(human.select(some), lm), only_surprisal(direct.select(some), lm)
        read_mixture = replace(
            read_human,
            values={name: np.where(is_human[some], read_human[name], read_direct[name]) for name in read_human.values},
        )
        read_kept = only_surprisal(mixture.select(some_kept), lm)
        of, of_kept = sources[some], sources[some_kept]
        findings |= {
            "direct against human, surprisal": compare(read_human, read_direct),
            "direct against human, surprisal, within sources": compare(within(read_human, of), within(read_direct, of)),
            "kept against the mixture, surprisal": compare(read_mixture, read_kept),
            "kept against the mixture, surprisal, within sources": compare(
                within(read_mixture, of), within(read_kept, of_kept)
            ),
        }
        form_human.values |= {name: spread_out(read_human[name], some, len(rows)) for name in SURPRISAL}
        form_direct.values |= {name: spread_out(read_direct[name], some, len(rows)) for name in SURPRISAL}
    per_source = by_source(form_human, form_direct, sources)

    report = {
        "rows": len(rows),
        "kept": len(kept),
        "human in the mixture": float(is_human.mean()),
        "human in what was kept": float(is_human[kept].mean()),
        "sources": {"mixture": Counter(sources.tolist()), "kept": Counter(sources[kept].tolist())},
        "change of the spread by source, direct against human": per_source,
        "settings": {name: str(value) for name, value in vars(args).items() if name not in ("data", "lm", "out")},
        "findings": {title: finding.to_dict() for title, finding in findings.items()},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "findings.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw_changes(findings, args.out / "style-changes.png")
    draw_distributions(form_human, form_direct, args.out / "style-distributions.png")
    print(f"Human answers: {is_human.mean():.1%} of the mixture, {is_human[kept].mean():.1%} of what SCAR kept.")
    for title, finding in findings.items():
        print(f"\n{title}\n{finding}")
    print("\nchange of the spread by source, direct against human")
    for source, changes in per_source.items():
        print(f"{source}:", ", ".join(f"{MEASURES[name].title} {change:+.0%}" for name, change in changes.items()))


def dataset(instructions: list[str], responses: list[str]) -> Dataset:
    """Create a dataset in the plain format."""
    return Dataset.from_dict({"instruction": instructions, "response": responses})


def only_surprisal(ds: Dataset, lm: Surprisal) -> StyleMeasures:
    """Measure the instructional surprisal of rows."""
    measured = style_measures(ds, lm=lm)
    return replace(measured, values={name: measured[name] for name in SURPRISAL})


def within(measured: StyleMeasures, sources: np.ndarray) -> StyleMeasures:
    """Subtract the mean of a row's source from each measure, to remove differences between topics."""
    values = {}
    for name, column in measured.values.items():
        present = ~np.isnan(column)
        _, source = np.unique(sources, return_inverse=True)
        means = np.bincount(source[present], column[present], source.max() + 1) / np.maximum(
            np.bincount(source[present], minlength=source.max() + 1), 1
        )
        values[name] = column - means[source]
    return replace(measured, values=values)


def by_source(human: StyleMeasures, direct: StyleMeasures, sources: np.ndarray) -> dict[str, dict[str, float]]:
    """Compute the change in spread from human to direct answers, for each source."""
    found = {}
    for source in np.unique(sources):
        changes = compare(human.select(sources == source), direct.select(sources == source), samples=100).changes
        known = [name for name in SHOWN if name in changes and not np.isnan(changes[name].spread_change)]
        found[str(source)] = {name: changes[name].spread_change for name in known}
    return found


def spread_out(values: np.ndarray, numbers: np.ndarray, n: int) -> np.ndarray:
    """Place the values of some rows in a column for all rows; the others are NaN."""
    column = np.full(n, np.nan)
    column[numbers] = values
    return column


def draw_changes(findings: dict[str, StyleChange], file: Path) -> None:
    """Draw how much narrower or wider each measure became, with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    every = (*LINGUISTIC_FORM, *SURPRISAL)
    titles = ("direct against human", "kept against the mixture")
    for axes, title in zip(figure.subplots(1, 2, sharey=True), titles, strict=True):
        for label, end, colour, shift in (
            ("all rows", "", "tab:blue", -0.12),
            ("within sources", ", within sources", "tab:orange", 0.12),
        ):
            parts = [findings[part] for part in (f"{title}{end}", f"{title}, surprisal{end}") if part in findings]
            for name, change in [item for part in parts for item in part.changes.items()]:
                low, middle, high = np.clip([1 + change.low, 1 + change.spread_change, 1 + change.high], *SHOWN_RATIOS)
                y = every.index(name) + shift
                axes.plot([low, high], [y, y], color=colour, linewidth=2)
                axes.plot(middle, y, "o", color=colour, markersize=4)
            axes.plot([], [], "o-", color=colour, label=label)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(title[0].upper() + title[1:])
        axes.set_xlabel("spread (SD) after / before, with 95 % interval")
        axes.set_xscale("log", base=2)
        axes.set_xlim(SHOWN_RATIOS)
        axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
        axes.grid(axis="x", alpha=0.3)
    drawn = [*LINGUISTIC_FORM, *(SURPRISAL if "direct against human, surprisal" in findings else ())]
    axes.set_yticks(range(len(drawn)), [MEASURES[name].title.split(",")[0] for name in drawn])
    axes.invert_yaxis()
    axes.legend(loc="upper right")
    figure.savefig(file, dpi=110)


def draw_distributions(human: StyleMeasures, direct: StyleMeasures, file: Path) -> None:
    """Draw how the values of human and direct answers are distributed."""
    from matplotlib.figure import Figure

    shown = [name for name in SHOWN if name in human.values]
    figure = Figure(figsize=(11, 5), layout="constrained")
    for axes, name in zip(figure.subplots(2, 4).flat, shown, strict=False):
        both = np.concatenate([human[name], direct[name]])
        bins = np.linspace(*np.nanpercentile(both, [0.5, 99.5]), 40)
        for measured, label in ((human, "human"), (direct, "direct")):
            values = measured[name][~np.isnan(measured[name])]
            axes.hist(values, bins, histtype="step", density=True, label=label, linewidth=1.5)
        axes.set_title(MEASURES[name].title.split(",")[0], fontsize=10)
        axes.set_xlabel(MEASURES[name].unit, fontsize=8)
        axes.set_yticks([])
    figure.axes[0].legend()
    for axes in figure.axes[len(shown) :]:
        axes.set_visible(False)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
