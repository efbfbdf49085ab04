from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data import formats, shares
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import minority
from jaxsft.prepare.stage import Context
from jaxsft.prepare.stages.balance import TOWARD, Balance
from tests.prepare.numeric_harness import column, make, run
from tests.realdata import real

SIZES = {"a": 60, "b": 20, "c": 5}


def skewed(sizes=SIZES):
    labels = [name for name, n in sizes.items() for _ in range(n)]
    return make(
        {
            "text": [f"{label} says word{i % 7} number {i}" for i, label in enumerate(labels)],
            "label": labels,
        }
    )


def counts(rows):
    return dict(sorted(Counter(column(rows, "label")).items()))


def test_sampling_reaches_its_targets():
    for options, expected in (
        ({}, {"a": 60, "b": 60, "c": 60}),
        ({"method": "undersample"}, {"a": 5, "b": 5, "c": 5}),
        ({"method": "resample"}, {"a": 29, "b": 28, "c": 28}),
        ({"toward": "ratio", "ratio": 0.5}, {"a": 60, "b": 30, "c": 30}),
        ({"toward": "ratio", "ratio": 0.5, "method": "undersample"}, {"a": 10, "b": 10, "c": 5}),
        ({"toward": "temperature", "temperature": 1.0}, SIZES),
        ({"toward": "sqrt"}, {"a": 60, "b": round((20 * 60) ** 0.5), "c": round((5 * 60) ** 0.5)}),
        ({"copies": 2}, {"a": 60, "b": 40, "c": 10}),
    ):
        out, reports, _ = run(Balance(**options), train=skewed(), test=skewed())
        assert counts(out["train"]) == expected, options
        assert reports["train"].facts == {"before": SIZES, "after": expected}
        assert counts(out["test"]) == SIZES
        repeats = Counter(column(out["train"], "text"))
        for label in SIZES:  # rows of a class come equally often
            of = [n for text, n in repeats.items() if text.startswith(label)]
            assert max(of) - min(of) <= 1 and (
                options.get("method", "oversample") != "oversample" or len(of) == SIZES[label]
            )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 1000), min_size=2, max_size=6),
    st.sampled_from(TOWARD),
    st.floats(1, 10),
    st.floats(0, 0.9999),
    st.floats(0.01, 1),
)
def test_sizes_keep_classes_and_their_order(sizes, toward, temperature, beta, ratio):
    n = np.array(sizes)
    options = {"temperature": temperature, "beta": beta, "ratio": ratio}
    mass = shares.mass(n, toward, **options)
    more, less = (
        shares.grown(n, mass, None),
        shares.shrunk(n, shares.mass(n, toward, **options, shrink=True)),
    )
    assert (more >= n).all() and (less <= n).all() and (less >= 1).all()
    for sized in (more, less):
        assert (
            np.diff(sized[np.argsort(n, kind="stable")]) >= 0
        ).all() and sized.max() / sized.min() <= n.max() / n.min() + 1e-9 + 1 / sized.min()
    same = shares.shared(int(n.sum()), mass)
    assert same.sum() == n.sum() and (same >= 1).all()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(TOWARD), st.integers(1, 40), st.integers(1, 40))
def test_weights_have_the_mean_one(toward, a, b):
    rows = skewed({"x": a + 1, "y": b})
    out, reports, _ = run(Balance(method="weight", toward=toward), train=rows)
    weights = np.array(column(out["train"], "weight"))
    assert weights.mean() == pytest.approx(1) and (weights > 0).all()
    if toward == "equal":
        assert weights[: a + 1].sum() == pytest.approx(weights[a + 1 :].sum())
        assert reports["train"].facts["weights"]["x"] == pytest.approx((a + 1 + b) / 2 / (a + 1))


def test_the_effective_number_is_that_of_its_definition():
    out, _, _ = run(Balance(method="weight", toward="effective", beta=0.9), train=skewed())
    weights = dict(zip(column(out["train"], "label"), column(out["train"], "weight"), strict=True))
    expected = {c: (1 - 0.9) / (1 - 0.9**n) for c, n in SIZES.items()}
    assert weights["c"] / weights["a"] == pytest.approx(expected["c"] / expected["a"])
    given = make({"label": ["a", "a", "b"], "weight": [1.0, 3.0, 1.0]})
    assert column(
        run(Balance(method="weight"), train=given)[0]["train"], "weight"
    ) == pytest.approx([0.5, 1.5, 1.0])


def test_which_rows_are_taken_does_not_hang_on_the_others_or_their_order():
    rows = skewed()
    stage = Balance(method="undersample", toward="ratio", ratio=0.25)
    taken = lambda rows, stage=stage: {r.where for r in run(stage, train=rows)[0]["train"]}
    assert taken(rows) == taken(rows[::-1]) == taken(rows)
    assert taken(rows) != taken(
        rows, Balance(method="undersample", toward="ratio", ratio=0.25, context=Context(seed=1))
    )
    assert {w for w in taken(rows) if w in {r.where for r in rows[:60]}} == {
        w for w in taken(rows[:60] + rows[80:]) if w in {r.where for r in rows[:60]}
    }


