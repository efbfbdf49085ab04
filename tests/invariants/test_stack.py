"""Trials of a stack are their solo runs: the same order of the rows, losses, numbers, predictions
and files. In float32, where a sum of another order rounds otherwise: within 1e-5.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config import adapters
from jaxsft.config.optim import OPTIMIZERS
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.optim.rules.adamw import AdamW
from jaxsft.rundir import read_json, read_jsonl
from jaxsft.runlock import RunLock
from jaxsft.training import device, loop, recorder, stack
from jaxsft.training.stacked_session import StackedSession, stacked
from jaxsft.training.trial import Diverged
from tests import tiny
from tests.compilations import compilations
from tests.conftest import assert_close, bench, short


class Killed(BaseException):
    """Stands for `kill -9`."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def base(files, tmp_path_factory):
    """The run whose weights adapters and heads start from."""
    folder = tmp_path_factory.mktemp("base") / "run"
    train = {"duration": "2steps", "batch_size": 4}
    evaluation = {"every": "2steps", "generate": "never"}
    loop.train(config(files, folder, train=train, evaluation=evaluation))
    return folder


STEPS = {"duration": "6steps", "batch_size": 4, "log_every": "1steps"}
EVERY = {"every": "3steps", "generate": "never"}


SMALL = {"layers": 1, "embed": 8, "heads": 1, "kv_heads": 1, "head_dim": 8, "mlp": 16}


def config(files, folder, task="classify", seed=0, **groups):
    """A short run of a model of one layer; `groups` as of `tiny.config`."""
    groups = {"train": STEPS, "evaluation": EVERY, "checkpoint": {"every": "3steps"}} | groups
    groups["model"] = {**SMALL, "dropout": 0.0} | groups.get("model", {})
    return dataclasses.replace(tiny.config(files, folder, task, **groups), seed=seed)


def whole(files, folder, base):
    """Everything is trained; two data orders, durations, betas, decays, clips and dropout."""
    del base
    given = [
        {"optim": AdamW(learning_rate=1e-2), "model": {"dropout": 0.1}, "seed": 1},
        {
            "optim": AdamW(learning_rate=3e-3, b1=0.8, b2=0.9, eps=1e-6, weight_decay=0.3),
            "model": {"dropout": 0.3},
            "loss": {"label_smoothing": 0.2},
        },
        {
            "optim": AdamW(learning_rate=1e-2, clip_norm=0.1),
            "model": {"dropout": 0.1},
            "seed": 1,
            "train": {**STEPS, "duration": "3steps"},
        },
    ]
    for one in given:
        one.setdefault("loss", {"label_smoothing": 0.1})
    return [config(files, folder / str(i), "chat", **one) for i, one in enumerate(given)]


def lora(files, folder, base):
    """Adapters of two ranks, three scales and their own dropout, on one base."""
    train = {**STEPS, "init_from": str(base), "init_fresh": ["head/.*"]}
    given = [(2, 4.0, 0), (1, 16.0, 1)]
    return [
        config(
            files,
            folder / str(i),
            seed=seed,
            train=train,
            adapter=adapters.LoRA(rank=rank, alpha=alpha, dropout=0.1, target=[".*/q"]),
        )
        for i, (rank, alpha, seed) in enumerate(given)
    ]


def heads(files, folder, base):
    """Heads over the outputs of a frozen backbone, which is run once."""
    train = {**STEPS, "init_from": str(base), "init_fresh": ["head/.*"], "backbone": "cached"}
    given = [(1e-2, 0), (1e-3, 1), (1e-2, 1)]
    return [
        config(files, folder / str(i), seed=seed, train=train, optim=AdamW(learning_rate=rate))
        for i, (rate, seed) in enumerate(given)
    ]


