"""LoRA, rsLoRA and PiSSA: a product of two thin matrices beside a frozen one; DoRA: that, and the
length of every column by itself.

Letters: I inputs and O outputs of the weight (each may be several axes), R rank.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import lax
from jaxtyping import Array, Float

from jaxsft import quantised
from jaxsft.config.adapters import LowRank
from jaxsft.errors import ConfigError
from jaxsft.models.adapters.targets import Leaf, Site
from jaxsft.models.dropout import Dropout, apply_dropout
from jaxsft.models.initialisers import fan_in_normal
from jaxsft.products import at_least_fp32, contract

# of a squared column length: a column of zeros has a direction as soon as b is not zero
EPSILON = 1e-12
Product = Callable[[str, Array, Array], Array]


def scale_of(options: LowRank) -> float:
    """Returns `alpha / rank` (Hu et al. 2021, section 4.1) or `alpha / sqrt(rank)`.

    The second is rsLoRA's (Kalajdzievski 2023, arXiv:2312.03732).
    """
    return options.alpha / (options.rank if options.scaling == "rank" else math.sqrt(options.rank))


def check(chosen: Sequence[Site], options: LowRank) -> None:
    """Raises ConfigError: dropout that no site would have; more singular triples than a weight
    has."""
    if options.dropout > 0 and not any(site.spec.inputs and site.path != "head" for site in chosen):
        raise ConfigError(
            f"adapter.dropout={options.dropout}: adapter.target={list(options.target)} matches"
            " embeddings and output matrices only, whose adapters have no dropout; set"
            " adapter.dropout=0"
        )
    for site in chosen if getattr(options, "init", "zero") == "pissa" else ():
        n = site.spec.inputs or 1
        most = min(math.prod(site.spec.shape[:n]), math.prod(site.spec.shape[n:]))
        if options.rank > most:
            raise ConfigError(
                f"adapter.rank={options.rank}: adapter.init=pissa takes singular triples of each"
                f" weight, and {site.path} has {most}; set adapter.rank={most} or less, or"
                " adapter.init=zero"
            )


def declare(site: Site, options: LowRank) -> dict[str, Leaf]:
    """Declares `a` [I, R] and `b` [R, O], one of which starts at zero.

    It is b; for an embedding it is a, whose rows then learn where they are used.
    """
    w, r = site.spec, options.rank
    n = w.inputs or 1  # an embedding is the matrix of one-hot ids
    normal, zeros = fan_in_normal(n), nn.initializers.zeros
    first, second = (normal, zeros) if w.inputs else (zeros, fan_in_normal(1))
    out = {
        "a": Leaf((*w.shape[:n], r), (*w.axes[:n], "rank"), first, n),
        "b": Leaf((r, *w.shape[n:]), ("rank", *w.axes[n:]), second, 1),
    }
    if getattr(options, "init", "zero") == "pissa":
        out |= {f"{name}0": leaf for name, leaf in out.items()}
    if options.name == "dora":
        ones = nn.initializers.ones
        out |= {name: Leaf(w.shape[n:], w.axes[n:], ones) for name in ("magnitude", "square")}
    return out


def start(
    leaves: Mapping[str, Array], w: Float[Array, ...], options: LowRank, key: Array
) -> dict[str, Array]:
    """Computes the leaves that depend on the base weight, for one layer.

    PiSSA (Meng et al. 2024, section 3): `scale a b` is the sum of the largest singular triples of
    w, and each factor takes the root of the values. The frozen base is not changed: `a0 b0`, which
    is the product at the start, is subtracted from the output. DoRA (Liu et al. 2024, equation 5):
    the magnitude is the length of each column of w.
    """
    del key
    n, out, wide = leaves["a"].ndim - 1, dict(leaves), w.astype(at_least_fp32(w.dtype))
    if "a0" in leaves:
        u, s, v = jnp.linalg.svd(wide.reshape(math.prod(w.shape[:n]), -1), full_matrices=False)
        root = jnp.sqrt(s[: options.rank] / scale_of(options))
        a, b = u[:, : options.rank] * root, root[:, None] * v[: options.rank]
        a, b = (
            a.reshape(leaves["a"].shape).astype(leaves["a"].dtype),
            b.reshape(leaves["b"].shape).astype(leaves["b"].dtype),
        )
        out |= {"a": a, "b": b, "a0": a, "b0": b}
    if "square" in leaves:
        out["square"] = jnp.square(wide).sum(range(n)).astype(leaves["square"].dtype)
        out["magnitude"] = jnp.sqrt(jnp.maximum(out["square"], EPSILON))
    return out


class LowRankNode(struct.PyTreeNode):
    """The weights of one site, ready to run.

    `square` holds the squared column lengths of the base; where it is set, the output is
    DoRA's.
    """

    a: Array
    b: Array
    a0: Array | None = None
    b0: Array | None = None
    magnitude: Array | None = None
    square: Array | None = None
    dropout: Dropout | None = None
    scale: Float[Array, ""] | float = 1.0  # an array where it is traced

    def linear(
        self, x: Array, w: Array, bias: Array | None, equation: str, product: Product
    ) -> Array:
        """Computes `x w + scale drop(x) a b`, for DoRA times magnitude / length, then the bias."""
        y = product(equation, x, w) + self.delta(x, equation, product)
        if self.square is not None:
            y = y * self.ratio(w)
        return y if bias is None else y + bias

    def delta(self, x: Array, equation: str, product: Product) -> Array:
        into, back = thin(equation)
        x = apply_dropout(x, self.dropout, 0)
        y = product(back, self.scaled(product(into, x, self.a)), self.b)
        return (
            y
            if self.a0 is None
            else y - product(back, self.scaled(product(into, x, self.a0)), self.b0)
        )

    def scaled(self, x: Array) -> Array:
        """Multiplies by the scale, in the dtype of `x` whether it is traced or not."""
        return jnp.asarray(self.scale).astype(x.dtype) * x

    def rows(self, ids: Array, x: Array, w: Array) -> Array:
        """Adds the adapter's rows of `ids` to the rows `x` [B, S, D] of an embedding."""
        more = lambda a, b: self.scaled(
            contract("bsr,rd->bsd", jnp.take(a, ids, axis=0), b, "fp32")
        )
        y = x + more(self.a, self.b)
        if self.a0 is not None:
            y = y - more(self.a0, self.b0)
        return y if self.square is None else y * self.ratio(w)

    def tied(self, x: Array, w: Array, product: Product) -> Array:
        """Computes logits [..., V] from `x` [..., D] where the embedding `w` [V, D] is tied."""
        lead = "bs"[: x.ndim - 1]
        into = f"{lead}d,rd->{lead}r", f"{lead}r,vr->{lead}v"
        if self.square is not None:
            x = x * self.ratio(w)
        y = product(f"{lead}d,vd->{lead}v", x, w)
        y = y + product(into[1], self.scaled(product(into[0], x, self.b)), self.a)
        return (
            y
            if self.a0 is None
            else y - product(into[1], self.scaled(product(into[0], x, self.b0)), self.a0)
        )

    def ratio(self, w: Array) -> Float[Array, ...]:
        """Computes magnitude / length of each column of `w + scale a b`, [O].

        The length is not differentiated (section 4.3), and comes from `|w|^2 + 2 <w, d> +
        |d|^2`, so that the sum `w + d` is never held.
        """
        w, n = quantised.widen(w), self.a.ndim - 1
        wide = at_least_fp32(w.dtype)
        # [I, R], [R, O]
        a, b = (
            self.a.reshape(-1, self.a.shape[-1]).astype(wide),
            self.b.reshape(self.b.shape[0], -1).astype(wide),
        )
        high = {"precision": lax.Precision.HIGHEST}
        cross = (jnp.matmul(a.T, w.reshape(a.shape[0], -1).astype(wide), **high) * b).sum(0)
        own = (b * jnp.matmul(jnp.matmul(a.T, a, **high), b, **high)).sum(0)
        scale = jnp.asarray(self.scale).astype(wide)
        square = self.square.reshape(-1) + 2 * scale * cross + scale**2 * own
        length = lax.stop_gradient(jnp.sqrt(jnp.maximum(square, EPSILON))).reshape(w.shape[n:])
        return self.magnitude / length

    def merged(self, w: Array, bias: Array | None) -> tuple[Array, Array | None]:
        """Returns the weight with the adapter merged into it, in float32 or higher."""
        w, n = quantised.widen(w), self.a.ndim - 1
        w = w.astype(at_least_fp32(w.dtype))
        whole = lambda a, b: (a.reshape(-1, a.shape[-1]) @ b.reshape(b.shape[0], -1)).reshape(
            w.shape
        )
        with jax.default_matmul_precision("highest"):
            out = w + self.scaled(
                whole(self.a, self.b) - (0 if self.a0 is None else whole(self.a0, self.b0))
            )
        return (
            out if self.square is None else out * self.ratio(w).reshape((1,) * n + w.shape[n:])
        ), bias


