"""Windows hold every unit, none is longer than allowed, and each unit is owned once, by the window
that shows most around it.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.encode import Encoded, build
from jaxsft.data.encoded_words import EncodedWords
from jaxsft.data.long_texts import Limits, cut
from jaxsft.data.windows import (
    cut_places,
    owners,
    sentence_windows,
    sentences,
    windows,
    word_windows,
)
from jaxsft.errors import ConfigError, DataError


def test_the_worked_example():
    assert windows(10, 4, 3) == [(0, 4), (3, 7), (6, 10)]
    assert windows(3, 4, 2) == windows(3, 3, 3) == [(0, 3)]
    assert windows(5, 4, 2) == [(0, 4), (1, 5)]  # the last one is full
    assert windows(0, 4, 2) == [(0, 0)]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_windows_leave_nothing_out(length, limit, stride):
    if stride > limit:
        with pytest.raises(ValueError, match=f"windows of {limit} every {stride}"):
            windows(length, limit, stride)
        return
    found = windows(length, limit, stride)
    assert set().union(*(range(a, b) for a, b in found)) == set(range(length))
    assert all(b - a == min(limit, length) for a, b in found) and found == sorted(set(found))
    assert [a for a, _ in found[:-1]] == [k * stride for k in range(len(found) - 1)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.integers(5, 20), st.data())
def test_words_are_never_cut(sizes, limit, data):
    stride = data.draw(st.integers(1, limit))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    found = word_windows(offsets, limit, stride)
    assert all(0 < offsets[b] - offsets[a] <= limit for a, b in found)
    assert (
        found[0][0] == 0
        and found[-1][1] == len(sizes)
        and all(x[0] < y[0] <= x[1] for x, y in itertools.pairwise(found))
    )
    owner = owners(found, len(sizes))
    room = lambda i, a, b: min(i - a if a else 99, b - 1 - i if b < len(sizes) else 99)
    for i, mine in enumerate(owner):
        a, b = found[mine]
        assert a <= i < b and room(i, a, b) == max(room(i, *w) for w in found if w[0] <= i < w[1])
    assert (np.diff(owner) >= 0).all()  # a window's words are one stretch


def test_a_word_longer_than_a_window():
    with pytest.raises(ValueError, match="a word of 7 pieces in a window of 6"):
        word_windows(np.array([0, 2, 9]), 6, 3)


def record(sizes, frame=(1, 1)):
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32) + frame[0]
    ids = np.arange(offsets[-1] + frame[1], dtype=np.int32) + 100
    tag = np.arange(len(sizes), dtype=np.int32)
    return Encoded(
        ids,
        special_tokens=frame,
        words=EncodedWords(offsets, {"tag": tag, "weight": np.full(len(sizes), 0.5, np.float32)}),
    )


def test_every_word_of_a_long_text_carries_its_loss_once():  # guards D6
    whole = record([1, 2, 1, 3, 1, 1, 2, 1, 1, 2])
    parts = cut(whole, 8, 3, "f:1")
    assert len(parts) > 2 and all(
        len(p.ids) <= 8 and p.ids[0] == 100 and p.ids[-1] == whole.ids[-1] for p in parts
    )
    weight, seen = np.zeros(10), []
    for p in parts:
        w = p.words
        np.add.at(weight, w.values["tag"], w.values["weight"])
        seen += w.values["tag"][slice(*w.owned_words)].tolist()
        assert (w.values["tag"] == np.arange(w.count) + w.first_word).all() and w.whole == 10
        # the ids of a word are those that it has in the whole
        for i, tag in enumerate(w.values["tag"]):
            a, b = whole.words.offsets[tag : tag + 2]
            assert (p.ids[w.offsets[i] : w.offsets[i + 1]] == whole.ids[a:b]).all()
    assert (weight == 0.5).all() and sorted(seen) == list(range(10)) == seen
    examples, ledger, dropped = build(
        [whole],
        ["f:1"],
        Limits(8, "window", require_stop=True, stride=3),
        max_dropped=0.0,
        split="train",
    )
    assert (
        len(examples) == len(parts)
        and [e.part for e in examples] == list(range(len(parts)))
        and not dropped
    )
    assert ledger.as_dict()["tokens"]["read"] == len(whole.ids) and ledger.rows_kept == 1


def test_the_weight_of_a_text_is_shared_by_its_windows():
    parts = cut(
        Encoded(
            np.arange(30, dtype=np.int32),
            segment={"label": 2, "weight": 1.0},
            special_tokens=(1, 2),
        ),
        10,
        None,
        "f:1",
    )
    assert [p.ids.tolist()[:2] for p in parts] == [
        [0, 1],
        [0, 4],
        [0, 7],
        [0, 10],
        [0, 13],
        [0, 16],
        [0, 19],
        [0, 21],
    ]
    assert all(p.ids.tolist()[-2:] == [28, 29] and p.segment["label"] == 2 for p in parts)
    assert sum(p.segment["weight"] for p in parts) == pytest.approx(1)


def test_what_leaves_no_room_is_an_error():
    with pytest.raises(
        DataError, match=r"f:1: a word has 7 tokens, but a window holds 6; raise data.max_length"
    ):
        cut(record([1, 7, 2]), 8, None, "f:1")
    with pytest.raises(ConfigError, match=r"data.stride=7: a window holds 6 tokens"):
        cut(record([1, 5, 2]), 8, 7, "f:1")


# --- whole texts
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "how, kept",
    [("truncate_right", "abcdef"), ("truncate_left", "opqrst"), ("head_tail", "abqrst")],
)
def test_what_is_cut_from_a_text_that_is_too_long(how, kept):
    """Of twenty letters in a frame six stay: the first, the last, or a quarter from the beginning
    (1.5, so two) and the rest from the end.
    """
    text = "abcdefghijklmnopqrst"
    keep = cut_places(22, [(1, 21)], 14, how)
    assert "".join(f"<{text}>"[i] for i in keep) == f"<{kept}>"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.data(),
    st.sampled_from(["truncate_left", "truncate_right", "head_tail"]),
)
def test_the_longer_text_of_a_pair_is_cut(a, b, data, how):  # guards D2, D8
    """One id at a time from the longer one, which is what counting them gives."""
    excess = data.draw(st.integers(1, a + b - 1))
    keep = cut_places(a + b + 3, [(1, 1 + a), (2 + a, 2 + a + b)], excess, how)
    # the frame
    assert len(keep) == a + b + 3 - excess and {0, 1 + a, 2 + a + b} <= set(keep.tolist())
    left = [
        int(((keep >= 1) & (keep < 1 + a)).sum()),
        int(((keep >= 2 + a) & (keep < 2 + a + b)).sum()),
    ]
    sizes = [a, b]
    for _ in range(excess):
        sizes[int(sizes[1] > sizes[0])] -= 1
    assert sorted(left) == sorted(sizes) and left[0] <= a and left[1] <= b


def test_sentences_begin_behind_stops():
    text = 'He said "no." Then left!  Dr. X came...\nNew 你好。再见” 3.5 ok'
    starts = [0, *sentences(text), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(starts)]
    assert "".join(parts) == text
    assert parts == [
        'He said "no." ',
        "Then left!  ",
        "Dr. ",
        "X came...\n",
        "New 你好。",
        "再见” 3.5 ok",
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=20), st.integers(5, 20))
def test_windows_of_sentences_hold_every_unit_once(lengths, limit):  # guards B6
    ends = np.cumsum(lengths).tolist()
    found = sentence_windows(ends[:-1], ends[-1], limit)
    assert (
        found[0][0] == 0
        and found[-1][1] == ends[-1]
        and all(a[1] == b[0] for a, b in itertools.pairwise(found))
    )
    assert all(0 < stop - start <= limit for start, stop in found)
    # it ends with a sentence, and the next one did not fit; or it is a piece of a long sentence
    for start, stop in found[:-1]:
        if stop in ends:
            assert ends[ends.index(stop) + 1] - start > limit
        else:
            assert stop - start == limit and not any(start < end <= stop for end in ends)
