"""Heads: Linen modules that a task hangs on the hidden states, and the pooling of packed texts."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxsft.models.layers import Dropout, Linear, contract, dropout, fan_in_normal
from jaxsft.sharding.weights import declare


class VocabHead(nn.Module):
    """What a model has of its own for logits over the vocabulary: the untied matrix `[D, V]`, a bias `[V]`, or both.

    Chunked losses and generation read the weights themselves, so `__call__` serves initialisation and small logits.
    """

    embed: int
    vocab: int
    precision: str
    matrix: bool = True
    bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch seq embed"]) -> Float[Array, "batch seq vocab"]:
        y = jnp.zeros((), x.dtype)
        if self.matrix:
            w = self.param("w", declare(fan_in_normal(1), ("embed", "vocab"), inputs=1), (self.embed, self.vocab))
            y = contract("bsd,dv->bsv", x, w, self.precision)
        if self.bias:
            y = y + self.param("b", declare(nn.initializers.zeros, ("vocab",)), (self.vocab,))
        return y


class ClassHead(nn.Module):
    """Logits of a whole text: a linear layer and a bias on the pooled state. [B, G, D] -> [B, G, C]."""

    embed: int
    classes: int
    precision: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch texts embed"], noise: Dropout | None = None) -> Float[Array, "batch texts classes"]:
        y = Linear("bsd,dc->bsc", (self.embed, self.classes), ("embed", "classes"), self.precision, name="dense")(dropout(x, noise, 0))
        return y + self.param("bias", declare(nn.initializers.zeros, ("classes",)), (self.classes,))


def pool(
    x: Float[Array, "batch seq embed"], segment_ids: Int[Array, "batch seq"], positions: Int[Array, "batch seq"], texts: int, how: str
) -> Float[Array, "batch texts embed"]:
    """One vector per packed text, chosen by segment and position, never by token id: mean, first or last token. Absent texts give zeros."""
    member = segment_ids[:, None, :] == jnp.arange(1, texts + 1)[None, :, None]  # [B, G, S]
    member &= (positions >= 0)[:, None, :]  # what stands before a text is not of it
    if how == "first":
        member &= (positions == 0)[:, None, :]
    elif how == "last":
        last = jnp.where(member, positions[:, None, :], -1).max(-1, keepdims=True)
        member &= positions[:, None, :] == last
    weight = member.astype(x.dtype)
    weight = weight / jnp.maximum(weight.sum(-1, keepdims=True), 1)
    return contract("bgs,bsd->bgd", weight, x, "fp32")
