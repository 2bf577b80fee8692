"""The scorer's settings, from which signatures, command-line options, trainer arguments and identities are derived."""

import argparse
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

BUNDLED_RANKER, FAST_RANKER = "scar-ranker", "scar-ranker-fast"
# Loaded by these names from the package.
BUNDLED_RANKERS = (BUNDLED_RANKER, FAST_RANKER)
# What a setting affects: which ranker scores, the scores, or what is read from a row. Other settings affect only speed.
RANKER, SCORES, ROWS = "ranker", "scores", "rows"
Documented = TypeVar("Documented", bound=Callable[..., Any])


def two_columns(text: str) -> tuple[str, ...]:
    """Parse `INSTRUCTION,RESPONSE`."""
    return tuple(text.split(","))


def _setting(
    default: Any,
    type_: str,
    help_: str,
    *,
    decides: str | None = None,
    option: Callable[[str], Any] | None = str,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
) -> Any:
    """
    Describe a setting.

    Args:
        default: the default value.
        type_ (`str`): the type, for documentation.
        help_ (`str`): the description, for documentation and command line.
        decides (`str`, *optional*): one of `RANKER`, `SCORES` and `ROWS`; `None` if results do not depend on the setting.
        option (`Callable`, *optional*): parses the value on the command line; `None` for settings available only in Python.
        choices (`Sequence[str]`, *optional*): the allowed values.
        metavar (`str`, *optional*): the value's name in `--help`.
    """
    metadata = {"help": help_, "type": type_, "decides": decides, "option": option, "choices": choices, "metavar": metavar}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ScorerSettings:
    """
    How rows are read and scored.

    Args:
        {settings}

    Raises:
        `ValueError`: if a value is out of range.
    """

    model: str = _setting(
        BUNDLED_RANKER,
        "`str`",
        "Ranker: the name of a bundled one (scar-ranker, scar-ranker-fast), a folder, or a Hub id.",
        decides=RANKER,
    )
    revision: str | None = _setting(None, "`str`", "Branch, tag or commit of a ranker on the Hub.", decides=RANKER)
    device: "str | torch.device | None" = _setting(
        None, "`str` or `torch.device`", "Device, such as cpu, cuda:1 or mps; by default a GPU if there is one."
    )
    dtype: "str | torch.dtype" = _setting(
        "auto",
        "`str` or `torch.dtype`",
        "Precision of the encoder. auto is bfloat16 if the device supports it natively, otherwise float32; int8 requires "
        "OpenVINO. The heads always compute in float32.",
        decides=SCORES,
        choices=("auto", "float32", "bfloat16", "float16", "int8"),
    )
    backend: str = _setting(
        "auto",
        "`str`",
        "Backend for the encoder: torch, or openvino on a CPU (requires the extra [cpu]). auto is OpenVINO if it is installed "
        "and faster, that is, in bfloat16 on CPUs that support it, otherwise PyTorch.",
        decides=SCORES,
        choices=("auto", "torch", "openvino"),
    )
    max_length: int | None = _setting(
        None,
        "`int`",
        "Maximum number of tokens read from each instruction and response; by default the length that the ranker was trained "
        "with.",
        decides=SCORES,
        option=int,
        metavar="N",
    )
    truncation: bool = _setting(
        True,
        "`bool`",
        "Whether to truncate texts to max_length tokens. Otherwise, long texts are read in full, in windows of max_length "
        "tokens: maxima over tokens are taken over all windows, the first-token vector from the first window.",
        decides=SCORES,
        option=bool,
    )
    columns: Mapping[str, str] | Sequence[str] | None = _setting(
        None,
        "`dict` or `tuple`",
        "Instruction and response columns, for rows of an unknown format.",
        decides=ROWS,
        option=two_columns,
        metavar="INSTRUCTION,RESPONSE",
    )
    turn: str = _setting(
        "first",
        "`str`",
        "Which assistant turn of a conversation to score: first, last, or the mean over all.",
        decides=ROWS,
        choices=("first", "last", "all"),
    )
    preference: str = _setting(
        "chosen",
        "`str`",
        "What to score in a preference set: the chosen response, the rejected one, or the margin, the score of the chosen "
        "response minus that of the rejected one.",
        decides=ROWS,
        choices=("chosen", "rejected", "margin"),
    )
    formatting_func: Callable[[dict[str, Any]], Any] | None = _setting(
        None,
        "`Callable`",
        "Function for other formats: takes a row and returns (instruction, response), messages or a rendered text; see "
        "`PairReader`.",
        decides=ROWS,
        option=None,
    )
    strict: bool = _setting(
        False,
        "`bool`",
        "Whether a row that cannot be scored raises an error. By default, such rows get no score, are never selected, and are "
        "counted.",
        decides=ROWS,
        option=bool,
    )
    tokens_per_batch: int | None = _setting(
        None,
        "`int`",
        "Tokens per batch, including padding. Affects speed, not scores.",
        option=int,
        metavar="N",
    )
    attn_implementation: str | None = _setting(
        None, "`str`", "Attention implementation of the encoder, as in `AutoModel.from_pretrained`.", metavar="NAME"
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
        """Create settings from the options that [`add_options`] added."""
        return cls(**{name: getattr(args, name) for name in OPTIONS})

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as keyword arguments of [`ScarScorer`]."""
        return {name: getattr(self, name) for name in BY_NAME}


BY_NAME: dict[str, Field] = {found.name: found for found in fields(ScorerSettings)}
# The settings available on the command line and in trainer arguments.
OPTIONS = tuple(name for name, found in BY_NAME.items() if found.metadata["option"] is not None)


def settings_that_decide(*what: str) -> tuple[str, ...]:
    """Return the names of the settings that affect `RANKER`, `SCORES` or `ROWS`, as given."""
    return tuple(name for name, found in BY_NAME.items() if found.metadata["decides"] in what)


def check_names(caller: str, given: Mapping[str, Any]) -> None:
    """Raise a `TypeError` with a suggestion if a setting does not exist."""
    for name in given:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{caller} has no setting {name!r}.{hint} Settings: {', '.join(BY_NAME)}.")


def add_options(parser: Any, names: Sequence[str] = OPTIONS) -> None:
    """Add an option for each setting, or for the named ones."""
    for name in names:
        found = BY_NAME[name]
        meta, flag = found.metadata, f"--{name.replace('_', '-')}"
        if meta["option"] is bool and found.default is False:
            parser.add_argument(flag, action="store_true", help=meta["help"])
        elif meta["option"] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=found.default, help=meta["help"])
        else:
            kind = {name: meta[name] for name in ("choices", "metavar")}
            default = "" if found.default is None else f" (default: {found.default})"
            text = f"{meta['help'].removesuffix('.')}{default}"
            parser.add_argument(flag, type=meta["option"], default=found.default, help=text, **kind)


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
        if BY_NAME[name].metadata["option"] is bool:
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


def prefixed_fields(prefix: str) -> list[tuple[str, Any, Field]]:
    """
    Create fields for `dataclasses.make_dataclass` that `HfArgumentParser` can parse.

    Args:
        prefix (`str`): prefix of the names, such as `"scar_"`.

    Returns:
        `list[tuple]`: name, type and field of each setting available on the command line.
    """
    made = []
    for name in OPTIONS:
        found = BY_NAME[name]
        option = found.metadata["option"]
        kind: Any = list[str] if option is two_columns else option
        text = found.metadata["help"]
        made.append((f"{prefix}{name}", kind | None if found.default is None else kind, _field_of(found.default, text)))
    return made


def _field_of(default: Any, help_: str) -> Any:
    return field(default=default, metadata={"help": help_})


def with_settings(documented: Documented) -> Documented:
    """
    Give a class or function that passes on `**settings` a full signature, and replace `{settings}` in its docstring with
    one line per setting.
    """
    given = inspect.signature(documented)
    own = [p for p in given.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=found.default, annotation=found.type)
        for name, found in BY_NAME.items()
        if name not in given.parameters
    ]
    documented.__signature__ = given.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    return document_settings(documented)


def document_settings(documented: Documented, prefix: str = "", names: Sequence[str] = ()) -> Documented:
    """Replace `{settings}` in a docstring with one line per setting."""
    lines = []
    for name in names or BY_NAME:
        found = BY_NAME[name]
        default = "" if found.default is None else f", defaults to `{found.default!r}`"
        lines.append(f"{prefix}{name} ({found.metadata['type']}, *optional*{default}): {found.metadata['help']}")
    documented.__doc__ = (documented.__doc__ or "").replace("{settings}", "\n        ".join(lines))
    return documented


document_settings(ScorerSettings)
