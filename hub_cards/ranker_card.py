"""The card of a ranker: the data with its licences, the recipe, the metrics with their intervals, limits and use."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ..loading import resolve_checkpoint
from .manifest_facts import is_hub_id, without_local_folders
from .metadata import license_metadata
from .sections import PAPER, amend, code, escape, headings_of_others, pictures_of, read_card, table

_SECTION, _DATA = "ranker", "What it was trained from"
_TASK, _DATASET = "text-ranking", "scar-triples"  # by the second our results are found again among others
_Z = 1.959964  # of a 95 % interval
_COLUMNS = (
    ("LLM above human", "llm_human", "pairs"),
    ("lengths within 25 %", "length_matched", "length_matched_pairs"),
    ("Markdown stripped", "markdown_stripped", None),
    ("comments stripped", "comments_stripped", None),
    ('"the longer wins"', "longer_wins", None),
)
_PARTS = {"test": "instructions that it was not trained on", "held_out": "sources that were kept from training whole"}


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
    Write the card of a ranker from what training left in its folder, or the part of an existing card between the markers
    `scar-hf:ranker`. What the card has a heading for already, written by hand, is left out there.

    Args:
        ranker (`str` or `Path`): a folder with `config.json`, and `metrics.json` if there is one; or the bundled ranker's name.
        repo_id (`str`, *optional*): where it will be on the Hub.
        licences (`Mapping[str, str]`, *optional*): the licence of each source of the training data, in words.
        license (`str`, *optional*): of the weights, an id of the Hub or a name.
        language (`str` or `Sequence[str]`, *optional*): ISO 639 codes of the training data.
        pictures (`Sequence[tuple(str, str)]`, *optional*): path in the repository and caption of each.
        card (`str` or `Path`, *optional*): text or path of the card that there is, by default README.md in the folder.

    Returns:
        [`~huggingface_hub.ModelCard`]: with the metrics as `model-index`, in metadata that the Hub takes.

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
        raise ValueError(f"{folder} is no ranker: its config.json has the type {config.get('model_type')!r}, expected 'scar'.")
    training = config.get("training") or {}
    metrics = _read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else _metrics_of(training)
    found = read_card(folder / "README.md" if card is None else card, ModelCard)
    name = repo_id or folder.resolve().name
    parts = {
        "What it is for": _use(repo_id or Path(ranker).name, config),
        _DATA: _training(training, licences or {}),
        "How well it orders": _metrics(metrics),
        "Limits": _limits(config, training),
        "Calibration": _calibration(config.get("calibration"), pictures),
    }
    # What somebody has written better is not said twice.
    by_hand = headings_of_others(found, _SECTION) - ({_DATA} if licences else set())
    text = "\n\n".join(f"## {heading}\n\n{part}" for heading, part in parts.items() if part and heading not in by_hand)
    licence = license_metadata(license)
    metadata: dict[str, Any] = {
        **licence,
        "language": [language] if isinstance(language, str) else language,
        "library_name": "transformers",
        "pipeline_tag": _TASK,
        "base_model": training.get("encoder") if is_hub_id(training.get("encoder")) else None,
        "tags": ["scar", "data-selection"],
    }
    results = _model_index(metrics)
    if results:
        others = [result for result in found.data.get("eval_results") or [] if result.dataset_type != _DATASET]
        found.data["eval_results"], found.data["model_name"] = others + results, found.data.get("model_name") or name
        metadata["metrics"] = ["accuracy"]
    return amend(found, _SECTION, text, metadata, (*licence, "language") if language else licence, escape(name.split("/")[-1]))


def wilson(p: float, n: int) -> tuple[float, float]:
    """
    Give the 95 % interval of a share (Wilson), which is honest near 0 and 1 too.

    Args:
        p (`float`): the share, in [0, 1].
        n (`int`): of how many, at least 1.

    Returns:
        `tuple(float, float)`: its ends, in [0, 1].
    """
    centre, square = p + _Z**2 / (2 * n), _Z**2 / n
    half = _Z * math.sqrt(p * (1 - p) / n + square / (4 * n))
    return max(0.0, (centre - half) / (1 + square)), min(1.0, (centre + half) / (1 + square))


def _use(model: str, config: Mapping[str, Any]) -> str:
    example = (
        "from datasets import load_dataset\nfrom scar_hf import ScarScorer, scar_select\n\n"
        f"scorer = ScarScorer.from_pretrained({json.dumps(model)})\n"
        'scorer.score(["What do bees eat?"], ["Bees eat nectar and pollen."])  # higher is better\n\n'
        'ds = load_dataset("databricks/databricks-dolly-15k", split="train")\n'
        f"best = scar_select(ds, k=0.1, model={json.dumps(model)})  # the best tenth, in order"
    )
    encoder = (config.get("encoder_config") or {}).get("model_type")
    return (
        f"A [SCAR]({PAPER}) ranker around an encoder of type `{escape(encoder)}`: it scores how well a "
        "response fits the consistent style in which instruction data teach a language model most, so that the best share of "
        "an instruction set can be kept.\n\n" + code(example, "python")
    )


def _training(training: Mapping[str, Any], licences: Mapping[str, str]) -> str:
    if not training:
        return ""
    facts = [
        ("encoder", escape(training.get("encoder"))),
        ("rows of training data", f"{training.get('rows', 0):,}"),
        ("learning rate", f"{training.get('learning_rate')}"),
        ("epochs", f"{training.get('epochs')}"),
        ("seed", f"{training.get('seed')}"),
    ]
    recipe = without_local_folders(training.get("recipe") or {})
    recipe = {name: value for name, value in recipe.items() if value not in (None, [], {}, 0.0) and name != "rows_per_source"}
    for name, value in recipe.items():
        facts.append((name.replace("_", " "), escape(", ".join(map(str, value)) if isinstance(value, list) else value)))
    sources = training.get("sources") or []
    unknown = set(licences) - set(sources)
    if unknown and sources:
        raise ValueError(f"`licences` names sources that the ranker was not trained on: {sorted(unknown)}; it has {sources}.")
    rows = [(escape(name), escape(licences.get(name, "not stated here"))) for name in sources]
    data = table(("source", "licence"), rows, texts=2) + "\n\n" if rows else ""
    return data + table(("", ""), facts, texts=2)


def _metrics(metrics: Mapping[str, Any]) -> str:
    tables = [
        f"**On {_PARTS.get(part, escape(part))}**\n\n{_metrics_table(values)}"
        for part, values in metrics.items()
        if values.get("all", {}).get("pairs")
    ]
    if not tables:
        return ""
    return (
        "How often an LLM's response scores above a human's to the same instruction, with the 95 % interval (Wilson; pairs "
        "count as independent). All columns are of the same pairs; the last is what preferring the longer response would "
        "reach.\n\n" + "\n\n".join(tables)
    )


def _metrics_table(values: Mapping[str, Any]) -> str:
    def line(name: str, m: Mapping[str, Any]) -> tuple[str, ...]:
        cells = [name, f"{m['pairs']:,}"]
        for _, key, count in _COLUMNS:
            cell = "–" if key not in m else f"{m[key]:.3f}"
            if key in m and count and m.get(count):
                low, high = wilson(m[key], m[count])
                cell += f" ({low:.3f} to {high:.3f})"
            cells.append(cell)
        return tuple(cells)

    lines = [line(f"**{escape(name)}**", m) for name, m in sorted(values.get("domain", {}).items()) if name and m.get("pairs")]
    lines += [line(escape(name), m) for name, m in sorted(values.get("source", {}).items()) if name and m.get("pairs")]
    lines.append(line("**all**", values["all"]))
    mean = f"\n\nMean over sources {values['macro']:.3f}." if "macro" in values else ""
    return table(("", "pairs", *(title for title, _, _ in _COLUMNS)), lines) + mean


def _limits(config: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    length = config.get("max_length")
    lines = [
        f"It reads {length} tokens of the instruction and {length} of the response; what comes after is not read.",
        "It judges style, not truth: a wrong answer in the style that it prefers scores high.",
        "Compare scores within one instruction set and one kind of task; their level differs between kinds.",
    ]
    if training:
        lines.append("On data and languages unlike those it was trained on, scores mean less; measure before you rely on them.")
    return "\n".join(f"- {line}" for line in lines)


def _calibration(calibration: Mapping[str, Any] | None, pictures: Sequence[tuple[str, str]]) -> str:
    if not calibration:
        return pictures_of(pictures)
    quantiles = calibration["quantiles"]
    at = [
        (f"{share:.0%}", f"{quantiles[round((1 - share) * (len(quantiles) - 1))]:.3f}")
        for share in (0.5, 0.25, 0.1, 0.05, 0.01)
    ]
    text = (
        f"`config.calibration` has {len(quantiles):,} quantiles of its scores over "
        f"{calibration['num_rows']:,} rows ({escape(calibration['data'])}), to turn a share into a threshold where a set "
        "cannot be ranked whole.\n\n"
    )
    return "\n\n".join(filter(None, (text + table(("share kept", "threshold"), at), pictures_of(pictures))))


def _model_index(metrics: Mapping[str, Any]) -> list[EvalResult]:
    results = []
    for part, values in metrics.items():
        groups = [(None, values.get("all", {})), *sorted(values.get("source", {}).items())]
        for source, m in groups:
            if not m.get("pairs"):
                continue
            low, high = wilson(m["llm_human"], m["pairs"])
            results.append(
                EvalResult(
                    task_type=_TASK,
                    task_name="Ordering an LLM's response above a human's",
                    dataset_type=_DATASET,
                    dataset_name=source or f"All sources, {_PARTS.get(part, part)}",
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
    """The metrics that a config has: those over all rows."""
    found = training.get("metrics") or {}
    return {
        part: {"all": values, **({"macro": values["macro"]} if "macro" in values else {})} for part, values in found.items()
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): expected the folder of a ranker.") from error
