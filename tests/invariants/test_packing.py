"""The trust suite of packing: a text does not know which row it is in, who shares it, or where the
padding is.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import packing
from jaxsft.data.encoded_split import Split
from jaxsft.data.pipeline import Batches
from jaxsft.data.records import Chat, Message, Text
from jaxsft.data.split_ledger import packing_facts
from jaxsft.models.attention import TokenInfo, blocked
from tests.conftest import assert_close, assert_same, bench

VARIANTS = {
    "causal": ("lm", {}),
    "bidirectional": ("classify", {}),
    "disentangled": (
        "classify",
        {"positions": "disentangled", "kv_heads": 4, "relative_buckets": 4, "relative_distance": 8},
    ),
    "experts": ("lm", {"experts": 3}),
    "windows, two bases": (
        "lm",
        {
            "window": 4,
            "window_layers": (1,),
            "rope_local_base": 100.0,
            "attention_softcap": 2.0,
            "qk_norm": "head",
        },
    ),
    "learned, post-norm": (
        "lm",
        {
            "positions": "learned",
            "norm_position": "post",
            "norm": "layer",
            "gated": False,
            "activation": "gelu",
        },
    ),
}
x64 = pytest.mark.usefixtures("x64")


@functools.cache
def packed(task="lm", packing=True, max_length="auto", pool="mean", batch_size=16, **model):
    """All rows in one batch, in the plan's order (evaluation)."""
    options = {"task": {"pool": pool}} if task == "classify" else {}
    b = bench(
        task,
        data={"packing": packing, "max_length": max_length},
        train={"batch_size": batch_size},
        model=model,
        longest=28,
        **options,
    )
    return dataclasses.replace(
        b, batches=Batches(b.batches.split, b.batches.plan, batch_size, None)
    )


@functools.cache
def runner(task, **model):
    b = packed(task, **model)
    return jax.jit(
        lambda batch: b.parts.model.hidden(
            b.params, batch.tokens, TokenInfo(batch.segment_ids, batch.positions)
        )
    )


def by_example(batch, values):
    """`{example: values of its tokens}`."""
    out = {}
    for i, ids in enumerate(batch.example_ids):
        for j, example in enumerate(ids):
            if example >= 0:
                out[int(example)] = np.asarray(values[i])[batch.segment_ids[i] == j + 1]
    return out


def left_padded(batch):
    """The same rows with the padding in front."""

    def move(x):
        x = np.array(x)
        for i, segments in enumerate(batch.segment_ids):
            x[i] = np.roll(x[i], int((segments == 0).sum()), axis=0)
        return x

    by_token = ("tokens", "targets", "loss_weight", "segment_ids", "positions", "types")
    return batch._replace(
        **{
            name: move(getattr(batch, name))
            for name in by_token
            if getattr(batch, name) is not None
        }
    )


# --- the model
# --------------------------------------------------------------------------------------------------
@x64
@pytest.mark.parametrize(
    ("variant", "path"),
    [
        (v, p)
        for v in VARIANTS
        for p in ("reference", "blocked")
        if (v, p) != ("disentangled", "blocked")
    ],
)
# guards B1, B3, B5
def test_packed_states_are_those_of_each_text_alone(variant, path, monkeypatch):
    """Also with the padding on the left, and for a text in a row of exactly its length."""
    monkeypatch.setattr(blocked, "BLOCK", 8)
    task, model = VARIANTS[variant]
    run = runner(task, attention=path, **model)
    together, alone = packed(task).batches[0], packed(task, packing=False, max_length=64).batches[0]
    assert together.example_ids.shape[1] > 2 and (alone.segment_ids.max(1)[:13] == 1).all()
    expected = by_example(alone, run(alone))
    assert len(expected) == 13 and max(np.abs(x).max() for x in expected.values()) > 0.5
    assert_close(by_example(together, run(together)), expected)
    left = left_padded(together)
    assert left.segment_ids[0, 0] == 0 or (together.segment_ids[0] > 0).all()
    assert_close(by_example(left, run(left)), expected)
    tight = jax.tree.map(
        lambda x: x[:1, : (alone.segment_ids[0] > 0).sum()],
        alone._replace(example_ids=None, segment={}),
    )
    np.testing.assert_allclose(run(tight)[0], expected[0], atol=1e-12)


@x64
@pytest.mark.parametrize("path", ["reference", "blocked"])
@pytest.mark.parametrize("task", ["lm", "classify"])
def test_another_text_cannot_be_seen(task, path, monkeypatch):  # guards B2
    """Other tokens in one text of every row change nothing, not one bit, in the others."""
    monkeypatch.setattr(blocked, "BLOCK", 8)
    run = runner(task, attention=path)
    batch = packed(task).batches[0]
    for segment in (1, 2):
        mine = batch.segment_ids == segment
        other = batch._replace(tokens=np.where(mine, (batch.tokens + 7) % 250, batch.tokens))
        before, after = np.asarray(run(batch)), np.asarray(run(other))
        theirs = (batch.segment_ids > 0) & ~mine
        np.testing.assert_array_equal(before[theirs], after[theirs])
        assert (before[mine] != after[mine]).any(-1).mean() > 0.9


