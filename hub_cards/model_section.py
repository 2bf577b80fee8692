"""The section "Data selection" of the card of a model that was fine-tuned on a selection."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .manifest_facts import choice_facts, hub_id, ranker_facts, share, without_local_folders
from .sections import PAPER, amend_card, escape, table

SECTION = "selection"


def model_section(manifest: Mapping[str, Any]) -> str:
    """
    Tell what a model was fine-tuned on.

    Args:
        manifest (`Mapping`): of the selection, from `ScarRanking.manifest` or `manifest.json`.

    Returns:
        `str`: Markdown.
    """
    manifest = without_local_folders(manifest)
    counts, options = manifest["selection"], manifest.get("options", {})
    rows, kept = counts["rows"], counts.get("kept", counts["rows"])
    threshold = counts.get("threshold")
    facts = [
        ("Data", escape(manifest["data"])),
        ("Rows that came in", f"{rows:,}"),
        ("Rows trained on", f"{kept:,} ({share(kept, rows)})"),
        ("Rows without a score, left out", f"{counts.get('skipped', 0):,}"),
        ("Rows that curation left out", f"{counts.get('dropped', 0):,}"),
        ("k", escape(options.get("k"))),
        *choice_facts(manifest),
        ("Lowest score kept", "-" if threshold is None else f"{threshold:.4f}"),
        *ranker_facts(manifest),
        ("scar-hf", escape(manifest["versions"]["scar-hf"])),
    ]
    return (
        "## Data selection\n\n"
        f"Of the training data, the rows were kept whose responses a [SCAR]({PAPER}) ranker scored highest for consistency of "
        "style. Nothing was changed in them.\n\n" + table(("", ""), facts, texts=2) + "\n"
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
