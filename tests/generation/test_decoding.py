"""Generation with a cache against the whole model, run again for every token."""

import collections
import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.config.model import ModelConfig
from jaxsft.config.schema import GenerateConfig, MeshConfig
from jaxsft.errors import ConfigError
from jaxsft.generation.decode_slots import empty, refill
from jaxsft.generation.decoding import continuations, decode, generate
from jaxsft.generation.kv_cache import width_of
from jaxsft.models.attention import TokenInfo
from jaxsft.models.heads import VocabHead
from jaxsft.models.transformer import Transformer
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import weights

VOCAB, NEW = 17, 6
PROMPTS = [[3], [5, 1, 2, 8, 13], list(range(1, 17)), [4, 4], [9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 2]]
OPTIONS = {
    "default": {},
    "learned, post-norm, untied": {
        "positions": "learned",
        "norm_position": "post",
        "norm": "layer",
        "tied": False,
        "gated": False,
        "activation": "gelu",
    },
    "blocked": {"attention": "blocked"},
    "windows, caps, biases": {
        "window": 4,
        "window_layers": (1,),
        "attention_softcap": 5.0,
        "logit_softcap": 3.0,
        "tied": False,
        "head_bias": True,
        "qkv_bias": True,
        "qk_norm": "head",
    },
    "relative": {"positions": "relative"},
}


@functools.cache
def made(name="default", context=64):
    config = ModelConfig(
        layers=2 if "window" in OPTIONS[name] else 1,
        embed=16,
        heads=4,
        kv_heads=2,
        head_dim=4,
        mlp=24,
        context=context,
        **OPTIONS[name],
    )
    m = Transformer(
        config,
        VOCAB,
        "fp32",
        None if config.tied else VocabHead(16, VOCAB, "fp32", bias=config.head_bias),
    )
    params = nn.meta.unbox(jax.jit(m.init)(jax.random.key(1)))
    # Far from uniform, so that no argmax hangs on rounding and a tied head does not only repeat.
    params["embed"]["tokens"]["w"] = params["embed"]["tokens"]["w"] * 4
    params["layers"] = jax.tree.map(lambda w: w * 3 if w.ndim > 2 else w, params["layers"])
    if config.head_bias:
        params["head"]["b"] = np.linspace(-0.5, 0.5, VOCAB, dtype=np.float32)
    return m, params


@functools.cache
def forward(name):
    m, params = made(name)
    return jax.jit(lambda ids, where: m.logits(params, m.hidden(params, ids, where)))


def greedy(prompt, name="default", stop=(), new=NEW):
    """Without a cache: the whole text again for every token."""
    text, width = list(prompt), 64
    for _ in range(new):
        ids, segments = np.zeros((1, width), np.int32), np.zeros((1, width), np.int32)
        ids[0, : len(text)], segments[0, : len(text)] = text, 1
        logits = forward(name)(ids, TokenInfo(segments, np.arange(width)[None] * segments))[
            0, len(text) - 1
        ]
        text.append(int(logits.argmax()))
        if text[-1] in stop:
            return text[len(prompt) : -1], True
    return text[len(prompt) :], False


def run(prompts=PROMPTS, name="default", **options):
    m, params = made(name)
    rest = {"max_new_tokens": NEW, "stop_ids": (), "seed": 0} | {
        k: options.pop(k) for k in ("max_new_tokens", "stop_ids", "seed") if k in options
    }
    return [
        (a.ids, a.stopped)
        for a in generate(m, params, prompts, GenerateConfig(**{"batch_size": 4} | options), **rest)
    ]


