"""A cached backbone changes when numbers are computed, and none of them: the run is the one with
the backbone frozen, which runs it in every step.
"""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft import tasks
from jaxsft.config import optim as optims
from jaxsft.config import schema
from jaxsft.config.adapters import LoRA
from jaxsft.config.schema import FROZEN
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.rundir import read_json, read_jsonl
from jaxsft.training import backbone, device, loop, runs
from jaxsft.training.checkpoint import flatten
from jaxsft.training.components import build_components
from tests import tiny
from tests.conftest import assert_close, assert_same, bench, make_config, make_records, short
from tests.invariants.test_resume import Killed, kill_at

KINDS = {
    "a learnt query": ("classify", {"pool": "attention", "head": "dense"}, {}),
    "pairs apart": ("pair", {"encoder": "bi", "pool": "max"}, {"data": {"packing": False}}),
    "words": (
        "joint",
        {"align": "mean"},
        {"train": {"accumulate": 2}, "model": {"experts": 2, "experts_per_token": 1}},
    ),
    "on a mesh": ("tag", {}, {"mesh": {"data": 2}}),
}


def both(name, task, groups, folder):
    """Parts of a run; a batch that brings what the backbone gives of its texts, and the same
    without, for which the step runs the frozen backbone.
    """
    train = {"backbone": "cached"} | groups.get("train", {})
    given = groups | {"train": train, "data": {"cache_dir": str(folder)} | groups.get("data", {})}
    b = bench(name, 12, task=task, longest=20, **given)
    plain = b.batches[0]
    backbone.attach(b.parts, b.params, [b.batches])
    return b, b.batches[0], plain


@pytest.mark.parametrize("kind", short(list(KINDS), "words"))
# guards A1, E5
def test_a_step_on_what_is_cached_is_the_step_that_runs_the_backbone(kind, tmp_path, x64):
    """Packed or not, on a mesh, in micro-batches: terms, metric states, norm of the gradient and
    the trained head.
    """
    b, cached, plain = both(*KINDS[kind], tmp_path)
    assert plain.backbone is None and cached.backbone is not None
    assert_same(cached._replace(backbone=None), plain)
    (state, sums), (like, expected) = (
        b.step(b.state(), b.apart[1], b.put(batch), b.hyper) for batch in (cached, plain)
    )
    # that of routers is of a model that is run
    states = {name: expected.states[name] for name in sums.states}
    assert_close(
        (sums.terms, sums.states, sums.grad_norm),
        (expected.terms, states, expected.grad_norm),
        rtol=1e-10,
        atol=1e-10,
    )
    assert_close(state.trainable, like.trainable, rtol=1e-10, atol=1e-10)
    assert list(state.trainable) == ["head"] and float(sums.grad_norm) > 0


def test_nothing_of_the_backbone_is_in_the_step(tmp_path):
    """Whatever its weights are, the step gives the same; what it must compute is counted for the
    head alone.
    """
    b, cached, plain = both("classify", {}, {}, tmp_path)
    step, state, broken = jax.jit(b.program.step), b.state(), _nan(b.apart[1])
    assert_same(step(state, broken, cached, b.hyper), step(state, b.apart[1], cached, b.hyper))
    assert step(state, broken, plain, b.hyper)[1].skipped
    lengths, trained = (
        b.batches.sizes(0),
        dataclasses.replace(
            b.config, train=dataclasses.replace(b.config.train, backbone="trained")
        ),
    )
    flops = lambda config: device.model_flops(
        config, b.parts.task, b.parts.specs, b.program.specs, lengths
    )
    # forward and the gradient of w [16, 3]
    assert flops(b.config) == 2 * 2 * 16 * 3 * len(lengths) < flops(trained)


def _nan(tree):
    return {k: _nan(v) for k, v in tree.items()} if isinstance(tree, dict) else tree * np.nan


# --- whole runs
# --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tiny.data(tmp_path_factory.mktemp("data"))
    rng = np.random.default_rng(0)
    names, others = ["Ann", "Bob", "Lee"], ["sees", "hears", "and", "the", "sea"]
    for name, rows in (("tags", 24), ("tags_held", 9)):
        words = [
            [
                str(rng.choice(names if rng.random() < 0.4 else others))
                for _ in range(rng.integers(2, 7))
            ]
            for _ in range(rows)
        ]
        tiny.write_lines(
            folder / f"{name}.jsonl",
            [{"tokens": w, "tags": ["NAME" if x in names else "O" for x in w]} for w in words],
        )
    return folder


