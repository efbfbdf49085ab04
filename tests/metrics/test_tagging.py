"""Scores of words and chunks against seqeval and scikit-learn."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import schemes
from jaxsft.metrics import tagging as scoring

theirs = pytest.importorskip("seqeval.metrics.v1").precision_recall_fscore_support
their = pytest.importorskip("seqeval.scheme")

THEIRS = {"iob2": their.IOB2, "iob1": their.IOB1, "iobes": their.IOBES, "bilou": their.BILOU}
VOCABULARY = {
    name: [
        "O",
        *(
            f"{p}-{t}"
            for p in sorted(schemes.SCHEMES[name].prefixes - {"O"})
            for t in ("A", "B", "C")
        ),
    ]
    for name in THEIRS
}


def drawn(name):
    tag = st.sampled_from(VOCABULARY[name])
    pair = st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.lists(tag, min_size=n, max_size=n), st.lists(tag, min_size=n, max_size=n)
        )
    )
    return st.lists(pair, min_size=1, max_size=6)


@pytest.mark.parametrize("name", THEIRS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_chunks_count_as_in_the_strict_mode_of_seqeval(name, data):
    """Of any tags, valid or not: micro, macro and weighted precision, recall and F1, and every type
    by itself.
    """
    gold, predicted = zip(*data.draw(drawn(name)), strict=True)
    counts = scoring.of_chunks(gold, predicted, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of 0/0
        scores = lambda average: theirs(
            list(gold), list(predicted), average=average, scheme=THEIRS[name], zero_division=0
        )
        p, r, f, n = scores(None)
        averaged = {a: scores(a) for a in scoring.AVERAGES}
    lines = sorted(counts.table("chunks")[1])
    assert [line[1] for line in lines] == n.tolist()
    np.testing.assert_allclose(
        np.reshape([line[3:] for line in lines], (-1, 3)), np.stack([p, r, f]).T.reshape(-1, 3)
    )
    if lines:
        ours = counts.scores()
        for average, values in averaged.items():
            np.testing.assert_allclose(
                [ours[f"{m}_{average}"] for m in ("precision", "recall", "f1")],
                values[:3],
                err_msg=average,
            )


@settings(max_examples=200)
@given(st.sampled_from(sorted(schemes.SCHEMES)), st.data())
def test_strict_chunks_of_valid_tags_are_their_chunks(name, data):
    prefixes = sorted(schemes.SCHEMES[name].prefixes)
    tags = data.draw(
        st.lists(
            st.sampled_from(
                [t for p in prefixes for t in (["O"] if p == "O" else [f"{p}-A", f"{p}-B"])]
            ),
            max_size=7,
        )
    )
    edges = [None, *tags, None]
    valid = all(schemes.allowed(a, b, name) for a, b in itertools.pairwise(edges)) or not tags
    assert valid == (not schemes.problems(tags, name))
    if valid:
        assert schemes.strict(tags, name) == schemes.spans(tags, name)


def test_a_text_of_which_nothing_was_predicted_counts():  # guards D6
    gold, predicted = [["B-A", "O"], ["B-A", "I-A"]], [["B-A", "O"], None]
    assert scoring.of_chunks(gold, predicted, "iob2").scores()["recall_micro"] == 0.5
    assert scoring.accuracy(gold, predicted) == 0.5
    assert scoring.accuracy(gold, predicted, [[True, False], [False, False]]) == 1.0
    assert np.isnan(scoring.accuracy(gold, predicted, [[False] * 2] * 2))


def test_words_by_class():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    gold, predicted = (
        [["NVAX"[i] for i in rng.integers(0, 3 + k, 7)] for _ in range(9)] for k in (0, 1)
    )
    ours = scoring.of_classes(gold, predicted).scores()
    flat = [list(itertools.chain.from_iterable(x)) for x in (gold, predicted)]
    for average in scoring.AVERAGES:
        expected = sklearn.precision_recall_fscore_support(*flat, average=average, zero_division=0)[
            :3
        ]
        np.testing.assert_allclose(
            [ours[f"{m}_{average}"] for m in ("precision", "recall", "f1")], expected
        )
