"""From an encoded split to batches of fixed shapes.

The batch of step k is a pure function of (plan, data seed, k).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsft.data import packing, word_rows
from jaxsft.data.encoded_split import Split
from jaxsft.data.mixture_plan import Mix, plan_mixture
from jaxsft.data.two_streams import SourceBatch, source_batch

# arrays of a split that are copied into rows, position by position
BY_TOKEN = ("tokens", "targets", "loss_weight", "types", "backbone")


class Batch(NamedTuple):
    """A batch of B rows of S positions with up to G texts each.

    Segment 0, example -1 and weight 0 mark padding.

    Attributes:
      tokens, targets: `[B, S]` int32; targets are shifted already; None where nothing is predicted
        token by token.
      loss_weight: `[B, S]` float32.
      segment_ids: `[B, S]` int32, from 1. positions: `[B, S]` int32, from 0 in each segment.
      example_ids: `[B, G]` int32 into the split's examples.
      segment: `[B, G]` or `[B, G, n]` arrays by name: what belongs to a whole text.
      words: `[B, W]` arrays by name (`word_rows.word_batch`), one word of the row after another;
        None where nothing is said of words.
      source: the second stream; None where there is one stream.
      types: `[B, S]` int32, BERT's token types; None where all are 0.
      backbone: what a frozen backbone gave of these texts before training, `[B, S, D]` or of pooled
        texts `[B, T, D]`; None: it is run in the step.
    """

    tokens: Any
    targets: Any
    loss_weight: Any
    segment_ids: Any
    positions: Any
    example_ids: Any
    segment: dict[str, Any]
    source: SourceBatch | None = None
    types: Any = None
    words: dict[str, Any] | None = None
    backbone: Any = None


class Batches:
    """All batches of a split, by step; `len` is the steps of one epoch."""

    def __init__(
        self,
        split: Split,
        plan: packing.PackingPlan,
        batch_size: int,
        seed: int | None,
        here: np.ndarray | None = None,
        corrupt: Any = None,
        fixed: int = 0,
        mix: Mix | None = None,
        prompt_length: int = 0,
        chosen: np.ndarray | None = None,
        least_words: int = 0,
    ):
        """Stores the plan and the order of reading.

        `seed` None keeps the plan's order (evaluation). `here`: which rows of each batch
        this process reads; None: all of them. `corrupt(batch, seed, epoch)` changes what is
        read; without a seed it is given `fixed` and epoch 0, in training epochs from 1.
        `prompt_length` positions, from `-prompt_length` to -1, stand before each text for tokens
        that are not of the data. `mix`: which rows of the plan an epoch of a mixture reads.
        `chosen`: the examples of the split that the plan has; None: all of them. A batch has room
        for `least_words` words of a row at least.
        """
        self.split, self.plan, self.batch_size, self.seed = split, plan, batch_size, seed
        self.here = np.arange(batch_size) if here is None else here
        self._corrupt, self._fixed = corrupt, fixed
        self.mix, self.prompt_length, self.chosen = mix, prompt_length, chosen
        self.rows = plan.rows if mix is None else mix.rows
        self.words = max(least_words, word_rows.most_words(split.arrays, plan))
        self._order = functools.lru_cache(maxsize=2)(self._epoch_order)

    def with_seed(self, seed: int) -> Batches:
        """Returns the same rows in the order of another data seed."""
        other = copy.copy(self)
        other.seed = seed
        other._order = functools.lru_cache(maxsize=2)(other._epoch_order)
        return other

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    @property
    def examples(self) -> int:
        """Returns the examples of an epoch; of a mixture, the expected number."""
        if self.mix is not None:
            return self.mix.expected_examples
        return self.split.examples if self.chosen is None else len(self.chosen)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self.mix is not None:
            order = self.mix.order(self.seed, epoch)
        elif self.seed is None:
            order = np.arange(self.rows)
        else:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        # the last batch is filled with empty rows
        return np.concatenate([order, np.full(len(self) * self.batch_size - self.rows, -1)])

    def rows_of(self, step: int) -> np.ndarray:
        """Returns the plan rows `[B]` of a step, -1 for empty ones."""
        epoch, k = divmod(step, len(self))
        return self._order(epoch)[k * self.batch_size : (k + 1) * self.batch_size]

    def members(self, step: int) -> list[np.ndarray]:
        """Returns the examples of each row of a step over all processes."""
        return [self.plan.row(row) for row in self.rows_of(step)]

    def example_ids(self, step: int) -> np.ndarray:
        """Returns the example ids of a step over all processes, `[B, G]`, -1 for none."""
        out = np.full((self.batch_size, self.plan.texts), -1, np.int32)
        for i, examples in enumerate(self.members(step)):
            out[i, : len(examples)] = examples
        return out

    def word_ids(self, step: int) -> np.ndarray:
        """Returns the word ids of a step over all processes, `[B, W]`, -1 for none."""
        return word_rows.word_ids(self.split.arrays, self.members(step), self.words)

    def sizes(self, step: int) -> np.ndarray:
        """Returns the token counts of the texts of a step over all processes, `[texts]`; with two
        streams `[texts, 2]`, target and source tokens.
        """
        ids, sources = np.concatenate(self.members(step)), self.split.source_lengths
        lengths = self.split.lengths[ids]
        return lengths if sources is None else np.stack([lengths, sources[ids]], axis=1)

    def __getitem__(self, step: int) -> Batch:
        """Returns the rows of a step that this process reads: arrays `[rows, S]`."""
        members = self.members(step)
        members, arrays = [members[i] for i in self.here], self.split.arrays
        shape, names = (len(members), self.plan.row_length), [n for n in BY_TOKEN if n in arrays]
        by_token = {n: np.zeros((*shape, *arrays[n].shape[1:]), arrays[n].dtype) for n in names}
        segment_ids, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for i, examples in enumerate(members):
            at = 0
            for j, example in enumerate(examples):
                start, stop = arrays["offsets"][example : example + 2]
                whole = slice(at, at + self.prompt_length + int(stop - start))
                place = slice(at + self.prompt_length, at := whole.stop)
                for name in names:
                    by_token[name][i, place] = arrays[name][start:stop]
                segment_ids[i, whole] = j + 1
                positions[i, whole] = np.arange(-self.prompt_length, stop - start)
        ids = self.example_ids(step)[self.here]
        segment = _by_text(arrays, ids)
        if "backbone" in segment:  # [B, G, texts, D]
            pooled = segment.pop("backbone")
            by_token["backbone"] = pooled.reshape(len(members), -1, pooled.shape[-1])
        length, words = self.plan.source_length, None
        if self.words:
            words = word_rows.word_batch(arrays, members, self.words, self.prompt_length)
        batch = Batch(
            **(dict.fromkeys(BY_TOKEN) | by_token),
            segment_ids=segment_ids,
            positions=positions,
            example_ids=ids,
            segment=segment,
            source=source_batch(arrays, members, length) if length else None,
            words=words,
        )
        if self._corrupt is None:
            return batch
        seeded = (self.seed, 1 + step // len(self))
        return self._corrupt(batch, *((self._fixed, 0) if self.seed is None else seeded))


def _by_text(arrays: dict[str, np.ndarray], ids: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what belongs to the texts of a batch, `[B, G, ...]` by name, 0 where there is none.

    `ids` are those of its examples, `[B, G]`.
    """
    out = {}
    for name, values in arrays.items():
        if name.startswith("segment."):
            present = (ids >= 0).reshape(*ids.shape, *[1] * (values.ndim - 1))
            out[name.removeprefix("segment.")] = np.where(present, values[ids], 0).astype(
                values.dtype
            )
    return out