def config(files, run_dir, task="classify", /, **groups):
    """A run of four epochs; the size of its batches does not divide them."""
    still = {
        "layers": 1,
        "embed": 16,
        "heads": 2,
        "kv_heads": 2,
        "head_dim": 8,
        "mlp": 32,
        "context": 128,
        "causal": False,
        "dropout": 0.0,
    }
    stem = {"classify": "labels", "tag": "tags"}[task]
    data = {
        "train": str(files / f"{stem}.jsonl"),
        "validation": str(files / f"{stem}_held.jsonl"),
        "cache_dir": str(run_dir.parent / "cache"),
    }
    train = {
        "duration": "10steps",
        "batch_size": 2,
        "log_every": "1steps",
        "backbone": "cached",
    } | groups.pop("train", {})
    given = {
        "model": still,
        "data": data | groups.pop("data", {}),
        "train": train,
        "optim": optims.OPTIMIZERS["adamw"](learning_rate=0.05),
    }
    return tiny.config(files, run_dir, task, **given, **groups)


@pytest.mark.parametrize("task", short(["classify", "tag"], "classify"))
def test_a_run_is_the_run_with_train_freeze(files, tmp_path, task):  # guards E1, F1
    """In float32 to rounding: every training and validation line, the predictions, and the
    weights."""
    loop.train(config(files, tmp_path / "cached", task))
    loop.train(
        config(files, tmp_path / "frozen", task, train={"backbone": "trained", "freeze": [FROZEN]})
    )
    cached, frozen = (tiny.outcome(tmp_path / name) for name in ("cached", "frozen"))
    assert cached["result"] == pytest.approx(frozen["result"], rel=1e-4, abs=1e-6)
    assert len(cached["metrics"]) == len(frozen["metrics"]) > 10
    for line, expected in zip(cached["metrics"], frozen["metrics"], strict=True):
        assert line.pop("kind") == expected.pop("kind") and line == pytest.approx(
            expected, rel=1e-4, abs=1e-6
        )
    a, b = (runs.open_run(tmp_path / name) for name in ("cached", "frozen"))
    assert_close(a.weights, b.weights, rtol=1e-3, atol=1e-5)
    assert_same(a.frozen, b.frozen)
    predicted = [
        [
            line["prediction"]
            for line in read_jsonl(tmp_path / name / "predictions" / "validation.jsonl")
        ]
        for name in ("cached", "frozen")
    ]
    assert predicted[0] == predicted[1]


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    loop.train(
        config(
            files,
            folder / "run",
            evaluation={"on_train": True, "every": "4steps", "generate": "never"},
        )
    )
    return folder / "run"


@pytest.mark.slow
def test_a_run_is_like_any_other_to_what_opens_it(whole, files, tmp_path):  # guards F2
    """`eval` runs the whole model and finds the same metrics; `predict` answers; another run starts
    from it.
    """
    result = read_json(whole / "result.json")
    for split, file in (("validation", "labels_held"), ("train", "labels")):
        code, out, err = tiny.jaxsft("eval", f"run={whole}", f"data.path={files / file}.jsonl")
        assert code == 0, err
        found, same = json.loads(out), ("loss", "accuracy", "f1_macro")
        assert [found[f"{file}/{name}"] for name in same] == pytest.approx(
            [result[f"{split}/{name}"] for name in same], rel=1e-4
        )
    loop.train(
        config(
            files,
            tmp_path / "next",
            train={"init_from": str(whole), "backbone": "trained", "duration": "1steps"},
        )
    )
    assert_same(runs.open_run(tmp_path / "next").parts.specs, runs.open_run(whole).parts.specs)


# guards F1, F4, F9
def test_a_killed_run_ends_like_one_that_was_not(whole, files, tmp_path, monkeypatch):
    """In the middle of an epoch, and although the cache is gone meanwhile."""
    run = config(
        files,
        tmp_path / "run",
        evaluation={"on_train": True, "every": "4steps", "generate": "never"},
    )
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, "_read", 6)
        loop.train(run)
    for path in (tmp_path / "cache" / "backbone").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-1])
    loop.train(run)
    assert tiny.outcome(tmp_path / "run") == tiny.outcome(whole)


# guards D7
def test_another_run_from_the_same_weights_finds_the_states(
    whole, files, tmp_path, monkeypatch, capsys
):
    """Whatever its seed, its batches and its head are."""
    monkeypatch.setattr(backbone, "_write", None)
    train = {
        "init_from": str(whole),
        "init_fresh": ["head/.*"],
        "duration": "2steps",
        "batch_size": 4,
    }
    cache_dir = {"cache_dir": str(whole.parent / "cache")}
    loop.train(
        config(
            files,
            tmp_path / "run",
            train=train,
            data=cache_dir,
            seed=3,
            loss={"label_smoothing": 0.1},
        )
    )
    told = capsys.readouterr().out
    assert (
        told.count(f"MiB, found in {whole.parent / 'cache' / 'backbone'}") == 2
        and "only the head has a gradient" in told
    )


