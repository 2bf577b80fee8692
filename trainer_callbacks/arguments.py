"""The settings of a selection before training, for the API and for the command line."""

from dataclasses import dataclass, field
from typing import Any

from ..scoring import ScarScorer
from ..selection import check_k


@dataclass
class ScarArguments:
    r"""
    What [`ScarSFTTrainer`] selects, and with what. The names carry a prefix so that they stand beside those of `SFTConfig`
    and `ModelConfig` on one command line.

    Args:
        scar_k (`float` or `int`, *optional*, defaults to 0.1):
            What to train on: up to 1.0 a share of the rows, above it a count.
        scar_model (`str`, *optional*, defaults to `"scar-ranker"`):
            The bundled ranker by its name, a folder, or a Hub id.
        scar_revision (`str`, *optional*):
            Branch, tag or commit of a ranker on the Hub.
        scar_device (`str`, *optional*):
            Where to score; by default a GPU if there is one, else the CPU.
        scar_dtype (`str`, *optional*, defaults to `"auto"`):
            Precision of the ranker's encoder, as for [`ScarScorer`].
        scar_backend (`str`, *optional*, defaults to `"auto"`):
            `"auto"`, `"torch"` or `"openvino"`, as for [`ScarScorer`].
        scar_max_length (`int`, *optional*):
            Tokens of each text that the ranker reads; by default what it was trained with.
        scar_truncation (`bool`, *optional*, defaults to `True`):
            Whether to read only the first `scar_max_length` tokens of longer texts, or all of them.
        scar_columns (`list[str]`, *optional*):
            Instruction and response column, for rows of no known format.
        scar_turn (`str`, *optional*, defaults to `"first"`):
            Assistant turn that is scored: `"first"`, `"last"`, or `"all"` for the mean.
        scar_strict (`bool`, *optional*, defaults to `False`):
            Whether rows that cannot be scored are an error; by default they are left out and counted.
        scar_start_k (`float` or `int`, *optional*):
            For a curriculum: begin with so many of the best rows and widen to `scar_k`, in the unit of `scar_k`.
        scar_widen (`float`, *optional*, defaults to 0.5):
            Share of the training, in (0, 1], after which the curriculum has reached all that was selected.

    Raises:
        `ValueError`: if a value is out of its range.

    Example:

    ```python
    >>> from scar_hf.trainer_callbacks import ScarArguments, ScarSFTTrainer

    >>> trainer = ScarSFTTrainer(model, train_dataset=ds, scar_args=ScarArguments(scar_k=0.1))
    ```
    """

    scar_k: float = field(default=0.1, metadata={"help": "What to train on: up to 1.0 a share of the rows, above it a count."})
    scar_model: str = field(default="scar-ranker", metadata={"help": "The bundled ranker by its name, a folder, or a Hub id."})
    scar_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of a ranker on the Hub."})
    scar_device: str | None = field(default=None, metadata={"help": "Where to score; by default a GPU if there is one."})
    scar_dtype: str = field(default="auto", metadata={"help": "Precision of the ranker's encoder."})
    scar_backend: str = field(default="auto", metadata={"help": "auto, torch or openvino."})
    scar_max_length: int | None = field(default=None, metadata={"help": "Tokens of each text that the ranker reads."})
    scar_truncation: bool = field(
        default=True, metadata={"help": "Read only the first scar_max_length tokens of longer texts, or all of them."}
    )
    scar_columns: list[str] | None = field(
        default=None, metadata={"help": "Instruction and response column, for rows of no known format."}
    )
    scar_turn: str = field(default="first", metadata={"help": "Assistant turn that is scored: first, last or all."})
    scar_strict: bool = field(default=False, metadata={"help": "Stop at rows that cannot be scored."})
    scar_start_k: float | None = field(
        default=None, metadata={"help": "Curriculum: begin with so many of the best rows and widen to scar_k."}
    )
    scar_widen: float = field(
        default=0.5, metadata={"help": "Share of the training after which the curriculum has reached all that was selected."}
    )

    def __post_init__(self):
        self.scar_k = _share_or_count("scar_k", self.scar_k)
        if self.scar_start_k is not None:
            self.scar_start_k = _share_or_count("scar_start_k", self.scar_start_k)
        if not 0 < self.scar_widen <= 1:
            raise ValueError(f"`scar_widen` must be a share in (0, 1], got {self.scar_widen!r}.")

    def scorer(self, **kwargs: Any) -> ScarScorer:
        """
        Make the [`ScarScorer`] that these settings mean.

        Args:
            kwargs: what they leave open, passed to [`ScarScorer`].

        Returns:
            [`ScarScorer`].
        """
        return ScarScorer(
            self.scar_model,
            revision=self.scar_revision,
            device=self.scar_device,
            dtype=self.scar_dtype,
            backend=self.scar_backend,
            max_length=self.scar_max_length,
            truncation=self.scar_truncation,
            columns=self.scar_columns,
            turn=self.scar_turn,
            strict=self.scar_strict,
            **kwargs,
        )


def _share_or_count(name: str, k: float) -> float:
    """Whole numbers above 1 are counts, also where a command line has made them floats."""
    if isinstance(k, float) and k > 1 and k.is_integer():
        k = int(k)
    try:
        check_k(k)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}`: {error}") from error
    return k
