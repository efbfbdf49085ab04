"""Distillation into classes: the divergence, and runs that a teacher teaches."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from jaxsft.config import schema
from jaxsft.config.distil_options import DistilConfig
from jaxsft.errors import ConfigError
from jaxsft.losses.terms.distillation import divergence
from jaxsft.tasks import specs
from jaxsft.training import loop, runs, setup, stack
from jaxsft.training import teacher as teaching
from jaxsft.training.session import Session
from tests import tiny


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_divergence_is_that_of_the_formula(direction):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 3, 5))

    def softmax(z):
        e = np.exp(z / 3)
        return e / e.sum(-1, keepdims=True)

    p, q = softmax(teacher), softmax(student)
    p, q = (p, q) if direction == "forward" else (q, p)
    with jax.enable_x64(True):
        found = divergence(student, teacher, 3.0, direction)
    np.testing.assert_allclose(found, 9 * (p * np.log(p / q)).sum(-1), rtol=1e-12)


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_thinks(tmp_path):
    """With another tokenizer and another order of labels; the labels of the student's rows count
    for almost nothing. Alone it is the run that it is in a stack.
    """
    files = tiny.data(tmp_path)

    def config(name, seed=0, **groups):
        train = {"duration": "12steps", "batch_size": 4} | groups.pop("train", {})
        made = tiny.config(
            files,
            tmp_path / name,
            task="classify",
            train=train,
            model={"dropout": 0.0, "layers": 1},
            evaluation={"every": "12steps", "on_train": True},
            checkpoint={"every": "12steps"},
            **groups,
        )
        return dataclasses.replace(made, seed=seed)

    bpe = schema.GROUPS["tokenizer"]["bpe"](vocab_size=300)
    loop.train(config("teacher", train={"duration": "6steps"}, tokenizer=bpe))
    name = str(tmp_path / "teacher")
    own = loop.train(
        config("student", distil=DistilConfig(teacher=name, weight=100.0, temperature=3.0))
    ).numbers
    pair = [
        config(f"s{w}", distil=DistilConfig(teacher=name, weight=w, temperature=3.0))
        for w in (1e-3, 100.0)
    ]
    none, same = (one.numbers for one in stack.train_stack(pair))
    for key, value in own.items():
        assert same[key] == pytest.approx(value, rel=1e-4), key

    session = Session(setup.resolve(pair[0]))
    batches = session.batches["train"]
    teaching.attach(session.components, batches)
    wanted = batches.split.arrays["segment.teacher"]
    p = np.exp(wanted) / np.exp(wanted).sum(-1, keepdims=True)
    run, far = runs.open_run(tmp_path / "student"), []
    for one in (run, runs.open_run(tmp_path / "s0.001")):
        _, logits = teaching._of_rows(one, batches.split.records, batches.split.where)
        q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        far.append(float((p * np.log(p / q)).sum(-1).mean()))
    assert far[0] < 0.5 * far[1] and none != same

    with pytest.raises(ConfigError, match="does not know the label 'nowhere'"):
        task = run.parts.task
        teaching._places(name, run, types.SimpleNamespace(spec=task.spec, labels=["nowhere"]))
    with pytest.raises(ConfigError, match="was trained by task=classify; expected task=pair"):
        teaching._places(
            name, run, types.SimpleNamespace(spec=specs.SPECS["pair"], name="pair", labels=[])
        )
