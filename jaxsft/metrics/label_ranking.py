"""How well the logits of a row put its labels, any number of them, before the other ones; and how
well the logits of a label put its rows before the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft.metrics import ranking
from jaxsft.metrics.base import Metric, Outputs, namespace, ratio
from jaxsft.metrics.probabilities import in_blocks

ORDERS = ("lrap", "coverage_error", "label_ranking_loss")
AREAS = ("auroc", "average_precision")
AVERAGES = ("macro", "micro", "weighted")


def rows_of(logits: Any, gold: Any) -> tuple[Any, ...]:
    """Returns the three numbers of each row, and whether a logit is no number.

    The rank of a label is how many have no smaller logit. Without labels, or with all of them, a
    row has a precision of 1 and a loss of 0.

    Args:
      logits, gold: `[rows, labels]`.
    """
    xp, labels = namespace(logits), logits.shape[-1]
    order = xp.argsort(-logits, axis=-1)
    right = xp.take_along_axis(gold, order, axis=-1).astype(float)
    _, rank = ranking.tied(xp.take_along_axis(logits, order, axis=-1))
    upto = ranking.upto(right, rank)  # right labels of no smaller logit
    number = gold.sum(-1).astype(float)
    mixed = (number > 0) & (number < labels)
    precision = ratio((right * upto / rank).sum(-1), number, 1.0)
    return (
        xp.where(mixed, precision, 1.0),
        (right * rank).max(-1),
        ratio((right * (rank - upto)).sum(-1), xp.where(mixed, number * (labels - number), 0), 0.0),
        xp.isnan(logits).any(-1),
    )


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns the three numbers of each row; those of a broken one apart."""
    *numbers, broken = in_blocks(rows_of, outputs["logits"], outputs["labels"] > 0)
    xp = namespace(broken)
    values = xp.stack(numbers, -1)
    return {
        "values": xp.where(broken[:, None], 0.0, values),
        "broken": broken,
        "count": broken == broken,
    }


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes means over rows: label ranking average precision (`lrap`), the number of labels that
    one must take to have all right ones (`coverage_error`), and the share of pairs of a right and
    a wrong label whose order is not right (`label_ranking_loss`; Tsoumakas et al., 2010).
    """
    xp = namespace(state["count"])
    nan = xp.where(state["broken"] > 0, xp.nan, 1.0)
    values = state["values"]
    return {name: ratio(values[..., i], state["count"]) * nan for i, name in enumerate(ORDERS)}


def observe_areas(outputs: Outputs) -> dict[str, Any]:
    """Returns the logits of each row and its labels."""
    xp, logits = namespace(outputs["logits"]), outputs["logits"]
    score = np.asfortranarray(logits) if xp is np else logits  # sorted label by label
    return {"score": score, "gold": outputs["labels"] > 0, "broken": xp.isnan(logits).any(-1)}


def reduce_areas(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """Returns the sums of each label, and of all cells of all rows together."""
    xp, score, gold = namespace(weights), statistics["score"], statistics["gold"]
    row = xp.repeat(xp.arange(score.shape[0]), score.shape[1])
    cells = (score.reshape(-1, 1), gold.reshape(-1, 1))
    return {
        "each": ranking.summed(score, gold, weights),
        "all": ranking.summed(*cells, weights, row),
        "broken": weights @ statistics["broken"].astype(weights.dtype),
    }


def each_area(state: dict[str, Any]) -> dict[str, Any]:
    """Computes support, AUROC and average precision of every label."""
    nan = _nan(state)[..., None]
    return {
        "support": state["each"]["positive"],
        "auroc": ranking.auroc(state["each"]) * nan,
        "average_precision": ranking.average_precision(state["each"]) * nan,
    }


def _nan(state: dict[str, Any]) -> Any:
    xp = namespace(state["broken"])
    return xp.where(state["broken"] > 0, xp.nan, 1.0)


def areas(state: dict[str, Any]) -> dict[str, Any]:
    """Computes AUROC and average precision: macro and weighted over the labels for which they are
    defined, and micro, of all cells of all rows together.
    """
    out, support = {}, state["each"]["positive"]
    for name in AREAS:
        of = getattr(ranking, name)
        macro, weighted = ranking.means(of(state["each"]), support)
        found = {"macro": macro, "micro": of(state["all"])[..., 0], "weighted": weighted}
        out |= {f"{name}_{average}": found[average] * _nan(state) for average in AVERAGES}
    return out


METRICS = {
    "label_ranking": Metric(
        ORDERS,
        ("labels", "logits"),
        observe,
        value,
        lower_is_better=("coverage_error", "label_ranking_loss"),
    ),
    "label_areas": Metric(
        tuple(f"{name}_{average}" for name in AREAS for average in AVERAGES),
        ("labels", "logits"),
        observe_areas,
        areas,
        reduce_areas,
        each=each_area,
        table="label_areas",
        counts=("support",),
    ),
}
