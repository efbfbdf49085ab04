"""What a backend of attention has to be able to do."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array

from jaxsft.models.attention.score_options import ScoreOptions

CONTEXT = "context"  # the name by which `model.remat_saves` keeps what attention gives


class AttentionNeeds(NamedTuple):
    """The sizes and options of an attention, as far as they are known before it runs.

    Attributes:
      queries, keys: tokens of a row. heads, kv_heads, head_dim: of queries, of keys, of both.
      own: each row attends to itself, texts one after another, positions rising in each.
      static_window: of all layers alike. has_window: this layer may have one.
      context: devices that the tokens of a row are spread over.
    """

    queries: int
    keys: int
    heads: int
    kv_heads: int
    head_dim: int
    how: ScoreOptions
    precision: str
    own: bool
    static_window: int | None
    has_window: bool
    context: int = 1

    @classmethod
    def of(
        cls, q: Array, k: Array, how: ScoreOptions, precision: str, own: bool, *window
    ) -> AttentionNeeds:
        """Returns what is asked for queries `[B, S, H, N]` and keys `[B, T, K, N]`."""
        sizes = (q.shape[1], k.shape[1], q.shape[2], k.shape[2], q.shape[3])
        return cls(*sizes, how, precision, own, *window)
