"""An encoder and a decoder of the same blocks (Vaswani et al., 2017): one sees all of the source,
the other that and what it has written.

    params = {"embed": {"tokens": {"w"}}, "encoder": {"layers", ["norm"], ["relative"], ["embed"]},
    "decoder": the same, ["head"]}

`embed` of a half holds what its vectors have of their own (learned positions, a norm). Rows are
packed in both streams: what is in segment i of the target sees segment i of the source.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxsft.config.model import ModelConfig
from jaxsft.models import adapters
from jaxsft.models.attention import TokenInfo, backends
from jaxsft.models.attention.needs import AttentionNeeds
from jaxsft.models.attention.score_options import ScoreOptions
from jaxsft.models.dropout import Dropout, apply_dropout
from jaxsft.models.kv_slots import Cache
from jaxsft.models.layer_stack import Layer, depth_of, scan_layers
from jaxsft.models.layers import MLP, Linear
from jaxsft.models.model_base import NONE, Params
from jaxsft.models.transformer import Attention, Block, Transformer

DECODER = 2**20  # its dropout is apart from the encoder's


class Memory(NamedTuple):
    """The source as a decoder sees it: encoder states, or a layer's keys and values of them."""

    tokens: TokenInfo
    states: Float[Array, "batch source embed"] | None = None
    k: Float[Array, "batch source kv_heads head_dim"] | None = None
    v: Float[Array, "batch source kv_heads head_dim"] | None = None


class Sources(NamedTuple):
    """The keys and values of the sources for every decoder layer; segment 0 is padding."""

    segment_ids: Int[Array, "batch source"]
    kv: tuple[tuple[Array, Array], ...]  # [B, T, K, N]

    def of(self, layer: int) -> Memory:
        return Memory(
            TokenInfo(self.segment_ids, jnp.zeros_like(self.segment_ids)), None, *self.kv[layer]
        )


class CrossCache(NamedTuple):
    """A decoder layer's cache of the target, and its keys and values of the source."""

    k: Float[Array, "batch kv_heads slots head_dim"]
    v: Float[Array, "batch kv_heads slots head_dim"]
    tokens: TokenInfo
    slot: Int[Array, ""]
    memory: Memory


class CrossAttention(nn.Module):
    """Attention of the target to keys and values of the source. [B, S, D] -> [B, S, D]."""

    config: ModelConfig
    precision: str
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch seq embed"], tokens: TokenInfo, memory: Memory
    ) -> Float[Array, "batch seq embed"]:
        c, d, precision = self.config, x.shape[-1], self.precision
        q = _projection(c, precision, c.heads, "heads", name="q")(x).astype(x.dtype)
        k, v = memory.k, memory.v
        if k is None:
            k, v = (
                _projection(c, precision, c.kv_heads, "kv_heads", name=name)(memory.states).astype(
                    x.dtype
                )
                for name in ("k", "v")
            )
        else:
            precision = "bf16" if k.dtype == jnp.bfloat16 else "fp32"
        keys = memory.tokens
        if self.has_variable("adapters", "adapter"):
            k, v, keys = self.get_variable("adapters", "adapter").keys_values(k, v, keys)
        how = ScoreOptions.of(c, causal=False)
        with jax.named_scope("attend"):
            # [B, S, H, N]
            needs = AttentionNeeds.of(q, k, how, precision, False, None, False)
            y = backends.attend(c.attention, needs, self.mesh)(
                q, k, v, tokens, keys, how, precision
            )
        shape, axes, scale = (
            (c.heads, c.head_dim, d),
            ("heads", "head_dim", "embed"),
            (2 * c.layers) ** -0.5,
        )
        return Linear(
            "bshn,hnd->bsd",
            shape,
            axes,
            self.precision,
            inputs=2,
            scale=scale,
            bias=c.o_bias,
            name="o",
        )(y).astype(x.dtype)


