"""One Transformer. Blocks declare their weights with Linen; the functions here initialise a stack of them and run it.

    params = {"embed": {"tokens": {"w"}, ["positions": {"w"}]}, "layers": {"0": one stack of blocks}, "norm": {"scale"}, "head": ...}

After freezing, `layers` holds several segments, each named by its first layer; a segment is one scan.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxsft.config.adapters import AdapterConfig, NoAdapter
from jaxsft.config.schema import ModelConfig
from jaxsft.models import adapters
from jaxsft.models.adapters import sites
from jaxsft.models.attention import Attention, Cache, Tokens
from jaxsft.models.layers import MLP, Dropout, Norm, at_least_fp32, dropout, rope_table
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import weights
from jaxsft.sharding.weights import declare

Params = dict[str, Any]


class Block(nn.Module):
    """Attention and MLP with residuals. pre: `x + f(norm(x))`; post: `norm(x + f(x))` (Xiong et al., 2020, compare both)."""

    config: ModelConfig
    precision: str

    @nn.compact
    def __call__(self, x: Array, tokens: Tokens, rope: Any, noise: Dropout | None, cache: Cache | None = None) -> tuple[Array, Cache | None]:
        c, scale = self.config, (2 * self.config.layers) ** -0.5
        before = (lambda y, name: Norm(c.norm, name=name)(y)) if c.norm_position == "pre" else (lambda y, name: y)
        after = (lambda y, name: y) if c.norm_position == "pre" else (lambda y, name: Norm(c.norm, name=name)(y))
        with jax.named_scope("attention"):
            y, cache = Attention(c, self.precision, name="attention")(before(x, "attention_norm"), tokens, rope, cache)
            x = after(x + dropout(y, noise, 0), "attention_norm")  # [B, S, D]
        with jax.named_scope("mlp"):
            y = MLP(c.mlp, c.gated, c.activation, self.precision, scale, name="mlp")(before(x, "mlp_norm"))
            x = after(x + dropout(y, noise, 1), "mlp_norm")  # [B, S, D]
        return x, cache


class Embed(nn.Module):
    """Token (and learned position) vectors. [B, S] -> [B, S, D]."""

    vocab: int
    config: ModelConfig

    @nn.compact
    def __call__(self, tokens: Int[Array, "batch seq"], positions: Int[Array, "batch seq"]) -> Float[Array, "batch seq embed"]:
        c = self.config
        x = Table(self.vocab, c.embed, "vocab", name="tokens")(tokens)
        if self.has_variable("adapters", "adapter"):
            x = self.get_variable("adapters", "adapter").embed(x, positions)
        if c.positions == "learned":
            x = x + Table(c.context, c.embed, "positions", name="positions")(positions)
        return x


class Table(nn.Module):
    """A row of `w` `[rows, D]` for each id. Rows of unit length at the start, so that the logits of a tied head have unit variance."""

    rows: int
    embed: int
    axis: str

    @nn.compact
    def __call__(self, ids: Int[Array, "batch seq"]) -> Float[Array, "batch seq embed"]:
        w = self.param("w", declare(nn.initializers.normal(self.embed**-0.5), (self.axis, "embed")), (self.rows, self.embed))
        x = jnp.take(w, ids, axis=0)
        return self.get_variable("adapters", "adapter").rows(ids, x, w) if self.has_variable("adapters", "adapter") else x


@dataclasses.dataclass(frozen=True)
class Transformer:
    """The static half of a model. `head` is a Linen module of the task, which applies it to the hidden states; None: the embedding is the head."""

    config: ModelConfig
    vocab: int
    precision: str = "fp32"
    head: nn.Module | None = None
    mesh: Mesh | None = None  # rows of activations are kept apart on it
    adapter: AdapterConfig = NoAdapter()

    @property
    def row_shards(self) -> int:
        """How many devices share the rows of a batch."""
        return 1 if self.mesh is None else meshes.row_shards(self.mesh)

    def block(self) -> Block:
        return Block(self.config, self.precision)

    def init(self, key: Array) -> Params:
        """The boxed parameters (`sharding.weights.Weight`), every layer from a key of its own; under `jax.eval_shape`, the declarations."""
        embed_key, layer_key, head_key, norm_key = jax.random.split(key, 4)
        ids, x = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1, self.config.embed))
        tokens = Tokens(ids + 1, ids)
        init_block = lambda k: self.block().init(k, x, tokens, self._rope(ids, x.dtype), None)["params"]
        stack = jax.vmap(init_block)(jax.random.split(layer_key, self.config.layers))
        params = {"embed": Embed(self.vocab, self.config).init(embed_key, ids, ids)["params"]}
        params["layers"] = {"0": nn.meta.add_axis(stack, 0, {nn.PARTITION_NAME: "layers"})}
        if self.config.norm_position == "pre":
            params["norm"] = Norm(self.config.norm).init(norm_key, x)["params"]
        if self.head is not None:
            params["head"] = self.head.init(head_key, x)["params"]
        if adapters.of(self.adapter):
            params[adapters.NAME] = adapters.init(self.adapter, weights.specs(params), jax.random.fold_in(key, 4))
        return params

    def hidden(self, params: Params, tokens: Int[Array, "batch seq"], where: Tokens, noise: Dropout | None = None) -> Float[Array, "batch seq embed"]:
        """The last hidden state of every token, normed. Dropout only where `noise` is given."""
        x = self._embed(params, tokens, where, noise)
        rope = self._rope(where.positions, x.dtype)

        def body(x, layer):
            stack, beside, index = layer
            at = noise.at(index) if noise else None
            return self._rows(self.block().apply({"params": stack} | self._adapters(beside, at), x, where, rope, at)[0]), None

        if self.config.remat:
            body = jax.checkpoint(body)
        for start, stack, beside in self._segments(params):
            depth = jax.tree.leaves(stack)[0].shape[0]
            x, _ = lax.scan(body, x, (stack, beside, jnp.arange(start, start + depth)), unroll=self._unroll(depth))
        return self._norm(params, x)

    def decode(
        self, params: Params, tokens: Int[Array, "batch new"], where: Tokens, caches: tuple[Cache, ...]
    ) -> tuple[Float[Array, "batch new embed"], tuple[Cache, ...]]:
        """`hidden` of new tokens that see the cached ones. Layers are unrolled: a stacked cache would be copied at every token."""
        x = self._embed(params, tokens, where, None)
        rope, out = self._rope(where.positions, x.dtype), []
        for start, stack, beside in self._segments(params):
            for i in range(jax.tree.leaves(stack)[0].shape[0]):
                layer, own = jax.tree.map(lambda w: w[i], (stack, beside))
                x, cache = self.block().apply({"params": layer} | self._adapters(own), x, where, rope, None, caches[start + i])
                out.append(cache)
        return self._norm(params, x), tuple(out)

    def output_matrix(self, params: Params) -> Float[Array, "embed vocab"]:
        """The matrix that turns hidden states into logits over the vocabulary: the embedding's transpose where tied."""
        return params["embed"]["tokens"]["w"].T if self.config.tied else params["head"]["w"]

    def _embed(self, params, tokens, where, noise):
        own = self._adapters(params.get(adapters.NAME, {}).get("embed", {}), noise)
        x = Embed(self.vocab, self.config).apply({"params": params["embed"]} | own, tokens, where.positions + self._shift)
        return dropout(self._rows(x.astype(at_least_fp32(x.dtype))), noise.at(self.config.layers) if noise else None, 0)

    @property
    def _shift(self) -> int:
        """How many virtual tokens stand before the first of a text."""
        kind = adapters.of(self.adapter)
        return kind.shift(self.adapter) if kind else 0

    def _segments(self, params: Params) -> list[tuple[int, Params, Params]]:
        """(first layer, stack, the adapters beside it) of each segment, from the bottom up."""
        return sites.cut(params["layers"], params.get(adapters.NAME, {}).get("layers", {}))

    def _adapters(self, tree: Params, noise: Dropout | None = None) -> dict[str, Params]:
        """The collection of a module's adapters, where it has some."""
        return {adapters.NAME: adapters.ready(self.adapter, tree, noise.of_adapter() if noise else None)} if tree else {}

    def _rows(self, x: Float[Array, "batch seq embed"]) -> Float[Array, "batch seq embed"]:
        # Left alone, the compiler may spread `embed` instead, as the weights are: every device then holds a part of all rows (six times the memory).
        return x if self.mesh is None or self.mesh.size == 1 else lax.with_sharding_constraint(x, meshes.sequences(self.mesh))

    def _rope(self, positions, dtype):
        return rope_table(positions + self._shift, self.config.head_dim, self.config.rope_base, dtype) if self.config.positions == "rope" else None

    def _norm(self, params, x):
        return Norm(self.config.norm).apply({"params": params["norm"]}, x) if self.config.norm_position == "pre" else x

    def _unroll(self, depth: int) -> int:
        # Measured on CPU: a full unroll is 25 % faster than the loop and compiles no slower at these depths.
        full = self.config.unroll == "full" or (self.config.unroll == "auto" and jax.default_backend() == "cpu")
        return depth if full else 1


def segments(layers: Params) -> list[tuple[int, Params]]:
    """(first layer, stack) of each segment, from the bottom up."""
    return sorted((int(start), stack) for start, stack in layers.items())
