"""Rows whose tokens are spread over devices (`mesh.context`): the numbers of one device."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config.schema import MeshConfig
from jaxsft.errors import ConfigError
from jaxsft.models.attention import backends, blocked, reference, splash
from jaxsft.models.attention.needs import AttentionNeeds
from jaxsft.models.attention.score_options import ScoreOptions
from jaxsft.models.layer_stack import EVERYTHING
from jaxsft.rundir import read_jsonl
from jaxsft.sharding import mesh as meshes
from tests import conftest, tiny
from tests.invariants.test_step import chat, same_update
from tests.models.test_attention import qkv, rows

LENGTH, TEXTS = 2048, [[700, 300, 900], [37, 1211]]
HOW = ScoreOptions(True, 8**-0.5)


@functools.cache
def arrays():
    """Queries, keys and values of grouped heads in packed rows of 2,048 tokens."""
    return [jnp.asarray(x, jnp.float32) for x in qkv(2, LENGTH, LENGTH, 4, 2, n=8)]


@functools.cache
def program(name, **axes):
    """Computes attention on a mesh (without axes: the reference), and the gradients of q, k, v."""
    where, attend = jax.tree.map(jnp.asarray, rows(TEXTS, LENGTH)), reference.run
    if axes:
        needs = AttentionNeeds(LENGTH, LENGTH, 4, 2, 8, HOW, "fp32", True, None, True)
        attend = backends.attend(name, needs, meshes.make_mesh(MeshConfig(**axes)))

    def value(q, k, v, window):
        out = attend(q, k, v, where, where, HOW, "fp32", window)
        return jnp.sin(out).sum(), out

    return jax.jit(jax.grad(value, (0, 1, 2), has_aux=True))


MESHES = [
    ("ring", {"data": 1, "context": 4}),
    ("blocked", {"data": 1, "fsdp": 2, "context": 2, "tensor": 2}),
]


@pytest.mark.parametrize("name, axes", MESHES, ids=str)
def test_parts_of_rows_give_what_whole_ones_give(name, axes):
    """With a window and without one."""
    for window in (300, EVERYTHING):
        found, right = (f(*arrays(), window) for f in (program(name, **axes), program("reference")))
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name, axes", MESHES, ids=str)
def test_no_text_sees_another_one_on_another_device(name, axes):  # guards B1
    """The second text of the first row lies on two devices: outputs and gradients of others keep
    their bits when it changes.
    """
    where = rows(TEXTS, LENGTH).segment_ids
    changed = (where == 2) & (np.arange(2) == 0)[:, None]
    other = [jnp.where(changed[..., None, None], 2 * x + 1, x) for x in arrays()]
    run = program(name, **axes)
    pair = [jax.tree.leaves(run(*given, 300)) for given in (arrays(), other)]
    for one, two in zip(*pair, strict=True):
        differs = np.asarray(one != two).any((2, 3))
        assert differs[changed].all() and not differs[~changed].any()


def test_the_kernel_of_a_part_knows_its_place(monkeypatch):
    """Splash attention, whose mask goes by the place in the row, interpreted."""
    length = 512
    where = jax.tree.map(jnp.asarray, rows([[200, 312]], length))
    given = [jnp.asarray(x, jnp.float32) for x in qkv(1, length, length, 2, 1, n=16)]
    interpreted = lambda f: functools.partial(f, interpret=True)
    parts = (interpreted(splash.run), lambda *_: None, True, True, interpreted(splash.of_parts))
    monkeypatch.setitem(backends.BACKENDS, "splash", backends.Backend(*parts))

    def run(context, window):
        how = ScoreOptions(True, 0.25)
        needs = AttentionNeeds(length, length, 2, 1, 16, how, "fp32", True, window, True)
        mesh = meshes.make_mesh(MeshConfig(data=1, context=context))
        attend = backends.attend("splash" if context > 1 else "reference", needs, mesh)
        out = lambda *x: attend(*x, where, where, how, "fp32", window)
        value = lambda *x: (jnp.sin(out(*x)).sum(), out(*x))
        return jax.jit(jax.grad(value, (0, 1, 2), has_aux=True))(*given)

    found, right = run(4, 100), run(1, 100)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.usefixtures("x64")
def test_a_step_and_an_evaluation_do_not_depend_on_it(monkeypatch):  # guards A3
    """Packed rows, dropout, label smoothing, z-loss, windows and chunks of logits."""
    monkeypatch.setattr(blocked, "BLOCK", 16)
    like = {"packing": True, "batch_size": 4, "window": 9, "window_layers": (1,)}
    mesh = (("data", 1), ("fsdp", 2), ("context", 2), ("tensor", 2))
    one, spread = chat(**like), chat(attention="ring", chunk=7, mesh=mesh, **like)
    same_update(one, spread)
    evaluated = [b.evaluate(*b.apart, b.put(b.batches[0]), b.hyper) for b in (one, spread)]
    conftest.assert_close(*evaluated, rtol=1e-12)
    # no device holds the states of a whole row
    step = spread.step.lower(
        spread.state(), spread.apart[1], spread.put(spread.batches[0]), spread.hyper
    )
    text = step.compile().as_text()
    assert re.search(r"f64\[2,32,16\]", text) and not re.search(r"f64\[\d,64,(16|24|4,4)\]", text)


def test_a_run_has_the_losses_and_the_answers_of_one_device(tmp_path):
    files = tiny.data(tmp_path)
    given = ["train", "task=chat", *tiny.FAST, f"data.train={files / 'chat.jsonl'}"]
    given += [f"data.test={files / 'chat_held.jsonl'}", "train.log_every=1steps"]
    given += [
        "evaluation.generate=end",
        "generate.allow_cut=true",
        "train.batch_size=4",
        "train.duration=3steps",
    ]
    kept = []
    for name, more in {"one": [], "two": ["mesh.context=2"]}.items():
        code, _, err = tiny.jaxsft(*given, *more, f"run_dir={tmp_path / name}")
        assert code == 0, err
        losses = [r["loss"] for r in read_jsonl(tmp_path / name / "metrics.jsonl") if "loss" in r]
        answers = read_jsonl(tmp_path / name / "predictions" / "test.jsonl")
        kept.append((losses, [one["prediction"] for one in answers]))
    assert len(kept[0][0]) == 3 and kept[1][0] == pytest.approx(kept[0][0], rel=1e-5)
    assert kept[0][1] == kept[1][1] and any(kept[0][1])


def test_what_cannot_be_spread_is_refused():
    context = {"context": 2, "data": 1}
    with pytest.raises(ConfigError, match=r"data\.max_length=33: not divisible by mesh\.context=2"):
        conftest.make_config("lm", mesh=context, data={"max_length": 33})
    with pytest.raises(ConfigError, match=r"mesh\.context=2: model\.kind=gru reads a row token"):
        conftest.make_config("classify", mesh=context, model={"kind": "gru"})
    with pytest.raises(ConfigError, match=r"mesh\.context=5 does not divide rows of 32 tokens"):
        conftest.bench("lm", 3, mesh=context | {"context": 5})
