"""The deep biaffine parser (Dozat and Manning, 2017, arXiv:1611.01734) over the words of packed
sentences.

Every word chooses its head among the root and the other words of its sentence, and a relation to
it. With `[v; 1]` a vector and a one below it:

    arc(i, j)      = dep_i^T U head_j + u^T head_j                   eq. 6 of the paper
    label(i, j, r) = [dep_i; 1]^T U_r [head_j; 1]                    eq. 8 and 9, as one form

Letters: B batch, W words of a row, H = 1 + W candidates (0 is the root), A size of arcs, L size of
labels, R relations.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from jaxsft.models.dropout import Dropout, apply_dropout
from jaxsft.models.initialisers import fan_in_normal
from jaxsft.models.layers import Linear
from jaxsft.products import at_least_fp32, contract
from jaxsft.sharding.weights import declare


class Views(NamedTuple):
    """The scores of a parse: of arcs, of the factors of labels, and of parts of speech."""

    arcs: Float[Array, "batch words heads"]  # score of each head, of other sentences too
    dep: Float[Array, "batch words label1"]  # [dep; 1] of each word, for its relation
    head: Float[Array, "batch heads label1"]  # [head; 1] of each candidate
    labels: Float[Array, "label1 relations label1"]
    tags: Float[Array, "batch words tags"] | None  # logits of parts of speech


class Biaffine(nn.Module):
    """The scorer of a parser, `[B, W, D]` -> `Views`.

    The root is a learned vector; a linear layer scores `tags` parts of speech from the same
    states.
    """

    embed: int
    arc: int
    label: int
    relations: int
    tags: int
    precision: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch words embed"], dropout: Dropout | None = None
    ) -> Views:
        x = apply_dropout(x, dropout, 0)
        root = self.param(
            "root", declare(nn.initializers.normal(1.0), ("embed",)), (self.embed,)
        ).astype(x.dtype)
        # [B, H, D]
        candidates = jnp.concatenate(
            [jnp.broadcast_to(root, (x.shape[0], 1, self.embed)), x], axis=1
        )
        arc_dep, arc_head = (
            self._view("arc_dep", x, self.arc, dropout, 1),
            self._view("arc_head", candidates, self.arc, dropout, 2),
        )
        dep, head = (
            self._view("label_dep", x, self.label, dropout, 3),
            self._view("label_head", candidates, self.label, dropout, 4),
        )

        w = self.param(
            "arcs", declare(fan_in_normal(1), ("classes", "mlp"), inputs=1), (self.arc, self.arc)
        )
        prior = self.param("arc_prior", declare(nn.initializers.zeros, ("mlp",)), (self.arc,))
        arcs = (
            contract(
                "bwa,bha->bwh",
                contract("bwa,ac->bwc", arc_dep, w, self.precision) + prior,
                arc_head,
                self.precision,
            )
            * self.arc**-0.5
        )
        size = self.label + 1
        labels = self.param(
            "labels",
            declare(fan_in_normal(1), ("classes", "classes", "mlp"), inputs=1),
            (size, self.relations, size),
        )
        tags = None
        if self.tags:
            tags = Linear(
                "bsd,dc->bsc",
                (self.embed, self.tags),
                ("embed", "classes"),
                self.precision,
                bias=True,
                name="tags",
            )(x)
        one = lambda v: jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        return Views(
            arcs.astype(at_least_fp32(arcs.dtype)), one(dep), one(head), labels * size**-0.5, tags
        )

    def _view(self, name: str, x: Array, size: int, dropout: Dropout | None, site: int) -> Array:
        y = Linear(
            "bsd,da->bsa",
            (self.embed, size),
            ("embed", "mlp"),
            self.precision,
            bias=True,
            name=name,
        )(x)
        return apply_dropout(jax.nn.leaky_relu(y, 0.1), dropout, site)


def candidates(segment: Int[Array, "batch words"]) -> Array:
    """Returns which heads a word may have, `[B, W, H]` bool: the root and words of its sentence."""
    words = segment.shape[1]
    same = (
        (segment[:, :, None] == segment[:, None, :])
        & (segment[:, None, :] > 0)
        & ~jnp.eye(words, dtype=bool)
    )
    return jnp.concatenate([jnp.ones_like(same[..., :1]), same], axis=-1)


def masked_arcs(
    views: Views, segment: Int[Array, "batch words"]
) -> Float[Array, "batch words heads"]:
    """Returns the arc scores, with -1e9 where no arc is allowed."""
    return jnp.where(candidates(segment), views.arcs, -1e9)


def label_logits(
    views: Views, heads: Int[Array, "batch words"], precision: str
) -> Float[Array, "batch words relations"]:
    """Computes the scores of each relation between every word and its given head."""
    head = jnp.take_along_axis(views.head, heads[..., None], axis=1)  # [B, W, L + 1]
    left = contract("bwl,lrm->bwrm", views.dep, views.labels, precision)
    return contract("bwrm,bwm->bwr", left, head, precision)


def best_arcs(
    views: Views, arcs: Array, segment: Int[Array, "batch words"], precision: str
) -> dict[str, Int[Array, "batch words"]]:
    """Returns the best head of each word on its own, whether or not they form a tree, and the best
    relation of this arc.

    Args:
      arcs: of `masked_arcs`.

    Returns: `word.head`, counted from 1 in the sentence, 0 is the root, and `word.deprel`.
    """
    head = arcs.argmax(-1).astype(jnp.int32)  # [B, W], counted in the row
    first = (segment[:, None, :] == segment[:, :, None]).argmax(-1)  # of the sentence
    relation = label_logits(views, head, precision).argmax(-1).astype(jnp.int32)
    there = segment > 0
    return {
        "word.head": jnp.where(there & (head > 0), head - first, 0).astype(jnp.int32),
        "word.deprel": jnp.where(there, relation, 0),
    }


def best_labels(views: Views, precision: str) -> Int[Array, "batch words heads"]:
    """Returns the relation with the highest score for every pair of word and head.

    It goes relation by relation, so that `[B, W, H, R]` is never held.
    """

    def one(best, relation):
        weights, number = relation
        score = contract(
            "bwl,bhl->bwh",
            contract("bwl,lm->bwm", views.dep, weights, precision),
            views.head,
            precision,
        )
        higher = score > best[0]
        return (jnp.where(higher, score, best[0]), jnp.where(higher, number, best[1])), None

    shape = (*views.dep.shape[:2], views.head.shape[1])
    start = (jnp.full(shape, -jnp.inf, at_least_fp32(views.dep.dtype)), jnp.zeros(shape, jnp.int32))
    numbered = (
        jnp.moveaxis(views.labels, 1, 0),
        jnp.arange(views.labels.shape[1], dtype=jnp.int32),
    )
    return lax.scan(one, start, numbered)[0][1]
