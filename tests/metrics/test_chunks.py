"""Scores of chunks against seqeval, in both readings."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import schemes
from jaxsft.metrics import chunks
from jaxsft.metrics.base import measure
from jaxsft.metrics.classification import AVERAGES
from tests.metrics.properties import check
from tests.metrics.tagged import VOCABULARY, drawn, tagged

SCORES = ("precision", "recall", "f1")
STRICT, LENIENT = chunks.METRICS["chunk_scores"], chunks.METRICS["conlleval_scores"]


def table(metric, outputs):
    """The lines of the table of types that occur: support, number of predictions, scores."""
    state = metric.reduce(metric.observe(outputs), np.ones(len(outputs)))
    found = np.stack(list(metric.each(state).values()), -1)
    return found[(found[:, :2] > 0).any(-1)]


def check_with_seqeval(metric, outputs, prefix, scores):
    p, r, f, n = scores(None)
    lines = table(metric, outputs)
    assert lines[:, 0].tolist() == list(n)
    np.testing.assert_allclose(lines[:, 2:], np.stack([p, r, f]).T.reshape(-1, 3))
    if len(lines):
        ours = measure(metric, outputs)
        for average in AVERAGES:
            np.testing.assert_allclose(
                [ours[f"{prefix}{m}_{average}"] for m in SCORES],
                scores(average)[:3],
                err_msg=average,
            )


@pytest.mark.parametrize("name", ["iob2", "iob1", "iobes", "bilou"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_strict_chunks_count_as_in_the_strict_mode_of_seqeval(name, data):
    """Of any tags, valid or not: micro, macro and weighted precision, recall and F1, and every type
    by itself.
    """
    v1 = pytest.importorskip("seqeval.metrics.v1")
    scheme = getattr(pytest.importorskip("seqeval.scheme"), name.upper())
    gold, predicted = zip(*data.draw(drawn(name)), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of 0/0
        scores = lambda average: v1.precision_recall_fscore_support(
            list(gold), list(predicted), average=average, scheme=scheme, zero_division=0
        )
        check_with_seqeval(STRICT, tagged(gold, predicted, name), "", scores)


@pytest.mark.parametrize("name", ["iob2", "iob1", "iobes"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_lenient_chunks_count_as_in_the_default_mode_of_seqeval(name, data):
    """seqeval does not know the L and U of bilou there."""
    theirs = pytest.importorskip("seqeval.metrics.sequence_labeling")
    gold, predicted = zip(*data.draw(drawn(name)), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of 0/0
        scores = lambda average: theirs.precision_recall_fscore_support(
            list(gold), list(predicted), average=average, zero_division=0
        )
        check_with_seqeval(LENIENT, tagged(gold, predicted, name), "conlleval_", scores)


@pytest.mark.parametrize("name", schemes.SCHEMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_both_readings_are_those_of_the_schemes(name, data):
    gold, predicted = zip(*data.draw(drawn(name)), strict=True)
    outputs = tagged(gold, predicted, name)
    row, tag = outputs["word.row"], outputs["word.tag"]
    names = chunks.types(outputs.labels)
    first = np.searchsorted(row, row)
    readings = (
        (chunks.strict(tag, row, outputs.labels, name), lambda g: schemes.strict(g, name)),
        (chunks.lenient(tag, row, outputs.labels), lambda g: schemes.spans(g, name, repair=True)),
    )
    for found, read in readings:
        expected = [(i, *span) for i, g in enumerate(gold) for span in read(g)]
        got = [
            (int(row[s]), int(s - first[s]), int(e - first[s]), names[t])
            for s, e, t in zip(*found, strict=True)
        ]
        assert got == expected


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


def test_tags_that_no_scheme_allows_are_right_in_the_lenient_reading_alone():
    outputs = tagged([["O", "I-A", "I-A"]], [["O", "I-A", "I-A"]], "iob2")
    assert measure(LENIENT, outputs)["conlleval_f1_micro"] == 1.0
    assert measure(STRICT, outputs)["f1_micro"] == 0.0


def test_a_text_of_which_nothing_was_predicted_counts():  # guards D6
    outputs = tagged([["B-A", "O"], ["B-A", "I-A"]], [["B-A", "O"], None], "iob2")
    assert measure(STRICT, outputs)["recall_micro"] == 0.5
    assert measure(LENIENT, outputs)["conlleval_recall_micro"] == 0.5


@pytest.mark.parametrize("metric", chunks.METRICS)
def test_weights_and_compiled_programs(metric):
    rng = np.random.default_rng(0)
    draw = lambda: [list(rng.choice(VOCABULARY["iobes"], 9)) for _ in range(7)]
    check(chunks.METRICS[metric], tagged(draw(), draw(), "iobes"))
