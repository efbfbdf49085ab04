"""Cross-entropy over the vocabulary for every token, without ever holding the logits of all of
them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxsft.products import at_least_fp32, finish_logits, to_vocab
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.device_table import DeviceKind, kind_of

CPU = kind_of("cpu")


class TokenStats(NamedTuple):
    """Statistics of each token, `[...]`, from which losses and metrics are computed."""

    nll: Float[Array, ...]  # -log p(target)
    log_z: Float[Array, ...]  # log of the softmax's denominator
    uniform: Float[Array, ...]  # mean over the vocabulary of -log p
    correct: Array  # bool: the target has the largest logit


def from_logits(
    logits: Float[Array, "... vocab"],
    targets: Int[Array, ...],
    axis: str | None = None,
    kind: DeviceKind = CPU,
) -> TokenStats:
    """Computes the statistics in at least float32.

    Args:
      axis: the mesh axis that the vocabulary is spread over, inside `shard_map`; None: all of it is
        here.
      kind: of device that is compiled for.
    """
    logits = logits.astype(at_least_fp32(logits.dtype))
    if axis is not None:
        return _from_parts(logits, targets, axis, kind)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    gold = _at(logits, targets, kind)
    return TokenStats(log_z - gold, log_z, log_z - logits.mean(-1), logits.argmax(-1) == targets)


def _at(logits: Array, targets: Array, kind: DeviceKind) -> Array:
    """Returns the logit of each target; 0 where it is no word of these, but any where it
    gathers.

    An accelerator that has all logits in hand for their sum picks one on the way; what gathers, and
    in the gradient scatters, goes through its memory again.
    """
    if kind.gathers:
        targets = jnp.clip(targets, 0, logits.shape[-1] - 1)
        return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    words = lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    return jnp.where(words == targets[..., None], logits, 0).sum(-1)


def _from_parts(logits: Array, targets: Array, axis: str, kind: DeviceKind) -> TokenStats:
    """Computes the same from the words that this device has; the sums are those of all devices."""
    size = logits.shape[-1]
    first, words = lax.axis_index(axis) * size, size * lax.axis_size(axis)
    own_high = lax.stop_gradient(logits).max(-1)
    high = lax.pmax(own_high, axis)
    log_z = high + jnp.log(lax.psum(jnp.exp(logits - high[..., None]).sum(-1), axis))
    at = targets - first
    here = (at >= 0) & (at < size)
    gold = lax.psum(jnp.where(here, _at(logits, at, kind), 0), axis)
    mean = lax.psum(logits.sum(-1), axis) / words
    # the first of the largest, as argmax has it
    best = jnp.where(own_high == high, first + lax.stop_gradient(logits).argmax(-1), words)
    return TokenStats(log_z - gold, log_z, log_z - mean, lax.pmin(best, axis) == targets)


def chunk_rows(chunk: Any, tokens: int, vocab: int, kind: DeviceKind = CPU) -> int | None:
    """Returns how many tokens' logits are held at once; None for all of them."""
    if chunk == "none" or (chunk == "auto" and tokens * vocab <= kind.plain_logits):
        return None
    rows = max(kind.chunk_logits // vocab, 128) if chunk == "auto" else int(chunk)
    return rows if rows < tokens else None


def token_stats(
    hidden: Float[Array, "batch seq embed"],
    w: Float[Array, "embed vocab"],
    targets: Int[Array, "batch seq"],
    *,
    precision: str,
    chunk: Any = "auto",
    bias: Float[Array, " vocab"] | None = None,
    cap: float | None = None,
    mesh: Mesh | None = None,
) -> TokenStats:
    """Computes `from_logits(finish_logits(hidden @ w, bias, cap), targets)`, in chunks where the
    logits are many.

    A chunk is recomputed in the backward pass. On a mesh each device does that for its rows and its
    part of the vocabulary: the matrix is gathered once and its gradient reduced once, not once a
    chunk.

    Args:
      w: or an output matrix with a method `logits` (`products.to_vocab`).
      chunk: tokens of a device whose logits are held at once, rounded to whole columns of its rows:
        auto | none | a number.

    Returns: arrays `[batch, seq]`.
    """
    how = _How(precision, chunk, cap, kind=meshes.kind_of(mesh))
    if mesh is None or mesh.size == 1:
        return _in_chunks(how, hidden, w, targets, bias)
    shards, axis = meshes.row_shards(mesh), meshes.RULES["vocab"]
    if hasattr(w, "logits") or hidden.shape[0] % shards:
        return _in_chunks(how._replace(shards=shards), hidden, w, targets, bias)
    vocab = axis if w.shape[1] % mesh.shape[axis] == 0 and mesh.shape[axis] > 1 else None
    of_embed = meshes.RULES["embed"]
    spread = mesh.shape[of_embed] > 1 and w.shape[0] % mesh.shape[of_embed] == 0
    embed = of_embed if spread else None
    own, rows = how._replace(axis=vocab), meshes.sequences(mesh, hidden.shape[1]).spec

    def of_device(hidden, w, targets, bias):
        w = w if embed is None else _gathered(embed, precision != "fp32", w)
        return _in_chunks(own, hidden, w, targets, bias)

    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(rows, PartitionSpec(embed, vocab), rows, PartitionSpec(vocab)),
        out_specs=rows,
        check_vma=False,  # gradients of our own say nothing of it
    )(hidden, w, targets, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gathered(axis: str, rounded: bool, w: Array) -> Array:
    """Returns the whole of a matrix whose rows are spread over a mesh axis.

    What products round to bfloat16 anyway travels so. Its gradient is summed and scattered in the
    type of the matrix.
    """
    small = w.astype(jnp.bfloat16) if rounded else w
    return lax.all_gather(small, axis, tiled=True).astype(w.dtype)


_gathered.defvjp(
    lambda axis, rounded, w: (_gathered(axis, rounded, w), None),
    lambda axis, rounded, _, g: (lax.psum_scatter(g, axis, tiled=True),),
)


class _How(NamedTuple):
    """The options of `token_stats`, for the arrays that one program sees.

    Attributes:
      axis: that the vocabulary is spread over. shards: of the rows of these arrays.
    """

    precision: str
    chunk: Any
    cap: float | None
    axis: str | None = None
    shards: int = 1
    kind: DeviceKind = CPU


def _in_chunks(how: _How, hidden: Array, w: Array, targets: Array, bias: Array | None):
    b, s, _ = hidden.shape

    def one(h, t):
        with jax.named_scope("logits"):
            logits = finish_logits(to_vocab(h, w, how.precision), bias, how.cap)
            return from_logits(logits, t, how.axis, how.kind)

    tokens = chunk_rows(how.chunk, -(-b // how.shards) * s, w.shape[1], how.kind)
    if tokens is None:
        return one(hidden, targets)
    # columns, not rows: every device has a part of each chunk
    columns = min(max(tokens * how.shards // b, 1), s)
    count = -(-s // columns)
    columns = -(-s // count)  # chunks of one size: the last is not mostly padding

    def cut(x):  # [B, S, ...] -> [count, B, columns, ...]
        x = jnp.pad(x, ((0, 0), (0, count * columns - s), *[(0, 0)] * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(b, count, columns, *x.shape[2:]), 1, 0)

    stats = lax.map(lambda args: jax.checkpoint(one)(*args), (cut(hidden), cut(targets)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, -1)[:, :s], stats)


def z_loss(stats: TokenStats) -> Float[Array, ...]:
    """Computes `log(Z)^2`, which keeps the softmax's denominator near 1.

    Chowdhery et al., PaLM, 2022, section 5.
    """
    return jnp.square(stats.log_z)
