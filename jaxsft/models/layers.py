"""The pieces that a block is made of: linear layers, norms and the MLP.

Letters: B batch, S sequence, D embed, H heads, K kv heads, N head dim, F hidden of the MLP, L
layers.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxsft import halves
from jaxsft.config.model import ModelConfig
from jaxsft.models.activations import ACTIVATIONS
from jaxsft.models.initialisers import fan_in_normal
from jaxsft.products import ROUNDED, contract, in_fp32
from jaxsft.sharding.weights import declare


class Linear(nn.Module):
    """A linear layer written as an equation.

    Fan-in, sharding and the matrix that an optimizer sees follow from `shape`, `axes` and
    `inputs`.
    """

    equation: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    precision: str
    inputs: int = 1
    scale: float = 1.0
    bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        w = self.param(
            "w", declare(fan_in_normal(self.inputs, self.scale), self.axes, self.inputs), self.shape
        )
        b = (
            self.param(
                "b",
                declare(nn.initializers.zeros, self.axes[self.inputs :]),
                self.shape[self.inputs :],
            )
            if self.bias
            else None
        )
        if self.has_variable("adapters", "adapter"):
            return self.get_variable("adapters", "adapter").linear(
                x, w, b, self.equation, functools.partial(contract, precision=self.precision)
            )
        if halves.are(w):
            y = halves.linear(x, w, self.inputs)
        elif self.precision == ROUNDED:
            y = contract(self.equation, x.astype(jnp.bfloat16).astype(jnp.float32), w, "fp32")
        else:
            y = contract(self.equation, x, w, self.precision)
        return y if b is None else y + b


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich, 2019) or LayerNorm (Ba et al., 2016) over the last axes, computed
    in float32 or higher. [..., D] -> [..., D].
    """

    kind: str
    epsilon: float = 1e-6
    bias: bool = True
    plus_one: bool = False
    axes: tuple[str, ...] = ("embed",)

    @classmethod
    def of(cls, config: ModelConfig, **options) -> Norm:
        """Builds the norm that the config names, which is the same everywhere in a model."""
        return cls(
            config.norm, config.norm_epsilon, config.norm_bias, config.norm_plus_one, **options
        )

    @nn.compact
    def __call__(self, x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
        over, shape = tuple(range(-len(self.axes), 0)), x.shape[-len(self.axes) :]
        start = nn.initializers.zeros if self.plus_one else nn.initializers.ones
        scale = self.param("scale", declare(start, self.axes), shape)
        bias: tuple[Array, ...] = ()
        if self.kind == "layer" and self.bias:
            bias = (self.param("bias", declare(nn.initializers.zeros, self.axes), shape),)

        def normed(y: Array, scale: Array, *bias: Array) -> Array:
            if self.kind == "layer":
                y = y - y.mean(over, keepdims=True)
            y = (
                y
                * lax.rsqrt((y * y).mean(over, keepdims=True) + self.epsilon)
                * (1 + scale if self.plus_one else scale)
            )
            return sum(bias, start=y)

        return in_fp32(normed, x, scale, *bias)


class MLP(nn.Module):
    """The MLP of a block, [B, S, D] -> [B, S, D].

    `down(act(up(x)))`, or gated `down(act(gate(x)) * up(x))` (Shazeer, 2020).
    """

    hidden: int
    gated: bool
    activation: str
    precision: str
    scale: float  # of the output projection
    bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch seq embed"]) -> Float[Array, "batch seq embed"]:
        d, act = x.shape[-1], ACTIVATIONS[self.activation]
        names = ("gate", "up") if self.gated else ("up",)
        to_hidden = ("bsd,df->bsf", (d, self.hidden), ("embed", "mlp"), self.precision)
        to_embed = ("bsf,fd->bsd", (self.hidden, d), ("mlp", "embed"), self.precision)

        def into(name: str) -> Array:
            y = Linear(*to_hidden, bias=self.bias, name=name)(x)
            return checkpoint_name(y.astype(x.dtype), name)

        h = in_fp32(lambda gate, *up: math.prod(up, start=act(gate)), *map(into, names))
        down = Linear(*to_embed, scale=self.scale, bias=self.bias, name="down")
        return down(h).astype(x.dtype)  # [B, S, F] -> [B, S, D]
