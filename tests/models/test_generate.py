"""Generation with a cache against the whole model, run again for every token."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.config.model import ModelConfig
from jaxsft.config.schema import GenerateConfig
from jaxsft.errors import ConfigError
from jaxsft.models.attention import Tokens
from jaxsft.models.generate import generate
from jaxsft.models.heads import VocabHead
from jaxsft.models.kv import width_of
from jaxsft.models.transformer import Transformer

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
}


@functools.cache
def made(name="default", context=64):
    config = ModelConfig(layers=2, embed=16, heads=4, kv_heads=2, head_dim=4, mlp=24, context=context, **OPTIONS[name])
    m = Transformer(config, VOCAB, "fp32", None if config.tied else VocabHead(16, VOCAB, "fp32"))
    params = nn.meta.unbox(jax.jit(m.init)(jax.random.key(1)))
    # Far from uniform, so that no argmax hangs on rounding and a tied head does not only repeat.
    params["embed"]["tokens"]["w"] = params["embed"]["tokens"]["w"] * 4
    params["layers"] = jax.tree.map(lambda w: w * 3 if w.ndim > 2 else w, params["layers"])
    return m, params


@functools.cache
def forward(name):
    m, params = made(name)
    return jax.jit(lambda ids, where: m.hidden(params, ids, where) @ m.output_matrix(params))


def greedy(prompt, name="default", stop=(), new=NEW):
    """Without a cache: the whole text again for every token."""
    text, width = list(prompt), 32
    for _ in range(new):
        ids, segments = np.zeros((1, width), np.int32), np.zeros((1, width), np.int32)
        ids[0, : len(text)], segments[0, : len(text)] = text, 1
        logits = forward(name)(ids, Tokens(segments, np.arange(width)[None] * segments))[0, len(text) - 1]
        text.append(int(logits.argmax()))
        if text[-1] in stop:
            return text[len(prompt) : -1], True
    return text[len(prompt) :], False


def run(prompts=PROMPTS, name="default", **options):
    m, params = made(name)
    rest = {"max_new_tokens": NEW, "stop_ids": (), "seed": 0} | {k: options.pop(k) for k in ("max_new_tokens", "stop_ids", "seed") if k in options}
    return [(a.ids, a.stopped) for a in generate(m, params, prompts, GenerateConfig(**{"batch_size": 4} | options), **rest)]


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
    assert run(stop_ids=stop) == expected and any(s for _, s in expected) and expected[3] == ([], True)
    assert {s for _, s in run(max_new_tokens=1, stop_ids=stop)} == {s for _, s in [greedy(p, stop=stop, new=1) for p in PROMPTS]}


def test_rows_do_not_know_their_batch():
    """Greedy or sampled: alone, in pairs, in a batch with filler, or with other prompts behind."""
    for temperature in (0.0, 1.0):
        expected = run(temperature=temperature, seed=3)
        for size in (1, 2, 8):
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
    drawn = [ids[0] for ids, _ in run(prompts, temperature=temperature, max_new_tokens=1, batch_size=4000)]
    logits = np.asarray(forward("default")(np.array([[5, 1, 2]]), Tokens(np.ones((1, 3), int), np.arange(3)[None])))[0, 2].astype(float) / temperature
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(np.bincount(drawn, minlength=VOCAB) / 4000, expected, atol=4 * np.sqrt(0.25 / 4000))


def test_a_learned_table_ends():
    """Generation ends where there is no position left, instead of reading outside the table; rotary positions go on."""
    name = "learned, post-norm, untied"
    m, params = made(name, context=8)
    ask = lambda prompts: [len(a.ids) for a in generate(m, params, prompts, GenerateConfig(batch_size=2), max_new_tokens=NEW, stop_ids=())]
    assert ask([[1] * 5, [1]]) == [4, NEW]
    assert ask([[1] * 8]) == [1]
    with pytest.raises(ConfigError, match=r"9 tokens, but model\.positions=learned ends at model\.context=8"):
        ask([[1] * 9])


def test_widths():
    assert [width_of(n) for n in (1, 16, 17, 32, 33)] == [16, 16, 32, 32, 64]
    assert run([]) == []
