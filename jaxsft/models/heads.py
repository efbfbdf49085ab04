"""Heads: Linen modules that a task hangs on the hidden states, and the pooling of packed texts.

    head/{w}                                       VocabHead
    head/[query] [features/...] [dense/{w [D, D], [b]}] [norm/...] out/{w [D, C], [b]}   TextHead;
      of a PairHead out/w is [3 D, C], or there is no out
    head/[dense/{w [D, D], b}] [norm/...] out/{w [D, C], b}   of tokens: SpanHead, crf.TagHead

Letters: B batch, S sequence, G texts of a row, D embed, C outputs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxsft.config.model import ModelConfig
from jaxsft.models.activations import ACTIVATIONS
from jaxsft.models.attention import TokenInfo
from jaxsft.models.dropout import Dropout, apply_dropout
from jaxsft.models.feature_tokens import Features
from jaxsft.models.initialisers import fan_in_normal
from jaxsft.models.layers import Linear, Norm
from jaxsft.products import at_least_fp32, contract
from jaxsft.sharding.weights import declare


class VocabHead(nn.Module):
    """The part of the vocabulary logits that the embeddings do not give.

    An untied matrix `[D, V]`, a bias `[V]`, or both.

    Chunked losses and generation read the weights themselves, so `__call__` serves initialisation
    and small logits.
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
            w = self.param(
                "w",
                declare(fan_in_normal(1), ("embed", "vocab"), inputs=1),
                (self.embed, self.vocab),
            )
            y = contract("bsd,dv->bsv", x, w, self.precision)
        if self.bias:
            y = y + self.param("b", declare(nn.initializers.zeros, ("vocab",)), (self.vocab,))
        return y


# --- whole texts
# --------------------------------------------------------------------------------------------------
def members(segment_ids: Int[Array, "batch seq"], texts: int) -> Bool[Array, "batch texts seq"]:
    """Returns which token belongs to which text, `[B, G, S]` bool."""
    return segment_ids[:, None, :] == jnp.arange(1, texts + 1)[None, :, None]


def pool(
    x: Float[Array, "batch seq embed"],
    segment_ids: Int[Array, "batch seq"],
    positions: Int[Array, "batch seq"],
    texts: int,
    how: str,
) -> Float[Array, "batch texts embed"]:
    """Pools the tokens of each packed text into one vector: mean, max, first or last token.

    Tokens are chosen by segment and position, never by id. Absent texts give zeros.
    """
    # [B, G, S]; what stands before a text is not of it
    member = members(segment_ids, texts) & (positions >= 0)[:, None, :]
    if how == "max":
        return _max(x, member)
    if how == "first":
        first = jnp.where(member, positions[:, None, :], jnp.iinfo(jnp.int32).max).min(
            -1, keepdims=True
        )
        member &= positions[:, None, :] == first
    elif how == "last":
        last = jnp.where(member, positions[:, None, :], -1).max(-1, keepdims=True)
        member &= positions[:, None, :] == last
    weight = member.astype(x.dtype)
    weight = weight / jnp.maximum(weight.sum(-1, keepdims=True), 1)
    return contract("bgs,bsd->bgd", weight, x, "fp32")


def _max(
    x: Float[Array, "batch seq embed"], member: Bool[Array, "batch texts seq"]
) -> Float[Array, "batch texts embed"]:
    """Computes the largest value of each channel per text.

    One text at a time: all at once would hold `[B, G, S, D]`.
    """
    low = jnp.finfo(x.dtype).min

    def one(mine):  # [B, S]
        return jnp.where(mine.any(-1)[:, None], jnp.where(mine[:, :, None], x, low).max(1), 0)

    return jnp.moveaxis(lax.map(jax.checkpoint(one), jnp.moveaxis(member, 1, 0)), 0, 1)


def attend(
    x: Float[Array, "batch seq embed"],
    segment_ids: Int[Array, "batch seq"],
    texts: int,
    query: Float[Array, embed],
) -> Float[Array, "batch texts embed"]:
    """Pools each text's tokens by the softmax of their scaled product with a learned query.

    It is the attention of Lin et al., 2017 (arXiv:1703.03130), with one hop and without its
    hidden layer; the scale is that of Vaswani et al., 2017. Absent texts give zeros.
    """
    member = members(segment_ids, texts)
    scores = contract("bsd,d->bs", x, query, "fp32") * x.shape[-1] ** -0.5
    scores = jnp.where(member, scores[:, None, :], jnp.finfo(scores.dtype).min)
    weight = jnp.where(member, jax.nn.softmax(scores, axis=-1), 0)
    return contract("bgs,bsd->bgd", weight, x, "fp32")


