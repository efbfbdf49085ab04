"""The score as a function of the number of training rows: `a + b n^-c`, and what twice the rows
would give.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import optimize

from jaxsft.evaluation import bounds

STEEPEST, FLATTEST = 4.0, 0.05  # of c: beyond them a and b cannot be told apart
SIZES = 3  # different ones that a curve of three numbers needs


def power_law(
    rows: Sequence[float],
    scores: Sequence[float],
    lower_is_better: bool,
    options: Any,
) -> dict[str, Any]:
    """Fits `a + b n^-c` to points by least squares.

    Its uncertainty is that of a bootstrap over the points of each size.

    Args:
      rows, scores: `[points]`.
      lower_is_better: then b is 0 or more, else 0 or less.
      options: a `BoundOptions`.

    Returns: `fit` with a, b and c and `bounds` of each; `doubled`: what is expected of twice the
      most `rows`, `value`, `low` and `high`. Without a fit `reason` says why.
    """
    n, y = np.asarray(rows, np.float64), np.asarray(scores, np.float64)
    sizes = np.unique(n)
    if len(sizes) < SIZES:
        return {"reason": f"{len(sizes)} sizes of the training set; a curve needs {SIZES}"}
    if not np.isfinite(y).all():
        return {"reason": "a score is not finite"}
    found = _fitted(n, y, lower_is_better)
    if found is None:
        return {"reason": "least squares found no curve"}
    double, most = 2 * sizes[-1], sizes[-1]
    rng = np.random.default_rng(options.seed)
    of_size = [np.flatnonzero(n == size) for size in sizes]
    drawn = []
    if min(map(len, of_size)) > 1:
        for _ in range(min(options.replicates, 200)):
            chosen = np.concatenate([rng.choice(one, len(one)) for one in of_size])
            if (one := _fitted(n[chosen], y[chosen], lower_is_better, found)) is not None:
                drawn.append([*_in_rows(one, most), _value(one, double / most)])
    a, b, c = _in_rows(found, most)
    out: dict[str, Any] = {
        "fit": {"a": a, "b": b, "c": c},
        "doubled": {"rows": int(double), "value": float(_value(found, double / most))},
    }
    if len(drawn) < 2:
        return out | {"reason": "no bounds: one point of a size has no spread"}
    table = np.array(drawn)
    few = min(map(len, of_size))
    out["bounds"] = {
        name: bounds.percentile(table[:, i], options.level, few) for i, name in enumerate("abc")
    }
    out["doubled"] |= bounds.percentile(table[:, 3], options.level, few)
    return out | {"replicates": len(drawn)}


def _fitted(
    n: np.ndarray, y: np.ndarray, lower: bool, start: np.ndarray | None = None
) -> np.ndarray | None:
    """Returns (a, b, c) of `a + b (n / most)^-c`; None where least squares do not end."""
    low, high = ([0.0, np.inf] if lower else [-np.inf, 0.0]), [-np.inf, np.inf]
    if y.min() >= 0:  # neither an error nor a share goes below 0, nor a share above 1
        high = [0.0, 1.0 if not lower and y.max() <= 1 else np.inf]
    if start is None:
        best, spread = (y.min(), 1) if lower else (y.max(), -1)
        start = np.array([best, spread * max(float(np.ptp(y)), 1e-3) / 2, 0.5])
    lowest, highest = [high[0], low[0], FLATTEST], [high[1], low[1], STEEPEST]
    start = np.clip(start, lowest, highest)
    curve = lambda x, a, b, c: a + b * x**-c
    try:
        with warnings.catch_warnings():
            # of the covariance, which the bootstrap takes the place of
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            found, _ = optimize.curve_fit(curve, n / n.max(), y, start, bounds=(lowest, highest))
    except (RuntimeError, ValueError):
        return None
    return found


def _value(found: np.ndarray, times: float) -> float:
    return float(found[0] + found[1] * times ** -found[2])


def _in_rows(found: np.ndarray, most: float) -> tuple[float, float, float]:
    """Returns (a, b, c) of `a + b n^-c`."""
    return float(found[0]), float(found[1] * most ** found[2]), float(found[2])
