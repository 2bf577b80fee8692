"""The criteria of a selection, as one frozen dataclass that every entry point accepts."""

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from ..options import Documented, document, extend_signature, option, parsed

if TYPE_CHECKING:
    from ..curation import Step

# The prefilter that finds its own share, and the share of the exact selection that it finds by default.
AUTO, _AUTO_RECALL = "auto", 0.95
StratifyBy = str | Mapping[str, Mapping[Any, float]]


@dataclass(frozen=True)
class Criteria:
    """
    The criteria of a selection. Given the same criteria, `scar_select`, `ScarRanking.select`, `scar_filter`,
    `ScarSFTTrainer` and the command line keep the same rows.

    Args:
        {criteria}

    Raises:
        `ValueError`: if a value is out of range, or both `k` and `threshold` are given.

    Example:

    ```python
    >>> from scar_hf.selecting.criteria import Criteria
    >>> from scar_hf.curation import Languages, NearDuplicates

    >>> criteria = Criteria(k=0.1, stratify_by="source", curation=[Languages(["en"]), NearDuplicates(0.8)])
    >>> scar_select(ds, criteria)
    ```
    """

    k: float | None = option(
        None,
        "How much to keep: a float in (0, 1] is a share of all rows, floor(k·n) and at least 1; an int >= 1 is a count.",
        None,
        type_="`float` or `int`",
    )
    threshold: float | None = option(None, "Lowest score to keep, instead of k.", float, metavar="SCORE")
    stratify_by: StratifyBy | None = option(
        None,
        "Column whose values keep their shares of the data, by largest remainder; rows without a value form a group of their "
        "own. Or {column: {value: share}}, on the command line as JSON, to set the shares. Requires k.",
        type_="`str` or `Mapping`",
        metavar="COLUMN",
    )
    diversity: float = option(
        0.0,
        "0 selects by score alone; values up to 1 favour rows that differ from those already selected (maximal marginal "
        "relevance). Requires k.",
        float,
        metavar="D",
    )
    curation: "Sequence[Step]" = option(
        (),
        "Steps that drop rows regardless of their score, applied in this order. A selection does not modify them.",
        None,
        type_="`Sequence[Step]`",
    )
    prefilter: float | str | None = option(
        None,
        "Let the ranker score only this share of the rows, the best by scar-ranker-fast, and a random sample of the others "
        "that tells what is missed; auto finds the share. See docs/cascade.md. By default all rows are scored.",
        type_="`float` or `str`",
        metavar="SHARE",
        decides_scoring=True,
    )
    min_recall: float | None = option(
        None,
        "Score more rows until at least this share of the exact selection is found, with a confidence of 0.95. By default 0.95 "
        "if prefilter is auto, which this option implies.",
        float,
        metavar="SHARE",
        decides_scoring=True,
    )
    audit_seed: int = option(0, "Seed of the prefilter's random sample.", int, metavar="N", decides_scoring=True)

    def __post_init__(self) -> None:
        if self.k is not None and self.threshold is not None:
            raise ValueError(f"Pass either `k` or `threshold`, got k={self.k!r} and threshold={self.threshold!r}.")
        if self.k is not None:
            check_k(self.k)
        if self.threshold is not None and (not _is_number(self.threshold) or math.isnan(self.threshold)):
            raise ValueError(f"`threshold` must be a number, got {self.threshold!r}.")
        check_diversity(self.diversity)
        if self.stratify_by is not None:
            check_shares(self.stratify_by)
        if self.k is None and (self.stratify_by is not None or self.diversity):
            raise ValueError("`stratify_by` and `diversity` require `k`.")
        if self.prefilter is None and self.min_recall is not None:
            object.__setattr__(self, "prefilter", "auto")
        check_prefilter(self.prefilter, self.min_recall, self.audit_seed)
        if self.prefilter is not None and self.k is None and self.threshold is None:
            raise ValueError("`prefilter` requires `k` or `threshold`.")
        object.__setattr__(self, "curation", tuple(self.curation))
        for name in ("k", "threshold", "prefilter", "min_recall", "audit_seed"):
            object.__setattr__(self, name, _as_python(getattr(self, name)))
        object.__setattr__(self, "diversity", float(self.diversity))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Criteria):
            return NotImplemented
        # k=1 is one row and k=1.0 all rows, although 1 == 1.0.
        return type(self.k) is type(other.k) and all(getattr(self, f.name) == getattr(other, f.name) for f in fields(self))

    @classmethod
    def of(cls, k: "Criteria | float | None" = None, **more: Any) -> "Criteria":
        """Return `k` if it is a [`Criteria`], else create one from `k` and the other arguments."""
        if not isinstance(k, Criteria):
            return cls(k, **more)
        given = [name for name, value in more.items() if value not in (None, 0.0, (), [])]
        if given:
            raise ValueError(f"Criteria were passed together with {given}. Set these in the Criteria instead.")
        return k

    @classmethod
    def take(
        cls, k: "Criteria | float | None", given: Mapping[str, Any], default: float | None = None
    ) -> "tuple[Criteria, dict[str, Any]]":
        """
        Divide keyword arguments: return the criteria that they and `k` make, and the other arguments. Without `k` and
        `threshold`, `default` is `k`.
        """
        names = {found.name for found in fields(cls)}
        own = {name: value for name, value in given.items() if name in names}
        k = default if k is None and own.get("threshold") is None else k
        return cls.of(k, **own), {name: value for name, value in given.items() if name not in names}

    @classmethod
    def from_options(cls, k: float | None, given: Mapping[str, Any]) -> "Criteria":
        """
        Create criteria from the values of `OPTIONS`, as the command line and trainer arguments have them; by default, each has
        its default value.
        """

        def values(options: Any) -> dict[str, Any]:
            return {found.name: given[found.name] for found in parsed(fields(options)) if found.name in given}

        own = values(cls)
        own |= {name: read(own[name]) for name, read in (("stratify_by", _stratify_by), ("prefilter", _share)) if name in own}
        return cls(k, curation=CurationOptions(**values(CurationOptions)).steps(), **own)

    @property
    def by_score_alone(self) -> bool:
        """Whether only score and curation decide."""
        return self.stratify_by is None and not self.diversity

    @property
    def recall_target(self) -> float | None:
        """The share of the exact selection to find, or `None` if the prefilter's share is fixed."""
        return _AUTO_RECALL if self.prefilter == AUTO and self.min_recall is None else self.min_recall

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raise a `ValueError` if `stratify_by` names a column that does not exist, before any work is done."""
        if self.stratify_by is not None:
            name, _ = read_stratify_by(self.stratify_by)
            if name not in columns:
                raise ValueError(f"`stratify_by` names the column {name!r}, but the data has the columns {list(columns)}.")

    def describe(self) -> dict[str, Any]:
        """Return the criteria as JSON-compatible values for a manifest."""
        always = ["k", "stratify_by", "diversity"]
        with_prefilter = ("prefilter", "min_recall", "audit_seed") if self.prefilter is not None else ()
        more = [
            found.name
            for found in parsed(fields(self))
            if found.name in with_prefilter or getattr(self, found.name) != found.default
        ]
        said = {name: getattr(self, name) for name in dict.fromkeys([*always, *more])} | {"stratify_by": self._json_shares()}
        return said | ({"curation": [step.settings() for step in self.curation]} if self.curation else {})

    def in_words(self) -> str:
        """Name the criteria other than score and curation; empty if there are none."""
        return criteria_in_words(self._json_shares(), self.diversity)

    def _json_shares(self) -> StratifyBy | None:
        """Return `stratify_by` as a manifest holds it: each value as a key of a JSON object."""
        if self.stratify_by is None:
            return None
        name, shares = read_stratify_by(self.stratify_by)
        return name if shares is None else {name: {share_key(value): _as_python(share) for value, share in shares.items()}}

    def without_curation(self) -> "Criteria":
        """Return a copy without curation steps, which are not sent to other processes."""
        return replace(self, curation=())


def criteria_in_words(stratify_by: Any = None, diversity: float = 0.0) -> str:
    """Name the criteria other than the score; empty if there are none."""
    parts = [f"quotas for {stratify_by!r}"] if stratify_by is not None else []
    return " and ".join([*parts, *([f"diversity {diversity:g}"] if diversity else [])])


def count_of(k: float, n: int) -> int:
    """
    Convert `k` to a number of rows.

    Args:
        k (`float` or `int`): a float in (0, 1] is a share, an int >= 1 a count.
        n (`int`): number of rows.

    Returns:
        `int`: floor(k·n) for a share, at least 1; never more than n.

    Raises:
        `ValueError`: if `k` is out of range or not a number.
    """
    if not _is_number(k):
        raise ValueError(f"`k` must be a share in (0, 1] or a count >= 1, got {k!r}.")
    if isinstance(k, Integral):
        if k < 1:
            raise ValueError(f"`k` must be a share in (0, 1] or a count >= 1, got {k}.")
        return min(int(k), n)
    if not 0 < k <= 1:
        raise ValueError(f"`k` must be a share in (0, 1] or a count >= 1, got {k}. Pass an int for a count of rows.")
    # Rounded, because 0.29 * 100 is 28.999999999999996 in binary floating point.
    return min(n, max(1, math.floor(round(float(k) * n, 9))))


def check_k(k: Any) -> None:
    """Raise a `ValueError` if `k` is neither a share nor a count, before any work is done."""
    count_of(k, 10**18)


def check_diversity(diversity: float) -> None:
    """Raise a `ValueError` if `diversity` is not a number in [0, 1], before any work is done."""
    if not _is_number(diversity) or not 0 <= diversity <= 1:
        raise ValueError(f"`diversity` must be in [0, 1], where 0 selects by score alone, got {diversity!r}.")


def check_prefilter(prefilter: float | str | None, min_recall: float | None, seed: int) -> None:
    """Raise a `ValueError` if an option of the prefilter is out of range, before any work is done."""

    def is_share(value: Any) -> bool:
        return _is_number(value) and bool(0 < value <= 1)

    if prefilter is not None and prefilter != AUTO and not is_share(prefilter):
        raise ValueError(f"`prefilter` must be a share in (0, 1], or {AUTO!r}, got {prefilter!r}.")
    if min_recall is not None and not (is_share(min_recall) and min_recall < 1):
        raise ValueError(
            f"`min_recall` must be a share in (0, 1), got {min_recall!r}. Leave the prefilter out to miss nothing."
        )
    if not _is_number(seed) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"`audit_seed` must be a number >= 0, got {seed!r}.")


def check_shares(stratify_by: StratifyBy) -> None:
    """Raise a `ValueError` if `stratify_by` is neither a column nor shares of its values."""
    name, shares = read_stratify_by(stratify_by)
    for value, share in (shares or {}).items():
        if not _is_number(share) or not math.isfinite(share) or share < 0:
            raise ValueError(f"The share of {name}={value!r} in `stratify_by` must be a finite number >= 0, got {share!r}.")
    keys: dict[str, Any] = {}
    for value in shares or {}:
        other = keys.setdefault(share_key(value), value)
        if other is not value:
            raise ValueError(f"`stratify_by` lists {other!r} and {value!r}, which are the same key in JSON. Leave one out.")
    if shares is not None and not any(shares.values()):
        raise ValueError(f"`stratify_by` must give at least one value of {name!r} a share above 0, got {dict(shares)}.")


def share_key(value: Any) -> str:
    """Return a value of a column as text, as the keys of shares are on the command line and in a manifest."""
    return "null" if value is None else str(value)


def read_stratify_by(stratify_by: StratifyBy) -> tuple[str, Mapping[Any, float] | None]:
    """Return the column and, if given, the shares of its values."""
    if isinstance(stratify_by, str):
        return stratify_by, None
    if isinstance(stratify_by, Mapping) and len(stratify_by) == 1:
        name, shares = next(iter(stratify_by.items()))
        if isinstance(name, str) and isinstance(shares, Mapping):
            return name, shares
    raise ValueError(f"`stratify_by` must be a column name or {{column: {{value: share}}}}, got {stratify_by!r}.")


@dataclass(frozen=True)
class CurationOptions:
    """Curation as the command line and trainer arguments can express it, one option each."""

    languages: str | None = option(None, "Drop rows that are clearly in other languages, e.g. en or en,de.", metavar="CODES")
    evaluation: list[str] | None = option(
        None, "Drop rows that overlap with this evaluation set; accepts several.", repeated=True, metavar="DATA"
    )
    drop_refusals: bool = option(False, "Drop responses that refuse, deflect, have no content, or begin 'As an AI'.", bool)
    drop_duplicates: bool = option(False, "Keep only one row of exact duplicates.", bool)
    drop_near_duplicates: float | None = option(
        None,
        "Keep only the best-scored of rows with at least this similarity; 0.8 if no value is given.",
        float,
        metavar="JACCARD",
        const=0.8,
    )
    curation_seed: int = option(0, "Seed for near-duplicate detection.", int, metavar="N")

    def steps(self) -> "list[Step]":
        """Create the steps. Those that judge each row by itself come first."""
        near = self.drop_near_duplicates
        if not (self.languages or self.evaluation or self.drop_refusals or self.drop_duplicates or near is not None):
            return []
        from ..curation import ExactDuplicates, Languages, NearDuplicates, Refusals, contamination_of_files

        steps: list[Step] = [Languages(self.languages.split(","))] if self.languages else []
        steps += [contamination_of_files(self.evaluation)] if self.evaluation else []
        steps += [Refusals()] if self.drop_refusals else []
        steps += [ExactDuplicates()] if self.drop_duplicates else []
        return steps + ([NearDuplicates(near, seed=self.curation_seed)] if near is not None else [])


# The criteria as options of the command line and of trainer arguments, except `k`.
OPTIONS = parsed([*fields(Criteria), *fields(CurationOptions)])


def with_criteria(documented: Documented) -> Documented:
    """
    Give a function that passes on `**criteria`, or criteria among its other keyword arguments, a full signature, and replace
    `{criteria}` in its docstring with one line per criterion.
    """
    named = inspect.signature(documented).parameters
    more = [found for found in fields(Criteria) if found.name not in named]
    extend_signature(documented, more, "criteria")
    return document(documented, "criteria", more)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _as_python(value: Any) -> Any:
    """Return a number, such as one of NumPy, as an `int` or `float`, which JSON can hold; anything else unchanged."""
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _stratify_by(text: Any) -> Any:
    """Parse shares written as JSON; anything else is a column."""
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"`stratify_by` is not valid JSON: {text!r} ({error}).") from error


def _share(text: str | float | None) -> float | str | None:
    """Parse the prefilter's share, or return `"auto"` and whatever is not a number, to be refused."""
    try:
        return text if text is None else float(text)
    except ValueError:
        return text


document(Criteria, "criteria", fields(Criteria))
