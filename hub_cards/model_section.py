"""The section "Data selection" of the card of a model that was fine-tuned on a selection."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .sections import amend_card, escape, table

SECTION = "selection"
_PAPER = "https://arxiv.org/abs/2406.10882"


def model_section(manifest: Mapping[str, Any]) -> str:
    """
    Tell what a model was fine-tuned on.

    Args:
        manifest (`Mapping`): of the selection, from `ScarRanking.manifest` or `manifest.json`.

    Returns:
        `str`: Markdown.
    """
    counts, ranker, options = manifest["selection"], manifest["ranker"], manifest.get("options", {})
    rows, kept = counts["rows"], counts.get("kept", counts["rows"])
    threshold = counts.get("threshold")
    share = f" ({kept / rows:.1%})" if rows else ""
    facts = [
        ("Data", escape(manifest["data"])),
        ("Rows that came in", f"{rows:,}"),
        ("Rows trained on", f"{kept:,}{share}"),
        ("Rows without a score, left out", f"{counts.get('skipped', 0):,}"),
        ("k", escape(options.get("k"))),
        ("Lowest score kept", "-" if threshold is None else f"{threshold:.4f}"),
        ("Ranker", escape(ranker["model"]) + (f" at {escape(ranker['revision'])}" if ranker.get("revision") else "")),
        ("Its weights, SHA-256 or commit", f"`{str(ranker.get('weights') or 'unknown')[:16]}`"),
        ("scar-hf", escape(manifest["versions"]["scar-hf"])),
    ]
    return (
        "## Data selection\n\n"
        f"Of the training data, the rows were kept whose responses a [SCAR]({_PAPER}) ranker scored highest for consistency of "
        "style. Nothing was changed in them.\n\n" + table(("", ""), facts) + "\n"
    )


def amend_model_card(path: str | Path, manifest: Mapping[str, Any]) -> None:
    """
    Put the section, and the dataset into the metadata, into a model's card.

    Args:
        path (`str` or `Path`): its README.md; made if there is none.
        manifest (`Mapping`): as for [`model_section`].
    """
    metadata: dict[str, Any] = {"tags": ["scar", "data-selection"]}
    # Only what can be an id on the Hub may stand there.
    dataset = hub_id(manifest)
    if dataset:
        metadata["datasets"] = [dataset]
    amend_card(path, SECTION, model_section(manifest), metadata)


def hub_id(manifest: Mapping[str, Any]) -> str | None:
    """The id on the Hub of the data that a selection was made of; `None` if it was not from there."""
    for entry in manifest.get("inputs", []):
        for file in entry.get("files", []):
            if file.startswith("hf://datasets/"):
                return file.removeprefix("hf://datasets/").split("@")[0]
    return None
