"""One run of several processes: the numbers of one process, one directory, one end. Two processes
of two virtual devices each, over gloo.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxsft.config import schema
from jaxsft.errors import ConfigError
from jaxsft.rundir import read_json, read_jsonl, write_json
from jaxsft.sharding import hosts
from jaxsft.sharding.weights import flatten
from jaxsft.training import runs
from tests import tiny, xla
from tests.sharding import restoring
from tests.training import test_pretrained as test_hf

GIVEN = [
    *tiny.MODEL,
    "task=classify",
    "precision=fp32",
    "train.batch_size=4",
    "train.log_every=1steps",
    "model.dropout=0.1",
    "checkpoint.every=15steps",
    "evaluation.every=15steps",  # a step of an evaluation is saved too
]
SAVED_OFTEN = "checkpoint.every=4steps"  # for those that are stopped on the way


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


def given(files, *more, steps=30):
    return [
        "train",
        *GIVEN,
        f"data.train={files / 'labels.jsonl'}",
        f"data.test={files / 'labels_held.jsonl'}",
        f"train.duration={steps}steps",
        *more,
    ]


def start(
    arguments, cwd, count=2, devices=2, folders=None, own=None, come=None, program=("-m", "jaxsft")
):
    """The processes of one run; with one of them, all devices are its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    env = {**os.environ, "XLA_FLAGS": xla.flags(devices), "PYTHONPATH": root}
    joined = lambda i: (
        [
            f"hosts.coordinator=127.0.0.1:{port}",
            f"hosts.count={count}",
            f"hosts.index={i}",
            "hosts.timeout=20",
        ]
        if count > 1
        else []
    )
    command = [sys.executable, *program, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(
            [*command, *(own[i] if own else ()), *joined(i)],
            cwd=folders[i] if folders else cwd,
            env=env,
            **pipes,
        )
        for i in range(come or count)
    ]


def finish(processes, timeout=400):
    """[(exit code, stderr)] in order; a process that hangs is a failure."""
    try:
        told = [p.communicate(timeout=timeout)[1] for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, err) for p, err in zip(processes, told, strict=True)]


def wait_for_step(run_dir, step, processes):
    """Until the run has logged a step, and has saved one before it."""
    for _ in range(6000):
        time.sleep(0.1)
        path = run_dir / "metrics.jsonl"
        if (
            path.exists()
            and any(row["step"] >= step for row in read_jsonl(path))
            and list((run_dir / "checkpoints").glob("[0-9]*"))
        ):
            return
        assert all(p.poll() is None for p in processes), finish(processes)
    raise AssertionError("the run logs nothing")


def numbers(run_dir):
    return {
        row["step"]: row["loss"]
        for row in read_jsonl(run_dir / "metrics.jsonl")
        if row["kind"] == "train"
    }


@pytest.fixture(scope="module")
def solo(files, tmp_path_factory):
    """The run on one device of one process."""
    return alone(given(files), tmp_path_factory.mktemp("solo") / "run")


def alone(arguments, run_dir, *mesh):
    """The run of these arguments in this process; on one device where no mesh is given."""
    code, _, err = tiny.jaxsft(*arguments, *(mesh or ["mesh.data=1"]), f"run_dir={run_dir}")
    assert code == 0, err
    return run_dir


def same(run_dir, solo):
    assert numbers(run_dir) == pytest.approx(numbers(solo), rel=2e-5)
    assert read_json(run_dir / "result.json") == pytest.approx(
        read_json(solo / "result.json"), rel=2e-5
    )
    here, there = (read_jsonl(d / "predictions" / "test.jsonl") for d in (run_dir, solo))
    assert [(p["row"], p["prediction"]) for p in here] == [
        (p["row"], p["prediction"]) for p in there
    ]


