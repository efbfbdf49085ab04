"""What the trackers were given is read back with their own readers; a resumed run goes on in the
same place; one that fails ends no training.
"""

from __future__ import annotations

import contextvars
import dataclasses
import importlib
import importlib.machinery
import importlib.util
import math
import sys
import time
import types
from typing import ClassVar

import pytest

from jaxsft import rundir
from jaxsft.config import schema, validate
from jaxsft.errors import ConfigError
from jaxsft.training import loop, trackers
from tests import tiny
from tests.conftest import make_config
from tests.tiny import jaxsft


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


def needs(name):
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        pytest.skip(f"{name} is not installed: pip install jaxsft[{name}]")
    return importlib.import_module(name)


def tell(tmp_path, name, /, **options):
    """A run of two steps that is stopped, and goes on to its end; its directory and its id."""
    run = tmp_path / "run"
    run.mkdir()
    rundir.write_json(run / "manifest.json", {"versions": {}})
    config = dataclasses.replace(
        make_config(), trackers=schema.TrackersConfig(use=(name,), **options)
    )
    first = trackers.Trackers(run, config)
    first.scalars(1, {"train/loss": 2.5, "validation/准确率": 0.75})
    first.scalars(2, {"train/loss": 2.0})
    first.close()
    known = rundir.read_json(run / "manifest.json")["trackers"][name]
    time.sleep(1.1 if name == "wandb" else 0)  # the folder of an offline run is named by the second
    second = trackers.Trackers(run, config)
    second.scalars(2, {"train/loss": 1.5})  # a resumed run gives some steps again
    second.scalars(3, {"train/loss": math.nan})
    second.finish({"train/steps": 3, "test/loss": 1.25}, ok=True)
    second.close()
    assert rundir.read_json(run / "manifest.json") == {
        "versions": {},
        "trackers": {name: known},
    } and list(known) == ["id"]
    return run, known["id"]


# --- each of them, for real
# --------------------------------------------------------------------------------------------------
def wandb_records(path):
    """The records of a .wandb file: LevelDB's log format after a header of seven bytes, and W&B's
    own messages in it.
    """
    from wandb.proto import wandb_internal_pb2

    content, at, whole, records = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # the rest of a block is filled
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of a record, or its end
            records.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return records


