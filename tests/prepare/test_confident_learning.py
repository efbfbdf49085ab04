import json

import numpy as np
import pytest

from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import confident_learning, text_classifier
from tests.realdata import real


def given(name):
    folder = real("cleanlab_label_errors")
    p = np.load(
        folder / f"cross_validated_predicted_probabilities__{name}_test_set_pyx.npy",
        allow_pickle=False,
    )
    return np.load(
        folder / f"original_test_labels__{name}_test_set_original_labels.npy", allow_pickle=False
    ).astype(np.int64), p.clip(0, 1)


def test_the_joint_of_a_worked_example():
    # Thresholds are the means of the given classes: (0.9 + 0.8 + 0.1) / 3 = 0.6 and (0.7 + 0.9) / 2
    # = 0.8.
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.1, 0.9]])
    labels = np.array([0, 0, 0, 1, 1])
    assert np.allclose(confident_learning.thresholds(labels, p), [0.6, 0.8])
    assert confident_learning.confident(labels, p).tolist() == [0, 0, 1, -1, 1]
    assert confident_learning.confident_joint(labels, p).tolist() == [[2, 1], [0, 2]]
    for how in confident_learning.FILTERS:
        assert confident_learning.find_issues(labels, p, how).tolist() == [
            False,
            False,
            True,
            False,
            False,
        ]


def test_the_transition_is_of_true_labels():
    # the joint of the example above is [[2, 1], [0, 2]]: of the three rows of class 1, one is given
    # as 0
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.1, 0.9]])
    found = confident_learning.transition(np.array([0, 0, 0, 1, 1]), p)
    assert np.allclose(found, [[1, 0], [1 / 3, 2 / 3]])


def test_scores_order_the_issues():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], np.float32)
    labels = np.array([0, 0])
    assert np.allclose(confident_learning.quality_scores(labels, p), [0.5, 0.1])
    assert np.allclose(
        confident_learning.quality_scores(labels, p, "normalized_margin"), [0.6, 0.25]
    )
    entropy = confident_learning.quality_scores(labels, p, "confidence_weighted_entropy")
    assert entropy[1] < entropy[0] <= 1
    certain = np.array([[1, 0, 0], [0, 1, 0]], np.float32)  # the second label cannot be worse
    assert np.allclose(
        confident_learning.quality_scores(labels, certain, "confidence_weighted_entropy"),
        [1, 0],
        atol=1e-5,
    )
    assert confident_learning.ranked(np.array([True, True]), [0.5, 0.1]).tolist() == [1, 0]


@pytest.mark.parametrize("name, issues", [("20news", 95), ("imdb", 1309)])
def test_real_issues_are_those_of_the_library(name, issues):
    labels, p = given(name)
    ours = {
        how: confident_learning.find_issues(labels, p, how) for how in confident_learning.FILTERS
    }
    assert ours["prune_by_noise_rate"].sum() == issues
    library = pytest.importorskip("cleanlab.filter")
    for how, found in ours.items():
        theirs = library.find_label_issues(labels, p, filter_by=how, n_jobs=1)
        differ = np.flatnonzero(found != theirs)
        # rows of equal probability, of which each takes others
        assert (p[differ, labels[differ]] == 0).all(), how


def test_people_find_most_real_issues_wrong():
    labels, p = given("20news")
    issues = confident_learning.find_issues(labels, p)
    verdicts = json.loads((real("cleanlab_label_errors") / "mturk__20news_mturk.json").read_text())
    seen = [v["mturk"]["given"] < 3 for v in verdicts if issues[v["id"]]]  # of five people
    assert len(seen) == 63 and sum(seen) == 55


def test_people_judge_reviews_that_are_flagged():
    """IMDB: 1,307 of our 1,309 issues were judged; in 725 of them fewer than three of five people
    confirm the given label.
    """
    labels, p = given("imdb")
    names = json.loads(
        (
            real("cleanlab_label_errors") / "dataset_indexing__imdb_test_set_index_to_filename.json"
        ).read_text()
    )
    place = {f"test/{name.removesuffix('.txt')}": i for i, name in enumerate(names)}
    issues = confident_learning.find_issues(labels, p)
    verdicts = json.loads((real("cleanlab_label_errors") / "mturk__imdb_mturk.json").read_text())
    flagged = [v["mturk"]["given"] < 3 for v in verdicts if issues[place[v["id"]]]]
    assert len(flagged) == 1307 and sum(flagged) == 725


def test_labels_that_were_changed_on_purpose_are_found():
    rng = np.random.default_rng(0)
    topics = [["cat", "dog", "horse"], ["red", "green", "blue"], ["one", "two", "three"]]
    true = rng.integers(0, 3, 300)
    texts = [" ".join(rng.choice(topics[t], 4)) + f" {i}" for i, t in enumerate(true)]
    changed = rng.random(300) < 0.08
    labels = np.where(changed, (true + 1) % 3, true)
    p = text_classifier.cross_val_probabilities(texts, labels, folds=3, seed=0)
    assert np.allclose(p.sum(1), 1, atol=1e-5)
    found = confident_learning.find_issues(labels, p)
    assert found[changed].mean() > 0.9 and changed[found].mean() > 0.9
    assert (p == text_classifier.cross_val_probabilities(texts, labels, folds=3, seed=0)).all()


def test_a_text_of_no_words_and_a_script_without_spaces_have_features():
    none, *both = text_classifier.features(["", "今天天气", "今天下雨\ud800 x"], "test")
    assert none.nnz == 0
    assert len(set(both[0].indices) & set(both[1].indices)) >= 3  # 今, 天 and the pair


@pytest.mark.parametrize(
    "labels, p, error",
    [
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "labels from 0 to 2"),
        ([0, 1], [[0.5, 0.6], [0.5, 0.5]], "does not sum to 1"),
        ([0], [[0.5, 0.5], [0.5, 0.5]], "expected .N. and .N, C."),
    ],
)
def test_what_is_no_probability_is_refused(labels, p, error):
    with pytest.raises(DataError, match=error):
        confident_learning.find_issues(np.array(labels), np.array(p))


def test_a_class_that_a_fold_would_not_know_is_refused():
    with pytest.raises(DataError, match="each with 5 rows at least"):
        text_classifier.cross_val_probabilities(["a"] * 6, [0, 0, 0, 0, 0, 1], folds=5)
    with pytest.raises(ConfigError, match="filter_by=best"):
        confident_learning.find_issues(np.array([0]), np.array([[1.0, 0.0]]), "best")
