"""From a split's rows to batches of fixed shapes.

The batch of step k is a pure function of (plan, data seed, k).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsft.data import cache, encode, mixture, packing
from jaxsft.data.ledger import Aside, Ledger, length_summary
from jaxsft.errors import DataError

# row lengths are rounded up to it: matrix units like it, and near lengths share a compiled program
ROW_MULTIPLE = 32


class SourceBatch(NamedTuple):
    """The source stream of an encoder-decoder batch: B rows of T positions.

    Segment i is the source of the texts' segment i; 0 is padding.

    Attributes:
      tokens, segment_ids, positions: `[B, T]` int32.
    """

    tokens: Any
    segment_ids: Any
    positions: Any


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
      words: `[B, W]` arrays by name, one word of the row after another; None where nothing is said
        of words. `segment` is that of the word, 0 where there is none; `start` and `stop` its
        positions in the row; `index` its number in its text, `last` whether no other follows there,
        `own` whether this window of the text answers for it; `weight` that of its loss; `head`
        another word of the row, from 1 (0: none).
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


@dataclasses.dataclass(frozen=True)
class Split:
    """One encoded split.

    Attributes:
      arrays: flat arrays of `encode.flat`.
      records, where: per input row, its record and `file:line`.
      dropped: reason by row.
      limit, source_limit: positions of a row, and of a row of sources (0: there are none).
      mixed: of which source of a mixture each example is; None where it is no mixture.
    """

    name: str
    arrays: dict[str, np.ndarray]
    records: Sequence[Any]
    where: Sequence[str]
    dropped: dict[int, str]
    ledger: dict[str, Any]
    limit: int
    source_limit: int = 0
    mixed: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.arrays["offsets"])

    @property
    def source_lengths(self) -> np.ndarray | None:
        return np.diff(self.arrays["source_offsets"]) if "source_offsets" in self.arrays else None

    @property
    def examples(self) -> int:
        return len(self.arrays["row"])

    @property
    def words(self) -> int:
        """Returns the number of words of all examples; a word in several windows counts in each."""
        return int(self.arrays["word_offsets"][-1]) if "word_offsets" in self.arrays else 0

    def with_backbone(self, found: np.ndarray) -> Split:
        """Returns the split with the output of a frozen backbone.

        It is `[tokens, D]`, or for pooled texts `[examples, texts, D]`.
        """
        return dataclasses.replace(
            self,
            arrays={**self.arrays, "backbone" if found.ndim == 2 else "segment.backbone": found},
        )


def row_length(longest: int, context: int, requested: Any) -> int:
    """Returns the row length; `auto` is the longest example, rounded up, at most the context."""
    if requested != "auto":
        return int(requested)
    return min(-(-max(longest, 1) // ROW_MULTIPLE) * ROW_MULTIPLE, context)


def row_lengths(
    encoded: Sequence[encode.Encoded | str],
    context: int,
    data: Any,
    least: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """Returns the row lengths of a split and of its sources (0: there are none).

    Both are at least `least` where the context has room.
    """
    kept = [e for e in encoded if not isinstance(e, str)]
    limit = max(row_length(encode.longest(kept), context, data.max_length), min(least[0], context))
    if all(e.source is None for e in kept):
        return limit, 0
    long = max(e.source_positions for e in kept)
    return limit, max(row_length(long, context, data.max_source_length), min(least[1], context))


def load_split(
    name: str,
    records: Sequence[Any],
    where: Sequence[str],
    task: Any,
    data: Any,
    context: int,
    *,
    min_length: int = 1,
    min_source: int = 1,
    aside: Sequence[Aside] = (),
) -> Split:
    """Encodes a split through the cache.

    Args:
      task: gives `encode(record, where) -> Encoded | reason` and `digest`.
      data: the DataConfig.
      min_length, min_source: rows, and rows of sources, are at least so long (evaluation splits
        share the training split's shape where they can).
      aside: rows of the split that gave no record: they are in the ledger, read and dropped.

    Raises:
      DataError: see `encode.build`.
    """
    options = {
        name: getattr(data, name)
        for name in ("max_length", "too_long", "stride", "max_dropped", "require_stop")
    }
    options |= {"max_source_length": data.max_source_length, "min_source": min_source}
    told, weights = (
        [dataclasses.astuple(bad) for bad in aside],
        [getattr(r, "weight", 1.0) for r in records],
    )
    hashed = {
        "aside": told,
        "records": [repr(r) for r in records],
        "weights": weights,
        "task": task.digest,
        "context": context,
        "min": min_length,
    }
    key = cache.key(hashed | options)

    def build() -> tuple[dict, dict]:
        encoded = [
            encode.weighted(e, w)
            for e, w in zip(task.encode_all(records, where), weights, strict=True)
        ]
        limit, source_limit = row_lengths(encoded, context, data, (min_length, min_source))
        built, ledger, dropped = encode.build(
            encoded,
            where,
            limit,
            too_long=data.too_long,
            require_stop=data.require_stop,
            max_dropped=data.max_dropped,
            split=name,
            aside=aside,
            stride=data.stride,
            source_limit=source_limit,
        )
        facts = {
            "ledger": ledger.as_dict(),
            "dropped": {str(k): v for k, v in dropped.items()},
            "limit": limit,
            "source_limit": source_limit,
        }
        return encode.flat(built), facts

    with _uncollected():
        arrays, facts = cache.load_or_build(cache.root(data.cache_dir) / key, build)
    dropped = {int(k): v for k, v in facts["dropped"].items()}
    return Split(
        name,
        arrays,
        records,
        where,
        dropped,
        facts["ledger"],
        facts["limit"],
        facts["source_limit"],
    )


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Disables the cycle collector in the block.

    It would scan a million small objects again and again (a third of the time), and they hold
    no cycles.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Batches:
    """All batches of a split, by step; `len` is the steps of one epoch.

    A random-access source for Grain.
    """

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
    ):
        """Stores the plan and the order of reading.

        `seed` None keeps the plan's order (evaluation). `here`: which rows of each batch
        this process reads; None: all of them. `corrupt(batch, seed, epoch)` changes what is
        read; without a seed it is given `fixed` and epoch 0, in training epochs from 1.
        `prompt_length` positions, from `-prompt_length` to -1, stand before each text for tokens
        that are not of the data.
        """
        self._corrupt, self._fixed, self.mix = corrupt, fixed, mix
        self.rows = plan.rows if mix is None else int(mix.taken.sum())
        self.split, self.plan, self.batch_size, self.seed, self.prompt_length = (
            split,
            plan,
            batch_size,
            seed,
            prompt_length,
        )
        self.here = np.arange(batch_size) if here is None else here
        self._order = functools.lru_cache(maxsize=2)(self._epoch_order)
        self.words = _most_words(split, plan)

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    @property
    def examples(self) -> int:
        """Returns the examples of an epoch; of a mixture, the expected number."""
        if self.mix is None:
            return self.split.examples
        return round(float((self.mix.taken * self.mix.examples / np.diff(self.mix.starts)).sum()))

    def _epoch_order(self, epoch: int) -> np.ndarray:
        rows = self.rows
        if self.mix is not None:
            order = mixture.order(self.mix.starts, self.mix.taken, self.seed, epoch)
        else:
            order = (
                np.arange(rows)
                if self.seed is None
                else np.random.default_rng([self.seed, epoch]).permutation(rows)
            )
        # the last batch is filled with empty rows
        return np.concatenate([order, np.full(len(self) * self.batch_size - rows, -1)])

    def rows_of(self, step: int) -> np.ndarray:
        """Returns the plan rows `[B]` of a step, -1 for empty ones."""
        epoch, k = divmod(step, len(self))
        return self._order(epoch)[k * self.batch_size : (k + 1) * self.batch_size]

    def example_ids(self, step: int) -> np.ndarray:
        """Returns the example ids of a step over all processes, `[B, G]`, -1 for none."""
        out = np.full((self.batch_size, self.plan.texts), -1, np.int32)
        for i, row in enumerate(self.rows_of(step)):
            examples = self.plan.row(row) if row >= 0 else ()
            out[i, : len(examples)] = examples
        return out

    def word_ids(self, step: int) -> np.ndarray:
        """Returns the word ids of a step over all processes, `[B, W]`, -1 for none."""
        out, offsets = (
            np.full((self.batch_size, self.words), -1, np.int64),
            self.split.arrays.get("word_offsets"),
        )
        for i, row in enumerate(self.rows_of(step) if self.words else ()):
            found = [
                np.arange(*offsets[example : example + 2])
                for example in (self.plan.row(row) if row >= 0 else ())
            ]
            ids = np.concatenate([*found, np.zeros(0, np.int64)])
            out[i, : len(ids)] = ids
        return out

    def lengths(self, step: int) -> np.ndarray:
        """Returns the token counts of the texts of a step over all processes, `[texts]`."""
        ids = self.example_ids(step)
        return self.split.lengths[ids[ids >= 0]]

    def sizes(self, step: int) -> np.ndarray:
        """Returns `lengths`, or with two streams `[texts, 2]`: target and source tokens."""
        ids = self.example_ids(step)
        sources = self.split.source_lengths
        return (
            self.lengths(step)
            if sources is None
            else np.stack([self.lengths(step), sources[ids[ids >= 0]]], axis=1)
        )

    def __getitem__(self, step: int) -> Batch:
        """Returns the rows of a step that this process reads: arrays `[rows, S]`."""
        rows = self.rows_of(step)[self.here]
        arrays, b, s, g = self.split.arrays, len(rows), self.plan.row_length, self.plan.texts
        by_token = {
            "tokens": np.zeros((b, s), np.int32),
            "segment_ids": np.zeros((b, s), np.int32),
            "positions": np.zeros((b, s), np.int32),
        }
        copied = ["tokens"]
        if "targets" in arrays:
            by_token |= {
                "targets": np.zeros((b, s), np.int32),
                "loss_weight": np.zeros((b, s), np.float32),
            }
            copied += ["targets", "loss_weight"]
        if "types" in arrays:
            by_token["types"] = np.zeros((b, s), np.int32)
            copied.append("types")
        if "backbone" in arrays:
            by_token["backbone"] = np.zeros(
                (b, s, *arrays["backbone"].shape[1:]), arrays["backbone"].dtype
            )
            copied.append("backbone")
        example_ids, words = np.full((b, g), -1, np.int32), self._no_words(b)
        for i, row in enumerate(rows):
            at, word = 0, 0
            for j, example in enumerate(self.plan.row(row) if row >= 0 else ()):
                start, stop = arrays["offsets"][example : example + 2]
                whole = slice(at, at + self.prompt_length + int(stop - start))
                place = slice(at + self.prompt_length, at := whole.stop)
                for name in copied:
                    by_token[name][i, place] = arrays[name][start:stop]
                by_token["segment_ids"][i, whole] = j + 1
                by_token["positions"][i, whole] = np.arange(-self.prompt_length, stop - start)
                example_ids[i, j] = example
                if words is not None:
                    word = self._add_words(words, i, word, j + 1, example, place.start)
        present = example_ids >= 0
        segment = {
            name.removeprefix("segment."): (
                np.where(
                    present.reshape(b, g, *[1] * (values.ndim - 1)), values[example_ids], 0
                ).astype(values.dtype)
            )
            for name, values in arrays.items()
            if name.startswith("segment.")
        }
        pooled = segment.pop("backbone", None)  # [B, G, texts, D]
        batch = Batch(
            by_token["tokens"],
            by_token.get("targets"),
            by_token.get("loss_weight"),
            by_token["segment_ids"],
            by_token["positions"],
            example_ids,
            segment,
            self._source(rows) if self.plan.source_length else None,
            by_token.get("types"),
            words,
            by_token.get("backbone") if pooled is None else pooled.reshape(b, -1, pooled.shape[-1]),
        )
        if self._corrupt is None:
            return batch
        return self._corrupt(
            batch, *((self._fixed, 0) if self.seed is None else (self.seed, 1 + step // len(self)))
        )

    def _source(self, rows: np.ndarray) -> SourceBatch:
        """Builds the source stream of plan rows, laid out as the target stream."""
        arrays, shape = self.split.arrays, (len(rows), self.plan.source_length)
        tokens, segment_ids, positions = (np.zeros(shape, np.int32) for _ in range(3))
        for i, row in enumerate(rows):
            at = 0
            for j, example in enumerate(self.plan.row(row) if row >= 0 else ()):
                start, stop = arrays["source_offsets"][example : example + 2]
                place = slice(at, at := at + int(stop - start))
                tokens[i, place] = arrays["source_tokens"][start:stop]
                segment_ids[i, place] = j + 1
                positions[i, place] = np.arange(stop - start)
        return SourceBatch(tokens, segment_ids, positions)

    def _no_words(self, rows: int) -> dict[str, np.ndarray] | None:
        if not self.words:
            return None
        named = {
            name.removeprefix("word."): values
            for name, values in self.split.arrays.items()
            if name.startswith("word.")
        }
        words = {name: np.zeros((rows, self.words), values.dtype) for name, values in named.items()}
        return words | {"segment": np.zeros((rows, self.words), np.int32)}

    def _add_words(
        self,
        words: dict[str, np.ndarray],
        row: int,
        at: int,
        segment: int,
        example: int,
        position: int,
    ) -> int:
        """Writes the words of an example into a row, from `at` on; what points to a position or a
        word of the text points into the row.
        """
        first, last = self.split.arrays["word_offsets"][example : example + 2]
        place = slice(at, at + int(last - first))
        for name, values in words.items():
            if name == "segment":
                values[row, place] = segment
                continue
            found = self.split.arrays[f"word.{name}"][first:last]
            if name in ("start", "stop"):
                found = found + position
            elif name == "head":
                found = np.where(found > 0, found + at, 0)
            values[row, place] = found
        return place.stop


def _most_words(split: Split, plan: packing.PackingPlan) -> int:
    """Returns the most words of a packed row; 0 where the split has no words."""
    if "word_offsets" not in split.arrays:
        return 0
    counts = np.concatenate([[0], np.cumsum(np.diff(split.arrays["word_offsets"])[plan.members])])
    return int(np.diff(counts[plan.offsets]).max(initial=1))


class Mix(NamedTuple):
    """The rows of a mixture's sources in a plan.

    `starts` `[sources + 1]` says where each begins; `taken` and `examples` `[sources]`, how
    many rows an epoch reads and how many examples there are.
    """

    starts: np.ndarray
    taken: np.ndarray
    examples: np.ndarray
    paths: tuple[str, ...]

    def as_dict(self) -> list[dict[str, Any]]:
        rows, share = np.diff(self.starts).tolist(), (self.taken / self.taken.sum()).tolist()
        columns = zip(
            self.paths, self.examples.tolist(), rows, self.taken.tolist(), share, strict=True
        )
        return [
            dict(zip(("path", "examples", "rows", "rows_per_epoch", "share"), values, strict=True))
            for values in columns
        ]


def _mixed(split: Split, data: Any, make: Any) -> tuple[packing.PackingPlan, Mix]:
    """Plans a mixture: each source is packed by itself, so that a row is of one source.

    `make(examples)` plans some of the examples.
    """
    m, ids = (
        data.mixture,
        [np.flatnonzero(split.mixed == i) for i in range(len(data.mixture.sources))],
    )
    if empty := [s.path for s, mine in zip(m.sources, ids, strict=True) if not len(mine)]:
        raise DataError(
            f"data.mixture: no row of {empty[0]} can be trained on; see the reasons by jaxsft check"
            f" data.train={empty[0]}"
        )
    plans = [make(mine) for mine in ids]
    rows = [plan.rows for plan in plans]
    taken = mixture.counts(
        rows, mixture.shares(rows, [s.weight for s in m.sources], m.temperature), m.exhausted
    )
    sizes = [np.diff(plan.offsets) for plan in plans]
    whole = dataclasses.replace(
        plans[0],
        members=np.concatenate([mine[plan.members] for mine, plan in zip(ids, plans, strict=True)]),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(sizes))]),
        texts=max(plan.texts for plan in plans),
        tokens=sum(plan.tokens for plan in plans),
        source_tokens=sum(plan.source_tokens for plan in plans),
    )
    return whole, Mix(
        np.concatenate([[0], np.cumsum(rows)]),
        taken,
        np.array([len(mine) for mine in ids]),
        tuple(s.path for s in m.sources),
    )


class _Steps:
    """The steps `[start, stop)` as a Grain source."""

    def __init__(self, batches: Batches, start: int, stop: int):
        self.batches, self.start, self.stop = batches, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, i: int) -> Batch:
        return self.batches[self.start + i]


def stream(batches: Batches, start: int, stop: int) -> Iterator[Batch]:
    """Yields the batches of steps `[start, stop)`, read ahead by one thread.

    Resuming is starting elsewhere: nothing is skipped or stored.
    """
    if stop <= start:
        return iter(())
    import grain  # heavy, and only training and evaluation need it

    # more threads only fight over the interpreter lock
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(grain.MapDataset.source(_Steps(batches, start, stop)).to_iter_dataset(options))


def make_batches(
    split: Split,
    data: Any,
    batch_size: int,
    seed: int | None,
    here: np.ndarray | None = None,
    corrupt: Any = None,
    prompt_length: int = 0,
) -> Batches:
    """Plans a split and returns its batches; `here` and the last two as in `Batches`."""

    def make(examples: Any) -> packing.PackingPlan:
        sources = None if split.source_lengths is None else split.source_lengths[examples]
        options = {
            "seed": data.plan_seed,
            "packing": data.packing,
            "source_lengths": sources,
            "source_length": split.source_limit,
        }
        return packing.plan(
            split.lengths[examples] + prompt_length, split.limit + prompt_length, **options
        )

    plan, mix = (
        _mixed(split, data, make)
        if split.mixed is not None and seed is not None
        else (make(slice(None)), None)
    )
    return Batches(split, plan, batch_size, seed, here, corrupt, data.plan_seed, mix, prompt_length)


def weight_summary(split: Split) -> dict[str, Any]:
    """Returns `weights`: least, mean and largest row weight; empty where every row weighs 1.

    Weights are those of `data.columns.weight`, over the rows that are kept.
    """
    weights = np.array(
        [
            getattr(record, "weight", 1.0)
            for i, record in enumerate(split.records)
            if i not in split.dropped
        ]
    )
    if np.all(weights == 1):
        return {}
    return {
        "weights": {
            "min": float(weights.min()),
            "mean": float(weights.mean()),
            "max": float(weights.max()),
        }
    }


def ledger_entry(batches: Batches) -> dict[str, Any]:
    """Returns the split's entry of `ledger.json`."""
    entry = {
        **batches.split.ledger,
        "packing": batches.plan.as_dict(),
        "lengths": length_summary(batches.split.lengths),
    }
    if batches.mix is not None:
        entry["mixture"] = batches.mix.as_dict()
    entry |= weight_summary(batches.split)
    sources = batches.split.source_lengths
    return entry if sources is None else entry | {"source_lengths": length_summary(sources)}


__all__ = [
    "Batch",
    "Batches",
    "Ledger",
    "SourceBatch",
    "Split",
    "ledger_entry",
    "load_split",
    "make_batches",
    "row_length",
    "stream",
]
