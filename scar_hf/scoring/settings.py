"""The settings of a scorer: signatures, command-line options, trainer arguments, identities and commands derive from them."""

import argparse
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

BUNDLED_RANKER = "scar-ranker"
# What a setting decides: which weights score, how they score, or what is read of a row. Others change the speed alone.
RANKER, SCORES, ROWS = "ranker", "scores", "rows"
Documented = TypeVar("Documented", bound=Callable[..., Any])


def two_columns(text: str) -> tuple[str, ...]:
    """Read `INSTRUCTION,RESPONSE`."""
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
        default: its default.
        type_ (`str`): its type, for the documentation.
        help_ (`str`): what it does, for the documentation and the command line.
        decides (`str`, *optional*): one of `RANKER`, `SCORES` and `ROWS`; `None` if results do not depend on it.
        option (`Callable`, *optional*): reads it from a command line; `None` for what only Python can express.
        choices (`Sequence[str]`, *optional*): its values.
        metavar (`str`, *optional*): a name for its value in `--help`.
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
        BUNDLED_RANKER, "`str`", "The bundled ranker by its name, a folder, or an id on the Hub.", decides=RANKER
    )
    revision: str | None = _setting(None, "`str`", "Branch, tag or commit of a ranker on the Hub.", decides=RANKER)
    device: "str | torch.device | None" = _setting(
        None, "`str` or `torch.device`", "Where to score, such as cpu, cuda:1 or mps; by default a GPU if there is one."
    )
    dtype: "str | torch.dtype" = _setting(
        "auto",
        "`str` or `torch.dtype`",
        "Precision of the encoder. auto is bfloat16 where the device computes in it natively, else float32; int8 needs "
        "OpenVINO. The heads are always float32.",
        decides=SCORES,
        choices=("auto", "float32", "bfloat16", "float16", "int8"),
    )
    backend: str = _setting(
        "auto",
        "`str`",
        "What runs the encoder: torch, or openvino on a CPU (of the extra [cpu]). auto is OpenVINO where it is installed and "
        "faster, which is in bfloat16 on CPUs that have it, else PyTorch.",
        decides=SCORES,
        choices=("auto", "torch", "openvino"),
    )
    max_length: int | None = _setting(
        None,
        "`int`",
        "Tokens of an instruction, and of a response, that are read; by default what the ranker was trained with.",
        decides=SCORES,
        option=int,
        metavar="N",
    )
    truncation: bool = _setting(
        True,
        "`bool`",
        "Whether to read only the first max_length tokens of longer texts. Without truncation they are read to their end, in "
        "windows of max_length tokens: the maximum over tokens is that of all windows, the first-token vector the first's.",
        decides=SCORES,
        option=bool,
    )
    columns: Mapping[str, str] | Sequence[str] | None = _setting(
        None,
        "`dict` or `tuple`",
        "The two columns, instruction and response, of rows of no known format.",
        decides=ROWS,
        option=two_columns,
        metavar="INSTRUCTION,RESPONSE",
    )
    turn: str = _setting(
        "first",
        "`str`",
        "Which assistant turn of a conversation is scored: the first, the last, or all, whose mean is the row's score.",
        decides=ROWS,
        choices=("first", "last", "all"),
    )
    preference: str = _setting(
        "chosen",
        "`str`",
        "What is scored of a preference set: the chosen response, the rejected one, or the margin, the score of the chosen one "
        "minus that of the rejected one.",
        decides=ROWS,
        choices=("chosen", "rejected", "margin"),
    )
    formatting_func: Callable[[dict[str, Any]], Any] | None = _setting(
        None,
        "`Callable`",
        "Takes a row of any other format and returns (instruction, response), messages or a rendered text; see `PairReader`.",
        decides=ROWS,
        option=None,
    )
    strict: bool = _setting(
        False,
        "`bool`",
        "Whether a row that cannot be scored is an error. By default it gets no score, is never selected, and is counted.",
        decides=ROWS,
        option=bool,
    )
    tokens_per_batch: int | None = _setting(
        None,
        "`int`",
        "Tokens, padding included, that pass through the encoder at once. Changes the speed, not the scores.",
        option=int,
        metavar="N",
    )
    attn_implementation: str | None = _setting(
        None, "`str`", "Attention of the encoder, as for `AutoModel.from_pretrained`.", metavar="NAME"
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
        """Take the settings from what [`add_options`] has parsed."""
        return cls(**{name: getattr(args, name) for name in OPTIONS})

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, as keyword arguments of [`ScarScorer`]."""
        return {name: getattr(self, name) for name in BY_NAME}


BY_NAME: dict[str, Field] = {found.name: found for found in fields(ScorerSettings)}
# The settings that the command line and trainer arguments have.
OPTIONS = tuple(name for name, found in BY_NAME.items() if found.metadata["option"] is not None)


def settings_that_decide(*what: str) -> tuple[str, ...]:
    """Names of the settings that decide one of `RANKER`, `SCORES` and `ROWS`."""
    return tuple(name for name, found in BY_NAME.items() if found.metadata["decides"] in what)


def check_names(caller: str, given: Mapping[str, Any]) -> None:
    """Raise a `TypeError` that names the nearest setting if one of those given does not exist."""
    for name in given:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{caller} has no setting {name!r}.{hint} Settings: {', '.join(BY_NAME)}.")


def add_options(parser: argparse.ArgumentParser, names: Sequence[str] = OPTIONS) -> None:
    """Add an option for each setting, or for those named."""
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
    Write the settings that decide results as options of the command line, where they are not the defaults.

    Args:
        settings (`Mapping`): of a manifest, its ranker's included.

    Returns:
        `list[str]`: such as `["--dtype", "float32", "--strict"]`.
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
    """The same as keyword arguments of [`ScarScorer`]; a function of the user's is not among them."""
    deciding = [name for name in settings_that_decide(RANKER, SCORES, ROWS) if name in OPTIONS]
    found = {name: settings.get(name) for name in deciding}
    if found["columns"]:
        found["columns"] = tuple(found["columns"])
    return {name: value for name, value in found.items() if value not in (None, BY_NAME[name].default)}


def prefixed_fields(prefix: str) -> list[tuple[str, Any, Field]]:
    """
    Make fields of a dataclass of arguments, for `dataclasses.make_dataclass`, that `HfArgumentParser` can parse.

    Args:
        prefix (`str`): what the names begin with, such as `"scar_"`.

    Returns:
        `list[tuple]`: name, type and field, of each setting that a command line can express.
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
    Give a class or a function that passes `**settings` on the signature that it really has, and put a line for each setting
    where its docstring has `{settings}`.
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
    """Put a line for each setting where the docstring has `{settings}`."""
    lines = []
    for name in names or BY_NAME:
        found = BY_NAME[name]
        default = "" if found.default is None else f", defaults to `{found.default!r}`"
        lines.append(f"{prefix}{name} ({found.metadata['type']}, *optional*{default}): {found.metadata['help']}")
    documented.__doc__ = (documented.__doc__ or "").replace("{settings}", "\n        ".join(lines))
    return documented


document_settings(ScorerSettings)