@x64
@pytest.mark.parametrize("task", ["chat", "lm"])
def test_loss_does_not_depend_on_padding(task):  # guards B3, B9, B12
    """Side and length of the padding; packed or not."""
    b, wide = packed(task), packed(task, packing=False, max_length=64)
    batch = b.batches[0]
    sums, columns = b.evaluate(*b.apart, batch, b.hyper)
    others, alone = wide.evaluate(*wide.apart, wide.batches[0], wide.hyper)
    left, same = b.evaluate(*b.apart, left_padded(batch), b.hyper)
    assert wide.batches[0].tokens.shape[1] > batch.tokens.shape[1] or task == "chat"
    assert_close(sums, left, rtol=1e-12)
    assert_close(columns, same, rtol=1e-12)
    assert_close(sums, others, rtol=1e-12)
    texts = lambda batch, columns: {
        int(e): float(columns["nll"][i]) for i, e in np.ndenumerate(batch.example_ids) if e >= 0
    }
    found, expected = texts(batch, columns), texts(wide.batches[0], alone)
    assert found.keys() == expected.keys() and len(found) == 13
    np.testing.assert_allclose([found[e] for e in expected], list(expected.values()), rtol=1e-12)


@x64
@pytest.mark.parametrize(
    "pool, causal", [("mean", False), ("first", False), ("last", False), ("last", True)]
)
def test_a_pooled_text_does_not_know_its_mates(pool, causal):  # guards E11, B1
    """Class logits: packed, alone, padded left, right and longer."""
    b, wide = (
        packed("classify", pool=pool, causal=causal),
        packed("classify", packing=False, max_length=64, pool=pool, causal=causal),
    )

    def logits(b, batch):
        found = b.evaluate(*b.apart, batch, b.hyper)[1]["logits"]
        return {
            int(e): np.asarray(found[i]) for i, e in np.ndenumerate(batch.example_ids) if e >= 0
        }

    expected = logits(wide, wide.batches[0])
    assert len(expected) == 13 and np.ptp(np.stack(list(expected.values())), axis=0).min() > 1e-3
    for batch in (b.batches[0], left_padded(b.batches[0])):
        assert_close(logits(b, batch), expected)


