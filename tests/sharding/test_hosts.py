"""One run of several processes: the numbers of one process, one directory, one end. Two processes
of two virtual devices each, over gloo.
"""

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
from jaxsft.rundir import read_json, read_jsonl
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
    env = {**os.environ, "XLA_FLAGS": xla.flags(devices)}
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


BOTH = pytest.param(
    ("mesh.data=1", "mesh.fsdp=2", "mesh.tensor=2"), marks=pytest.mark.slow, id="fsdp x tensor"
)


@pytest.mark.parametrize("mesh", [pytest.param(("mesh.data=auto",), id="data"), BOTH])
# guards A3, B7, E2, I8
def test_two_processes_give_the_numbers_of_one(mesh, files, solo, tmp_path):
    ended = finish(start(given(files, *mesh), tmp_path))
    assert [code for code, _ in ended] == [0, 0], ended
    [run_dir] = (tmp_path / "runs").iterdir()  # the first process names it
    same(run_dir, solo)
    assert read_json(run_dir / "manifest.json")["processes"] == 2


@pytest.mark.slow
def test_two_processes_load_a_pretrained_folder(files, tmp_path):  # guards A3, F3
    """Each gives its own devices their part of every tensor: frozen weights have the bits that one
    process finds in the files, the losses are its losses, and so are the weights that were trained.
    """
    source = test_hf.folder(tmp_path / "source")
    given = [
        "train",
        "task=lm",
        f"model.pretrained={source}",
        f"data.train={files / 'book.txt'}",
        "data.max_length=64",
        "precision=fp32",
    ]
    given += [
        "train.duration=3steps",
        "train.batch_size=4",
        "train.log_every=1steps",
        "checkpoint.include_base=true",
    ]
    given += ["train.freeze=[embed/.*,layers/0/.*]", "optim.learning_rate=1e-3"]
    alone(given, tmp_path / "one")
    mesh = ["mesh.data=1", "mesh.fsdp=2", "mesh.tensor=2"]
    ended = finish(start([*given, *mesh, f"run_dir={tmp_path / 'two'}"], tmp_path))
    assert [code for code, _ in ended] == [0, 0], ended
    assert read_json(tmp_path / "two" / "manifest.json")["processes"] == 2
    assert len(numbers(tmp_path / "two")) == 3 and numbers(tmp_path / "two") == pytest.approx(
        numbers(tmp_path / "one"), rel=2e-5
    )
    one, two = (flatten(runs.open_run(tmp_path / name).params) for name in ("one", "two"))
    for path, value in one.items():
        frozen = path.startswith(("embed/", "layers/0/"))  # the stack of the first layer alone
        np.testing.assert_allclose(
            two[path], value, rtol=0, atol=0 if frozen else 2e-4, err_msg=path
        )


# under the folder in which a process starts
CACHED = ["train.backbone=cached", "model.dropout=0", "data.cache_dir=cache"]


@pytest.mark.slow
def test_two_processes_share_what_a_frozen_backbone_gives(files, tmp_path):  # guards A3, D7
    """Each with a cache of its own, as on two hosts, and both with one: the numbers of one process;
    one copy lies in each cache, nothing beside.
    """
    solo = alone(
        given(files, *CACHED[:-1], f"data.cache_dir={tmp_path / 'cache'}", steps=12),
        tmp_path / "solo",
    )
    hosts_of = {
        "apart": [tmp_path / "0", tmp_path / "1"],
        "one disk": [tmp_path / "2", tmp_path / "2"],
    }
    for name, folders in hosts_of.items():
        for folder in folders:
            folder.mkdir(exist_ok=True)
        run_dir = tmp_path / f"run {name}"
        ended = finish(
            start(
                given(files, *CACHED, f"run_dir={run_dir}", "mesh.fsdp=2", steps=12),
                tmp_path,
                folders=folders,
            )
        )
        assert [code for code, _ in ended] == [0, 0], ended
        # train and test; the second process is silent
        assert [err.count("the frozen backbone reads") for _, err in ended] == [2, 0]
        same(run_dir, solo)
        for folder in folders:
            kept = sorted((folder / "cache" / "backbone").iterdir())
            assert len(kept) == 2 and all(
                sorted(p.name for p in split.iterdir()) == ["backbone.npy", "facts.json"]
                for split in kept
            ), kept
    # Where one host has lost its copy, both read the texts again; where it cannot be written, both
    # are told.
    for split in (tmp_path / "1" / "cache" / "backbone").iterdir():
        shutil.rmtree(split)
    (tmp_path / "1" / "cache" / "backbone").rmdir()
    (tmp_path / "1" / "cache" / "backbone").write_text("no folder")
    ended = finish(
        start(
            given(files, *CACHED, f"run_dir={tmp_path / 'refused'}", "mesh.fsdp=2"),
            tmp_path,
            folders=hosts_of["apart"],
        )
    )
    assert all(
        code == 1
        and "jaxsft: cache/backbone: cannot write the cache of what the backbone gives (" in err
        for code, err in ended
    ), ended


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
def test_a_signal_to_one_process_stops_all_of_them_at_one_step(files, solo, tmp_path):  # guards F1
    run_dir = tmp_path / "run"
    processes = start(given(files, f"run_dir={run_dir}", SAVED_OFTEN, steps=4000), tmp_path)
    wait_for_step(run_dir, 5, processes)
    processes[1].send_signal(signal.SIGTERM)
    ended = finish(processes)
    assert [code for code, _ in ended] == [143, 143], ended
    step = max(numbers(run_dir))
    assert (run_dir / "checkpoints" / str(step)).is_dir() and f"stopped at step {step};" in ended[
        0
    ][1]


