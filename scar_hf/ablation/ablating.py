"""Run an ablation in one call, from rows to a page that shows whether a selection helps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..rows.pairs import PairReader
from .grid import read_grid, run_grid
from .held_out import hold_out, hold_triples, without_held_out
from .report import AblationResult, result_of
from .settings import AblationSettings


def ablate(
    ds: Dataset,
    settings: AblationSettings,
    folder: str | Path,
    *,
    evaluation: Sequence[Mapping[str, Any]] | None = None,
    group_by: str | None = None,
    lm: Any = None,
    judge: Any = None,
    most_cells: int | None = None,
    progress: bool = True,
    **rank: Any,
) -> AblationResult:
    """
    Fine-tune a language model on the rows that each method keeps, and measure the result. A second call resumes the grid.

    Args:
        ds ([`~datasets.Dataset`]): the rows to choose from.
        settings ([`AblationSettings`]): methods, training and evaluation.
        folder (`str` or `Path`): folder for the results of cells, `ablation.html`, `ablation.json` and figures.
        evaluation (`Sequence[Mapping]`, *optional*): triples with an `instruction` and any of `direct`, `referenced` and
            `human`; rows of `ds` with the same instruction are left out of training. By default rows of `ds` are held out.
        group_by (`str`, *optional*): a column, such as `source`, whose values group the held-out rows of `ds`.
        lm (`str`, *optional*): for the methods `"perplexity"` and `"ifd"`; defaults to the fine-tuned model.
        judge ([`~scar_hf.ablation.judging.PairwiseJudge`], *optional*): compares answers in pairs.
        most_cells (`int`, *optional*): stop after running this many new cells.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar of cells.
        rank: as for [`~scar_hf.scar_rank`]: `model`, `columns`, and so on.

    Returns:
        [`AblationResult`].

    Raises:
        `ValueError`: if the data, the evaluation data or the settings are invalid, or the folder holds another grid.
        `ImportError`: if trl or peft is not installed.

    Example:

    ```python
    >>> from scar_hf.ablation import AblationSettings, ablate

    >>> print(ablate(ds, AblationSettings("HuggingFaceTB/SmolLM2-135M-Instruct", k=[0.1]), "grid", group_by="source"))
    ```
    """
    reader = PairReader.of(rank)
    if evaluation is None:
        held, rows = hold_out(ds, settings.prompts, group_by, reader)
    else:
        held, rows = hold_triples(evaluation, settings.prompts), ds
    rows = without_held_out(rows, held, reader)
    options = {"lm": lm or settings.model, **rank}
    cells = run_grid(rows, settings, held, folder, rank=options, most_cells=most_cells, progress=progress)
    if judge is not None:
        cells = judge.judge_cells(cells, held.instructions, Path(folder), progress)
    result = result_of(read_grid(folder), settings, cells)
    result.save(Path(folder) / "ablation.html")
    return result
