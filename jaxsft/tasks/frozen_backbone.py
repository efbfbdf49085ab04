"""The states below the head, which are computed once where the backbone is frozen
(`train.backbone=cached`), and the uses of the head above them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Array

from jaxsft.data.pipeline import Batch
from jaxsft.models.attention import TokenInfo
from jaxsft.models.dropout import Dropout
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer


class FrozenBackbone:
    """A task as what is below its head, and what is above."""

    of_words: bool

    def backbone(
        self, model: Transformer, params: Params, batch: Batch, noise: Dropout | None
    ) -> Array:
        """Computes the states below the head, without weights of the head.

        They are states of tokens `[B, S, D]` or, where the task is `pooled`, vectors of texts `[B,
        T, D]`, T a multiple of G, the packed texts of a row.
        """
        return model.hidden(
            params, batch.tokens, TokenInfo(batch.segment_ids, batch.positions, batch.types), noise
        )

    @property
    def pooled(self) -> bool:
        """Returns whether texts are pooled below the head, by a function without weights."""
        return False

    def states(
        self, model: Transformer, params: Params, batch: Batch, noise: Dropout | None
    ) -> Array:
        """Returns what the head reads: the batch's cached backbone outputs, else `backbone`."""
        return (
            self.backbone(model, params, batch, noise) if batch.backbone is None else batch.backbone
        )

    def head_uses(self, lengths: np.ndarray) -> float:
        """Counts the uses of the head: one a token (a word has about one), or one a text."""
        return float(lengths.sum() if self.of_words else len(lengths))