# --- the batches
# --------------------------------------------------------------------------------------------------
def split_of(lengths, row_length):
    """Token p of example e is 1000 e + p, its target one more, its weight 1 + e: every place tells
    whose it is.
    """
    lengths = np.array(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.concatenate([1000 * e + np.arange(n) for e, n in enumerate(lengths)]).astype(
        np.int32
    )
    weight = np.concatenate([np.full(n, 1.0 + e) for e, n in enumerate(lengths)]).astype(np.float32)
    arrays = {
        "offsets": offsets,
        "row": np.arange(len(lengths)),
        "part": np.zeros(len(lengths), np.int32),
        "tokens": tokens,
    }
    arrays |= {
        "targets": tokens + 1,
        "loss_weight": weight,
        "segment.mark": np.arange(len(lengths)) * 10.0,
    }
    return Split("train", arrays, [], [], {}, {}, row_length)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(40, 64),
    st.integers(1, 7),
    st.booleans(),
    st.none() | st.integers(0, 99),
)
# guards B3, B4, B6, B12, E3
def test_an_epoch_holds_every_token_once(lengths, row_length, batch_size, packs, seed):
    split = split_of(lengths, row_length)
    plan = packing.plan(split.lengths, row_length, seed=0, packing=packs)
    batches = Batches(split, plan, batch_size, seed)
    seen = []
    for k in range(len(batches)):
        b = batches[k]
        assert b.tokens.shape == (batch_size, row_length) and b.example_ids.shape == (
            batch_size,
            plan.texts,
        )
        nobody = b.segment_ids == 0
        assert (
            not b.loss_weight[nobody].any()
            and not b.tokens[nobody].any()
            and not b.positions[nobody].any()
        )
        for i, ids in enumerate(b.example_ids):
            assert set(b.segment_ids[i]) - {0} == {j + 1 for j, e in enumerate(ids) if e >= 0}
            for j, e in enumerate(ids):
                assert b.segment["mark"][i, j] == (10 * e if e >= 0 else 0)
                if e < 0:
                    continue
                mine = b.segment_ids[i] == j + 1
                assert np.ptp(np.flatnonzero(mine)) == lengths[e] - 1
                np.testing.assert_array_equal(b.tokens[i, mine], 1000 * e + np.arange(lengths[e]))
                np.testing.assert_array_equal(b.targets[i, mine], b.tokens[i, mine] + 1)
                np.testing.assert_array_equal(b.loss_weight[i, mine], 1.0 + e)
                np.testing.assert_array_equal(b.positions[i, mine], np.arange(lengths[e]))
                seen.append(int(e))
    assert sorted(seen) == list(range(len(lengths)))
    facts = packing_facts(plan)
    assert (
        facts["real"] == sum(lengths) and facts["real"] + facts["padded"] == plan.rows * row_length
    )
    if packs:  # best fit decreasing never needs more than 11/9 of the fewest rows and one
        assert (
            plan.rows
            <= 11
            / 9
            * max(-(-sum(lengths) // row_length), sum(n > row_length / 2 for n in lengths))
            + 4
        )


@pytest.mark.parametrize("lengths", [[3, 65], [0, 5]])
def test_a_text_that_does_not_fit_is_never_cut_here(lengths):  # guards B6
    with pytest.raises(ValueError, match="rows of 64"):
        packing.plan(np.array(lengths), 64, seed=0)


def test_order_of_the_data():  # guards F8, B8, B14
    """The plan does not depend on the data seed; batch k is a function of (plan, seed, k) alone;
    seeds and epochs differ.
    """
    lengths = np.random.default_rng(0).integers(1, 40, 100)
    split = split_of(lengths, 64)
    plan = packing.plan(lengths, 64, seed=0)
    runs = [Batches(split, plan, 4, seed) for seed in (0, 1, 2)]
    assert {len(b) for b in runs} == {len(runs[0])} and len(runs[0]) == -(-plan.rows // 4)
    steps = range(2 * len(runs[0]))
    orders = [[tuple(b.rows_of(k)) for k in steps] for b in runs]
    epoch = len(runs[0])
    for order in orders:
        for half in (order[:epoch], order[epoch:]):
            assert sorted(r for rows in half for r in rows if r >= 0) == list(range(plan.rows))
        assert order[:epoch] != order[epoch:]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    fresh = Batches(split, packing.plan(lengths, 64, seed=0), 4, 1)
    for k in reversed(steps):  # in any order, by any object
        assert_same(fresh[k], runs[1][k])
    assert (packing.plan(lengths, 64, seed=1).members != plan.members).any()
    longest_first = [
        max(lengths[plan.row(r)]) for rows in orders[0][:epoch] for r in rows if r >= 0
    ]
    assert longest_first != sorted(longest_first, reverse=True)


def test_targets_by_hand():  # guards B4, C1, C15
    """Two chats and a text in rows: what is trained, spelled out; nothing at any border."""
    chat = lambda q, a, w=1.0: Chat((Message("user", q), Message("assistant", a, w)))
    b = bench(
        "chat",
        records=([chat("hi", "yo"), chat("q", "", 0.5)], ["a:1", "a:2"]),
        train={"batch_size": 1},
    )
    pad, bos, end, system, user, bot, tool = range(256, 263)
    texts = {
        0: (
            [user, 104, 105, end, bot, 121, 111],
            [104, 105, end, bot, 121, 111, end],
            [0, 0, 0, 0, 1, 1, 1],
        )
    }
    texts[1] = ([user, 113, end, bot], [113, end, bot, end], [0, 0, 0, 0.5])
    batch = b.batches[0]
    for name, k in (("tokens", 0), ("targets", 1), ("loss_weight", 2)):
        for e, found in by_example(batch, getattr(batch, name)).items():
            np.testing.assert_array_equal(found, texts[e][k], err_msg=name)
    assert (
        b.batches.plan.rows == 1
        and np.count_nonzero(batch.loss_weight) == 4 == b.batches.split.ledger["tokens"]["trained"]
    )

    b = bench("lm", records=([Text("ab"), Text("c")], ["a:1", "a:2"]), train={"batch_size": 1})
    batch = b.batches[0]
    assert {e: x.tolist() for e, x in by_example(batch, batch.tokens).items()} == {
        0: [bos, 97, 98],
        1: [bos, 99],
    }
    assert {e: x.tolist() for e, x in by_example(batch, batch.targets).items()} == {
        0: [97, 98, end],
        1: [99, end],
    }
    assert np.count_nonzero(batch.loss_weight) == 5 == b.batches.split.ledger["tokens"]["trained"]
    # guards C3 C6: a continuation is asked for as its text was trained, and ends as it does
    assert b.parts.task.prompt(Text("ab"), "a:1") == [bos, 97, 98] and b.parts.task.stop_ids == [
        end
    ]
    assert pad not in batch.targets and system not in batch.targets and tool not in batch.targets


@pytest.mark.parametrize("task", ["chat", "lm"])
def test_trained_labels_are_those_of_the_rows(task):  # guards B4, B6
    """Packed or not, an epoch trains as many labels as the ledger says, with the same sum of
    weights.
    """
    counts = []
    for packs in (True, False):
        b = bench(task, data={"packing": packs}, train={"batch_size": 4})
        weights = [b.batches[k].loss_weight for k in range(len(b.batches))]
        counts.append((sum(map(np.count_nonzero, weights)), sum(float(w.sum()) for w in weights)))
    assert counts[0] == counts[1] and counts[0][0] == b.batches.split.ledger["tokens"]["trained"]
