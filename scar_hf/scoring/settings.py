"""The scorer's settings, from which signatures, command-line options, trainer arguments and identities are derived."""

import argparse
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any

from ..options import Documented, document, extend_signature, option, parsed

if TYPE_CHECKING:
    import torch

BUNDLED_RANKER, FAST_RANKER = "scar-ranker", "scar-ranker-fast"
# Loaded by these names from the package.
BUNDLED_RANKERS = (BUNDLED_RANKER, FAST_RANKER)
# What a setting affects: which ranker scores, the scores, or what is read from a row. Other settings affect only speed.
RANKER, SCORES, ROWS = "ranker", "scores", "rows"


def two_columns(text: str) -> tuple[str, ...]:
    """Parse `INSTRUCTION,RESPONSE`."""
    return tuple(text.split(","))


@dataclass(frozen=True)
class ScorerSettings:
    """
    How rows are read and scored.

    Args:
        {settings}

    Raises:
        `ValueError`: if a value is out of range.
    """

    model: str = option(
        BUNDLED_RANKER,
        "Ranker: the name of a bundled one (scar-ranker, scar-ranker-fast), a folder, or a Hub id.",
        decides=RANKER,
    )
    revision: str | None = option(None, "Branch, tag or commit of a ranker on the Hub.", decides=RANKER)
    device: "str | torch.device | None" = option(
        None, "Device, such as cpu, cuda:1 or mps; by default a GPU if there is one.", type_="`str` or `torch.device`"
    )
    dtype: "str | torch.dtype" = option(
        "auto",
        "Precision of the encoder. auto is bfloat16 if the device supports it natively, otherwise float32; int8 requires "
        "OpenVINO, and is faster only on CPUs with VNNI or AMX. The heads always compute in float32.",
        type_="`str` or `torch.dtype`",
        decides=SCORES,
        choices=("auto", "float32", "bfloat16", "float16", "int8"),
    )
    backend: str = option(
        "auto",
        "Backend for the encoder: torch, or openvino on a CPU (requires the extra [cpu]). auto is OpenVINO if it is installed "
        "and faster, that is, in bfloat16 on CPUs that support it, otherwise PyTorch.",
        decides=SCORES,
        choices=("auto", "torch", "openvino"),
    )
    max_length: int | None = option(
        None,
        "Maximum number of tokens read from each instruction and response; by default the length that the ranker was trained "
        "with.",
        int,
        decides=SCORES,
        metavar="N",
    )
    truncation: bool = option(
        True,
        "Whether to truncate texts to max_length tokens. Otherwise, long texts are read in full, in windows of max_length "
        "tokens: maxima over tokens are taken over all windows, the first-token vector from the first window.",
        bool,
        decides=SCORES,
    )
    columns: Mapping[str, str] | Sequence[str] | None = option(
        None,
        "Instruction and response columns, for rows of an unknown format.",
        two_columns,
        type_="`dict` or `tuple`",
        kind=list[str],
        decides=ROWS,
        metavar="INSTRUCTION,RESPONSE",
    )
    turn: str = option(
        "first",
        "Which assistant turn of a conversation to score: first, last, or the mean over all.",
        decides=ROWS,
        choices=("first", "last", "all"),
    )
    preference: str = option(
        "chosen",
        "What to score in a preference set: the chosen response, the rejected one, or the margin, the score of the chosen "
        "response minus that of the rejected one.",
        decides=ROWS,
        choices=("chosen", "rejected", "margin"),
    )
    formatting_func: Callable[[dict[str, Any]], Any] | None = option(
        None,
        "Function for other formats: takes a row and returns (instruction, response), messages or a rendered text; see "
        "`PairReader`.",
        None,
        type_="`Callable`",
        decides=ROWS,
    )
    strict: bool = option(
        False,
        "Whether a row that cannot be scored raises an error. By default, such rows get no score, are never selected, and are "
        "counted.",
        bool,
        decides=ROWS,
    )
    tokens_per_batch: int | None = option(
        None, "Tokens per batch, including padding. Affects speed, not scores.", int, metavar="N"
    )
    attn_implementation: str | None = option(
        None, "Attention implementation of the encoder, as in `AutoModel.from_pretrained`.", metavar="NAME"
    )

    def __post_init__(self) -> None:
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise ValueError(f"`tokens_per_batch` must be at least 1, got {self.tokens_per_batch}.")
        if self.max_length is not None and self.max_length < 4:
            raise ValueError(f"`max_length` must be at least 4 tokens, got {self.max_length}.")
        if not isinstance(self.truncation, bool):
            raise ValueError(f"`truncation` must be True or False, got {self.truncation!r}.")
        for name in ("backend", "turn", "preference"):
            choices = BY_NAME[name].metadata["choices"]
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {choices}, got {getattr(self, name)!r}.")

    @classmethod
    def from_options(cls, args: argparse.Namespace) -> "ScorerSettings":
        """Create settings from the options of the command line."""
        return cls(**{name: getattr(args, name) for name in OPTIONS})

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as keyword arguments of [`ScarScorer`]."""
        return {name: getattr(self, name) for name in BY_NAME}


BY_NAME: dict[str, Field] = {found.name: found for found in fields(ScorerSettings)}
# The settings available on the command line and in trainer arguments.
OPTIONS = tuple(found.name for found in parsed(fields(ScorerSettings)))


def settings_that_decide(*what: str) -> tuple[str, ...]:
    """Return the names of the settings that affect `RANKER`, `SCORES` or `ROWS`, as given."""
    return tuple(name for name, found in BY_NAME.items() if found.metadata.get("decides") in what)


def check_names(caller: str, given: Mapping[str, Any]) -> None:
    """Raise a `TypeError` with a suggestion if a setting does not exist."""
    for name in given:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{caller} has no setting {name!r}.{hint} Settings: {', '.join(BY_NAME)}.")


def command_options(settings: Mapping[str, Any]) -> list[str]:
    """
    Convert the settings that affect results to command-line options, omitting defaults.

    Args:
        settings (`Mapping`): a manifest's settings, including the ranker's.

    Returns:
        `list[str]`: for example `["--dtype", "float32", "--strict"]`.
    """
    parts: list[str] = []
    for name, value in python_arguments(settings).items():
        option = name.replace("_", "-")
        if BY_NAME[name].metadata["parse"] is bool:
            parts.append(f"--{option}" if value else f"--no-{option}")
        else:
            parts += [f"--{option}", value if isinstance(value, str) else ",".join(value) if name == "columns" else str(value)]
    return parts


def python_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the same settings to keyword arguments of [`ScarScorer`], except `formatting_func`."""
    deciding = [name for name in settings_that_decide(RANKER, SCORES, ROWS) if name in OPTIONS]
    found = {name: settings.get(name) for name in deciding}
    if found["columns"]:
        found["columns"] = tuple(found["columns"])
    return {name: value for name, value in found.items() if value not in (None, BY_NAME[name].default)}


def with_settings(documented: Documented) -> Documented:
    """
    Give a class or function that passes on `**settings` a full signature, and replace `{settings}` in its docstring with
    one line per setting.
    """
    extend_signature(documented, BY_NAME.values(), "settings")
    return document(documented, "settings", BY_NAME.values())


document(ScorerSettings, "settings", BY_NAME.values())
