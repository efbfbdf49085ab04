"""Jobs of a multirun whose launcher pickles them, as one that starts other processes does: nothing
that a job changes in memory comes back.
"""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from jaxsft.commands import hydra_app, outcomes
from jaxsft.errors import ConfigError
from jaxsft.rundir import write_json

cloudpickle = pytest.importorskip("cloudpickle")
RETURNED: list = []  # what jobs gave Hydra's sweeper


class Elsewhere(BasicLauncher):
    """Runs each job with a copy of its function."""

    __module__ = "hydra_plugins.elsewhere"  # Hydra takes plug-ins from there

    def launch(self, job_overrides, initial_job_idx):
        function, out = self.task_function, []
        for index, overrides in enumerate(job_overrides, start=initial_job_idx):
            self.task_function = cloudpickle.loads(cloudpickle.dumps(function))
            out += super().launch([overrides], index)
            RETURNED.append(out[-1].return_value)
        return out


@pytest.fixture(params=["basic", "elsewhere"])
def launcher(request, tmp_path, monkeypatch):
    for name in ("hydra_plugins", "hydra_plugins.elsewhere"):
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = []
            monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setattr(
        sys.modules["hydra_plugins.elsewhere"], "Elsewhere", Elsewhere, raising=False
    )
    Plugins.instance().register(Elsewhere)
    node = {"_target_": "hydra_plugins.elsewhere.Elsewhere"}
    ConfigStore.instance().store("elsewhere", node, group="hydra/launcher")
    monkeypatch.chdir(tmp_path)
    RETURNED.clear()
    return request.param


def trained(config) -> int:
    """Leaves the result of a run, or fails by its seed."""
    if config.seed == 2:
        raise ConfigError("seed=2: is refused")
    if config.seed == 3:
        raise ValueError("a fault of the program")
    Path(config.run_dir).mkdir(parents=True)
    Path(config.run_dir, "config.yaml").write_text("evaluation: {metric: validation/loss}\n")
    write_json(Path(config.run_dir, "result.json"), {"validation/loss": float(config.seed)})
    return 0


def coded(config) -> int:
    return config.seed


def test_a_failed_job_ends_the_sweep_with_an_error_and_is_named(launcher, capsys):
    arguments = ["-m", "task=lm", "data.train=x.txt", "seed=1,2,3,4", f"hydra/launcher={launcher}"]
    assert hydra_app.run(arguments, trained, trains=True) == 1
    told = capsys.readouterr()
    assert "jaxsft: seed=2: is refused\n" in told.err
    assert "ValueError: a fault of the program" in told.err
    assert told.err.endswith("\n2 of 4 jobs failed: seed=2; seed=3\n")
    runs = sorted(Path("runs").glob("lm-sweep-*/*/result.json"))
    # all jobs in one folder, those that went on too, and compared in the end
    assert [p.parent.name for p in runs] == ["seed=1", "seed=4"]
    assert len({p.parent.parent for p in runs}) == 1 and "comparison:" in told.out
    assert not list(Path().glob(".jaxsft-sweep-*"))
    if launcher == "elsewhere":
        assert RETURNED[::3] == [1.0, 4.0] and all(map(math.isnan, RETURNED[1:3]))


def test_the_code_of_a_sweep_is_the_worst_of_its_jobs(launcher, capsys):
    arguments = ["-m", "task=lm", "data.train=x.txt", "seed=0,5,3", f"hydra/launcher={launcher}"]
    assert hydra_app.run(arguments, coded) == 5
    assert "2 of 3 jobs failed: " in capsys.readouterr().err
    assert RETURNED in ([], [0, 5, 3])


def test_a_job_that_never_ended_has_failed():
    jobs = [outcomes.Outcome(0, "seed=0", 0), outcomes.Outcome(1, "seed=1")]
    assert outcomes.exit_code(jobs) == 1
    assert outcomes.summary(jobs) == "1 of 2 jobs failed: seed=1 (lost)"
