"""Spans: the example of the paper, shares, and that nothing is lost."""

import dataclasses

import numpy as np
import pytest

from jaxsft.data import encode, encoded_split, flat_examples, long_texts, pipeline
from jaxsft.data.corruption import SpanCorruptor, mask, sizes

HOW = SpanCorruptor(0.15, 3.0, np.arange(100, 110, dtype=np.int32), (7,), (8,))


def test_the_example_of_the_paper():
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    gone = np.isin(words, ["for", "inviting", "last"])
    source, target = HOW.corrupted(np.arange(10), gone)
    assert source.tolist() == [0, 1, 100, 4, 5, 6, 7, 101, 9, 8] and target.tolist() == [
        100,
        2,
        3,
        101,
        8,
        8,
    ]


@pytest.mark.parametrize("length", [2, 3, 7, 20, 100, 500])
def test_masks(length):
    noise, spans = sizes(length, 0.15, 3.0)
    assert 1 <= spans <= noise < length and (
        length < 20 or (abs(noise / length - 0.15) < 0.03 and abs(noise / spans - 3) < 0.6)
    )
    seen = set()
    for k in range(20):
        gone = mask(length, noise, spans, np.random.default_rng(k))
        assert gone.sum() == noise and (np.diff(np.r_[0, gone.astype(int)]) == 1).sum() == spans
        source, target = (
            HOW.corrupted(np.arange(length) + 200, gone)
            if spans <= 10
            else (np.zeros(0), np.zeros(0))
        )
        if spans <= 10:
            assert len(source) == length - noise + spans + 1 and len(target) == noise + spans + 1
            assert sorted([*source[source >= 200], *target[target >= 200]]) == list(
                range(200, 200 + length)
            )
        seen.add(gone.tobytes())
    assert len(seen) > 1


def make(packing: bool, seed: int | None, size: int) -> pipeline.Batches:
    rows = [HOW.encoded(np.arange(n, dtype=np.int32) + 200) for n in (5, 30, 12, 9, 2, 40)]
    built, ledger, _ = encode.build(
        rows,
        [""] * 6,
        long_texts.Limits(24, "error", require_stop=False, source=48),
        max_dropped=0,
        split="train",
    )
    split = encoded_split.Split(
        "train", flat_examples.flat(built), rows, [""] * 6, {}, ledger.as_dict(), 24, 48
    )
    options = dataclasses.make_dataclass(
        "Options", [("plan_seed", int, 0), ("packing", bool, packing)]
    )()
    return pipeline.make_batches(split, options, size, seed, corrupt=HOW.batch)


def examples(batches: pipeline.Batches, epoch: int) -> dict[int, tuple]:
    out = {}
    for step in range(epoch * len(batches), (epoch + 1) * len(batches)):
        batch = batches[step]
        for row, ids in enumerate(batch.example_ids):
            for j, example in enumerate(ids):
                if example >= 0:
                    here, there = (
                        batch.segment_ids[row] == j + 1,
                        batch.source.segment_ids[row] == j + 1,
                    )
                    out[int(example)] = (
                        tuple(batch.source.tokens[row, there].tolist()),
                        tuple(batch.targets[row, here].tolist()),
                    )
                    tokens, targets = batch.tokens[row, here], batch.targets[row, here]
                    assert (
                        tokens[0] == 7
                        and (tokens[1:] == targets[:-1]).all()
                        and targets[-1] == 8
                        and (batch.loss_weight[row, here] == 1).all()
                    )
    return out


def test_every_text_is_whole_in_source_and_target_and_drawn_by_seed_epoch_and_row():
    packed = make(True, 5, 2)
    first = examples(packed, 0)
    for example, n in enumerate((5, 30, 12, 9, 2, 40)):
        assert sorted(i for part in first[example] for i in part if i >= 200) == list(
            range(200, 200 + n)
        )
    assert (
        first == examples(make(False, 5, 3), 0)
        and first != examples(packed, 1)
        and first != examples(make(True, 6, 2), 0)
    )
    fixed = make(True, None, 2)
    assert examples(fixed, 0) == examples(make(False, None, 1), 0) and fixed.split.examples == 6


def test_what_has_no_spans():
    assert HOW.encoded(np.zeros(1, np.int32)) == "empty"
    assert HOW.encoded(np.zeros(400, np.int32)) == "too_many_spans"
