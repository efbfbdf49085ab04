"""The Transformer: blocks that declare their weights, and functions that run a stack of them.

    params = {"embed": {"tokens": {"w"}, ...}, "layers": {"0": one stack of blocks}, "norm":
    {"scale"}, "head": ...}

After freezing, `layers` holds several segments, each named by its first layer; a segment is one
scan.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from jaxsft import halves
from jaxsft.config.adapters import AdapterConfig, NoAdapter
from jaxsft.config.model import ModelConfig
from jaxsft.metrics.expert_load import Routing
from jaxsft.models import adapters, experts, rope
from jaxsft.models.adapters import targets
from jaxsft.models.attention import Attention, Cache, TokenInfo
from jaxsft.models.disentangled import Disentangled
from jaxsft.models.experts import Experts
from jaxsft.models.feature_tokens import Soft
from jaxsft.models.layers import MLP, Dropout, Linear, Norm, apply_dropout, neftune
from jaxsft.models.relative import Relative
from jaxsft.products import ROUNDED, at_least_fp32, to_vocab
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import weights
from jaxsft.sharding.weights import declare

Params = dict[str, Any]
NONE = NoAdapter()
EVERYTHING = 2**30  # the window of a layer that has none, beside layers that have one


class Layer(NamedTuple):
    """The differences between the blocks of a stack apart from their weights, each `[L]` in a scan.

    Attributes:
      index: of the layer.
      window: positions nearer than it are seen; None: no layer has one.
      local: the layer rotates with `rope_local_base`; None: no layer does.
    """

    index: Int[Array, ""]
    window: Int[Array, ""] | None = None
    local: Bool[Array, ""] | None = None


class Block(nn.Module):
    """Attention and MLP with residuals.

    `norm_position` says where the norms stand (Xiong et al., 2020, compare pre and post).
    """

    config: ModelConfig
    precision: str

    @nn.compact
    def __call__(
        self,
        x: Array,
        tokens: TokenInfo,
        table: Any,
        layer: Layer,
        dropout: Dropout | None,
        cache: Cache | None = None,
    ) -> tuple[Array, Cache | None]:
        c, scale = self.config, (2 * self.config.layers) ** -0.5
        attention = Attention(c, self.precision, name="attention")
        if c.experts:
            mlp = Experts(c, self.precision, scale, name="mlp")
        else:
            mlp = MLP(c.mlp, c.gated, c.activation, self.precision, scale, c.mlp_bias, name="mlp")
        if c.rope_local_base is not None:
            table = jax.tree.map(lambda local, other: jnp.where(layer.local, local, other), *table)
        with jax.named_scope("attention"):
            y, cache = attention(
                self._before("attention_norm", x, layer), tokens, table, cache, layer.window
            )
            attended = self._after("attention_norm", x, apply_dropout(y, dropout, 0))  # [B, S, D]
        with jax.named_scope("mlp"):
            y = mlp(self._before("mlp_norm", x if c.parallel else attended, None))
            x = self._after("mlp_norm", attended, apply_dropout(y, dropout, 1))  # [B, S, D]
        return x, cache

    def _before(self, name: str, x: Array, layer: Layer | None) -> Array:
        if self.config.norm_position not in ("pre", "sandwich"):
            return x
        y = Norm.of(self.config, name=name)(x)
        return y if self.config.first_norm or layer is None else jnp.where(layer.index == 0, x, y)

    def _after(self, name: str, x: Array, y: Array) -> Array:
        if self.config.norm_position == "post":
            return Norm.of(self.config, name=name)(x + y)
        if self.config.norm_position in ("output", "sandwich"):
            y = Norm.of(self.config, name=name.replace("_norm", "_post_norm"))(y)
        return x + y


class Embed(nn.Module):
    """The embeddings of tokens, positions and types. [B, S] -> [B, S, D].

    Positions and types are added where the model has tables of them.
    """

    vocab: int
    config: ModelConfig
    precision: str

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "batch seq"], where: TokenInfo
    ) -> Float[Array, "batch seq embed"]:
        c = self.config
        size = c.embed_inner or c.embed
        x = Table(self.vocab, size, "vocab", name="tokens")(tokens)
        if self.has_variable("adapters", "adapter"):
            x = self.get_variable("adapters", "adapter").embed(x, where.positions)
        x = x * c.embed_scale
        if c.positions == "learned":
            rows = c.context + c.position_offset
            x = x + Table(rows, size, "positions", name="positions")(
                where.positions + c.position_offset
            )
        if c.types:
            types = jnp.zeros_like(tokens) if where.types is None else where.types
            x = x + Table(c.types, size, "positions", name="types")(types)
        if c.embed_norm:
            x = Norm.of(c, name="norm")(x)
        if c.embed_inner:  # Lan et al., 2019, arXiv:1909.11942, section 3.1
            x = Linear(
                "bse,ed->bsd",
                (size, c.embed),
                ("positions", "embed"),
                self.precision,
                bias=True,
                name="project",
            )(x)
        return x


class Table(nn.Module):
    """A row of `w` `[rows, D]` for each id.

    Rows have unit length at the start, so that the logits of a tied head have unit variance.
    """

    rows: int
    embed: int
    axis: str

    @nn.compact
    def __call__(self, ids: Int[Array, "batch seq"]) -> Float[Array, "batch seq embed"]:
        w = self.param(
            "w",
            declare(nn.initializers.normal(self.embed**-0.5), (self.axis, "embed")),
            (self.rows, self.embed),
        )
        x = halves.widen(jnp.take(w, ids, axis=0))
        return (
            self.get_variable("adapters", "adapter").rows(ids, x, w)
            if self.has_variable("adapters", "adapter")
            else x
        )


class ModelBase:
    """The common part of all kinds of models: row sharding, adapters, and the vocabulary output."""

    config: ModelConfig
    precision: str
    mesh: Mesh | None
    adapter: AdapterConfig
    shifted: bool = True

    @property
    def row_shards(self) -> int:
        """Returns how many devices share the rows of a batch."""
        return 1 if self.mesh is None else meshes.row_shards(self.mesh)

    def output_matrix(self, params: Params) -> Float[Array, "embed vocab"]:
        """Returns the matrix that turns hidden states into logits (`products.to_vocab`): the
        embedding's transpose where tied.
        """
        own = params.get(adapters.NAME, {})
        own = own.get("embed", {}).get("tokens") if self.config.tied else own.get("head")
        w = params["embed"]["tokens"]["w"] if self.config.tied else params["head"]["w"]
        if own:
            return adapters.OutputMatrix(
                w, adapters.ready(self.adapter, own)[adapters.HOOK], self.config.tied
            )
        alone = self.mesh is None or self.mesh.size == 1
        if halves.are(w) or (self.precision == ROUNDED and alone and w.size >= halves.LARGE):
            return halves.OutputBits(w, self.config.tied)
        return w.T if self.config.tied else w

    def output_bias(self, params: Params) -> Float[Array, vocab] | None:
        """Returns the bias of the vocabulary logits; None where the model has none."""
        return params["head"]["b"] if self.config.head_bias else None

    def logits(
        self, params: Params, hidden: Float[Array, "... embed"]
    ) -> Float[Array, "... vocab"]:
        """Computes logits over the vocabulary of a few hidden states.

        A loss takes them chunk by chunk (`losses/terms/tokens.py`).
        """
        y = to_vocab(hidden, self.output_matrix(params), self.precision)
        return finish_logits(y, self.output_bias(params), self.config.logit_softcap)

    @property
    def position_offset(self) -> int:
        """Returns the position of a text's first token: the number of virtual tokens before it."""
        kind = adapters.of(self.adapter)
        return kind.position_offset(self.adapter) if kind and self.shifted else 0

    @property
    def prompt_length(self) -> int:
        """Returns how many virtual tokens take a place of the row, at positions below 0."""
        kind = adapters.of(self.adapter)
        return kind.prompt_length(self.adapter) if kind else 0

    def _segments(self, params: Params) -> list[tuple[int, Params, Params]]:
        """Returns (first layer, stack, its adapters) of each segment, from the bottom up."""
        return targets.cut(params["layers"], params.get(adapters.NAME, {}).get("layers", {}))

    def _adapters(self, tree: Params, dropout: Dropout | None = None) -> dict[str, Params]:
        """Returns the collection that holds a module's adapters; empty where it has none."""
        return (
            {
                adapters.NAME: adapters.ready(
                    self.adapter, tree, dropout.of_adapter() if dropout else None
                )
            }
            if tree
            else {}
        )


