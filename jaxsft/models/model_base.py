"""The common part of all kinds of models: row sharding, adapters, and the vocabulary output."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxsft import halves
from jaxsft.config.adapters import AdapterConfig, NoAdapter
from jaxsft.config.model import ModelConfig
from jaxsft.losses.terms import tokens
from jaxsft.losses.terms.tokens import TokenStats
from jaxsft.models import adapters
from jaxsft.models.adapters import targets
from jaxsft.models.dropout import Dropout
from jaxsft.products import ROUNDED, finish_logits, to_vocab
from jaxsft.sharding import mesh as meshes

Params = dict[str, Any]
NONE = NoAdapter()


class ModelBase:
    """The common part of all kinds of models: row sharding, adapters, and the vocabulary output."""

    config: ModelConfig
    precision: str
    mesh: Mesh | None
    adapter: AdapterConfig
    shifted: bool = True

    @property
    def platform(self) -> str:
        """Returns the platform that the model is compiled for."""
        return meshes.platform_of(self.mesh)

    def _states(self, x: Float[Array, "batch seq embed"]) -> Float[Array, "batch seq embed"]:
        """Returns embeddings in the type of `model.activations`, which all layers keep."""
        kind = self.config.activations
        if kind == "auto":
            suits = meshes.kind_of(self.mesh).activations
            kind = suits if self.precision == "bf16" else "fp32"
        return x.astype(jnp.bfloat16) if kind == "bf16" else x

    def _rows(self, x: Float[Array, "batch seq embed"]) -> Float[Array, "batch seq embed"]:
        # Left alone, the compiler may spread `embed` instead, as the weights are: every device then
        # holds a part of all rows (six times the memory).
        if self.mesh is None or self.mesh.size == 1:
            return x
        return lax.with_sharding_constraint(x, meshes.sequences(self.mesh, x.shape[1]))

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

    def logits(
        self, params: Params, hidden: Float[Array, "... embed"]
    ) -> Float[Array, "... vocab"]:
        """Computes logits over the vocabulary of a few hidden states.

        A loss takes them chunk by chunk (`losses/tokens.py`).
        """
        hidden = hidden * self.config.logit_scale
        y = to_vocab(hidden, self.output_matrix(params), self.precision)
        return self.finish_logits(params, y)

    def finish_logits(
        self, params: Params, logits: Float[Array, "... vocab"]
    ) -> Float[Array, "... vocab"]:
        """Adds the bias and applies the soft cap of the logits, where the model has them."""
        return finish_logits(logits, **self.finish(params))

    def finish(self, params: Params) -> dict[str, Any]:
        """Returns bias and soft cap of the logits, as `products.finish_logits` takes them."""
        bias = params["head"]["b"] if self.config.head_bias else None
        return {"bias": bias, "cap": self.config.logit_softcap}

    def token_stats(
        self, params: Params, hidden: Array, targets: Array, chunk: Any = "auto"
    ) -> TokenStats:
        """Computes what losses and metrics need of each target, from hidden states `[B, S, D]`."""
        how = {"precision": self.precision, "chunk": chunk, "mesh": self.mesh}
        matrix, hidden = self.output_matrix(params), hidden * self.config.logit_scale
        return tokens.token_stats(hidden, matrix, targets, **how, **self.finish(params))

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


def segments(layers: Params) -> list[tuple[int, Params]]:
    """Returns (first layer, stack) of each segment, from the bottom up."""
    return sorted((int(start), stack) for start, stack in layers.items())