MESHES = {
    "data": ["mesh.data=auto"],
    "fsdp x tensor": ["mesh.data=1", "mesh.fsdp=2", "mesh.tensor=2"],
}
OTHERS = {  # what the second process has differently
    "mesh": ("option mesh.data", ["mesh.data=4", "mesh.fsdp=1"]),
    "validation": ("option data.validation", ["data.validation=FILE"]),
}
# under the folder in which a process starts
CACHED = ["train.backbone=cached", "model.dropout=0", "data.cache_dir=cache"]


class Together:
    """The runs of two processes that do one after another.

    Each is told apart by its name and has a folder for each process below `folder`.
    """

    def __init__(self, folder):
        self.folder, self.jobs = folder, []

    def add(self, name, arguments, own=((), ()), folders=None):
        folders = folders or [self.folder / name, self.folder / name]
        for one in folders:
            one.mkdir(exist_ok=True)
        self.jobs.append(
            {"name": name, "arguments": arguments, "own": own, "folders": list(map(str, folders))}
        )

    def run(self, stopped):
        """Runs all of them; [(exit code, stderr)] by name, the output in `said`. The last run, in
        the directory `stopped`, is ended by a signal to the second process.
        """
        jobs = self.folder / "jobs.json"
        write_json(jobs, self.jobs)
        processes = start(
            [],
            self.folder,
            own=[[str(jobs), "0"], [str(jobs), "1"]],
            program=("-m", "tests.sharding.several"),
        )
        try:
            wait_for_step(stopped, 5, processes)
            processes[1].send_signal(signal.SIGTERM)
            told = [p.communicate(timeout=550) for p in processes]
        finally:
            for p in processes:
                p.kill()
        assert [p.returncode for p in processes] == [0, 0], told
        ended = [
            [json.loads(line[7:]) for line in out.splitlines() if line.startswith("ended: ")]
            for out, _ in told
        ]
        pairs = list(zip(*ended, strict=True))
        self.ended = {a["name"]: [(one["code"], one["err"]) for one in (a, b)] for a, b in pairs}
        self.said = {a["name"]: [one["out"] for one in (a, b)] for a, b in pairs}
        return self


