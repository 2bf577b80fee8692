"""Compare the cells of methods with each other, mostly with random rows, by differences with bootstrap intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .settings import BASELINE, EVERYTHING

SAMPLES = 2000
# Quantiles of the normal distribution: for a two-sided 95 % interval, and for a power of 80 %.
_BOTH_ENDS, _POWER = 1.959964, 0.841621
_LOW, _HIGH = 2.5, 97.5
# A sign test with this many equal differences has p < 0.05: 2 * 0.5**6 = 0.03.
_ENOUGH_EQUAL = 6
# Which direction is better: -1 lower, 1 higher, 0 neither.
DIRECTIONS = {"nll": -1, "constraints": 1, "code": 1, "spread": 0, "judge": 1}
_TITLES = {
    "constraints": "Constraints met",
    "code": "Programs that pass",
    "judge": "Wins by the judge, ties as halves",
    "spread": "Spread of style of what it writes",
}


def measures_in(cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the measures that all cells have, with their titles."""
    kinds = sorted({kind for cell in cells for kind in cell["nll"]})
    found = {f"nll:{kind}": f"NLL of {kind} answers" for kind in kinds}
    found |= {name: title for name, title in _TITLES.items() if name != "spread" and all(name in cell for cell in cells)}
    return found | {"spread": _TITLES["spread"]}


def compare_cells(cells: Sequence[Mapping[str, Any]], seed: int = 0, baseline: str = BASELINE) -> list[dict[str, Any]]:
    """
    Compare each method with the same number of random rows, or rows of another method, paired by seed and instruction.

    Args:
        cells (`Sequence[Mapping]`): results of [`~scar_hf.ablation.run_grid`].
        seed (`int`, *optional*, defaults to 0): seed of the bootstrap, which resamples both instructions and seeds.
        baseline (`str`, *optional*, defaults to `"random"`): the method to compare with.

    Returns:
        `list[dict]`, one for each method, budget, k and measure: the mean `value` over seeds and instructions, that of the
        `baseline`, their `difference` with its 95 % interval `low` to `high` (`None` if all instructions differ by the same
        amount), the `verdict` ("better", "worse", "narrower", "wider" or "no difference shown"), the numbers of `seeds` and
        `rows` (instructions) that both have, `detectable`, the difference that this many rows detect with a power of 80 %, and
        `rows_needed` to detect the observed difference. For `spread`, the difference is the mean relative change of the
        standard deviations of linguistic form.
    """
    tuned = [cell for cell in cells if cell["cell"]["method"] != "untuned"]
    by_key: dict[tuple[str, str, float], dict[int, Mapping[str, Any]]] = {}
    for cell in tuned:
        about = cell["cell"]
        by_key.setdefault((about["budget"], about["method"], about["k"]), {})[about["seed"]] = cell
    rows = []
    for (budget, method, k), own in by_key.items():
        if method == baseline:
            continue
        # `everything` does not depend on k: compare it with the baseline at every k.
        for (other_budget, other, other_k), base in by_key.items():
            if other != baseline or other_budget != budget or (EVERYTHING not in (method, other) and other_k != k):
                continue
            seeds = sorted(set(own) & set(base))
            if not seeds:
                continue
            at = other_k if method == EVERYTHING else k
            pairs = [judged_at(own[s], at) for s in seeds], [judged_at(base[s], at) for s in seeds]
            about = {"budget": budget, "method": method, "against": other, "k": k, "baseline_k": other_k, "seeds": len(seeds)}
            for name, title in measures_in([*pairs[0], *pairs[1]]).items():
                compared = _spread(*pairs, seed) if name == "spread" else _mean(*pairs, name, seed)
                if compared is not None:
                    rows.append(about | {"measure": name, "title": title} | compared)
    return rows


def key_of(k: float) -> str:
    """Return the key of the outcomes at k; a text, as in JSON."""
    return repr(float(k))


