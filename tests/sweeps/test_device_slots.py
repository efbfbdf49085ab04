"""How a machine is shared between trials."""

from __future__ import annotations

import pytest

from jaxsft.errors import ConfigError
from jaxsft.sweeps import device_slots
from jaxsft.sweeps.device_slots import shared
from tests.sweeps import sweeping


def test_one_slot_has_the_machine_as_it_is():
    (slot,) = shared("auto", 1, {}, range(8), [])
    assert slot.env == {} and slot.cores == ()
    (slot,) = shared("auto", 1, {}, range(8), ["0"])
    assert slot.env == {} and slot.cores == ()


def test_cores_are_shared_and_every_library_is_told():
    slots = shared(3, 1, {"OMP_NUM_THREADS": "7"}, range(8), [])
    assert [len(slot.cores) for slot in slots] == [2, 3, 3]
    assert sorted(core for slot in slots for core in slot.cores) == list(range(8))
    assert slots[1].env == {name: "3" for name in device_slots.THREADS if name[0] != "O"} | {
        "OPENBLAS_NUM_THREADS": "3"
    }
    # more slots than cores
    assert [slot.cores for slot in shared(3, 1, {}, [4, 9], [])] == [(4,), (4,), (9,)]


def test_gpus_are_shared_by_name_and_memory():
    four = ["0", "1", "GPU-x", "3"]
    each = shared("auto", 1, {}, range(8), four)
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in each] == four
    assert not any(device_slots.FRACTION in slot.env for slot in each)
    pairs = shared("auto", 2, {}, range(8), four)
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in pairs] == ["0,1", "GPU-x,3"]
    crowd = shared(3, 1, {}, range(8), ["0", "1"])
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in crowd] == ["0", "1", "0"]
    assert [slot.env.get(device_slots.FRACTION) for slot in crowd] == ["0.450", "0.900", "0.450"]
    with pytest.raises(ConfigError, match=r"sweep\.gpus=3: this machine has 2 GPUs"):
        shared("auto", 3, {}, range(8), ["0", "1"])


def test_what_the_environment_says_of_gpus():
    assert device_slots.gpus({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0"}) == []
    assert device_slots.gpus({"CUDA_VISIBLE_DEVICES": "2, 3"}) == ["2", "3"]
    assert device_slots.gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_chips_of_a_tpu_have_one_process_each(tmp_path, monkeypatch):
    (whole,) = shared("auto", 1, {}, range(8), [], list("0123"))
    assert whole.env == {}
    four = shared(4, 1, {}, range(8), [], list("0123"))
    assert [slot.env["TPU_VISIBLE_CHIPS"] for slot in four] == list("0123")
    assert len({slot.env["TPU_PROCESS_PORT"] for slot in four}) == 4
    assert {slot.env["TPU_PROCESS_ADDRESSES"] for slot in four} == {
        f"localhost:{slot.env['TPU_PROCESS_PORT']}" for slot in four
    }
    pairs = shared(2, 2, {"CLOUD_TPU_TASK_ID": "7"}, range(8), [], list("0123"))
    assert [slot.env["TPU_VISIBLE_CHIPS"] for slot in pairs] == ["0,1", "2,3"]
    assert {slot.env["TPU_CHIPS_PER_PROCESS_BOUNDS"] for slot in pairs} == {"1,2,1"}
    assert {slot.env["TPU_PROCESS_BOUNDS"] for slot in pairs} == {"1,1,1"}
    assert "CLOUD_TPU_TASK_ID" not in pairs[0].env  # somebody has set it
    for slots, each in ((5, 1), (3, 2), (2, 3)):
        with pytest.raises(ConfigError, match=rf"slots={slots}: this machine has 4 TPU chips"):
            shared(slots, each, {}, range(8), [], list("0123"))
    # which there are
    monkeypatch.setattr(device_slots.importlib.util, "find_spec", lambda name: name)
    for name in ("accel0", "accel1"):
        (tmp_path / name).touch()
    assert device_slots.tpu_chips({}, tmp_path) == ["0", "1"]
    assert device_slots.tpu_chips({"TPU_VISIBLE_CHIPS": "1, 3"}, tmp_path) == ["1", "3"]
    assert device_slots.tpu_chips({"JAX_PLATFORMS": "cpu"}, tmp_path) == []
    monkeypatch.setattr(device_slots.importlib.util, "find_spec", lambda name: None)
    assert device_slots.tpu_chips({}, tmp_path) == []


def test_a_job_is_started_with_the_environment_of_its_slot(place, monkeypatch):
    """Two GPUs for three slots, from the list of devices to what a process is given."""
    given = {}

    class Taken(sweeping.WorkerHere):
        def __init__(self, command, log, env):
            given[int(command[-1])] = dict(env)
            super().__init__(command, log, env)

    monkeypatch.setattr(sweeping.sweep_parent, "Child", Taken)
    monkeypatch.setattr(device_slots, "cores", lambda: [0, 1, 2])
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-x")
    for name in (*device_slots.THREADS, device_slots.FRACTION):
        monkeypatch.delenv(name, raising=False)
    assert sweeping.run(["seed=0,1,2", "run_dir=s"], slots=3) == 0
    found = [given[i].get("CUDA_VISIBLE_DEVICES") for i in range(3)]
    assert found == ["4", "GPU-x", "4"]
    assert [given[i].get(device_slots.FRACTION) for i in range(3)] == ["0.450", "0.900", "0.450"]
    assert {given[i]["OMP_NUM_THREADS"] for i in range(3)} == {"1"}
