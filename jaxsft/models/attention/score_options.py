"""What is done to the products of queries and keys before the softmax."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jaxsft.config.model import ModelConfig


class ScoreOptions(NamedTuple):
    """The changes of the products of queries and keys before the softmax.

    Attributes:
      causal: no later position is seen.
      scale: of the queries.
      softcap: scores become `cap tanh(score / cap)` (Gemma 2, arXiv:2408.00118, section 2).
    """

    causal: bool
    scale: float
    softcap: float | None = None

    @classmethod
    def of(cls, config: ModelConfig, causal: bool) -> ScoreOptions:
        """Returns those that the config names."""
        scale = config.head_dim**-0.5 if config.query_scale is None else config.query_scale
        return cls(causal, scale, config.attention_softcap)

    def cap(self, scores: Array) -> Array:
        return scores if self.softcap is None else self.softcap * jnp.tanh(scores / self.softcap)

    def slope(self, capped: Array) -> Array | float:
        """Returns the derivative of `cap`, computed from the value that `cap` returned."""
        return 1.0 if self.softcap is None else 1 - jnp.square(capped / self.softcap)