def named(rows=6, name="classify", weights=1.0, **groups):
    """The name under which the states of a split are kept."""
    made, records = (
        make_config(name, **groups | {"train": {"backbone": "cached"} | groups.get("train", {})}),
        make_records(name, rows, longest=20),
    )
    kind, tokenizer = tasks.get(name), Tokenizer.bytes()
    parts = build_components(made, tokenizer, kind.fit(made, tokenizer, *records))
    return backbone.key(parts, {"norm/scale": jnp.full(3, weights)}, parts.split("train", records))


def test_the_name_tells_apart_what_the_states_depend_on():  # guards D7
    changes = {
        "nothing": {},
        "texts": {"rows": 7},
        "weights": {"weights": 1.5},
        "model": {"model": {"activation": "relu"}},
        "pool": {"task": {"pool": "max"}},
        "tokens": {"task": {"pool": "attention"}},
        "packing": {"data": {"packing": False}},
        "plan": {"data": {"plan_seed": 1}},
        "length": {"data": {"max_length": 48}},
        "precision": {"precision": "bf16"},
    }
    names = {what: named(**change) for what, change in changes.items()}
    assert len(set(names.values())) == len(changes), names
    for same in (
        {"seed": 3},
        {"task": {"head": "dense"}},
        {"loss": {"label_smoothing": 0.1}},
        {"train": {"batch_size": 4}},
    ):
        assert named(**same) == names["nothing"], same


@pytest.mark.parametrize(
    "limit, stays", short([(None, True), (1.0, True), (1e-6, False)], (1e-6, False))
)
def test_features_that_are_too_much_are_removed(files, tmp_path, capsys, limit, stays):
    """Of other runs only: 1,074 bytes are less than this run needs for itself."""
    other = tmp_path / "cache" / "backbone" / "of-another-run"
    other.mkdir(parents=True)
    (other / "backbone.npy").write_bytes(bytes(1000))
    loop.train(
        config(files, tmp_path / "run", train={"backbone_limit": limit, "duration": "1steps"})
    )
    told = capsys.readouterr().out
    assert other.is_dir() == stays and len(list(other.parent.iterdir())) == 2 + stays
    size = sum(path.stat().st_size for path in other.parent.rglob("*.*")) / 2**20
    gone = (
        "nothing is removed (train.backbone_limit=null)"
        if limit is None
        else f"{int(not stays)} removed (train.backbone_limit={limit})"
    )
    assert f"{other.parent} holds features of {2 + stays} splits, {size:,.1f} MiB; {gone}" in told


def test_a_limit_that_nothing_reads_is_refused():  # guards H5
    with pytest.raises(
        ConfigError, match=r"train\.backbone_limit=1\.0: is read with train.backbone=cached"
    ):
        make_config("classify", train={"backbone_limit": 1.0})


def test_a_full_disk_is_an_error(files, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backbone.np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(
        DataError,
        match=(
            r"cannot write the cache of what the backbone gives \(No space left on device\); set"
            r" data.cache_dir"
        ),
    ):
        loop.train(config(files, tmp_path / "run"))
    assert not list((tmp_path / "cache" / "backbone").iterdir())


# --- refusals
# --------------------------------------------------------------------------------------------------
COLUMNS = {"columns": schema.Columns(features=["age"])}
REFUSED = {
    "adapter=lora": ("classify", {"adapter": LoRA()}),
    "task=chat": ("chat", {}),
    "train.unfreeze_every=1steps": ("classify", {"train": {"unfreeze_every": "1steps"}}),
    "train.neftune=5.0": ("classify", {"train": {"neftune": 5.0}}),
    "model.dropout=0.1": ("classify", {"model": {"dropout": 0.1}}),
    "loss.balance=0.1": (
        "classify",
        {"model": {"experts": 2, "experts_per_token": 1}, "loss": {"balance": 0.1}},
    ),
    "task.features=tokens": ("classify", {"data": COLUMNS}),
    "task.loss=mse": ("pair", {"task": {"encoder": "bi", "loss": "mse"}}),
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_would_move_the_backbone_is_refused(option):  # guards H5
    name, groups = REFUSED[option]
    make_config(name, **groups)
    with pytest.raises(ConfigError, match=f"^train.backbone=cached excludes {option}: "):
        make_config(name, **groups | {"train": {"backbone": "cached"} | groups.get("train", {})})


def test_a_part_of_the_head_may_be_frozen_too():
    config = make_config(
        "classify",
        task={"head": "dense"},
        train={"backbone": "cached", "freeze": ["head/dense/.*"]},
    )
    parts = build_components(config, Tokenizer.bytes(), {"labels": ["a", "b"]})
    assert sorted(flatten(parts.program.specs)) == ["head/out/b", "head/out/w"]
