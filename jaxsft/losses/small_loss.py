"""Small-loss selection: of each batch the rows that the model finds least believable are left out,
more of them as training goes on (Han et al., 2018, arXiv:1804.06872, section 3, with the model
that is trained as the one that chooses).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.option import Trace, option
from jaxsft.losses import Loss, cross_entropy
from jaxsft.losses.terms import smoothing

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class SmallLossOptions:
    left_out: float = option(
        0.2,
        "share of a batch that is left out: about that of the labels that are wrong",
        at_least=0,
        below=1,
        traced=Trace(when="read"),
    )
    left_out_after: str = option(
        "20%",
        "of the training, over which that share grows from 0",
        duration=True,
        at_least=0,
        traced=Trace(when="read", kind="whole_steps"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-log p[y]` of the rows with the smallest values, scaled by all rows over those;
    0 of the others, which have no gradient. An evaluation leaves none out.
    """
    import jax
    import jax.numpy as jnp

    each, weights = cross_entropy.values(logits, labels, scalars), scalars["weights"]
    step = jnp.asarray(scalars["step"], each.dtype)
    grown = jnp.clip(step / jnp.maximum(scalars["left_out_after"], 1), 0, 1)
    share = jnp.where(jnp.isfinite(step), scalars["left_out"] * grown, 0)
    there = (weights > 0).ravel()
    flat = jnp.where(there, jax.lax.stop_gradient(each).ravel(), jnp.inf)
    rank = jnp.argsort(jnp.argsort(flat))
    kept = (jnp.ceil((1 - share) * there.sum()) > rank) & there
    scale = weights.sum() / jnp.maximum((kept * weights.ravel()).sum(), 1e-9)
    return jnp.where(kept.reshape(each.shape), each * scale, 0)


LOSS = Loss(
    values,
    "labels",
    SmallLossOptions,
    smoothing.SCALARS,
    needs=(
        (
            "train.accumulate=1",
            "it compares all rows of a batch; its sum over micro-batches is another loss",
        ),
    ),
    inputs=("step", "weights"),
)
