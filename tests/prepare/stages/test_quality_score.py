import numpy as np
import pytest

from jaxsft.data.formats import Row, read
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import Context
from jaxsft.prepare.stages.quality_score import features, learn, probability
from tests.prepare.harness import lengths, make, one, rows_of, run, texts
from tests.realdata import real

MODEL = Context(score=lengths)


def test_a_threshold_is_inclusive_and_lower_is_better_for_a_model():
    rows, report = one(
        make("quality_score", MODEL, method="model", threshold=3.0), "a", "abc", "abcd"
    )
    assert texts(rows) == ["a", "abc"] and texts(rows, "quality") == [1.0, 3.0]
    assert report.dropped == [("rows.jsonl:3", "poor quality")]
    assert texts(
        one(
            make("quality_score", MODEL, method="model", threshold=3.0, better="higher"),
            "a",
            "abc",
            "abcd",
        )[0]
    ) == ["abc", "abcd"]


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_quantile_is_that_of_the_training_rows(better):
    contents = ["x" * n for n in range(1, 101)]
    stage = make("quality_score", MODEL, method="model", quantile=0.1, better=better)
    out, reports = run(
        stage, {"train": rows_of(*contents), "test": rows_of("x", "x" * 50, "x" * 1000)}
    )
    assert 90 <= len(out["train"]) <= 91
    assert texts(out["test"], "quality") == ([50.0, 1000.0] if better == "higher" else [1.0, 50.0])
    assert "bound" in reports["train"].facts
    ties, _ = run(stage, {"train": rows_of(*["x"] * 10)})
    assert len(ties["train"]) == 10


def test_weights_multiply():
    rows, report = one(
        make(
            "quality_score", MODEL, method="model", threshold=1.0, action="weight", low_weight=0.25
        ),
        {"text": "a"},
        {"text": "ab", "weight": 2},
        {"text": "abc"},
    )
    assert texts(rows, "weight") == [1.0, 0.5, 0.25] and report.changed == {"lower weight": 2}
    rows, report = one(
        make("quality_score", MODEL, method="model", threshold=1.0, action="mark"), "a", "ab"
    )
    assert texts(rows, "marks") == ["", "quality_score: poor quality"]


def test_bleu_and_rouge():
    pytest.importorskip("sacrebleu")
    contents = [
        {"text": t, "ref": r}
        for t, r in (
            ("the cat sat on the mat", "the cat sat on the mat"),
            ("dogs run", "the cat sat on the mat"),
        )
    ]
    rows, _ = one(make("quality_score", method="bleu", reference="ref", threshold=0.0), *contents)
    assert rows[0].fields["quality"] == pytest.approx(100) and rows[1].fields["quality"] == 0
    pytest.importorskip("rouge_score")
    contents += [
        {"text": "police killed the gunman", "ref": "police kill the gunman"},
        {"text": "我来到北京", "ref": "我到北京"},
    ]
    rows, _ = one(make("quality_score", method="rouge", reference="ref", threshold=0.0), *contents)
    # Lin 2004, section 3.1: the longest common subsequence has 3 words of 4; and 4 characters of 5
    # and 4.
    assert texts(rows, "quality") == [1.0, 0.0, pytest.approx(0.75), pytest.approx(8 / 9, abs=1e-6)]


def test_the_classifier_is_that_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    good, bad = (
        [" ".join(rng.choice(list(some), 6)) for _ in range(n)]
        for some, n in (("abcdefgh", 40), ("efghijkl", 25))
    )
    state = learn(good, bad, 8)
    theirs = linear.LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=1000).fit(
        features([*good, *bad], 8), [1] * 40 + [0] * 25
    )
    np.testing.assert_allclose(
        probability(state, good + bad),
        theirs.predict_proba(features([*good, *bad], 8))[:, 1],
        atol=2e-3,
    )
    assert state["accuracy"] > 0.8


def test_the_classifier_tells_spam(tmp_path):
    rows = [
        Row({"text": row.fields["1"], "label": row.fields["0"]}, row.file, row.line)
        for row in read(real("sms_spam/sms.tsv"), header="false")
    ]
    for name, label in (("good", "ham"), ("bad", "spam")):
        found = [row.fields["text"] for row in rows[:2000] if row.fields["label"] == label]
        (tmp_path / name).write_text("\n".join(found), encoding="utf-8")
    stage = make(
        "quality_score", good=str(tmp_path / "good"), bad=str(tmp_path / "bad"), threshold=0.5
    )
    out, reports = run(stage, {"train": rows[2000:3000], "test": rows[3000:4000]})
    assert reports["train"].facts["accuracy on the examples"] > 0.95
    right = {row.line for row in rows[3000:4000] if row.fields["label"] == "ham"}
    kept = {row.line for row in out["test"]}
    assert len(right & kept) > 0.97 * len(right) and len(kept - right) < 0.1 * (1000 - len(right))
    assert run(stage, {"train": rows[2000:3000], "test": rows[3000:4000]})[0] == out


def test_training_rows_are_the_bad_examples_where_none_are_given(tmp_path):
    (tmp_path / "good").write_text("fine words here\nfine words there\n")
    rows, _ = one(
        make("quality_score", good=str(tmp_path / "good"), quantile=0.5),
        "junk junk",
        "fine words here",
        "more junk",
        "junk again",
    )
    assert "fine words here" in texts(rows)


def test_what_a_model_may_not_say():
    with pytest.raises(DataError, match=r"rows.jsonl:1: .* shape \(1,\) for 2 texts"):
        one(
            make(
                "quality_score",
                Context(score=lambda texts: np.zeros(1)),
                method="model",
                threshold=1.0,
            ),
            "a",
            "b",
        )
    with pytest.raises(DataError, match=r"rows.jsonl:2: .* the score is nan"):
        one(
            make(
                "quality_score",
                Context(score=lambda texts: np.array([0, np.nan])),
                method="model",
                threshold=1.0,
            ),
            "a",
            "b",
        )


@pytest.mark.parametrize(
    "options",
    [
        {}, {"method": "x", "threshold": 1.0}, {"method": "model", "threshold": 1.0},
        {"method": "bleu", "threshold": 1.0},
        {"good": "f", "threshold": 1.0, "quantile": 0.1}, {"threshold": 1.0}, {"good": "f"},
        {"good": "f", "quantile": 1.0},
        {"good": "f", "threshold": 0.5, "bits": 30},
        {"good": "f", "threshold": 0.5, "better": "x"},
    ],
)  # fmt: skip
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.quality_score"):
        make("quality_score", **options)
