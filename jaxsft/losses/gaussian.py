"""Heteroscedastic regression: the model says how sure it is of each number, by the negative log
likelihood of a normal distribution (Nix and Weigend, 1994), weighed so that numbers of which it is
unsure are learnt all the same (Seitzer et al., 2022, arXiv:2203.09168, eq. 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.option import Trace, option
from jaxsft.losses import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclass(frozen=True)
class GaussianOptions:
    variance_power: float = option(
        0.5,
        "each number weighs by this power of its variance; 0: the likelihood, 1: means are learnt"
        " as by mse",
        at_least=0,
        at_most=1,
        traced=Trace(when="read"),
    )


def values(
    outputs: Float[Array, "... 2"], targets: Float[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `v^b (log v + (y - m)^2 / v) / 2`, m and log v the outputs; `v^b` has no gradient.

    The constant `log(2 pi) / 2` is left out.
    """
    import jax
    import jax.numpy as jnp

    mean, log_v = outputs[..., 0], outputs[..., 1]
    each = 0.5 * (log_v + jnp.square(targets - mean) * jnp.exp(-log_v))
    return jax.lax.stop_gradient(jnp.exp(scalars["variance_power"] * log_v)) * each


LOSS = Loss(values, "normals", GaussianOptions)
