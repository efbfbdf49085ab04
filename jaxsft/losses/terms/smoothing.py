"""Targets of which a share is spread over all classes (Szegedy et al., 2016, eq. 9): with a share e
the target is `(1 - e) onehot + e / classes`. Nothing else reads that share. JAX is not imported
here, so that the config knows who reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int

SCALARS = ("label_smoothing",)


def expected(
    gold: Float[Array, ...], uniform: Float[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes the expected loss under the target, from that of the label and the mean over all
    classes.
    """
    (share,) = (scalars[name] for name in SCALARS)
    return (1.0 - share) * gold + share * uniform


def one_hot(
    labels: Int[Array, ...], classes: int, dtype: Any, scalars: Mapping[str, Any]
) -> Float[Array, "... classes"]:
    """Returns the target as probabilities of the classes."""
    (share,) = (scalars[name] for name in SCALARS)
    chosen = labels[..., None] == np.arange(classes, dtype=labels.dtype)
    return chosen.astype(dtype) * (1 - share) + share / classes


def label_set(present: Bool[Array, ...], scalars: Mapping[str, Any]) -> Float[Array, ...]:
    """Returns the target of labels of which each is there or not: two classes for each."""
    (share,) = (scalars[name] for name in SCALARS)
    return present * (1 - share) + share / 2
