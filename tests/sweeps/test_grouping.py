"""Which trials are one program, asked of a child process."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from jaxsft.errors import JaxsftError
from jaxsft.sweeps import grouping
from jaxsft.training import stack
from tests import tiny


def test_groups_are_those_of_the_keys(tmp_path):
    files = tiny.data(tmp_path)
    one = tiny.config(files, tmp_path / "a", "classify")
    other = dataclasses.replace(one, seed=1, run_dir=str(tmp_path / "b"))
    optim = dataclasses.replace(one.optim, clip_norm=float("inf"))
    wider = dataclasses.replace(one, model=dataclasses.replace(one.model, mlp=64))
    cached = dataclasses.replace(one.train, backbone="cached")
    wrong = dataclasses.replace(one, train=cached)  # with dropout
    configs = [one, wider, other, wrong, wrong, dataclasses.replace(one, optim=optim)]
    assert grouping.groups(configs) == [[0, 2, 5], [1], [3], [4]]
    assert grouping.keys([one]) == [stack.stack_key(one)]
    assert grouping.groups([]) == []


def test_a_child_that_dies_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(grouping, "CHILD", "jaxsft.no_such_module")
    with pytest.raises(JaxsftError, match=r"ended with 1: .*no_such_module"):
        grouping.keys([tiny.config(tiny.data(tmp_path), tmp_path / "a")])


def test_the_parent_imports_no_jax():
    code = "import sys, jaxsft.sweeps.grouping; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
