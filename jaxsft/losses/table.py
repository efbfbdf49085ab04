"""Per-example losses by name, without reduction, with traced scalars.

The caller weighs and sums them; only the step divides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxsft import plugins
from jaxsft.errors import ConfigError


def cross_entropy(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], label_smoothing=0.0
) -> Float[Array, ...]:
    """Computes the negative log likelihood of the labels.

    With smoothing e the target is `(1 - e) onehot + e / classes` (Szegedy et al., 2016, eq. 9).
    """
    log_p = jax.nn.log_softmax(logits, axis=-1)
    gold = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return -(1.0 - label_smoothing) * gold - label_smoothing * log_p.mean(-1)


def binary_cross_entropy(
    logits: Float[Array, ...], targets: Float[Array, ...]
) -> Float[Array, ...]:
    """Computes `-t log s(x) - (1 - t) log(1 - s(x))`, s the sigmoid, without overflow.

    Targets lie in [0, 1].
    """
    return optax.losses.sigmoid_binary_cross_entropy(logits, targets)


def mse(predictions: Float[Array, ...], targets: Float[Array, ...]) -> Float[Array, ...]:
    """Computes the squared error, without a factor 1/2."""
    return jnp.square(predictions - targets)


def mae(predictions: Float[Array, ...], targets: Float[Array, ...]) -> Float[Array, ...]:
    """Computes the absolute error."""
    return jnp.abs(predictions - targets)


def huber(
    predictions: Float[Array, ...], targets: Float[Array, ...], delta=1.0
) -> Float[Array, ...]:
    """Computes `e^2 / 2` up to |e| = delta, and `delta (|e| - delta / 2)` beyond (Huber, 1964)."""
    error = jnp.abs(predictions - targets)
    inside = jnp.minimum(error, delta)
    return 0.5 * inside**2 + delta * (error - inside)


@dataclass(frozen=True)
class Loss:
    """A loss of a plug-in between numbers: `values(predictions, targets)`, element by element and
    without any reduction. Every task whose `task.loss` may be mse takes it by its name.
    """

    values: Callable[[Array, Array], Array]


_OWN: dict[str, Callable[..., Array]] = {
    "cross_entropy": cross_entropy,
    "log_loss": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "mse": mse,
    "mae": mae,
    "huber": huber,
}
LOSSES = plugins.Registry("losses", _OWN, read=lambda loss: loss.values)


def get(name: str) -> Callable[..., Array]:
    """Raises ConfigError for an unknown name."""
    if name not in LOSSES:
        raise ConfigError(f"task.loss={name}: unknown loss; there are {', '.join(sorted(LOSSES))}")
    return LOSSES[name]
