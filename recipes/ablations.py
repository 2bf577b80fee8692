"""
Run the paper's ablations on your own data: measure what each part of the training and of the style representation adds.

    python recipes/ablations.py --data_dir data --files pairs.jsonl triples_rewrites.jsonl --encoder ENCODER -o out/ablations

Trains a small ranker for each experiment and seed, all on the same instructions, and measures them on the same held-out
instructions. Each result is a separate JSON file, so that an interrupted run can resume. Writes `ablations.md`, a table, and
`ablations.png`.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoTokenizer, set_seed
from transformers.utils import logging as transformers_logging

from scar_hf import ScarConfig, ScarModel, ScarScorer
from scar_hf.style.causal_lm import lm_identity
from scar_hf.training import (
    ScarTrainer,
    ScarTrainingArguments,
    Triple,
    TripleDataset,
    evaluate_ranker,
    load_triples,
    split_by_prompt,
)
from scar_hf.training.evaluation import METRICS

COLUMNS = (
    "llm_human",
    "direct_referenced",
    "referenced_human",
    "length_matched",
    "cross_instruction",
    "right_question_llm",
    "refusal_below_llm",
)
IN_FIGURE = ("llm_human", "length_matched", "cross_instruction")
# The paper's architecture, with optimiser settings for few rows on a CPU. --config overrides any of them.
RANKER: dict[str, Any] = {"use_pooler": False, "max_length": 256}
TRAINING: dict[str, Any] = {
    "num_train_epochs": 1,
    "learning_rate": 1e-4,
    "head_learning_rate": 5e-4,
    "per_device_train_batch_size": 16,
    "response_max_length": 192,
    "instruction_max_length": 64,
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


class FormOnly(ScarModel):
    """A ranker without instructional surprisal."""

    def rank(self, instruction, response, linguistic_form):
        _, surprisal = super().rank(instruction, response, linguistic_form)
        nothing = torch.zeros_like(surprisal)
        return self.score_head(torch.cat([nothing, linguistic_form], dim=-1)).squeeze(-1), nothing


class SurprisalOnly(ScarModel):
    """A ranker without linguistic form."""

    def rank(self, instruction, response, linguistic_form):
        return super().rank(instruction, response, torch.zeros_like(linguistic_form))


@dataclass(frozen=True)
class Experiment:
    """
    An experiment, which usually removes one part.

    Args:
        title (`str`): name in the table.
        options (`dict`): options of the ranker's config.
        model (`type`): class of the ranker.
        without (`str`, *optional*): a kind of response to leave out of training.
        domain (`str`, *optional*): the only domain to train on.
        needs_ratings (`bool`): whether the experiment only has an effect if rows have ratings.
    """

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    model: type[ScarModel] = ScarModel
    without: str | None = None
    domain: str | None = None
    needs_ratings: bool = False

    def rows(self, triples: Iterable[Triple]) -> list[Triple]:
        """Return the rows to train on."""
        kept = []
        for triple in triples:
            responses = {kind: texts for kind, texts in triple.responses.items() if kind != self.without}
            if len(responses) >= 2 and self.domain in (None, triple.domain):
                kept.append(replace(triple, responses=responses))
        return kept


EXPERIMENTS = {
    "whole": Experiment("all parts"),
    "no_triplet_losses": Experiment("without triplet losses", {"triplet_weight": 0.0}),
    "no_quality_constraint": Experiment("without quality constraint", {"sigma": -1.0}, needs_ratings=True),
    "no_referenced": Experiment("without referenced responses", without="referenced"),
    "no_surprisal": Experiment("without instructional surprisal", model=FormOnly),
    "no_form": Experiment("without linguistic form", model=SurprisalOnly),
    "code_only": Experiment("trained on code only", domain="code"),
    "open_only": Experiment("trained on open domain only", domain="open"),
}


def read_rows(files: Sequence[Path], rows: int) -> list[Triple]:
    """Read at most `rows` rows, evenly from all sources, complete triples first. All domains but code count as open."""
    by_source: dict[str, list[Triple]] = defaultdict(list)
    for path in files:
        for triple in load_triples(path):
            by_source[triple.source].append(replace(triple, domain="code" if triple.domain == "code" else "open"))
    cap = max((n for n in range(rows + 1) if sum(min(n, len(found)) for found in by_source.values()) <= rows), default=0)
    if not cap:
        raise ValueError(f"--rows {rows} is less than one row for each of {len(by_source)} sources.")
    return [t for found in by_source.values() for t in sorted(found, key=lambda t: -len(t.responses))[:cap]]


def read_settings(config: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the rankers and of their training, including those of a YAML file."""
    given = yaml.safe_load(config.read_text(encoding="utf-8")) if config else {}
    if not isinstance(given, dict):
        raise ValueError(f"{config} must map options to values, got {type(given).__name__}.")
    names = {f.name for f in fields(ScarConfig)}
    ranker = RANKER | {name: value for name, value in given.items() if name in names}
    training = TRAINING | {name: value for name, value in given.items() if name not in names}
    unknown = set(training) - {f.name for f in fields(ScarTrainingArguments)}
    if unknown:
        raise ValueError(f"{config} has options of neither ScarConfig nor ScarTrainingArguments: {sorted(unknown)}.")
    return ranker, training