def test_wandb_offline(tmp_path, monkeypatch):
    needs("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    run, known = tell(tmp_path, "wandb", project="trials", name="my run")
    logs, records = sorted(run.glob(f"wandb/offline-run-*-{known}/run-{known}.wandb")), []
    # its own process closes the file a moment after it says that the run is finished
    for _ in range(100):
        records = [record for path in logs for record in wandb_records(path)]
        if sum(r.HasField("exit") for r in records) == 2:
            break
        time.sleep(0.1)
    first, second = [r.run for r in records if r.HasField("run")]
    assert (
        (first.run_id, first.project, first.display_name)
        == (second.run_id, second.project, second.display_name)
        == (known, "trials", "my run")
    )
    lines = [
        {item.key or "/".join(item.nested_key): item.value_json for item in r.history.item}
        for r in records
        if r.HasField("history")
    ]
    assert [(int(line["step"]), float(line["train/loss"].strip('"'))) for line in lines[:3]] == [
        (1, 2.5),
        (2, 2.0),
        (2, 1.5),
    ]
    assert int(lines[3]["step"]) == 3 and math.isnan(float(lines[3]["train/loss"].strip('"')))
    assert float(lines[0]["validation/准确率"]) == 0.75
    assert [r.exit.exit_code for r in records if r.HasField("exit")] == [1, 0]
    summary = {
        item.key or "/".join(item.nested_key): item.value_json
        for r in records
        if r.HasField("summary")
        for item in r.summary.update
    }
    assert float(summary["test/loss"]) == 1.25


def test_mlflow_in_its_local_store(tmp_path, monkeypatch):
    needs("mlflow")
    needs("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run, known = tell(tmp_path, "mlflow", project="trials", name="my run")
    from mlflow import MlflowClient

    client = MlflowClient()
    [experiment] = [e for e in client.search_experiments() if e.name == "trials"]
    [found] = client.search_runs([experiment.experiment_id])
    assert (
        found.info.run_id == known
        and found.info.run_name == "my run"
        and found.info.status == "FINISHED"
    )
    assert found.data.params["model.layers"] == "2" and found.data.tags["run_dir"] == str(
        run.resolve()
    )
    assert [(m.step, m.value) for m in client.get_metric_history(known, "train/loss")][:3] == [
        (1, 2.5),
        (2, 2.0),
        (2, 1.5),
    ]
    assert (
        math.isnan(client.get_metric_history(known, "train/loss")[3].value)
        and found.data.metrics["validation/准确率"] == 0.75
    )
    assert found.data.metrics["result/test/loss"] == 1.25


def test_trackio_in_its_local_store(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))  # read at the import
    needs("trackio")
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    project = f"trials-{tmp_path.name}"
    _, known = tell(tmp_path, "trackio", project=project, name="my run")
    [found] = Api().runs(project)
    assert found.name == known and known.startswith("my run-") and found.config["model.layers"] == 2
    logs = SQLiteStorage.get_logs(project, known)
    losses = [(line["step"], line["train/loss"]) for line in logs if "train/loss" in line]
    assert losses[:3] == [(1, 2.5), (2, 2.0), (2, 1.5)] and logs[0]["validation/准确率"] == 0.75
    assert [line["result/test/loss"] for line in logs if "result/test/loss" in line] == [1.25]


def test_a_run_of_the_user_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))  # read at the import
    trackio = needs("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    project = f"own-{tmp_path.name}"
    trackio.init(project, "mine", embed=False, auto_log_gpu=False, auto_log_cpu=False)
    trackio.log({"a": 1.0}, step=1)
    tell(tmp_path, "trackio", project=f"trials-{tmp_path.name}")
    trackio.log({"a": 2.0}, step=2)  # the same current run as before
    trackio.finish()
    assert [line["a"] for line in SQLiteStorage.get_logs(project, "mine")] == [1.0, 2.0]


class Alone:
    """What Trackio does with the current run: a new one ends it, and `finish` ends the current
    one."""

    def __init__(self):
        self.current = contextvars.ContextVar("current", default=None)

    def init(self, project, name, **_):
        if self.current.get() is not None:
            self.finish()
        self.current.set(run := types.SimpleNamespace(name=name, lines=[], open=True))
        run.log = lambda values, step: run.lines.append((step, values))
        return run

    def finish(self):
        self.current.get().open = False
        self.current.set(None)


def test_a_current_run_of_the_user_is_not_ended(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", module := Alone())
    mine = module.init("p", "mine")
    tell(tmp_path, "trackio", name="run")
    assert mine.open and module.current.get() is mine


# --- what a run does with them
# --------------------------------------------------------------------------------------------------
class Notebook:
    """A tracker of the tests: it writes down what it is told, and fails where it is asked to."""

    told: ClassVar[list] = []
    fails = ""

    def start(self, run_dir, config, resume):
        self.note("start", resume, config.trackers.project)
        return resume or "id-1"

    def scalars(self, step, values):
        self.note("scalars", step, values)

    def finish(self, numbers, ok):
        self.note("finish", numbers, ok)

    def note(self, what, *facts):
        if what == self.fails:
            raise OSError("the disk\nis full")
        self.told.append((what, *facts))


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setattr(Notebook, "told", [])
    monkeypatch.setitem(trackers.KINDS, "wandb", Notebook)
    monkeypatch.setattr(validate, "_trackers", lambda use: None)
    return Notebook


def short(files, tmp_path, steps):
    given = {
        "train": {"duration": f"{steps}steps", "batch_size": 4, "log_every": "1steps"},
        "checkpoint": {"every": "2steps"},
    }
    return tiny.config(
        files,
        tmp_path / "run",
        trackers=schema.TrackersConfig(use=("wandb",), project="p"),
        **given,
    )


def test_a_run_tells_what_it_writes_and_goes_on_under_its_id(notebook, files, tmp_path):
    result = loop.train(short(files, tmp_path, 4))
    lines = rundir.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    told = [t for t in notebook.told if t[0] == "scalars"]
    assert [(t[1], t[2]) for t in told] == [
        (
            x["step"],
            {
                f"{x['kind']}/{k}": float(v)
                for k, v in x.items()
                if k not in ("step", "kind") and not isinstance(v, str)
            },
        )
        for x in lines
    ]
    assert notebook.told[0] == ("start", None, "p") and notebook.told[-1] == (
        "finish",
        result.numbers,
        True,
    )
    notebook.told.clear()
    again = loop.train(short(files, tmp_path, 6))
    assert notebook.told[0] == ("start", "id-1", "p") and notebook.told[-1] == (
        "finish",
        again.numbers,
        True,
    )
    assert rundir.read_json(tmp_path / "run" / "manifest.json")["trackers"] == {
        "wandb": {"id": "id-1"}
    }


@pytest.mark.parametrize("where", ["start", "scalars", "finish"])
def test_a_tracker_that_fails_is_told_once_and_named(
    where, notebook, files, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(notebook, "fails", where)
    result = loop.train(short(files, tmp_path, 2))
    assert result.numbers["train/steps"] == 2 and (tmp_path / "run" / "result.json").exists()
    assert capsys.readouterr().err.count("trackers.use=[wandb] failed") == 1
    [(_, facts)] = rundir.read_json(tmp_path / "run" / "manifest.json")["trackers"].items()
    when = {"start": "start", "scalars": "step 1", "finish": "finish"}[where]
    assert facts["failed"] == f"{when}: OSError: the disk is full" and ("id" in facts) == (
        where != "start"
    )


def test_a_failure_is_forgotten_when_a_later_attempt_goes_well(
    notebook, files, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(notebook, "fails", "scalars")
        loop.train(short(files, tmp_path, 2))
    assert "failed" in rundir.read_json(tmp_path / "run" / "manifest.json")["trackers"]["wandb"]
    loop.train(short(files, tmp_path, 4))
    assert rundir.read_json(tmp_path / "run" / "manifest.json")["trackers"] == {
        "wandb": {"id": "id-1"}
    }


def test_a_run_that_fails_is_told_so(notebook, files, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_validate", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.train(short(files, tmp_path, 2))
    assert notebook.told[-1] == ("finish", {}, False)


def test_a_tracker_that_is_not_there_is_one_line_before_any_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()  # where W&B puts its runs: not the package
    monkeypatch.syspath_prepend(str(tmp_path))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mlflow" else find(name)
    )
    for use, message in (
        ("[mlflow]", "trackers.use=[mlflow]: install jaxsft[mlflow]"),
        (
            "[comet]",
            "trackers.use=[comet]: expected some of wandb, mlflow, trackio",
        ),
    ):
        code, out, err = jaxsft("train", "task=lm", "data.train=none.txt", f"trackers.use={use}")
        assert (code, out, err) == (1, "", f"jaxsft: {message}\n")
    code, _, err = jaxsft("train", "task=lm", "data.train=none.txt", "trackers.name=x")
    assert code == 1 and "trackers.name=x: is read with trackers.use only" in err


def test_a_folder_of_runs_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "trackio").mkdir()
    finder = importlib.machinery.PathFinder
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: finder.find_spec(name, [str(tmp_path)])
    )
    with pytest.raises(ConfigError, match=r"install jaxsft\[trackio\]"):
        validate._trackers(["trackio"])
