"""A head for classes in an order: `head/{out/{w [D, 1], [b]}, thresholds [C - 1], ...}`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxsft.models.attention import TokenInfo
from jaxsft.models.dropout import Dropout, apply_dropout
from jaxsft.models.heads import TextHead
from jaxsft.sharding.weights import declare


def log_probabilities(
    score: Float[Array, ...], raw: Float[Array, edges]
) -> Float[Array, "... classes"]:
    """Computes the logarithms of `P(k) = s(t_k - f) - s(t_(k-1) - f)`, s the logistic function.

    It is the cumulative link model (McCullagh, 1980): one score of a text, f, and thresholds that
    rise, here `t_1 = raw_1` and `t_k = t_(k-1) + softplus(raw_k)`, moved so that raw numbers of 0
    lie around 0.
    """
    gaps = jax.nn.softplus(raw[1:])
    edges = raw[0] - gaps.sum() / 2 + jnp.concatenate([jnp.zeros(1, raw.dtype), jnp.cumsum(gaps)])
    below = jax.nn.log_sigmoid(edges - score[..., None])
    above = jax.nn.log_sigmoid(score[..., None] - edges)
    # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)), without cancellation
    between = below[..., 1:] + above[..., :-1] + jnp.log(-jnp.expm1(-gaps))
    return jnp.concatenate([below[..., :1], between, above[..., -1:]], axis=-1)


class OrdinalHead(TextHead):
    """A head whose outputs are the logarithms of the probabilities of C classes in their order."""

    @nn.compact
    def __call__(
        self,
        x: Array,
        where: TokenInfo | None = None,
        texts: int = 1,
        dropout: Dropout | None = None,
    ) -> Float[Array, "batch texts outputs"]:
        y = apply_dropout(self.vectors(x, where, texts), dropout, 0)
        score = self.linear("out", self.embed, 1)(y)[..., 0]
        edges = self.outputs - 1
        raw = self.param("thresholds", declare(nn.initializers.zeros, ("classes",)), (edges,))
        return log_probabilities(score, raw.astype(score.dtype))
