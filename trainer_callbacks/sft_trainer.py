"""An `SFTTrainer` that selects its training data."""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, IterableDataset
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from ..methods import read_method
from ..ranking import ScarRanking, scar_rank
from ..rows.formats import PREFERENCE, formats_of
from ..rows.pairs import PairReader
from ..rows.sft import to_sft_format
from ..scoring.datasets import with_scores
from ..scoring.scorer import SCORE_COLUMN
from ..selecting.criteria import Criteria, count_of
from ..selecting.top_k import check_selected
from ..selection import Selection
from .arguments import ScarArguments
from .curriculum import ScarCurriculumSampler
from .data_collator import WEIGHT_KEY, ScarDataCollator, check_collator
from .selection_callback import ScarSelectionCallback, SelectionCardMixin
from .stored_selection import check_same_selection, stored_ranking

logger = logging.getLogger(__name__)


class ScarSFTTrainer(SelectionCardMixin, SFTTrainer):
    r"""
    [`~trl.SFTTrainer`] that trains on the best rows of its training data. The main process ranks the data once, before
    tokenisation. Evaluation data is not filtered. Formats that `SFTTrainer` does not accept (Vicuna, Alpaca, Dolly) are
    converted.

    Args:
        args, kwargs:
            All arguments of [`~trl.SFTTrainer`]. With a [`ScarDataCollator`], rows are selected within each batch instead;
            this is required if `train_dataset` is a stream.
        scar_args ([`ScarArguments`], *optional*):
            Arguments for the selection; by default, the best tenth by the bundled ranker.

    Attributes:
        scar_ranking ([`ScarRanking`]): the ranking of all rows; `None` with a [`ScarDataCollator`].
        scar_selection ([`~scar_hf.selection.Selection`]): the selection; `None` with a [`ScarDataCollator`].
        scar_too_long (`int`): number of selected rows that `SFTTrainer` dropped because their prompts fill `max_length`;
            also logged as `scar/too_long`.

    Raises:
        `TypeError`: if `train_dataset` is a stream and there is no [`ScarDataCollator`].
        `ValueError`: if settings contradict each other, or a checkpoint to resume from was trained on another selection.

    Example:

    ```python
    >>> from scar_hf.trainer_callbacks import ScarArguments, ScarSFTTrainer

    >>> trainer = ScarSFTTrainer("HuggingFaceTB/SmolLM2-135M", train_dataset=ds, scar_args=ScarArguments(scar_k=0.1))
    >>> trainer.train()
    ```
    """

    data_collator: Any
    _train_batch_size: int

    def __init__(self, *args: Any, scar_args: ScarArguments | None = None, **kwargs: Any) -> None:
        bound = inspect.signature(SFTTrainer.__init__).bind(self, *args, **kwargs)
        given = {name: value for name, value in bound.arguments.items() if name != "self"}
        config = given.get("args")
        if config is None:  # as in SFTTrainer, but before ranking, because it sets up distributed processes
            model = given.get("model")
            name = model if isinstance(model, str) else getattr(getattr(model, "config", None), "_name_or_path", "")
            config = given["args"] = SFTConfig(f"{Path(str(name)).name}-SFT")
        elif not isinstance(config, SFTConfig):  # as SFTTrainer does with plain TrainingArguments
            values = {name: value for name, value in config.to_dict().items() if name != "push_to_hub_token"}
            config = given["args"] = SFTConfig(**(values | {"hub_token": config.hub_token}))
        self.scar_args = scar_args or ScarArguments()
        self.scar_ranking: ScarRanking | None = None
        self.scar_selection: Selection | None = None
        self.scar_too_long = 0
        preparing: Any = config.dataset_kwargs or {}  # a string only before SFTConfig parses it
        prepared = preparing.get("skip_prepare_dataset", False)
        self._reads_rows_itself = prepared or given.get("formatting_func") is not None
        self._text_field = config.dataset_text_field
        collator, ds = given.get("data_collator"), given.get("train_dataset")
        check_collator(collator, config.packing, config.padding_free)
        self._check_settings(config, collator, ds, given.get("compute_loss_func") is not None)
        if isinstance(collator, ScarDataCollator):
            collator.weights_are_used = True
        elif isinstance(ds, Dataset):
            self.scar_ranking, self.scar_selection = select_once(ds, self.scar_args, config, given.get("formatting_func"))
            ds = self.scar_selection.dataset
        given["train_dataset"] = self._for_trl(ds)
        given["eval_dataset"] = self._for_trl(given.get("eval_dataset"))
        super().__init__(**given)
        if self.scar_selection is not None:
            self.scar_too_long = self._count_too_long()
            self.scar_callback = ScarSelectionCallback(self, self.scar_selection, too_long=self.scar_too_long)
            self.add_callback(self.scar_callback)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """
        Train; see [`~transformers.Trainer.train`].

        Raises:
            `ValueError`: if the checkpoint to resume from was trained on another selection.
        """
        if self.scar_selection is not None and resume_from_checkpoint:
            folder = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
            if folder is not None:
                check_same_selection(folder, self.scar_callback.manifest, self.scar_selection.indices)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate on rows of any format supported for training data; see [`~trl.SFTTrainer.evaluate`]."""
        return super().evaluate(self._for_trl(eval_dataset), *args, **kwargs)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Return the training dataloader, with larger batches for a [`ScarDataCollator`] to choose from."""
        if not isinstance(self.data_collator, ScarDataCollator):
            return super().get_train_dataloader()
        asked = self._train_batch_size
        self._train_batch_size = self.data_collator.drawn(asked)
        try:
            return super().get_train_dataloader()
        finally:
            self._train_batch_size = asked

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> torch.utils.data.DataLoader:
        """Return the evaluation dataloader, without selection."""
        with self._without_selection():
            return super().get_eval_dataloader(*args, **kwargs)

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> torch.utils.data.DataLoader:
        """Return the dataloader for predictions, without selection."""
        with self._without_selection():
            return super().get_test_dataloader(*args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the loss; each example is multiplied by its weight from a [`ScarDataCollator`]."""
        weights = inputs.pop(WEIGHT_KEY, None)
        called = model if weights is None else _weighted(model, weights)
        return super().compute_loss(called, inputs, return_outputs, num_items_in_batch)

    @contextmanager
    def _without_selection(self) -> Iterator[None]:
        """Replace a [`ScarDataCollator`] by the collator that it wraps."""
        chosen = self.data_collator
        if isinstance(chosen, ScarDataCollator):
            self.data_collator = chosen.collator
        try:
            yield
        finally:
            self.data_collator = chosen

    def _for_trl(self, ds: Any) -> Any:
        """Convert rows to a format that SFTTrainer accepts, without dropping any."""
        if isinstance(ds, dict):
            return {name: self._for_trl(part) for name, part in ds.items()}
        if self._reads_rows_itself or not isinstance(ds, (Dataset, IterableDataset)):
            return ds
        if isinstance(ds, Dataset) and ds.format["type"] == "custom":
            return ds  # SFTTrainer refuses a transform, which conversion would drop
        names, a = ds.column_names or list(next(iter(ds), {})), self.scar_args
        columns = PairReader(a.scar_columns).columns or ()
        has_text = self._text_field in names and self._text_field not in columns
        if has_text and self._text_field != "text" and not {"messages", "conversations", "prompt"} & set(names):
            return ds  # the user names the text to train on
        # SFTTrainer reads these columns itself, and held-out rows may lack those that `scar_columns` names.
        if has_text or "messages" in names or {"prompt", "completion"} <= set(names) or not set(columns) <= set(names):
            columns = ()
        pairs = not columns and any(known.kind == PREFERENCE for known in formats_of(names))
        return to_sft_format(ds, columns or None, preference=a.scar_preference if pairs else "chosen")

    def _count_too_long(self) -> int:
        """Count the selected rows that SFTTrainer dropped because their prompts fill `max_length`."""
        if self.args.packing or self._skip_prepare_dataset or self.scar_selection is None:
            return 0
        kept = len(self.scar_selection)
        lost = kept - len(self.train_dataset)
        if lost:
            logger.warning(
                "%d of the %d selected rows are not trained on: their prompts fill max_length=%s, which leaves no room for the "
                "response. Raise max_length in the SFTConfig, or remove long prompts before selecting.",
                lost,
                kept,
                self.args.max_length,
            )
        return lost

    def _check_settings(self, config: SFTConfig, collator: Any, ds: Any, own_loss: bool) -> None:
        chosen_late = isinstance(collator, ScarDataCollator)
        if isinstance(ds, IterableDataset) and not chosen_late:
            raise TypeError(
                "ScarSFTTrainer cannot rank a stream, whose best share is unknown before its end. Score it as it arrives, "
                "ds.map(scar_score(), batched=True), and pass data_collator=ScarDataCollator(...); filter it with "
                "scar_filter(k=...) and pass it to SFTTrainer; or load it with streaming=False."
            )
        if chosen_late and collator.mode == "weight":
            if config.loss_type != "nll":
                raise ValueError(f"ScarDataCollator(mode='weight') needs loss_type='nll', got {config.loss_type!r}.")
            if config.label_smoothing_factor or own_loss:
                raise ValueError(
                    "ScarDataCollator(mode='weight') multiplies the losses of SFTTrainer, so it cannot be used with "
                    f"{'compute_loss_func' if own_loss else 'label_smoothing_factor'}. Omit one of them."
                )
        if self.scar_args.scar_start_k is not None:
            if chosen_late or config.packing:
                raise ValueError(
                    "A curriculum (scar_start_k) draws single rows by their scores, so it cannot be used with packing=True or "
                    "a ScarDataCollator. Omit one of them."
                )
            if getattr(config, "train_sampling_strategy", "random") != "random":
                raise ValueError(
                    "A curriculum (scar_start_k) decides what is drawn when; train_sampling_strategy="
                    f"{config.train_sampling_strategy!r} would, too. Omit one of them."
                )

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        start_k, ranking = self.scar_args.scar_start_k, self.scar_ranking
        if start_k is None or ranking is None:
            return super()._get_train_sampler(train_dataset)
        # `train_dataset` no longer has the score column here, but it has the same rows.
        scores = np.array(self.train_dataset[SCORE_COLUMN][:], dtype=np.float32)
        start = min(count_of(start_k, len(ranking)), len(scores))
        a = self.args
        if a.max_steps > 0:
            epochs = a.max_steps * self._train_batch_size * a.gradient_accumulation_steps * a.world_size / len(scores)
        else:
            epochs = a.num_train_epochs
        seed = a.seed if a.data_seed is None else a.data_seed
        return ScarCurriculumSampler(scores, start, epochs, self.scar_args.scar_widen, seed)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if isinstance(self.data_collator, ScarDataCollator) and SCORE_COLUMN not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, SCORE_COLUMN]


def select_once(
    ds: Dataset, scar_args: ScarArguments, config: SFTConfig, formatting_func: Any = None
) -> tuple[ScarRanking, Selection]:
    """
    Rank and select in the main process, and broadcast the result, so that all processes train on the same rows without
    scoring again. If the last checkpoint stores the same ranking, it is reused.

    Args:
        ds ([`~datasets.Dataset`]): the rows, the same in every process.
        scar_args ([`ScarArguments`]): the selection and its scorer.
        config ([`~trl.SFTConfig`]): the training arguments, for progress bars.
        formatting_func (`Callable`, *optional*): the trainer's `formatting_func`, for rows of unknown formats.

    Returns:
        `tuple(ScarRanking, Selection)`.

    Raises:
        `ValueError`: see [`scar_rank`] and `ScarRanking.select`; raised in every process.
    """
    state, given = PartialState(), ds
    ds = _without_scores(given, scar_args.scar_method)
    parts: list[Any] = [None]
    if state.is_main_process:
        try:
            criteria = scar_args.criteria()
            criteria.check_columns(ds.column_names)
            formatting = _formatting(ds, scar_args, formatting_func)
            scorer = scar_args.scorer(given.column_names, formatting_func=formatting)
            checkpoint = _checkpoint(config)
            exact = criteria.prefilter is None  # with a prefilter, the criteria decide which rows get a score
            found = None if checkpoint is None or not exact else stored_ranking(checkpoint, ds, scorer)
            ranking = found or scar_rank(
                given, model=scorer, criteria=criteria, overwrite=True, progress=not config.disable_tqdm
            )
            if ranking.scorer is None:
                ranking.scorer = scorer
            selection = ranking.select(criteria)
            check_selected(selection.indices, len(ds), ranking.skipped, selection.curated)
            if state.num_processes == 1:
                return ranking, selection
            parts = [(ranking.scores, ranking.skipped, ranking.truncated, ranking.settings, ranking.source)]
            parts = [(*parts[0], selection.indices, selection.manifest["options"], selection.curated, ranking.prefilter)]
        except (ValueError, ImportError, OSError, RuntimeError) as error:
            if state.num_processes == 1:
                raise
            parts = [error]  # otherwise, the other processes would wait forever
    broadcast_object_list(parts)
    if isinstance(parts[0], Exception):
        raise parts[0]
    if state.is_main_process:
        return ranking, selection
    scores, skipped, truncated, settings, source, kept, options, curated, prefilter = parts[0]
    if len(scores) != len(ds):
        raise ValueError(
            f"Process {state.process_index} has {len(ds)} rows, the main process {len(scores)}. Load the same data in all."
        )
    ranking = ScarRanking(with_scores(ds, scores), scores, skipped, truncated, settings, source, prefilter=prefilter)
    return ranking, ranking.remember(Criteria(), kept, options, curated)


def _without_scores(ds: Dataset, method: str) -> Dataset:
    """Remove scores that came with the rows."""
    if SCORE_COLUMN not in ds.column_names:
        return ds
    if SCORE_COLUMN not in read_method(method):
        logger.warning("The training data already has a column %r; all rows are scored again.", SCORE_COLUMN)
    return ds.remove_columns(SCORE_COLUMN)


def _formatting(ds: Dataset, scar_args: ScarArguments, formatting_func: Any) -> Any:
    """Return the trainer's `formatting_func` if nothing else identifies the instruction."""
    if formatting_func is None or scar_args.scar_columns is not None:
        return None
    try:
        PairReader().needed(ds.column_names)
    except ValueError:
        return formatting_func
    return None


def _checkpoint(config: SFTConfig) -> str | None:
    """Return the checkpoint from which the run may resume."""
    if isinstance(config.resume_from_checkpoint, str):
        return config.resume_from_checkpoint
    return get_last_checkpoint(config.output_dir) if Path(config.output_dir).is_dir() else None


def _weighted(model: Any, weights: torch.Tensor) -> Any:
    """Wrap the model to multiply the loss of each example by its weight."""

    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = model(*args, **kwargs)
        outputs.log_probs = outputs.log_probs * weights.to(outputs.log_probs)[:, None]
        return outputs

    return call
