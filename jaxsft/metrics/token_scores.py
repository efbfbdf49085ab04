"""Scores of predicted tokens: their mean surprise by token and by byte, and how many are right."""

from __future__ import annotations

import math
from typing import Any

from jaxsft.metrics.base import Metric, Outputs, namespace, ratio


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row the sum of `-log p` of its trained tokens, in nats, and two counts."""
    return {name: outputs[name] for name in ("nll", "correct", "count")}


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes perplexity, `exp` of the mean `-log p`, and the share of tokens that are the most
    probable ones.
    """
    count, xp = state["count"], namespace(state["count"])
    mean = ratio(state["nll"], count)
    return {
        "perplexity": xp.where(mean > 700, xp.inf, xp.exp(xp.where(mean > 700, 0, mean))),
        "token_accuracy": ratio(state["correct"], count),
        "tokens": count,
    }


def of_masked(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the same of tokens that were masked, whose accuracy has a name of its own."""
    numbers = value(state)
    return {"masked_accuracy": numbers.pop("token_accuracy"), **numbers}


def observe_bytes(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row the sum of `-log p` and the bytes of its trained text in UTF-8."""
    return {name: outputs[name] for name in ("nll", "bytes")}


def bits_per_byte(state: dict[str, Any]) -> dict[str, Any]:
    """Computes `-log2 p` by byte of the text (Gao et al., 2020, arXiv:2101.00027), which compares
    models whose tokens differ.
    """
    bits = state["nll"] / math.log(2)
    return {"bits_per_byte": ratio(bits, state["bytes"]), "bytes": state["bytes"]}


def nats(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the mean `-log p` of a token, without the weights of the loss."""
    return {"nats_per_token": ratio(state["nll"], state["count"])}


_OF_TOKENS = {
    "needs": ("nll", "correct", "count"),
    "observe": observe,
    "lower_is_better": ("perplexity",),
    "counts": ("tokens",),
}
METRICS = {
    "token_scores": Metric(("perplexity", "token_accuracy", "tokens"), value=value, **_OF_TOKENS),
    "masked_token_scores": Metric(
        ("perplexity", "masked_accuracy", "tokens"), value=of_masked, **_OF_TOKENS
    ),
    "token_loss": Metric(
        ("nats_per_token",),
        ("nll", "count"),
        lambda outputs: {name: outputs[name] for name in ("nll", "count")},
        nats,
        lower_is_better=("nats_per_token",),
    ),
    "bits_per_byte": Metric(
        ("bits_per_byte", "bytes"),
        ("nll", "bytes"),
        observe_bytes,
        bits_per_byte,
        lower_is_better=("bits_per_byte",),
        counts=("bytes",),
    ),
}
