"""Multiruns of commands that train nothing: their jobs run one after the other."""

from __future__ import annotations

import pytest

from jaxsft.commands import hydra_app
from jaxsft.errors import ConfigError

BASE = ["-m", "task=lm", "data.train=x.txt"]


def coded(config) -> int:
    if config.seed == 2:
        raise ConfigError("seed=2: is refused")
    if config.seed == 3:
        raise ValueError("a fault of the program")
    return config.seed


def test_a_job_that_fails_is_named_and_the_others_go_on(capsys):
    assert hydra_app.run([*BASE, "seed=0,2,3,5"], coded) == 5
    told = capsys.readouterr().err
    assert "jaxsft: seed=2: is refused\n" in told and "ValueError: a fault of the program" in told
    assert told.splitlines()[-1].startswith("3 of 4 jobs failed: ")
    assert [f"seed={n}" in told.splitlines()[-1] for n in (0, 2, 3, 5)] == [False, *[True] * 3]


def test_a_multirun_without_failures_is_silent(capsys):
    assert hydra_app.run([*BASE, "seed=0,0"], coded) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("word", ["hydra/launcher=joblib", "sweep.slots=2"])
def test_what_only_a_sweep_of_trainings_reads_is_refused(word):
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        hydra_app.run([*BASE, "seed=0,1", word], coded)


def test_options_of_a_sweep_need_a_sweep():
    with pytest.raises(ConfigError, match=r"^sweep\.slots=2: is read with -m"):
        hydra_app.run([*BASE[1:], "sweep.slots=2"], coded, trains=True)


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "submitit_slurm", "mine"])
def test_launchers_of_others_are_told_what_is_used_instead(name):
    with pytest.raises(ConfigError, match=rf"^hydra/launcher={name}: .*slots"):
        hydra_app.run([*BASE, "seed=0,1", f"hydra/launcher={name}"], coded, trains=True)