class OutputMatrix(struct.PyTreeNode):
    """An output matrix with its adapter: [D, V], or [V, D] where it is the embedding."""

    w: Array
    adapter: LowRankNode
    tied: bool = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (embed, vocab)."""
        return self.w.shape[::-1] if self.tied else self.w.shape

    @property
    def dtype(self) -> Any:
        return self.w.dtype

    def logits(self, x: Array, product: Product) -> Array:
        """Computes the logits [..., V] of hidden states [..., D]."""
        if self.tied:
            return self.adapter.tied(x, self.w, product)
        lead = "bs"[: x.ndim - 1]
        return self.adapter.linear(x, self.w, None, f"{lead}d,dv->{lead}v", product)


def thin(equation: str) -> tuple[str, str]:
    """Derives the two equations of `x a b` from that of `x w`.

    `bsd,dhn->bshn` gives `bsd,dr->bsr` and `bsr,rhn->bshn`.
    """
    left, out = equation.split("->")
    x, w = left.split(",")
    r = next(c for c in "r" + string.ascii_lowercase if c not in equation)
    inputs, kept = "".join(c for c in w if c in x), x.replace("...", "")
    middle = ("..." if "..." in x else "") + "".join(c for c in kept if c not in inputs) + r
    return f"{x},{inputs}{r}->{middle}", f"{middle},{r}{''.join(c for c in w if c not in x)}->{out}"


def node(leaves: Mapping[str, Array], options: LowRank) -> Any:
    """Returns the node of a site; its scale is that of the options, unless it is traced."""
    return LowRankNode(**({"scale": scale_of(options)} | dict(leaves)))
