"""Agreement of gold and predicted labels beyond what their frequencies alone give."""

from __future__ import annotations

from typing import Any

from jaxsft.metrics.base import Metric, namespace, ratio
from jaxsft.metrics.classification import confusion, counts


def correlation(matrix: Any) -> dict[str, Any]:
    """Computes Matthews' correlation coefficient (Matthews, 1975), of many labels R_K (Gorodkin,
    2004). It is 0 where either side has one label only, as in scikit-learn.
    """
    xp = namespace(matrix)
    rows = matrix.sum((-2, -1))
    # of shares, for squares of counts are too large for float32
    hit, predicted, gold = (ratio(x, rows[..., None]) for x in counts(matrix))
    covariance = hit.sum(-1) - (predicted * gold).sum(-1)
    spread = (1 - (predicted**2).sum(-1)) * (1 - (gold**2).sum(-1))
    constant = (predicted.max(-1) == 1) | (gold.max(-1) == 1)
    value = xp.where(constant, 0, ratio(covariance, xp.sqrt(xp.where(constant, 1, spread))))
    return {"mcc": value * ratio(rows, rows)}


def kappas(matrix: Any) -> dict[str, Any]:
    """Computes Cohen's kappa (Cohen, 1960), and weighted (Cohen, 1968) by the distance of two
    labels in the order of the vocabulary, or its square. NaN where chance alone agrees on all rows.
    """
    xp = namespace(matrix)
    rows, number = matrix.sum((-2, -1)), matrix.shape[-1]
    _, predicted, gold = counts(matrix)
    expected = ratio(gold, rows[..., None])[..., :, None] * predicted[..., None, :]
    distance = abs(xp.arange(number)[:, None] - xp.arange(number))
    weights = {
        "cohen_kappa": distance > 0,
        "cohen_kappa_linear": distance,
        "cohen_kappa_quadratic": distance**2,
    }
    return {
        name: 1 - ratio((matrix * w).sum((-2, -1)), (expected * w).sum((-2, -1)))
        for name, w in weights.items()
    }


_NEEDS = ("label", "predicted")
METRICS = {
    "mcc": Metric(("mcc",), _NEEDS, confusion, correlation),
    "cohen_kappa": Metric(
        ("cohen_kappa", "cohen_kappa_linear", "cohen_kappa_quadratic"), _NEEDS, confusion, kappas
    ),
}
