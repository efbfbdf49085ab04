"""Scores of generated texts, against the published implementations and by hand."""

import dataclasses
import random

import pytest

from jaxsft.config import overrides
from jaxsft.errors import ConfigError
from jaxsft.metrics import text_overlap
from jaxsft.training import setup


def corpus(seed=0, rows=20):
    rng = random.Random(seed)
    words = [
        "the",
        "a",
        "cat",
        "sat",
        "on",
        "mat,",
        "dog.",
        "runs",
        "fast",
        "Schön",
        "übel",
        "23.5",
        "(red)",
    ]
    text = lambda: " ".join(rng.choice(words) for _ in range(rng.randint(1, 12)))
    references = [[text() for _ in range(rng.randint(1, 4))] for _ in range(rows)]
    return [
        " ".join(w for w in r[0].split() if rng.random() < 0.8) or "x" for r in references
    ], references


def test_by_hand():
    assert text_overlap.scores(
        ["exact_match"], [" yes\n", "no"], [["no", "yes"], ["yes"]], "none"
    ) == {"exact_match": 0.5}
    pytest.importorskip("sacrebleu")
    # a c d of a b c d, and 3 tokens against 4: 2 x 3 / 7; the other has nothing in common
    assert text_overlap.rouge_l(["a c d", "x"], [["a b c d", "q"], ["y"]], "none") == pytest.approx(
        100 * (6 / 7) / 2
    )
    assert text_overlap.rouge_l(["A C D"], [["a b c d"]], "none") == pytest.approx(600 / 7)
    assert text_overlap.rouge_l([""], [["a"]], "none") == 0


def test_perfect_answers_have_the_full_score_and_others_have_not():
    pytest.importorskip("sacrebleu")
    answers, references = corpus()
    long = [["a b c d e f"], ["one two three four five", "six"]]
    full = text_overlap.scores(text_overlap.SCORES, [r[0] for r in long], long, "13a")
    assert full == pytest.approx(
        {"exact_match": 1.0, "bleu": 100.0, "chrf": 100.0, "rouge_l": 100.0}
    )
    assert all(
        0 < v < 100
        for v in text_overlap.scores(text_overlap.SCORES[1:], answers, references, "13a").values()
    )


def test_bleu_and_chrf_are_those_of_sacrebleu():
    """With as many references each, against its functions; with fewer of them, against the same
    corpus where one is given twice.
    """
    sacrebleu = pytest.importorskip("sacrebleu")
    answers, references = corpus()
    even = [(r * 4)[:4] for r in references]
    streams = [list(x) for x in zip(*even, strict=True)]
    assert text_overlap.chrf(answers, even, "none") == sacrebleu.corpus_chrf(answers, streams).score
    for tokens in ("13a", "intl", "char"):
        expected = sacrebleu.corpus_bleu(answers, streams, tokenize=tokens).score
        assert (
            text_overlap.bleu(answers, even, tokens)
            == text_overlap.bleu(answers, references, tokens)
            == expected
        )
    # guards E14
    assert (
        len({text_overlap.bleu(answers, references, tokens) for tokens in ("13a", "char", "none")})
        == 3
    )


def test_rouge_l_is_that_of_rouge_score():
    pytest.importorskip("sacrebleu")
    scorer = pytest.importorskip("rouge_score.rouge_scorer")

    class Ours:
        tokenize = staticmethod(lambda text: text_overlap.tokenizer("13a")(text.lower()).split())

    oracle = scorer.RougeScorer(["rougeL"], tokenizer=Ours)
    answers, references = corpus(1)
    expected = [
        oracle.score_multi(r, a)["rougeL"].fmeasure
        for a, r in zip(answers, references, strict=True)
    ]
    assert text_overlap.rouge_l(answers, references, "13a") == pytest.approx(
        100 * sum(expected) / len(expected)
    )


def test_a_text_without_spaces_needs_its_tokenizer():  # guards E14
    pytest.importorskip("sacrebleu")
    answers, references = ["我喜欢红色的猫和狗"], [["我喜欢红色的猫和鸟"]]
    assert (
        text_overlap.bleu(answers, references, "zh") > 70
        and text_overlap.bleu(answers, references, "13a") < 10
    )


def test_a_score_without_its_library_is_refused(monkeypatch):
    monkeypatch.setattr(text_overlap.importlib.util, "find_spec", lambda name: None)
    text_overlap.check(["exact_match"])
    with pytest.raises(ConfigError, match=r"bleu, chrf need sacrebleu; install jaxsft\[text\]"):
        text_overlap.check(["exact_match", "bleu", "chrf"])


@pytest.mark.parametrize("there", [True, False])
def test_scores_that_nobody_asked_for_are_those_that_are_installed(there, monkeypatch):
    monkeypatch.setattr(
        text_overlap.importlib.util, "find_spec", lambda name: name if there else None
    )
    config = overrides.composed(["task=seq2seq", "data.train=pairs.jsonl", "mesh.data=1"])
    assert setup.resolve(config).task.scores == (text_overlap.SCORES if there else ("exact_match",))
    assert text_overlap.left_out() == (() if there else text_overlap.SCORES[1:])
    asked = dataclasses.replace(config, task=dataclasses.replace(config.task, scores=("bleu",)))
    # whose library is asked for when the task is made
    assert setup.resolve(asked).task.scores == ("bleu",)


@pytest.mark.parametrize(
    "given, tokens",
    [
        (["the cat sat on the mat"], "13a"),
        (["Die Katze saß."], "13a"),
        (["राहुल गांधी दिल्ली में रहते हैं"], "13a"),
        (["我喜欢吃苹果。", "OK"], "zh"),
        (["猫がマットの上に座っていた"], "char"),
        (["แมวนั่งบนเสื่อ"], "char"),
        (["고양이가 앉았다"], "13a"),
        (["the word 猫 in a sentence"], "13a"),
        (["12 34"], "13a"),
        ([], "13a"),
    ],
)
def test_tokens_fit_the_script(given, tokens):  # guards E14
    assert text_overlap.tokens_for(given) == tokens


def test_a_chinese_answer_is_not_one_word():  # guards E14
    pytest.importorskip("sacrebleu")
    scores = lambda tokens: text_overlap.scores(
        ["bleu"], ["我喜欢吃红苹果。"], [["我喜欢吃苹果。"]], tokens
    )["bleu"]
    assert scores(text_overlap.tokens_for(["我喜欢吃苹果。"])) > 40 > 1 > scores("13a")
