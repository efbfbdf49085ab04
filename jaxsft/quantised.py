"""Weights that are held in 8 or 4 bits and widened where a product reads them.

A matrix is laid out as `[outputs, inputs]` (an embedding as `[rows, embed]`), flattened, and cut
into blocks that share a scale `s`, from the largest magnitude `m` of the block:

    int8   a block is a row:         code = round(w / s), s = m / 127
    int4   a block has 32 numbers:   code = round(w / s), s = m / 7, in float16
    nf4    a block has 64 numbers:   code = the nearest of 16 values to w / m

nf4 is that of Dettmers et al., 2023, arXiv:2305.14314, section 3: its values are quantiles of the
normal distribution (appendix E), and the scales of a layer are quantised again (double
quantisation): less their mean, in blocks of 256, to the 8-bit floats of Dettmers et al., 2022,
arXiv:2110.02861, section 1.3. It needs 4 + 8 / 64 + 32 / (64 * 256) = 4.127 bits a weight.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

KINDS = ("int8", "int4", "nf4")
BLOCK = {"int4": 32, "nf4": 64}
OF_SCALES = 256  # scales that share a scale of their own

# arXiv:2305.14314, appendix E
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)


def dynamic_values() -> np.ndarray:
    """Returns the 256 values of 8-bit floats with a dynamic exponent, in order, [256].

    One bit is the sign; `e` zeros before the next one bit are the exponent `10^-e`, and the bits
    behind it divide [0.1, 1] evenly into `2^(6 - e)` parts, of which a value is the middle. 0 and 1
    are added.
    """
    found = [0.0, 1.0]
    for exponent in range(7):
        edges = np.linspace(0.1, 1.0, 2 ** (6 - exponent) + 1)
        middles = 10.0**-exponent * (edges[:-1] + edges[1:]) / 2
        found += [*middles, *-middles]
    return np.sort(np.array(found)).astype(np.float32)


DYNAMIC = dynamic_values()


class Quantised(struct.PyTreeNode):
    """A weight, or a stack of them `[L, ...]`, in few bits.

    Attributes:
      codes: int8 `[blocks, size]`; of 4 bits uint8 `[blocks, size / 2]`, of which the high half is
        the number that comes first.
      scales: `[blocks]`: float32 of int8, float16 of int4, uint8 (places in `DYNAMIC`) of nf4.
      outer: of nf4 the scale of each 256 scales, float32; else None.
      mean: of nf4 the mean of the scales of a layer, float32 `[1]`; else None.
      kind: of `KINDS`. layer: the shape of one layer of the weight. inputs: as of `WeightSpec`.
    """

    codes: Array
    scales: Array
    outer: Array | None
    mean: Array | None
    kind: str = struct.field(pytree_node=False)
    layer: tuple[int, ...] = struct.field(pytree_node=False)
    inputs: int = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of the weight, layers first where it is a stack."""
        return (*self.codes.shape[:-2], *self.layer)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def dtype(self) -> Any:
        """Returns the dtype in which the weight is read."""
        return jnp.dtype(jnp.float32)

    def dense(self) -> Float[Array, ...]:
        """Returns the weight in float32, stacked as it is held."""
        one = Quantised._dense
        return (jax.vmap(one) if self.codes.ndim == 3 else one)(self)

    def _dense(self) -> Array:
        numbers = _values(self.codes, self.kind) * self._scales(None)[:, None]
        rows, columns = _matrix(self.layer, self.inputs)
        matrix = numbers.reshape(-1)[: rows * columns].reshape(rows, columns)
        return (matrix.T if self.inputs else matrix).reshape(self.layer)

    def _scales(self, at: Array | None) -> Array:
        """Returns the scales of blocks, of all where `at` is None, in float32."""
        taken = self.scales if at is None else self.scales[at]
        if self.outer is None:
            return taken.astype(jnp.float32)
        at = jnp.arange(self.scales.shape[0]) if at is None else at
        return jnp.asarray(DYNAMIC)[taken] * self.outer[at // OF_SCALES] + self.mean

    def rows(self, ids: Array) -> Float[Array, "... embed"]:
        """Returns the rows of an embedding `[rows, embed]`; no other row is widened where a row
        is made of whole blocks.
        """
        size, columns = _block(self.kind, self.layer, self.inputs), self.layer[-1]
        if columns % size:
            return jnp.take(self.dense(), ids, axis=0)
        each = columns // size
        at = ids[..., None] * each + jnp.arange(each)
        numbers = _values(self.codes[at], self.kind) * self._scales(at)[..., None]
        return numbers.reshape(*ids.shape, columns)


def are(w: Any) -> bool:
    """Returns whether a weight is held in few bits."""
    return isinstance(w, Quantised)


def widen(w: Any) -> Any:
    """Returns a weight that is held in few bits in float32, and any other weight as it is."""
    return w.dense() if are(w) else w


def widened(tree: Any) -> Any:
    """Returns the tree with all weights as arrays."""
    return jax.tree.map(widen, tree, is_leaf=are)


def quantise(w: Float[Array, ...], kind: str, inputs: int, stacked: bool) -> Quantised:
    """Quantises a weight.

    Args:
      kind: of `KINDS`.
      inputs: how many leading axes a product sums over; 0 for an embedding.
      stacked: whether the first axis counts layers; each is quantised by itself.
    """
    one = lambda layer: _quantise(layer, kind, inputs)
    return jax.vmap(one)(w) if stacked else one(w)


def _quantise(w: Array, kind: str, inputs: int) -> Quantised:
    rows, columns = _matrix(w.shape, inputs)
    matrix = w.reshape(columns, rows).T if inputs else w.reshape(rows, columns)
    size = _block(kind, w.shape, inputs)
    flat = matrix.astype(jnp.float32).reshape(-1)
    blocks = jnp.pad(flat, (0, -flat.size % size)).reshape(-1, size)
    largest = jnp.abs(blocks).max(-1)
    made = lambda *arrays: Quantised(*arrays, kind=kind, layer=tuple(w.shape), inputs=inputs)
    if kind == "nf4":
        scales, outer, mean = _double(largest)
        return made(_packed(_nearest(_over(blocks, largest), NF4)), scales, outer, mean)
    most = 127 if kind == "int8" else 7
    scales = (largest / most).astype(jnp.float32 if kind == "int8" else jnp.float16)
    codes = jnp.clip(jnp.round(_over(blocks, scales.astype(jnp.float32))), -most, most)
    codes = codes.astype(jnp.int8)
    return made(codes if kind == "int8" else _packed((codes + 8).astype(jnp.uint8)), scales, *_NO)


_NO = (None, None)


def _over(blocks: Array, scales: Array) -> Array:
    """Divides blocks by their scales; a block of zeros stays zero."""
    return blocks / jnp.where(scales == 0, 1, scales)[:, None]


def _nearest(x: Array, values: np.ndarray) -> Array:
    """Returns the place of the nearest of some values in order, as uint8."""
    edges = (values[1:].astype(np.float64) + values[:-1].astype(np.float64)) / 2
    return jnp.searchsorted(jnp.asarray(edges, x.dtype), x).astype(jnp.uint8)


def _double(scales: Array) -> tuple[Array, Array, Array]:
    """Quantises scales `[blocks]`: (codes, scale of each 256, mean `[1]`)."""
    # Of another machine the sum may end in other bits, and then no code would be the same; in
    # bfloat16 it is. Any number near the mean serves.
    mean = scales.mean(keepdims=True).astype(jnp.bfloat16).astype(jnp.float32)
    centred = jnp.pad(scales - mean, (0, -scales.size % OF_SCALES)).reshape(-1, OF_SCALES)
    outer = jnp.abs(centred).max(-1)
    codes = _nearest(_over(centred, outer), DYNAMIC).reshape(-1)[: scales.size]
    return codes, outer, mean


def _packed(codes: Array) -> Array:
    """Packs two codes of 4 bits into a byte, the first into its high half."""
    return (codes[..., ::2] << 4) | codes[..., 1::2]


def _values(codes: Array, kind: str) -> Array:
    """Returns the numbers of codes in float32, before they are scaled."""
    if kind == "int8":
        return codes.astype(jnp.float32)
    nibbles = jnp.stack([codes >> 4, codes & 15], -1).reshape(*codes.shape[:-1], -1)
    if kind == "nf4":
        return jnp.asarray(NF4)[nibbles]
    return nibbles.astype(jnp.float32) - 8


def _matrix(shape: tuple[int, ...], inputs: int) -> tuple[int, int]:
    """Returns (outputs, inputs) of a weight; of an embedding (rows, embed)."""
    if not inputs:
        return shape[0], math.prod(shape[1:])
    return math.prod(shape[inputs:]), math.prod(shape[:inputs])


def _block(kind: str, shape: tuple[int, ...], inputs: int) -> int:
    return BLOCK.get(kind) or _matrix(shape, inputs)[1]
