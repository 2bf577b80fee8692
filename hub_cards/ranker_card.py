"""The card of a ranker: its data with licences, recipe, metrics with intervals, limitations and use."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ..files import without_local_folders
from ..scoring.checkpoints import resolve_checkpoint
from ..training.evaluation import METRICS
from .metadata import drop_another_license, is_hub_id, license_metadata
from .sections import Markdown, amend, code, escape, headings_of_others, read_card, render

# The name that identifies our results in the Hub's metadata.
_TASK, _DATASET = "text-ranking", "scar-triples"
_Z = 1.959964  # for a 95 % interval
# The metrics in the tables, named as in evaluations.
_COLUMNS = (
    *("llm_human", "length_matched", "markdown_stripped", "comments_stripped", "longer_wins", "cross_instruction"),
    *("refusal_below_human", "refusal_below_llm", "right_question_human", "right_question_llm", "truncated_below"),
)
# Metrics from earlier versions have no intervals; a Wilson interval needs the number of comparisons.
_COUNTS = {"llm_human": "pairs", "length_matched": "length_matched_pairs"}
_PARTS = {"test": "instructions held out from training", "held_out": "sources held out from training"}
# Headings of the template's sections.
_SECTIONS = {
    "uses": "Uses",
    "training": "Training data",
    "evaluation": "Evaluation",
    "limitations": "Limitations",
    "calibration": "Calibration",
}
_CALIBRATED_SHARES = (0.5, 0.25, 0.1, 0.05, 0.01)


def ranker_card(
    ranker: str | Path,
    *,
    repo_id: str | None = None,
    licences: Mapping[str, str] | None = None,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    pictures: Sequence[tuple[str, str]] = (),
    card: str | Path | None = None,
) -> ModelCard:
    """
    Write the card of a ranker from the files in its folder, or update the part between the markers `scar-hf:ranker` in an
    existing card. Sections whose headings the existing card already has are left out.

    Args:
        ranker (`str` or `Path`): a folder with `config.json`, and optionally `metrics.json`; or the bundled ranker's name.
        repo_id (`str`, *optional*): id that the ranker will have on the Hub.
        licences (`Mapping[str, str]`, *optional*): the licence of each source of the training data, in words.
        license (`str`, *optional*): licence of the weights, a Hub id or a name.
        language (`str` or `Sequence[str]`, *optional*): ISO 639 codes of the training data.
        pictures (`Sequence[tuple(str, str)]`, *optional*): path in the repository and caption of each.
        card (`str` or `Path`, *optional*): text or path of an existing card; defaults to README.md in the folder.

    Returns:
        [`~huggingface_hub.ModelCard`]: with the metrics as `model-index`, in metadata that the Hub accepts.

    Raises:
        `ValueError`: if the folder has no readable `config.json` of a ranker, or the card's metadata cannot be read.

    Example:

    ```python
    >>> ranker_card("my-ranker", license="apache-2.0", licences={"dolly": "CC BY-SA 3.0"}).save("my-ranker/README.md")
    ```
    """
    folder = Path(resolve_checkpoint(str(ranker)))
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "scar":
        raise ValueError(
            f"{folder} is not a ranker: its config.json has the type {config.get('model_type')!r}, expected 'scar'."
        )
    training = config.get("training") or {}
    metrics = _read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else _metrics_of(training)
    found = read_card(folder / "README.md" if card is None else card, ModelCard)
    name = repo_id or folder.resolve().name
    calibration = _calibration(config.get("calibration"))
    evaluations = _evaluations(metrics)
    exists = {"uses": True, "training": bool(training), "evaluation": bool(evaluations), "limitations": True}
    exists |= {"calibration": calibration is not None}
    # Sections written by hand take precedence.
    by_hand = headings_of_others(found, "ranker") - ({_SECTIONS["training"]} if licences else set())
    licence, results = license_metadata(license), _model_index(metrics)
    metadata: dict[str, Any] = {
        **licence,
        "language": [language] if isinstance(language, str) else language,
        "library_name": "transformers",
        "pipeline_tag": _TASK,
        "base_model": training.get("encoder") if is_hub_id(training.get("encoder")) else None,
        "tags": ["scar", "data-selection"],
    }
    if results:
        others = [result for result in found.data.get("eval_results") or [] if result.dataset_type != _DATASET]
        metadata |= {"eval_results": others + results, "model_name": found.data.get("model_name") or name}
        metadata["metrics"] = ["accuracy"]
    drop_another_license(found, licence)
    rendered = render(
        ModelCard,
        "ranker",
        metadata,
        title=name.split("/")[-1],
        write={section: exists[section] and heading not in by_hand for section, heading in _SECTIONS.items()},
        encoder=str((config.get("encoder_config") or {}).get("model_type")),
        example=code(_example(repo_id or Path(ranker).name), "python"),
        sources=_sources(training, licences or {}),
        facts=_facts(training) if training else [],
        columns=[METRICS[metric] for metric in _measured(metrics)],
        measured=_measured(metrics),
        intervals=any("intervals" in values for values in metrics.values()),
        evaluations=evaluations,
        max_length=str(config.get("max_length")),
        trained=bool(training),
        calibration=calibration,
        pictures=[(Markdown(path), caption) for path, caption in pictures],
    )
    return amend(found, rendered, {*licence, "eval_results", *(("language",) if language else ())})


def wilson(p: float, n: int) -> tuple[float, float]:
    """
    Compute the 95 % Wilson interval of a share, which also holds near 0 and 1.

    Args:
        p (`float`): the share, in [0, 1].
        n (`int`): the number of observations, at least 1.

    Returns:
        `tuple(float, float)`: its ends, in [0, 1].
    """
    centre, square = p + _Z**2 / (2 * n), _Z**2 / n
    half = _Z * math.sqrt(p * (1 - p) / n + square / (4 * n))
    return max(0.0, (centre - half) / (1 + square)), min(1.0, (centre + half) / (1 + square))


def _example(model: str) -> str:
    return (
        "from datasets import load_dataset\nfrom scar_hf import ScarScorer, scar_select\n\n"
        f"scorer = ScarScorer.from_pretrained({json.dumps(model)})\n"
        'scorer.score(["What do bees eat?"], ["Bees eat nectar and pollen."])  # higher is better\n\n'
        'ds = load_dataset("databricks/databricks-dolly-15k", split="train")\n'
        f"best = scar_select(ds, k=0.1, model={json.dumps(model)})  # the best tenth, in the original order"
    )


def _sources(training: Mapping[str, Any], licences: Mapping[str, str]) -> list[tuple[str, str]]:
    sources = training.get("sources") or []
    unknown = set(licences) - set(sources)
    if unknown and sources:
        raise ValueError(f"`licences` names sources that the ranker was not trained on: {sorted(unknown)}; it has {sources}.")
    return [(str(name), str(licences.get(name, "not stated here"))) for name in sources]


def _facts(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    origins = [(name, training[name]) for name in ("encoder", "teacher", "converted_from") if training.get(name)]
    facts = [(name.replace("_", " "), str(without_local_folders(origin))) for name, origin in origins]
    if training.get("rows") is not None:
        facts.append(("rows of training data", f"{training['rows']:,}"))
    numbers = [name for name in ("learning_rate", "epochs", "seed") if training.get(name) is not None]
    facts += [(name.replace("_", " "), str(training[name])) for name in numbers]
    for name, value in without_local_folders(training.get("recipe") or {}).items():
        if value not in (None, [], {}, 0.0) and name != "rows_per_source":
            facts.append((name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return facts


def _measured(metrics: Mapping[str, Any]) -> list[str]:
    """Return the columns that occur in at least one part."""
    return [metric for metric in _COLUMNS if any(metric in values.get("all", {}) for values in metrics.values())]


def _evaluations(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "title": _PARTS.get(part, part),
            "rows": _evaluation_rows(values, _measured(metrics)),
            "macro": Markdown(f"{values['macro']:.3f}") if "macro" in values else None,
        }
        for part, values in metrics.items()
        if values.get("all", {}).get("pairs")
    ]


def _evaluation_rows(values: Mapping[str, Any], columns: Sequence[str]) -> list[tuple[str, ...]]:
    intervals = values.get("intervals", {})

    def row(name: str, m: Mapping[str, Any], ends: Mapping[str, Any], bold: bool = False) -> tuple[str, ...]:
        cells = [Markdown(f"**{escape(name)}**") if bold else name, Markdown(f"{m['pairs']:,}")]
        for metric in columns:
            cell = "–" if metric not in m else f"{m[metric]:.3f}"
            found = _interval(metric, m, ends)
            cells.append(Markdown(cell if found is None else f"{cell} ({found[0]:.3f} to {found[1]:.3f})"))
        return tuple(cells)

    rows = [
        row(name, m, intervals.get(kind, {}).get(name, {}), bold=kind == "domain")
        for kind in ("domain", "source")
        for name, m in sorted(values.get(kind, {}).items())
        if name and m.get("pairs")
    ]
    return [*rows, row("all", values["all"], intervals.get("all", {}), bold=True)]


def _interval(metric: str, m: Mapping[str, Any], ends: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the interval over instructions; if none was measured, the Wilson interval over pairs."""
    if metric in ends:
        low, high = ends[metric]
        return low, high
    count = m.get(_COUNTS.get(metric, ""))
    return wilson(m[metric], count) if metric in m and count else None


