"""Areas under the ROC and the precision-recall curve of the probabilities of one label a row.

One against the rest, one against one, and of two labels; exact, or from scores in bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft.metrics import ranking
from jaxsft.metrics.base import Cells, Metric, Outputs, namespace, ratio
from jaxsft.metrics.one_vs_rest import two_labels
from jaxsft.metrics.probabilities import log_probabilities, shifted, wide

BINS = 256
RANGE = 16.0  # of the log-odds that the bins divide


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns the logarithm of each probability `[rows, labels]`, and the label.

    Logarithms keep the order of probabilities that are too small to differ.
    """
    score, label = log_probabilities(outputs["logits"]), outputs["label"]
    return {"score": score, "label": label, "broken": broken(score) & (label >= 0)}


def broken(score: Any) -> Any:
    """Returns which rows have a score that is no number."""
    xp = namespace(score)
    return xp.isnan(score[:, 0] if score.shape[1] else xp.zeros(len(score)))


def _counted(statistics: dict[str, Any], weights: Any) -> tuple[Any, Any]:
    """Returns the weights of rows without those that have no label, and that of broken ones."""
    return weights * (statistics["label"] >= 0), weights @ statistics["broken"].astype(
        weights.dtype
    )


def against_rest(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """Returns the sums of each label against all others, `[..., labels]`."""
    score, label = statistics["score"], statistics["label"]
    weights, nan = _counted(statistics, weights)
    # label by label in memory, as it is read
    positive = (namespace(weights).arange(score.shape[1])[:, None] == label).T
    return ranking.summed(score, positive, weights) | {"broken": nan}


def against_each(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """Returns the sums of each label against each other one, `[..., labels, labels]`."""
    score, label = statistics["score"], statistics["label"]
    weights, nan = _counted(statistics, weights)
    one_hot = label[:, None] == namespace(weights).arange(score.shape[1])
    return {
        "wins": ranking.pairs(score, label, weights),
        "support": weights @ one_hot.astype(weights.dtype),
        "broken": nan,
    }


def _sound(state: dict[str, Any], value: Any) -> Any:
    """Returns the value, or NaN where a score is no number."""
    xp = namespace(value)
    bad = state["broken"] > 0
    return xp.where(bad.reshape((*bad.shape, *(1,) * (value.ndim - bad.ndim))), xp.nan, value)


def _areas(name: str, suffix: str = "") -> dict[str, Any]:
    """Returns the functions of a metric: means over labels of a number of each against the rest."""
    of = {"auroc": ranking.auroc, "average_precision": ranking.average_precision}[name]

    def each(state: dict[str, Any]) -> dict[str, Any]:
        return {"support": state["positive"], name: _sound(state, of(state))}

    def value(state: dict[str, Any]) -> dict[str, Any]:
        macro, weighted = ranking.means(of(state), state["positive"])
        return {
            f"{name}_ovr_macro{suffix}": _sound(state, macro),
            f"{name}_ovr_weighted{suffix}": _sound(state, weighted),
        }

    names = tuple(f"{name}_ovr_{average}{suffix}" for average in ("macro", "weighted"))
    return {
        "names": names,
        "value": value,
        "each": each,
        "table": name + suffix,
        "counts": ("support",),
    }


def one_against_one(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the mean over all ordered pairs of labels of how well the score of the first one
    tells their rows apart (Hand and Till, 2001).
    """
    xp = namespace(state["wins"])
    support = state["support"]
    size = support[..., :, None] * support[..., None, :]
    own = xp.eye(support.shape[-1], dtype=bool)
    area = xp.where(own, xp.nan, ratio(state["wins"], size))
    macro, _ = ranking.means(area.reshape((*area.shape[:-2], -1)), xp.ones(()))
    return {"auroc_ovo_macro": _sound(state, macro)}


def observe_two(outputs: Outputs) -> dict[str, Any]:
    """Returns the log-odds of the second of two labels: what their logits differ by."""
    two_labels(outputs, "binary_areas", "auroc_ovr")
    logits, label = wide(outputs["logits"]), outputs["label"]
    score = logits[:, 1:] - logits[:, :1]
    return {"score": score, "label": label, "broken": broken(score) & (label >= 0)}


def reduce_two(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """Returns the sums of the second label."""
    weights, nan = _counted(statistics, weights)
    positive = statistics["label"][:, None] == 1
    return ranking.summed(statistics["score"], positive, weights) | {"broken": nan}


def value_two(state: dict[str, Any]) -> dict[str, Any]:
    """Computes AUROC and average precision of the second of two labels, the positive one."""
    return {
        "auroc_binary": _sound(state, ranking.auroc(state)[..., 0]),
        "average_precision_binary": _sound(state, ranking.average_precision(state)[..., 0]),
    }


def bins(outputs: Outputs) -> dict[str, Any]:
    """Returns the bin of each probability `[rows, labels]`, by its log-odds: `BINS` bins of equal
    width from -`RANGE` to `RANGE`, the outer ones open.
    """
    xp, label = namespace(outputs["logits"]), outputs["label"]
    one = log_probabilities if xp is np else lambda logits: _log(*shifted(logits))
    score = one(outputs["logits"])
    if xp is np:
        columns = ranking.of_columns(lambda c: _bin(score[:, c]), score.shape[1])
        places = np.stack(columns).T
    else:
        places = _bin(score)
    return {"bin": places, "label": label, "broken": broken(score) & (label >= 0)}


def _log(z: Any, s: Any) -> Any:
    return z - namespace(s).log(s)[:, None]


def _bin(score: Any) -> Any:
    """Returns the bins of logarithms of probabilities."""
    xp = namespace(score)
    none = xp.asarray(1e-30, dtype=score.dtype)  # a probability of 1 has no log-odds
    odds = score - xp.log(xp.maximum(1 - xp.exp(score), none))
    place = xp.floor((odds + RANGE) * (BINS / (2 * RANGE)))
    return xp.where(xp.isnan(place), 0, xp.clip(place, 0, BINS - 1)).astype(xp.uint8)


def reduce_bins(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """Returns the sums of each label against all others, by counts of bins."""
    bin_, label = statistics["bin"], statistics["label"]
    xp = namespace(weights)
    weights, nan = _counted(statistics, weights)
    labels = bin_.shape[1]
    own = xp.take_along_axis(bin_, xp.maximum(label, 0)[:, None].astype(xp.int32), -1)[:, 0]
    positive = Cells.of(label, own.astype(xp.int32), shape=(labels, BINS)).count(weights)
    if xp is np:
        of = lambda c: Cells(bin_[:, c].astype(np.intp), (BINS,)).count(weights)
        every = np.stack(ranking.of_columns(of, labels), -2)
    else:
        of_column = (bin_.astype(xp.int32) + xp.arange(labels) * BINS).reshape(-1)
        row = xp.repeat(xp.arange(len(label)), labels)
        every = Cells(of_column, (labels, BINS), row).count(weights)
    other = every - positive
    above = xp.cumulative_sum(positive[..., ::-1], axis=-1)[..., ::-1]  # with those of the bin
    return {
        "wins": (other * (above - positive / 2)).sum(-1),
        "positive": positive.sum(-1),
        "negative": other.sum(-1),
        "broken": nan,
    }


_NEEDS = ("label", "logits")
METRICS = {
    "auroc_ovr": Metric(needs=_NEEDS, observe=observe, reduce=against_rest, **_areas("auroc")),
    "auroc_ovo": Metric(("auroc_ovo_macro",), _NEEDS, observe, one_against_one, against_each),
    "auroc_binned": Metric(
        needs=_NEEDS, observe=bins, reduce=reduce_bins, **_areas("auroc", f"_binned_{BINS}")
    ),
    "average_precision_ovr": Metric(
        needs=_NEEDS, observe=observe, reduce=against_rest, **_areas("average_precision")
    ),
    "binary_areas": Metric(
        ("auroc_binary", "average_precision_binary"), _NEEDS, observe_two, value_two, reduce_two
    ),
}
