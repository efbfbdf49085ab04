"""LSTM and GRU over packed rows: the classical baseline, with the interface of `Transformer`.

The state of a text begins at zero, whatever stands before it in its row. With `model.causal=false`
half of the units read backwards.

    params = {"embed": ..., "layers": {"0": {"forward": {"w", "u", "b"}, ["backward"]}}, ["head"]}
      each leaf stacked over layers

Adapters stand beside the matrices of a cell: `layers/3/forward/w` is of its inputs,
`layers/3/forward/u` of its state.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from jaxsft.config.adapters import AdapterConfig
from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.models import adapters
from jaxsft.models.attention import TokenInfo
from jaxsft.models.dropout import Dropout, apply_dropout, neftune
from jaxsft.models.embedding import Embed
from jaxsft.models.feature_tokens import Soft
from jaxsft.models.initialisers import fan_in_normal
from jaxsft.models.model_base import NONE, ModelBase, Params
from jaxsft.products import at_least_fp32, contract
from jaxsft.sharding.weights import declare

GATES = {"lstm": 4, "gru": 3}


class RecurrentCell(nn.Module):
    """One direction of one recurrent layer. [B, S, D] -> [B, S, U].

    lstm (Hochreiter & Schmidhuber, 1997, with the forget gate of Gers et al., 2000), gates in the
    order i, f, g, o of `x w + h u + b`:
      c' = sigmoid(f) c + sigmoid(i) tanh(g),  h' = sigmoid(o) tanh(c')
    gru (Cho et al., 2014, arXiv:1406.1078, in the form of cuDNN), gates in the order r, z, n:
      n' = tanh(n_x + sigmoid(r) (n_h + b_h)),  h' = (1 - sigmoid(z)) n' + sigmoid(z) h
    The bias of the forget gate begins at 1 (Jozefowicz et al., 2015).
    """

    kind: str
    units: int
    precision: str

    def _product(self, name: str, equation: str, x: Array, w: Array) -> Array:
        """Computes the product with a matrix, through its adapter where it has one.

        The adapter's dropout has one mask for all steps (Gal & Ghahramani, 2016).
        """
        product = functools.partial(contract, precision=self.precision)
        if beside := self.get_variable(adapters.NAME, name, {}):
            return beside[adapters.HOOK].linear(x, w, None, equation, product)
        return product(equation, x, w)

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch seq embed"], first: Bool[Array, "batch seq"]
    ) -> Float[Array, "batch seq units"]:
        gates, dtype = GATES[self.kind], at_least_fp32(x.dtype)
        weight = lambda name, size, axes: self.param(
            name, declare(fan_in_normal(1), axes, 1), (size, gates, self.units)
        )
        w, u = (
            weight("w", x.shape[-1], ("embed", "gates", "mlp")),
            weight("u", self.units, ("units", "gates", "mlp")),
        )
        b = self.param(
            "b", declare(functools.partial(_bias, self.kind), ("gates", "mlp")), (gates, self.units)
        )
        # all steps at once: one large product
        given = self._product("w", "bsd,dgu->sbgu", x, w).astype(dtype) + b
        candidate = (
            self.param("c", declare(nn.initializers.zeros, ("mlp",)), (self.units,))
            if self.kind == "gru"
            else None
        )

        def step(carry, at):
            now, fresh = at
            h, c = jax.tree.map(lambda s: jnp.where(fresh[:, None], 0, s), carry)
            recurrent = self._product("u", "bu,ugv->bgv", h, u).astype(dtype)
            if self.kind == "gru":
                r, z = jnp.moveaxis(jax.nn.sigmoid(now[:, :2] + recurrent[:, :2]), 1, 0)
                n = jnp.tanh(now[:, 2] + r * (recurrent[:, 2] + candidate))
                h = (1 - z) * n + z * h
                return (h, c), h
            i, f, g, o = jnp.moveaxis(now + recurrent, 1, 0)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((x.shape[0], self.units), dtype)
        _, out = lax.scan(
            step, (zero, zero if self.kind == "lstm" else zero[:, :0]), (given, first.T)
        )
        return out.transpose(1, 0, 2)


def _bias(kind: str, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    b = jnp.zeros(shape, dtype)
    return b.at[1].set(1) if kind == "lstm" else b


class RecurrentLayer(nn.Module):
    """A recurrent layer, [B, S, D] -> [B, S, D]: one direction of D units, or two of D / 2."""

    config: ModelConfig
    precision: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch seq embed"], segment_ids: Int[Array, "batch seq"]
    ) -> Float[Array, "batch seq embed"]:
        c = self.config
        cell = functools.partial(
            RecurrentCell, c.kind, c.embed if c.causal else c.embed // 2, self.precision
        )
        changes = segment_ids[:, 1:] != segment_ids[:, :-1]
        edge = jnp.ones_like(segment_ids[:, :1], bool)
        y = cell(name="forward")(x, jnp.concatenate([edge, changes], 1))
        if not c.causal:
            back = cell(name="backward")(x[:, ::-1], jnp.concatenate([changes, edge], 1)[:, ::-1])
            y = jnp.concatenate([y, back[:, ::-1]], -1)
        return jnp.where(segment_ids[..., None] > 0, y, 0)


@dataclasses.dataclass(frozen=True)
class Recurrent(ModelBase):
    """The static part of a recurrent model, with the interface of `Transformer`."""

    config: ModelConfig
    vocab: int
    precision: str = "fp32"
    head: nn.Module | None = None
    mesh: Mesh | None = None
    adapter: AdapterConfig = NONE

    supports_packing = True  # states begin anew at the first token of a text

    def init(self, key: Array) -> Params:
        """Returns the boxed parameters, each layer drawn from its own key.

        Under `jax.eval_shape`, the declarations.
        """
        embed_key, layer_key, head_key = jax.random.split(key, 3)
        ids, x = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1, self.config.embed))
        params = {
            "embed": self._embedding().init(embed_key, ids, TokenInfo(ids + 1, ids))["params"]
        }
        stack = jax.vmap(lambda k: self._layer().init(k, x, ids + 1)["params"])(
            jax.random.split(layer_key, self.config.layers)
        )
        params["layers"] = {"0": nn.meta.add_axis(stack, 0, {nn.PARTITION_NAME: "layers"})}
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
        """Computes the state of the top layer after every token, [B, S, D].

        Dropout stands between layers and only where it is passed (Zaremba et al., 2014);
        `soft` replaces some embeddings.
        """
        own = self._adapters(params.get(adapters.NAME, {}).get("embed", {}), dropout)
        x = self._embedding().apply({"params": params["embed"]} | own, tokens, where)
        x = x if soft is None else jnp.where(soft.mask[..., None], soft.vectors, x)
        below = dropout.at(self.config.layers) if dropout else None
        x = apply_dropout(
            neftune(x.astype(at_least_fp32(x.dtype)), below, where.segment_ids), below, 0
        )

        def body(x, scanned):
            stack, beside, index = scanned
            at = dropout.at(index) if dropout else None
            y = self._layer().apply(
                {"params": stack} | self._adapters(beside, at), x, where.segment_ids
            )
            return apply_dropout(y, at, 0), None

        if self.config.remat:
            body = jax.checkpoint(body)
        for start, stack, beside in self._segments(params):
            depth = jax.tree.leaves(stack)[0].shape[0]
            x, _ = lax.scan(body, x, (stack, beside, jnp.arange(start, start + depth)))
        return x

    def decode(self, *_: Any) -> Any:
        raise ConfigError(
            f"model.kind={self.config.kind}: it generates no text; use model.kind=transformer"
        )

    def _embedding(self) -> Embed:
        return Embed(self.vocab, self.config, self.precision, self.mesh)

    def _layer(self) -> RecurrentLayer:
        return RecurrentLayer(self.config, self.precision)
