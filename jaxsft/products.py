"""Matrix products in two precisions: float32 or wider, and bfloat16 operands with float32 sums."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxsft import halves, quantised


def at_least_fp32(dtype) -> jnp.dtype:
    """Returns `dtype`, or float32 where that is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def in_fp32(function: Callable[..., Array], *arrays: Array) -> Array:
    """Computes a function of arrays in float32 or higher; the result has the type of the first.

    Of narrower ones nothing wide is kept for the gradient: it is computed again, on the way.
    """
    dtype = arrays[0].dtype
    wide = at_least_fp32(dtype)
    if wide == dtype:
        return function(*arrays)
    widened = lambda *xs: function(*(x.astype(wide) for x in xs)).astype(dtype)
    return jax.checkpoint(widened, prevent_cse=False)(*arrays)


# As bf16, of a model whose linear layers have weights that are rounded already, though they lie in
# float32. A CPU widens bfloat16 again before it multiplies, and a loop over tokens would keep such
# a copy of every weight.
ROUNDED = "rounded"


def contract(equation: str, x: Array, w: Array, precision: str) -> Array:
    """Computes `einsum(equation, x, w)` in one of two precisions.

    fp32: operands as they are (float64 stays float64), highest precision. bf16, and `ROUNDED`:
    operands rounded to bfloat16, sums and result in float32, in the forward and in the backward
    pass.
    """
    if quantised.are(w):
        return _of_quantised(equation, precision, x, w)
    w = halves.widen(w)  # whole, where nothing reads it by parts
    if precision != "fp32":
        return _bf16_einsum(equation, x, w)
    return jnp.einsum(
        equation,
        x,
        w,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=at_least_fp32(jnp.result_type(x, w)),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _of_quantised(equation: str, precision: str, x: Array, w: quantised.Quantised) -> Array:
    return contract(equation, x, w.dense(), precision)


def _quantised_forward(equation, precision, x, w):
    # The codes are kept for the backward pass, not the numbers: of a scan, those of all layers. The
    # empty array tells the type of the gradient.
    return _of_quantised(equation, precision, x, w), (w, jnp.zeros(0, x.dtype))


def _quantised_backward(equation, precision, kept, g):
    w, like = kept
    (left, right), out = equation.split("->")[0].split(","), equation.split("->")[1]
    return contract(f"{out},{right}->{left}", g, w.dense(), precision).astype(like.dtype), None


_of_quantised.defvjp(_quantised_forward, _quantised_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bf16_einsum(equation: str, x: Array, w: Array) -> Array:
    return jnp.einsum(
        equation, x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), preferred_element_type=jnp.float32
    )


def _bf16_forward(equation, x, w):
    # The rounded operands are what the backward pass needs: half the memory of the originals. The
    # empty arrays tell the types of the gradients.
    types = tuple(jnp.zeros(0, a.dtype) for a in (x, w))
    return _bf16_einsum(equation, x, w), (x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), types)


def _bf16_backward(equation, operands, g):
    # XLA transposes a mixed bf16 -> fp32 product into a full fp32 one; rounding the cotangent keeps
    # the fast kernel.
    x, w, (x_type, w_type) = operands
    (left, right), out = equation.split("->")[0].split(","), equation.split("->")[1]
    g = g.astype(jnp.bfloat16)
    dx = jnp.einsum(f"{out},{right}->{left}", g, w, preferred_element_type=jnp.float32)
    # nor does it have the product of a transposed matrix with more than a matrix: the states of a
    # recurrent cell
    if x.ndim == 2 < g.ndim:
        x, left = lax.optimization_barrier(x.T), left[::-1]
    dw = jnp.einsum(f"{left},{out}->{right}", x, g, preferred_element_type=jnp.float32)
    # XLA folds a transpose that follows (a tied head's) into the product, in a form that its CPU
    # backend does not have for bfloat16 without AMX.
    return dx.astype(x_type.dtype), lax.optimization_barrier(dw.astype(w_type.dtype))


_bf16_einsum.defvjp(_bf16_forward, _bf16_backward)


def to_vocab(x: Array, matrix: Any, precision: str) -> Array:
    """Computes logits [..., V] of states [..., D] by an output matrix [D, V] with its adapter."""
    if hasattr(matrix, "logits"):
        return matrix.logits(x, functools.partial(contract, precision=precision))
    lead = "bs"[: x.ndim - 1]
    return contract(f"{lead}d,dv->{lead}v", x, matrix, precision)


def finish_logits(logits: Array, bias: Array | None, cap: float | None) -> Array:
    """Adds the bias and applies the soft cap of logits [..., V], where a model has them."""
    logits = logits if bias is None else logits + bias
    return logits if cap is None else cap * jnp.tanh(logits / cap)
