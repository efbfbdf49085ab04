"""The encoder-decoder model: packed and alone, what each half may see, decoding with caches, two
stacks to freeze, spread and optimise.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsft import patterns
from jaxsft.config.model import ModelConfig
from jaxsft.config.schema import GenerateConfig
from jaxsft.generation.decoding import generate
from jaxsft.generation.kv_cache import caches_at, empty_kv
from jaxsft.models import relative
from jaxsft.models.attention import TokenInfo, blocked
from jaxsft.models.dropout import Dropout
from jaxsft.models.encoder_decoder import EncoderDecoder, Memory
from jaxsft.models.layer_stack import layers_of
from jaxsft.sharding import weights
from jaxsft.training import partition

BASE = {
    "layers": 2,
    "decoder_layers": 3,
    "embed": 16,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 4,
    "mlp": 24,
    "context": 32,
    "causal": False,
}
T5 = {
    "positions": "relative",
    "relative_buckets": 8,
    "relative_distance": 12,
    "query_scale": 1.0,
    "output_scale": 0.25,
}
BART = {
    "positions": "learned",
    "position_offset": 2,
    "norm": "layer",
    "norm_position": "post",
    "embed_norm": True,
    "gated": False,
}
BART |= {"qkv_bias": True, "o_bias": True, "mlp_bias": True, "activation": "gelu"}
UMT5 = {**T5, "relative_shared": False}
PEGASUS = {**BART, "positions": "sinusoidal", "norm_position": "pre", "embed_norm": False}
KINDS = {
    "T5": T5,
    "UMT5": UMT5,
    "PEGASUS": PEGASUS,
    "BART": BART,
    "rotary, grouped": {"kv_heads": 2},
}
VOCAB = 50
pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def made(kind, **options):
    model = EncoderDecoder(ModelConfig(**BASE | KINDS[kind] | options), VOCAB)
    params = jax.tree.map(
        lambda x: x.astype(jnp.float64), nn.meta.unbox(model.init(jax.random.key(0)))
    )
    params = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape, x.dtype), params
    )
    return model, params, jax.jit(lambda p, s, sw, t, tw: model.hidden(p, t, tw, source=(s, sw)))


def row(*texts, width):
    """Texts one after another, with padding: (ids, Tokens)."""
    ids, segments, positions = np.zeros((3, 1, width), np.int32)
    at = 0
    for i, text in enumerate(texts, start=1):
        place = slice(at, at := at + len(text))
        ids[0, place], segments[0, place], positions[0, place] = text, i, range(len(text))
    return ids, TokenInfo(segments, positions)


def pairs(seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(0, VOCAB, n), rng.integers(0, VOCAB, m)) for n, m in ((9, 6), (7, 5), (4, 9))
    ]


@pytest.mark.parametrize(
    "kind, attention", [("T5", "auto"), ("BART", "auto"), ("rotary, grouped", "blocked")]
)
def test_packed_states_are_those_of_each_pair_alone(kind, attention, monkeypatch):  # guards B1, B3
    monkeypatch.setattr(blocked, "BLOCK", 8)
    _, params, run = made(kind, attention=attention)
    together = run(
        params, *row(*(s for s, _ in pairs()), width=24), *row(*(t for _, t in pairs()), width=23)
    )
    at = 0
    for source, target in pairs():
        # of one shape, so that it is compiled once
        alone = run(params, *row(source, width=24), *row(target, width=23))
        np.testing.assert_allclose(
            together[0, at : at + len(target)], alone[0, : len(target)], atol=1e-12
        )
        at += len(target)
    assert np.abs(together).max() > 0.5


def test_the_longest_distance_acts():  # guards H5
    """It changes no weight."""
    at, w = np.arange(20)[None], np.arange(32.0).reshape(8, 4)
    bias = lambda longest: relative.Relative(
        ModelConfig(**BASE | T5 | {"relative_distance": longest})
    ).apply({"params": {"w": w}}, at, at)
    assert (bias(12) != bias(6)).any() and (bias(12) == bias(12)).all()


def test_dropout_is_at_every_site_of_the_decoder():
    """At the rate 1 nothing is added to the residual stream: neither by its own tokens, nor by the
    source, nor by the MLP.
    """
    model, params, _ = made("rotary, grouped")
    decoder, (_, where) = model.decoder, row(range(6), width=6)
    x = np.random.default_rng(0).normal(size=(1, 6, 16))
    noise, memory = (
        Dropout(jnp.float32(1), jax.random.split(jax.random.key(0), 1)),
        Memory(where, x),
    )
    weights, layer = (
        jax.tree.map(lambda a: a[0], tree)
        for tree in (params["decoder"]["layers"]["0"], layers_of(decoder.config, 0, 1))
    )
    tables = decoder._positions(params, where, where, x.dtype)
    run = lambda noise: decoder.block().apply(
        {"params": weights}, x, where, tables, layer, noise, None, memory
    )[0]
    np.testing.assert_array_equal(run(noise), x)
    assert np.abs(run(None) - x).max() > 1e-3


@pytest.mark.parametrize("kind", ["T5", "BART"])
def test_who_sees_whom(kind):  # guards B2
    """A source is seen by all of its target and by no other; a target by what comes after it;
    nothing else, not by a bit.
    """
    _, params, run = made(kind)
    sources, targets = (list(x) for x in zip(*pairs(), strict=True))
    states = lambda s, t: np.asarray(run(params, *row(*s, width=24), *row(*t, width=23)))[0]
    before, ends = states(sources, targets), np.cumsum([0, *map(len, targets)])
    other = [sources[0], (sources[1] + 1) % VOCAB, sources[2]]
    changed = (states(other, targets) != before).any(-1)
    assert (
        changed[ends[1] : ends[2]].all()
        and not changed[: ends[1]].any()
        and not changed[ends[2] : ends[3]].any()
    )
    late = targets[0].copy()
    late[3] = (late[3] + 1) % VOCAB
    changed = (states(sources, [late, *targets[1:]]) != before).any(-1)
    assert (
        not changed[:3].any()
        and changed[3 : ends[1]].all()
        and not changed[ends[1] : ends[3]].any()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_gives_the_states_of_the_whole_target(kind):
    """The source is encoded once; token by token, in a ring of slots, as in one pass."""
    model, params, run = made(kind)
    source, target = pairs()[0]
    expected = run(params, *row(source, width=24), *row(target, width=23))
    sources = jax.jit(model.start, static_argnums=2)(params, row(source, width=12), jnp.float64)
    assert sources.kv[0][0].shape == (1, 12, model.config.kv_heads, 4) and len(sources.kv) == 3
    kv, zero = empty_kv(model, 1, 8, jnp.float64), jnp.zeros((1, 8), jnp.int32)
    known, step = (
        TokenInfo(zero, zero),
        jax.jit(
            lambda kv, token, now, where, slot: model.decode(
                params, token, now, caches_at(kv, where, slot, sources)
            )
        ),
    )
    for i, token in enumerate(target):
        slot = (i + 5) % 8
        known = TokenInfo(known.segment_ids.at[0, slot].set(1), known.positions.at[0, slot].set(i))
        now = TokenInfo(jnp.ones((1, 1), jnp.int32), jnp.full((1, 1), i))
        x, caches = step(kv, jnp.array([[token]]), now, known, jnp.int32(slot))
        kv = tuple((cache.k, cache.v) for cache in caches)
        np.testing.assert_allclose(x[0, 0], expected[0, i], atol=1e-12)


@pytest.mark.parametrize("beams", [1, 2])
def test_answers_are_those_of_the_whole_model(beams):  # guards E12
    """Greedy answers of more sources than rows, as the largest logit of the whole model gives them;
    beams find none that is less likely here.
    """
    model, params, _ = made("T5")
    sources = [source.tolist() for source, _ in (*pairs(), *pairs(1))]
    options = GenerateConfig(batch_size=4, num_beams=beams, length_penalty=0.0)
    found = generate(model, params, sources, options, max_new_tokens=5, stop_ids=[0], start=[3, 7])

    @jax.jit
    def scores(source, target):
        return jax.nn.log_softmax(
            model.logits(params, model.hidden(params, *target, source=source))
        )

    def probability(source, ids):
        logits = scores(row(source, width=24), row([3, 7, *ids], width=8))[0]
        return (
            sum(float(logits[i + 1, t]) for i, t in enumerate(ids)),
            logits[len(ids) + 1].argmax(),
        )

    for source, answer in zip(sources, found, strict=True):
        greedy = []
        while len(greedy) < 5 and (not greedy or greedy[-1] != 0):
            greedy.append(int(probability(source, greedy)[1]))
        ids = [*answer.ids, *([0] if answer.stopped else [])]
        if beams == 1:
            assert ids == greedy
        assert probability(source, ids)[0] >= probability(source, greedy)[0] - 1e-4


def test_remat_and_the_loop_change_nothing():
    source, target = row(pairs()[0][0], width=9), row(pairs()[0][1], width=6)
    model, params, _ = made("T5")

    def of(**options):
        m = dataclasses.replace(model, config=dataclasses.replace(model.config, **options))
        return jax.jit(jax.grad(lambda p: (m.hidden(p, *target, source=source) ** 2).sum()))(params)

    plain = of()
    for options in ({"remat": True}, {"unroll": "none"}):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), of(**options), plain)
    assert all(np.abs(g).max() > 1e-6 for g in jax.tree.leaves(plain))  # every weight acts


# --- relative positions
# --------------------------------------------------------------------------------------------------
def test_buckets_by_hand():
    """32 buckets up to a distance of 128, as published: 8 exact ones on each side of an encoder, 16
    in a decoder.
    """
    ahead = np.array([0, 1, 7, 8, 15, 16, 127, 500, -1, -7, -8, -500])
    both = relative.bucket(ahead, 32, 128, causal=False)
    assert np.asarray(both).tolist() == [0, 17, 23, 24, 25, 26, 31, 31, 1, 7, 8, 15]
    past = relative.bucket(ahead, 32, 128, causal=True)
    assert np.asarray(past).tolist() == [0] * 8 + [1, 7, 8, 31]
    assert (
        np.diff(relative.bucket_of_distance(16, 128)) >= 0
    ).all() and relative.bucket_of_distance(16, 128).tolist()[:8] == list(range(8))


# --- two stacks
# --------------------------------------------------------------------------------------------------
def specs():
    model, params, _ = made("T5")
    return model, params, weights.specs(jax.eval_shape(model.init, jax.random.key(0)))


def test_the_tree_has_two_stacks():
    _, params, found = specs()
    paths = patterns.virtual_paths(found)
    assert {
        "encoder/layers/1/attention/q/w",
        "decoder/layers/2/cross/k/w",
        "decoder/layers/0/cross_norm/scale",
        "encoder/relative/w",
    } <= set(paths)
    assert not any(
        path.startswith(("layers/", "encoder/layers/0/cross", "decoder/embed", "norm/"))
        for path in paths
    )
    assert set(params) == {"embed", "encoder", "decoder"} and set(
        made("BART")[1]["encoder"]["embed"]
    ) == {"positions", "norm"}
    stacked = jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, weights.WeightSpec))
    assert {s.shape[0] for s in stacked if s.stacked} == {2, 3}


@functools.cache
def expected():
    _, params, run = made("T5")
    return run(params, *row(pairs()[0][0], width=9), *row(pairs()[0][1], width=6))


@pytest.mark.parametrize(
    "freeze",
    [["encoder/layers/0/.*"], ["encoder/.*", "embed/.*"], ["decoder/layers/[12]/cross/.*"]],
)
def test_each_stack_can_be_frozen_by_layer(freeze):  # guards G10
    """The states are the same, cut or not; what is frozen has no gradient; together they are the
    model again.
    """
    _, params, found = specs()
    trainable, frozen = partition.partition(params, found, freeze)
    sizes = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    assert sizes(trainable) + sizes(frozen) == sizes(params) and sizes(frozen)
    whole = partition.join(partition.merge(trainable, frozen))
    jax.tree.map(np.testing.assert_array_equal, whole, params)
    source, target = row(pairs()[0][0], width=9), row(pairs()[0][1], width=6)
    cut = partition.merge(trainable, frozen)
    np.testing.assert_allclose(made("T5")[2](cut, *source, *target), expected(), atol=1e-12)


def test_a_layer_of_one_half_is_frozen_alone():  # guards G10
    _, params, found = specs()
    trainable, frozen = partition.partition(params, found, ["encoder/layers/0/.*"])
    assert (
        list(frozen) == ["encoder"]
        and list(frozen["encoder"]) == ["layers"]
        and list(frozen["encoder"]["layers"]) == ["0"]
    )
    assert list(trainable["encoder"]["layers"]) == ["1"] and list(
        trainable["decoder"]["layers"]
    ) == ["0"]
