"""What counts as the same answer, and the F1 of shared words, against the definitions of SQuAD."""

import collections
import dataclasses
import re
import string

import pytest
from hypothesis import given, settings

from jaxsft.metrics import answers
from jaxsft.metrics.base import measure
from tests.metrics.answered import answered, odd, pairs, score
from tests.metrics.properties import check

METRICS = answers.METRICS


def normalize_answer(s):
    """As the evaluation script of SQuAD 1.1 does it: lower, punctuation, articles, white space."""
    s = "".join(c for c in s.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())


def squad_f1(prediction, truth):
    a, b = normalize_answer(prediction).split(), normalize_answer(truth).split()
    same = sum((collections.Counter(a) & collections.Counter(b)).values())
    if not a or not b:
        return float(a == b)
    if not same:
        return 0.0
    precision, recall = same / len(a), same / len(b)
    return 2 * precision * recall / (precision + recall)


@settings(max_examples=100, deadline=None)
@given(rows=pairs())
def test_any_texts_have_the_scores_of_squad(rows):
    ours = measure(METRICS["answer_matches"], answered(*zip(*rows, strict=True)))
    expected = [normalize_answer(a) in map(normalize_answer, r) for a, r in rows]
    assert ours["exact_match_squad"] == pytest.approx(sum(expected) / len(rows))
    f1 = [max(squad_f1(a, text) for text in r) for a, r in rows]
    assert score(METRICS["answer_f1"], *zip(*rows, strict=True)) == pytest.approx(
        sum(f1) / len(rows), abs=1e-12
    )


@pytest.mark.parametrize(
    "answer, reference, same",
    [
        ("The  cat.", "cat", {"squad"}),
        ("a  b\n", "a b", {"squad", "squeezed", "caseless", "unpunctuated"}),
        ("STRASSE", "straße", {"caseless"}),
        ("Berlin!", "Berlin", {"squad", "unpunctuated"}),
        ("北京。", "北京", {"unpunctuated"}),  # the script of SQuAD knows ASCII alone
        ("", "x", set()),
        ("", "", {"squad", "squeezed", "caseless", "unpunctuated"}),
    ],
)
def test_what_counts_as_the_same(answer, reference, same):
    found = measure(METRICS["answer_matches"], answered([answer], [["other", reference]]))
    assert {name.removeprefix("exact_match_") for name, share in found.items() if share} == same


def test_chinese_words_are_characters():
    pytest.importorskip("sacrebleu")
    f1 = lambda tokens: score(METRICS["answer_f1"], ["我喜欢猫"], [["我喜欢狗"]], tokens)
    assert f1("zh") == 0.75 and f1("13a") == 0
    signature = lambda tokens: METRICS["answer_f1"].signature(answered([""], [[""]], tokens))
    assert (signature("zh"), signature("13a")) == ("norm:squad|tok:zh", "norm:squad|tok:none")


@pytest.mark.parametrize("name", METRICS)
def test_weights_and_compiled_programs(name):
    check(METRICS[name], dataclasses.replace(odd(), tokenizer="none"))
