"""Adapters in both halves of an encoder-decoder model, and in the attention between them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config import adapters as options
from jaxsft.config import schema
from jaxsft.errors import ConfigError
from jaxsft.generation.decoding import generate
from jaxsft.models import adapters, registry
from jaxsft.sharding import weights
from jaxsft.sharding.weights import flatten
from jaxsft.training import partition
from tests.models.test_encoder_decoder import VOCAB, made, pairs, row

pytestmark = pytest.mark.usefixtures("x64")
ADAPTER = options.DoRA(rank=2)


@pytest.mark.slow
def test_merged_halves_are_the_halves_with_their_adapter():  # guards G7
    """The start is the base; after a change every leaf has a gradient, and states and answers are
    those of the merged weights.
    """
    plain, params, run = made("T5", unroll="none")
    model = dataclasses.replace(plain, adapter=ADAPTER)
    declared = weights.specs(jax.eval_shape(model.init, jax.random.key(0)))
    assert {path.split("/")[1] for path in flatten(declared["adapters"]) if path} and set(
        declared["adapters"]
    ) == {"encoder", "decoder"}
    assert "cross" in declared["adapters"]["decoder"]["layers"]["0"]
    own = adapters.init(
        ADAPTER, {k: v for k, v in declared.items() if k != "adapters"}, jax.random.key(1)
    )
    own = jax.tree.map(lambda w: w.value.astype(jnp.float64), own, is_leaf=weights.is_weight)
    start = adapters.start(ADAPTER, {**params, "adapters": own}, jax.random.key(0))
    (source, target), *_ = pairs()
    streams = *row(source, width=9), *row(target, width=6)

    def value(learnt, params):
        s, sw, t, tw = streams
        h = model.hidden(
            {**params, "adapters": partition.merge(learnt, params["adapters"])},
            t,
            tw,
            source=(s, sw),
        )
        return (h * jnp.arange(h.size).reshape(h.shape)).sum(), h

    trained, frozen = partition.partition(start, declared, [], ADAPTER)
    step = jax.jit(jax.grad(value, has_aux=True))
    np.testing.assert_allclose(
        step(trained["adapters"], frozen)[1], run(params, *streams), rtol=1e-12
    )
    draw = np.random.default_rng(0).normal
    learnt = jax.tree.map(lambda x: x + 0.1 * draw(size=x.shape), trained)
    grads, states = step(learnt["adapters"], frozen)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))
    whole = partition.join(partition.merge(learnt, frozen))
    merged = partition.join(adapters.merge(ADAPTER, whole))
    np.testing.assert_allclose(states, run(merged, *streams), rtol=1e-9, atol=1e-12)
    how = {"max_new_tokens": 4, "stop_ids": [VOCAB - 1], "start": [0]}
    answers = [
        generate(m, p, [source.tolist()], schema.GenerateConfig(batch_size=1), **how)
        for m, p in ((model, whole), (plain, merged))
    ]
    assert [a.ids for a in answers[0]] == [a.ids for a in answers[1]]


OWN = ("decoder/layers/.*/attention",)
EVERY = (".*layers/.*/(attention|cross)",)


def prefixed(kind, target, **more):
    """(model, parameters with a prefix that was drawn, states of both streams)."""
    plain, params, _ = made(kind, **more)
    model = dataclasses.replace(plain, adapter=options.Prefix(tokens=3, target=target))
    declared = weights.specs(jax.eval_shape(plain.init, jax.random.key(0)))
    own = adapters.init(model.adapter, declared, jax.random.key(1))
    own = jax.tree.map(lambda w: 50 * w.value.astype(jnp.float64), own, is_leaf=weights.is_weight)
    return (
        model,
        {**params, "adapters": own},
        jax.jit(lambda p, s, sw, t, tw: model.hidden(p, t, tw, source=(s, sw))),
    )


@pytest.mark.parametrize("kind", ["T5", "BART"])
def test_a_prefix_of_both_halves(kind):  # guards B1
    """Packed as alone; every key and value of every attention, of the encoder, the decoder and
    between them, changes the states.
    """
    _, params, run = prefixed(kind, EVERY)
    assert {path.rsplit("/", 1)[0] for path in flatten(params["adapters"])} == {
        "encoder/layers/0/attention",
        "decoder/layers/0/attention",
        "decoder/layers/0/cross",
    }
    together, at = (
        run(
            params,
            *row(*(s for s, _ in pairs()), width=24),
            *row(*(t for _, t in pairs()), width=23),
        ),
        0,
    )
    for source, target in pairs():
        alone = run(params, *row(source, width=24), *row(target, width=23))
        np.testing.assert_allclose(
            together[0, at : at + len(target)], alone[0, : len(target)], atol=1e-12
        )
        at += len(target)
    streams = *row(*(s for s, _ in pairs()), width=24), *row(*(t for _, t in pairs()), width=23)
    wave = jnp.arange(together.size).reshape(together.shape) % 7
    grads = jax.grad(lambda own: (run({**params, "adapters": own}, *streams) * wave).sum())(
        params["adapters"]
    )
    for path, g in flatten(grads).items():
        assert (np.abs(g).max((1, 2, 3)) > 0).all(), path  # in each layer


@pytest.mark.parametrize("kind, target", [("T5", EVERY), ("BART", OWN)])
def test_a_prefix_in_generation(kind, target):  # guards E12
    """Greedy answers are the largest logits of the whole model; one beam more finds none that is
    less likely.
    """
    model, params, run = prefixed(kind, target)
    source = pairs()[0][0]
    how = {"max_new_tokens": 4, "stop_ids": [], "start": [0]}
    new = generate(model, params, [source.tolist()], schema.GenerateConfig(batch_size=1), **how)[
        0
    ].ids
    streams = lambda answer: (*row(source, width=24), *row([0, *answer], width=23))
    scores = lambda answer: jax.nn.log_softmax(
        model.logits(params, run(params, *streams(answer)))[0, :4]
    )
    of = lambda answer: sum(float(scores(answer)[i, token]) for i, token in enumerate(answer))
    assert scores(new).argmax(-1).tolist() == new
    best = generate(
        model,
        params,
        [source.tolist()],
        schema.GenerateConfig(batch_size=1, num_beams=3, length_penalty=0.0),
        **how,
    )[0].ids
    assert len(best) == 4 and of(best) >= of(new) - 1e-9


def test_a_half_without_a_prefix_stays_where_it_is():  # guards B3
    """Learned positions begin at 0 in an encoder whose decoder alone has a prefix, as in PEFT."""
    model, _, _ = prefixed("BART", OWN)
    assert (
        model.encoder.position_offset,
        model.decoder.position_offset,
        model.position_offset,
    ) == (0, 3, 3)
    cross = prefixed("BART", ("decoder/layers/.*/cross",))[0]
    assert (cross.encoder.position_offset, cross.decoder.position_offset) == (0, 0)


@pytest.mark.parametrize(
    "name, model", [("prompt", {"decoder_layers": 2}), ("ia3", {"kind": "lstm"})]
)
def test_models_without_a_place_for_an_adapter_are_refused(name, model):
    config = schema.Config(adapter=options.ADAPTERS[name](), model=schema.ModelConfig(**model))
    with pytest.raises(ConfigError, match=f"adapter={name}"):
        kind = registry.get(config.model, packing=False)
        registry.adapting(kind, config.adapter, config.model.kind)