def test_processes_that_read_different_files_are_told(files, tmp_path):  # guards B7
    folders = [tmp_path / "0", tmp_path / "1"]
    rows = (files / "labels.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for folder, part in zip(folders, (rows, rows[1:]), strict=True):
        folder.mkdir()
        (folder / "labels.jsonl").write_text("".join(part), encoding="utf-8")
    arguments = [
        "train",
        *GIVEN,
        "data.train=labels.jsonl",
        "train.duration=4steps",
        f"run_dir={tmp_path / 'run'}",
    ]
    ended = finish(start(arguments, tmp_path, folders=folders))
    assert all(
        code == 1 and "process 1 has another split train than process 0" in err
        for code, err in ended
    ), ended
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "mine, told",
    [
        (["mesh.data=4", "mesh.fsdp=1"], "option mesh.data"),
        (["data.validation=FILE"], "option data.validation"),
    ],
    ids=["mesh", "validation"],
)
def test_processes_with_other_options_are_told(mine, told, files, tmp_path):  # guards B7
    arguments = given(files, "mesh.data=2", "mesh.fsdp=2", f"run_dir={tmp_path / 'run'}", steps=4)
    own = [[], [option.replace("FILE", str(files / "labels_held.jsonl")) for option in mine]]
    ended = finish(start(arguments, tmp_path, own=own))
    assert all(
        code == 1 and f"process 1 has another {told} than process 0" in err for code, err in ended
    ), ended


@pytest.mark.slow
def test_nobody_waits_for_ever(files, tmp_path):
    """A process whose partner never comes ends after hosts.wait."""
    [alone] = start(given(files, f"run_dir={tmp_path / 'run'}", "hosts.wait=5"), tmp_path, come=1)
    [(code, err)] = finish([alone], timeout=400)
    assert code != 0 and re.search("did not meet|timed out|deadline", err, re.IGNORECASE), err


def test_what_one_process_alone_cannot_read_all_of_them_refuse(tmp_path):  # guards F3, F9
    """Each process has its own copy of the run; some steps are damaged in the copy of the second
    one only.
    """
    folders = [tmp_path / "0", tmp_path / "1"]
    restoring.save(folders[0], steps=(1, 2, 3, 4))
    shutil.copytree(folders[0], folders[1])
    steps = folders[1] / "checkpoints"
    shutil.rmtree(steps / "4" / "state" / "d")
    (steps / "3" / "meta" / "metadata").write_text("{")
    processes = start([], tmp_path, folders=folders, devices=1, program=(restoring.__file__,))
    try:
        told = [p.communicate(timeout=400) for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert [p.returncode for p in processes] == [0, 0], told
    # gloo speaks there too
    said = [
        [line.removeprefix("found: ") for line in out.splitlines() if line.startswith("found: ")]
        for out, _ in told
    ]
    assert said[0] == said[1], told
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
    assert (folders[0] / "damaged" / "step-4").is_dir() and (
        folders[0] / "checkpoints" / "2"
    ).is_dir()


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
