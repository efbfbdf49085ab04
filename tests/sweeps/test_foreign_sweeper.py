"""A sweeper of Hydra that is not ours gets its numbers from trials of one sweep."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from jaxsft.config.sweep_options import SweepConfig
from jaxsft.errors import ConfigError
from jaxsft.sweeps import foreign_sweeper, sweep_parent
from jaxsft.sweeps.command_grid import SweepCommand
from jaxsft.sweeps.sweep_plan import SweepPlan
from tests.sweeps import sweeping

SEEN: list = []


class Halving(Sweeper):
    """Asks for two seeds, then for one that depends on the better of them."""

    __module__ = "hydra_plugins.halving"

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        fixed = [a for a in arguments if not a.startswith("seed=")]
        jobs = [[*fixed, f"seed={seed}"] for seed in (4, 12, 6)]
        values = [one.return_value for one in self.launcher.launch(jobs, 0)]
        SEEN.append(values)
        best = int(min(value for value in values if value == value))
        SEEN.append([self.launcher.launch([[*fixed, f"seed={best // 2}"]], 3)[0].return_value])


@pytest.fixture
def sweeper(monkeypatch):
    monkeypatch.setitem(sys.modules, "hydra_plugins.halving", types.ModuleType("halving"))
    monkeypatch.setattr(sys.modules["hydra_plugins.halving"], "Halving", Halving, raising=False)
    Plugins.instance().register(Halving)
    node = {"_target_": "hydra_plugins.halving.Halving"}
    ConfigStore.instance().store("halving", node, group="hydra/sweeper")
    whole = sweep_parent.begin
    monkeypatch.setattr(
        sweep_parent, "begin", lambda wanted, options: whole(wanted, options, sweeping.FAKE)
    )
    SEEN.clear()


def test_batches_are_trials_of_one_sweep(place, sweeper):
    Path("book.txt").write_text("a line\n" * 30)
    words = ["task=lm", "data.train=book.txt", "seed=0", "hydra/sweeper=halving"]
    command = SweepCommand.of_arguments(words)
    assert foreign_sweeper.run(command, words, SweepConfig(slots=3)) == 1  # seed 12 raises
    assert SEEN[0][::2] == [4.0, 6.0] and SEEN[0][1] != SEEN[0][1] and SEEN[1] == [2.0]
    (folder,) = Path("runs").iterdir()
    plan = SweepPlan.read(folder)
    assert [one.overrides for one in plan.trials] == [
        ("seed=4",), ("seed=12",), ("seed=6",), ("seed=2",)
    ]  # fmt: skip
    assert sweeping.statuses(folder) == ["done", "failed", "done", "done"]


def test_a_sweeper_that_is_not_there_is_a_sentence(place):
    Path("book.txt").write_text("a line\n")
    words = ["task=lm", "data.train=book.txt", "seed=0,1", "hydra/sweeper=optuna"]
    with pytest.raises(ConfigError, match="hydra/sweeper"):
        foreign_sweeper.run(SweepCommand.of_arguments(words), words, SweepConfig())
