"""Beam search against the enumeration of all answers, and in any batch."""

import itertools

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.config.model import ModelConfig
from jaxsft.config.schema import GenerateConfig
from jaxsft.models import beam
from jaxsft.models.attention import Tokens
from jaxsft.models.generate import generate
from jaxsft.models.transformer import Transformer

VOCAB, NEW, STOP = 4, 3, 2
PROMPTS = [[3], [1, 0, 3, 1, 1], [0, 2], [1, 3, 3]]


@pytest.fixture(scope="module")
def made():
    m = Transformer(ModelConfig(layers=1, embed=8, heads=2, kv_heads=1, head_dim=4, mlp=12), VOCAB)
    params = nn.meta.unbox(jax.jit(m.init)(jax.random.key(2)))
    params["embed"]["tokens"]["w"] = params["embed"]["tokens"]["w"] * 3
    return m, params


def enumerated(m, params, prompt, stop, power):
    """(best answer, its score) among all that end with the stop token or have `NEW` tokens, from the whole model."""
    texts = [list(ids) for ids in itertools.product(range(VOCAB), repeat=NEW)]
    tokens = np.array([prompt + ids for ids in texts], np.int32)
    where = Tokens(np.ones_like(tokens), np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape))
    scores = np.asarray(jax.nn.log_softmax(m.logits(params, m.hidden(params, tokens, where)), -1))
    found = {}
    for i, ids in enumerate(texts):
        ids = ids[: ids.index(stop) + 1] if stop in ids else ids
        total = sum(scores[i, len(prompt) - 1 + t, token] for t, token in enumerate(ids))
        found[tuple(ids)] = total / len(ids) ** power
    best = max(found, key=found.get)
    return list(best), found[best], sorted(found.values())[-2]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stop, power", [(STOP, 0.0), (-1, 1.0), (-1, -0.5)])
def test_wide_beams_find_the_best_answer(made, stop, power):
    """Without a length penalty nothing finished is overtaken, and without a stop token all answers have one length: stopping is exact."""
    m, params = made
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    how = {"beams": VOCAB**NEW, "length_penalty": power, "repetition_penalty": 1.0, "max_new_tokens": NEW, "batch_size": 1, "mesh": None}
    found = beam.answers(m, params, PROMPTS, stop_ids=[] if stop < 0 else [stop], **how)
    for prompt, (ids, score) in zip(PROMPTS, found, strict=True):
        wanted, best, second = enumerated(m, params, prompt, stop, power)
        assert ids == wanted and abs(score - best) < 1e-6 and best - second > 1e-6  # no tie decides
    assert len({tuple(ids) for ids, _ in found}) > 1


def test_prompts_do_not_know_their_batch(made):
    m, params = made
    ask = lambda prompts, size: generate(m, params, prompts, GenerateConfig(num_beams=3, batch_size=size), max_new_tokens=6, stop_ids=[STOP])
    expected = ask(PROMPTS, 3)
    assert ask(PROMPTS, 12) == expected and ask(PROMPTS[::-1], 6) == expected[::-1]
    assert any(answer.stopped for answer in expected) and all(STOP not in answer.ids for answer in expected)


def test_a_learned_table_ends():
    m = Transformer(ModelConfig(layers=1, embed=8, heads=2, kv_heads=1, head_dim=4, mlp=12, context=6, positions="learned"), VOCAB)
    params = nn.meta.unbox(jax.jit(m.init)(jax.random.key(0)))
    ask = lambda *prompts: generate(m, params, prompts, GenerateConfig(num_beams=2), max_new_tokens=4, stop_ids=[])
    assert [len(answer.ids) for answer in ask([1] * 4, [1])] == [3, 4]
