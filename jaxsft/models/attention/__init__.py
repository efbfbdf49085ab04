"""Attention over packed rows: the module with its projections. What stands between queries, keys,
values and the result is one of several backends (`backends.py`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jaxtyping import Array, Int

from jaxsft.config.model import ModelConfig
from jaxsft.models import position_inputs
from jaxsft.models.attention import backends, reference
from jaxsft.models.attention.masks import TokenInfo, segment_mask
from jaxsft.models.attention.needs import CONTEXT, AttentionNeeds
from jaxsft.models.attention.score_options import ScoreOptions
from jaxsft.models.kv_slots import Cache
from jaxsft.models.layers import Linear, Norm
from jaxsft.models.rope import rotate

__all__ = ["Attention", "TokenInfo", "segment_mask"]


class Attention(nn.Module):
    """Multi-head attention, [B, S, D] -> [B, S, D], and the cache with the new keys and values."""

    config: ModelConfig
    precision: str
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        tokens: TokenInfo,
        positions: Any,
        cache: Cache | None,
        window: Int[Array, ""] | None = None,
    ) -> tuple[Array, Cache | None]:
        """Computes it; `positions` are those of `position_inputs.inputs`, `cache` and `window` are
        None but in generation and in layers that see only what is near.
        """
        c, d = self.config, x.shape[-1]

        def projection(name, heads, axis):
            shape, axes = (d, heads, c.head_dim), ("embed", axis, "head_dim")
            return Linear("bsd,dhn->bshn", shape, axes, self.precision, bias=c.qkv_bias, name=name)

        to_q = projection("q", c.heads, "heads")
        to_k, to_v = (projection(name, c.kv_heads, "kv_heads") for name in ("k", "v"))
        q, k, v = to_q(x), to_k(x), to_v(x)
        if c.qk_norm != "none":  # Henry et al., 2020, arXiv:2010.04245
            q, k = self._norm("q_norm", "heads")(q), self._norm("k_norm", "kv_heads")(k)
        if c.positions == "rope":
            q, k = rotate(q, positions), rotate(k, positions)
        q, k, v = (checkpoint_name(x, name) for x, name in ((q, "q"), (k, "k"), (v, "v")))
        how, keys, precision = ScoreOptions.of(c, c.causal), tokens, self.precision
        if cache is not None:
            cache, keys = cache.written(k, v), cache.tokens
            k, v, precision = cache.keys_values()
        if self.has_variable("adapters", "adapter"):
            k, v, keys = self.get_variable("adapters", "adapter").keys_values(k, v, keys)
        projected = (q, k, to_q, to_k, how.scale, self.precision)
        bias = position_inputs.bias(c, positions, *projected)
        if bias is not None:
            attend = functools.partial(reference.run, bias=bias)
        else:
            own = keys is tokens  # neither a cache nor a prefix
            needs = AttentionNeeds.of(
                q, k, how, precision, own, _window_of_all(c), window is not None
            )
            attend = backends.attend(c.attention, needs, self.mesh)
        with jax.named_scope("attend"):
            y = attend(q, k, v, tokens, keys, how, precision, window)  # [B, S, H, N]
            y = checkpoint_name(y, CONTEXT)
        out = Linear(
            "bshn,hnd->bsd",
            (c.heads, c.head_dim, d),
            ("heads", "head_dim", "embed"),
            self.precision,
            inputs=2,
            scale=(2 * c.layers) ** -0.5,  # of what is added to the residual stream, as in GPT-2
            bias=c.o_bias,
            name="o",
        )
        return out(y), cache

    def _norm(self, name: str, heads: str) -> Norm:
        axes = ("head_dim",) if self.config.qk_norm == "head" else (heads, "head_dim")
        return Norm.of(self.config, axes=axes, name=name)


def _window_of_all(config: ModelConfig) -> int | None:
    """Returns the window that all layers have; None without one, or where only some have it."""
    return config.window if config.window_layers is None else None
