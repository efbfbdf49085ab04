"""ROUGE against the library rouge-score, and by hand."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.metrics import rouge, text_overlap
from jaxsft.metrics.base import measure
from tests.metrics.answered import answered, odd, pairs, score
from tests.metrics.properties import check

METRICS = rouge.METRICS
THEIRS = dict(zip(rouge.SCORES, ("rouge1", "rouge2", "rougeL", "rougeLsum"), strict=True))


class Cut:
    """A tokenizer of sacrebleu, as rouge-score takes one."""

    def __init__(self, name):
        self.cut = text_overlap.tokenizer(name)

    def tokenize(self, text):
        return self.cut(text.lower()).split()


def expected(answers, references, tokenizer=None, stems=False):
    """The means of rouge-score over rows, in percent, by its names."""
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    oracle = scorer.RougeScorer(list(THEIRS.values()), use_stemmer=stems, tokenizer=tokenizer)
    rows = [oracle.score_multi(r, a) for a, r in zip(answers, references, strict=True)]
    return {n: 100 * sum(row[n].fmeasure for row in rows) / len(rows) for n in THEIRS.values()}


@pytest.mark.parametrize("tokens", ["13a", "zh", "char", "none"])
@settings(max_examples=60, deadline=None)
@given(rows=pairs())
def test_any_texts_have_the_scores_of_rouge_score(tokens, rows):
    """With the tokens of sacrebleu, Chinese among them."""
    pytest.importorskip("sacrebleu")
    answers, references = zip(*rows, strict=True)
    theirs = expected(answers, references, Cut(tokens))
    for name, metric in METRICS.items():
        if name in THEIRS:
            got = score(metric, answers, references, tokens)
            assert got == pytest.approx(theirs[THEIRS[name]], abs=1e-9), name


@settings(max_examples=60, deadline=None)
@given(rows=pairs())
def test_its_own_tokens_give_its_own_numbers(rows):
    answers, references = zip(*rows, strict=True)
    ours = measure(METRICS["rouge_score"], answered(answers, references))
    assert ours == pytest.approx(expected(answers, references), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows=pairs())
def test_stems_give_the_numbers_of_stems(rows):
    answers, references = zip(*rows, strict=True)
    pytest.importorskip("rouge_score")
    metric = METRICS["rouge_score_stemmed"]
    ours = measure(metric, answered(answers, references))
    theirs = expected(answers, references, stems=True)
    assert ours == pytest.approx({f"{n}_stemmed": x for n, x in theirs.items()}, abs=1e-9)
    same = measure(metric, answered(["running cats"], [["run cat"]]))
    assert same["rouge1_stemmed"] == 100


sentences = st.lists(st.text("abcd ", max_size=14), max_size=5).map("\n".join)


@settings(max_examples=200, deadline=None)
@given(sentences, sentences)
def test_a_summary_of_several_lines(answer, reference):
    ours = measure(METRICS["rouge_score"], answered([answer], [[reference]]))
    assert ours == pytest.approx(expected([answer], [[reference]]), abs=1e-9)


@settings(max_examples=200)
@given(st.text("abc", max_size=90), st.text("abc", max_size=90))
def test_the_longest_common_subsequence(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    assert rouge.longest_common(a, b) == row[-1]


def test_by_hand():
    pytest.importorskip("sacrebleu")
    # a c d of a b c d, and 3 tokens against 4: 2 x 3 / 7; the other has nothing in common
    rouge_l = METRICS["rouge_l"]
    found = score(rouge_l, ["a c d", "x"], [["a b c d", "q"], ["y"]], "none")
    assert found == pytest.approx(100 * (6 / 7) / 2)
    assert score(rouge_l, ["A C D"], [["a b c d"]], "none") == pytest.approx(600 / 7)
    assert score(rouge_l, [""], [["a"]], "none") == 0
    # of a c d the pair c d is right: 2 x 1 / (2 + 3)
    assert score(METRICS["rouge_2"], ["a c d"], [["a b c d"]]) == pytest.approx(40)


def test_chinese_has_tokens():
    pytest.importorskip("sacrebleu")
    answers, references = ["我喜欢猫"], [["我喜欢狗"]]
    assert score(METRICS["rouge_1"], answers, references, "zh") == 75
    assert score(METRICS["rouge_score"], answers, references, "zh") == 0  # it knows no such token
    assert METRICS["rouge_1"].signature(answered(answers, references, "zh")) == (
        "case:lc|tok:zh|stem:no|refs:best"
    )


@pytest.mark.parametrize("name", METRICS)
def test_weights_and_compiled_programs(name):
    pytest.importorskip("sacrebleu")
    if name == "rouge_score_stemmed":
        pytest.importorskip("rouge_score")
    check(METRICS[name], dataclasses.replace(odd(), tokenizer="zh"))
