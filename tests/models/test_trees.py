"""The best tree is that of all trees whose arcs have the highest sum."""

import itertools

import numpy as np
import pytest

from jaxsft.models.trees import best_tree, greedy, is_tree


def brute_force(scores):
    """Every assignment of heads that is a tree with one root, by its sum."""
    words = len(scores)
    trees = (h for h in itertools.product(range(words + 1), repeat=words) if _tree(h))
    return max(
        ((sum(scores[i, h] for i, h in enumerate(heads)), heads) for heads in trees),
        key=lambda found: found[0],
    )


def _tree(heads):
    if heads.count(0) != 1:
        return False
    for word in range(1, len(heads) + 1):
        seen = set()
        while word:
            if word in seen:
                return False
            seen.add(word)
            word = heads[word - 1]
    return True


@pytest.mark.parametrize("words", [1, 2, 3, 4, 5])
def test_the_best_of_all_trees(words):
    rng, crooked = np.random.default_rng(words), 0
    for _ in range(60 if words < 5 else 25):
        scores = rng.normal(size=(words, words + 1)) * rng.choice([0.1, 1, 100])
        found = best_tree(scores)
        value, heads = brute_force(scores)
        assert found.tolist() == list(heads) and is_tree(found)
        assert sum(scores[i, h] for i, h in enumerate(found)) == pytest.approx(value)
        crooked += not is_tree(greedy(scores))
    assert words == 1 or crooked > 3  # the search was needed


def test_long_sentences_and_circles_in_circles():
    rng = np.random.default_rng(0)
    for words in (30, 80):
        scores = rng.normal(size=(words, words + 1)).astype(np.float32)
        assert is_tree(best_tree(scores)) and not is_tree(greedy(scores))
    scores = np.full((4, 5), -9.0)  # 1 <-> 2 and 3 <-> 4 love each other, and the root nobody
    scores[0, 2] = scores[1, 1] = scores[2, 4] = scores[3, 3] = 5
    assert is_tree(best_tree(scores)) and best_tree(scores).tolist() == list(brute_force(scores)[1])


def test_many_trees_against_the_brute_force_sum():
    """Ties and equal scores: the sum is the best one, whichever tree is told."""
    rng = np.random.default_rng(5)
    for _ in range(60):
        scores = rng.integers(-2, 3, size=(4, 5)).astype(float)
        found = best_tree(scores)
        assert (
            is_tree(found)
            and sum(scores[i, h] for i, h in enumerate(found)) == brute_force(scores)[0]
        )
