"""The figures of reports, cards and the Space: PNG for cards and papers, SVG that adopts the colours of the page."""

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..style import MEASURES

# Colours by role, in the light theme; the page has the same roles in both themes.
COLOURS = {
    "ink": "#1c2430",
    "quiet": "#66707f",
    "line": "#dfe3ea",
    "kept": "#2a66c8",
    "rest": "#a9b2bf",
    "mark": "#b4530a",
    "g0": "#2a66c9",
    "g1": "#b4530b",
    "g2": "#22805a",
    "g3": "#8a4bb0",
    "g4": "#b23a5c",
    "g5": "#66707e",
}
_BINS = 60
_WIDTH = 4.8  # inches of 72 points: about as wide as a phone, so that text keeps its size there
_GROUP_COLOURS = ("g0", "g1", "g2", "g3", "g4", "g5")
_MOST_NAME = 26
# Prefix of names in a legend, as matplotlib omits names that begin with an underscore.
_SHOWN = "shown:"


def check_matplotlib() -> None:
    """Raise an `ImportError` with installation instructions if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError('Reports draw their figures with matplotlib: pip install "scar-hf[report]"') from error


def draw(numbers: Mapping[str, Any], image: str, figures: "Figures | None" = None) -> dict[str, bytes]:
    """
    Draw every figure that the numbers allow.

    Args:
        numbers (`Mapping`): numbers of a report, or of some of its parts.
        image (`str`): `"png"` or `"svg"`.
        figures (`dict`, *optional*): by name, a function that checks for data and one that draws; defaults to those of reports.

    Returns:
        `dict[str, bytes]`: the images by figure name; the same numbers give the same bytes.
    """
    check_matplotlib()
    from matplotlib import rc_context

    settings: Any = {
        "font.size": 10,
        "axes.edgecolor": COLOURS["line"],
        "axes.labelcolor": COLOURS["quiet"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "text.color": COLOURS["ink"],
        "xtick.color": COLOURS["quiet"],
        "ytick.color": COLOURS["quiet"],
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "grid.color": COLOURS["line"],
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.labelcolor": COLOURS["ink"],
        "legend.fontsize": 9.5,
        "svg.fonttype": "none",
        "svg.hashsalt": "scar-hf",
    }
    images = {}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names in other scripts; the page has its own fonts
        for name, (has_data, plot) in (FIGURES if figures is None else figures).items():
            if has_data(numbers):
                images[name] = _rendered(plot(numbers), image)
    return images


def score_histogram(scores: np.ndarray, kept: np.ndarray | None = None) -> dict[str, Any]:
    """
    Count scores in bins of equal width.

    Args:
        scores (`np.ndarray` of shape `(n,)`): scores; NaN for rows without one.
        kept (`np.ndarray`, *optional*): row numbers of the rows kept; by default all rows with a score.

    Returns:
        `dict`: `edges` of the bins, rows `kept` and `others` in each, and the `threshold`, the lowest score kept.
    """
    finite = np.isfinite(scores)
    if not finite.any():
        return {"edges": [], "kept": [], "others": [], "threshold": None}
    chosen = scores[finite] if kept is None else scores[kept]
    edges = np.histogram_bin_edges(scores[finite].astype(np.float64), bins=_BINS)
    inside = np.histogram(chosen, bins=edges)[0]
    everything = np.histogram(scores[finite], bins=edges)[0]
    return {
        "edges": [round(float(edge), 5) for edge in edges],
        "kept": inside.tolist(),
        "others": (everything - inside).tolist(),
        "threshold": round(float(chosen.min()), 5) if len(chosen) else None,
    }


def scores_figure(numbers: Mapping[str, Any]) -> Any:
    """Distribution of the scores, with the threshold."""
    histogram = numbers["scores"]
    figure, axes = new_axes(2.7)
    edges = np.array(histogram["edges"])
    kept, others = np.array(histogram["kept"]), np.array(histogram["others"])
    for counts, bottom, role, label in ((others, 0, "rest", "not kept"), (kept, others, "kept", "kept")):
        if not counts.any():
            continue
        heights = np.r_[bottom + counts, 0]
        base = np.r_[np.broadcast_to(bottom, counts.shape), 0]
        axes.fill_between(edges, base, heights, step="post", color=COLOURS[role], linewidth=0, label=label)
    if histogram["threshold"] is not None:
        axes.axvline(histogram["threshold"], color=COLOURS["mark"], linewidth=1.4)
        left = histogram["threshold"] > (edges[0] + edges[-1]) / 2
        axes.annotate(
            f"threshold {histogram['threshold']:.3f}",
            (histogram["threshold"], 0.97),
            (-6 if left else 6, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            color=COLOURS["mark"],
        )
    axes.grid(axis="y")
    axes.set(xlabel="score (higher is better)", ylabel="rows", ylim=(0, 1.12 * max(1, (kept + others).max())))
    _thousands(axes.yaxis)
    add_legend(figure, axes)
    return figure


def map_figure(numbers: Mapping[str, Any]) -> Any:
    """The rows kept on the map of all rows."""
    points = numbers["map"]
    kept = np.array(points["kept"])
    layers = [(~kept, "rest", "not kept"), (kept, "kept", "kept")]
    return _scatter(points, [(rows, role, f"{label} ({rows.sum():,} shown)") for rows, role, label in layers])


def sources_map_figure(numbers: Mapping[str, Any]) -> Any:
    """The rows of each source on the map."""
    points = numbers["map"]
    groups = np.array(points["group"], dtype=object)
    names = [group["name"] for group in numbers["groups"]][: len(_GROUP_COLOURS) - 1]
    layers = [(groups == name, role, shortened(name)) for name, role in zip(names, _GROUP_COLOURS, strict=False)]
    others = ~np.isin(groups, names)
    layers += [(others, _GROUP_COLOURS[-1], "others")] if others.any() else []
    return _scatter(points, [layer for layer in layers if layer[0].any()])


def surprisal_figure(numbers: Mapping[str, Any]) -> Any:
    """Distribution of surprisal before and after."""
    density = numbers["surprisal"]
    figure, axes = new_axes(2.7)
    for values, role, label in (
        (density["before"], "rest", f"all rows ({density['rows_before']:,} read)"),
        (density["after"], "kept", f"kept ({density['rows_after']:,} read)"),
    ):
        if values:
            axes.plot(density["grid"], values, color=COLOURS[role], linewidth=1.8, label=label)
            axes.fill_between(density["grid"], values, color=COLOURS[role], alpha=0.16, linewidth=0)
    axes.grid(axis="y")
    axes.set(xlabel="instructional surprisal, log PPL(y|x) (nats per token)", ylabel="density")
    axes.set_ylim(bottom=0)
    add_legend(figure, axes)
    return figure


def spreads_figure(numbers: Mapping[str, Any]) -> Any:
    """Change of the spread of each measure, with its interval."""
    rows = _changes(numbers)
    figure, axes = new_axes(1.0 + 0.26 * len(rows))
    labels = ["random draws", "draws with the same lengths"]  # for the first mark of each kind
    for y, (_, row) in enumerate(reversed(rows)):
        if row.get("random"):
            low, high = (100 * max(-1.0, min(_MOST_CHANGE, row["random"][end])) for end in ("low", "high"))
            band = axes.barh(y, high - low, left=low, height=0.62, color=COLOURS["line"])[0]
            band.set_label(labels.pop(0) if len(labels) == 2 else "_")
        if row.get("same_lengths"):
            at = 100 * max(-1.0, min(_MOST_CHANGE, row["same_lengths"]["change"]))
            axes.plot(
                [at],
                [y],
                linestyle="",
                marker="D",
                markersize=5.5,
                color=COLOURS["rest"],
                markeredgewidth=0,
                label=labels.pop() if labels else "_",
            )
        role = {"narrower": "kept", "wider": "mark"}.get(row["verdict"], "quiet")
        if row["low"] is not None:
            low, high = (max(-1.0, min(_MOST_CHANGE, row[end])) for end in ("low", "high"))
            axes.plot([100 * low, 100 * high], [y, y], color=COLOURS[role], linewidth=2)
        change = 100 * max(-1.0, min(_MOST_CHANGE, row["spread_change"]))
        axes.plot([change], [y], marker="o", markersize=5.5, color=COLOURS[role], markeredgewidth=0)
    axes.axvline(0, color=COLOURS["quiet"], linewidth=1)
    axes.grid(axis="x")
    axes.set(xlabel="change of the spread (%); left is narrower", ylim=(-0.7, len(rows) - 0.3))
    if any(row.get("random") for _, row in rows):
        add_legend(figure, axes)
    axes.set_yticks(range(len(rows)), [MEASURES[name].title.split(",")[0].split(" (")[0] for name, _ in reversed(rows)])
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
    axes.spines["left"].set_visible(False)
    return figure


def calibration_figure(numbers: Mapping[str, Any]) -> Any:
    """Share of the reference data that each threshold keeps."""
    figure, axes = new_axes(3.0)
    scores = np.asarray(numbers["calibration"], dtype=float)
    # A logarithmic axis cannot show the share above the highest score, which is zero.
    shares = 1 - np.linspace(0, 1, len(scores))[:-1]
    axes.plot(scores[:-1], shares, color=COLOURS["kept"], linewidth=1.8)
    axes.set(yscale="log", ylim=(shares[-1] * 0.8, 1.2), xlabel="threshold: the lowest score kept", ylabel="share kept")
    ticks = [tick for tick in (1, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001) if tick >= 0.99 * shares[-1]]
    axes.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    axes.minorticks_off()
    axes.grid()
    for tick in (0.5, 0.1, 0.01):
        if tick in ticks:
            at = float(np.interp(1 - tick, np.linspace(0, 1, len(scores)), scores))
            axes.plot([at], [tick], marker="o", markersize=5.5, color=COLOURS["kept"], markeredgewidth=0)
            axes.annotate(f"{at:.2f}", (at, tick), (7, 3), textcoords="offset points")
    return figure


def sources_figure(numbers: Mapping[str, Any]) -> Any:
    """Share kept of each source."""
    return _shares(numbers["groups"], numbers["counts"]["share"], f"share kept (%), by {shortened(numbers['group_by'])}")


def lengths_figure(numbers: Mapping[str, Any]) -> Any:
    """Share kept by length."""
    return _shares(numbers["lengths"], numbers["counts"]["share"], "share kept (%), by words per response")


# Larger changes of spread are drawn at the edge; the table has the numbers.
_MOST_CHANGE = 1.0
Figures = dict[str, tuple[Callable[[Mapping[str, Any]], Any], Callable[[Mapping[str, Any]], Any]]]
FIGURES: Figures = {
    "scores": (lambda n: "scores" in n and bool(n["scores"]["edges"]), scores_figure),
    "map": (lambda n: n.get("map") is not None, map_figure),
    "map-sources": (lambda n: n.get("map") and n["map"]["group"] and len(n["groups"]) > 1, sources_map_figure),
    "surprisal": (lambda n: n.get("surprisal") and n["surprisal"]["grid"], surprisal_figure),
    "spreads": (lambda n: "style" in n and bool(_changes(n)), spreads_figure),
    "sources": (lambda n: bool(n.get("groups")), sources_figure),
    "lengths": (lambda n: bool(n.get("lengths")), lengths_figure),
    "calibration": (lambda n: bool(n.get("calibration")), calibration_figure),
}


def _changes(numbers: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    measures = numbers["style"]["measures"].items()
    return [(name, row) for name, row in measures if row["spread_change"] is not None]


def new_axes(height: float) -> tuple[Any, Any]:
    """Create a figure of this height, in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _scatter(points: Mapping[str, Any], layers: list[tuple[np.ndarray, str, str]]) -> Any:
    figure, axes = new_axes(3.9)
    x, y = np.array(points["x"]), np.array(points["y"])
    for rows, role, label in layers:
        axes.plot(
            x[rows],
            y[rows],
            linestyle="",
            marker="o",
            markersize=2.8,
            markeredgewidth=0,
            color=COLOURS[role],
            alpha=0.6,
            label=_SHOWN + label,
        )
    first, second = (100 * share for share in points["variance"])
    axes.set(xlabel=f"first principal axis ({first:.0f} % of the variance)", ylabel=f"second ({second:.0f} %)")
    axes.set(xticks=[], yticks=[])
    add_legend(figure, axes)
    return figure


