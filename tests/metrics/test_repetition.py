"""Variety of generated texts, against definitions written down plainly."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.metrics import repetition
from jaxsft.metrics.base import measure
from tests.metrics.answered import answered, odd, texts
from tests.metrics.properties import check

DISTINCT, REPEATED = repetition.METRICS["distinct"], repetition.METRICS["repetition"]


def plain(answers):
    """The numbers from lists of all n-grams."""
    grams = lambda text, n: [
        tuple(text.split()[i : i + n]) for i in range(len(text.split()) - n + 1)
    ]
    out = {}
    for n in (1, 2, 3):
        every = [gram for text in answers for gram in grams(text, n)]
        out[f"distinct_{n}"] = len(set(every)) / len(every) if every else np.nan
    shares = [1 - len(set(g)) / len(g) for text in answers if (g := grams(text, 4))]
    return out | {"repetition_4": np.mean(shares) if shares else np.nan}


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, min_size=1, max_size=6))
def test_any_texts_count_as_defined(answers):
    outputs = answered(answers, [[""]] * len(answers), "none")
    ours = measure(DISTINCT, outputs) | measure(REPEATED, outputs)
    assert ours == pytest.approx(plain(answers), nan_ok=True)


def test_by_hand():
    outputs = answered(["a b a b a b", "a b c", ""], [[""]] * 3, "none")
    # a b c of 9 tokens; ab ba bc of 7 pairs; aba bab abc of 5
    assert measure(DISTINCT, outputs) == {
        "distinct_1": 3 / 9,
        "distinct_2": 3 / 7,
        "distinct_3": 3 / 5,
    }
    assert measure(REPEATED, outputs) == {"repetition_4": pytest.approx(1 / 3)}  # abab baba abab


def test_an_ngram_is_there_however_much_its_rows_weigh():
    outputs = answered(["a b", "a c"], [[""]] * 2, "none")
    weigh = lambda *w: DISTINCT.value(DISTINCT.reduce(DISTINCT.observe(outputs), np.array(w)))
    assert weigh(1.0, 1.0)["distinct_1"] == 3 / 4
    assert weigh(0.0, 1.0)["distinct_1"] == 1
    assert weigh(3.0, 0.0)["distinct_1"] == 2 / 6  # the row stands there three times
    assert np.isnan(weigh(0.0, 0.0)["distinct_1"])


def test_chinese_has_tokens():
    pytest.importorskip("sacrebleu")
    outputs = answered(["我我我我我我"], [[""]], "zh")
    assert measure(DISTINCT, outputs)["distinct_1"] == 1 / 6
    assert measure(REPEATED, outputs)["repetition_4"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [DISTINCT, REPEATED])
def test_weights_and_compiled_programs(metric):
    check(metric, dataclasses.replace(odd(), tokenizer="none"))
    check(metric, answered(["", "a"], [[""]] * 2, "none"))  # without any longer n-gram
