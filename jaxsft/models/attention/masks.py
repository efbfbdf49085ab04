"""Which token may attend to which: the reference that every backend is tested against."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class TokenInfo(NamedTuple):
    """Segment, position and type of each token of a batch of rows.

    Segment 0 is padding: it attends to nothing and nothing attends to it.
    """

    segment_ids: Int[Array, "batch seq"]
    positions: Int[Array, "batch seq"]
    # which text of a pair a token is of; None: all of the first
    types: Int[Array, "batch seq"] | None = None


def segment_mask(
    query: TokenInfo, key: TokenInfo, causal: bool, window: Int[Array, ""] | None = None
) -> Bool[Array, "batch queries keys"]:
    """Returns which query may attend to which key.

    Both lie in the same segment and neither is padding; with `causal`, the key is not at a
    later position; with a window, their positions differ by less than it.
    """
    same = query.segment_ids[:, :, None] == key.segment_ids[:, None, :]
    real = key.segment_ids[:, None, :] > 0
    mask = same & real
    ahead = key.positions[:, None, :] - query.positions[:, :, None]
    if causal:
        mask &= ahead <= 0
    if window is not None:
        mask &= jnp.abs(ahead) < window
    # keys of a prefix are everyone's
    return mask | ((key.segment_ids < 0)[:, None, :] & (query.segment_ids > 0)[:, :, None])