def _calibration(calibration: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not calibration:
        return None
    quantiles = calibration["quantiles"]
    at = [(share, quantiles[round((1 - share) * (len(quantiles) - 1))]) for share in _CALIBRATED_SHARES]
    return {
        "quantiles": Markdown(f"{len(quantiles):,}"),
        "num_rows": Markdown(f"{calibration['num_rows']:,}"),
        "data": str(calibration["data"]),
        "thresholds": [(Markdown(f"{share:.0%}"), Markdown(f"{threshold:.3f}")) for share, threshold in at],
    }


def _model_index(metrics: Mapping[str, Any]) -> list[EvalResult]:
    results = []
    for part, values in metrics.items():
        groups = [(None, values.get("all", {})), *sorted(values.get("source", {}).items())]
        intervals = values.get("intervals", {})
        for source, m in groups:
            if not m.get("pairs"):
                continue
            ends = intervals.get("all", {}) if source is None else intervals.get("source", {}).get(source, {})
            low, high = _interval("llm_human", m, ends) or (0.0, 1.0)
            results.append(
                EvalResult(
                    task_type=_TASK,
                    task_name="Ordering an LLM's response above a human's",
                    dataset_type=_DATASET,
                    dataset_name=source or f"All {_PARTS.get(part, part)}",
                    dataset_config=source,
                    dataset_split=part,
                    metric_type="accuracy",
                    metric_name=f"Pairwise accuracy, 95 % interval {low:.3f} to {high:.3f}",
                    metric_value=round(m["llm_human"], 4),
                    metric_args={"pairs": m["pairs"], "low": round(low, 4), "high": round(high, 4)},
                )
            )
    return results


def _metrics_of(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics over all rows from a config."""
    found = training.get("metrics") or {}
    return {
        part: {"all": values, **({"macro": values["macro"]} if "macro" in values else {})} for part, values in found.items()
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): expected the folder of a ranker.") from error
