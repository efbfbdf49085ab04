"""The trust suite of tasks that say something of each word: a sentence does not know its row, its
padding, or how its batch is cut.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxsft import tasks
from jaxsft.data.pipeline import Batches
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from tests.conftest import LABELS, assert_close, bench, distance, make_config, make_records, short

VARIANTS = {
    "tag": ("tag", {}),
    "tag, mean": ("tag", {"align": "mean"}),
    "tag, all": ("tag", {"align": "all"}),
    "tag, crf": ("tag", {"crf": True, "valid": True}),
    "joint": ("joint", {"tags": 0.5}),
    "parse": ("parse", {"arc": 8, "label": 4, "upos": 0.5}),
}
pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def packed(variant, packing=True, max_length="auto", **train):
    """All rows in one batch, in the plan's order; the head is off its start, where a chain and
    priors are zero.
    """
    task, options = VARIANTS[variant]
    b = bench(
        task,
        data={"packing": packing, "max_length": max_length},
        train={"batch_size": 16, **train},
        task=options,
        longest=20,
    )
    rng = np.random.default_rng(0)
    head = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape), b.params["head"])
    return dataclasses.replace(
        b,
        params=b.params | {"head": head},
        batches=Batches(b.batches.split, b.batches.plan, 16, None),
    )


def padded_left(batch):
    """The same rows with the padding in front; what points to positions follows, what points to
    words stays.
    """

    def move(x):
        x = np.array(x)
        for i, segments in enumerate(batch.segment_ids):
            x[i] = np.roll(x[i], int((segments == 0).sum()), axis=0)
        return x

    shift = (batch.segment_ids == 0).sum(1, keepdims=True)
    words = {
        k: np.where(batch.words["segment"] > 0, v + shift, v) if k in ("start", "stop") else v
        for k, v in batch.words.items()
    }
    return batch._replace(
        **{k: move(getattr(batch, k)) for k in ("tokens", "segment_ids", "positions")}, words=words
    )


def told(b, batch):
    """Terms, totals, and what was said of every word by (text, number)."""
    (terms, totals, _), columns = b.evaluate(*b.apart, batch, b.hyper)
    columns = b.parts.task.decoded({k: np.asarray(v) for k, v in columns.items()})
    out = {}
    for i, segments in enumerate(batch.words["segment"]):
        for j in np.flatnonzero(segments):
            key = (int(batch.example_ids[i, segments[j] - 1]), int(batch.words["index"][i, j]))
            out[key] = {
                name: int(v[i, j]) for name, v in columns.items() if name.startswith("word.")
            }
            if "intent" in columns:
                out[key]["intent"] = int(columns["intent"][i, segments[j] - 1].argmax())
    return terms, totals, out


@pytest.mark.parametrize("variant", short(list(VARIANTS), "tag, crf", "parse"))
def test_a_sentence_does_not_know_its_mates_or_its_padding(variant):  # guards B1, B3, B5, E11
    b, wide = packed(variant), packed(variant, packing=False, max_length=64)
    batch, alone = b.batches[0], wide.batches[0]
    assert (
        batch.example_ids.shape[1] > 2
        and (alone.segment_ids.max(1)[:13] == 1).all()
        and alone.tokens.shape[1] > batch.tokens.shape[1]
    )
    expected = told(wide, alone)
    assert len(expected[2]) == sum(len(r.tokens) for r in b.batches.split.records)
    # the untrained model says different things
    assert len({tuple(v.items()) for v in expected[2].values()}) > 2
    for found in (told(b, batch), told(b, padded_left(batch))):
        assert_close(found[:2], expected[:2], rtol=1e-12)
        assert found[2] == expected[2]


@pytest.mark.parametrize("variant", short(list(VARIANTS), "tag, crf", "parse"))
def test_any_cut_into_micro_batches_is_one_step(variant):  # guards A1
    task, options = VARIANTS[variant]
    whole, cut = (
        bench(
            task,
            24,
            task=options,
            model={"layers": 1},
            train={"batch_size": 4, "accumulate": n},
            longest=20,
        )
        for n in (1, 4)
    )
    (one, a), (four, c) = whole.run(1), cut.run(1)
    assert distance(one.trainable, whole.state().trainable) > 1e-4
    assert_close(one.trainable, four.trainable, atol=1e-13)
    assert_close(a.terms, c.terms, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["tag, crf", "parse"])
def test_the_same_on_several_devices(variant):
    task, options = VARIANTS[variant]
    run = lambda **mesh: bench(
        task, 24, task=options, train={"batch_size": 4}, mesh=mesh, longest=20
    ).run(2)[0]
    assert_close(
        jax.device_get(run().trainable), jax.device_get(run(data=2, fsdp=2).trainable), atol=1e-13
    )


@pytest.mark.parametrize("variant", short(list(VARIANTS), "tag, crf", "parse"))
def test_a_weight_of_a_row_multiplies_its_words(variant):
    b = packed(variant)
    batch = b.batches[0]
    twice = batch._replace(words=batch.words | {"weight": batch.words["weight"] * 2})
    (terms, totals, _), _ = b.evaluate(*b.apart, batch, b.hyper)
    (terms2, totals2, _), _ = b.evaluate(*b.apart, twice, b.hyper)
    of_words = lambda terms: {k: v for k, v in terms.items() if k != "intent"}
    assert_close(of_words(terms2), {k: 2 * v for k, v in of_words(terms).items()}, rtol=1e-12)
    assert_close(of_words(totals2), {k: 2 * v for k, v in of_words(totals).items()}, rtol=1e-12)


@pytest.mark.parametrize(
    "task, option, value",
    [
        *(
            ("tag", name, value)
            for name, value in (
                ("align", "mean"),
                ("align", "all"),
                ("crf", True),
                ("valid", True),
                ("labels", list("ABCDE")),
            )
        ),
        *(
            ("joint", name, value)
            for name, value in (("pool", "max"), ("tags", 0.5), ("intents", [*LABELS, "new"]))
        ),
        *(("parse", name, value) for name, value in (("arc", 9), ("label", 5), ("upos", 1.0))),
    ],
)
# guards H5; `decode` is compared in tests/tasks/test_parse.py
def test_an_option_changes_what_is_computed(task, option, value):
    """The program that scores a batch, or the weights that it needs."""
    if option in ("labels", "intents"):
        fitted = lambda **options: tasks.get(task).fit(
            make_config(task, task=options), Tokenizer.bytes(), *make_records(task, 5)
        )
        assert fitted() != fitted(**{option: value})
    else:
        assert program(task) != program(task, (option, value))


@functools.cache
def program(task, *options):
    small = {"arc": 8, "label": 4} if task == "parse" else {}
    b = bench(task, 5, task=small | dict(options), longest=20)
    return b.evaluate.lower(*b.apart, b.batches[0], b.hyper).as_text(), b.hyper["terms"]
