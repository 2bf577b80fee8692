"""Report on a selection: rows kept and left out, with reasons, as a page, images and numbers."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import atomic_write, without_local_folders
from ..manifest.commands import select_command, select_snippet
from ..runs.selected import Selected
from ..scoring.scorer import ScarScorer
from ..selecting.audit import audit_in_words
from ..selecting.criteria import Criteria
from .captions import captions_of, foot_of, intro_of, lead_of
from .figures import check_matplotlib, draw, score_histogram
from .numbers import (
    ENCODER_MISSING,
    SHOWN_MEASURES,
    counts_of,
    example_rows,
    form_map,
    measure,
    reasons_of,
    refusals_of,
    shares_by_group,
    shares_by_length,
)
from .page import render
from .sampling import Samples, Seen, choose, look

REPORT_FORMAT = 1
# Characters shown per example: with 300 examples, the page stays below 3 MB in any script.
_INSTRUCTION, _RESPONSE = 300, 900


@dataclass
class SelectionReport:
    """
    A report of a selection.

    Args:
        numbers (`dict`): everything that the figures and tables show, as JSON-compatible values. It contains no texts of the
            rows except values of the `group_by` column.
        texts (`list[tuple(str, str)]`): instruction and response of each example, for the page.
    """

    numbers: dict[str, Any]
    texts: list[tuple[str, str]] = field(default_factory=list, repr=False)

    def html(self) -> str:
        """Return the page: one self-contained HTML file below 3 MB, which loads no external scripts, fonts or images."""
        n = self.numbers
        names = ("name", "counts", "style", "groups", "lengths", "reasons", "notes", "group_by", "commands", "manifest")
        content = {name: n[name] for name in names}
        content |= {"captions": captions_of(n), "lead": lead_of(n), "intro": intro_of(), "foot": foot_of(n)}
        measured = [name for name in SHOWN_MEASURES if any(name in row["measures"] for row in n["examples"])]
        content["example_measures"] = [{"name": name, "title": SHOWN_MEASURES[name]} for name in measured]
        content["examples"] = [
            row
            | {
                "instruction": instruction[:_INSTRUCTION],
                "response": response[:_RESPONSE],
                "truncated": len(instruction) > _INSTRUCTION or len(response) > _RESPONSE,
            }
            for row, (instruction, response) in zip(n["examples"], self.texts, strict=True)
        ]
        return render(n, content)

    def save(self, path: str | Path) -> None:
        """Write the page to `path` atomically."""
        _write(Path(path), self.html().encode("utf-8"))

    def save_figures(self, folder: str | Path) -> list[Path]:
        """
        Write the figures as PNG in light colours, at 200 dots per inch.

        Args:
            folder (`str` or `Path`): output folder; created if it does not exist.

        Returns:
            `list[Path]`: the files, such as `scores.png`; a figure without data is left out.
        """
        images = draw(self.numbers, "png")
        paths = [Path(folder) / f"{name}.png" for name in images]
        for path, image in zip(paths, images.values(), strict=True):
            _write(path, image)
        return paths

    def save_numbers(self, path: str | Path) -> None:
        """Write the numbers to `path` as JSON, atomically."""
        text = json.dumps(self.numbers, indent=1, ensure_ascii=False, allow_nan=False)
        _write(Path(path), f"{text}\n".encode("utf-8", "replace"))


def report_files(
    before: str | Path,
    after: str | Path | None,
    scorer: ScarScorer,
    k: Criteria | float | None = None,
    *,
    split: str | None = None,
    cache: bool = True,
    engine: Callable[..., Any] | None = None,
    progress: bool = True,
    **kwargs: Any,
) -> SelectionReport:
    """
    Report on a selection in files.

    Args:
        before, after, scorer, k, split, cache, engine, progress: as for [`~scar_hf.runs.selected.Selected.from_files`].
        kwargs: as for [`report_selection`].

    Returns:
        [`SelectionReport`].

    Raises:
        `ValueError`: as [`~scar_hf.runs.selected.Selected.from_files`] and [`report_selection`].
        `ImportError`: if matplotlib is not installed.

    Example:

    ```python
    >>> from scar_hf import ScarScorer
    >>> from scar_hf.report import report_files

    >>> report_files("data.jsonl", "selected.jsonl", ScarScorer()).save("report.html")
    ```
    """
    check_matplotlib()
    selected = Selected.from_files(before, after, scorer, k, split=split, cache=cache, engine=engine, progress=progress)
    return report_selection(selected, progress=progress, **kwargs)


def report_selection(
    selected: Selected,
    *,
    scorer: ScarScorer | None = None,
    group_by: str | None = None,
    lm: Any = None,
    language: str = "en",
    sample: int = 20_000,
    lm_rows: int = 400,
    map_rows: int = 2000,
    examples: int = 300,
    seed: int = 0,
    command: str | None = None,
    progress: bool = True,
) -> SelectionReport:
    """
    Report on a selection. Scores cover all rows, everything else covers samples. Reporting on a million rows therefore takes
    little longer than reading them, and the page stays small. The numbers and the page state the sample sizes.

    Args:
        selected ([`~scar_hf.runs.selected.Selected`]): the selection, such as a [`~scar_hf.selection.Selection`].
        scorer ([`ScarScorer`], *optional*): the scorer whose encoder makes the map; defaults to that of the selection.
        group_by (`str`, *optional*): a column, such as `source`; rows and rows kept are counted by its values.
        lm, language: as for [`~scar_hf.style.style_measures`]; without `lm`, surprisal is not measured.
        sample (`int`, *optional*, defaults to 20000): number of rows to measure, both of all rows and of the rows kept.
        lm_rows (`int`, *optional*, defaults to 400): number of rows that the language model reads, both of all rows and of the
            rows kept.
        map_rows (`int`, *optional*, defaults to 2000): number of rows on the map, half of them kept if there are enough.
        examples (`int`, *optional*, defaults to 300): number of rows in the table of examples; at most 300.
        seed (`int`, *optional*, defaults to 0): seed of all samples.
        command (`str`, *optional*): command line of the report, shown on the page.
        progress (`bool`, *optional*, defaults to `True`): whether to show progress bars.

    Returns:
        [`SelectionReport`].

    Raises:
        `ValueError`: if the data has no column `group_by`, or a number is out of range.
        `ImportError`: if matplotlib is not installed.
    """
    for name, value, most in (("sample", sample, 10**6), ("lm_rows", lm_rows, 10**5), ("map_rows", map_rows, 5000)):
        if not 2 <= value <= most:
            raise ValueError(f"`{name}` must be between 2 and {most:,}, got {value!r}.")
    if not 0 <= examples <= 300:
        raise ValueError(f"`examples` must be between 0 and 300, got {examples!r}.")
    check_matplotlib()
    scorer = scorer or selected.scorer
    samples = choose(selected, sample, examples, map_rows, lm_rows, seed)
    seen = look(selected, samples, group_by)
    numbers = _numbers(selected, seen, samples, scorer, lm, language, progress)
    manifest = without_local_folders(selected.manifest)
    selection = select_snippet(manifest) if selected.output is None and command is None else None
    numbers |= {
        "group_by": group_by,
        "samples": {
            "seed": seed,
            "before": len(samples.before),
            "after": len(samples.after),
            "map": len(samples.mapped),
            "lm_before": 0 if lm is None else len(samples.read),
            "lm_after": 0 if lm is None else len(samples.read_after),
        },
        "commands": [selection or select_command(manifest, numbers["output"]), *([command] if command else [])],
        "manifest": manifest,
    }
    return SelectionReport(numbers, [(seen.rows[i].instruction, seen.rows[i].response) for i in samples.shown.tolist()])


def _numbers(
    selected: Selected,
    seen: Seen,
    samples: Samples,
    scorer: ScarScorer | None,
    lm: Any,
    language: str,
    progress: bool,
) -> dict[str, Any]:
    style = measure(seen, samples, language, lm, progress)
    notes = [*selected.notes, *style.change.notes]
    if not selected.by_score:
        besides = f"{selected.explainer.criteria} decided, too"
        notes.insert(0, f"The rows kept are not simply the {len(selected):,} best by score: {besides}.")
    if prefiltered := audit_in_words((selected.manifest.get("selection") or {}).get("prefilter")):
        notes.insert(0, f"Not every row was scored: {prefiltered}.")
    if scorer is None:
        notes.append(ENCODER_MISSING)
    return {
        "format": REPORT_FORMAT,
        "name": without_local_folders(selected.rows.name),
        "output": without_local_folders(selected.output),
        "counts": counts_of(selected),
        "reasons": reasons_of(selected),
        "refusals": refusals_of(seen, samples),
        "scores": score_histogram(selected.scored.scores, selected.indices),
        "style": style.change.to_dict(),
        "surprisal": style.densities,
        "map": None if scorer is None else form_map(selected, seen, samples, scorer, progress),
        "groups": shares_by_group(seen),
        "lengths": shares_by_length(selected, samples, style.words),
        "examples": example_rows(selected, seen, samples, style.shown),
        "notes": notes,
    }


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path) as out:
        out.write(data)
