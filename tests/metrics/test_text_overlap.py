"""Scores of generated texts, against the published implementations and by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from jaxsft.config import overrides
from jaxsft.errors import ConfigError
from jaxsft.metrics import by_name, text_overlap
from jaxsft.metrics.base import measure
from jaxsft.training import setup
from tests.metrics.answered import answered, corpus, odd, pairs, score
from tests.metrics.properties import check

METRICS = text_overlap.METRICS
BLEU, CHRF, TER = (METRICS[name] for name in ("bleu", "chrf", "ter"))
ALL = [by_name.METRICS[name] for name in text_overlap.SCORES]


def test_by_hand():
    exact = METRICS["exact_match"]
    assert score(exact, [" yes\n", "no"], [["no", "yes"], ["yes"]], "none") == 0.5
    assert score(exact, ["", "a"], [[], []]) == 0.5  # without references the right answer is empty
    pytest.importorskip("sacrebleu")
    # one of three tokens is missing; a stretch that moves is one edit
    assert score(TER, ["a c"], [["a b c"]]) == pytest.approx(100 / 3)
    assert score(TER, ["d a b c"], [["a b c d"]]) == 25
    # 2 and 3 tokens, where the nearest references have 2 and 4
    found = measure(
        METRICS["length_ratio"], answered(["a b", "a b c"], [["x y", "x"], ["1 2 3 4"]])
    )
    assert found == {"length_ratio": 5 / 6, "answer_tokens": 2.5}


def test_perfect_answers_have_the_full_score_and_others_have_not():
    pytest.importorskip("sacrebleu")
    answers, references = corpus()
    long = [["a b c d e f"], ["one two three four five", "six"]]
    full = [score(metric, [r[0] for r in long], long) for metric in ALL]
    assert full == pytest.approx([1.0, 100.0, 100.0, 100.0])
    assert all(0 < score(metric, answers, references) < 100 for metric in ALL[1:])
    assert score(TER, [r[0] for r in long], long) == 0 < score(TER, answers, references)


def streams(references):
    """The references as sacrebleu takes them: None where an answer has fewer than another."""
    most = max(map(len, references))
    return [[r[i] if i < len(r) else None for r in references] for i in range(most)]


def test_bleu_and_chrf_are_those_of_sacrebleu():
    """With as many references each, against its functions; with fewer of them, against the same
    corpus where one is given twice.
    """
    sacrebleu = pytest.importorskip("sacrebleu")
    answers, references = corpus()
    even = [(r * 4)[:4] for r in references]
    theirs = [list(x) for x in zip(*even, strict=True)]
    assert score(CHRF, answers, even, "none") == sacrebleu.corpus_chrf(answers, theirs).score
    for tokens in ("13a", "intl", "char"):
        expected = sacrebleu.corpus_bleu(answers, theirs, tokenize=tokens).score
        assert (
            score(BLEU, answers, even, tokens)
            == score(BLEU, answers, references, tokens)
            == expected
        )
    # guards E14
    assert (
        len({score(BLEU, answers, references, tokens) for tokens in ("13a", "char", "none")}) == 3
    )


@pytest.mark.parametrize("tokens", ["13a", "zh", "char"])
@settings(max_examples=60, deadline=None)
@given(rows=pairs())
def test_any_texts_have_the_scores_of_sacrebleu(tokens, rows):
    sacrebleu = pytest.importorskip("sacrebleu.metrics")
    answers, references = zip(*rows, strict=True)
    ter = sacrebleu.TER(normalized=tokens != "13a", asian_support=tokens != "13a")
    bleu = sacrebleu.BLEU(tokenize=tokens, force=True)
    for metric, theirs in ((BLEU, bleu), (CHRF, sacrebleu.CHRF()), (TER, ter)):
        expected = theirs.corpus_score(list(answers), streams(references)).score
        assert score(metric, answers, references, tokens) == pytest.approx(expected, abs=1e-9)
        outputs = answered(answers, references, tokens)
        assert metric.signature(outputs) == theirs.get_signature().format()


def test_a_signature_says_how_a_number_was_made():
    pytest.importorskip("sacrebleu")
    one, several = answered(["a"], [["b"]], "zh"), answered(["a", "b"], [["b"], ["c", "d"]])
    assert BLEU.signature(one).startswith("nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.")
    assert BLEU.signature(several).startswith("nrefs:var|")
    assert TER.signature(one).startswith("nrefs:1|case:lc|tok:tercom|norm:yes|punct:yes|asian:yes|")


@pytest.mark.parametrize("name", METRICS)
def test_weights_and_compiled_programs(name):
    pytest.importorskip("sacrebleu")
    for tokens in ("13a", "zh"):
        check(METRICS[name], dataclasses.replace(odd(), tokenizer=tokens))


def test_without_rows_nothing_is_known():
    pytest.importorskip("sacrebleu")
    for metric in [*METRICS.values(), by_name.METRICS["rouge_score"]]:
        assert all(np.isnan(list(measure(metric, answered([], [])).values())))


def test_a_text_without_spaces_needs_its_tokenizer():  # guards E14
    pytest.importorskip("sacrebleu")
    answers, references = ["我喜欢红色的猫和狗"], [["我喜欢红色的猫和鸟"]]
    assert score(BLEU, answers, references, "zh") > 70
    assert score(BLEU, answers, references, "13a") < 10
    assert score(TER, answers, references, "zh") == pytest.approx(100 / 9)
    assert score(TER, answers, references, "13a") == 100


def test_a_metric_without_its_library_is_refused(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr("jaxsft.extras.importlib.import_module", absent)
    with pytest.raises(ConfigError, match=r"the metric ter: install jaxsft\[text\]"):
        measure(TER, answered(["a"], [["b"]]))


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
    for option in (
        "evaluation.metric=validation/bleu",
        "train.until=validation/chrf >= 9",
        "evaluation.metrics=[ter]",
    ):
        words = ["task=seq2seq", "data.path=pairs.jsonl", "mesh.data=1", option]
        one = overrides.composed([*words, "evaluation.generate=always"])
        if there:
            assert setup.resolve(one).task.scores == text_overlap.SCORES
        else:
            with pytest.raises(ConfigError, match=r": needs sacrebleu; install jaxsft\[text\]"):
                setup.resolve(one)


@pytest.mark.parametrize(
    "reference, tokens",
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
def test_tokens_fit_the_script(reference, tokens):  # guards E14
    assert text_overlap.tokens_for(reference) == tokens


def test_a_chinese_answer_is_not_one_word():  # guards E14
    pytest.importorskip("sacrebleu")
    scores = lambda tokens: score(BLEU, ["我喜欢吃红苹果。"], [["我喜欢吃苹果。"]], tokens)
    assert scores(text_overlap.tokens_for(["我喜欢吃苹果。"])) > 40 > 1 > scores("13a")
