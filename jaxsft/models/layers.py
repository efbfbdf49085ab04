"""The pieces that a block is made of: one product in two precisions, linear layers, norms, the MLP, rotary positions and dropout.

Letters: B batch, S sequence, D embed, H heads, K kv heads, N head dim, F hidden of the MLP, L layers.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from jaxsft.sharding.weights import declare

ACTIVATIONS = {"silu": jax.nn.silu, "gelu": jax.nn.gelu}


def at_least_fp32(dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


# --- products --------------------------------------------------------------------------------------------------------------------------------
def contract(equation: str, x: Array, w: Array, precision: str) -> Array:
    """`einsum(equation, x, w)`. fp32: operands as they are (float64 stays float64), highest precision. bf16: operands rounded to bfloat16, sums
    and result in float32, in the forward and in the backward pass."""
    if precision == "bf16":
        return _bf16_einsum(equation, x, w)
    return jnp.einsum(equation, x, w, precision=lax.Precision.HIGHEST, preferred_element_type=at_least_fp32(jnp.result_type(x, w)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bf16_einsum(equation: str, x: Array, w: Array) -> Array:
    return jnp.einsum(equation, x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def _bf16_forward(equation, x, w):
    # The rounded operands are what the backward pass needs: half the memory of the originals.
    return _bf16_einsum(equation, x, w), (x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))


def _bf16_backward(equation, operands, g):
    # XLA transposes a mixed bf16 -> fp32 product into a full fp32 one; rounding the cotangent keeps the fast kernel.
    x, w = operands
    (left, right), out = equation.split("->")[0].split(","), equation.split("->")[1]
    g = g.astype(jnp.bfloat16)
    dx = jnp.einsum(f"{out},{right}->{left}", g, w, preferred_element_type=jnp.float32)
    dw = jnp.einsum(f"{left},{out}->{right}", x, g, preferred_element_type=jnp.float32)
    # XLA folds a transpose that follows (a tied head's) into the product, in a form that its CPU backend does not have for bfloat16 without AMX.
    return dx, lax.optimization_barrier(dw)


_bf16_einsum.defvjp(_bf16_forward, _bf16_backward)


# --- dropout ---------------------------------------------------------------------------------------------------------------------------------
class Dropout(NamedTuple):
    """A traced rate and one key per row, so that a row's mask depends neither on its micro-batch nor on its device."""

    rate: Float[Array, ""]
    keys: Array  # [B]
    adapter: Float[Array, ""] | None = None  # the rate of an adapter's own dropout, which has the same keys

    def at(self, site: int | Int[Array, ""]) -> Dropout:
        return self._replace(keys=jax.vmap(jax.random.fold_in, (0, None))(self.keys, site))

    def of_adapter(self) -> Dropout | None:
        return None if self.adapter is None else Dropout(self.adapter, self.keys)


def dropout(x: Float[Array, "batch ..."], noise: Dropout | None, site: int) -> Float[Array, "batch ..."]:
    """Inverted dropout (Srivastava et al., 2014). 16 random bits an element: the rate is exact to 1/65536, and 0 is the identity."""
    if noise is None:
        return x
    keep = jnp.round((1.0 - noise.rate) * 65536.0)
    bits = jax.vmap(lambda key: jax.random.bits(key, x.shape[1:], jnp.uint16))(noise.at(site).keys)
    scale = jnp.where(keep > 0, 65536.0 / jnp.maximum(keep, 1.0), 0.0).astype(x.dtype)
    return jnp.where(bits.astype(jnp.int32) < keep.astype(jnp.int32), x * scale, jnp.zeros_like(x))


# --- linear layers and norms -----------------------------------------------------------------------------------------------------------------
def fan_in_normal(inputs: int, scale: float = 1.0):
    """Truncated normal with standard deviation `scale / sqrt(fan in)` (LeCun et al., 1998; the layout is `inputs` leading axes)."""

    def init(key, shape, dtype):
        fan_in = 1
        for n in shape[:inputs]:
            fan_in *= n
        # 0.87962566 is the standard deviation of a unit normal truncated at two.
        return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype) * (scale / (fan_in**0.5 * 0.87962566103423978))

    return init


class Linear(nn.Module):
    """A product written as an equation; fan-in, sharding and the matrix that an optimizer sees follow from `shape`, `axes` and `inputs`."""

    equation: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    precision: str
    inputs: int = 1
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        w = self.param("w", declare(fan_in_normal(self.inputs, self.scale), self.axes, self.inputs), self.shape)
        if self.has_variable("adapters", "adapter"):
            product = functools.partial(contract, precision=self.precision)
            return self.get_variable("adapters", "adapter").linear(x, w, None, self.equation, product)
        return contract(self.equation, x, w, self.precision)


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich, 2019) or LayerNorm (Ba et al., 2016), computed in float32 or higher. [..., D] -> [..., D]."""

    kind: str
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
        scale = self.param("scale", declare(nn.initializers.ones, ("embed",)), x.shape[-1:])
        y = x.astype(at_least_fp32(x.dtype))
        if self.kind == "layer":
            y = y - y.mean(-1, keepdims=True)
        y = y * lax.rsqrt((y * y).mean(-1, keepdims=True) + self.epsilon) * scale
        if self.kind == "layer":
            y = y + self.param("bias", declare(nn.initializers.zeros, ("embed",)), x.shape[-1:])
        return y.astype(x.dtype)


class MLP(nn.Module):
    """`down(act(up(x)))`, or gated `down(act(gate(x)) * up(x))` (Shazeer, 2020). [B, S, D] -> [B, S, D]."""

    hidden: int
    gated: bool
    activation: str
    precision: str
    scale: float  # of the output projection

    @nn.compact
    def __call__(self, x: Float[Array, "batch seq embed"]) -> Float[Array, "batch seq embed"]:
        into = functools.partial(Linear, "bsd,df->bsf", (x.shape[-1], self.hidden), ("embed", "mlp"), self.precision)
        act = ACTIVATIONS[self.activation]
        h = act(into(name="gate")(x)) * into(name="up")(x) if self.gated else act(into(name="up")(x))  # [B, S, F]
        return Linear("bsf,fd->bsd", (self.hidden, x.shape[-1]), ("mlp", "embed"), self.precision, scale=self.scale, name="down")(h)


# --- rotary positions ------------------------------------------------------------------------------------------------------------------------
def rope_table(positions: Int[Array, "batch seq"], head_dim: int, base: float, dtype) -> tuple[Array, Array]:
    """Cosines and sines `[B, S, 1, N/2]` of rotary positions (Su et al., 2021), halves rotated as in the Llama reference of Hugging Face."""
    frequency = base ** (-jnp.arange(0, head_dim, 2, dtype=dtype) / head_dim)
    angle = positions[:, :, None, None].astype(dtype) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: Float[Array, "batch seq heads head_dim"], table: tuple[Array, Array]) -> Float[Array, "batch seq heads head_dim"]:
    cos, sin = table
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
