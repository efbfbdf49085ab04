"""Weights that are held as the bits of bfloat16, in uint16, and widened a part at a time.

On a CPU XLA computes in float32 what it has no kernel of bfloat16 for, slices too: it widens a
whole weight first, and once, before a loop over tokens, so that a float32 copy of every weight is
held. Of integers it widens nothing: here a part is taken first, by the turn of a loop.

Letters: M rows of states, D inputs, F outputs, V vocab.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float

PART = 1 << 19  # numbers that are widened at once: 2 MiB, which a core's cache holds
SMALL = 1 << 16  # a smaller weight is widened whole
LARGE = 1 << 24  # numbers of a model, or of an output matrix, from which this is worth it
PARTS = 4  # at least; XLA unrolls shorter loops
FEW = 16  # rows of states; with more of them sums over parts of D cost more than they save


def are(w: Array) -> bool:
    """Returns whether a weight is held as the bits of bfloat16."""
    return w.dtype == jnp.uint16


def pack(w: Array) -> Array:
    """Rounds numbers to bfloat16 and returns their bits as uint16."""
    return lax.bitcast_convert_type(w.astype(jnp.bfloat16), jnp.uint16)


@jax.jit
def unpack(w: Array) -> Array:
    """Returns the bfloat16 numbers of these bits, uint16."""
    return lax.bitcast_convert_type(w, jnp.bfloat16)


def widen(w: Array) -> Array:
    """Returns a weight that is held as bits in float32, and any other weight as it is."""
    if not are(w):
        return w
    return lax.bitcast_convert_type(w.astype(jnp.uint32) << 16, jnp.float32)


def linear(x: Array, w: Array, inputs: int) -> Array:
    """Multiplies states `[..., D]` with a weight `[D, F]`: the result is `[..., F]`.

    D and F may each stand for several axes: the first `inputs` axes of the weight are D. Operands
    are rounded to bfloat16 and sums are in float32, as in `products.contract` of bf16.
    """
    lead, outputs = x.shape[: x.ndim - inputs], w.shape[inputs:]
    x, w = x.reshape(-1, math.prod(w.shape[:inputs])), w.reshape(-1, math.prod(outputs))
    few = x.shape[0] <= FEW and _turns(w, 0)[1] >= FEW
    y = _over_inputs(_rounded(x), w) if few else _over_outputs(_rounded(x), w, 1)
    return y.reshape(*lead, *outputs)


class OutputBits(struct.PyTreeNode):
    """An output matrix over the vocabulary: [D, V], or [V, D] where it is the embedding; as bits,
    or in float32, of which each part is rounded.
    """

    w: Array
    tied: bool = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (embed, vocab)."""
        return self.w.shape[::-1] if self.tied else self.w.shape

    def logits(self, x: Float[Array, "... embed"], product: Callable) -> Float[Array, "... vocab"]:
        """Computes the logits of states, with operands rounded to bfloat16 and sums in float32.

        `product` is not used.
        """
        y = _over_outputs(_rounded(x.reshape(-1, x.shape[-1])), self.w, 0 if self.tied else 1)
        return y.reshape(*x.shape[:-1], -1)


def _rounded(x: Array) -> Array:
    """Rounds to the numbers of bfloat16, and returns them in float32."""
    return lax.reduce_precision(x.astype(jnp.float32), exponent_bits=8, mantissa_bits=7)


def _dot(x: Array, w: Array, axis: int) -> Array:
    """Contracts the last axis of `x` with `axis` of `w`, in float32.

    A weight that is held as bits is widened, another one is rounded to bfloat16.
    """
    w = widen(w) if are(w) else _rounded(w)
    return lax.dot_general(
        x,
        w,
        (((1,), (axis,)), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _turns(w: Array, axis: int) -> tuple[int, int]:
    """Returns (number of parts, size of each) along an axis.

    The rest that is left over is none, or has fewer rows than there are parts.
    """
    count = max(-(-w.size // PART), PARTS) if w.size >= SMALL else 1
    rows = w.shape[axis]
    count = min(count, rows)
    count = next((n for n in range(count, 2 * count + 1) if rows % n == 0), count)
    return count, rows // count


def _over_inputs(x: Array, w: Array) -> Array:
    """Multiplies `[M, D]` with `[D, F]` in parts of D, each of which is contiguous in memory."""
    count, size = _turns(w, 0)
    part = lambda a, i, axis: lax.dynamic_slice_in_dim(a, i * size, size, axis)
    y = _dot(x[:, count * size :], w[count * size :], 0)
    return lax.fori_loop(0, count, lambda i, y: y + _dot(part(x, i, 1), part(w, i, 0), 0), y)


def _over_outputs(x: Array, w: Array, axis: int) -> Array:
    """Multiplies `[M, D]` with `[D, F]` in parts of F.

    Where `axis` is 0, the weight is `[F, D]`.
    """
    count, size = _turns(w, axis)
    if count == 1:
        return _dot(x, w, 1 - axis)

    def one(i, y):
        part = lax.dynamic_slice_in_dim(w, i * size, size, axis)
        return lax.dynamic_update_slice_in_dim(y, _dot(x, part, 1 - axis), i * size, axis=1)

    y = lax.fori_loop(0, count, one, jnp.zeros((x.shape[0], count * size), jnp.float32))
    if count * size == w.shape[axis]:
        return y
    rest = lax.slice_in_dim(w, count * size, None, axis=axis)
    return jnp.concatenate([y, _dot(x, rest, 1 - axis)], axis=1)
