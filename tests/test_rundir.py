"""Run directories are never shared by chance; files are whole or absent, half lines mended."""

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from jaxsft import rundir
from jaxsft.errors import CheckpointError, DataError, JaxsftError
from jaxsft.rundir import JsonLines


@pytest.fixture
def full_disk(monkeypatch):
    """Make every flush to the disk fail as on a full one."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rundir.os, "fsync", full)


def test_create_with_a_path(tmp_path):
    made = rundir.create(tmp_path / "a" / "b", stem="x")
    assert made == tmp_path / "a" / "b" and made.is_dir()
    (made / "kept").write_text("")
    assert rundir.create(str(made), stem="x") == made and (made / "kept").exists()
    with pytest.raises(JaxsftError, match=r"kept: cannot make the run directory \(File exists\)"):
        rundir.create(made / "kept", stem="x")


def test_create_never_shares_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, threads = [], []
    for _ in range(8):
        threads.append(
            threading.Thread(
                target=lambda: made.extend(rundir.create(None, stem="chat") for _ in range(10))
            )
        )
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(made) == 80 == len(set(made)) == len(list((tmp_path / "runs").iterdir()))
    assert all(path.parent == Path("runs") and path.name.startswith("chat-2") for path in made)
    assert any(path.name.endswith("-2") for path in made)


@pytest.mark.parametrize(
    ("stem", "start"), [("../a b/c", "a-b-c-"), ("中文", "中文-"), ("..", "run-")]
)
def test_create_makes_a_safe_name(tmp_path, monkeypatch, stem, start):
    monkeypatch.chdir(tmp_path)
    made = rundir.create(None, stem=stem)
    assert made.parent == Path("runs") and made.name.startswith(start)


def test_create_where_runs_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("")
    with pytest.raises(JaxsftError, match="runs: cannot make the run directory"):
        rundir.create(None, stem="x")


def test_json_is_strict_and_numbers_come_back(tmp_path):
    value = {
        "loss": math.nan, "most": np.float32(math.inf), "least": -math.inf,
        "array": np.array([[1, 2]]), "count": np.int64(3),
        "path": Path("a/b"), "中文": "猫\u2028\ud83d", 7: (True, None), "set": {"b", "a"},
    }  # fmt: skip
    path = rundir.write_json(tmp_path / "new" / "result.json", value)
    assert "猫" in path.read_text("utf-8")
    read = json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)
    assert read == rundir.read_json(path)
    assert read["loss"] == "NaN" and read["most"] == "Infinity" and read["least"] == "-Infinity"
    assert (
        read["array"] == [[1, 2]]
        and read["count"] == 3
        and read["path"] == "a/b"
        and read["7"] == [True, None]
        and read["set"] == ["a", "b"]
    )
    assert read["中文"] == "猫\u2028\ud83d"
    assert (
        math.isnan(rundir.number(read["loss"]))
        and rundir.number(read["least"]) == -math.inf
        and rundir.number(3) == 3.0
    )
    for wrong in ("nan", "1", None, [1]):
        with pytest.raises(DataError, match="expected a number"):
            rundir.number(wrong)
    with pytest.raises(TypeError, match="object"):
        rundir.write_json(path, {"x": object()})
    assert rundir.read_json(path) == read


def test_jax_like_scalars_are_numbers(tmp_path):
    import ml_dtypes

    values = [
        ml_dtypes.bfloat16(1.5),
        np.array([0.5, math.nan], ml_dtypes.bfloat16),
        np.float16(2.0),
        np.bool_(True),
    ]
    assert json.loads(rundir.json_text(values)) == [1.5, [0.5, "NaN"], 2.0, True]


def test_reading_what_is_not_there_or_not_json(tmp_path):
    with pytest.raises(JaxsftError, match=r"x.json: cannot read"):
        rundir.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"x.json: not a JSON file"):
        rundir.read_json(tmp_path / "x.json")


def test_full_disk_leaves_the_old_file_and_no_other(tmp_path, full_disk):
    path = tmp_path / "result.json"
    path.write_text("old")
    for write in (
        lambda: rundir.write_json(path, {}),
        lambda: rundir.write_text(path, "new"),
        lambda: rundir.write_bytes(path, b"new"),
    ):
        with pytest.raises(
            JaxsftError, match=r"result.json: cannot write \(No space left on device\)"
        ):
            write()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["result.json"]


def test_a_write_that_the_system_refuses(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    code = (
        "import resource, signal, sys; from jaxsft import rundir\nsignal.signal(signal.SIGXFSZ,"
        " signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\nlines ="
        " rundir.JsonLines(sys.argv[2]); lines.append({'step': 1})\nfor do in (lambda:"
        " rundir.write_text(sys.argv[1], 'x' * 100_000), lambda: lines.append({'long': 'x' *"
        " 100_000})):\n    try: do()\n    except rundir.JaxsftError as error:"
        " print(error)\nlines.append({'step': 2})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "m.jsonl"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"{path}: cannot write (File too large)",
        f"{tmp_path / 'm.jsonl'}: cannot write (File too large)",
    ]
    assert path.read_text() == "old" and sorted(os.listdir(tmp_path)) == ["m.jsonl", "result.json"]
    assert rundir.read_jsonl(tmp_path / "m.jsonl") == [{"step": 1}, {"step": 2}]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JaxsftError, match="cannot write"):
        rundir.write_text(tmp_path / "file" / "x.json", "")
    with pytest.raises(JaxsftError, match="cannot open"):
        JsonLines(tmp_path / "file" / "x.jsonl")


def test_atomic_lines(tmp_path):
    path = tmp_path / "predictions" / "test.jsonl"
    with rundir.atomic_lines(path) as file:
        file.write("a\n")
        assert not path.exists()
    assert path.read_bytes() == b"a\n"
    with pytest.raises(ZeroDivisionError), rundir.atomic_lines(path) as file:
        file.write("b\n")
        raise ZeroDivisionError
    # not this file's trouble
    with pytest.raises(FileNotFoundError, match="elsewhere"), rundir.atomic_lines(path):
        open(tmp_path / "elsewhere")  # noqa: SIM115
    assert path.read_bytes() == b"a\n" and os.listdir(path.parent) == ["test.jsonl"]


def test_json_lines_survive_a_kill(tmp_path):
    code = "import os, sys; from jaxsft.rundir import JsonLines\nlines = JsonLines(sys.argv[1])\n"
    code += (
        "for i in range(50): lines.append({'step': i, 'loss':"
        " float('nan')})\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m.jsonl"], check=False)
    assert done.returncode == -signal.SIGKILL
    rows = rundir.read_jsonl(tmp_path / "m.jsonl")
    assert [row["step"] for row in rows] == list(range(50)) and rows[0]["loss"] == "NaN"


@pytest.mark.parametrize(
    "tail", [b'{"step": 3, "lo', '{"word": "猫'.encode()[:-1], b"\x00\x00\x00"]
)
def test_half_a_line(tmp_path, tail):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + tail)
    assert rundir.read_jsonl(path) == [{"step": 1}, {"step": 2}]
    with JsonLines(path) as lines:
        lines.append({"step": 3})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_whole_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n\n{"step": 2}')
    assert len(rundir.read_jsonl(path)) == 2
    with JsonLines(path) as lines:
        lines.append({"step": 3, "text": "\u2028\x85\r\n"})
        lines.sync()
    lines.close()
    assert [row["step"] for row in rundir.read_jsonl(path)] == [1, 2, 3]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"m.jsonl:2: not a JSON object"):
        rundir.read_jsonl(path)
    path.write_text("[1]\n")
    with pytest.raises(DataError, match=r"m.jsonl:1: expected a JSON object \(found list\)"):
        rundir.read_jsonl(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_append_to_a_full_device(tmp_path):
    (tmp_path / "m.jsonl").symlink_to("/dev/full")
    with pytest.raises(JaxsftError, match=r"m.jsonl: cannot "):
        JsonLines(tmp_path / "m.jsonl").append({"step": 1})


def test_truncate(tmp_path, monkeypatch):
    path = tmp_path / "m.jsonl"
    rundir.truncate_jsonl(path, keep=lambda row: True)
    assert not path.exists()
    path.write_bytes(b'{"step":1}\n{"step":2, "x": 1.50}\n{"step":3}\n{"ste')
    rundir.truncate_jsonl(path, keep=lambda row: row["step"] <= 2)
    assert path.read_bytes() == b'{"step":1}\n{"step":2, "x": 1.50}\n'


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes("猫".encode())
    assert (
        rundir.sha256_file(tmp_path / "a") == rundir.sha256_text("猫")
        and len(rundir.sha256_text("")) == 64
    )
    assert (
        rundir.sha256_json({"a": 1, "b": math.nan})
        == rundir.sha256_json({"b": math.nan, "a": 1})
        != rundir.sha256_json({"a": 1})
    )
    with pytest.raises(JaxsftError, match="cannot read"):
        rundir.sha256_file(tmp_path / "none")


def test_imports_no_jax():
    code = (
        "import sys, jaxsft.rundir, jaxsft.data.synthetic; sys.exit('jax' in sys.modules or 'numpy'"
        " in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_another_version_did_not_write_is_told():
    stored = rundir.Stored({"a": {"b": 1}, "c": [1]}, "run/task.json")
    assert stored == {"a": {"b": 1}, "c": [1]} and stored["a"]["b"] == 1 and stored.get("d") is None
    for read, where in (
        (lambda: stored["d"], "run/task.json has no 'd'"),
        (lambda: stored["a"]["x"], "run/task.json: a has no 'x'"),
    ):
        with pytest.raises(CheckpointError, match=where):
            read()
    with pytest.raises(
        CheckpointError, match=r"run/task.json: holds a NoneType, expected an object"
    ):
        rundir.Stored(None, "run/task.json")


def test_what_dead_processes_left_aside_is_swept(tmp_path):
    """Files and folders of this machine whose process is dead; not those of a live one, of another
    machine, or of this process.
    """
    dead = subprocess.Popen(["true"])
    dead.wait()
    host, folder = rundir._HOST, tmp_path / "predictions"
    gone = [
        f".v.jsonl.{host}-{dead.pid}-0.tmp",
        f".v.jsonl.{host}-{os.getpid()}-12345678.tmp",
        f".a b.{host}-99999999999999999999-3.tmp",
    ]
    kept = [
        f".v.jsonl.{host}-{os.getppid()}-0.tmp",
        f".v.jsonl.abcdef-{dead.pid}-0.tmp",
        ".v.jsonl",
        "v.jsonl.tmp",
    ]
    folder.mkdir()
    for name in gone + kept:
        (folder / name).write_text("half")
    (tmp_path / f".figures.{host}-{dead.pid}-1.tmp" / "deep").mkdir(parents=True)
    (tmp_path / "checkpoints" / "8.orbax-checkpoint-tmp-1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "4").mkdir()
    with rundir.atomic_lines(folder / "mine.txt") as file:
        rundir.sweep(tmp_path)
        file.write("whole")
    assert sorted(p.name for p in folder.iterdir()) == sorted([*kept, "mine.txt"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "predictions"]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["4"]
