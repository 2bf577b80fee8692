"""List the cells of a grid, and run those without a stored result."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ..files import atomic_write
from ..progress import hidden
from ..ranking import ScarRanking, scar_rank
from ..rows.pairs import PairReader
from ..rows.source import rows_of
from ..scoring.checkpoints import checkpoint_identity, resolve_checkpoint
from ..scoring.settings import BUNDLED_RANKER
from ..selection import Selection
from ..style import Surprisal
from ..style.causal_lm import lm_identity
from .held_out import HeldOut
from .settings import BASELINE, EVERYTHING, AblationSettings

logger = logging.getLogger(__name__)
_GRID, _CELLS = "grid.json", "cells"
# Settings that only choose the cells; a later call may add methods or seeds to a grid.
_CHOOSE_CELLS = ("k", "methods", "budgets", "seeds")
_PACKAGES = ("scar-hf", "torch", "transformers", "trl", "peft")


@dataclass(frozen=True)
class Cell:
    """
    One fine-tuning run and its measurements.

    Args:
        method (`str`): the method that selected the rows; `"untuned"` for the model before training.
        k (`float`): share or count of rows.
        budget (`str`): `"steps"` or `"epochs"`.
        seed (`int`): seed of the training and of a random selection.
    """

    method: str
    k: float
    budget: str
    seed: int

    @property
    def file(self) -> str:
        """A readable file name, valid for any method name."""
        plain = "".join(c if c.isalnum() or c in "-=.," else "_" for c in self.method)[:60]
        mark = "" if plain == self.method else f"-{sha256(self.method.encode()).hexdigest()[:8]}"
        return f"{self.budget}-{plain}{mark}-k{self.k!r}-seed{self.seed}.json"


UNTUNED = Cell("untuned", 0, "none", 0)


def cells_of(settings: AblationSettings) -> list[Cell]:
    """
    List the cells of a grid, seed by seed, so that a grid stopped early still has complete comparisons.

    Args:
        settings ([`AblationSettings`]): settings of the grid.

    Returns:
        `list[Cell]`: the untuned model first; `"everything"` has one cell for all values of `k`.
    """
    cells = [UNTUNED]
    for seed in range(settings.seeds):
        for budget in settings.budgets:
            for k in settings.k:
                cells += [Cell(method, k, budget, seed) for method in settings.methods if method != EVERYTHING]
            if EVERYTHING in settings.methods:
                cells.append(Cell(EVERYTHING, 1.0, budget, seed))
    return cells


def run_grid(
    ds: Dataset,
    settings: AblationSettings,
    held: HeldOut,
    folder: str | Path,
    *,
    rank: Mapping[str, Any] | None = None,
    most_cells: int | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """
    Run the cells of a grid that have no stored result yet. After an interruption, only the unfinished cell runs again.

    Args:
        ds ([`~datasets.Dataset`]): the rows to choose from, without held-out rows.
        settings ([`AblationSettings`]): settings of the grid.
        held ([`HeldOut`]): held-out instructions and answers.
        folder (`str` or `Path`): folder for results, one file per cell.
        rank (`Mapping`, *optional*): keyword arguments of [`~scar_hf.scar_rank`], such as `lm`.
        most_cells (`int`, *optional*): stop after running this many new cells.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar of cells.

    Returns:
        `list[dict]`: the available results, in the order of the cells.

    Raises:
        `ValueError`: if the folder holds another grid, or another process is using it.
    """
    folder = Path(folder)
    (folder / _CELLS).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"Another process works on the grid in {folder}. Wait for it, or name another folder.") from error
    with lock:
        _check_same(folder, describe_grid(ds, settings, held, rank or {}))
        cells = cells_of(settings)
        missing = [cell for cell in cells if read_cell(folder, cell) is None][:most_cells]
        if missing:
            _run(ds, settings, held, folder, rank or {}, missing, progress)
        return [found for cell in cells if (found := read_cell(folder, cell)) is not None]


def describe_grid(ds: Dataset, settings: AblationSettings, held: HeldOut, rank: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that determines the results of a grid, as JSON types."""
    digest = sha256(b"".join(row.digest() for row in rows_of(ds, PairReader.of(rank)))).hexdigest()
    return {
        "format": 1,
        "settings": settings.describe(),
        "model_weights": lm_identity(settings.model, settings.revision),
        "rank": {name: _named(value) for name, value in rank.items() if value is not None},
        "rank_weights": _weights_of(rank),
        "data": {"rows": len(ds), "sha256": digest},
        "held_out": {"rows": len(held), "kinds": sorted(held.answers), "sha256": held.identity()},
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _named(value: Any) -> str:
    """Return a value as a text that is the same in every process."""
    if callable(value):
        # The digest of the data covers what a function does.
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    return value.name if isinstance(value, Surprisal) else str(value)


def _weights_of(rank: Mapping[str, Any]) -> dict[str, str]:
    """Identify the ranker and the language model that rows are ranked with, except those in memory."""
    model, lm = rank.get("model") or BUNDLED_RANKER, rank.get("lm")
    found = {}
    if isinstance(model, (str, Path)):
        found["model"] = checkpoint_identity(resolve_checkpoint(str(model)), rank.get("revision"))
    if isinstance(lm, (str, Path)):
        found["lm"] = lm_identity(lm)
    elif isinstance(lm, Surprisal) and not lm.in_memory:
        found["lm"] = lm_identity(lm.name, lm.revision)
    return found


def read_cell(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """Return the result of a cell, or `None` if it is missing or unreadable."""
    try:
        found = json.loads((folder / _CELLS / cell.file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("cell") == asdict(cell) else None


def read_grid(folder: str | Path) -> dict[str, Any]:
    """
    Read the description of a grid that [`run_grid`] stored.

    Args:
        folder (`str` or `Path`): the grid's folder.

    Returns:
        `dict`: as returned by [`describe_grid`].

    Raises:
        `ValueError`: if the file is damaged.
    """
    path = Path(folder) / _GRID
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged. Name another folder.") from error
    if not isinstance(known, dict):
        raise ValueError(f"{path} is damaged. Name another folder.")
    return known


def _check_same(folder: Path, grid: dict[str, Any]) -> None:
    path = folder / _GRID
    if path.is_file():
        known = read_grid(folder)
        parts = [name for name in grid if _without_choice(known.get(name)) != _without_choice(grid[name])]
        if parts:
            raise ValueError(
                f"{folder} holds another grid: {', '.join(parts)} differ. Name another folder, or use the settings in {path}."
            )
        if known == grid:
            return
    with atomic_write(path) as out:
        out.write(f"{json.dumps(grid, indent=1, ensure_ascii=False)}\n".encode())


def _without_choice(part: Any) -> Any:
    return {name: value for name, value in part.items() if name not in _CHOOSE_CELLS} if isinstance(part, dict) else part


def _run(
    ds: Dataset,
    settings: AblationSettings,
    held: HeldOut,
    folder: Path,
    rank: Mapping[str, Any],
    missing: Sequence[Cell],
    progress: bool,
) -> None:
    from .measuring import measure
    from .tuning import fine_tune, load

    choose, reader = _chooser(ds, rank), PairReader.of(rank)
    with tqdm(total=len(missing), desc="Cells", unit="cell", disable=hidden(progress)) as bar:
        for cell in missing:
            bar.set_postfix_str(f"{cell.method} {cell.budget} seed {cell.seed}")
            model, tokenizer = load(settings)
            result: dict[str, Any] = {"cell": asdict(cell)}
            tuned: Any = model
            if cell != UNTUNED:
                selection = choose(cell)
                tuned, result["training"] = fine_tune(settings, model, tokenizer, selection, cell.budget, cell.seed, reader)
                result["training"]["rows"] = len(selection)
            result |= measure(settings, tuned, tokenizer, held)
            with atomic_write(folder / _CELLS / cell.file) as out:
                out.write(f"{json.dumps(result, ensure_ascii=False, allow_nan=False)}\n".encode("utf-8", "replace"))
            bar.update()


def _chooser(ds: Dataset, rank: Mapping[str, Any]) -> Callable[[Cell], Selection]:
    """Return a function that selects the rows of a cell; each ranking is made once, random ones once per seed."""
    rankings: dict[tuple[str, int], ScarRanking] = {}

    def choose(cell: Cell) -> Selection:
        method = BASELINE if cell.method == EVERYTHING else cell.method
        key = method, cell.seed if method == BASELINE else 0
        if key not in rankings:
            named: Any = method
            rankings[key] = scar_rank(ds, method=named, progress=False, **{**rank, "seed": key[1]})
        return rankings[key].select(cell.k)

    return choose