def stream(batches: Batches, start: int, stop: int) -> Iterator[Batch]:
    """Yields the batches of steps `[start, stop)`, read ahead by one thread.

    Resuming is starting elsewhere: nothing is skipped or stored.
    """
    if stop <= start:
        return iter(())
    import grain  # heavy, and only training and evaluation need it

    # more threads only fight over the interpreter lock
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    steps = grain.MapDataset.range(start, stop).map(batches.__getitem__)
    return iter(steps.to_iter_dataset(options))


def make_batches(
    split: Split,
    data: Any,
    batch_size: int,
    seed: int | None,
    here: np.ndarray | None = None,
    corrupt: Any = None,
    prompt_length: int = 0,
    chosen: np.ndarray | None = None,
    like: Sequence[Batches] = (),
) -> Batches:
    """Plans a split and returns its batches; `here` and the last but one as in `Batches`.

    Args:
      chosen: only these examples of the split; not of a mixture.
      like: a batch has room for as many texts and words of a row as those of these have.
    """

    def make(examples: Any) -> packing.PackingPlan:
        sources = None if split.source_lengths is None else split.source_lengths[examples]
        return packing.plan(
            split.lengths[examples] + prompt_length,
            split.limit + prompt_length,
            seed=data.plan_seed,
            packing=data.packing,
            source_lengths=sources,
            source_length=split.source_limit,
        )

    if split.mixed is not None and seed is not None:
        plan, mix = plan_mixture(split.mixed, data.mixture, make)
    else:
        plan, mix = make(slice(None) if chosen is None else chosen), None
    if chosen is not None:
        plan = dataclasses.replace(plan, members=chosen[plan.members])
    if like:
        texts = max(plan.texts, *(one.plan.texts for one in like))
        plan = dataclasses.replace(plan, texts=texts)
    words = max((one.words for one in like), default=0)
    options = (data.plan_seed, mix, prompt_length, chosen, words)
    return Batches(split, plan, batch_size, seed, here, corrupt, *options)
