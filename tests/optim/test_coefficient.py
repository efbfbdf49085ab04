"""A coefficient that is traced gives the bits of one that is compiled in."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config import durations
from jaxsft.config.optim import COEFFICIENT, OPTIMIZERS
from jaxsft.config.option import declarations
from jaxsft.optim import optimizers
from jaxsft.sharding.weights import WeightSpec
from jaxsft.training.hyper import KINDS

SPECS = {
    "w": WeightSpec((2, 24, 16), np.float32, ("layers", "embed", "mlp"), 1),
    "b": WeightSpec((2, 16), np.float32, ("layers", "mlp")),
}
CASES = [
    ("sgd", {"nesterov": True}),
    ("adam", {}),
    ("adamw", {"b2": 0.9999}),
    ("lamb", {}),
    ("lion", {}),
    ("adagrad", {}),
    ("muon", {}),
]


@pytest.mark.parametrize("name, given", CASES, ids=[name for name, _ in CASES])
def test_traced_and_compiled_in_are_the_same_bits(name, given):
    options, clock = OPTIMIZERS[name](**given), durations.Clock(1, 1, 1)
    own = {
        key: KINDS["coefficient"](getattr(options, key), clock, key)
        for key, one in declarations(type(options)).items()
        if one.accepts.traced and one.accepts.traced.kind == COEFFICIENT.kind
    }
    assert own
    other = dataclasses.replace(options, **{key: pair[0] / 2 for key, pair in own.items()})
    draw = lambda seed: {
        key: jax.random.normal(jax.random.key(seed), spec.shape) for key, spec in SPECS.items()
    }
    none = jax.tree.map(lambda _: 1.0, SPECS)

    @jax.jit
    def step(params, state, grads, hyper):
        of = other if hyper else options  # the numbers of the options are not read
        tx = optimizers.build(of, {"learning_rate": 0.01, **hyper}, SPECS, none, none)
        updates, state = tx.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    found = []
    for hyper in ({}, own):
        params = draw(0)
        state = optimizers.init_state(options, SPECS, params)
        for seed in range(1, 6):
            params, state = step(params, state, draw(seed), hyper)
        found.append((params, state))
    jax.tree.map(np.testing.assert_array_equal, *found)