class TextHead(nn.Module):
    """A head with C outputs for each packed text, [B, S, D] -> [B, G, C].

    Of texts that are already pooled: [B, G, D] -> [B, G, C].

    Attributes:
      pool: mean | max | first | last | attention, see `pool` and `attend`.
      features: of the columns beside a text, whose vectors stand in front of it
        (`features.Features`, as `features/`): how many classes each has.
      form: linear; or dense: a layer D x D with an activation before it, as the pooler of BERT and
        the head of RoBERTa have; or normed: with a norm behind that, as ModernBERT has.
      norm: of form=normed.
    """

    embed: int
    outputs: int
    precision: str
    pool: str = "mean"
    form: str = "linear"
    activation: str = "tanh"
    bias: bool = True
    features: tuple[int, ...] = ()
    norm: Norm | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        where: TokenInfo | None = None,
        texts: int = 1,
        dropout: Dropout | None = None,
    ) -> Float[Array, "batch texts outputs"]:
        y = apply_dropout(self.vectors(x, where, texts), dropout, 0)
        return self.linear("out", self.embed, self.outputs)(y)

    def linear(self, name: str, inputs: int, outputs: int) -> Linear:
        return Linear(
            "bgi,io->bgo",
            (inputs, outputs),
            ("embed", "classes"),
            self.precision,
            bias=self.bias,
            name=name,
        )

    def vectors(
        self, x: Array, where: TokenInfo | None, texts: int
    ) -> Float[Array, "batch texts embed"]:
        """Returns the pooled vectors, through the dense layer where there is one.

        With `where=None`, `x` are the vectors of texts already, `[B, G, D]`.
        """
        if self.features and self.is_initializing():
            none = jnp.zeros((1, 1, len(self.features)), jnp.int32)
            Features(self.features, self.embed, name="features")(none, none)
        with jax.named_scope("pool"):
            if self.pool == "attention":
                query = self.param(
                    "query", declare(nn.initializers.normal(1.0), ("embed",)), (self.embed,)
                )
                y = x if where is None else attend(x, where.segment_ids, texts, query)
            else:
                y = (
                    x
                    if where is None
                    else pool(x, where.segment_ids, where.positions, texts, self.pool)
                )
        if self.form != "linear":
            y = ACTIVATIONS[self.activation](self.linear("dense", self.embed, self.embed)(y))
        y = y.astype(at_least_fp32(y.dtype))
        return y if self.norm is None else self.norm(y)


class TokenHead(nn.Module):
    """The shared layers of heads over tokens or words.

    `form` and `norm` are as in `TextHead`.
    """

    embed: int
    precision: str
    form: str = "linear"
    activation: str = "tanh"
    norm: Norm | None = None

    def logits(
        self, x: Float[Array, "batch seq embed"], classes: int, dropout: Dropout | None
    ) -> Float[Array, "batch seq classes"]:
        """Computes the logits with the layers that `form` names. Call it in a compact method."""
        x = apply_dropout(x, dropout, 0)
        if self.form != "linear":
            x = ACTIVATIONS[self.activation](self._linear("dense", self.embed)(x))
        return self._linear("out", classes)(x if self.norm is None else self.norm(x))

    def _linear(self, name: str, outputs: int) -> Linear:
        return Linear(
            "bsd,dc->bsc",
            (self.embed, outputs),
            ("embed", "classes"),
            self.precision,
            bias=True,
            name=name,
        )


class SpanHead(TokenHead):
    """A head with the logits of a span's start and end for each token. [B, S, D] -> [B, S, 2]."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch seq embed"], dropout: Dropout | None = None
    ) -> Float[Array, "batch seq 2"]:
        return self.logits(x, 2, dropout)


def layers_of(task: Any, model: ModelConfig) -> dict[str, Any]:
    """Returns `form`, `activation` and `norm` of a head from the options of a task."""
    return {
        "form": task.head,
        "activation": task.activation,
        "norm": Norm.of(model, parent=None) if task.head == "normed" else None,
    }


class PairHead(TextHead):
    """A head over neighbouring texts u and v that were encoded separately.

    Without outputs it returns vectors, [B, S, D] -> [B, G, D]; else scores [B, G / 2, C] from
    (u, v, |u - v|) (Sentence-BERT: Reimers and Gurevych, 2019, arXiv:1908.10084, section 3).
    """

    @nn.compact
    def __call__(
        self,
        x: Array,
        where: TokenInfo | None = None,
        texts: int = 2,
        dropout: Dropout | None = None,
    ) -> Array:
        y = apply_dropout(self.vectors(x, where, texts), dropout, 0)  # [B, G, D]
        if self.is_initializing():
            y = jnp.repeat(y[:, :1], 2, axis=1)
        if not self.outputs:
            return y
        u, v = y[:, 0::2], y[:, 1::2]
        return self.linear("out", 3 * self.embed, self.outputs)(
            jnp.concatenate([u, v, jnp.abs(u - v)], axis=-1)
        )

    @property
    def weightless(self) -> bool:
        """Returns whether the head has no weights at all."""
        return not self.outputs and self.pool != "attention" and self.form == "linear"
