"""How a machine is shared between trials."""

from __future__ import annotations

import pytest

from jaxsft.errors import ConfigError
from jaxsft.sweeps import device_slots
from jaxsft.sweeps.device_slots import shared


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
