"""Sparse mixture of experts: each token goes through a few of the MLPs of its layer, and none is
dropped.

Letters: B batch, S sequence, D embed, F hidden, E experts, C chosen per token, T = B * S tokens, U
= T * C uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxsft.config.model import ModelConfig
from jaxsft.models.activations import ACTIVATIONS
from jaxsft.models.expert_load import Routing
from jaxsft.models.initialisers import fan_in_normal
from jaxsft.models.layers import MLP, Linear
from jaxsft.products import at_least_fp32
from jaxsft.sharding.weights import declare

ROUTING = "routing"  # the collection of what routers said, kept where it is mutable


class Experts(nn.Module):
    """Mixtral's sparse MLP layer, [B, S, D] -> [B, S, D].

    A softmax over all experts, the `experts_per_token` largest of it, and the sum of these
    experts by their weights (Jiang et al., 2024, arXiv:2401.04088, section 2.1). No expert has
    a capacity, so a text does not depend on its batch. With `expert_shared`, an MLP that every
    token takes, times the sigmoid of a gate of its own.
    """

    config: ModelConfig
    precision: str
    scale: float  # of the output projection

    @nn.compact
    def __call__(self, x: Float[Array, "batch seq embed"]) -> Float[Array, "batch seq embed"]:
        c, d = self.config, x.shape[-1]
        # in full precision: a tie decides much
        scores = Linear(
            "bsd,de->bse", (d, c.experts), ("embed", "experts_out"), "fp32", name="router"
        )(x)
        # [B, S, C]
        weights, chosen = lax.top_k(
            jax.nn.softmax(scores.astype(at_least_fp32(scores.dtype)), axis=-1), c.experts_per_token
        )
        self.sow(ROUTING, "scores", (scores, chosen))
        if c.expert_norm:
            weights = weights / weights.sum(-1, keepdims=True)
        uses, order, sizes = gather(
            x.reshape(-1, d), chosen.reshape(-1, c.experts_per_token), c.experts
        )
        into = (
            self._weight("gate", (d, c.mlp), ("embed", "mlp")),
            self._weight("up", (d, c.mlp), ("embed", "mlp")),
        )
        gate, up = (grouped(uses, w, sizes, self.precision) for w in into)  # [U, F]
        out = grouped(
            ACTIVATIONS[c.activation](gate) * up,
            self._weight("down", (c.mlp, d), ("mlp", "embed"), self.scale),
            sizes,
            self.precision,
        )
        back = jnp.zeros_like(out).at[order].set(out)  # in the order of tokens again
        y = (
            back.reshape(-1, c.experts_per_token, d) * weights.reshape(-1, c.experts_per_token, 1)
        ).sum(1)
        y = y.reshape(x.shape).astype(x.dtype)
        if c.expert_shared:  # Qwen, 2024, "Qwen1.5-MoE"; DeepSeekMoE, arXiv:2401.06066, section 3.2
            shared = MLP(
                c.expert_shared, True, c.activation, self.precision, self.scale, name="shared"
            )
            gate = Linear("bsd,de->bse", (d, 1), ("embed", "experts_out"), "fp32", name="share")
            y = y + jax.nn.sigmoid(gate(x)) * shared(x)
        return y

    def _weight(
        self, name: str, shape: tuple[int, int], axes: tuple[str, str], scale: float = 1.0
    ) -> Array:
        return Matrices(self.config.experts, shape, axes, scale, name=name)()


def routing(found: Mapping[str, Any], there: Bool[Array, "batch seq"]) -> Routing | None:
    """Returns a block's router sums from the collection `ROUTING`; None where it has no router."""
    return Routing.update(*found[ROUTING]["mlp"]["scores"][0], there) if ROUTING in found else None


class Matrices(nn.Module):
    """One matrix for each expert: `w` `[E, inputs, outputs]`."""

    experts: int
    shape: tuple[int, int]
    axes: tuple[str, str]
    scale: float

    @nn.compact
    def __call__(self) -> Float[Array, "experts inputs outputs"]:
        one = fan_in_normal(1, self.scale)
        each = lambda key, shape, dtype: jax.vmap(lambda k: one(k, shape[1:], dtype))(
            jax.random.split(key, shape[0])
        )
        return self.param(
            "w", declare(each, ("experts", *self.axes), inputs=1), (self.experts, *self.shape)
        )


def gather(
    x: Float[Array, "tokens embed"], chosen: Int[Array, "tokens chosen"], experts: int
) -> tuple[Float[Array, "uses embed"], Int[Array, uses], Int[Array, experts]]:
    """Copies each token once for every expert it chose, and sorts the copies by expert.

    Returns the copies, the index of the use each came from, and the number of uses of each
    expert.
    """
    flat = chosen.reshape(-1)
    order = jnp.argsort(flat, stable=True)
    return x[order // chosen.shape[1]], order, jnp.bincount(flat, length=experts).astype(jnp.int32)


def grouped(
    x: Float[Array, "uses inputs"],
    w: Float[Array, "experts inputs outputs"],
    sizes: Int[Array, experts],
    precision: str,
) -> Array:
    """Computes `x @ w[e]` for the rows of each expert `e`, in the precision of `contract`."""
    if precision != "fp32":
        return lax.ragged_dot(
            x.astype(jnp.bfloat16),
            w.astype(jnp.bfloat16),
            sizes,
            preferred_element_type=jnp.float32,
        )
    wide = at_least_fp32(jnp.result_type(x, w))
    return lax.ragged_dot(x, w, sizes, precision=lax.Precision.HIGHEST, preferred_element_type=wide)
