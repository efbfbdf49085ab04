"""The loop in one process: what is compiled, when the device is waited for, what a bad step does,
and whether it learns.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.data import synthetic
from jaxsft.errors import ConfigError
from jaxsft.generation import decoding
from jaxsft.optim.decays.constant import Constant
from jaxsft.optim.decays.linear import LinearDecay
from jaxsft.optim.rules.adamw import AdamW
from jaxsft.rundir import read_json, read_jsonl
from jaxsft.training import loop
from jaxsft.training.checkpoint import Checkpoints
from jaxsft.training.components import Components
from jaxsft.training.recorder import Recorder
from jaxsft.training.session import Session
from jaxsft.training.trial import Diverged
from tests import tiny
from tests.compilations import compilations

SMALL = {
    "layers": 1,
    "embed": 8,
    "heads": 1,
    "kv_heads": 1,
    "head_dim": 8,
    "mlp": 8,
    "context": 64,
    "dropout": 0.1,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


def small(files, run_dir, task="chat", **groups):
    """7 steps an epoch (28 rows, unpacked, 4 a step)."""
    data = {
        "train": str(files / f"{task}.jsonl"),
        "validation": str(files / f"{task}_held.jsonl"),
        "packing": False,
        "max_length": 64,
    }
    given = {
        "data": data,
        "model": SMALL,
        "train": {"duration": "7steps", "batch_size": 4, "log_every": "1steps"},
    }
    given |= {
        "evaluation": {"generate": "never", "every": "7steps"},
        "checkpoint": {"every": "100steps"},
    }
    keys = given.keys() | groups.keys()
    return tiny.config(
        files,
        run_dir,
        task,
        **{k: given[k] | groups.get(k, {}) if k in given else groups[k] for k in keys},
    )


def lines(run_dir, kind="train"):
    return [
        {k: v for k, v in line.items() if k not in tiny.RATES}
        for line in read_jsonl(run_dir / "metrics.jsonl")
        if line["kind"] == kind
    ]


def test_the_schedule_ends_with_the_packed_batches(files, tmp_path):  # guards B14
    """28 rows are packed into fewer than 28: an epoch is as many steps as there are packed batches,
    and the rate reaches its end with the last.
    """
    data = {
        "train": str(files / "chat.jsonl"),
        "validation": None,
        "packing": True,
        "max_length": 64,
    }
    train = {"duration": "2epochs", "batch_size": 2, "log_every": "1steps"}
    result = loop.train(
        tiny.config(
            files,
            tmp_path / "run",
            "chat",
            data=data,
            model=SMALL,
            train=train,
            schedule=LinearDecay(warmup="0steps", final=0.5),
        )
    )
    packing = read_json(tmp_path / "run" / "ledger.json")["train"]["packing"]
    steps = -(-packing["rows"] // 2)
    assert packing["rows"] < 28 and result.numbers["train/steps"] == 2 * steps < 28
    rates = [line["learning_rate"] for line in lines(tmp_path / "run")]
    assert rates == pytest.approx(
        [0.01 * (1 - 0.5 * k / (2 * steps)) for k in range(2 * steps)], rel=1e-5
    )


# --- programs
# --------------------------------------------------------------------------------------------------
def test_nothing_is_compiled_twice(files, tmp_path, monkeypatch):
    """One program for the step and one for evaluation; a longer run, more evaluations and a partly
    filled last batch need no other.
    """
    with compilations() as names:  # the test can fail
        step = jax.jit(lambda x: x + 1)
        step(np.zeros(3)), step(np.zeros(3)), step(np.zeros(4))
    assert names == ["<lambda>"] * 2
    programs, shapes, decode = [], set(), decoding.decode
    seen = lambda model, params, state, *rest: (
        shapes.add(state.where.positions.shape) or decode(model, params, state, *rest)
    )
    monkeypatch.setattr(decoding, "decode", seen)
    for steps in (7, 21):
        with compilations() as names:
            loop.train(
                small(
                    files,
                    tmp_path / str(steps),
                    train={"duration": f"{steps}steps"},
                    evaluation={"generate": "always"},
                )
            )
        assert names.count("step") == names.count("evaluate") == 1, names
        programs.append(names)
    assert len(lines(tmp_path / "21", "validation")) == 3
    assert programs[0].count("decode") == len(shapes) <= 3
    # a second run in one process makes only what is its own
    assert sorted(programs[1]) == ["evaluate", "init_state", "step"]


# --- waiting for the device
# --------------------------------------------------------------------------------------------------
class Read(AssertionError):
    """Somebody looked at a number before it was due."""


class Sealed:
    """A result of the step that cannot be read, however it is tried: only a patched `fetch`, and
    the next step, can open it.
    """

    def __init__(self, value):
        self.value = value

    def refuse(self, *args, **kwargs):
        raise Read("a result of the step was read outside of fetch")

    __float__ = __int__ = __bool__ = __index__ = __array__ = __len__ = __iter__ = __format__ = (
        __getattr__
    ) = refuse
    __add__ = __mul__ = __lt__ = __gt__ = refuse


def unseal(tree):
    return jax.tree.map(lambda x: x.value if isinstance(x, Sealed) else x, tree)


@pytest.fixture
def sealed(monkeypatch):
    """Runs of the loop in which results are sealed and arrays refuse to be read while steps are
    taken. Gives the order of events.
    """
    events, reading = [], [True]
    compile_step, fetch, array = Session.compile, loop.fetch, type(jnp.zeros(1))

    def compiled(self, trial):
        compile_step(self, trial)
        run, evaluate = self.compiled, self.evaluate_batch
        self.evaluate_batch = lambda *args: opened(evaluate)(*unseal(args))

        def step(state, *args):
            new = run(unseal(state), *args)
            events.append("step")
            reading[0] = False
            return jax.tree.map(Sealed, new)

        step.memory_analysis = run.memory_analysis
        self.compiled = step

    def opened(function):
        def inner(*args, **kwargs):
            before, reading[0] = reading[0], True
            try:
                return function(*args, **kwargs)
            finally:
                reading[0] = before

        return inner

    def reads(tree):
        events.append("read")
        return opened(fetch)(unseal(tree))

    def open_after(owner, name):  # evaluation, saving and the end may wait
        function = getattr(owner, name)

        def inner(*args):
            owns = [args[0].trial] if isinstance(args[0], Recorder) else [one for one, _ in args[1]]
            for trial in owns:
                trial.state = unseal(trial.state)
            events.append(name)
            return opened(function)(*args)

        monkeypatch.setattr(owner, name, inner)

    def guard(name, method):
        def inner(*args, **kwargs):
            if not reading[0]:
                raise Read(f"{name} between two steps")
            return method(*args, **kwargs)

        monkeypatch.setattr(array, name, inner)

    for name in (
        "__float__",
        "__int__",
        "__bool__",
        "__index__",
        "__array__",
        "__format__",
        "item",
        "tolist",
        "block_until_ready",
    ):
        guard(name, getattr(array, name))
    for owner, name in ((loop, "_validate"), (Recorder, "save"), (loop, "_finish")):
        open_after(owner, name)
    monkeypatch.setattr(Session, "compile", compiled)
    monkeypatch.setattr(loop, "fetch", reads)
    return events


def test_nothing_waits_for_the_device(files, tmp_path, sealed):
    """Every number is read by `fetch`, one step late, but for the last ones before an evaluation or
    the end.
    """
    loop.train(small(files, tmp_path / "run", evaluation={"every": "4steps"}))
    late = ["step", "read"]
    assert sealed == [
        "step",
        *late * 3,
        "read",
        "_validate",
        "save",
        "step",
        *late * 2,
        "read",
        "_validate",
        "save",
        "_finish",
    ]
    assert [line["step"] for line in lines(tmp_path / "run")] == list(range(1, 8))


@pytest.mark.parametrize(
    "read",
    [
        lambda trial: float(trial.state.step),
        lambda trial: np.asarray(trial.state.skipped),
        lambda trial: jax.block_until_ready(trial.state),
        lambda trial: jnp.ones(2).sum().item(),
    ],
    ids=["float", "asarray", "block", "item of another array"],
)
def test_a_read_between_two_steps_is_caught(files, tmp_path, sealed, monkeypatch, read):
    put, announce, running = Components.put, Recorder.announce, []

    def curious(self, batch, batches):
        if sealed:
            read(running[0])
        return put(self, batch, batches)

    monkeypatch.setattr(
        Recorder, "announce", lambda self: running.append(self.trial) or announce(self)
    )

    monkeypatch.setattr(Components, "put", curious)
    with pytest.raises(Read):
        loop.train(small(files, tmp_path / "run"))
    assert sealed == ["step"]


# --- steps that cannot be taken
# --------------------------------------------------------------------------------------------------
@pytest.fixture
def poisoned(monkeypatch):
    """The third batch has a loss weight that is infinite."""
    put, count = Components.put, []

    def put_third(self, batch, batches):
        count.append(1)
        if len(count) == 4:  # the first one is for compilation
            batch = batch._replace(
                loss_weight=np.where(batch.loss_weight > 0, np.float32(np.inf), 0)
            )
        return put(self, batch, batches)

    monkeypatch.setattr(Components, "put", put_third)


def test_a_folder_of_something_else_is_left_alone(files, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "7").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"holds checkpoints of something else: .*choose another run_dir="
    ):
        loop.train(small(files, tmp_path))
    assert (tmp_path / "checkpoints" / "7").read_text() == "mine"


def test_a_run_that_diverges_stops(files, tmp_path, poisoned):  # guards E10, A7
    """One sentence with the step and what to do; the checkpoint is from before, and no result says
    that the run is complete.
    """
    with pytest.raises(
        Diverged,
        match=(
            r"^step 3: the gradient is not finite .*; lower optim\.learning_rate, or set"
            r" train\.on_nan=skip$"
        ),
    ):
        loop.train(small(files, tmp_path / "run", checkpoint={"every": "2steps"}))
    assert not (tmp_path / "run" / "result.json").exists()
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2]
    found = Checkpoints(tmp_path / "run")
    assert found.steps() == [2]
    found.close()


def test_a_bad_step_is_skipped_and_counted(files, tmp_path, poisoned, capfd):  # guards E10, A7
    result = loop.train(small(files, tmp_path / "run", train={"on_nan": "skip"}))
    assert result.numbers["train/skipped_steps"] == 1 and math.isfinite(
        result.numbers["validation/loss"]
    )
    found = lines(tmp_path / "run")
    assert [line["skipped"] for line in found] == [int(k == 2) for k in range(7)]
    # it is shown, not hidden
    assert [math.isfinite(float(line["loss"])) for line in found] == [k != 2 for k in range(7)]
    assert "step 3: skipped" in capfd.readouterr().err


# --- learning
# --------------------------------------------------------------------------------------------------
def test_ten_examples_are_learnt_by_heart(tmp_path):  # guards C1, C3, C10, C15
    """Generation gives the ten answers back and stops by itself: template, shift, mask, stop tokens
    and cache agree.
    """
    rows = synthetic.generate(1, 10)
    path = tiny.write_lines(tmp_path / "ten.jsonl", rows)
    config = tiny.config(
        tmp_path,
        tmp_path / "run",
        data={"train": str(path), "validation": str(path)},
        model={
            "layers": 2,
            "embed": 48,
            "heads": 2,
            "kv_heads": 2,
            "head_dim": 24,
            "mlp": 96,
            "dropout": 0.0,
        },
        train={"duration": "120steps", "batch_size": 4, "log_every": "40steps"},
        evaluation={"generate": "end", "every": "1000steps"},
        checkpoint={"every": "1000steps"},
        optim=AdamW(learning_rate=1e-2),
        schedule=Constant(warmup="0steps"),
    )
    numbers = loop.train(config).numbers
    assert (
        numbers["validation/exact_match"],
        numbers["validation/stopped"],
        numbers["validation/generated_rows"],
    ) == (1, 1, 10)
    assert numbers["validation/token_accuracy"] == 1
    predictions = read_jsonl(tmp_path / "run" / "predictions" / "validation.jsonl")
    assert [p["prediction"] for p in predictions] == [r["completion"] for r in rows]


# --- seeds
# --------------------------------------------------------------------------------------------------
def test_a_seed_is_a_run(files, tmp_path):  # guards F8, H7, I6
    """The same numbers to the bit for the same seed, others for another one, and for each of its
    parts alone.
    """
    seeds = {"one": {}, "again": {}, "other": {"seed": 1}} | {
        name: {"seeds": {name: 1}} for name in ("init", "data", "dropout")
    }
    for name, options in seeds.items():
        loop.train(small(files, tmp_path / name, train={"duration": "3steps"}, **options))
    streams = {name: [line["loss"] for line in lines(tmp_path / name)] for name in seeds}
    assert tiny.outcome(tmp_path / "one") == tiny.outcome(tmp_path / "again")
    assert len({tuple(s) for s in streams.values()}) == len(seeds) - 1
    init = read_json(tmp_path / "init" / "manifest.json")
    assert init["data"] == read_json(tmp_path / "one" / "manifest.json")["data"]
