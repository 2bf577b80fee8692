"""Records a selection in the logs, checkpoints and model card of a training run."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from ..hub_cards import amend_model_card
from ..ranking import ScarRanking
from ..selecting.criteria import Criteria
from ..selection import Selection
from .stored_selection import read_selection, write_selection

logger = logging.getLogger(__name__)
_QUANTILES = (0.1, 0.5, 0.9)


class ScarSelectionCallback(TrainerCallback):
    r"""
    Logs the selection to the active trackers, stores its manifest and scores in every checkpoint, and adds a section "Data
    selection" to the model card when training ends. Trainers with [`SelectionCardMixin`], such as [`ScarSFTTrainer`], also
    keep the section whenever they rewrite the card.

    Args:
        trainer ([`~transformers.Trainer`]): the trainer; its `log` method is used for logging.
        selection ([`~scar_hf.selection.Selection`], [`ScarRanking`], `dict` or `str`):
            The selection to train on, its ranking, its manifest, or the path of its manifest on disk.
        k ([`~scar_hf.selecting.criteria.Criteria`], `float` or `int`, *optional*): the criteria; required with a ranking.
        too_long (`int`, *optional*, defaults to 0): selected rows that are dropped because their prompts fill `max_length`.

    Raises:
        `ValueError`: if `k` is missing with a ranking, or the manifest is invalid.

    Example:

    ```python
    >>> ranking = scar_rank(ds)
    >>> trainer = SFTTrainer(model, train_dataset=ranking.top(0.1))
    >>> trainer.add_callback(ScarSelectionCallback(trainer, ranking, k=0.1))
    ```
    """

    def __init__(
        self,
        trainer: Trainer,
        selection: Selection | ScarRanking | dict[str, Any] | str | Path,
        k: Criteria | float | None = None,
        too_long: int = 0,
    ) -> None:
        self.trainer = trainer
        if isinstance(selection, ScarRanking):
            if k is None:
                raise ValueError("Pass `k` with a ranking: the criteria of the selection, as in ranking.top(k).")
            selection = selection.select(k)
        self.selection = selection if isinstance(selection, Selection) else None
        if isinstance(selection, Selection):
            self.manifest, self.metrics = selection.manifest, selection_metrics(selection)
        else:
            self.manifest = selection if isinstance(selection, dict) else read_selection(selection)
            counts = self.manifest.get("selection", {})
            names = [name for name in ("rows", "kept", "threshold") if counts.get(name) is not None]
            self.metrics = {f"scar/{name}": float(counts[name]) for name in names}
        if too_long:
            self.manifest, self.metrics["scar/too_long"] = {**self.manifest, "too_long": too_long}, float(too_long)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log the selection, once per run, even if the run is resumed."""
        if not any("scar/kept" in entry for entry in state.log_history):
            self.trainer.log(dict(self.metrics))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Store the manifest in the checkpoint, and update its card, if any."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir or ".", f"checkpoint-{state.global_step}")
            if folder.is_dir():
                write_selection(folder, self.manifest, self.selection)
                self._amend(folder / "README.md")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Update the model's card one last time."""
        self.amend_card(args.output_dir)

    def on_push_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Update the card before it is uploaded."""
        self.amend_card(args.output_dir)

    def amend_card(self, folder: str | Path | None = None) -> None:
        """
        Add or replace the section "Data selection" in a model's card.

        Args:
            folder (`str` or `Path`, *optional*, defaults to the trainer's `output_dir`): the folder of the card.
        """
        card = Path(folder or self.trainer.args.output_dir or ".", "README.md")
        if self.trainer.is_world_process_zero() and card.is_file():
            self._amend(card)

    def _amend(self, card: Path) -> None:
        try:
            amend_model_card(card, self.manifest)
        except (OSError, ValueError) as error:  # no reason to lose a run
            logger.warning("The section on the selection is missing in %s: %s", card, error)


class SelectionCardMixin:
    r"""
    Keeps the section of a [`ScarSelectionCallback`] in a trainer's model card. TRL rewrites the card at each push and PEFT at
    each save, and neither triggers a trainer event afterwards.

    Example:

    ```python
    >>> class MyTrainer(SelectionCardMixin, DPOTrainer): ...
    ```
    """

    callback_handler: CallbackHandler

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the model's card, including the selection."""
        super().create_model_card(*args, **kwargs)  # type: ignore[misc]
        self._amend_cards(None)

    def save_model(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Save the model, and update the card that PEFT writes."""
        super().save_model(output_dir, *args, **kwargs)  # type: ignore[misc]
        self._amend_cards(output_dir)

    def _amend_cards(self, folder: str | None) -> None:
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ScarSelectionCallback):
                callback.amend_card(folder)


def selection_metrics(selection: Selection) -> dict[str, float]:
    """
    Return the metrics of a selection for trackers.

    Args:
        selection ([`~scar_hf.selection.Selection`]): the selection.

    Returns:
        `dict[str, float]`: counts, threshold, and mean and deciles of the scores of all rows and of those kept.
    """
    every = selection.scored.scores
    metrics = {
        "scar/rows": float(len(every)),
        "scar/kept": float(len(selection)),
        "scar/skipped": float(len(selection.scored.skipped)),
        "scar/threshold": selection.threshold,
    }
    for name, scores in (("all", every[np.isfinite(every)]), ("kept", every[selection.indices])):
        if len(scores):
            metrics[f"scar/score_{name}_mean"] = float(scores.mean())
            metrics |= {f"scar/score_{name}_q{q * 100:.0f}": float(np.quantile(scores, q)) for q in _QUANTILES}
    return metrics
