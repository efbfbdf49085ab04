"""Statistics of training rows against values counted by hand."""

import numpy as np

from jaxsft.evaluation import dynamics
from jaxsft.metrics.base import Outputs


def outputs(logits):
    logits = np.array(logits, float)
    label = np.zeros(len(logits), int)
    arrays = {"label": label, "predicted": logits.argmax(1), "logits": logits}
    return Outputs(np.arange(len(logits)), arrays)


def test_statistics_by_hand():
    p = np.array([[0.2, 0.9], [0.8, 0.9], [0.2, 0.9], [0.8, 0.9]])
    found = dynamics.statistics(p, p > 0.5)
    np.testing.assert_allclose(found["confidence"], [0.5, 0.9])
    np.testing.assert_allclose(found["variability"], [0.3, 0], atol=1e-12)
    np.testing.assert_allclose(found["correctness"], [0.5, 1])
    np.testing.assert_array_equal(found["forgotten"], [1, 0])


def test_evaluations_are_added_and_replaced():
    right, wrong = outputs([[0, -50], [0, -50]]), outputs([[0, 0], [-50, 0]])
    one = dynamics.added(None, 4, right)
    two = dynamics.added(one, 8, wrong)
    assert two["confidence"] == [0.75, 0.5]
    assert two["forgotten"] == [0, 1]
    # a run that goes on from step 4
    again = dynamics.added(two, 8, right)
    assert [each["step"] for each in again["evaluations"]] == [4, 8]
    assert again["confidence"] == [1, 1]
    assert dynamics.added(two, 8, outputs([[0, 1]]))["rows"] == [0]
