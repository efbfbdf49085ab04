"""An interrupted run ends as if nothing had happened: the same lines, numbers and predictions, to
the bit.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import time

import numpy as np
import pytest

from jaxsft import rundir
from jaxsft.config import schema
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.training import components, loop, recorder, runs, setup
from jaxsft.training.checkpoint import flatten
from jaxsft.training.components import build_components
from jaxsft.training.session import Session
from tests import tiny
from tests.conftest import short


class Killed(BaseException):
    """Stands for `kill -9`: nothing of the loop's own handles it."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


KINDS = {
    "chat": {
        "task": "chat",
        "train": {"duration": "12steps", "batch_size": 4, "log_every": "3steps", "ema": 0.9},
        "evaluation": {"generate": "end", "every": "4steps"},
    },
    "classify": {
        "task": "classify",
        "train": {"duration": "12steps", "batch_size": 4, "log_every": "5steps", "accumulate": 2},
    },
    "frozen": {
        "task": "chat",
        "train": {"duration": "12steps", "batch_size": 4, "freeze": ["layers/0/.*"]},
        "checkpoint": {"every": "4steps", "include_base": True},
    },
}


@pytest.fixture(scope="module")
def whole(request, files, tmp_path_factory):
    """(options, outcome) of an uninterrupted run; its kind is the parameter."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    loop.train(tiny.config(files, folder, **KINDS[request.param]))
    return KINDS[request.param], tiny.outcome(folder)


def kill_at(monkeypatch, name: str, count: int) -> None:
    """The `count`-th call of a function of the loop, or of `Recorder.save`, is the last thing that
    the run does.
    """
    owner = recorder.Recorder if name == "save" else loop
    function, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.extend([1] * ([] not in args))  # there is nothing to be read before the second step
        if len(calls) == count:
            raise Killed
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


def stop_at(monkeypatch, reads: int) -> None:
    """SIGTERM while the loop reads a step for the `reads`-th time."""
    read, count = loop._read, []

    def stop(session, unread):
        count.extend(unread)
        if len(count) == reads and unread:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(session, unread)

    monkeypatch.setattr(loop, "_read", stop)


def worse_and_worse(monkeypatch) -> None:
    """The validation loss is the number of the step."""
    evaluate = Session.evaluate

    def measured(self, name, trial, **kwargs):
        result = evaluate(self, name, trial, **kwargs)
        return dataclasses.replace(result, numbers=result.numbers | {"loss": float(trial.step)})

    monkeypatch.setattr(Session, "evaluate", measured)


@pytest.mark.parametrize(
    "whole, places",
    [
        pytest.param("chat", [("_read", 3)], marks=pytest.mark.slow),
        ("chat", [("save", 2), ("_finish", 1)]),
        ("classify", [("_read", 6), ("_read", 4)]),
        pytest.param("frozen", [("save", 2), ("_finish", 1)], marks=pytest.mark.slow),
    ],
    ids=["chat, early", "chat, save and end", "classify, twice", "frozen, save and end"],
    indirect=["whole"],
)
# guards F1, F4, F6, F9
def test_a_killed_run_ends_like_one_that_was_not(whole, files, tmp_path, monkeypatch, places):
    options, outcome = whole
    config = tiny.config(files, tmp_path / "run", **options)
    for place in places:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, *place)
            loop.train(config)
        assert not (tmp_path / "run" / "result.json").exists()
    loop.train(config)
    assert tiny.outcome(tmp_path / "run") == outcome


@pytest.mark.parametrize(
    "whole, reads",
    [pytest.param("chat", 6, marks=pytest.mark.slow), ("classify", 7)],
    ids=["between evaluations", "where one is due"],
    indirect=["whole"],
)
# guards F1, F4
def test_a_stop_signal_saves_and_the_same_config_continues(
    whole, files, tmp_path, monkeypatch, reads
):
    options, outcome = whole
    config = tiny.config(files, tmp_path / "run", **options)
    with monkeypatch.context() as patch:
        stop_at(patch, reads)
        stopped = loop.train(config)
    assert (
        stopped.stopped_by == signal.SIGTERM
        and recorder.exit_code(stopped) == 143
        and not stopped.numbers
    )
    assert 0 < rundir.read_jsonl(tmp_path / "run" / "metrics.jsonl")[-1]["step"] < 12
    loop.train(config)
    assert tiny.outcome(tmp_path / "run") == outcome


def flip(folder) -> None:
    """One byte in the middle of the largest file."""
    file = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("whole", ["frozen"], indirect=True)
# guards F3, F9
def test_a_flipped_byte_costs_one_checkpoint_and_no_number(
    whole, files, tmp_path, monkeypatch, capsys
):
    options, outcome = whole
    config = tiny.config(files, tmp_path / "run", **options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, "_read", 11)
        loop.train(config)
    flip(tmp_path / "run" / "checkpoints" / "8" / "state")
    loop.train(config)
    assert "checkpoints/8: damaged" in capsys.readouterr().out
    assert (tmp_path / "run" / "damaged" / "step-8").is_dir()
    assert tiny.outcome(tmp_path / "run") == outcome


@pytest.mark.slow
def test_patience_and_best_survive(files, tmp_path, monkeypatch):  # guards F4
    def options(folder):
        evaluation = {"generate": "never", "every": "1steps", "patience": 3}
        train = {"duration": "40steps", "batch_size": 4, "log_every": "1steps"}
        optim = tiny.AdamW(learning_rate=0.3)  # too high: the loss on held-out rows soon rises
        return tiny.config(
            files,
            folder,
            evaluation=evaluation,
            train=train,
            optim=optim,
            checkpoint={"every": "1steps"},
        )

    whole = loop.train(options(tmp_path / "whole"))
    steps = whole.numbers["train/steps"]
    assert steps == whole.numbers["train/best_step"] + 3 < 40
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, "_validate", int(steps) - 1)  # in the middle of losing patience
        loop.train(options(tmp_path / "run"))
    loop.train(options(tmp_path / "run"))
    assert tiny.outcome(tmp_path / "run") == tiny.outcome(tmp_path / "whole")


@pytest.mark.slow
def test_kill_minus_nine(files, tmp_path):  # guards F1, F9
    args = [
        "train",
        "task=classify",
        f"data.train={files / 'labels.jsonl'}",
        f"data.test={files / 'labels_held.jsonl'}",
        *tiny.FAST,
    ]
    args += [
        "train.duration=60steps",
        "train.log_every=2steps",
        "checkpoint.every=20steps",
        "evaluation.every=20steps",  # a step of an evaluation is saved too
        "model.dropout=0.1",
    ]
    code, _, err = tiny.jaxsft(*args, f"run_dir={tmp_path / 'whole'}")
    assert code == 0, err
    killed = tiny.start(*args, f"run_dir={tmp_path / 'run'}", cwd=tmp_path)
    lines, until = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 600
    while (
        killed.poll() is None
        and time.monotonic() < until
        and not (lines.exists() and lines.read_bytes().count(b"\n") >= 5)
    ):
        time.sleep(0.01)
    killed.kill()
    assert killed.wait(30) == -signal.SIGKILL, killed.stderr.read()
    assert tiny.start(*args, f"run_dir={tmp_path / 'run'}", cwd=tmp_path).wait(600) == 0
    assert tiny.outcome(tmp_path / "run") == tiny.outcome(tmp_path / "whole")


# --- what a run directory refuses
# --------------------------------------------------------------------------------------------------
def test_a_run_directory_belongs_to_one_config(files, tmp_path):  # guards F7
    loop.train(tiny.config(files, tmp_path / "run", train={"duration": "2steps", "batch_size": 4}))
    with pytest.raises(
        ConfigError, match=r"holds a run with seed=0, this one has seed=1; choose another run_dir="
    ):
        loop.train(
            tiny.config(
                files, tmp_path / "run", train={"duration": "2steps", "batch_size": 4}, seed=1
            )
        )


def test_a_longer_duration_continues(files, tmp_path):  # guards F1
    options = lambda n: {
        "train": {"duration": f"{n}steps", "batch_size": 4, "log_every": "1steps"},
        "schedule": schema.SCHEDULES["constant"](warmup="0steps"),
    }
    loop.train(tiny.config(files, tmp_path / "run", **options(6)))
    loop.train(tiny.config(files, tmp_path / "run", **options(12)))
    loop.train(tiny.config(files, tmp_path / "whole", **options(12)))
    trained = lambda name: [
        x for x in tiny.outcome(tmp_path / name)["metrics"] if x["kind"] == "train"
    ]
    assert trained("run") == trained("whole")


@pytest.mark.slow
def test_changed_data_is_refused(files, tmp_path):  # guards D7
    own = tmp_path / "rows.jsonl"
    own.write_bytes((files / "chat.jsonl").read_bytes())
    config = tiny.config(
        files,
        tmp_path / "run",
        data={"train": str(own), "validation": None},
        train={"duration": "4steps", "batch_size": 4},
    )
    loop.train(config)
    (tmp_path / "run" / "result.json").unlink()
    tiny.write_lines(own, rundir.read_jsonl(own)[1:])
    with pytest.raises(ConfigError, match="the data of train changed since"):
        loop.train(config)


def test_data_that_changed_after_a_complete_run_is_refused(files, tmp_path):  # guards D7, F7
    own = tmp_path / "rows.jsonl"
    own.write_bytes((files / "chat.jsonl").read_bytes())
    template = tmp_path / "mine.jinja"
    template.write_text(
        "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}{% if"
        " add_generation_prompt %}<|user|>{% endif %}"
    )
    data, train = {"train": str(own), "validation": None}, {"duration": "2steps", "batch_size": 4}
    config = tiny.config(files, tmp_path / "run", data=data, train=train)
    config = dataclasses.replace(
        config, task=dataclasses.replace(config.task, template=str(template))
    )
    numbers = loop.train(config).numbers
    assert loop.train(config).numbers == numbers
    template.write_text(template.read_text().replace("<|user|>", "<|system|>"))
    with pytest.raises(ConfigError, match="the template or the labels changed since"):
        loop.train(config)
    tiny.write_lines(own, rundir.read_jsonl(own)[1:])
    with pytest.raises(
        ConfigError, match="the data of train, the template or the labels changed since"
    ):
        loop.train(config)


def test_a_shorter_duration_is_refused(files, tmp_path):  # guards F7
    options = lambda n: tiny.config(
        files, tmp_path / "run", train={"duration": f"{n}steps", "batch_size": 4}
    )
    loop.train(options(6))
    before = tiny.outcome(tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"has trained 6 steps already, more than train.duration=4steps"
    ):
        loop.train(options(4))
    assert (
        tiny.outcome(tmp_path / "run") == before
        and "duration: 6steps" in (tmp_path / "run" / "config.yaml").read_text()
    )


@pytest.mark.slow
# guards F1, F4
def test_an_evaluation_that_a_signal_put_off_counts_once_and_ends_patience(
    files, tmp_path, monkeypatch
):
    def options(folder, patience=None):
        evaluation = {"generate": "never", "every": "4steps", "patience": patience}
        return tiny.config(files, folder, evaluation=evaluation, checkpoint={"every": "6steps"})

    worse_and_worse(monkeypatch)
    for name, patience in (("one", None), ("two", 1)):
        loop.train(options(tmp_path / name / "whole", patience))
        steps = [
            x["step"]
            for x in tiny.outcome(tmp_path / name / "whole")["metrics"]
            if x["kind"] == "validation"
        ]
        assert steps == ([4, 8, 12] if patience is None else [4, 8])
        due = steps[-2] if patience is None else steps[-1]
        with monkeypatch.context() as patch:
            stop_at(patch, due - 1)  # read while the step at which it is due runs
            assert (
                loop.train(options(tmp_path / name / "run", patience)).stopped_by == signal.SIGTERM
            )
        if patience is None:  # killed again, after the evaluation and before the next checkpoint
            with monkeypatch.context() as patch, pytest.raises(Killed):
                kill_at(patch, "_read", 2)
                loop.train(options(tmp_path / name / "run", patience))
        loop.train(options(tmp_path / name / "run", patience))
        assert tiny.outcome(tmp_path / name / "run") == tiny.outcome(tmp_path / name / "whole")


# guards F3, F9
def test_a_damaged_best_step_costs_the_best_weights_and_says_so(
    files, tmp_path, monkeypatch, capsys
):
    worse_and_worse(monkeypatch)
    options = tiny.config(files, tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, "_finish", 1)
        loop.train(options)
    best = tiny.meta(tmp_path / "run", 12)["best"]["step"]
    assert best == 4
    flip(tmp_path / "run" / "checkpoints" / str(best) / "state")
    assert loop.train(options).numbers["train/best_step"] == 12
    assert (
        f"checkpoints/{best}: damaged" in (err := capsys.readouterr().err)
        and "not the best ones" in err
    )


# --- starting from another run
# --------------------------------------------------------------------------------------------------
def weights(folder) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in flatten(runs.open_run(folder).params).items()}


@pytest.fixture(scope="module")
def pretrained(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm") / "run"
    loop.train(tiny.config(files, folder, task="lm", train={"duration": "4steps", "batch_size": 4}))
    return folder


# guards F2, F3
def test_training_starts_from_the_weights_of_another_run(pretrained, files, tmp_path):
    train = {"duration": "1steps", "batch_size": 4, "init_from": str(pretrained)}
    loop.train(
        tiny.config(
            files,
            tmp_path / "run",
            train=train,
            optim=tiny.AdamW(learning_rate=0.0, weight_decay=0.0),
        )
    )
    before, after = weights(pretrained), weights(tmp_path / "run")
    assert before.keys() == after.keys() and all(
        np.array_equal(before[k], after[k]) for k in before
    )


def test_another_shape_or_tokenizer_is_refused(pretrained, files, tmp_path):  # guards F3
    model = {
        "layers": 2,
        "embed": 16,
        "heads": 2,
        "kv_heads": 2,
        "head_dim": 8,
        "mlp": 40,
        "context": 128,
    }
    train = {"duration": "1steps", "batch_size": 4, "init_from": str(pretrained)}
    with pytest.raises(
        CheckpointError, match=r"mlp.* is float32.*this model needs.*train.init_fresh"
    ):
        loop.train(tiny.config(files, tmp_path / "run", train=train, model=model))
    with pytest.raises(ConfigError, match="its tokenizer is another one; set tokenizer=pretrained"):
        loop.train(
            tiny.config(
                files,
                tmp_path / "other",
                train=train,
                tokenizer=schema.BpeTokenizer(vocab_size=300),
            )
        )


@pytest.mark.slow
def test_the_option_that_named_the_weights_is_told(pretrained, files, tmp_path):  # guards F3
    given = {
        "layers": 2,
        "embed": 16,
        "heads": 2,
        "kv_heads": 2,
        "head_dim": 8,
        "mlp": 32,
        "context": 128,
        "pretrained": str(pretrained),
    }
    parts = components.prepare(setup.resolve(tiny.config(files, tmp_path / "run", model=given)))[0]
    other = dataclasses.replace(parts, tokenizer=Tokenizer.train(["abc"], 300))
    with pytest.raises(
        ConfigError, match=rf"^model\.pretrained={pretrained}: its tokenizer is another one"
    ):
        runs.starting_params(other)
    wider = dataclasses.replace(parts.config.model, mlp=40)
    other = build_components(
        dataclasses.replace(parts.config, model=wider), parts.tokenizer, parts.task.state
    )
    with pytest.raises(
        CheckpointError, match=rf"^model\.pretrained={pretrained}: layers/.*mlp.* is float32"
    ):
        runs.starting_params(other)


@pytest.mark.slow
def test_a_run_that_starts_from_itself_is_one_sentence(pretrained, files, tmp_path):  # guards F2
    """A folder that was moved to the place of its own base: its frozen weights could be made from
    nothing.
    """
    train = {
        "duration": "1steps",
        "batch_size": 4,
        "init_from": str(tmp_path / "base"),
        "freeze": ["layers/0/.*"],
    }
    shutil.copytree(pretrained, tmp_path / "base")
    loop.train(tiny.config(files, tmp_path / "run", train=train))
    shutil.rmtree(tmp_path / "base")
    (tmp_path / "run").rename(tmp_path / "base")
    with pytest.raises(
        ConfigError, match=r"base: starts from itself, so its frozen weights cannot be made again$"
    ):
        runs.open_run(tmp_path / "base")


@pytest.mark.parametrize("content", short([{}, {"data": None}, []], {"data": None}))
# guards F7
def test_a_manifest_of_something_else_is_one_sentence(content, pretrained, files, tmp_path):
    shutil.copytree(pretrained, tmp_path / "run")
    rundir.write_json(tmp_path / "run" / "manifest.json", content)
    with pytest.raises(ConfigError, match=r"manifest\.json: not the manifest of a run"):
        loop.train(
            tiny.config(
                files, tmp_path / "run", task="lm", train={"duration": "4steps", "batch_size": 4}
            )
        )


def test_frozen_weights_are_those_of_the_start(pretrained, files, tmp_path):  # guards G10
    train = {
        "duration": "4steps",
        "batch_size": 4,
        "init_from": str(pretrained),
        "freeze": ["embed/.*", "layers/0/.*"],
    }
    loop.train(tiny.config(files, tmp_path / "run", train=train))
    run, before = runs.open_run(tmp_path / "run"), weights(pretrained)
    after = flatten(run.frozen)
    assert np.array_equal(after["embed/tokens/w"], before["embed/tokens/w"])
    assert all(np.array_equal(after[k], before[k][:1]) for k in after if k.startswith("layers/0/"))
    moved = {k: np.asarray(v) for k, v in flatten(run.weights).items() if k.startswith("layers/1/")}
    assert moved and all(
        not np.array_equal(v, before[k.replace("layers/1/", "layers/0/")][1:])
        for k, v in moved.items()
        if v.ndim > 2
    )


# guards F2, F3, G2
def test_weights_of_a_frozen_base_that_changed_are_refused(pretrained, files, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(pretrained, base)
    train = {
        "duration": "2steps",
        "batch_size": 4,
        "init_from": str(base),
        "freeze": ["layers/0/.*"],
    }
    loop.train(tiny.config(files, tmp_path / "run", train=train))
    shutil.rmtree(base)
    loop.train(
        tiny.config(files, base, task="lm", seed=7, train={"duration": "1steps", "batch_size": 4})
    )
    with pytest.raises(CheckpointError, match="are not those that this run was trained with"):
        runs.open_run(tmp_path / "run")
    with pytest.raises(
        ConfigError, match="the frozen weights are not those that this run was started with"
    ):
        loop.train(tiny.config(files, tmp_path / "run", train=train | {"duration": "4steps"}))


@pytest.mark.slow
def test_a_run_with_its_base_needs_no_other(pretrained, files, tmp_path):  # guards F2
    base = tmp_path / "base"
    shutil.copytree(pretrained, base)
    train = {
        "duration": "2steps",
        "batch_size": 4,
        "init_from": str(base),
        "freeze": ["layers/0/.*"],
    }
    loop.train(tiny.config(files, tmp_path / "run", train=train, checkpoint={"include_base": True}))
    shutil.rmtree(base)
    frozen, before = flatten(runs.open_run(tmp_path / "run").frozen), weights(pretrained)
    assert frozen and all(np.array_equal(after, before[name][:1]) for name, after in frozen.items())


def test_no_best_without_a_finite_number(files, tmp_path, monkeypatch, capsys):  # guards E10
    found = Session.evaluate

    def not_a_number(self, *args, **kwargs):
        result = found(self, *args, **kwargs)
        return dataclasses.replace(result, numbers=result.numbers | {"loss": float("nan")})

    monkeypatch.setattr(Session, "evaluate", not_a_number)
    result = loop.train(tiny.config(files, tmp_path / "run"))
    assert tiny.meta(tmp_path / "run", 12)["best"] == {"value": None, "step": None} and np.isnan(
        result.numbers["validation/loss"]
    )
    assert (
        "evaluation.metric=validation/loss was no finite number in any evaluation"
        in capsys.readouterr().err
    )
