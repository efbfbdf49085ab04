"""Span corruption: spans of a text are removed and predicted, as in the pretraining of T5.

Raffel et al., 2020, arXiv:1910.10683, section 3.1.4.

    text      Thank you for inviting me to your party last week
    source    Thank you <0> me to your party <1> week eos
    target    <0> for inviting <1> last eos

How many tokens and spans are taken out follows from the length of a text, so that its examples have
fixed lengths; which, from a seed. Until then the source holds the first tokens of the text, and the
target the others.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsft.data.encode import Encoded
from jaxsft.data.pipeline import Batch


def sizes(length: int, share: float, mean: float) -> tuple[int, int]:
    """Returns (number of removed tokens, number of spans) of a text of at least two tokens."""
    noise = min(max(round(length * share), 1), length - 1)
    return noise, min(max(round(noise / mean), 1), noise, length - noise)


def mask(length: int, noise: int, spans: int, rng: np.random.Generator) -> np.ndarray:
    """Draws which tokens are removed, `[length]` bool: spans of random lengths, never adjacent.

    T5's own always end with a span, so that a short text with one span would always lose its
    end.
    """
    cut = lambda total, parts: np.diff(
        [0, *np.sort(rng.choice(np.arange(1, total), parts - 1, replace=False)), total]
    )
    stays = cut(length - noise + 2, spans + 1)
    stays[[0, -1]] -= 1  # nothing need stand before the first span or behind the last
    out, at = np.zeros(length, bool), 0
    for before, goes in zip(stays, cut(noise, spans), strict=False):
        out[at + before : at + before + goes] = True
        at += before + goes
    return out


@dataclasses.dataclass(frozen=True)
class SpanCorruptor:
    """The options of span corruption.

    Attributes:
      share, mean: of the tokens that are taken out, and the mean length of a span.
      sentinels: `[k]` int32, what stands for the first span, the second ...
      start, end: what a decoder is given first, and what closes a source and a target.
    """

    share: float
    mean: float
    sentinels: np.ndarray
    start: tuple[int, ...]
    end: tuple[int, ...]

    def encoded(self, ids: np.ndarray) -> Encoded | str:
        """Returns an example with the lengths it will have, or the reason why there is none."""
        if len(ids) < 2:
            return "empty"
        noise, spans = sizes(len(ids), self.share, self.mean)
        if spans > len(self.sentinels):
            return "too_many_spans"
        blank, stays = np.repeat(self.sentinels[:1], spans), len(ids) - noise
        target = np.concatenate([self.start, ids[stays:], blank, self.end]).astype(np.int32)
        weights = np.ones(len(target), np.float32)
        weights[: len(self.start)] = 0
        return Encoded(
            target,
            weights,
            segment={"spans": spans},
            source=np.concatenate([ids[:stays], blank, self.end]).astype(np.int32),
        )

    def corrupted(self, ids: np.ndarray, gone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns source and target (without `start`) of a text whose tokens `gone` are removed."""
        begins = np.flatnonzero(gone & ~np.r_[False, gone[:-1]])
        source, target, at = [], [], 0
        for i, begin in enumerate(begins):
            end = begin + int(np.argmin(np.r_[gone[begin:], False]))
            source += [ids[at:begin], self.sentinels[i : i + 1]]
            target += [self.sentinels[i : i + 1], ids[begin:end]]
            at = end
        return np.concatenate([*source, ids[at:], self.end]).astype(np.int32), np.concatenate(
            [*target, self.end]
        ).astype(np.int32)

    def batch(self, batch: Batch, seed: int, epoch: int) -> Batch:
        """Returns the batch with spans removed.

        Each text draws from (seed, epoch, its number), however rows are packed, cut or
        spread.
        """
        tokens, targets, sources = (
            batch.tokens.copy(),
            batch.targets.copy(),
            batch.source.tokens.copy(),
        )
        before = len(self.start) - 1
        for row, examples in enumerate(batch.example_ids):
            for j, example in enumerate(examples):
                if example < 0:
                    continue
                spans = int(batch.segment["spans"][row, j])
                here, there = (
                    batch.segment_ids[row] == j + 1,
                    batch.source.segment_ids[row] == j + 1,
                )
                known = lambda values: values[: len(values) - spans - len(self.end)]
                stays, others = (
                    known(batch.source.tokens[row, there]),
                    known(batch.targets[row, here][before:]),
                )
                ids, rng = (
                    np.concatenate([stays, others]),
                    np.random.default_rng([seed, epoch, int(example)]),
                )
                source, target = self.corrupted(ids, mask(len(ids), len(others), spans, rng))
                whole = np.concatenate([self.start, target])
                sources[row, there], tokens[row, here], targets[row, here] = (
                    source,
                    whole[:-1],
                    whole[1:],
                )
        return batch._replace(
            tokens=tokens, targets=targets, source=batch.source._replace(tokens=sources)
        )
