"""The cosine embedding loss: texts that belong together are drawn together, others are pushed
apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.option import Trace, option
from jaxsft.losses import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


@dataclass(frozen=True)
class CosineEmbeddingOptions:
    margin: float = option(
        0.0,
        "of cosine_embedding: the cosine from which others are pushed apart",
        what="a cosine",
        at_least=-1,
        below=1,
        traced=Trace(when="read"),
    )


def values(
    cosine: Float[Array, ...], together: Bool[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `1 - cos` of pairs that belong together, `max(0, cos - margin)` of others.

    Hadsell et al., 2006, with cosines in place of distances.
    """
    import jax.numpy as jnp

    return jnp.where(together, 1 - cosine, jnp.maximum(cosine - scalars["margin"], 0))


LOSS = Loss(
    values,
    "together",
    CosineEmbeddingOptions,
    needs=(
        ("task.encoder=bi", "it compares the vectors of two texts"),
        ("task.positive", "the label of texts that belong together"),
    ),
)
