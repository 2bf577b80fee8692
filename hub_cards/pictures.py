"""The pictures in cards, as PNG files whose bytes depend on nothing but what they show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_KEPT, _ALL, _GRID = "#1f6f8b", "#c9ced6", "#e5e7eb"


def have_matplotlib() -> bool:
    """Whether pictures can be drawn; cards do without where they cannot."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def calibration_plot(quantiles: Sequence[float], path: str | Path) -> Path:
    """
    Draw which share of a reference set scores at least so high, for `ScarConfig.calibration`.

    Args:
        quantiles (`Sequence[float]`): scores at evenly spaced shares from 0 to 1, ascending.
        path (`str` or `Path`): the .png.

    Returns:
        `Path`: the same path.

    Raises:
        `ImportError`: if matplotlib is not installed.
    """
    figure, axes = _figure(3.4)
    scores = np.asarray(quantiles, dtype=float)
    # Of the highest score there is no share that can be drawn.
    shares = 1 - np.linspace(0, 1, len(scores))[:-1]
    axes.plot(scores[:-1], shares, color=_KEPT, linewidth=2)
    axes.set_yscale("log")
    axes.set_ylim(shares[-1] * 0.8, 1.2)
    ticks = [tick for tick in (1, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001) if tick >= 0.99 * shares[-1]]
    axes.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    axes.minorticks_off()
    for tick in (0.5, 0.1, 0.01):
        if tick in ticks:
            at = float(np.interp(1 - tick, np.linspace(0, 1, len(scores)), scores))
            axes.plot([at], [tick], "o", color=_KEPT)
            axes.annotate(f"{at:.2f}", (at, tick), textcoords="offset points", xytext=(7, 3))
    axes.set_xlabel("threshold: lowest score kept")
    axes.set_ylabel("share kept")
    return _save(figure, path)


def score_distribution(
    scores: np.ndarray, path: str | Path, kept: np.ndarray | None = None, threshold: float | None = None
) -> Path:
    """
    Draw how scores are distributed, and which were kept.

    Args:
        scores (`np.ndarray` of shape `(n,)`): all that are known; NaN is left out.
        path (`str` or `Path`): the .png.
        kept (`np.ndarray` of shape `(n,)`, bool, *optional*): which were kept; by default all.
        threshold (`float`, *optional*): the lowest score kept.

    Returns:
        `Path`: the same path.

    Raises:
        `ImportError`: if matplotlib is not installed.
        `ValueError`: if no score is finite.
    """
    known = np.isfinite(scores)
    if not known.any():
        raise ValueError("There is no finite score to draw.")
    figure, axes = _figure(3)
    low, high = float(scores[known].min()), float(scores[known].max())
    bins = np.linspace(low, high if high > low else low + 1, 61)
    if kept is not None:
        axes.hist(scores[known], bins=bins, color=_ALL, label="all rows")
    axes.hist(scores[known if kept is None else known & kept], bins=bins, color=_KEPT, label="kept")
    if threshold is not None:
        axes.axvline(threshold, color="#b4232a", linewidth=1.2, label=f"lowest score kept: {threshold:.2f}")
    axes.set_xlabel("score")
    axes.set_ylabel("rows")
    axes.legend(frameon=False, fontsize=9)
    return _save(figure, path)


def style_change_plot(measures: Mapping[str, Mapping[str, Any]], path: str | Path) -> Path:
    """
    Draw how the spread of each measure of style changed, with its interval.

    Args:
        measures (`Mapping`): the part `measures` of `StyleChange.to_dict()`; those without a change are left out.
        path (`str` or `Path`): the .png.

    Returns:
        `Path`: the same path.

    Raises:
        `ImportError`: if matplotlib is not installed.
    """
    shown = [m for m in measures.values() if None not in (m["spread_change"], m["low"], m["high"])]
    figure, axes = _figure(0.9 + 0.32 * len(shown))
    for y, m in enumerate(reversed(shown)):
        color = {"narrower": _KEPT, "wider": "#b4232a"}.get(m["verdict"], "#6b7280")
        axes.plot([100 * m["low"], 100 * m["high"]], [y, y], color=color, linewidth=2)
        axes.plot([100 * m["spread_change"]], [y], "o", color=color)
    axes.axvline(0, color="#6b7280", linewidth=1)
    axes.set_yticks(range(len(shown)), [m["title"] for m in reversed(shown)])
    axes.set_xlabel("change of the spread in the selection, %")
    return _save(figure, path)


def _figure(height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Pictures need matplotlib: pip install "scar-hf[report]"') from error
    figure = Figure(figsize=(7, height), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib, so that a second push finds the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})
    return path
