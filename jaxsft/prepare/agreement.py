"""Inter-annotator agreement, corrected for chance.

Ratings are `[annotators, items]`; NaN is a missing rating.

Every measure is `1 - observed / expected` disagreement, or the same in agreement; they differ in
what they expect by chance and in what they count as near. 1 is perfect, 0 is chance, less than 0 is
systematic disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxsft.errors import ConfigError, DataError

LEVELS = ("nominal", "ordinal", "interval", "ratio")
WEIGHTS = ("none", "linear", "quadratic")


def coded(values: Sequence[Sequence[object]]) -> tuple[Float[np.ndarray, "A I"], list[str]]:
    """Converts labels to numbers; returns them and the sorted labels. None is a missing rating."""
    names = sorted({str(v) for line in values for v in line if v is not None})
    number = {name: float(i) for i, name in enumerate(names)}
    return (
        np.array([[np.nan if v is None else number[str(v)] for v in line] for line in values]),
        names,
    )


def cohen_kappa(
    a: Float[np.ndarray, " I"], b: Float[np.ndarray, " I"], weights: str = "none"
) -> float:
    """Computes Cohen's kappa of two annotators: `1 - sum w o / sum w e`.

    Cohen 1960; weighted: Cohen 1968. `o` are the shares of pairs of categories, `e` the product
    of each annotator's own shares, and `w` is 0 on the diagonal and else 1, the distance of the
    categories in their order, or its square.

    Items that one of them did not rate are left out. NaN where chance alone would agree everywhere.

    Raises:
      ConfigError: no such weights.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"weights={weights}: expected one of {', '.join(WEIGHTS)}")
    a, b = _checked(np.stack([a, b]))
    present = ~(np.isnan(a) | np.isnan(b))
    if not present.any():
        raise DataError("agreement: no item was rated by both annotators")
    values, place = np.unique(np.concatenate([a[present], b[present]]), return_inverse=True)
    first, second = np.split(place, 2)
    observed = np.zeros((len(values),) * 2)
    np.add.at(observed, (first, second), 1)
    observed /= observed.sum()
    expected = np.outer(observed.sum(1), observed.sum(0))
    far = np.abs(np.subtract.outer(np.arange(len(values)), np.arange(len(values))))
    w = {"none": far > 0, "linear": far, "quadratic": far**2}[weights]
    return 1 - _ratio((w * observed).sum(), (w * expected).sum())


def fleiss_kappa(ratings: Float[np.ndarray, "A I"]) -> float:
    """Computes Fleiss' kappa of several annotators (Fleiss 1971).

    It is the mean share of agreeing pairs per item against the sum of squared shares of
    categories.

    Raises:
      DataError: the items have different numbers of ratings (Krippendorff's alpha takes those), or
        fewer than two.
    """
    ratings = _checked(ratings)
    raters = (~np.isnan(ratings)).sum(0)
    if raters.min() != raters.max() or raters.min() < 2:
        raise DataError(
            f"Fleiss' kappa: items have {raters.min()} to {raters.max()} ratings, expected the same"
            " number, of at least 2; use alpha"
        )
    # [values, items]
    counts = np.stack(
        [(ratings == value).sum(0) for value in np.unique(ratings[~np.isnan(ratings)])]
    )
    n = int(raters[0])
    agreed = ((counts**2).sum(0) - n) / (n * (n - 1))
    chance = ((counts.sum(1) / counts.sum()) ** 2).sum()
    return 1 - _ratio(1 - agreed.mean(), 1 - chance)


def krippendorff_alpha(ratings: Float[np.ndarray, "A I"], level: str = "nominal") -> float:
    """Computes Krippendorff's alpha: any number of annotators, ratings may be missing.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".

    `1 - D_o / D_e`, from the coincidences of values within items: `o_ck` counts the ordered pairs
    (c, k) of one item, each divided by one less than the item's ratings; `e_ck` is `n_c n_k / (n -
    1)` (`n_c (n_c - 1)` on the diagonal). The distance of c and k is 0 or 1 (nominal), `(c - k)^2`
    (interval), `((c - k) / (c + k))^2` (ratio), or the square of the ratings that lie between c and
    k, themselves counted half (ordinal).

    Args:
      level: nominal, ordinal, interval or ratio.

    Raises:
      DataError: no item has two ratings; a negative rating on the ratio scale.
    """
    if level not in LEVELS:
        raise ConfigError(f"level={level}: expected one of {', '.join(LEVELS)}")
    ratings = _checked(ratings)
    ratings = ratings[:, (~np.isnan(ratings)).sum(0) > 1]
    if not ratings.size:
        raise DataError("agreement: no item has two ratings")
    values = np.unique(ratings[~np.isnan(ratings)])
    if level == "ratio" and values.min() < 0:
        raise DataError(
            f"agreement: found the rating {values.min():g}, expected none below 0 on the ratio"
            " scale"
        )
    # [values, items]
    counts = np.stack([(ratings == value).sum(0) for value in values]).astype(float)
    raters = counts.sum(0)
    coincidence = (counts / (raters - 1)) @ counts.T - np.diag((counts / (raters - 1)).sum(1))
    total = coincidence.sum(1)
    expected = (np.outer(total, total) - np.diag(total)) / (total.sum() - 1)
    distance = _distances(values, total, level)
    return 1 - _ratio((coincidence * distance).sum(), (expected * distance).sum())


def _distances(values: np.ndarray, total: np.ndarray, level: str) -> np.ndarray:
    if level == "nominal":
        return 1 - np.eye(len(values))
    if level == "interval":
        return np.subtract.outer(values, values) ** 2
    if level == "ratio":
        both = np.add.outer(values, values)
        return (
            np.divide(
                np.subtract.outer(values, values), both, out=np.zeros_like(both), where=both > 0
            )
            ** 2
        )
    middle = np.cumsum(total) - total / 2  # of each value among all ratings in order
    return np.subtract.outer(middle, middle) ** 2


def _ratio(above: float, below: float) -> float:
    """Computes a ratio; NaN where nothing could disagree, for only one value was ever used."""
    return float(above / below) if below else float("nan")


def _checked(ratings: Float[np.ndarray, "A I"]) -> Float[np.ndarray, "A I"]:
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 2 or len(ratings) < 2 or np.isinf(ratings).any():
        raise DataError(
            f"agreement: found ratings of shape {list(ratings.shape)}, expected [annotators, items]"
            " with two annotators at least"
        )
    return ratings
