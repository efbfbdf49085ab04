import csv
import gzip
from collections import defaultdict

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import agreement
from tests.realdata import real

NAN = np.nan
# Four observers and twelve units: the example of Krippendorff (2011), with its values of alpha.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
# Ten subjects, fourteen raters, five categories: the counts of Fleiss (1971), kappa 0.210.
FLEISS = """0 0 0 0 14
0 2 6 4 2
0 0 3 5 6
0 3 9 2 0
2 2 8 1 1
7 7 0 0 0
3 2 6 3 0
2 5 3 2 2
6 5 2 1 0
0 2 2 3 7"""


@pytest.mark.parametrize(
    "level, alpha", [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_alpha_of_the_published_example(level, alpha):
    assert agreement.krippendorff_alpha(OBSERVERS, level) == pytest.approx(alpha, abs=5e-4)


def test_kappa_of_the_published_example():
    counts = [[int(n) for n in line.split()] for line in FLEISS.splitlines()]
    ratings = np.array(
        [[c for c, n in enumerate(line) for _ in range(n)] for line in counts], float
    ).T
    assert agreement.fleiss_kappa(ratings) == pytest.approx(0.210, abs=5e-4)


@pytest.mark.parametrize("weights", agreement.WEIGHTS)
def test_kappa_of_two_is_that_of_scikit_learn(weights):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 60)
    b = np.where(rng.random(60) < 0.6, a, rng.integers(0, 4, 60))
    expected = cohen_kappa_score(a, b, weights=None if weights == "none" else weights)
    assert agreement.cohen_kappa(a.astype(float), b.astype(float), weights) == pytest.approx(
        expected
    )


def test_perfect_and_missing():
    same = np.array([[1.0, 2, NAN, 3], [1, 2, 2, 3]])
    assert agreement.krippendorff_alpha(same) == agreement.cohen_kappa(*same) == 1
    assert np.isnan(agreement.krippendorff_alpha(np.ones((2, 3))))
    assert agreement.coded([["b", None], ["a", "b"]])[1] == ["a", "b"]
    with pytest.raises(DataError, match="the same number"):
        agreement.fleiss_kappa(same)
    with pytest.raises(DataError, match="no item has two ratings"):
        agreement.krippendorff_alpha(np.array([[1.0, NAN], [NAN, 1]]))
    with pytest.raises(ConfigError, match="level=cardinal"):
        agreement.krippendorff_alpha(same, "cardinal")


def test_real_ratings_of_emotions():
    """Readers of EmoBank agree on valence more than on arousal and dominance, as its authors
    report, and a little on all.
    """
    items = defaultdict(list)
    with gzip.open(real("emobank/individual_reader_ratings.csv.gz"), "rt") as file:
        for row in csv.DictReader(file):
            items[row["id"]].append([float(row[name]) for name in "VAD"])
    width = max(map(len, items.values()))
    alphas = []
    for dimension in range(3):
        ratings = np.full((width, len(items)), np.nan)
        for i, given in enumerate(items.values()):
            ratings[: len(given), i] = [one[dimension] for one in given]
        alphas.append(agreement.krippendorff_alpha(ratings, "interval"))
    assert alphas[0] > alphas[1] > 0 and alphas[0] > alphas[2] > 0


def test_kappa_of_several_is_that_of_statsmodels():
    library = pytest.importorskip("statsmodels.stats.inter_rater")
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 80)
    ratings = np.where(rng.random((5, 80)) < 0.7, true, rng.integers(0, 3, (5, 80)))
    expected = library.fleiss_kappa(library.aggregate_raters(ratings.T)[0])
    assert agreement.fleiss_kappa(ratings.astype(float)) == pytest.approx(expected)
