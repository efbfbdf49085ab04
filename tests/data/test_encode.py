"""What becomes of rows and tokens: shifting, truncation, dropping, and the ledger that adds up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import encode, encoded_split, encoded_texts, flat_examples, long_texts
from jaxsft.data.encode import Encoded
from jaxsft.data.ledger import Ledger
from jaxsft.data.tokenizers.special_tokens import Wrapped
from jaxsft.errors import DataError

TOO_LONG = ("error", "drop", "truncate_left", "truncate_right")

STOP = 9


def row(*pairs, chunk=False, stop=True):
    """(id, weight) ..."""
    ids, weights = zip(*pairs, strict=True)
    return Encoded(
        np.array(ids, np.int32),
        np.array(weights, np.float32),
        chunk=chunk,
        stop_ids=(STOP,) if stop else (),
    )


def turn(prompt, answer):
    """A prompt of 1s, an answer of 2s and the stop token."""
    return row(*[(1, 0)] * prompt, *[(2, 1)] * answer, (STOP, 1))


def build(encoded, limit=8, too_long="error", require_stop=True, max_dropped=1.0):
    where = [f"rows.jsonl:{i + 1}" for i in range(len(encoded))]
    limits = long_texts.Limits(limit, too_long, require_stop)
    return encode.build(encoded, where, limits, max_dropped=max_dropped, split="train")


def test_shift_by_hand():  # guards C15
    e = row((10, 0), (11, 0), (12, 0.5), (STOP, 2))
    (found,), ledger, dropped = build([e])
    assert (found.row, found.part) == (0, 0) and not dropped
    np.testing.assert_array_equal(found.tokens, [10, 11, 12])
    np.testing.assert_array_equal(found.targets, [11, 12, STOP])
    np.testing.assert_array_equal(found.loss_weight, [0, 0.5, 2])
    assert ledger.as_dict()["tokens"] == {
        "read": 4,
        "kept": 4,
        "dropped": {},
        "trained": 2,
        "masked": 2,
    }


@pytest.mark.parametrize("too_long", TOO_LONG)
@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_limit_to_the_token(too_long, excess):  # guards D2, D4, D13
    """A row of as many positions as fit is untouched under every policy; one more is what the
    policy says.
    """
    e = turn(prompt=4, answer=4 + excess)  # 9 + excess ids, 8 + excess positions
    if excess == 1 and too_long == "error":
        with pytest.raises(
            DataError,
            match=r"rows\.jsonl:2: 9 tokens, but a row holds 8 \(1 of 2 rows of train are longer\)",
        ):
            build([turn(1, 1), e], too_long=too_long)
        return
    examples, ledger, dropped = build([turn(1, 1), e], too_long=too_long)
    if excess < 1:
        assert len(examples) == 2 and not dropped and ledger.truncated_rows == 0
        np.testing.assert_array_equal(examples[1].tokens, e.ids[:-1])
    elif too_long == "drop":
        assert (
            dropped == {1: "too_long"}
            and ledger.tokens_dropped == {"too_long": 10}
            and len(examples) == 1
        )
    elif too_long == "truncate_left":
        np.testing.assert_array_equal(examples[1].tokens, e.ids[1:-1])
        np.testing.assert_array_equal(examples[1].targets, e.ids[2:])
        assert (
            examples[1].targets[-1] == STOP
            and ledger.tokens_dropped == {"truncated": 1}
            and ledger.truncated_rows == 1
        )
    else:  # the stop token is what was cut
        assert dropped == {1: "stop_token_truncated"} and ledger.tokens_dropped == {
            "stop_token_truncated": 10
        }


def test_a_row_without_its_stop_token_is_kept_only_on_request():  # guards C1, D8
    long = turn(2, 9)
    examples, ledger, _ = build([long], too_long="truncate_right", require_stop=False)
    np.testing.assert_array_equal(examples[0].targets, [1, *[2] * 7])
    assert (ledger.trained, ledger.tokens_dropped["truncated"]) == (7, 3)
    with pytest.raises(
        DataError,
        match=r"rows\.jsonl:1: 1 of 1 rows of train would be dropped \(stop_token_truncated: 1",
    ):
        build([long], too_long="truncate_right")


def test_an_earlier_turn_that_ends_with_stop_survives():  # guards D8
    """The cut falls into the next question: what is trained is whole."""
    two = row((1, 0), (2, 1), (STOP, 1), *[(1, 0)] * 8, (2, 1), (STOP, 1))
    examples, ledger, dropped = build([two], too_long="truncate_right")
    assert not dropped and ledger.trained == 2 and len(examples[0].tokens) == 8


def test_rows_with_nothing_to_train_are_dropped_and_counted():  # guards D1, D5, A7
    """Nothing weighted; all of it cut off; only the first token weighted, which is no target;
    empty.
    """
    rows = [turn(1, 1), row((1, 0), (1, 0)), turn(12, 1), row((2, 1), (1, 0)), "empty"]
    examples, ledger, dropped = build(rows, too_long="truncate_right")
    assert dropped == {
        1: "no_trained_token",
        2: "no_trained_token",
        3: "no_trained_token",
        4: "empty",
    } and [e.row for e in examples] == [0]
    facts = ledger.as_dict()
    assert facts["rows"] == {
        "read": 5,
        "kept": 1,
        "dropped": {"no_trained_token": 3, "empty": 1},
        "truncated": 0,
    }
    assert facts["tokens"] == {
        "read": 21,
        "kept": 3,
        "dropped": {"no_trained_token": 18},
        "trained": 2,
        "masked": 1,
    }


def test_too_many_dropped_rows_are_an_error_that_names_the_first():  # guards D1, D9
    rows = [turn(1, 1)] * 7 + ["empty"] * 2 + [turn(9, 9)]
    assert len(build(rows, too_long="drop", max_dropped=0.3)[2]) == 3
    with pytest.raises(DataError) as error:
        build(rows, too_long="drop", max_dropped=0.29)
    assert str(error.value).startswith(
        "rows.jsonl:8: 3 of 10 rows of train would be dropped (empty: 2, too_long: 1; this is the"
        " first, empty)"
    )
    with pytest.raises(DataError, match=r"^rows\.jsonl:1: 2 of 2 rows"):
        build(["empty", "empty"], max_dropped=1.0)


def test_a_text_is_cut_into_chunks_that_lose_nothing():  # guards B6, D3
    ids = np.arange(20, dtype=np.int32)
    e = Encoded(ids, np.r_[0, np.ones(19)].astype(np.float32), chunk=True)
    examples, ledger, _ = build([e], limit=8)
    assert [(x.row, x.part, len(x.tokens)) for x in examples] == [(0, 0, 8), (0, 1, 8), (0, 2, 3)]
    np.testing.assert_array_equal(np.concatenate([x.tokens for x in examples]), ids[:-1])
    np.testing.assert_array_equal(np.concatenate([x.targets for x in examples]), ids[1:])
    assert (ledger.trained, ledger.masked, ledger.tokens_read) == (19, 1, 20)


def test_texts_without_targets():  # guards D4
    """Classification: as many ids as positions, all of them masked."""
    rows = [Encoded(np.arange(n, dtype=np.int32), segment={"label": n}) for n in (8, 9)]
    examples, ledger, _ = build(rows, too_long="truncate_right")
    assert [len(x.tokens) for x in examples] == [8, 8] and examples[0].targets is None
    assert ledger.as_dict()["tokens"] == {
        "read": 17,
        "kept": 16,
        "dropped": {"truncated": 1},
        "trained": 0,
        "masked": 16,
    }
    flat = flat_examples.flat(examples)
    assert (
        "targets" not in flat
        and flat["segment.label"].tolist() == [8, 9]
        and flat["offsets"].tolist() == [0, 8, 16]
    )


rows = st.builds(
    lambda pairs, chunk, stop: row(*pairs, *([(STOP, 1.0)] if stop else []), chunk=chunk),
    st.lists(
        st.tuples(st.integers(1, 8), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=20
    ),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(rows | st.just("empty"), min_size=1, max_size=12),
    st.integers(1, 12),
    st.sampled_from(TOO_LONG),
    st.booleans(),
)
def test_the_ledger_adds_up(encoded, limit, too_long, require_stop):  # guards B6, D1, D4, C1
    """Whatever comes in: rows and tokens read are kept or dropped, and what is kept is what the
    examples train.
    """
    try:
        examples, ledger, dropped = build(encoded, limit, too_long, require_stop)
    except DataError:
        return
    facts = ledger.as_dict()
    assert facts["rows"]["read"] == len(encoded) and facts["rows"]["kept"] == len(
        {e.row for e in examples}
    ) == len(encoded) - len(dropped)
    assert facts["tokens"]["read"] == sum(len(e.ids) for e in encoded if not isinstance(e, str))
    assert facts["tokens"]["trained"] == sum(np.count_nonzero(e.loss_weight) for e in examples)
    # the last target of a row is no input
    assert facts["tokens"]["kept"] == sum(len(e.tokens) for e in examples) + facts["rows"]["kept"]
    assert set(dropped.values()) <= {
        "empty",
        "too_long",
        "no_trained_token",
        "stop_token_truncated",
    }
    for e in examples:
        source = encoded[e.row]
        assert 0 < len(e.tokens) == len(e.targets) == len(e.loss_weight) <= limit
        assert source.chunk or np.count_nonzero(e.loss_weight)
        np.testing.assert_array_equal(e.tokens[1:], e.targets[:-1])
        cut = source.positions > limit and not source.chunk
        if cut and require_stop:
            assert e.targets[np.flatnonzero(e.loss_weight)[-1]] == STOP


def test_a_ledger_that_does_not_add_up_stops_the_run():
    ledger = Ledger()
    ledger.keep(5, 2)
    ledger.rows_read += 1
    with pytest.raises(AssertionError):
        ledger.as_dict()


@pytest.mark.parametrize(
    ("policy", "tokens", "types"),
    [
        ("truncate_right", [1, 5, 6, 2, 2], [0, 0, 0, 0, 1]),
        ("truncate_left", [1, 2, 8, 9, 2], [0, 0, 1, 1, 1]),
    ],
)
def test_special_tokens_stay_where_a_framed_text_is_cut(policy, tokens, types):
    text = Wrapped([1, 5, 6, 2, 8, 9, 2], [0, 0, 0, 0, 1, 1, 1], 1, 1)
    (found,), ledger, _ = build(
        [encoded_texts.framed(text, {"label": 0})], limit=5, too_long=policy
    )
    assert (
        found.tokens.tolist() == tokens
        and found.types.tolist() == types
        and ledger.truncated_rows == 1
    )
    with pytest.raises(
        DataError, match=r"^rows\.jsonl:1: 7 tokens, of which a row of 2 would hold no text"
    ):
        build([encoded_texts.framed(text, {"label": 0})], limit=2, too_long="truncate_right")
    plain = encoded_texts.framed(Wrapped([1, 5, 2], [0, 0, 0], 1, 1), {"label": 1})
    both, _, _ = build([plain, encoded_texts.framed(text, {"label": 0})])
    assert flat_examples.flat(both)["types"].tolist() == [
        0,
        0,
        0,
        *text.types,
    ] and "types" not in flat_examples.flat(both[:1])


@pytest.mark.parametrize("too_long", TOO_LONG)
@pytest.mark.parametrize("sizes", [(3, 2), (3, 20), (20, 3), (20, 20)])
def test_a_record_of_several_texts(too_long, sizes):
    """Each text is an example of its row, and rows and tokens add up whatever becomes of them."""
    texts = [turn(prompt=1, answer=size) for size in sizes]
    whole, long = texts[0]._replace(more=(texts[1],)), [size for size in sizes if size > 7]
    assert long_texts.longest([whole]) == max(one.positions for one in texts)
    if too_long == "error" and long:
        with pytest.raises(
            DataError,
            match=(
                r"rows\.jsonl:2: 21 tokens, but a row holds 8 \(1 of 2 rows of train are longer\)"
            ),
        ):
            build([turn(1, 1), whole], too_long=too_long)
        return
    examples, ledger, dropped = build([turn(1, 1), whole], too_long=too_long)
    rows, tokens = ledger.as_dict()["rows"], ledger.as_dict()["tokens"]
    assert (
        tokens["read"]
        == 3 + sum(len(one.ids) for one in texts)
        == tokens["trained"] + tokens["masked"] + sum(tokens["dropped"].values())
    )
    assert rows["read"] == 2 and tokens["trained"] == sum(
        np.count_nonzero(one.loss_weight) for one in examples
    )
    of_row = [(one.part, len(one.tokens)) for one in examples if one.row == 1]
    if too_long == "drop" and long:
        assert of_row == [] and dropped == {1: "too_long"} and "several_texts" not in rows
    elif too_long == "truncate_right" and long:  # a text without its stop token is of no use
        short = [size + 1 for size in sizes if size <= 7]
        assert (
            of_row == list(enumerate(short))
            and ("stop_token_truncated" in tokens["dropped"])
            and (1 in dropped) == (not short)
        )
    else:
        assert (
            of_row == [(part, min(size + 1, 8)) for part, size in enumerate(sizes)]
            and rows["several_texts"] == 1
        )


def test_the_weight_of_a_row_is_that_of_all_its_texts():
    whole = encoded_split.weighted(turn(1, 1)._replace(more=(turn(1, 2),)), 0.5)
    assert [one.weights.max() for one in whole.texts] == [0.5, 0.5]