def _projection(
    config: ModelConfig, precision: str, heads: int, axis: str, name: str | None = None
) -> Linear:
    shape, axes = (config.embed, heads, config.head_dim), ("embed", axis, "head_dim")
    return Linear("bsd,dhn->bshn", shape, axes, precision, bias=config.qkv_bias, name=name)


class DecoderBlock(Block):
    """A block with attention to the source between self-attention and the MLP."""

    @nn.compact
    def __call__(
        self,
        x: Array,
        tokens: TokenInfo,
        positions: Any,
        layer: Layer,
        dropout: Dropout | None,
        cache: CrossCache | None = None,
        memory: Memory | None = None,
    ) -> tuple[Array, CrossCache | None]:
        c, scale = self.config, (2 * self.config.layers) ** -0.5
        if self.is_initializing():
            memory = Memory(tokens, x)
        own = None if cache is None else Cache(*cache[:4])
        with jax.named_scope("attention"):
            y, own = Attention(c, self.precision, self.mesh, name="attention")(
                self._before("attention_norm", x, layer),
                tokens,
                layer.positions(positions),
                own,
                layer.window,
            )
            x = self._after("attention_norm", x, apply_dropout(y, dropout, 0))  # [B, S, D]
        with jax.named_scope("cross"):
            memory = memory if cache is None else cache.memory
            y = CrossAttention(c, self.precision, self.mesh, name="cross")(
                self._before("cross_norm", x, None), tokens, memory
            )
            x = self._after("cross_norm", x, apply_dropout(y, dropout, 2))
        with jax.named_scope("mlp"):
            mlp = MLP(c.mlp, c.gated, c.activation, self.precision, scale, c.mlp_bias, name="mlp")
            x = self._after(
                "mlp_norm", x, apply_dropout(mlp(self._before("mlp_norm", x, None)), dropout, 1)
            )
        return x, None if cache is None else CrossCache(*own, memory)


@dataclasses.dataclass(frozen=True)
class Decoder(Transformer):
    """The decoder: its states are those of the target, given the memory of the source."""

    def block(self) -> DecoderBlock:
        return DecoderBlock(self.config, self.precision, self.mesh)

    def states(
        self,
        params: Params,
        tokens: Int[Array, "batch seq"],
        where: TokenInfo,
        memory: Memory,
        dropout: Dropout | None,
    ) -> Array:
        """Runs the decoder layers on target tokens, which attend to `memory`; returns [B, S, D]."""
        x = self._embed(params, tokens, where, dropout)
        positions = self._positions(params, where, where, x.dtype)

        def block(x, scanned):
            stack, beside, layer = scanned
            at = dropout.at(layer.index) if dropout else None
            weights = {"params": stack} | self._adapters(beside, at)
            return self._rows(
                self.block().apply(weights, x, where, positions, layer, at, None, memory)[0]
            ), None

        layers, wide = self._segments(params), x.dtype
        x, _ = scan_layers(self.config, self.platform, block, self._states(x), layers)
        return self._norm(params, x.astype(wide))

    def sources(self, params: Params, memory: Memory, dtype: Any) -> Sources:
        """Returns the keys and values of the source for every decoder layer, cast to `dtype`."""
        project, out = (
            _projection(self.config, self.precision, self.config.kv_heads, "kv_heads"),
            [],
        )
        for _, stack, beside in self._segments(params):
            for i in range(depth_of(stack)):
                own, extra = jax.tree.map(lambda a: a[i], (stack["cross"], beside.get("cross", {})))
                both = [(own[name], self._adapters(extra.get(name, {}))) for name in ("k", "v")]
                out.append(
                    tuple(
                        project.apply({"params": w} | more, memory.states).astype(dtype)
                        for w, more in both
                    )
                )
        return Sources(memory.tokens.segment_ids, tuple(out))


