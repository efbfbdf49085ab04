"""Beam search against the enumeration of all answers, and in any batch."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.config import adapters
from jaxsft.config.model import ModelConfig
from jaxsft.config.schema import GenerateConfig
from jaxsft.generation import beam, stops
from jaxsft.generation.decoding import generate
from jaxsft.models.attention import TokenInfo
from jaxsft.models.transformer import Transformer

VOCAB, NEW, STOP = 4, 3, 2
PROMPTS = [[3], [1, 0, 3, 1, 1], [0, 2], [1, 3, 3]]
HOW = {"max_new_tokens": 6, "stop_ids": [STOP]}
read = lambda ids: "".join("abcd"[i] for i in ids)


@pytest.fixture(scope="module")
def made():
    m = Transformer(ModelConfig(layers=1, embed=8, heads=2, kv_heads=1, head_dim=4, mlp=12), VOCAB)
    params = nn.meta.unbox(jax.jit(m.init)(jax.random.key(2)))
    params["embed"]["tokens"]["w"] = params["embed"]["tokens"]["w"] * 3
    return m, params


def enumerated(m, params, prompt, power, ends):
    """(best answer, its score, the second best) among all texts up to where they end, or of `NEW`
    tokens, from the whole model.
    """
    texts, p = [list(ids) for ids in itertools.product(range(VOCAB), repeat=NEW)], m.prompt_length
    tokens = np.array([[0] * p + prompt + ids for ids in texts], np.int32)
    where = TokenInfo(
        np.ones_like(tokens),
        np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32) - p, tokens.shape),
    )
    scores = jax.jit(
        lambda ids, where: jax.nn.log_softmax(m.logits(params, m.hidden(params, ids, where)), -1)
    )(tokens, where)
    scores = np.asarray(scores)[:, p + len(prompt) - 1 :]
    found = {}
    for i, ids in enumerate(texts):
        ids = ids[: next((n for n in range(1, NEW) if ends(ids[:n])), NEW)]
        found[tuple(ids)] = (
            sum(scores[i, t, token] for t, token in enumerate(ids)) / len(ids) ** power
        )
    best = max(found, key=found.get)
    return list(best), found[best], sorted(found.values())[-2]


def check(m, params, power, ends, **options):
    """Beams that are as wide as there are answers find the best."""
    how = GenerateConfig(
        num_beams=VOCAB**NEW, length_penalty=power, batch_size=1, stop=options.pop("stop", [])
    )
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    found = beam.answers(m, params, PROMPTS, how, max_new_tokens=NEW, **options)
    for prompt, (ids, score) in zip(PROMPTS, found, strict=True):
        wanted, best, second = enumerated(m, params, prompt, power, ends)
        assert ids == wanted and abs(score - best) < 1e-6 and best - second > 1e-6  # no tie decides
    assert len({tuple(ids) for ids, _ in found}) > 1
    return [ids for ids, _ in found]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stop, power", [([STOP], 0.0), ([], 1.0), ([], -0.5)])
def test_wide_beams_find_the_best_answer(made, stop, power):
    """Without a length penalty nothing finished is overtaken, and without a stop token all answers
    have one length: stopping is exact.
    """
    check(*made, power, lambda ids: ids[-1] in stop, stop_ids=stop)


@pytest.mark.usefixtures("x64")
def test_wide_beams_find_the_best_answer_up_to_a_stop_string(made):
    """Strings over two tokens, and a stop token beside them."""
    strings = ["dd", "ba"]
    ends = lambda ids: ids[-1] == STOP or any(s in read(ids) for s in strings)
    found = check(
        *made,
        0.0,
        ends,
        stop_ids=[STOP],
        stop=strings,
        read=read,
        pieces=lambda: [b"a", b"b", b"c", b"d"],
    )
    assert any(read(ids).endswith(s) and len(ids) < NEW for ids in found for s in strings)
    out = generate(
        *made,
        PROMPTS,
        GenerateConfig(num_beams=VOCAB**NEW, length_penalty=0.0, batch_size=1, stop=strings),
        max_new_tokens=NEW,
        stop_ids=[STOP],
        read=read,
    )
    for answer, ids in zip(out, found, strict=True):
        cut = min((read(ids).find(s) for s in strings if s in read(ids)), default=None)
        assert answer.text == (read(answer.ids) if cut is None else read(ids)[:cut]) and (
            cut is None or (answer.ids == ids and answer.stopped)
        )


@pytest.mark.parametrize("strings", [["dd", "ba"], ["ddd", "bda"], ["a", "cd"], ["b\ufffd"]])
def test_beams_are_read_only_where_a_string_may_end(made, strings):  # guards E12
    """Whatever is looked at: the answers and scores are those of a host that reads every candidate
    of every token.
    """
    m, params = made
    prompts, counts, found = [*PROMPTS, *([i % 4, i // 4] for i in range(12))], [], []
    for pieces in (None, lambda: [b"a", b"b", b"c", b"d"]):
        texts = []
        looked = lambda ids, texts=texts: texts.append(ids) or read(ids)
        how = GenerateConfig(num_beams=3, batch_size=9, stop=strings)
        found.append(
            beam.answers(
                m,
                params,
                prompts,
                how,
                max_new_tokens=12,
                stop_ids=[STOP],
                read=looked,
                pieces=pieces,
            )
        )
        counts.append(len(texts))
    assert found[0] == found[1]
    assert counts[1] == counts[0] if "\ufffd" in strings[0] else 0 < counts[1] < 0.8 * counts[0]
    assert "\ufffd" in strings[0] or any(
        stops.find(read(ids), strings) is not None for ids, _ in found[0]
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "adapter, positions",
    [(adapters.Prefix(tokens=2), "rope"), (adapters.Prompt(tokens=2), "learned")],
    ids=["prefix", "prompt"],
)
def test_virtual_tokens_stand_before_every_beam(made, adapter, positions):
    m, params = made
    m = dataclasses.replace(
        m, config=dataclasses.replace(m.config, positions=positions), adapter=adapter
    )
    own = nn.meta.unbox(jax.jit(m.init)(jax.random.key(3)))
    moved = jax.tree.map(
        lambda w: 2 * jax.random.normal(jax.random.key(w.size), w.shape), own["adapters"]
    )
    params = {**own, **params, "embed": own["embed"] | params["embed"], "adapters": moved}
    check(m, params, 0.0, lambda ids: ids[-1] == STOP, stop_ids=[STOP])


def test_options_of_beams_act(made):  # guards H5
    """`generate` gives what the beams find, which is not what the largest logits give; and what was
    written is penalised.
    """
    prompts = [[i % 4, i // 4] for i in range(12)]

    def ask(**options):
        return [
            answer.ids
            for answer in generate(
                *made,
                prompts,
                GenerateConfig(batch_size=9, **options),
                max_new_tokens=6,
                stop_ids=[],
            )
        ]

    found = beam.answers(
        *made, prompts, GenerateConfig(num_beams=3, batch_size=9), max_new_tokens=6, stop_ids=[]
    )
    assert ask(num_beams=3) == [ids for ids, _ in found] != ask()
    assert ask(num_beams=3, repetition_penalty=3.0) != ask(num_beams=3)


def test_prompts_do_not_know_their_batch(made):  # guards E12
    """Few rows, which are filled again, and one prompt for which the ring of slots grows."""
    m, params = made
    ask = lambda prompts, size: generate(
        m, params, prompts, GenerateConfig(num_beams=3, batch_size=size), **HOW
    )
    prompts = [*PROMPTS, *([i % 4, *[i // 4 % 4] * (i % 7), 3] for i in range(9)), [1, 0, 3] * 8]
    expected = [ask([prompt], 3)[0] for prompt in prompts]
    assert (
        ask(prompts, 3) == expected
        and ask(prompts[::-1], 6) == expected[::-1]
        and ask(prompts, 42) == expected
    )
    assert any(answer.stopped for answer in expected) and all(
        STOP not in answer.ids for answer in expected
    )
    assert len({len(answer.ids) for answer in expected}) > 1


def test_a_learned_table_ends():
    m = Transformer(
        ModelConfig(
            layers=1,
            embed=8,
            heads=2,
            kv_heads=1,
            head_dim=4,
            mlp=12,
            context=6,
            positions="learned",
        ),
        VOCAB,
    )
    params = nn.meta.unbox(jax.jit(m.init)(jax.random.key(0)))
    ask = lambda *prompts: generate(
        m, params, prompts, GenerateConfig(num_beams=2), max_new_tokens=4, stop_ids=[]
    )
    assert [len(answer.ids) for answer in ask([1] * 4, [1])] == [3, 4]
