"""How well the confidence of a classifier tells rows that are out of scope from the others."""

from __future__ import annotations

from typing import Any

from jaxsft.metrics import ranking
from jaxsft.metrics.base import Metric, Outputs, namespace, ratio
from jaxsft.metrics.probabilities import exponentials, in_blocks

RECALL = 0.95


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row the score that it is out of scope, 1 - its largest probability (Hendrycks
    and Gimpel, 2017), and whether it is.
    """

    def work(logits: Any) -> tuple[Any, ...]:
        e, s = exponentials(logits)
        return (1 - e.max(-1) / s,)

    (score,) = in_blocks(work, outputs["logits"])
    broken = namespace(score).isnan(score)
    return {"score": score, "outside": outputs["out_of_scope"], "broken": broken}


def reduce(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """Returns the sums of the ranking, and the weight of rows in scope at the threshold."""
    xp, columns = namespace(weights), (statistics["score"][:, None], statistics["outside"][:, None])
    sums = ranking.summed(*columns, weights)
    c = ranking.cumulate(*columns, weights)
    reached = (c.upto > 0) & (ratio(c.upto, c.upto[..., -1:], 0.0) >= RECALL)
    false = xp.where(reached, c.all_upto - c.upto, xp.inf).min(-1, initial=xp.inf)
    return sums | {"false": false, "broken": weights @ statistics["broken"].astype(weights.dtype)}


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the AUROC of the score, rows out of scope being the positive ones, and the share of
    rows in scope that a threshold flags which finds 95 % of those out of scope (Hendrycks et al.,
    2019).
    """
    xp = namespace(state["false"])
    nan = xp.where((state["broken"] > 0) | (state["positive"][..., 0] == 0), xp.nan, 1.0)
    flagged = xp.where(xp.isfinite(state["false"]), state["false"], 0)[..., 0]
    return {
        "oos_auroc": ranking.auroc(state)[..., 0] * nan,
        "oos_fpr95": ratio(flagged, state["negative"][..., 0]) * nan,
    }


METRICS = {
    "out_of_scope": Metric(
        ("oos_auroc", "oos_fpr95"),
        ("logits", "out_of_scope"),
        observe,
        value,
        reduce,
        lower_is_better=("oos_fpr95",),
    )
}