@dataclasses.dataclass(frozen=True)
class EncoderDecoder(Transformer):
    """The static part of an encoder-decoder model: `Transformer`'s interface, with a source."""

    @functools.cached_property
    def encoder(self) -> Transformer:
        config = dataclasses.replace(self.config, causal=False)
        return Transformer(
            config,
            self.vocab,
            self.precision,
            None,
            self.mesh,
            self.adapter,
            self._prefixed("encoder", config.layers),
        )

    @functools.cached_property
    def decoder(self) -> Decoder:
        config = dataclasses.replace(self.config, causal=True, layers=self.config.decoder_layers)
        return Decoder(
            config,
            self.vocab,
            self.precision,
            None,
            self.mesh,
            self.adapter,
            self._prefixed("decoder", config.layers),
        )

    def _prefixed(self, half: str, layers: int) -> bool:
        """Returns whether some layer of a half has a prefix before the keys of its own tokens."""
        targets = getattr(self.adapter, "target", ())
        return any(
            re.fullmatch(target, f"{half}/layers/{i}/attention")
            for target in targets
            for i in range(layers)
        )

    @property
    def position_offset(self) -> int:
        """Returns the position of the first token: the larger of both halves."""
        return max(self.encoder.position_offset, self.decoder.position_offset)

    def init(self, key: Array) -> Params:
        """Returns the boxed parameters; encoder, decoder and head are drawn from separate keys."""
        encoder_key, decoder_key, head_key = jax.random.split(key, 3)
        bare = lambda half: dataclasses.replace(half, adapter=NONE)
        encoder, decoder = (
            bare(self.encoder).init(encoder_key),
            bare(self.decoder).init(decoder_key),
        )
        params = {"embed": {"tokens": encoder["embed"]["tokens"]}}
        for name, half in (("encoder", encoder), ("decoder", decoder)):
            own = {k: v for k, v in half["embed"].items() if k != "tokens"}
            params[name] = {k: v for k, v in half.items() if k != "embed"} | (
                {"embed": own} if own else {}
            )
        if self.head is not None:
            params["head"] = self.head.init(head_key, jnp.zeros((1, 1, self.config.embed)))[
                "params"
            ]
        return adapters.added(self.adapter, params, jax.random.fold_in(key, 4))

    def hidden(
        self,
        params: Params,
        tokens: Int[Array, "batch seq"],
        where: TokenInfo,
        dropout: Dropout | None = None,
        *,
        source: tuple[Array, TokenInfo],
    ) -> Float[Array, "batch seq embed"]:
        """Computes the last hidden state of every target token, [B, S, D].

        Args:
          source: its tokens `[B, T]`, and where they stand; segment i is that of the target's
            segment i.
        """
        memory = Memory(source[1], self.encoder.hidden(half(params, "encoder"), *source, dropout))
        x = self.decoder.states(
            half(params, "decoder"), tokens, where, memory, dropout.at(DECODER) if dropout else None
        )
        return x * self.config.output_scale

    def start(self, params: Params, source: tuple[Array, TokenInfo], dtype: Any) -> Sources:
        """Encodes the source once and returns each decoder layer's keys and values of it."""
        memory = Memory(source[1], self.encoder.hidden(half(params, "encoder"), *source))
        return self.decoder.sources(half(params, "decoder"), memory, dtype)

    def decode(
        self, params: Params, tokens: Array, where: TokenInfo, caches: tuple[CrossCache, ...]
    ) -> tuple[Array, tuple[CrossCache, ...]]:
        """Computes `hidden` of new target tokens, with caches that hold the output of `start`."""
        x, caches = self.decoder.decode(half(params, "decoder"), tokens, where, caches)
        return x * self.config.output_scale, caches


def half(params: Params, name: str) -> Params:
    """Returns the parameters of one half, laid out as those of a `Transformer` without a head."""
    of_half, beside = params[name], params.get(adapters.NAME, {})
    own = beside.get(name, {})
    own = {**own, "embed": {**beside.get("embed", {}), **own.get("embed", {})}}
    return {**of_half, "embed": {**params["embed"], **of_half.get("embed", {})}, adapters.NAME: own}
