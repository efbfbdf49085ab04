"""Run directories at an object store, which here is a bucket in memory behind Google's JSON API: no
rename, no append, no locks.
"""

import dataclasses
import importlib.util
import os
import shutil

import pytest

from jaxsft import remote, rundir
from jaxsft.errors import CheckpointError, ConfigError, JaxsftError
from jaxsft.training import loop, runs
from jaxsft.training.checkpoint import Checkpoints
from tests import tiny
from tests.fake_gcs import bucket
from tests.invariants.test_resume import Killed, kill_at
from tests.sharding import test_hosts

HOME = "gs://bucket/runs/one"
needs_client = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None, reason="gcsfs is not installed (the extra `gcs`)"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def local(files, tmp_path_factory):
    """What a local run of the same config comes to."""
    folder = tmp_path_factory.mktemp("local") / "run"
    loop.train(tiny.config(files, folder, task="classify"))
    return tiny.outcome(folder)


@pytest.fixture
def objects():
    remote.opened.cache_clear()
    with bucket() as found:
        yield found


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Moves to another machine: its caches are empty."""

    def move(name):
        remote.opened.cache_clear()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    move("first")
    return move


def config(files):
    return tiny.config(files, HOME, task="classify")


def train(files):
    result = loop.train(config(files))
    result.mirror.push()
    return result


def outcome_at(home, folder):
    remote.pull(home, folder)
    return tiny.outcome(folder)


@needs_client
# guards F1, F9
def test_a_run_at_a_store_is_the_run_that_it_is_here(files, local, objects, machine, tmp_path):
    train(files)
    assert outcome_at(HOME, tmp_path / "copy") == local
    assert {name.split("/")[2] for name in objects} >= {
        "config.yaml",
        "manifest.json",
        "ledger.json",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
    }
    assert not any("lock" in name or name.endswith(".tmp") for name in objects)
    machine("second")  # reads the store alone
    code, _, err = tiny.jaxsft(
        "predict",
        f"run={HOME}",
        f"input={files / 'labels_held.jsonl'}",
        f"output={tmp_path / 'out.jsonl'}",
    )
    assert code == 0, err
    here = [line["prediction"] for line in rundir.read_jsonl(tmp_path / "out.jsonl")]
    assert here == [
        line["prediction"]
        for line in rundir.read_jsonl(tmp_path / "copy" / "predictions" / "validation.jsonl")
    ]
    # complete: nothing is trained again
    assert loop.train(config(files)).numbers == local["result"]


@needs_client
@pytest.mark.slow
@pytest.mark.parametrize(
    "place", [("_read", 7), ("_finish", 1)], ids=["in the middle", "before the results"]
)
# guards F1, F4, F6
def test_another_machine_continues_a_killed_run(
    place, files, local, objects, machine, monkeypatch, tmp_path
):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, *place)
        loop.train(config(files))
    assert not any(name.endswith("result.json") for name in objects)
    machine("second")
    train(files)
    assert outcome_at(HOME, tmp_path / "copy") == local


@needs_client
@pytest.mark.slow
def test_two_processes_share_a_run_at_a_store(files, objects, machine, tmp_path):  # guards I8
    processes = test_hosts.start(
        test_hosts.given(files, "mesh.data=1", "mesh.fsdp=auto", f"run_dir={HOME}", steps=6),
        tmp_path,
    )
    assert [code for code, _ in test_hosts.finish(processes)] == [0, 0]
    there, here = tmp_path / "there", tmp_path / "here"
    remote.pull(HOME, there)
    test_hosts.same(there, test_hosts.alone(test_hosts.given(files, steps=6), here))


@pytest.mark.slow
@needs_client
# guards F9
def test_a_damaged_step_is_set_aside_object_by_object(
    files, local, objects, machine, monkeypatch, tmp_path
):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, "_read", 11)
        loop.train(config(files))
    data = [name for name in objects if "/checkpoints/8/state/" in name and "/d/" in name]
    for name in data:
        generation, content = objects[name]
        objects[name] = (generation + 1, bytes(b ^ 1 for b in content))
    machine("second")
    train(files)
    assert outcome_at(HOME, tmp_path / "copy") == local
    assert any("/damaged/step-8/" in name for name in objects)


@needs_client
# guards F9
def test_a_step_that_was_not_completed_is_no_step(files, objects, machine, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, "_read", 11)
        loop.train(config(files))
    objects.pop("runs/one/checkpoints/8/commit_success.txt")
    checkpoints = Checkpoints(HOME)
    assert checkpoints.steps() == [4] and checkpoints._complete() == [4]
    checkpoints.close()


@needs_client
def test_what_the_store_refuses_is_one_sentence(objects, monkeypatch):
    def refuse(place):
        raise PermissionError("no access\nto the bucket")

    monkeypatch.setattr(remote, "path", refuse)
    with pytest.raises(JaxsftError, match=r"^gs://bucket/runs/one: cannot read \(no access\)$"):
        remote.pull(HOME, remote.working_copy(HOME))


@needs_client
def test_a_refused_run_leaves_no_working_copy_of_any_process(files, objects, machine, monkeypatch):
    monkeypatch.setattr(loop.hosts, "first", lambda: False)
    with pytest.raises(ConfigError, match="training has 12 steps only"):
        loop.train(dataclasses.replace(config(files), profile="steps:2-90"))
    assert not remote.working_copy(HOME).exists()


@needs_client
def test_objects_that_mark_folders_are_no_files(objects, tmp_path):
    """The Cloud Console makes empty objects whose names end in a slash."""
    for name, content in (
        ("", b""),
        ("a.txt", b"1"),
        ("deep/", b""),
        ("deep/b.txt", b"2"),
        ("deep/empty/", b""),
    ):
        objects[f"runs/one/{name}"] = (1, content)
    remote.pull(HOME, tmp_path / "copy")
    assert sorted(
        str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*") if p.is_file()
    ) == ["a.txt", "deep/b.txt"]
    mirror = remote.Mirror(HOME, tmp_path / "copy")
    (tmp_path / "copy" / "c.txt").write_text("3")
    mirror.push()
    assert "runs/one/c.txt" in objects


def test_the_results_arrive_last_and_go_first(tmp_path, monkeypatch):
    """Copying is tried on a local folder that stands for the store."""
    store, copy, order = tmp_path / "store", tmp_path / "copy", []
    monkeypatch.setattr(remote, "is_remote", lambda place: str(place) == "x://store")
    monkeypatch.setattr(remote, "path", lambda place: store if str(place) == "x://store" else place)
    write = type(store).write_bytes
    monkeypatch.setattr(
        type(store),
        "write_bytes",
        lambda self, data: (order.append(self.name), write(self, data))[1],
    )
    store.mkdir()
    for name in (
        "result.json",
        "zzz.txt",
        "deep/a.txt",
        "run.lock",
        "checkpoints/1/data",
        "half.tmp",
    ):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        write(copy / name, b"1")
    mirror = remote.Mirror("x://store", tmp_path / "empty")
    mirror.copy = copy
    mirror.push()
    assert order == ["a.txt", "zzz.txt", "result.json"]
    mirror.push()
    assert len(order) == 3  # nothing changed, nothing is sent
    (copy / "result.json").unlink()
    os.utime(copy / "zzz.txt", ns=(1, 1))
    mirror.push()
    assert order[3:] == ["zzz.txt"] and not (store / "result.json").exists()
    shutil.rmtree(copy)
    (copy / "old").mkdir(parents=True)
    remote.pull("x://store", copy)
    assert sorted(p.name for p in copy.rglob("*")) == ["a.txt", "deep", "zzz.txt"]


def test_other_stores_and_a_missing_client_are_refused_in_one_line(files, monkeypatch):
    with pytest.raises(ConfigError, match="s3:// is not supported"):
        loop.train(tiny.config(files, "s3://bucket/run", task="classify"))
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"jaxsft\[gcs\]"):
        loop.train(config(files))
    with pytest.raises((ConfigError, CheckpointError), match=r"jaxsft\[gcs\]"):
        runs.open_run(HOME)
