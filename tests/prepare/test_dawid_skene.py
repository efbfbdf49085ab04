import json

import numpy as np
import pytest

from jaxsft.errors import DataError
from jaxsft.prepare import dawid_skene
from tests.realdata import real


def simulated(items=400, seed=0):
    """(true classes, ratings, confusions): one good annotator, one fair one, and three that take
    class 0 for class 1.
    """
    rng = np.random.default_rng(seed)
    confusion = np.array(
        [
            [[0.95, 0.03, 0.02], [0.02, 0.96, 0.02], [0.02, 0.02, 0.96]],
            [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]],
            *[[[0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]] * 3,
        ]
    )
    true = rng.integers(0, 3, items)
    ratings = np.array([[rng.choice(3, p=c[t]) for t in true] for c in confusion])
    ratings[rng.random(ratings.shape) < 0.1] = -1
    ratings[0, (ratings < 0).all(0)] = true[(ratings < 0).all(0)]
    return true, ratings, confusion


def test_errors_of_annotators_are_learnt_and_beat_the_majority():
    true, ratings, confusion = simulated()
    found = dawid_skene.estimate(ratings, 3)
    votes = np.stack([(ratings == c).sum(0) for c in range(3)])
    majority = (votes.argmax(0) == true).mean()
    assert (np.asarray(found.posterior).argmax(1) == true).mean() > majority + 0.05
    assert np.abs(np.asarray(found.confusion) - confusion).max() < 0.12
    assert np.abs(np.asarray(found.prior) - 1 / 3).max() < 0.06


def test_the_likelihood_never_falls():
    _, ratings, _ = simulated(100, seed=1)
    likelihood = np.asarray(dawid_skene.estimate(ratings, 3).log_likelihood)
    assert (np.diff(likelihood) > -1e-3 * abs(likelihood[0]) * 1e-2).all() and likelihood[
        -1
    ] > likelihood[0]


def test_annotators_who_agree_are_believed():
    found = dawid_skene.estimate(np.array([[0, 1, 1], [0, 1, -1]]), 2)
    assert np.asarray(found.posterior).argmax(1).tolist() == [0, 1, 1]
    assert np.allclose(found.posterior.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "ratings, part",
    [
        ([[0, -1], [1, -1]], "item number 2 has no rating"),
        ([[0, 2]], "of 0 to 1"),
        ([0, 1], "shape"),
    ],
)
def test_what_is_no_rating_is_refused(ratings, part):
    with pytest.raises(DataError, match=part):
        dawid_skene.estimate(np.array(ratings), 2)


def test_real_verdicts_on_reviews():
    """Five people per review said positive or negative: where all of five agree, so does the
    model."""
    verdicts = json.loads((real("cleanlab_label_errors") / "mturk__imdb_mturk.json").read_text())
    counts = np.array([[v["mturk"]["given"], v["mturk"]["guessed"]] for v in verdicts])
    counts = counts[counts.sum(1) > 0]
    ratings = np.array([[0] * a + [1] * b + [-1] * (5 - a - b) for a, b in counts]).T
    posterior = np.asarray(dawid_skene.estimate(ratings, 2).posterior)
    one_sided = counts.min(1) == 0
    assert (posterior.argmax(1) == counts.argmax(1))[one_sided].all()


# Table 1 of Dawid and Skene (1979): the fitness of 45 patients for anaesthesia, 1 to 4, by five
# observers, the first of whom answered three times.
PATIENTS = """1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223
4444444 2223343 1111111 2223212 1211111
1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222
1111111 1111111 1121121 1111111 3333233 1111111
2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222"""


def test_the_patients_of_the_paper():
    """Against the equations of the paper (2.3 to 2.5) written out in NumPy, in float64 and without
    smoothing.
    """
    observer = (0, 0, 0, 1, 2, 3, 4)
    counts = np.zeros((5, 45, 4))
    for i, patient in enumerate(PATIENTS.split()):
        for a, digit in zip(observer, patient, strict=True):
            counts[a, i, int(digit) - 1] += 1
    posterior = counts.sum(0) / counts.sum((0, 2))[:, None]
    for _ in range(dawid_skene.STEPS):
        prior = posterior.mean(0)
        confusion = np.einsum("ic,aik->ack", posterior, counts)
        confusion /= confusion.sum(-1, keepdims=True)
        # [items, classes]
        joint = prior * np.prod(confusion[:, None] ** counts[:, :, None], axis=(0, 3))
        posterior = joint / joint.sum(1, keepdims=True)
    found = dawid_skene.estimate_counts(counts, smoothing=1e-6)
    assert np.allclose(found.posterior, posterior, atol=2e-3) and np.allclose(
        found.prior, prior, atol=2e-3
    )
    assert np.allclose(found.confusion, confusion, atol=2e-3)
    assert np.asarray(found.prior).round(2).tolist() == pytest.approx(
        [0.40, 0.42, 0.11, 0.07], abs=1e-6
    )


def test_a_rating_each_is_a_count_of_one():
    _, ratings, _ = simulated(50)
    once = (ratings[:, :, None] == np.arange(3)).astype(float)
    assert (
        dawid_skene.estimate_counts(once).posterior == dawid_skene.estimate(ratings, 3).posterior
    ).all()
    with pytest.raises(DataError, match="0 or more"):
        dawid_skene.estimate_counts(-once)