def _shares(groups: list[Mapping[str, Any]], overall: float, label: str) -> Any:
    figure, axes = new_axes(0.9 + 0.27 * len(groups))
    for y, group in enumerate(reversed(groups)):
        share = 100 * (group["share"] or 0)
        axes.barh(y, share, height=0.62, color=COLOURS["kept"])
        axes.annotate(
            f"{share:.1f} % of {group['rows']:,}",
            (max(share, 100 * overall), y),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=COLOURS["quiet"],
        )
    axes.axvline(100 * overall, color=COLOURS["mark"], linewidth=1.2, label=f"all rows: {100 * overall:.1f} %")
    most = max([100 * overall, *(100 * (group["share"] or 0) for group in groups)])
    axes.grid(axis="x")
    axes.set(xlabel=label, xlim=(0, 1.75 * (most or 1)), ylim=(-0.6, len(groups) - 0.4))
    axes.set_yticks(range(len(groups)), [shortened(group["name"]) for group in reversed(groups)])
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
    for text in (axes.xaxis.label, *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.spines["left"].set_visible(False)
    add_legend(figure, axes)
    return figure


def add_legend(figure: Any, axes: Any) -> None:
    """Add a legend above the axes with everything that has a label."""
    handles = [artist for artist in (*axes.lines, *axes.collections, *axes.patches) if not artist.get_label().startswith("_")]
    labels = [artist.get_label().removeprefix(_SHOWN) for artist in handles]
    # Set names afterwards, as text between dollar signs would be parsed as a formula.
    legend = figure.legend(
        handles,
        ["x"] * len(labels),
        loc="outside upper left",
        ncols=1 if max(map(len, labels)) > 24 else 2,
        handlelength=1.2,
        markerscale=2.2,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def shortened(name: str) -> str:
    """Shorten a long name to its beginning and its end, where names mostly differ."""
    half = _MOST_NAME // 2
    return name if len(name) <= _MOST_NAME else f"{name[: half - 1]}…{name[-half:]}"


def _rendered(figure: Any, image: str) -> bytes:
    out = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Date": None, "Creator": None}}
    if image == "png":
        options = {"metadata": {"Software": None}, "dpi": 200}  # the version of matplotlib would change the bytes
    figure.savefig(out, format=image, transparent=image == "svg", **options)
    return out.getvalue()
