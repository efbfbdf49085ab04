"""What is observed of arrays of JAX is what is observed of arrays of NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.compat import enable_x64
from jaxsft.metrics.base import Outputs
from jaxsft.metrics.by_name import METRICS
from tests.metrics.sample_outputs import of_rows

OF_LOGITS = (
    *("log_loss", "brier_score", "top_k_accuracy", "calibration_equal_width"),
    *("calibration_equal_mass", "auroc_ovr", "auroc_ovo", "auroc_binned", "label_areas"),
    *("average_precision_ovr", "out_of_scope", "label_ranking"),
)


@pytest.mark.parametrize("name", OF_LOGITS)
def test_logits_are_observed_in_a_compiled_program(name):
    outputs, metric = of_rows(20), METRICS[name]
    state = metric.reduce(metric.observe(outputs), np.ones(20))

    def run(arrays: dict) -> dict:
        there: Outputs = dataclasses.replace(outputs, arrays=arrays)
        return dict(metric.value(metric.reduce(metric.observe(there), jnp.ones(20))))

    with enable_x64():
        found = jax.jit(run)({key: jnp.asarray(outputs[key]) for key in metric.needs})
    for key, value in metric.value(state).items():
        np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-12, err_msg=key)