@pytest.fixture(scope="module")
def together(files, tmp_path_factory):
    """What two processes can do one after another, in one start of them."""
    folder = tmp_path_factory.mktemp("together")
    runs, stopped = Together(folder), folder / "run stopped"
    for name, mesh in MESHES.items():
        runs.add(name, given(files, *mesh))
    source = test_hf.folder(folder / "source")
    runs.add("pretrained", [*pretrained(files, source), *MESHES["fsdp x tensor"], "run_dir=two"])
    hosts_of = [[folder / "host 0", folder / "host 1"], [folder / "one disk"] * 2]
    for name, folders in zip(("apart", "one disk"), hosts_of, strict=True):
        runs.add(
            name,
            given(files, *CACHED, f"run_dir={folder / f'run {name}'}", "mesh.fsdp=2", steps=12),
            folders=folders,
        )
    # one host has the copy of `apart`, the other one cannot write any
    (folder / "host 2" / "cache").mkdir(parents=True)
    (folder / "host 2" / "cache" / "backbone").write_text("no folder")
    runs.add(
        "refused",
        given(files, *CACHED, f"run_dir={folder / 'run refused'}", "mesh.fsdp=2"),
        folders=[folder / "host 0", folder / "host 2"],
    )
    rows = (files / "labels.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    folders = [folder / "all rows", folder / "fewer rows"]
    for one, part in zip(folders, (rows, rows[1:]), strict=True):
        one.mkdir()
        (one / "labels.jsonl").write_text("".join(part), encoding="utf-8")
    short = ["train.duration=4steps", f"run_dir={folder / 'run rows'}"]
    runs.add("rows", ["train", *GIVEN, "data.train=labels.jsonl", *short], folders=folders)
    for name, (_, mine) in OTHERS.items():
        mine = [option.replace("FILE", str(files / "labels_held.jsonl")) for option in mine]
        arguments = given(files, "mesh.data=2", "mesh.fsdp=2", "run_dir=run", steps=4)
        runs.add(name, arguments, ([], mine))
    folders = [folder / "0", folder / "1"]
    restoring.save(folders[0], steps=(1, 2, 3, 4))
    shutil.copytree(folders[0], folders[1])
    steps = folders[1] / "checkpoints"
    shutil.rmtree(steps / "4" / "state" / "d")
    (steps / "3" / "meta" / "metadata").write_text("{")
    runs.add("restored", None, folders=folders)
    runs.add("stopped", given(files, f"run_dir={stopped}", SAVED_OFTEN, steps=4000))
    return runs.run(stopped)


@pytest.mark.parametrize("mesh", MESHES)
# guards A3, B7, E2, I8
def test_two_processes_give_the_numbers_of_one(mesh, together, solo):
    assert [code for code, _ in together.ended[mesh]] == [0, 0], together.ended[mesh]
    [run_dir] = (together.folder / mesh / "runs").iterdir()  # the first process names it
    same(run_dir, solo)
    assert read_json(run_dir / "manifest.json")["processes"] == 2


def pretrained(files, source):
    """The arguments of a run from a folder of weights, some of them frozen."""
    return [
        "train",
        "task=lm",
        f"model.pretrained={source}",
        f"data.train={files / 'book.txt'}",
        "data.max_length=64",
        "precision=fp32",
        "train.duration=3steps",
        "train.batch_size=4",
        "train.log_every=1steps",
        "checkpoint.include_base=true",
        "train.freeze=[embed/.*,layers/0/.*]",
        "optim.learning_rate=1e-3",
    ]


@pytest.mark.slow
def test_two_processes_load_a_pretrained_folder(files, together):  # guards A3, F3
    """Each gives its own devices their part of every tensor: frozen weights have the bits that one
    process finds in the files, the losses are its losses, and so are the weights that were trained.
    """
    ended, folder = together.ended["pretrained"], together.folder / "pretrained"
    assert [code for code, _ in ended] == [0, 0], ended
    alone(pretrained(files, together.folder / "source"), folder / "one")
    assert read_json(folder / "two" / "manifest.json")["processes"] == 2
    assert len(numbers(folder / "two")) == 3 and numbers(folder / "two") == pytest.approx(
        numbers(folder / "one"), rel=2e-5
    )
    one, two = (flatten(runs.open_run(folder / name).params) for name in ("one", "two"))
    for path, value in one.items():
        frozen = path.startswith(("embed/", "layers/0/"))  # the stack of the first layer alone
        np.testing.assert_allclose(
            two[path], value, rtol=0, atol=0 if frozen else 2e-4, err_msg=path
        )


@pytest.mark.slow
def test_two_processes_share_what_a_frozen_backbone_gives(files, together, tmp_path):
    # guards A3, D7
    """Each with a cache of its own, as on two hosts, and both with one: the numbers of one process;
    one copy lies in each cache, nothing beside.
    """
    solo = alone(
        given(files, *CACHED[:-1], f"data.cache_dir={tmp_path / 'cache'}", steps=12),
        tmp_path / "solo",
    )
    for name, folders in (("apart", ("host 0", "host 1")), ("one disk", ("one disk",))):
        ended = together.ended[name]
        assert [code for code, _ in ended] == [0, 0], ended
        # train and test; the second process is silent
        assert [err.count("the frozen backbone reads") for _, err in ended] == [2, 0]
        same(together.folder / f"run {name}", solo)
        for folder in folders:
            kept = sorted((together.folder / folder / "cache" / "backbone").iterdir())
            assert len(kept) == 2 and all(
                sorted(p.name for p in split.iterdir()) == ["backbone.npy", "facts.json"]
                for split in kept
            ), kept
    # Where one host has no copy, both read the texts again; where it cannot be written, both are
    # told.
    assert all(
        code == 1
        and "jaxsft: cache/backbone: cannot write the cache of what the backbone gives (" in err
        for code, err in together.ended["refused"]
    ), together.ended["refused"]


@pytest.mark.slow
# guards F1, F9
def test_a_lost_process_ends_the_others_and_the_run_goes_on_elsewhere(files, solo, tmp_path):
    run_dir = tmp_path / "run"
    processes = start(
        given(files, f"run_dir={run_dir}", SAVED_OFTEN, "mesh.data=1", "mesh.fsdp=auto"), tmp_path
    )
    wait_for_step(run_dir, 6, processes)
    processes[1].kill()
    (code, err), _ = finish(processes, timeout=400)
    assert code != 0 and re.search("another process of this run was lost|another task died", err), (
        err
    )
    # An unfinished run may be continued on another mesh, by one process.
    alone(given(files, SAVED_OFTEN), run_dir, "mesh.tensor=2", "mesh.data=2")
    same(run_dir, solo)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_of_them_at_one_step(together):  # guards F1
    ended, run_dir = together.ended["stopped"], together.folder / "run stopped"
    assert [code for code, _ in ended] == [143, 143], ended
    step = max(numbers(run_dir))
    assert (run_dir / "checkpoints" / str(step)).is_dir() and f"stopped at step {step};" in ended[
        0
    ][1]


def test_processes_that_read_different_files_are_told(together):  # guards B7
    assert all(
        code == 1 and "process 1 has another split train than process 0" in err
        for code, err in together.ended["rows"]
    ), together.ended["rows"]
    assert not (together.folder / "run rows").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_processes_with_other_options_are_told(name, together):  # guards B7
    assert all(
        code == 1 and f"process 1 has another {OTHERS[name][0]} than process 0" in err
        for code, err in together.ended[name]
    ), together.ended[name]


@pytest.mark.slow
def test_nobody_waits_for_ever(files, tmp_path):
    """A process whose partner never comes ends after hosts.wait."""
    [alone] = start(given(files, f"run_dir={tmp_path / 'run'}", "hosts.wait=5"), tmp_path, come=1)
    [(code, err)] = finish([alone], timeout=400)
    assert code != 0 and re.search("did not meet|timed out|deadline", err, re.IGNORECASE), err


def test_what_one_process_alone_cannot_read_all_of_them_refuse(together):  # guards F3, F9
    """Each process has its own copy of the run; some steps are damaged in the copy of the second
    one only.
    """
    said = [
        [line.removeprefix("found: ") for line in out.splitlines() if line.startswith("found: ")]
        for out in together.said["restored"]
    ]
    assert said[0] == said[1], said
    damaged, older, found, refused, gone = said[0]
    assert (
        damaged.startswith("process 1: checkpoints/4: damaged (")
        and "moved to damaged/step-4" in damaged
    )
    assert (
        older.startswith("process 1: checkpoints/3: damaged (meta cannot be read: ")
        and "moved to damaged/step-3" in older
    )
    assert found == "restored step 2"
    assert (
        refused
        == "CheckpointError: process 1: checkpoints/2: cannot be read now (no right to read); it"
        " was left as it is"
    )
    assert gone == "JaxsftError: checkpoints: cannot move (no right to write)"
    first = together.folder / "0"
    assert (first / "damaged" / "step-4").is_dir() and (first / "checkpoints" / "2").is_dir()


@pytest.mark.parametrize(
    "options",
    [
        {"count": 2},
        {"coordinator": "a:1", "count": 2},
        {"coordinator": "a:1", "count": 2, "index": 2},
    ],
)
def test_half_an_address_is_refused(options):
    with pytest.raises(ConfigError, match=r"hosts\."):
        hosts.start(schema.HostsConfig(**options))


def test_clusters_are_detected(monkeypatch):
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert not hosts.detected()
    monkeypatch.setenv("SLURM_NTASKS", "4")  # a batch script, outside srun
    assert not hosts.detected()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert hosts.detected()
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host-0,host-1")
    assert hosts.detected()
