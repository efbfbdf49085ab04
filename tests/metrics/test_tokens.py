"""Scores of predicted tokens."""

import math

import numpy as np
import pytest

from jaxsft.metrics import token_scores
from jaxsft.metrics.base import Outputs, measure
from tests.metrics.properties import check

METRICS = token_scores.METRICS


def outputs(nll, correct, count, size):
    columns = {"nll": nll, "correct": correct, "count": count, "bytes": size}
    return Outputs(np.arange(len(nll)), {n: np.array(x, float) for n, x in columns.items()})


def test_by_hand():
    rows = outputs([math.log(2) * 6, math.log(2) * 2], [2, 0], [3, 1], [8, 8])
    assert measure(METRICS["bits_per_byte"], rows) == {"bits_per_byte": 0.5, "bytes": 16}
    assert measure(METRICS["token_loss"], rows)["nats_per_token"] == pytest.approx(2 * math.log(2))
    found = measure(METRICS["token_scores"], rows)
    assert found == {"perplexity": pytest.approx(4), "token_accuracy": 0.5, "tokens": 4}
    assert measure(METRICS["masked_token_scores"], rows)["masked_accuracy"] == 0.5


def test_tokens_of_other_sizes_give_the_same_bits():
    """A text of 6 bytes as two tokens of 3 bits or three of 2."""
    of = lambda count: measure(
        METRICS["bits_per_byte"], outputs([6 * math.log(2)], [0], [count], [6])
    )
    assert of(2) == of(3) == {"bits_per_byte": pytest.approx(1), "bytes": 6}


def test_what_is_no_number_stays_so():  # guards E10
    nothing = outputs([0], [0], [0], [0])
    for metric in METRICS.values():
        numbers = measure(metric, nothing)
        assert all(x == 0 if n in metric.counts else math.isnan(x) for n, x in numbers.items())
    lost = outputs([math.nan], [0], [5], [5])
    assert math.isnan(measure(METRICS["bits_per_byte"], lost)["bits_per_byte"])
    assert math.isnan(measure(METRICS["token_scores"], lost)["perplexity"])
    assert measure(METRICS["token_scores"], outputs([1e6], [0], [1], [1]))["perplexity"] == math.inf


@pytest.mark.parametrize("name", METRICS)
def test_weights_and_compiled_programs(name):
    rng = np.random.default_rng(0)
    count = rng.integers(0, 9, 12)
    rows = outputs(rng.exponential(size=12) * count, rng.binomial(count, 0.5), count, 4 * count)
    check(METRICS[name], rows)