def judged_at(cell: Mapping[str, Any], k: float | None) -> Mapping[str, Any]:
    """
    Choose the outcomes that the judge's comparisons with random rows have at one k.

    Args:
        cell (`Mapping`): a result; only `"everything"` has outcomes for several k.
        k (`float`, *optional*): the k of the random rows.

    Returns:
        `Mapping`: the result with these outcomes as `judge`; without `judge` if there are none for this k.
    """
    if cell["cell"]["method"] != EVERYTHING or "judge" not in cell:
        return cell
    rest = {name: value for name, value in cell.items() if name != "judge"}
    # A plain list does not tell its k.
    by_k = cell["judge"] if isinstance(cell["judge"], Mapping) else {}
    outcomes = None if k is None else by_k.get(key_of(k))
    return rest if outcomes is None else rest | {"judge": outcomes}


def values_of(cell: Mapping[str, Any], name: str) -> np.ndarray:
    """Return the values of a measure in a cell, one per instruction; NaN where missing."""
    kind, _, which = name.partition(":")
    found = cell[kind][which] if which else cell[kind]
    return np.array([math.nan if value is None else value for value in found], dtype=np.float64)


def _mean(own: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]], name: str, seed: int) -> dict[str, Any] | None:
    values = [np.stack([values_of(cell, name) for cell in cells]) for cells in (own, base)]
    both = np.isfinite(values[0]).all(axis=0) & np.isfinite(values[1]).all(axis=0)
    if both.sum() < 2:
        return None
    first, second = (v[:, both] for v in values)
    differences = first - second
    rng = np.random.default_rng(seed)
    seeds, rows = differences.shape
    draws = np.empty(SAMPLES)
    for i in range(SAMPLES):
        draws[i] = differences[rng.integers(seeds, size=seeds)][:, rng.integers(rows, size=rows)].mean()
    means = float(first.mean()), float(second.mean())
    return _result(means, float(differences.mean()), draws, rows, DIRECTIONS[name.partition(":")[0]])


def _spread(own: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any] | None:
    names = [name for name in own[0]["style"] if all(name in cell["style"] for cell in (*own, *base))]
    matrices = [
        np.stack([np.stack([values_of(cell, f"style:{name}") for name in names], axis=1) for cell in cells])
        for cells in (own, base)
    ]
    rows = matrices[0].shape[1]
    everything = np.ones((1, rows))
    found = [_deviations(matrix, everything)[0] for matrix in matrices]  # (seeds, measures) each
    varied = np.asarray((np.stack(found) > 0).all(axis=(0, 1)))
    if rows < 3 or not varied.any():
        return None
    rng = np.random.default_rng(seed)
    counts = np.stack([np.bincount(rng.integers(rows, size=rows), minlength=rows) for _ in range(SAMPLES)]).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = [np.log(_deviations(matrix[:, :, varied], counts)) for matrix in matrices]  # (samples, seeds, measures)
        per_seed = logs[0] - logs[1]
    per_seed[~np.isfinite(per_seed)] = np.nan
    chosen = rng.integers(len(own), size=(SAMPLES, len(own)))
    drawn = np.take_along_axis(per_seed, chosen[:, :, None], axis=1)
    draws = np.exp(_mean_of(drawn, axis=(1, 2))) - 1
    means = [float(np.exp(np.log(f[:, varied]).mean())) for f in found]
    change = means[0] / means[1] - 1
    return _result((means[0], means[1]), change, draws, rows, 0) | {
        "measures": [n for n, v in zip(names, varied, strict=True) if v]
    }


