"""The criteria as options: what a command line and trainer arguments can express of them."""

import json
from dataclasses import dataclass, field
from typing import Any

from .criteria import Criteria, Step, StratifyBy


def _option(default: Any, help_: str, type_: Any, **more: Any) -> Any:
    return field(default=default, metadata={"help": help_, "type": type_, **more})


@dataclass(frozen=True)
class CriteriaOptions:
    """The criteria that a command line and trainer arguments can express, one option each; `k` has its own place there."""

    threshold: float | None = _option(None, "Instead of k: the lowest score to keep.", float, metavar="SCORE")
    stratify_by: str | None = _option(
        None,
        "Column whose values keep their shares of the data, or their shares in JSON: {column: {value: share}}.",
        str,
        metavar="COLUMN",
    )
    diversity: float = _option(
        0.0,
        "0 selects by score alone; values up to 1 favour rows that differ from those already selected.",
        float,
        metavar="D",
    )
    languages: str | None = _option(None, "Leave out rows surely in other languages, e.g. en or en,de.", str, metavar="CODES")
    evaluation: list[str] | None = _option(
        None, "Leave out rows that overlap with this evaluation set; several may be given.", str, metavar="DATA"
    )
    drop_refusals: bool = _option(False, "Leave out responses that refuse, deflect, say nothing, or begin 'As an AI'.", bool)
    drop_duplicates: bool = _option(False, "Keep only one of equal rows.", bool)
    drop_near_duplicates: float | None = _option(
        None, "Of rows at least as similar keep the best-scored; 0.8 is usual.", float, metavar="JACCARD", const=0.8
    )
    curation_seed: int = _option(0, "Seed of the search for near-duplicates.", int, metavar="N")

    def criteria(self, k: float | None) -> Criteria:
        """Make the criteria; steps that judge each row by itself come first."""
        stratify_by: StratifyBy | None = self.stratify_by
        if self.stratify_by is not None and self.stratify_by.lstrip().startswith("{"):
            try:
                stratify_by = json.loads(self.stratify_by)
            except ValueError as error:
                raise ValueError(f"`stratify_by` is not valid JSON: {self.stratify_by!r} ({error}).") from error
        return Criteria(k, self.threshold, stratify_by, self.diversity, self._steps())

    def _steps(self) -> list[Step]:
        near = self.drop_near_duplicates
        if not (self.languages or self.evaluation or self.drop_refusals or self.drop_duplicates or near is not None):
            return []
        from .curation import ExactDuplicates, Languages, NearDuplicates, Refusals, contamination_of_files

        steps: list[Step] = [Languages(self.languages.split(","))] if self.languages else []
        steps += [contamination_of_files(self.evaluation)] if self.evaluation else []
        steps += [Refusals()] if self.drop_refusals else []
        steps += [ExactDuplicates()] if self.drop_duplicates else []
        return steps + ([NearDuplicates(near, seed=self.curation_seed)] if near is not None else [])