def some(count, longest=12, seed=0):
    """Prompts of many lengths, in no order."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCAB, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_cache_changes_nothing(name):  # guards E12, B3
    """Ragged prompts, more of them than a batch holds, one as wide as the width of its batch."""
    expected = [greedy(p, name) for p in PROMPTS]
    assert len({t for ids, _ in expected for t in ids}) > 3
    assert run(name=name) == expected


def test_it_stops_at_stop_tokens():  # guards C1, C3
    """Each row by itself, without the stop token, and says so."""
    free = [ids for ids, _ in run()]
    stop = (free[1][2], free[3][0])
    expected = [greedy(p, stop=stop) for p in PROMPTS]
    assert (
        run(stop_ids=stop) == expected and any(s for _, s in expected) and expected[3] == ([], True)
    )
    assert {s for _, s in run(max_new_tokens=1, stop_ids=stop)} == {
        s for _, s in [greedy(p, stop=stop, new=1) for p in PROMPTS]
    }


def test_rows_do_not_know_their_batch():
    """Greedy or sampled: alone, in a batch with filler, or with other prompts behind."""
    for temperature in (0.0, 1.0):
        expected = run(temperature=temperature, seed=3)
        for size in (1, 8):
            assert run(temperature=temperature, seed=3, batch_size=size) == expected
        assert run([*PROMPTS[:3], [1], [2]], temperature=temperature, seed=3)[:3] == expected[:3]


def test_sampling_is_seeded():  # guards H7
    one, again, other = (run(temperature=1.0, seed=s) for s in (0, 0, 1))
    assert one == again and one != other
    same = run([[5, 1]] * 8, temperature=1.0)
    assert len({tuple(ids) for ids, _ in same}) > 1
    assert run(temperature=1e-6, seed=5) == run()


def test_sampling_has_the_model_s_frequencies():
    prompts, temperature = [[5, 1, 2]] * 4000, 2.0
    drawn = [
        ids[0]
        for ids, _ in run(prompts, temperature=temperature, max_new_tokens=1, batch_size=4000)
    ]
    logits = (
        np.asarray(
            forward("default")(
                np.array([[5, 1, 2]]), TokenInfo(np.ones((1, 3), int), np.arange(3)[None])
            )
        )[0, 2].astype(float)
        / temperature
    )
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(
        np.bincount(drawn, minlength=VOCAB) / 4000, expected, atol=4 * np.sqrt(0.25 / 4000)
    )


def test_a_learned_table_ends():
    """Generation ends where there is no position left, instead of reading outside the table; rotary
    positions go on.
    """
    name = "learned, post-norm, untied"
    m, params = made(name, context=8)
    ask = lambda prompts: [
        len(a.ids)
        for a in generate(
            m, params, prompts, GenerateConfig(batch_size=2), max_new_tokens=NEW, stop_ids=()
        )
    ]
    assert ask([[1] * 5, [1]]) == [4, NEW]
    assert ask([[1] * 8]) == [1]
    with pytest.raises(
        ConfigError, match=r"9 tokens, but model\.positions=learned ends at model\.context=8"
    ):
        ask([[1] * 9])


def test_a_prompt_ends_where_training_ended():
    """Rotary positions go on, but what they say there was never learnt."""
    m, params = made(context=8)
    ask = lambda prompt, **options: generate(
        m, params, [prompt], GenerateConfig(batch_size=1, **options), max_new_tokens=2, stop_ids=()
    )
    with pytest.raises(
        ConfigError,
        match=r"^a prompt has 9 tokens, more than model\.context=8: .*generate\.allow_long=true$",
    ):
        ask([1] * 9)
    assert ask([1] * 8) and [(a.ids, a.stopped) for a in ask([1] * 9, allow_long=True)] == [
        greedy([1] * 9, new=2)
    ]


def test_widths():
    assert [width_of(n) for n in (1, 16, 17, 32, 33)] == [16, 16, 32, 32, 64]
    assert run([]) == []


def test_rows_are_filled_again():  # guards E12
    """Answers of many lengths go through few rows, the ring of slots goes round several times, and
    a long prompt makes it grow.
    """
    free = collections.Counter(t for ids, _ in run(some(19), max_new_tokens=10) for t in ids)
    stop = [token for token, _ in free.most_common(4)[2:]]
    prompts = [*some(19), list(range(17)) * 2]
    expected = [greedy(p, stop=stop, new=10) for p in prompts]
    lengths = [len(ids) for ids, _ in expected]
    assert len(set(lengths)) > 3 and sum(lengths) > 2 * (16 + 10), lengths
    assert run(prompts, stop_ids=stop, max_new_tokens=10, batch_size=1) == expected
    assert run(prompts, stop_ids=stop, max_new_tokens=10, batch_size=4) == expected


@pytest.mark.usefixtures("x64")
def test_batch_order_and_padding_change_no_token():  # guards E1, E12, H7
    """In float64, where ties do not hang on rounding; samples go by the number of their prompt."""
    m, params = made()
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    prompts, how = some(11, seed=1), {"max_new_tokens": 8, "stop_ids": [3, 5], "seed": 2}
    for options in ({}, {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.2}):
        ask = lambda prompts, size: generate(
            m, params, prompts, GenerateConfig(batch_size=size, **options), **how
        )
        expected = ask(prompts, 1)
        assert ask(prompts, 4) == expected
        assert ask([*prompts, [1] * 30], 4)[:11] == expected  # wider rows
        if not options:
            order = np.random.default_rng(0).permutation(11)
            assert [ask([prompts[i] for i in order], 4)[i] for i in np.argsort(order)] == expected


def test_other_options_are_no_other_program():  # guards H5
    run(temperature=0.5, stop_ids=[1])
    before = [f._cache_size() for f in (decode, refill, empty)]
    for options in (
        {"top_k": 3},
        {"top_p": 0.5},
        {"min_p": 0.1},
        {"repetition_penalty": 1.5},
        {"temperature": 0.0},
        {"seed": 9},
        {"stop_ids": [2]},
    ):
        run(some(9), **{"temperature": 1.5, "stop_ids": [1]} | options)
    assert [f._cache_size() for f in (decode, refill, empty)] == before


def test_a_mesh_changes_nothing():  # guards A3
    m, params = made()
    mesh = meshes.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    specs = weights.specs(jax.eval_shape(m.init, jax.random.key(0)))
    placed = jax.device_put(params, meshes.shardings(specs, mesh))
    prompts, how = some(9, seed=4), {"max_new_tokens": 5, "stop_ids": [3]}
    how |= {
        "read": lambda ids: "".join(chr(97 + i) for i in ids),
        "pieces": lambda: [chr(97 + i).encode() for i in range(m.vocab)],
    }
    for options in (
        {"batch_size": 4},
        {"batch_size": 6, "num_beams": 3, "stop": ["b", "fe"]},
    ):
        expected = generate(m, params, prompts, GenerateConfig(**options), **how)
        assert (
            generate(
                dataclasses.replace(m, mesh=mesh),
                placed,
                prompts,
                GenerateConfig(**options),
                mesh=mesh,
                **how,
            )
            == expected
        )


def test_answers_grow_token_by_token():
    """What is streamed is what comes out."""
    m, params = made()
    options, how = (
        GenerateConfig(batch_size=2),
        {
            "max_new_tokens": NEW,
            "stop_ids": [greedy(PROMPTS[1])[0][3]],
        },
    )
    seen = collections.defaultdict(list)
    for number, answer, complete in continuations(m, params, PROMPTS, options, every=1, **how):
        assert not (seen[number] and seen[number][-1][1])
        seen[number].append((answer, complete))
    expected = generate(m, params, PROMPTS, options, **how)
    assert [seen[i][-1] for i in range(len(PROMPTS))] == [(answer, True) for answer in expected]
    for number, steps in seen.items():
        assert [answer.ids for answer, _ in steps[:-1]] == [
            expected[number].ids[:n] for n in range(1, len(steps))
        ]


def test_stop_strings_end_rows():
    """The text is cut there, the ids end with the token that completes it, and the row is free for
    the next prompt.
    """
    m, params = made()
    read = lambda ids: "".join("abcdefghijklmnopq"[i] for i in ids)
    prompts = some(9, seed=5)
    free = [read(ids) for ids, _ in run(prompts, max_new_tokens=40)]
    stop = [free[0][20:22], free[3][5:7]]
    for size in (1, 4):
        out = generate(
            m,
            params,
            prompts,
            GenerateConfig(batch_size=size, stop=stop),
            max_new_tokens=40,
            stop_ids=(),
            read=read,
        )
        for answer, text in zip(out, free, strict=True):
            ends = [text.index(s) for s in stop if s in text]
            end = min((text.index(s) + len(s) for s in stop if s in text), default=40)
            assert (read(answer.ids), answer.text, answer.stopped) == (
                text[:end],
                text[: min(ends, default=40)],
                bool(ends),
            )
        assert sum(answer.stopped for answer in out) >= 2
    with pytest.raises(ConfigError, match=r"^generate\.stop: .*decode"):
        generate(m, params, prompts, GenerateConfig(stop=stop), max_new_tokens=4, stop_ids=())


def test_a_prompt_has_a_token():
    with pytest.raises(ConfigError, match=r"^prompt 2 has no token"):
        run([[1], []])