def _deviations(matrix: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return standard deviations over the rows of `(seeds, rows, measures)`, with rows weighted by counts `(samples, rows)`."""
    present = np.isfinite(matrix)
    centre = _mean_of(matrix, axis=1, keepdims=True)
    values = np.where(present, matrix - np.nan_to_num(centre), 0)
    weight, first, second = (np.einsum("br,srm->bsm", counts, part) for part in (present.astype(float), values, values**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (second - first**2 / weight) / (weight - 1)
    return np.sqrt(np.maximum(variance, 0))


def _mean_of(values: np.ndarray, axis: int | tuple[int, ...], keepdims: bool = False) -> np.ndarray:
    """Return the mean of the finite values; NaN where there are none."""
    present = np.isfinite(values)
    count = present.sum(axis=axis, keepdims=keepdims)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(present, values, 0).sum(axis=axis, keepdims=keepdims) / count


def _result(means: tuple[float, float], difference: float, draws: np.ndarray, rows: int, direction: int) -> dict[str, Any]:
    draws = draws[np.isfinite(draws)]
    error = float(draws.std(ddof=1)) if len(draws) > 1 else math.nan
    # A bootstrap whose draws are all equal does not mean certainty.
    known = error > 0
    low, high = (float(x) for x in np.percentile(draws, [_LOW, _HIGH])) if known else (math.nan, math.nan)
    detectable = (_BOTH_ENDS + _POWER) * error if known else math.nan
    needed = math.ceil(rows * (detectable / abs(difference)) ** 2) if known and difference else None
    ends = (difference, difference) if error == 0 and rows >= _ENOUGH_EQUAL else (low, high)
    return {
        "value": means[0],
        "baseline": means[1],
        "difference": difference,
        "low": low if known else None,
        "high": high if known else None,
        "verdict": _verdict(*ends, direction),
        "rows": rows,
        "detectable": detectable if known else None,
        "rows_needed": needed,
    }


def _verdict(low: float, high: float, direction: int) -> str:
    if not (low > 0 or high < 0):
        return "no difference shown"
    if direction == 0:
        return "narrower" if high < 0 else "wider"
    return "better" if (low > 0) == (direction > 0) else "worse"


def _named(method: str) -> str:
    return {"scar": "SCAR", "ifd": "IFD"}.get(method, method)


def sentence_of(row: Mapping[str, Any], method: str | None = None) -> str:
    """
    Describe a comparison in words.

    Args:
        row (`Mapping`): a row of [`compare_cells`].
        method (`str`, *optional*): the name to show for the method.

    Returns:
        `str`: one sentence.
    """
    name, other = method or _named(row["method"]), _named(row["against"])
    name = name[0].upper() + name[1:]
    title = row["title"][0].lower() + row["title"][1:] if not row["title"].startswith("NLL") else row["title"]
    low, high, detectable = row["low"], row["high"], row["detectable"]

    def shown(value: float, signed: bool = True) -> str:
        sign = "+" if signed else ""
        return (
            f"{100 * value:{sign}.1f} %"
            if row["measure"] in ("spread", "constraints", "code", "judge")
            else f"{value:{sign}.3f}"
        )

    found = shown(row["difference"])
    if low is not None:
        found += f", 95 % interval {shown(low)} to {shown(high)}"
    elif row["verdict"] != "no difference shown":
        found += f", the same {'in every resample' if row['measure'] == 'spread' else 'for each'} of {row['rows']} instructions"
    if row["verdict"] == "better":
        return f"{name} beats {other}: {title} ({found})."
    if row["verdict"] == "worse":
        return f"{name} is beaten by {other}: {title} ({found})."
    if row["verdict"] in ("narrower", "wider"):
        return f"After {name}, the model writes in a {row['verdict']} style than after {other} ({found})."
    seeds = f"{row['seeds']} seed" + "s" * (row["seeds"] > 1)
    if detectable is not None:
        limit = (
            f" With {row['rows']} instructions and {seeds} a difference of {shown(detectable, signed=False)} "
            "would have been seen four times out of five"
        )
    elif row["difference"] == 0:
        limit = " Both have the same values"
    else:
        limit = f" {row['rows']} instructions are too few for an interval"
    needed = f"; for the one found it takes about {row['rows_needed']:,} instructions" if row["rows_needed"] else ""
    return f"{name} against {other}, no difference shown: {title} ({found}).{limit}{needed}."
