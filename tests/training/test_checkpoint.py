"""Checkpoints: strict, verified, best and latest kept, loud where they cannot be written."""

from __future__ import annotations

import errno
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.errors import CheckpointError
from jaxsft.rundir import read_json
from jaxsft.training import checksums
from jaxsft.training.checkpoint import Checkpoints, Damaged
from tests import tiny


def state(value: float = 0.0) -> dict:
    return {
        "trainable": {
            "w": jnp.arange(64, dtype=jnp.float32).reshape(8, 8) + value,
            "b": jnp.ones(3, jnp.bfloat16),
        },
        "step": jnp.int32(value),
    }


def shapes(tree) -> dict:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


@pytest.fixture
def store(tmp_path):
    made = Checkpoints(tmp_path)
    yield made
    made.close()


def save(store: Checkpoints, *steps: int, best=None) -> None:
    for step in steps:
        store.save(step, state(step), {"best": {"step": best}}, best)
    store.wait()


def test_what_was_saved_comes_back_to_the_bit(store):
    save(store, 7)
    found, meta = store.restore_newest(shapes(state()))
    assert jax.tree.all(
        jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), found, state(7))
    )
    assert meta["best"] == {"step": None}


def test_no_checkpoint_is_not_an_error(store):
    assert store.restore_newest(shapes(state())) is None


@pytest.mark.parametrize("best, kept", [(None, [4, 5]), (1, [1, 4, 5]), (5, [4, 5]), (4, [4, 5])])
def test_best_and_latest_survive(store, best, kept):  # guards F5
    save(store, 1, 2, 3, 4, 5, best=best)
    assert store.steps() == kept


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s | {"more": jnp.ones(1)}, "has no more, which this model needs"),
        (
            lambda s: {k: v for k, v in s.items() if k != "step"},
            "has step, for which this model has no place",
        ),
        (
            lambda s: s | {"step": jnp.ones(2, jnp.int32)},
            r"step is int32\[\], but this model needs int32\[2\]",
        ),
        (
            lambda s: s | {"step": jnp.float32(0)},
            r"step is int32\[\], but this model needs float32\[\]",
        ),
    ],
)
def test_restore_is_strict(store, change, message):  # guards F2, F3
    save(store, 1)
    with pytest.raises(CheckpointError, match=message) as caught:
        store.restore_newest(shapes(change(state())))
    assert not isinstance(caught.value, Damaged)
    assert store.steps() == [1]  # another model is no damage


def test_every_single_flipped_bit_changes_the_checksum():
    x = np.arange(1, 257, dtype=np.uint8).view(np.float32)
    sums = lambda y: checksums.digest({"x": jnp.asarray(y)})["x"]
    before = sums(x)
    for byte in range(0, 256, 17):
        y = x.copy()
        y.view(np.uint8)[byte] ^= 1 << (byte % 8)
        assert sums(y) != before


def test_two_exchanged_values_change_the_checksum():
    x = np.random.default_rng(0).normal(size=32).astype(np.float32)
    y = x.copy()
    y[[3, 17]] = y[[17, 3]]
    assert checksums.digest({"x": jnp.asarray(x)}) != checksums.digest({"x": jnp.asarray(y)})


def test_damaged_meta_is_damage_too(store, tmp_path):
    said = []
    store.warn = said.append
    save(store, 1, 2)
    for file in (tmp_path / "checkpoints" / "2" / "meta").rglob("*"):
        if file.is_file():
            file.write_text("{")
    found, _ = store.restore_newest(shapes(state()))
    assert int(found["step"]) == 1 and "checkpoints/2: damaged" in said[0]
    assert (tmp_path / "damaged" / "step-2").is_dir()


def test_a_damaged_array_is_named_with_its_file(store, tmp_path):
    save(store, 1)
    written = (tmp_path / "checkpoints" / "1" / "state").rglob("d/*")
    for file in sorted(written, key=lambda path: path.stat().st_size)[-2:]:
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(Damaged, match=r'damaged .*Error reading "') as caught:
        store.restore(1, shapes(state()))
    assert "TensorStore details" not in str(caught.value)


def test_when_all_are_damaged_nothing_is_started_anew(store, tmp_path):
    said = []
    store.warn = said.append
    save(store, 1)
    for file in (tmp_path / "checkpoints" / "1" / "state").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(CheckpointError, match="none of the steps"):
        store.restore_newest(shapes(state()))


def test_a_full_disk_is_one_sentence_and_leaves_the_older_steps(store, monkeypatch):
    save(store, 1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(
            CheckpointError,
            match=r"cannot write the checkpoint of step 2 .*No space left.*steps \[1\] are intact",
        ),
    ):
        patch.setattr(store.manager, "save", full)
        store.save(2, state(2), {}, None)
    assert int(store.restore_newest(shapes(state()))[0]["step"]) == 1


@pytest.mark.slow
def test_files_that_cannot_grow_end_the_run_in_one_line_with_the_older_checkpoint_intact(tmp_path):
    files = tiny.data(tmp_path)
    args = [
        "train",
        "task=lm",
        f"data.train={files / 'book.txt'}",
        f"run_dir={tmp_path / 'run'}",
        *tiny.FAST,
        "checkpoint.every=2steps",
    ]
    assert tiny.jaxsft(*args)[0] == 0
    before = read_json(tmp_path / "run" / "result.json")
    code = (
        "import resource, signal, sys; from jaxsft import cli; import jaxsft.training.loop;"
        " signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from jaxsft.training.checkpoint import"
        " Checkpoints; save = Checkpoints.save\ndef small(self, *a):\n"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); return save(self,"
        " *a)\nCheckpoints.save = small\ncli.script()"
    )
    args = [a if not a.startswith("train.duration") else "train.duration=6steps" for a in args]
    second = subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = second.stderr.strip().splitlines()
    assert second.returncode == 1 and "Traceback" not in second.stderr, second.stderr
    assert lines[-1].startswith("jaxsft: ") and "are intact" in lines[-1]
    assert not (tmp_path / "run" / "result.json").exists() and before["train/steps"] == 4
    assert tiny.jaxsft(*args)[0] == 0
    assert read_json(tmp_path / "run" / "result.json")["train/steps"] == 6
