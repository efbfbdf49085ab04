"""Binary cross-entropy: each output is a yes or no by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxsft.losses import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def values(
    logits: Float[Array, ...], targets: Float[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-t log s(x) - (1 - t) log(1 - s(x))`, s the sigmoid, without overflow.

    Targets lie in [0, 1].
    """
    import optax

    return optax.losses.sigmoid_binary_cross_entropy(logits, targets)


LOSS = Loss(values, "probabilities")
