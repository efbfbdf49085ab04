"""Many slices: their corrected bounds have as many replicates as they need, and are the wider."""

import types

import numpy as np

from jaxsft.evaluation import slices
from jaxsft.evaluation.measured import measure
from jaxsft.metrics.base import Outputs


def test_corrected_bounds_of_many_slices_are_wider():
    draw = np.random.default_rng(0)
    label, predicted = draw.integers(0, 2, (2, 6000))
    outputs = Outputs(np.arange(6000), {"label": label, "predicted": predicted}, ["a", "b"])
    found = measure(["label_scores"], [], outputs, "classify")
    masks = {f"group={i}": np.arange(6000) % 30 == i for i in range(30)}
    # 30 slices at a level of 0.95 are one of 0.9983 each, which needs 1,200 replicates
    options = types.SimpleNamespace(level=0.95, replicates=50)
    config = types.SimpleNamespace(evaluation=options)
    for one in slices.report(found, masks, None, config):
        low, high = one["corrected"]["f1_macro"]
        assert one["rows"] == 200
        assert low < one["numbers"]["f1_macro"]["low"] < one["numbers"]["f1_macro"]["high"] < high
