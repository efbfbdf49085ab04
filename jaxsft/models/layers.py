"""The pieces that a block is made of: one product in two precisions, linear layers, norms, the MLP
and dropout.

Letters: B batch, S sequence, D embed, H heads, K kv heads, N head dim, F hidden of the MLP, L
layers.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from jaxsft import halves
from jaxsft.config.model import ModelConfig
from jaxsft.products import ROUNDED, at_least_fp32, contract
from jaxsft.sharding.weights import declare

ACTIVATIONS = {
    "silu": jax.nn.silu,
    # Hendrycks & Gimpel, 2016, with the error function
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),  # So et al., 2021, arXiv:2109.08668
    "relu6": jax.nn.relu6,
    "leaky_relu": functools.partial(jax.nn.leaky_relu, negative_slope=0.01),
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),  # Misra, 2019, arXiv:1908.08681
    "hardswish": lambda x: x * jax.nn.relu6(x + 3) / 6,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu_10": lambda x: jnp.clip(jax.nn.gelu(x, approximate=False), -10, 10),
    # Ma et al., 2022, arXiv:2209.10655
    "laplace": lambda x: 0.5 * (1 + lax.erf((x - 0.707107) / (0.282095 * 2**0.5))),
    "sqrtsoftplus": lambda x: jnp.sqrt(jax.nn.softplus(x)),
    "linear": lambda x: x,
}


# --- dropout
# --------------------------------------------------------------------------------------------------
class Dropout(NamedTuple):
    """A traced dropout rate and one key per row.

    A row's mask depends neither on its micro-batch nor on its device.
    """

    rate: Float[Array, ""]
    keys: Array  # [B]
    # the rate of an adapter's own dropout, which has the same keys
    adapter: Float[Array, ""] | None = None
    neftune: Float[Array, ""] | None = None  # how strong the noise on embeddings is

    def at(self, site: int | Int[Array, ""]) -> Dropout:
        return self._replace(keys=jax.vmap(jax.random.fold_in, (0, None))(self.keys, site))

    def of_adapter(self) -> Dropout | None:
        return None if self.adapter is None else Dropout(self.adapter, self.keys)


def apply_dropout(
    x: Float[Array, "batch ..."], dropout: Dropout | None, site: int
) -> Float[Array, "batch ..."]:
    """Applies inverted dropout (Srivastava et al., 2014); the identity without it or at rate 0.

    Each element draws 16 random bits, so the rate is exact to 1/65536.
    """
    if dropout is None:
        return x
    keep = jnp.round((1.0 - dropout.rate) * 65536.0)
    bits = jax.vmap(lambda key: jax.random.bits(key, x.shape[1:], jnp.uint16))(
        dropout.at(site).keys
    )
    scale = jnp.where(keep > 0, 65536.0 / jnp.maximum(keep, 1.0), 0.0).astype(x.dtype)
    return jnp.where(bits.astype(jnp.int32) < keep.astype(jnp.int32), x * scale, jnp.zeros_like(x))


def neftune(
    x: Float[Array, "batch seq embed"],
    dropout: Dropout | None,
    segment_ids: Int[Array, "batch seq"],
) -> Float[Array, "batch seq embed"]:
    """Adds noise from `[-1, 1] alpha / sqrt(length of the text x D)` to embeddings in training.

    Jain et al., 2023, arXiv:2310.05914, algorithm 1.
    """
    if dropout is None or dropout.neftune is None:
        return x
    b, s, d = x.shape
    rows = jnp.arange(b)[:, None]
    # of the text that a token is of
    length = jnp.zeros((b, s + 1), x.dtype).at[rows, segment_ids].add(1)[rows, segment_ids]
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (s, d), x.dtype, -1.0, 1.0))(
        dropout.at(1).keys
    )
    return x + drawn * (dropout.neftune.astype(x.dtype) / jnp.sqrt(length * d))[..., None]


# --- linear layers and norms
# --------------------------------------------------------------------------------------------------
def fan_in_normal(inputs: int, scale: float = 1.0):
    """Returns a truncated normal initialiser with standard deviation `scale / sqrt(fan in)`.

    The fan-in is the product of the first `inputs` axes (LeCun et al., 1998).
    """

    def init(key, shape, dtype):
        fan_in = 1
        for n in shape[:inputs]:
            fan_in *= n
        # 0.87962566 is the standard deviation of a unit normal truncated at two.
        return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype) * (
            scale / (fan_in**0.5 * 0.87962566103423978)
        )

    return init


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
        y = x.astype(at_least_fp32(x.dtype))
        if self.kind == "layer":
            y = y - y.mean(over, keepdims=True)
        y = (
            y
            * lax.rsqrt((y * y).mean(over, keepdims=True) + self.epsilon)
            * (1 + scale if self.plus_one else scale)
        )
        if self.kind == "layer" and self.bias:
            y = y + self.param("bias", declare(nn.initializers.zeros, self.axes), shape)
        return y.astype(x.dtype)


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
        into = functools.partial(
            Linear,
            "bsd,df->bsf",
            (x.shape[-1], self.hidden),
            ("embed", "mlp"),
            self.precision,
            bias=self.bias,
        )
        act = ACTIVATIONS[self.activation]
        # [B, S, F]
        h = (
            act(into(name="gate")(x)) * into(name="up")(x)
            if self.gated
            else act(into(name="up")(x))
        )
        out = Linear(
            "bsf,fd->bsd",
            (self.hidden, x.shape[-1]),
            ("mlp", "embed"),
            self.precision,
            scale=self.scale,
            bias=self.bias,
            name="down",
        )
        return out(h)
