"""Adapters in both halves of an encoder-decoder model, and in the attention between them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config import adapters as options
from jaxsft.config import schema
from jaxsft.errors import ConfigError
from jaxsft.models import adapters, kinds
from jaxsft.models.generate import generate
from jaxsft.sharding import weights
from jaxsft.sharding.weights import flatten
from jaxsft.training import partition
from tests.models.test_encoder_decoder import VOCAB, made, pairs, row

pytestmark = pytest.mark.usefixtures("x64")
ADAPTER = options.DoRA(rank=2)


@pytest.mark.slow
def test_merged_halves_are_the_halves_with_their_adapter():  # guards G7
    """The start is the base; after a change every leaf has a gradient, and states and answers are those of the merged weights."""
    plain, params, run = made("T5", unroll="none")
    model = dataclasses.replace(plain, adapter=ADAPTER)
    declared = weights.specs(jax.eval_shape(model.init, jax.random.key(0)))
    assert {path.split("/")[1] for path in flatten(declared["adapters"]) if path} and set(declared["adapters"]) == {"encoder", "decoder"}
    assert "cross" in declared["adapters"]["decoder"]["layers"]["0"]
    own = adapters.init(ADAPTER, {k: v for k, v in declared.items() if k != "adapters"}, jax.random.key(1))
    own = jax.tree.map(lambda w: w.value.astype(jnp.float64), own, is_leaf=weights.is_weight)
    start = adapters.start(ADAPTER, {**params, "adapters": own}, jax.random.key(0))
    (source, target), *_ = pairs()
    streams = *row(source, width=9), *row(target, width=6)

    def value(learnt, params):
        s, sw, t, tw = streams
        h = model.hidden({**params, "adapters": partition.merge(learnt, params["adapters"])}, t, tw, source=(s, sw))
        return (h * jnp.arange(h.size).reshape(h.shape)).sum(), h

    trained, frozen = partition.partition(start, declared, [], ADAPTER)
    step = jax.jit(jax.grad(value, has_aux=True))
    np.testing.assert_allclose(step(trained["adapters"], frozen)[1], run(params, *streams), rtol=1e-12)
    learnt = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape, x.dtype), trained)
    grads, states = step(learnt["adapters"], frozen)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))
    whole = partition.join(partition.merge(learnt, frozen))
    merged = partition.join(adapters.merge(ADAPTER, whole))
    np.testing.assert_allclose(states, run(merged, *streams), rtol=1e-9, atol=1e-12)
    how = {"max_new_tokens": 4, "stop_ids": [VOCAB - 1], "start": [0]}
    answers = [generate(m, p, [source.tolist()], schema.GenerateConfig(batch_size=1), **how) for m, p in ((model, whole), (plain, merged))]
    assert [a.ids for a in answers[0]] == [a.ids for a in answers[1]]


@pytest.mark.parametrize("name, model", [("prompt", {"decoder_layers": 2}), ("prefix", {"decoder_layers": 2}), ("ia3", {"kind": "lstm"})])
def test_models_without_a_place_for_an_adapter_are_refused(name, model):
    config = schema.Config(adapter=options.ADAPTERS[name](), model=schema.ModelConfig(**model))
    with pytest.raises(ConfigError, match=f"adapter={name}"):
        kinds.adapting(kinds.get(config.model, packing=False), config)
