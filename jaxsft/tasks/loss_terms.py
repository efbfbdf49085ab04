"""The terms of a loss: values with weights, their sums, and the sums of each packed text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxsft.models.heads import members


class Weighed(NamedTuple):
    """The values of a term and their weights: `[B, G, ...]` of texts or, with `segments` `[B, N]`,
    those of tokens or words, each of the text of this number (from 1; 0: of none).
    """

    values: Array
    weights: Array
    segments: Array | None = None

    def total(self) -> Array:
        """Computes the sum of the weighted values."""
        return (self.weights * self.values).sum()

    def of_texts(self, texts: int) -> list[Float[Array, "batch texts"]]:
        """Computes of each text the sum of the weighted values, and that of the weights."""
        parts = self.weights * self.values, self.weights
        if self.segments is None:
            return [x.reshape(*x.shape[:2], -1).sum(-1) for x in parts]
        return [by_text(x, self.segments, texts) for x in parts]


def by_text(
    values: Array, segments: Int[Array, "batch items"], texts: int
) -> Float[Array, "batch texts"]:
    """Adds up the values `[B, N]` of the tokens or words of each packed text."""
    return jnp.where(members(segments, texts), values[:, None], 0).sum(-1)


def objective_value(
    terms: Mapping[str, Any], totals: Mapping[str, Any], weights: Mapping[str, Any]
) -> float:
    """Computes `sum_k lambda_k S_k / W_k` of merged sums, on the host; NaN where a `W_k` is 0."""
    return float(
        sum(
            float(weights[k])
            * (float(terms[k]) / float(totals[k]) if totals[k] > 0 else float("nan"))
            for k in terms
        )
    )