def close(found, wanted, where="") -> None:
    """Asserts that two trees of JSON are alike, numbers within 1e-5."""
    assert type(found) is type(wanted) or {type(found), type(wanted)} <= {int, float}, where
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), where
        for key in wanted:
            close(found[key], wanted[key], f"{where}/{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for i, pair in enumerate(zip(found, wanted, strict=True)):
            close(*pair, f"{where}/{i}")
    elif isinstance(wanted, int | float):
        assert math.isclose(found, wanted, rel_tol=1e-5, abs_tol=1e-5), (where, found, wanted)
    else:
        assert found == wanted, where


def names(folder) -> set[str]:
    """The files of a run, without those whose names hold the time."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(("tensorboard/", "checkpoints/"))}


def rows_of(path):
    """The predictions of a file, as plain data."""
    if path.suffix != ".npz":
        return read_jsonl(path)
    with np.load(path, allow_pickle=False) as arrays:
        names = sorted({*arrays.files} - {"header"})  # it holds checksums of the others
        return {name: arrays[name].tolist() for name in names}


def check_same(found, wanted) -> None:
    """Asserts that two run directories hold the same run."""
    a, b = tiny.outcome(found), tiny.outcome(wanted)
    assert names(found) == names(wanted)
    close(a["result"], b["result"], "result")
    close(a["metrics"], b["metrics"], "metrics")
    assert a["predictions"].keys() == b["predictions"].keys()
    for name in b["predictions"]:
        close(*(rows_of(one / "predictions" / name) for one in (found, wanted)), name)
    for name in ("task.json", "ledger.json", "intervals.json"):
        close(*(read_json(one / name) for one in (found, wanted)), name)
    facts = [read_json(one / "manifest.json") for one in (found, wanted)]
    for key in ("run", "config", "data", "tokenizer", "task", "parameters", "versions"):
        assert facts[0][key] == facts[1][key], key
    kept = [sorted(p.name for p in (one / "checkpoints").iterdir()) for one in (found, wanted)]
    assert kept[0] == kept[1]
    of = [tiny.meta(one, int(kept[0][-1]))["leaves"] for one in (found, wanted)]
    assert of[0] == of[1]


def train(configs, on_event=stack.ignored) -> list:
    """Trains a stack, of which nothing may fail."""
    results = stack.train_stack(configs, on_event)
    for one in results:
        if isinstance(one, JaxsftError):
            raise one
    return results


@pytest.mark.parametrize(
    "made", short([whole, lora, heads], whole), ids=["chat, all weights", "LoRA", "heads"]
)
def test_trials_of_a_stack_are_their_solo_runs(made, files, base, tmp_path):
    configs = made(files, tmp_path / "stack", base)
    assert len({stack.stack_key(one) for one in configs}) == 1
    with compilations() as compiled:
        results = train(configs)
    assert compiled.count("step") == 1
    for one, result in zip(made(files, tmp_path / "solo", base), results, strict=True):
        loop.train(one)
        check_same(result.run_dir, tmp_path / "solo" / result.run_dir.name)
        close(read_json(result.run_dir / "result.json"), result.numbers)
    # and each is a run that is complete for the command
    assert loop.train(configs[1]).numbers == results[1].numbers


# --- one trial touches no other
# --------------------------------------------------------------------------------------------------
def plain(files, folder, rates, **groups):
    """Heads of one frozen model, which compile fast; by the number of the rate."""
    return [
        config(files, folder / str(i), optim=AdamW(learning_rate=rate), **groups)
        for i, rate in enumerate(rates)
    ]


@pytest.mark.slow
def test_what_ends_one_trial_touches_no_other(files, base, tmp_path):
    """One diverges, one loses patience, one is pruned by the search, one reaches its goal; the last
    is compacted.
    """
    train_of = {**STEPS, "init_from": str(base), "init_fresh": ["head/.*"], "on_nan": "stop"}
    train_of |= {"backbone": "cached", "duration": "8steps"}
    every = {"evaluation": {"every": "2steps", "generate": "never"}, "train": train_of}
    rates = [1e-2, 1e30, 1e-3, 0.0, 3e-3]
    told = []

    def made(folder):
        configs = plain(files, folder, rates, **every)
        patient = dataclasses.replace(configs[3].evaluation, patience=1)
        configs[3] = dataclasses.replace(configs[3], evaluation=patient)  # never gets better
        goal = dataclasses.replace(configs[4].train, until="validation/loss<100")
        configs[4] = dataclasses.replace(configs[4], train=goal)
        return configs

    def on_event(number, event, facts):
        told.append((number, event, facts.get("step")))
        if event == "done":  # whole, and nobody's any more, while the others go on
            run = tmp_path / "stack" / str(number)
            assert read_json(run / "result.json") == facts["outcome"].numbers
            RunLock(run).release()
        return event == "metric" and number == 2 and facts["step"] == 4

    with compilations() as compiled:
        results = stack.train_stack(made(tmp_path / "stack"), on_event)
    alone = made(tmp_path / "solo")
    with pytest.raises(Diverged) as diverged:
        loop.train(alone[1])
    assert isinstance(results[1], Diverged) and str(results[1]) == str(diverged.value)
    for i in (0, 3, 4):
        loop.train(alone[i])
        check_same(tmp_path / "stack" / str(i), tmp_path / "solo" / str(i))
    assert [results[i].numbers["train/steps"] for i in (0, 2, 3, 4)] == [8, 4, 4, 2]
    # what is left is one of five
    assert compiled.count("step") == 2
    ends = [(number, event) for number, event, _ in told if event in ("done", "failed")]
    assert sorted(ends) == [(0, "done"), (1, "failed"), (2, "done"), (3, "done"), (4, "done")]
    assert (0, "metric", 8) in told and (2, "metric", 6) not in told
    left = told.index((0, "metric", 6))
    ended = [number for number, event, _ in told[:left] if event in ("done", "failed")]
    assert sorted(ended) == [1, 2, 3, 4]


def test_a_goal_that_was_reached_survives_a_kill(files, base, tmp_path, monkeypatch):
    one = heads(files, tmp_path / "run", base)[0]
    one = dataclasses.replace(
        one, train=dataclasses.replace(one.train, until="validation/loss<1e9")
    )

    def kill(self):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(recorder.Recorder, "restore_best", kill)  # behind the checkpoint
        loop.train(one)
    assert loop.train(one).numbers["train/steps"] == 3  # of six


# --- a stack that is stopped
# --------------------------------------------------------------------------------------------------
def stop_at(monkeypatch, step):
    """SIGTERM while a step is started."""
    advance = loop._advance

    def stop(going, batch, number):
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(going, batch, number)

    monkeypatch.setattr(loop, "_advance", stop)


def test_a_stopped_or_killed_stack_goes_on_to_the_same_numbers(files, base, tmp_path, monkeypatch):
    """Together, alone, or from two steps, where it was killed between two checkpoints."""
    train(heads(files, tmp_path / "whole", base))
    configs = heads(files, tmp_path / "run", base)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        told = []
        stopped = stack.train_stack(configs, lambda *event: told.append(event[:2]))
    assert {one.stopped_by for one in stopped} == {signal.SIGTERM}
    assert told[-3:] == [(i, "interrupted") for i in range(3)]
    loop.train(configs[2])  # alone
    save, saves = recorder.Recorder.save, []

    def kill(self):
        saves.append(self)
        if len(saves) == 4:  # the first of two has been saved at the end
            raise Killed
        save(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(recorder.Recorder, "save", kill)
        stack.train_stack(configs)
    train(configs)
    for i in range(3):
        check_same(tmp_path / "run" / str(i), tmp_path / "whole" / str(i))


# --- how many at once, and which
# --------------------------------------------------------------------------------------------------
def test_what_does_not_fit_is_cut(files, base, tmp_path, monkeypatch, capsys):
    configs, widths = heads(files, tmp_path / "run", base), []
    begin = StackedSession.begin
    monkeypatch.setattr(
        StackedSession,
        "begin",
        lambda self, trials: (widths.append(len(trials)), begin(self, trials)),
    )
    memory = lambda self, trials: 100 + 50 * len(trials)
    monkeypatch.setattr(StackedSession, "memory", memory)
    monkeypatch.setattr(device, "room", lambda mesh, held: 200)
    train(configs)
    assert sorted(widths) == [1, 2]
    assert "2 at a time" in capsys.readouterr().err


def test_what_is_one_program(files, base, tmp_path):
    """What changes the program, the data or the clock changes the key; what is stacked does not."""
    like = lora(files, tmp_path, base)[0]
    key = stack.stack_key(like)
    of = lambda group, **values: dataclasses.replace(
        like, **{group: dataclasses.replace(getattr(like, group), **values)}
    )
    one = [
        of("adapter", rank=4, alpha=3.0, dropout=0.3),
        of("optim", b1=0.5, b2=0.6, eps=1e-3, weight_decay=0.7, learning_rate=1.0, clip_norm=None),
        of("train", duration="9steps"),
        of("seeds", init=4, data=5, dropout=6),
        of("evaluation", patience=3),
        of("train", until="validation/accuracy>=0.9"),
        of("schedule", warmup="3steps"),
        dataclasses.replace(like, seed=9, run_dir="elsewhere"),
    ]
    assert {stack.stack_key(other) for other in one} == {key}
    others = [
        of("adapter", dropout=0.0),
        of("adapter", target=[".*/v"]),
        of("data", max_length=32),
        of("train", batch_size=2),
        of("evaluation", every="2steps"),
        of("checkpoint", every="2steps"),
        of("train", log_every="2steps"),
        dataclasses.replace(like, profile="steps:1-2"),
    ]
    keys = [stack.stack_key(other) for other in others]
    assert len({key, *keys}) == 1 + len(keys)
    # what is drawn from a seed and not trained would differ
    drawn = dataclasses.replace(like.train, init_from=None, init_fresh=[])
    seeds = [dataclasses.replace(like, train=drawn, seed=seed) for seed in (0, 1)]
    assert stack.stack_key(seeds[0]) != stack.stack_key(seeds[1])
    # ranks that an optimizer of whole matrices would see
    muon = [
        dataclasses.replace(like, optim=OPTIMIZERS["muon"](), adapter=adapters.LoRA(rank=rank))
        for rank in (1, 2)
    ]
    assert stack.stack_key(muon[0]) != stack.stack_key(muon[1])


def test_a_trial_of_a_stack_needs_a_directory(files, tmp_path):
    one = dataclasses.replace(config(files, tmp_path / "run"), run_dir=None)
    (error,) = stack.train_stack([one])
    assert isinstance(error, ConfigError) and "run_dir" in str(error)


@pytest.mark.usefixtures("x64")
def test_ranks_and_scales_in_one_step_are_their_own_in_float64():
    """The adapter of a smaller rank is filled up with zeros, which stay zeros."""
    ranks, alphas = (1, 3), (2.0, 16.0)
    made = [
        bench(
            "classify",
            4,
            model={**SMALL, "dropout": 0.0},
            data={"packing": False},
            train={"batch_size": 4},
            adapter=adapters.LoRA(rank=rank, alpha=alpha, target=(".*/q",), scaling="sqrt"),
        )
        for rank, alpha in zip(ranks, alphas, strict=True)
    ]
    wide = made[-1]
    # weights that are far from their start, b among them
    moved = [
        jax.tree.map(
            lambda x, s=i: x + 0.3 * jax.random.normal(jax.random.key(s), x.shape, x.dtype),
            one.apart[0],
        )
        for i, one in enumerate(made)
    ]
    starts = [one.state(tree) for one, tree in zip(made, moved, strict=True)]
    hyper = jax.tree.map(lambda *x: np.stack(x), *[one.hyper for one in made])
    step = jax.jit(jax.vmap(wide.program.step, in_axes=(0, None, None, 0)))
    states, metrics = stacked(starts, jnp), None
    for _ in range(3):
        states, metrics = step(states, wide.apart[1], wide.batches[0], hyper)
    for i, one in enumerate(made):
        alone, sums = one.run([0, 0, 0], one.state(moved[i]))
        cut = lambda x, like, i=i: x[i][tuple(slice(n) for n in like.shape)]
        assert_close(jax.tree.map(cut, states, alone), alone, rtol=1e-12, atol=1e-12)
        own = jax.tree.map(lambda x, i=i: x[i], metrics)
        assert_close(own.terms, sums.terms, rtol=1e-12, atol=1e-12)
