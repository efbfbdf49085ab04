"""The Transformer: attention, blocks that declare their weights, and functions that run a stack of
them.

    params = {"embed": {"tokens": {"w"}, ...}, "layers": {"0": one stack of blocks}, "norm":
    {"scale"}, "head": ...}

After freezing, `layers` holds several segments, each named by its first layer; a segment is one
scan.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxsft.config.adapters import AdapterConfig
from jaxsft.config.model import ModelConfig
from jaxsft.models import adapters, experts, position_inputs
from jaxsft.models.attention import TokenInfo, backends, reference
from jaxsft.models.attention.needs import AttentionNeeds
from jaxsft.models.attention.score_options import ScoreOptions
from jaxsft.models.cached_forward import CachedForward
from jaxsft.models.dropout import Dropout, apply_dropout, neftune
from jaxsft.models.embedding import Embed
from jaxsft.models.expert_load import Routing
from jaxsft.models.feature_tokens import Soft
from jaxsft.models.kv_slots import Cache
from jaxsft.models.layer_stack import Layer, layers_of, scan_layers
from jaxsft.models.layers import MLP, Linear, Norm
from jaxsft.models.model_base import NONE, ModelBase, Params
from jaxsft.models.rope import rotate
from jaxsft.products import at_least_fp32


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
        q, k, v = (project(x).astype(x.dtype) for project in (to_q, to_k, to_v))
        turn = lambda x: rotate(x, positions, c.rope_pairs) if c.positions == "rope" else x
        q, k = (turn(q), turn(k)) if c.qk_norm_last else (q, k)
        if c.qk_norm != "none":  # Henry et al., 2020, arXiv:2010.04245
            q, k = self._norm("q_norm", "heads")(q), self._norm("k_norm", "kv_heads")(k)
        q, k = (q, k) if c.qk_norm_last else (turn(q), turn(k))
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
        shape, axes = (c.heads, c.head_dim, d), ("heads", "head_dim", "embed")
        scale = (2 * c.layers) ** -0.5  # of what is added to the residual stream, as in GPT-2
        options = {"inputs": 2, "scale": scale, "bias": c.o_bias, "name": "o"}
        out = Linear("bshn,hnd->bsd", shape, axes, self.precision, **options)(y)
        return out.astype(x.dtype), cache

    def _norm(self, name: str, heads: str) -> Norm:
        axes = ("head_dim",) if self.config.qk_norm == "head" else (heads, "head_dim")
        return Norm.of(self.config, axes=axes, name=name)


def _window_of_all(config: ModelConfig) -> int | None:
    """Returns the window that all layers have; None without one, or where only some have it."""
    return config.window if config.window_layers is None else None


class Block(nn.Module):
    """Attention and MLP with residuals.

    `norm_position` says where the norms stand (Xiong et al., 2020, compare pre and post).
    """

    config: ModelConfig
    precision: str
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        tokens: TokenInfo,
        positions: Any,
        layer: Layer,
        dropout: Dropout | None,
        cache: Cache | None = None,
    ) -> tuple[Array, Cache | None]:
        c, scale = self.config, (2 * self.config.layers) ** -0.5
        attention = Attention(c, self.precision, self.mesh, name="attention")
        if c.experts:
            mlp = experts.Experts(c, self.precision, scale, name="mlp")
        else:
            mlp = MLP(c.mlp, c.gated, c.activation, self.precision, scale, c.mlp_bias, name="mlp")
        with jax.named_scope("attention"):
            normed = self._before("attention_norm", x, layer)
            y, cache = attention(normed, tokens, layer.positions(positions), cache, layer.window)
            attended = self._after("attention_norm", x, apply_dropout(y, dropout, 0))  # [B, S, D]
        with jax.named_scope("mlp"):
            if not c.shared_norm:
                normed = self._before("mlp_norm", x if c.parallel else attended, None)
            y = mlp(normed)
            x = self._after("mlp_norm", attended, apply_dropout(y, dropout, 1))  # [B, S, D]
        return x, cache

    def _before(self, name: str, x: Array, layer: Layer | None) -> Array:
        if self.config.norm_position not in ("pre", "sandwich"):
            return x
        y = Norm.of(self.config, name=name)(x)
        return y if self.config.first_norm or layer is None else jnp.where(layer.index == 0, x, y)

    def _after(self, name: str, x: Array, y: Array) -> Array:
        if self.config.norm_position in ("output", "sandwich"):
            y = Norm.of(self.config, name=name.replace("_norm", "_post_norm"))(y)
        x = x + y * self.config.residual_scale
        return Norm.of(self.config, name=name)(x) if self.config.norm_position == "post" else x


@dataclasses.dataclass(frozen=True)
class Transformer(CachedForward, ModelBase):
    """The static part of a Transformer.

    `head` is a Linen module of the task, which applies it to the hidden states; None: the
    embedding is the head.
    """

    config: ModelConfig
    vocab: int
    precision: str = "fp32"
    head: nn.Module | None = None
    mesh: Mesh | None = None  # rows of activations are kept apart on it
    adapter: AdapterConfig = NONE
    # virtual tokens stand before its texts; of an encoder-decoder model, maybe in one half only
    shifted: bool = True
    routed: list[Routing] | None = None  # `hidden` puts here what the routers of its experts did

    supports_packing = True  # the mask keeps the texts of a row apart

    def block(self) -> Block:
        return Block(self.config, self.precision, self.mesh)

    def init(self, key: Array) -> Params:
        """Returns the boxed parameters (`sharding.weights.Weight`), with one key per layer.

        Under `jax.eval_shape`, the declarations.
        """
        embed_key, layer_key, head_key, norm_key = jax.random.split(key, 4)
        ids, x = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1, self.config.embed))
        tokens, relative = TokenInfo(ids + 1, ids), None
        if shared := position_inputs.shared_module(self.config):
            relative = shared.init(jax.random.fold_in(layer_key, 1), ids, ids)["params"]
        unboxed = {"relative": nn.meta.unbox(relative)}
        positions = self._positions(unboxed, tokens, tokens, x.dtype)
        layer = jax.tree.map(lambda a: a[0], layers_of(self.config, 0, 1))
        init_block = lambda k: self.block().init(k, x, tokens, positions, layer, None)["params"]
        stack = jax.vmap(init_block)(jax.random.split(layer_key, self.config.layers))
        params = {"embed": self._embedding().init(embed_key, ids, tokens)["params"]}
        params["layers"] = {"0": nn.meta.add_axis(stack, 0, {nn.PARTITION_NAME: "layers"})}
        if self.config.norm_position != "post":
            params["norm"] = Norm.of(self.config).init(norm_key, x)["params"]
        if shared:
            params["relative"] = relative
        if self.head is not None:
            params["head"] = self.head.init(head_key, x)["params"]
        return adapters.added(self.adapter, params, jax.random.fold_in(key, 4))

    def hidden(
        self,
        params: Params,
        tokens: Int[Array, "batch seq"],
        where: TokenInfo,
        dropout: Dropout | None = None,
        soft: Soft | None = None,
    ) -> Float[Array, "batch seq embed"]:
        """Computes the last, normed hidden state of every token, [B, S, D].

        Dropout applies only where it is passed; `soft` replaces some embeddings.
        """
        x = self._embed(params, tokens, where, dropout, soft)
        positions = self._positions(params, where, where, x.dtype)

        def block(x, scanned):
            stack, beside, layer = scanned
            at = dropout.at(layer.index) if dropout else None
            weights = {"params": stack} | self._adapters(beside, at)
            (x, _), found = self.block().apply(
                weights, x, where, positions, layer, at, mutable=[experts.ROUTING]
            )
            return self._rows(x), experts.routing(found, where.segment_ids > 0)

        layers, wide = self._segments(params), x.dtype
        x, routed = scan_layers(self.config, self.platform, block, self._states(x), layers)
        if self.routed is not None:
            self.routed.append(jax.tree.map(lambda *parts: jnp.concatenate(parts), *routed))
        return self._norm(params, x.astype(wide))

    def _embedding(self) -> Embed:
        return Embed(self.vocab, self.config, self.precision, self.mesh)

    def _embed(self, params, tokens, where, dropout, soft=None):
        own = self._adapters(params.get(adapters.NAME, {}).get("embed", {}), dropout)
        shifted = where._replace(positions=where.positions + self.position_offset)
        x = self._embedding().apply({"params": params["embed"]} | own, tokens, shifted)
        x = x if soft is None else jnp.where(soft.mask[..., None], soft.vectors, x)
        dropout = dropout.at(self.config.layers) if dropout else None
        x = neftune(self._rows(x.astype(at_least_fp32(x.dtype))), dropout, where.segment_ids)
        return apply_dropout(x, dropout, 0)

    def _positions(self, params: Params, queries: TokenInfo, keys: TokenInfo, dtype: Any) -> Any:
        offset, prompt = self.position_offset, self.prompt_length
        at = (queries.positions, keys.positions)
        shared = params.get("relative")
        return position_inputs.inputs(self.config, shared, *at, dtype, offset, offset - prompt)

    def _norm(self, params, x):
        if self.config.norm_position == "post":
            return x
        return Norm.of(self.config).apply({"params": params["norm"]}, x)
