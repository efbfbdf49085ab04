"""The chain against every sequence of tags by itself."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.models.crf import Chains, ChainScores, negative_log_likelihood, viterbi

pytestmark = pytest.mark.usefixtures("x64")
CLASSES = 3
# Two rows: chains of 3, 1 and 4 words (the last a window that neither begins nor ends its text),
# nothing between; then one of 5.
NUMBER = np.array([[1, 1, 1, 2, 0, 0, 3, 3, 3, 3], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]])
FIRST = np.array([[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]], bool)
LAST = np.array([[0, 0, 1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]], bool)


def drawn(seed):
    rng = np.random.default_rng(seed)
    scores = ChainScores(
        rng.normal(size=(CLASSES, CLASSES)), rng.normal(size=CLASSES), rng.normal(size=CLASSES)
    )
    return rng.normal(size=(*NUMBER.shape, CLASSES)), rng.integers(0, CLASSES, NUMBER.shape), scores


def spans():
    for row, numbers in enumerate(NUMBER):
        for number in sorted(set(numbers) - {0}):
            at = np.flatnonzero(numbers == number)
            yield row, at[0], at[-1] + 1


def score(logits, tags, scores, row, a, b):
    value = sum(logits[row, a + i, t] for i, t in enumerate(tags)) + sum(
        scores.transitions[s, t] for s, t in itertools.pairwise(tags)
    )
    return value + scores.start[tags[0]] * FIRST[row, a] + scores.end[tags[-1]] * LAST[row, b - 1]


@pytest.mark.parametrize("seed", range(4))
def test_likelihood_and_best_tags_are_those_of_the_enumeration(seed):
    logits, tags, scores = drawn(seed)
    chains = Chains(jnp.array(NUMBER), jnp.array(FIRST), jnp.array(LAST))
    nll = np.asarray(jax.jit(negative_log_likelihood)(logits, jnp.array(tags), chains, scores))
    best = np.asarray(jax.jit(viterbi)(logits, chains, scores))
    ends = set()
    for row, a, b in spans():
        all_scores = {
            t: score(logits, t, scores, row, a, b)
            for t in itertools.product(range(CLASSES), repeat=b - a)
        }
        log_z = np.log(sum(np.exp(v) for v in all_scores.values()))
        np.testing.assert_allclose(
            nll[row, b - 1], log_z - all_scores[tuple(tags[row, a:b])], rtol=1e-12
        )
        assert tuple(best[row, a:b]) == max(all_scores, key=all_scores.get)
        ends.add((row, b - 1))
    assert (
        all(nll[i] == 0 for i in np.ndindex(nll.shape) if i not in ends)
        and (best[NUMBER == 0] == 0).all()
    )


def test_chains_do_not_see_each_other():
    """Other logits in one chain change no other one, and what is in no chain changes nothing and
    has no gradient.
    """
    logits, tags, scores = drawn(0)
    chains = Chains(jnp.array(NUMBER), jnp.array(FIRST), jnp.array(LAST))
    loss = lambda logits: negative_log_likelihood(logits, jnp.array(tags), chains, scores)
    before = np.asarray(loss(logits))
    changed = logits.copy()
    changed[0, 3:6] += 7.0
    after = np.asarray(loss(changed))
    assert (before != after).nonzero()[1].tolist() == [3]
    gradient = np.asarray(jax.grad(lambda x: loss(x).sum())(jnp.array(logits)))
    assert (gradient[NUMBER == 0] == 0).all() and (np.abs(gradient[NUMBER > 0]).max(-1) > 0).all()
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-12)  # probabilities less the gold tag
