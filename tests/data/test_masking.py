"""Masking by position: shares, frames, whole words, and the same masks however texts are packed."""

import dataclasses

import numpy as np

from jaxsft.data import encode, encoded_split, flat_examples, long_texts, pipeline
from jaxsft.data.encode import Encoded
from jaxsft.data.masking import Masking

MASK = 3
PLAIN = Masking(0.15, 0.1, 0.1, MASK, np.arange(10, 60, dtype=np.int32), None, (1, 1))


def text(n: int) -> np.ndarray:
    return np.concatenate([[1], np.arange(n) % 40 + 10, [2]]).astype(np.int32)


def test_shares():
    ids, seen = text(2000), np.zeros(3)
    for k in range(20):
        found = PLAIN.text(ids, np.random.default_rng(k))
        assert found.chosen.sum() == 300 and not found.chosen[[0, -1]].any()
        np.testing.assert_array_equal(found.ids[~found.chosen], ids[~found.chosen])
        new, old = found.ids[found.chosen], ids[found.chosen]
        seen += [(new == MASK).sum(), ((new != MASK) & (new != old)).sum(), (new == old).sum()]
    # 80 % masked, 10 % random (of which one in fifty is the same by chance), 10 % kept
    np.testing.assert_allclose(seen / seen.sum(), [0.8, 0.1 * 49 / 50, 0.1 + 0.1 / 50], atol=0.01)


def test_short_texts_and_extremes():
    one = PLAIN.text(text(1), np.random.default_rng(0))
    assert one.chosen.tolist() == [False, True, False]
    assert not PLAIN.text(text(0), np.random.default_rng(0)).chosen.any()
    kept = dataclasses.replace(PLAIN, random=0.0, kept=1.0, share=0.5).text(
        text(10), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(kept.ids, text(10))
    assert kept.chosen.sum() == 5
    same = text(4) * 0 + MASK  # a text may hold the id of the mask: places count, not ids
    assert (
        dataclasses.replace(PLAIN, share=0.5).text(same, np.random.default_rng(0)).chosen.sum() == 2
    )


def test_whole_words():
    inner = np.zeros(60, bool)
    inner[50:] = True
    words = dataclasses.replace(PLAIN, share=0.5, inner=inner, kept=0.0, random=0.0)
    ids = np.array([1, 10, 50, 51, 11, 12, 52, 13, 2], np.int32)
    for k in range(30):
        chosen = words.text(ids, np.random.default_rng(k)).chosen
        assert 1 <= chosen.sum() <= 3
        assert len(set(chosen[1:4])) == 1 and len(set(chosen[5:7])) == 1
    # the only word is longer than what may be chosen
    long = words.text(np.array([1, 10, 50, 51, 2], np.int32), np.random.default_rng(0))
    assert long.chosen.tolist() == [False, True, False, False, False]


def make(packing: bool, seed: int | None, batch: int) -> pipeline.Batches:
    rows = [
        Encoded(text(n), segment={"weight": 1.0}, special_tokens=(1, 1))
        for n in (3, 9, 5, 7, 2, 11)
    ]
    limits = long_texts.Limits(16, "error", require_stop=False)
    built, ledger, _ = encode.build(rows, [""] * 6, limits, max_dropped=0, split="train")
    split = encoded_split.Split(
        "train", flat_examples.flat(built), rows, [""] * 6, {}, ledger.as_dict(), 16
    )
    options = dataclasses.make_dataclass(
        "Options", [("plan_seed", int, 0), ("packing", bool, packing)]
    )()
    return pipeline.make_batches(split, options, batch, seed, corrupt=PLAIN.batch)


def masks(batches: pipeline.Batches, epoch: int) -> dict[int, tuple]:
    """By example: what is read, what is guessed, and where."""
    out = {}
    for step in range(epoch * len(batches), (epoch + 1) * len(batches)):
        batch = batches[step]
        for row, examples in enumerate(batch.example_ids):
            for j, example in enumerate(examples):
                if example >= 0:
                    place = batch.segment_ids[row] == j + 1
                    np.testing.assert_array_equal(batch.targets[row, place], text(place.sum() - 2))
                    out[int(example)] = (
                        tuple(batch.tokens[row, place]),
                        tuple(batch.loss_weight[row, place]),
                    )
        assert (batch.loss_weight[batch.segment_ids == 0] == 0).all()
        assert (batch.loss_weight.sum(1) <= PLAIN.most(16, batch.example_ids.shape[1])).all()
    return out


def test_masks_are_drawn_by_seed_epoch_and_row():
    packed = make(True, 5, 2)
    assert masks(packed, 0) == masks(make(False, 5, 3), 0) and len(masks(packed, 0)) == 6
    assert masks(packed, 0) != masks(packed, 1) and masks(packed, 0) != masks(make(True, 6, 2), 0)
    fixed = make(True, None, 2)
    assert masks(fixed, 0) == masks(make(False, None, 1), 0) and masks(fixed, 0) != masks(packed, 0)