def test_rows_with_several_labels():
    rows = make({"label": ["1,2"] * 8 + ["1"] * 8 + ["2, 3"] * 2, "text": ["x"] * 18})
    out, reports, _ = run(Balance(multilabel=True, toward="equal"), train=rows)
    assert reports["train"].facts["before"] == {"1": 16, "2": 10, "3": 2}
    after = reports["train"].facts["after"]
    assert after["3"] == 8 and max(after.values()) / min(after.values()) < 16 / 2
    out, _, _ = run(Balance(method="weight", multilabel=True), train=rows)
    weights = column(out["train"], "weight")
    assert weights[0] == pytest.approx((1 / 16 + 1 / 10) / (1 / 16) / 2 * weights[8]) and np.mean(
        weights
    ) == pytest.approx(1)
    hot = make({"sad": [1, 0, 0, 0], "glad": ["1", "1", "1", "0"]})
    stage = Balance(
        method="weight", multilabel=True, context=Context(columns=Columns(labels=["sad", "glad"]))
    )
    assert run(stage, train=hot)[1]["train"].facts["before"] == {
        "(no label)": 1,
        "glad": 3,
        "sad": 1,
    }
    with pytest.raises(DataError, match=r"rows.csv:2: 2 labels; stages.balance.fill=mix"):
        run(Balance(multilabel=True, fill="mix"), train=rows)


def test_mixed_texts_are_of_two_texts_of_the_class():
    assert (
        minority.spliced("a b c d", "e f g h", 0.5) == "a b g h"
        and minority.spliced("我们好", "他们坏", 0.3) == "我们坏"
    )
    stage = Balance(fill="mix", toward="ratio", ratio=0.3)
    out, reports, _ = run(stage, train=skewed())
    assert reports["train"].added == {"mixed": 13} and counts(out["train"]) == {
        "a": 60,
        "b": 20,
        "c": 18,
    }
    new = out["train"][85:]
    tagged = [
        formats.Row({**r.fields, "id": i, "weight": 2.0}, r.file, r.line)
        for i, r in enumerate(skewed())
    ]
    assert {
        (r.fields["id"], r.fields["weight"]) for r in run(stage, train=tagged)[0]["train"][85:]
    } == {(None, 2.0)}
    assert all(set(row.fields["text"].split()[:2]) & {row.fields["label"]} for row in new)
    assert len(set(column(out["train"], "text"))) == 98  # none is a copy
    assert [r.fields for r in run(stage, train=skewed())[0]["train"]] == [
        r.fields for r in out["train"]
    ]


def test_generated_texts_are_new_and_of_their_class():
    path = real("sms_spam/sms.tsv")
    rows = formats.read(path, header="false")[:1500]
    rows = [
        formats.Row({"label": r.fields["0"], "text": r.fields["1"]}, r.file, r.line) for r in rows
    ]
    stage = Balance(fill="ngram", toward="ratio", ratio=0.3)
    out, reports, _ = run(stage, train=rows)
    new = out["train"][len(rows) :]
    assert len(new) == reports["train"].added["generated"] > 50 and {
        r.fields["label"] for r in new
    } == {"spam"}
    assert not {r.fields["text"] for r in new} & {r.fields["text"] for r in rows}
    judge = minority.NgramClassifier(column(rows, "text"), column(rows, "label"))
    assert all(judge.probability(r.fields["text"], "spam") >= 0.9 for r in new)


def test_a_model_writes_and_another_scores():
    wrote = []

    def predict(records):
        label, _, text = records[0]["prompt"].partition(": ")
        assert label in "bc" and text.split()[0] in "bc" and set(records[0]) == {"prompt"}
        wrote.append(f"{label} says word{len(wrote)} " + "odd" * (len(wrote) % 2))
        return [{**records[0], "prediction": wrote[-1], "stopped": len(wrote) % 5 > 0}]

    score = lambda texts: np.array([100.0 if "odd" in t else 5.0 for t in texts])
    out, _, _ = run(
        Balance(
            fill="model", perplexity=10.0, context=Context(predict=predict, score=score), sure=0.6
        ),
        train=skewed(),
    )
    assert counts(out["train"]) == {"a": 60, "b": 60, "c": 60} and not any(
        "odd" in t for t in column(out["train"], "text")
    )
    with pytest.raises(DataError, match=r"0 of 40 new texts of class 'b' are good after 80 tries"):
        run(
            Balance(
                fill="model",
                tries=2,
                context=Context(predict=lambda r: [{"prediction": "a says word1"}]),
            ),
            train=skewed(),
        )
    with pytest.raises(DataError, match=r"has no 'prediction'"):
        run(
            Balance(fill="model", context=Context(predict=lambda r: [{"text": "b"}])),
            train=skewed(),
        )


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 5.0},
        {"toward": "sqrt", "beta": 0.9},
        {"prompt": "?"},
        {"fill": "mix", "sure": 0.5},
    ],
)
def test_an_option_without_effect_is_refused(options):
    with pytest.raises(ConfigError, match=r"stages.balance.\w+=.*: it has no effect"):
        Balance(**options).check()


def test_what_cannot_work_is_refused():
    for options in (
        {"method": "smote"},
        {"beta": 1.0},
        {"ratio": 0.0},
        {"method": "weight", "fill": "mix"},
        {"fill": "mix", "context": Context(columns=Columns(text_pair="b"))},
        {"fill": "model"},
        {"perplexity": 3.0},
    ):
        with pytest.raises(ConfigError, match=r"stages.balance"):
            Balance(**options).check()
    for labels, message in (
        (["a", "a"], "1 classes"),
        (["a", "b"], "occurs once"),
        (["a", None], "rows.csv:3: .*label"),
    ):
        with pytest.raises(DataError, match=message):
            run(Balance(), train=make({"label": labels}))
