"""Trials that differ in the options of a loss are one program, and each is what it is alone."""

import jax
import numpy as np
import pytest

from jaxsft.training.hyper import program_key
from tests.conftest import assert_close, bench

pytestmark = pytest.mark.usefixtures("x64")
OPTIONS = {  # of two trials
    "inverse_frequency": ({"inverse_power": 0.3}, {"inverse_power": 1.0}),
    "effective_number": ({"effective_beta": 0.5}, {"effective_beta": 0.99}),
    "logit_adjusted": ({"adjustment": 0.5}, {"adjustment": 2.0}),
    "ldam": (
        {"largest_margin": 0.5, "reweight_after": "1steps"},
        {"largest_margin": 2.0, "reweight_after": "3steps"},
    ),
    "small_loss": (
        {"left_out": 0.3, "left_out_after": "1steps"},
        {"left_out": 0.6, "left_out_after": "2steps"},
    ),
    "cross_entropy": ({"prior_correction": 0.5}, {"prior_correction": 1.0}),
}


@pytest.mark.parametrize("loss", OPTIONS)
def test_a_stack_is_its_trials(loss):
    given = [{"loss": loss} | one for one in OPTIONS[loss]]
    one, two = (bench("classify", 10, task=task, train={"batch_size": 5}) for task in given)
    assert program_key(one.config) == program_key(two.config)
    stack = lambda *trees: jax.tree.map(lambda *x: np.stack(x), *trees)
    step = jax.jit(jax.vmap(one.program.step, in_axes=(0, None, None, 0)))
    states, hyper = stack(one.state(), two.state()), stack(one.hyper, two.hyper)
    for k in range(3):
        states, _ = step(states, one.apart[1], one.batches[k], hyper)
    alone = [b.run(3)[0].trainable for b in (one, two)]
    for i, weights in enumerate(alone):
        assert_close(jax.tree.map(lambda x, i=i: x[i], states.trainable), weights)
    if loss != "cross_entropy":  # what is only read where it predicts moves no weight
        pairs = zip(*map(jax.tree.leaves, alone), strict=True)
        assert not all(np.allclose(x, y) for x, y in pairs)