def run_cell(
    experiment: Experiment,
    seed: int,
    encoder: str,
    settings: tuple[Mapping[str, Any], Mapping[str, Any]],
    parts: Sequence[Sequence[Triple]],
) -> dict[str, Any]:
    """Train and measure one ranker, without keeping it."""
    train, test = experiment.rows(parts[0]), list(parts[1])
    started = time.perf_counter()
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = experiment.model.from_encoder(encoder, ScarConfig(**{**settings[0], **experiment.options}))
    for module in model.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # training on a CPU is three times faster without dropout
    with TemporaryDirectory(prefix="scar-hf-") as folder:
        arguments = ScarTrainingArguments(folder, seed=seed, **settings[1])
        trainer = ScarTrainer(model, arguments, TripleDataset(train, seed=seed), processing_class=tokenizer)
        trainer.train()
    metrics = evaluate_ranker(ScarScorer.from_model(trainer.merged_ranker().eval(), tokenizer), test)
    seconds = round(time.perf_counter() - started, 1)
    return {"seed": seed, "rows": len(train), "test_rows": len(test), "seconds": seconds, "metrics": metrics}


def run_cells(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Run the missing cells, and return the cells of each experiment, one per seed."""
    settings = read_settings(args.config)
    triples = read_rows([args.data_dir / name for name in args.files], args.rows)
    parts = split_by_prompt(triples, (0.75, 0.25), seed=0)
    if not all(parts):
        raise ValueError(f"{len(triples)} rows are too few to train and to test on.")
    data, encoder = sha256(repr(triples).encode()).hexdigest(), lm_identity(args.encoder)
    rated = any(triple.ratings for triple in triples)
    out: dict[str, list[dict[str, Any]]] = {}
    for name in args.only or EXPERIMENTS:
        experiment = EXPERIMENTS[name]
        if experiment.needs_ratings and not rated:
            print(f"{name}: left out, no row has ratings")
            continue
        if not experiment.rows(parts[0]):
            print(f"{name}: left out, no row to train on")
            continue
        out[name] = []
        for seed in args.seeds:
            what = json.dumps([encoder, settings, dict(experiment.options), seed, data], sort_keys=True)
            path = args.output / f"{name}-{seed}-{sha256(what.encode()).hexdigest()[:10]}.json"
            if not path.exists():
                cell = {"experiment": name, **run_cell(experiment, seed, args.encoder, settings, parts)}
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
                partial.replace(path)
            cell = json.loads(path.read_text(encoding="utf-8"))
            out[name].append(cell)
            all_rows = cell["metrics"]["all"]
            shown = ", ".join(f"{column} {all_rows[column]:.3f}" for column in IN_FIGURE if column in all_rows)
            print(f"{name}, seed {seed}: {cell['rows']} rows, {cell['seconds']:.0f} s; {shown}", flush=True)
    return out


def summary(cells: Sequence[Mapping[str, Any]], metric: str, *group: str) -> tuple[float, float, float, float] | None:
    """Return the mean over seeds, its interval over instructions, and the standard deviation; `None` if not measured."""
    found = []
    for cell in cells:
        shares, intervals = cell["metrics"], cell["metrics"]["intervals"]
        for key in group:
            shares, intervals = shares.get(key, {}), intervals.get(key, {})
        if metric in shares:
            found.append((shares[metric], *intervals[metric]))
    if not found:
        return None
    values = np.array(found)
    spread = float(values[:, 0].std(ddof=1)) if len(values) > 1 else float("nan")
    return (*map(float, values.mean(axis=0)), spread)  # type: ignore[return-value]


def markdown(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Format tables of the ablations over all held-out rows, and of training domains against test domains."""
    tables = []
    for groups in (("all",), ("domain", "code"), ("domain", "open")):
        titles = {("all",): "all rows", ("domain", "code"): "code", ("domain", "open"): "open domain"}
        names = [name for name in results if groups == ("all",) or name in ("whole", "code_only", "open_only")]
        columns = [c for c in COLUMNS if any(summary(results[name], c, *groups) for name in names)]
        if not columns:
            continue
        lines = [f"| tested on {titles[groups]} | rows | " + " | ".join(METRICS[c] for c in columns) + " |"]
        lines.append("|---|---:|" + "---:|" * len(columns))
        for name in names:
            cells = [_cell(summary(results[name], column, *groups)) for column in columns]
            lines.append(f"| {EXPERIMENTS[name].title} | {results[name][0]['rows']:,} | " + " | ".join(cells) + " |")
        tables.append("\n".join(lines))
    seeds = max(len(cells) for cells in results.values())
    note = f"Means of {seeds} seeds with 95 % intervals over instructions; ± is the standard deviation over seeds."
    return "\n\n".join([*tables, note])


def _cell(found: tuple[float, float, float, float] | None) -> str:
    if found is None:
        return "–"
    value, low, high, spread = found
    return f"{value:.3f} ({low:.3f}–{high:.3f})" + ("" if np.isnan(spread) else f" ± {spread:.3f}")


def draw(results: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw the main metrics by experiment, with intervals over instructions and a dot for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(results)
    figure, panels = plt.subplots(1, len(IN_FIGURE), figsize=(11, 0.42 * len(names) + 1.4), sharey=True, layout="constrained")
    for panel, metric in zip(panels, IN_FIGURE, strict=True):
        for place, name in enumerate(names):
            found = summary(results[name], metric, "all")
            if found is None:
                continue
            value, low, high, _ = found
            panel.plot([low, high], [place, place], color="0.7", linewidth=5, solid_capstyle="round", zorder=1)
            seeds = [cell["metrics"]["all"][metric] for cell in results[name] if metric in cell["metrics"]["all"]]
            panel.scatter(seeds, [place] * len(seeds), s=14, color="tab:blue", zorder=3)
            panel.scatter([value], [place], marker="|", s=120, color="black", zorder=2)
        base = summary(results["whole"], metric, "all") if "whole" in results else None
        if base is not None:
            panel.axvline(base[0], color="0.4", linestyle=":", linewidth=1, zorder=0)
        panel.set_title(METRICS[metric], fontsize=10)
        panel.grid(axis="x", color="0.92")
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), [EXPERIMENTS[name].title for name in names])
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the missing cells, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path("."), help="folder that the files are in")
    parser.add_argument("--files", nargs="+", required=True, help="triples, as scar-hf train reads them")
    parser.add_argument("--encoder", required=True, help="folder or Hub id of the encoder")
    parser.add_argument("--rows", type=int, default=1000, help="rows for training and testing together (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[13, 14, 15], help="one ranker each (default: 13 14 15)")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), help="some of the experiments")
    parser.add_argument("--config", type=Path, help="YAML file with settings of ScarConfig and ScarTrainingArguments")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the cells, the table and the figure")
    args = parser.parse_args(argv)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    args.output.mkdir(parents=True, exist_ok=True)
    results = run_cells(args)
    table = markdown(results)
    (args.output / "ablations.md").write_text(table + "\n", encoding="utf-8")
    draw(results, args.output / "ablations.png")
    print(f"\n{table}")


if __name__ == "__main__":
    main()