@dataclasses.dataclass(frozen=True)
class Transformer(ModelBase):
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
        return Block(self.config, self.precision)

    def init(self, key: Array) -> Params:
        """Returns the boxed parameters (`sharding.weights.Weight`), with one key per layer.

        Under `jax.eval_shape`, the declarations.
        """
        embed_key, layer_key, head_key, norm_key = jax.random.split(key, 4)
        ids, x = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1, self.config.embed))
        tokens = TokenInfo(ids + 1, ids)
        layer = jax.tree.map(lambda a: a[0], self._layers(0, 1))
        shared = self._shared()
        relative = (
            shared.init(jax.random.fold_in(layer_key, 1), ids, ids)["params"] if shared else None
        )
        tables = self._positions({"relative": nn.meta.unbox(relative)}, tokens, tokens, x.dtype)
        init_block = lambda k: self.block().init(k, x, tokens, tables, layer, None)["params"]
        stack = jax.vmap(init_block)(jax.random.split(layer_key, self.config.layers))
        params = {"embed": self._embedding().init(embed_key, ids, tokens)["params"]}
        params["layers"] = {"0": nn.meta.add_axis(stack, 0, {nn.PARTITION_NAME: "layers"})}
        if self.config.norm_position != "post":
            params["norm"] = Norm.of(self.config).init(norm_key, x)["params"]
        if shared:
            params["relative"] = relative
        if self.head is not None:
            params["head"] = self.head.init(head_key, x)["params"]
        if adapters.of(self.adapter):
            params[adapters.NAME] = adapters.init(
                self.adapter, weights.specs(params), jax.random.fold_in(key, 4)
            )
        return params

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
        tables, there, routed = (
            self._positions(params, where, where, x.dtype),
            where.segment_ids > 0,
            [],
        )

        def body(x, scanned):
            stack, beside, layer = scanned
            at = dropout.at(layer.index) if dropout else None
            weights = {"params": stack} | self._adapters(beside, at)
            (x, _), found = self.block().apply(
                weights, x, where, tables, layer, at, mutable=[experts.ROUTING]
            )
            return self._rows(x), experts.routing(found, there)

        if self.config.remat:
            body = jax.checkpoint(body)
        for start, stack, beside in self._segments(params):
            depth = jax.tree.leaves(stack)[0].shape[0]
            x, of_layers = lax.scan(
                body, x, (stack, beside, self._layers(start, depth)), unroll=self._unroll(depth)
            )
            routed.append(of_layers)
        if self.routed is not None:
            self.routed.append(jax.tree.map(lambda *parts: jnp.concatenate(parts), *routed))
        return self._norm(params, x)

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
        x = self._embed(params, tokens, where, None)
        tables, out = self._positions(params, where, caches[0].tokens, x.dtype), []
        for start, stack, beside in self._segments(params):
            depth = jax.tree.leaves(stack)[0].shape[0]
            for i in range(depth):
                own, extra, layer = jax.tree.map(
                    lambda a: a[i], (stack, beside, self._layers(start, depth))
                )
                x, cache = self.block().apply(
                    {"params": own} | self._adapters(extra),
                    x,
                    where,
                    tables,
                    layer,
                    None,
                    caches[start + i],
                )
                out.append(cache)
        return self._norm(params, x), tuple(out)

    def _embedding(self) -> Embed:
        return Embed(self.vocab, self.config, self.precision)

    def _embed(self, params, tokens, where, dropout, soft=None):
        own = self._adapters(params.get(adapters.NAME, {}).get("embed", {}), dropout)
        shifted = where._replace(positions=where.positions + self.position_offset)
        x = self._embedding().apply({"params": params["embed"]} | own, tokens, shifted)
        x = x if soft is None else jnp.where(soft.mask[..., None], soft.vectors, x)
        dropout = dropout.at(self.config.layers) if dropout else None
        return apply_dropout(
            neftune(self._rows(x.astype(at_least_fp32(x.dtype))), dropout, where.segment_ids),
            dropout,
            0,
        )

    def _rows(self, x: Float[Array, "batch seq embed"]) -> Float[Array, "batch seq embed"]:
        # Left alone, the compiler may spread `embed` instead, as the weights are: every device then
        # holds a part of all rows (six times the memory).
        return (
            x
            if self.mesh is None or self.mesh.size == 1
            else lax.with_sharding_constraint(x, meshes.sequences(self.mesh))
        )

    def _shared(self) -> nn.Module | None:
        """Returns the module of relative positions that all layers share; None without one."""
        kinds = {"relative": Relative, "disentangled": Disentangled}
        return kinds[self.config.positions](self.config) if self.config.positions in kinds else None

    def _positions(self, params: Params, queries: TokenInfo, keys: TokenInfo, dtype: Any) -> Any:
        """Returns the position inputs of attention: RoPE tables, or a bias of queries and keys.

        None where the embeddings hold the positions.
        """
        if shared := self._shared():
            at, prefix = keys.positions, self.position_offset - self.prompt_length
            # its keys have no place in the row: they stand at -P to -1, before the first token of
            # every text
            if prefix:
                at = jnp.concatenate(
                    [jnp.broadcast_to(jnp.arange(-prefix, 0), (at.shape[0], prefix)), at], axis=1
                )
            return shared.apply({"params": params["relative"]}, queries.positions, at)
        return self._tables(queries.positions, dtype)

    def _tables(self, positions, dtype):
        """Builds the RoPE tables: one, or (local, global) where `rope_local_base` is set."""
        c = self.config
        if c.positions != "rope":
            return None
        positions = positions + self.position_offset
        plain = rope.table(c, positions, dtype)
        return (
            plain
            if c.rope_local_base is None
            else (rope.table(c, positions, dtype, c.rope_local_base), plain)
        )

    def _layers(self, start: int, depth: int) -> Layer:
        """Returns index, window and locality of consecutive layers, arrays `[depth]`."""
        c, index = self.config, np.arange(start, start + depth, dtype=np.int32)
        if c.window is None:
            return Layer(index)
        local = np.isin(
            index,
            np.arange(c.layers) if c.window_layers is None else np.array(c.window_layers, np.int32),
        )
        window = np.where(local, np.int32(c.window), np.int32(EVERYTHING))
        return Layer(index, window, None if c.rope_local_base is None else local)

    def _norm(self, params, x):
        return (
            Norm.of(self.config).apply({"params": params["norm"]}, x)
            if self.config.norm_position != "post"
            else x
        )

    def _unroll(self, depth: int) -> int:
        # Measured on CPU: a full unroll is 25 % faster than the loop and compiles no slower at
        # these depths.
        full = self.config.unroll == "full" or (
            self.config.unroll == "auto" and jax.default_backend() == "cpu"
        )
        return depth if full else 1


def finish_logits(
    logits: Float[Array, "... vocab"], bias: Float[Array, vocab] | None, softcap: float | None
) -> Float[Array, "... vocab"]:
    """Adds the bias and applies the soft cap of the logits."""
    if bias is not None:
        logits = logits + bias
    return logits if softcap is None else softcap * jnp.tanh(logits / softcap)


def segments(layers: Params) -> list[tuple[int, Params]]:
    """Returns (first layer, stack) of each segment, from the bottom up."""
    return sorted((int(start), stack) for start, stack in layers.items())
