"""Masking for masked language models: which tokens are predicted, and what replaces them.

Devlin et al., 2019, arXiv:1810.04805, section 3.1.

Everything goes by position: a token that a text happens to share with a special one is masked like
any other.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxsft.data.pipeline import Batch


class Masked(NamedTuple):
    """A masked text: its ids with replacements, and which positions are predicted, `[n]` bool."""

    ids: np.ndarray
    chosen: np.ndarray


@dataclasses.dataclass(frozen=True)
class Masking:
    """The options of masking.

    Attributes:
      share: of the tokens of a text, how many are guessed; at least one.
      random, kept: of these, how many are replaced by a random token, and how many stay as they
        are; the others become `mask_id`.
      mask_id: what stands in place of a masked token.
      ordinary: `[n]` int32, the ids that a random token is drawn from.
      inner: `[V]` bool, pieces that go on with a word; where given, whole words are chosen.
      special_tokens: how many at the beginning and at the end of a text are special, and never
        chosen.
    """

    share: float
    random: float
    kept: float
    mask_id: int
    ordinary: np.ndarray
    inner: np.ndarray | None
    special_tokens: tuple[int, int]

    def most(self, length: int, texts: int) -> int:
        """Returns how many positions of a row may be chosen at most, for its length and texts."""
        return min(int(self.share * length) + texts, length)

    def count(self, length: int) -> int:
        """Returns how many tokens of a text are predicted; with whole words an upper bound."""
        inside = length - sum(self.special_tokens)
        return max(int(self.share * inside), 1) if inside > 0 else 0

    def text(self, ids: np.ndarray, rng: np.random.Generator) -> Masked:
        places = np.arange(self.special_tokens[0], len(ids) - self.special_tokens[1])
        chosen = np.zeros(len(ids), bool)
        if not len(places):
            return Masked(ids, chosen)
        wanted = self.count(len(ids))
        chosen[
            (
                self._words(ids, places, wanted, rng)
                if self.inner is not None
                else rng.choice(places, wanted, replace=False)
            )
        ] = True
        at = np.flatnonzero(chosen)
        draw, out = rng.random(len(at)), ids.copy()
        other = draw < self.random
        out[at[other]] = rng.choice(self.ordinary, int(other.sum()))
        out[at[draw >= self.random + self.kept]] = self.mask_id
        return Masked(out, chosen)

    def _words(
        self, ids: np.ndarray, places: np.ndarray, wanted: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Returns the positions of whole words in random order, while they fit into `wanted`.

        Where none fits, the first positions of the first word.
        """
        begins = ~self.inner[ids[places]]
        begins[0] = True
        words = np.split(places, np.flatnonzero(begins)[1:])
        out: list[np.ndarray] = []
        left = wanted
        for i in rng.permutation(len(words)):
            if len(words[i]) <= left:
                out.append(words[i])
                left -= len(words[i])
        return np.concatenate(out) if out else words[rng.integers(len(words))][:wanted]

    def batch(self, batch: Batch, seed: int, epoch: int) -> Batch:
        """Returns a batch with masked inputs, targets and weights.

        Each text draws from (seed, epoch, its number), however rows are packed, cut or
        spread. A chosen position has the weight of its text.
        """
        tokens, weights = batch.tokens.copy(), np.zeros(batch.tokens.shape, np.float32)
        for row, examples in enumerate(batch.example_ids):
            for j, example in enumerate(examples):
                if example >= 0:
                    place = batch.segment_ids[row] == j + 1
                    masked = self.text(
                        batch.tokens[row, place], np.random.default_rng([seed, epoch, int(example)])
                    )
                    tokens[row, place], weights[row, place] = (
                        masked.ids,
                        masked.chosen * batch.segment["weight"][row, j],
                    )
        return batch._replace(tokens=tokens, targets=batch.tokens, loss_weight=weights)
