"""Router metrics: the balance loss and how unevenly the experts are used.

Letters: B batch, S sequence, E experts, C chosen per token, L layers.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsft.losses.terms import expert_balance as losses
from jaxsft.models.step_sums import StepSums


class Routing(StepSums):
    """Sums of the router over real tokens, `[L, ...]` of a stack of layers.

    Attributes:
      chosen: `[L, E]`, how many tokens chose each expert.
      probability: `[L, E]`, the sum of its probabilities over all tokens, whoever was chosen.
      square: `[L]`, the sum of squares of `log sum exp(scores)`.
      tokens: `[L]`.
    """

    chosen: Any
    probability: Any
    square: Any
    tokens: Any

    @classmethod
    def update(
        cls,
        scores: Float[Array, "batch seq experts"],
        chosen: Int[Array, "batch seq chosen"],
        there: Bool[Array, "batch seq"],
    ) -> Routing:
        """Computes the sums of one layer."""
        uses = (
            jax.nn.one_hot(chosen, scores.shape[-1], dtype=jnp.int32) * there[..., None, None]
        ).sum((0, 1, 2))
        probability = jnp.where(there[..., None], jax.nn.softmax(scores, axis=-1), 0).sum((0, 1))
        square = jnp.where(there, jnp.square(jax.nn.logsumexp(scores, axis=-1)), 0).sum()
        return cls(uses, probability, square, there.sum(dtype=jnp.int32))

    def brief(self) -> dict[str, float]:
        """Computes the losses and `expert_load`.

        The load is how many tokens the most used expert has, against the mean of its layer,
        in the layer where that is most; 1 is even.
        """
        tokens = float(np.sum(self.tokens))
        if not tokens:
            return {"balance_loss": math.nan, "router_z_loss": math.nan, "expert_load": math.nan}
        balance, z = (
            losses.balance(self.chosen, self.probability, tokens),
            losses.router_z(self.square, tokens),
        )
        chosen = np.asarray(self.chosen, np.float64)
        return {
            "balance_loss": float(balance),
            "router_z_loss": float(z),
            "expert_load": float((chosen.max(1) / chosen.mean(1)).max()),
        }
