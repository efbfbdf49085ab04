"""The functions between the two products of an MLP."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

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
