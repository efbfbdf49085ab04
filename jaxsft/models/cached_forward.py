"""The forward pass of new tokens alone, whose keys and values join a cache: for generation."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Int

from jaxsft.models.attention import TokenInfo
from jaxsft.models.kv_slots import Cache
from jaxsft.models.layer_stack import depth_of, layers_of
from jaxsft.models.model_base import Params


class CachedForward:
    """The part of `Transformer` that generation runs."""

    def decode(
        self,
        params: Params,
        tokens: Int[Array, "batch new"],
        where: TokenInfo,
        caches: tuple[Cache, ...],
    ) -> tuple[Float[Array, "batch new embed"], tuple[Cache, ...]]:
        """Computes `hidden` of new tokens, which see the cached ones; returns the new caches too.

        Layers are unrolled: a stacked cache would be copied at every token.
        """
        x, out = self._embed(params, tokens, where, None), []
        positions = self._positions(params, where, caches[0].tokens, x.dtype)
        for start, stack, beside in self._segments(params):
            layers = layers_of(self.config, start, depth_of(stack))
            for i in range(depth_of(stack)):
                own, extra, layer = jax.tree.map(lambda a: a[i], (stack, beside, layers))
                weights = {"params": own} | self._adapters(extra)
                x, cache = self.block().apply(
                    weights, x, where, positions, layer, None, caches[start + i]
                )
                out.append(cache)
        return self._norm(params, x), tuple(out)
