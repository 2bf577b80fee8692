"""A run over files: scores every row, selects, and writes the kept rows and a manifest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from ..curation.languages import report_languages
from ..files import Shard, check_output, merge_schemas, open_shards
from ..manifest.description import check_unchanged, describe_files, describe_selection, file_times
from ..manifest.replacing import check_replaceable
from ..manifest.sidecars import find_manifest, is_output_of, reason_lines, write_sides
from ..methods.scorer import score_with
from ..progress import hidden
from ..rows.pairs import PairReader
from ..rows.sft import SftRows
from ..rows.source import RowSource, first_columns
from ..scoring.datasets import ScoredRows, join, report_skipped
from ..scoring.scorer import SCORE_COLUMN, ScarScorer
from ..selecting.cascade import score_for
from ..selecting.choice import Choice, decide
from ..selecting.criteria import Criteria, read_stratify_by
from ..selecting.explanations import EXPLANATION_COLUMNS, Explainer
from ..selecting.top_k import check_selected, threshold_of
from .observations import Observations
from .output import OutputWriter, staged


@dataclass
class RunResult:
    """
    The result of a run.

    Args:
        output (`Path`): the output.
        rows (`int`): number of input rows.
        kept (`int`): number of written rows.
        threshold (`float`): the lowest score kept; NaN if nothing was selected.
        scored ([`~scar_hf.scoring.datasets.ScoredRows`]): the scores of the rows of all shards.
        observations ([`~scar_hf.runs.observations.Observations`], *optional*): the contents of a summary.
        dropped (`dict[int, str]`): the reasons of the rows that curation dropped, by row number.
        found (`bool`): whether the output of the same run already existed, so nothing was written.
    """

    output: Path
    rows: int
    kept: int
    threshold: float
    scored: ScoredRows
    observations: Observations | None
    dropped: dict[int, str] = field(default_factory=dict)
    found: bool = False


def select_files(
    data: str | Path,
    output: str | Path,
    scorer: ScarScorer,
    k: Criteria | float | None = None,
    *,
    all_rows: bool = False,
    explain: bool = False,
    sft_format: bool = False,
    safe_csv: bool = False,
    group_by: str | None = None,
    split: str | None = None,
    overwrite: bool = False,
    overwrite_scores: bool = False,
    cache: bool = True,
    observe: bool = False,
    engine: Callable[..., list[ScoredRows]] | None = None,
    progress: bool = True,
) -> RunResult:
    """
    Score an instruction set shard by shard and write the best rows, or all rows. Memory holds a few thousand texts at a
    time, and one score per row. When restarted, a killed run resumes where it stopped and writes the same bytes; a finished
    run finds its output.

    Args:
        data (`str` or `Path`): the data, as read by [`~scar_hf.files.open_shards`].
        output (`str` or `Path`): a file, or a folder; see [`~scar_hf.files.check_output`].
        scorer ([`ScarScorer`]): the scorer.
        k ([`~scar_hf.selecting.criteria.Criteria`], `float` or `int`, *optional*):
            The criteria. A share `k` refers to all rows, including those that curation drops. By default, all rows are kept.
        all_rows (`bool`, *optional*, defaults to `False`): write every row even if `k` is given.
        explain (`bool`, *optional*, defaults to `False`): add `scar_rank`, `scar_decision` and `scar_reason`.
        sft_format (`bool`, *optional*, defaults to `False`):
            Convert rows for TRL's SFTTrainer, as [`~scar_hf.rows.sft.to_sft_format`] does.
        safe_csv (`bool`, *optional*, defaults to `False`):
            Put an apostrophe before CSV cells that a spreadsheet would evaluate as a formula.
        group_by (`str`, *optional*): a column by which to count input rows and kept rows.
        split (`str`, *optional*): the split of a dataset on the Hub or of a saved `DatasetDict`.
        overwrite (`bool`, *optional*, defaults to `False`): replace the output if it exists.
        overwrite_scores (`bool`, *optional*, defaults to `False`): replace an existing column `scar_score`.
        cache (`bool`, *optional*, defaults to `True`): whether to cache scores on disk; required for resuming.
        observe (`bool`, *optional*, defaults to `False`): whether to collect the contents of a summary.
        engine (`Callable`, *optional*): scores the shards instead of [`score_shards`].
        progress (`bool`, *optional*, defaults to `True`): whether to show progress bars.

    Returns:
        [`RunResult`].

    Raises:
        `ValueError`: if `k`, the data or the output is invalid; raised before anything is written.
    """
    criteria = Criteria.of(k)
    output = Path(output)
    # scar-hf always writes a manifest, so an output without one belongs to the user.
    check_output(output, overwrite or find_manifest(output) is not None)
    if overwrite or not output.exists():
        check_replaceable(output, data)
    shards = open_shards(data, split)
    one_table = output.suffix == ".parquet" or (not output.suffix and not Path(data).is_dir())
    stratified = None if criteria.stratify_by is None else read_stratify_by(criteria.stratify_by)[0]
    _check_columns(
        shards, scorer.reader, {"--group-by": group_by, "--stratify-by": stratified}, overwrite_scores, explain, one_table
    )
    if safe_csv and not (output.suffix == ".csv" or (not output.suffix and shards[0].name.endswith(".csv"))):
        raise ValueError(f"safe_csv (--safe-csv) applies to CSV, which {output} is not. Leave it out.")
    sft = _sft_rows(shards, scorer.reader, output) if sft_format else None
    options: dict[str, Any] = {"all_rows": all_rows, "explain": explain, "curation": None}
    options |= {"sft_format": True} if sft_format else {}
    options |= {"safe_csv": True} if safe_csv else {}
    options |= criteria.describe()
    times = file_times(shards)
    run = describe_files(data, shards, scorer, options)
    found = not overwrite and output.exists() and is_output_of(output, run)
    check_output(output, overwrite or found)
    choice = Choice(RowSource(shards, scorer.reader), criteria)
    parts = score_for(choice, scorer, partial(engine or score_shards, cache=cache, progress=progress))
    scored = join(parts)
    rows = len(scored.scores)
    if rows:
        report_skipped(scored, scorer.read_length)
    if engine not in (None, score_shards):  # the rows were read on other machines
        report_languages(scorer, choice.source.rows())
    kept, dropped = decide(choice, scored.scores, scorer, progress)
    if criteria.k is not None and not all_rows:
        check_selected(kept, rows, scored.skipped, dropped)
    chosen = None if criteria.k is None and criteria.threshold is None else kept
    explainer = Explainer(scored, chosen, scorer.read_length, dropped, criteria.in_words()) if explain else None
    written = np.arange(rows) if all_rows else kept
    observations = Observations(scorer.reader, scored.scores, kept, group_by) if observe else None
    counts = [len(part.scores) for part in parts]
    writer = OutputWriter(shards, counts, scored, written, explainer, observations, sft, safe_csv)
    if found:
        if observe:
            writer.read()
    else:
        manifest = run | {"selection": describe_selection(scored, chosen) | {"dropped": len(dropped)}}
        layout = "shards" if Path(data).is_dir() and shards[0].dataset is None else "parquet"
        with staged(output, manifest) as target, tqdm(total=rows, desc="Writing", unit="row", disable=hidden(progress)) as bar:
            manifest["output"] = {"name": output.name, "rows": len(written), "files": writer.write(target, layout, bar)}
            check_unchanged(data, shards, times, run["inputs"])
            lists = [reason_lines(reasons, shards, counts) for reasons in (scored.skipped, dropped)]
            write_sides(target, output, manifest, *lists)
    threshold = threshold_of(scored.scores, kept) if chosen is not None else float("nan")
    return RunResult(output, rows, len(written), threshold, scored, observations, dropped, found)


def score_shards(source: RowSource, scorer: ScarScorer, cache: bool = True, progress: bool = True) -> list[ScoredRows]:
    """
    Score the shards of a source in this process.

    Args:
        source ([`~scar_hf.rows.source.RowSource`]): the rows.
        scorer ([`ScarScorer`]): the scorer.
        cache (`bool`, *optional*, defaults to `True`): whether to cache scores on disk.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.

    Returns:
        `list[ScoredRows]`: one per shard; row numbers count over all shards.
    """
    with tqdm(total=_count(source.shards), desc="Scoring", unit="row", disable=hidden(progress)) as bar:
        return score_with(scorer, source, cache, bar)


def _sft_rows(shards: Sequence[Shard], reader: PairReader, output: Path) -> SftRows | None:
    """Return the conversion of rows for TRL. It is the same for all shards."""
    names = dict.fromkeys(name for shard in shards for name in first_columns(shard)[0])
    sft = SftRows.of(list(names), reader) if names else None
    if sft is not None and output.suffix == ".csv" and not sft.as_text:
        raise ValueError(
            f"{output} cannot hold the conversations to which the rows are converted for TRL: write .jsonl or .parquet, or "
            "omit `sft_format` (--sft-format)."
        )
    return sft


def _check_columns(
    shards: Sequence[Shard],
    reader: PairReader,
    grouping: Mapping[str, str | None],
    overwrite_scores: bool,
    explain: bool,
    one_table: bool,
) -> None:
    """Check the columns before any work is done."""
    schema: pa.Schema | None = None
    for shard in shards:
        names, own = first_columns(shard)
        if one_table and own is not None:
            try:
                schema = merge_schemas(schema, own)
            except ValueError as error:
                raise ValueError(
                    f"{shard.name} does not fit into one Parquet file with the shards before it: {error}"
                ) from error
        if not names:
            continue
        reader.needed(names)
        for option, column in grouping.items():
            if column is not None and column not in names:
                raise ValueError(f"{option} names the column {column!r}, but {shard.name} has {names}.")
        if SCORE_COLUMN in names and not overwrite_scores:
            raise ValueError(
                f"{shard.name} already has a column {SCORE_COLUMN!r}. Remove it, or pass --overwrite-scores to score anew."
            )
        taken = [name for name in EXPLANATION_COLUMNS if explain and name in names]
        if taken and not overwrite_scores:
            raise ValueError(f"{shard.name} already has the columns {taken}. Remove them, or pass --overwrite-scores.")


def _count(shards: Sequence[Shard]) -> int | None:
    """Return the number of rows of all shards for the progress bar, if it can be found quickly."""
    total = 0
    for shard in shards:
        rows = shard.count_rows()
        if rows is None:
            return None
        total += rows
    return total
