import json

import numpy as np
import pytest

from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import outlier_scores as scores
from jaxsft.prepare.stage import Context
from jaxsft.prepare.stages.outliers import MANY, ONE, Outliers
from tests.prepare.numeric_harness import column, make, run


def cloud(n=300, d=3, seed=0):
    """Correlated numbers, and ten rows that break the correlation without leaving the range."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n, 1))
    x = base + 0.1 * rng.normal(size=(n, d)) + 5
    x[:10] = 5 + 2 * np.array([1, -1, 1])[:d] * (1 + 0.2 * rng.random((10, d)))
    return x


def as_rows(x):
    return make({f"f{j}": x[:, j].tolist() for j in range(x.shape[1])})


@pytest.mark.parametrize("method", ONE)
def test_limits_are_those_of_their_definition(method):
    x = np.random.default_rng(0).normal(size=500)
    low, high = scores.limits(x, method, 2.0)
    q1, q2, q3 = np.quantile(x, [0.25, 0.5, 0.75])
    expected = {
        "zscore": lambda v: abs(v - x.mean()) / x.std() > 2,
        "iqr": lambda v: (v < q1 - 2 * (q3 - q1)) | (v > q3 + 2 * (q3 - q1)),
        "mad": lambda v: 0.6745 * abs(v - q2) / np.median(abs(x - q2)) > 2,
    }[method](x)
    np.testing.assert_array_equal((x < low) | (x > high), expected)


def test_actions_drop_clip_and_mark_with_limits_of_the_training_rows():
    data = {"train": make({"v": [1.0, 2.0, 3.0, 4.0, 5.0]}), "test": make({"v": ["3", "100"]})}
    out, reports, state = run(Outliers(fields=["v"], action="drop"), **data)
    assert state["limits"] == {"v": [-1.0, 7.0]} and column(out["test"], "v") == ["3"]
    assert reports["test"].dropped == [("rows.csv:3", "outlier: value of v (iqr)")]
    out, reports, _ = run(Outliers(fields=["v"], action="clip"), **data)
    assert column(out["test"], "v") == ["3", 7.0] and reports["test"].changed == {"v clipped": 1}
    out, reports, _ = run(Outliers(fields=["v"]), **data)
    assert (
        column(out["test"], "outlier") == [False, True]
        and sum(reports["test"].marked.values()) == 1
    )
    assert Outliers(action="clip").replayed and not Outliers(action="drop").replayed


OWN = {
    "forest": {"trees": 50},
    "lof": {"neighbours": 30},
    "autoencoder": {"steps": 300, "hidden": 1},
}


@pytest.mark.parametrize("method", MANY)
def test_rows_that_break_a_relation_are_found_though_each_number_is_ordinary(method):
    if method in ("forest", "lof", "mahalanobis"):
        pytest.importorskip("sklearn")
    x = cloud()
    rows = as_rows(x)
    assert not any(
        column(
            run(Outliers(fields=["f0", "f1", "f2"], method="mad"), train=rows)[0]["train"],
            "outlier",
        )
    )
    stage = Outliers(fields=["f0", "f1", "f2"], method=method, fraction=0.1, **OWN.get(method, {}))
    out, reports, _ = run(stage, train=rows, test=rows[:10])
    found = column(out["train"], "outlier")
    assert sum(found) == pytest.approx(30, abs=2) and sum(found[:10]) >= 9
    assert reports["train"].facts["threshold"] > 0
    again, _, _ = run(stage, train=rows, test=rows[:10])
    assert column(again["train"], "outlier") == found


def test_the_forest_without_pickle_scores_as_scikit_learn():
    ensemble = pytest.importorskip("sklearn.ensemble")
    x, new = cloud(), cloud(50, seed=1) * 1.2
    state = json.loads(json.dumps(scores.fit_forest(x, trees=20, sample=64, seed=3)))
    oracle = ensemble.IsolationForest(n_estimators=20, max_samples=64, random_state=3).fit(x)
    for data in (x, new):
        np.testing.assert_allclose(
            scores.forest(data, state), -oracle.score_samples(data), rtol=1e-9
        )


def test_the_local_outlier_factor_of_training_rows_leaves_each_out():
    neighbors = pytest.importorskip("sklearn.neighbors")
    x = cloud()
    state = scores.fit_lof(x, neighbours=10, points=1000)
    oracle = neighbors.LocalOutlierFactor(n_neighbors=10)
    z = (x - x.mean(0)) / x.std(0)
    oracle.fit_predict(z)
    np.testing.assert_allclose(
        scores.lof(x, state, True), -oracle.negative_outlier_factor_, rtol=1e-9
    )
    assert not np.allclose(scores.lof(x, state, False), scores.lof(x, state, True))


def test_distances_agree_with_their_definitions():
    pytest.importorskip("sklearn")
    x = cloud()
    from sklearn.covariance import LedoitWolf

    np.testing.assert_allclose(
        scores.mahalanobis(x, scores.fit_mahalanobis(x)) ** 2,
        LedoitWolf().fit(x).mahalanobis(x),
        rtol=1e-6,
    )
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    middle = unit.mean(0) / np.linalg.norm(unit.mean(0))
    np.testing.assert_allclose(
        scores.cosine(x, scores.fit_cosine(x)), 1 - unit @ middle, atol=1e-12
    )
    assert scores.cosine(np.zeros((1, 3)), scores.fit_cosine(x))[0] == 1


def test_texts_are_measured_by_length_and_by_a_model():
    texts = ["a b c", "a b", "a b c d", "a b c", "a", "a b c e", "w " * 50]
    for measure in ("characters", "words"):
        out, _, _ = run(Outliers(measure=measure, action="drop"), train=make({"text": texts}))
        assert column(out["train"], "text") == texts[:-1]
    strange = Context(
        score=lambda batch: np.array([1000.0 if "e" in t else float(len(t) % 3) for t in batch])
    )
    out, _, _ = run(Outliers(measure="perplexity", context=strange), train=make({"text": texts}))
    assert column(out["train"], "outlier") == [t == "a b c e" for t in texts]
    with pytest.raises(ConfigError, match=r"no model was given"):
        Outliers(measure="perplexity").check()


def test_an_embedding_column_is_one_vector_per_row():
    x = np.random.default_rng(0).normal(size=(100, 4)) * 0.1 + 1
    x[7] = -1
    rows = make({"e": x.tolist()})
    out, _, _ = run(
        Outliers(fields=["e"], measure="embedding", method="cosine", action="drop"), train=rows
    )
    assert len(out["train"]) == 99 and x[7].tolist() not in column(out["train"], "e")
    for value, message in (
        ([1.0, 2.0], "holds 2 numbers, expected 4"),
        ("x", "expected a list of finite numbers"),
        ([1, 2, 3, None], "expected a list"),
    ):
        with pytest.raises(DataError, match=message):
            run(
                Outliers(fields=["e"], measure="embedding", method="cosine"),
                train=[*rows, *make({"e": [value]})],
            )
    wide = make({"e": np.zeros((4, 600)).tolist()})
    with pytest.raises(DataError, match=r"512 at most; set method=cosine"):
        run(Outliers(fields=["e"], measure="embedding", method="mahalanobis"), train=wide)


def test_texts_are_compared_by_the_vectors_of_their_words(tmp_path):
    (tmp_path / "v.txt").write_text(
        "cat 1 0.1\ndog 0.9 0\ncow 1.1 0.05\ntax -0.2 1\nlaw 0 1.1\n", encoding="utf-8"
    )
    texts = [
        "cat and dog",
        "the dog",
        "cow, cat",
        "dog cow",
        "cow",
        "cat dog cow",
        "tax law",
        "cat",
    ]
    options = {"measure": "vectors", "method": "cosine", "fraction": 0.1, "action": "drop"}
    out, _, state = run(
        Outliers(vectors=str(tmp_path / "v.txt"), **options),
        train=make({"text": texts}),
        test=make({"text": ["law of tax", "a cat"]}),
    )
    assert set(texts) - set(column(out["train"], "text")) == {"tax law"} and column(
        out["test"], "text"
    ) == ["a cat"]
    assert len(state["model"]["centre"]) == 2
    with pytest.raises(DataError, match=r"rows.csv:3: no word of the text has a vector"):
        run(
            Outliers(vectors=str(tmp_path / "v.txt"), **options),
            train=make({"text": ["cat", "zebra", "dog"]}),
        )
    with pytest.raises(ConfigError, match=r"measure=vectors, and it needs one"):
        Outliers(**options).check()


def test_what_cannot_work_is_refused():
    for options in (
        {"method": "magic"},
        {"action": "clip", "method": "lof"},
        {"action": "clip", "measure": "words"},
        {"measure": "embedding"},
        {"fraction": 0.0},
        {"method": "cosine"},
        {"threshold": -1.0},
    ):
        with pytest.raises(ConfigError, match=r"stages.outliers"):
            Outliers(fields=["v"], **options).check()
    with pytest.raises(DataError, match=r"no spread in training.*method=zscore"):
        run(Outliers(fields=["v"], method="mad"), train=make({"v": [1, 1, 1, 9]}))
    with pytest.raises(
        DataError, match=r"25 training rows are equal, more than stages.outliers.neighbours=20"
    ):
        run(Outliers(fields=["v"], method="lof"), train=make({"v": [1.0] * 25 + [2.0, 3.0]}))
    with pytest.raises(DataError, match=r"rows.csv:3: .*missing=keep"):
        run(Outliers(fields=["v"]), train=make({"v": [1, None, 2]}))
    out, _, _ = run(
        Outliers(fields=["v"], missing="keep"), train=make({"v": [1, None, 2, 3, 2, 99]})
    )
    assert column(out["train"], "outlier") == [False] * 5 + [True]


@pytest.mark.parametrize(
    "options",
    [
        {"trees": 50},
        {"method": "lof", "fraction": 0.1, "trees": 5},
        {"action": "drop", "into": "odd"},
        {"fraction": 0.2},
    ],
)
def test_an_option_without_effect_is_refused(options):
    with pytest.raises(ConfigError, match=r"stages.outliers.\w+=.*: it has no effect"):
        Outliers(fields=["f0", "f1"], **options).check()
