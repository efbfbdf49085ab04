"""A search over the values of options on the simulated machine: nothing that was proposed is lost
or told twice, whichever process dies; what is not worth going on is stopped.
"""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path

import pytest

from jaxsft.config import composer, search_options
from jaxsft.errors import JaxsftError
from jaxsft.sweeps import (
    search_book,
    search_outcome,
    search_runs,
    search_space,
    search_study,
    sweep_parent,
)
from jaxsft.sweeps.scheduler import Grid, Scheduler, SweepLimits
from jaxsft.sweeps.search import OptunaSource
from jaxsft.sweeps.search_book import SearchBook
from jaxsft.sweeps.search_study import StudyMirror
from jaxsft.sweeps.sweep_parent import WantedTrial
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import ENDED
from tests.sweeps.simulated import STEPS, ParentKilledError, World

optuna = pytest.importorskip("optuna", reason="needs jaxsft[search]")

RATES = {"optim.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    book = tmp_path_factory.mktemp("book") / "book.txt"
    book.write_text("a line\n" * 30)
    with composer.opened() as maker:
        return maker.config(["task=lm", f"data.train={book}"])


class SearchWorld(World):
    """A machine with a search on it, whose loss is least at a learning rate of 1e-3."""

    metric = "validation/loss"

    def __init__(self, folder: Path, seed: int, kills: float, config, seeds=({},), **options):
        super().__init__(folder, seed, 0, kills)
        self.config, self.kinds = config, {}
        given = {"metric": self.metric, "direction": "minimize", "trials": 6, "start": 2}
        given |= {"space": RATES, "confirm": 2, **options}
        search = search_options.read(given, "search")
        axes = search_space.read(search.space, "search.space")
        study = {"search": search_runs._plain(search, axes), "with_each": list(seeds)}
        plan = SweepPlan(folder, (), ("optim.learning_rate",), study, (), {"source": "x"})
        plan.write()

    def value(self, trial, step):
        rate, seed = trial.config["optim"]["learning_rate"], trial.config["seed"]
        return (math.log10(rate) + 3) ** 2 + 0.01 * (seed * 7919 % 13) + 1 / step - 1 / STEPS

    def behaviour(self, trial):
        kinds = ["fine"] * 6 + (["error", "hang"] if self.kills else [])
        return self.kinds.get(trial.number) or random.Random(trial.id).choice(kinds)

    def compose(self, setting) -> WantedTrial:
        self._danger()
        values = {**setting}
        seed = values.pop("seed", 0)
        optim = dataclasses.replace(
            self.config.optim, **{key.partition(".")[2]: v for key, v in values.items()}
        )
        own = tuple(f"{key}={value}" for key, value in setting.items())
        return WantedTrial(own, dataclasses.replace(self.config, optim=optim, seed=seed))

    def source(self, ledger) -> OptunaSource:
        plan, states = SweepPlan.read(self.folder), ledger.states()
        for one in plan.trials:
            if one.id in states and states[one.id].status == "done":
                one.run_dir.mkdir(parents=True, exist_ok=True)
                for name in ("result.json", "report.html"):
                    (one.run_dir / name).touch()
        sweep_parent.write_missing(plan, ledger)
        options, axes = search_book.options_of(plan), search_book.axes_of(plan)
        mirror = DeadlyMirror(search_study.settings_of(options, axes, "a search", self.folder))
        mirror.world = self
        return OptunaSource(SearchBook(plan, ledger, self.compose), mirror, 10**6)

    def parent(self, slots, retries=10**6) -> bool:
        self.parents += 1
        for process in self.processes:
            process.child = False
        try:
            ledger = self.ledger()
            made = Scheduler(
                ledger, Grid(()), slots, self.start, self.find, SweepLimits(80.0, retries),
                clock=self.clock, wait=self.wait, watch=self.interrupt,
            )  # fmt: skip
            source = self.source(
                ledger
            )  # as in `sweep_parent.run`: before what still runs is known
            made.adopt(source.book.plan.trials)
            made.source = source
            made.run()
            return not made.stops
        except ParentKilledError:
            return False

    def to_the_end(self, slots):
        for _ in range(500):
            if self.parent(slots):
                return
        raise AssertionError("the search never ends")

    def plan(self):
        return SweepPlan.read(self.folder)

    def optuna(self):
        return optuna.load_study(
            study_name="a search", storage=search_study.url_of(None, self.folder)
        ).trials

    def outcome(self):
        return search_outcome.outcome(self.plan(), self.workers_ledger.states())


class DeadlyMirror(StudyMirror):
    """A study whose writer may die before and after each word."""

    world: SearchWorld

    def ask(self, point):
        self.world._danger()
        return super().ask(point)

    def tell(self, result):
        self.world._danger()
        super().tell(result)
        self.world._danger()


@pytest.mark.parametrize("seed", [1, 2])
def test_no_point_is_lost_or_told_twice_whatever_is_killed(seed, tmp_path, config):  # guards I3
    world = SearchWorld(tmp_path, seed, 0.012, config)
    world.to_the_end(slots=1 + seed % 3)
    plan, states = world.plan(), world.workers_ledger.states()
    points = search_book.points_of(plan)
    assert len(points) == 6 and world.parents > 1
    events = world.workers_ledger.events()
    for trial in plan.trials:
        assert states[trial.id].status in ENDED
        done = sum(e.trial == trial.id and e.event == "done" for e in events)
        assert done == (states[trial.id].status == "done")
    # Optuna knows of each point, and what the ledger says of it
    told, results = world.optuna(), search_outcome.results_of(plan, states)
    assert [t.params for t in told] == [dict(p.values) for p in points]
    for one, result in zip(told, results, strict=True):
        assert one.state.name == {"done": "COMPLETE", "failed": "FAIL"}[result.status]
        assert result.status != "done" or one.value == result.values[0]
    found = world.outcome()
    if found["points"]["done"]:
        assert found["searched"] and len(found["best"][0]["confirmation"]["trials"]) == 2


def test_what_is_proposed_does_not_depend_on_who_was_killed(tmp_path, config):
    """One trial at a time: a search that was killed proposes what one does that was not."""
    values = []
    for name, kills in (("whole", 0.0), ("killed", 0.01)):
        (tmp_path / name).mkdir()
        world = SearchWorld(tmp_path / name, 3, kills, config, trials=5, confirm=0)
        world.behaviour = lambda trial: "fine"
        world.to_the_end(slots=1)
        values.append([dict(p.values) for p in search_book.points_of(world.plan())])
    assert world.parents > 1 and values[0] == values[1]


def test_tpe_finds_what_is_good_and_the_bias_of_the_best_is_told(tmp_path, config):
    world = SearchWorld(tmp_path, 0, 0.0, config, trials=14, start=5, confirm=3)
    world.to_the_end(slots=3)
    found = world.outcome()
    (best,) = found["best"]
    assert best["found"]["validation/loss"] < 0.3 and best["confirmed"]
    about = best["confirmation"]["validation/loss"]
    assert len(about["values"]) == 3 and found["points"]["done"] == 14
    plan = world.plan()
    seeds = {plan.by_number(n).config["seed"] for n in best["confirmation"]["trials"]}
    assert seeds == {1, 2, 3}
    # less is better: that the search found less than other seeds do is luck
    bias = about["mean"] - best["found"]["validation/loss"]
    assert about["selection_bias"] == pytest.approx(bias) and bias > 0
    assert "other seeds" in "\n".join(search_outcome.lines(found))


@pytest.mark.parametrize("sampler", ["random", "grid", "cmaes", "nsga2", "gp"])
def test_each_sampler_proposes_as_many_as_were_asked_for(sampler, tmp_path, config):
    if sampler in ("cmaes", "gp"):
        pytest.importorskip({"cmaes": "cmaes", "gp": "torch"}[sampler])
    space = {"optim.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True, "count": 5}}
    space |= {"optim.weight_decay": [0.0, 0.1]} if sampler != "cmaes" else {}
    world = SearchWorld(tmp_path, 0, 0.0, config, sampler=sampler, space=space, trials=8, confirm=0)
    world.to_the_end(slots=2)
    points, found = search_book.points_of(world.plan()), world.outcome()
    assert len(points) == 8 and found["points"]["done"] == 8
    if sampler == "grid":
        chosen = [tuple(p.values.values()) for p in points]
        assert len(set(chosen)) == 8 and chosen[:2] == [(1e-5, 0.0), (1e-5, 0.1)]
    assert found["best"][0]["confirmed"] is False


@pytest.mark.parametrize("prune", ["median", "halving"])
def test_what_is_not_worth_it_is_stopped_and_told_as_pruned(prune, tmp_path, config):
    world = SearchWorld(tmp_path, 1, 0.0, config, prune=prune, trials=12, start=2, sampler="random")
    world.to_the_end(slots=2)
    states, plan = world.workers_ledger.states(), world.plan()
    pruned = [states[t.id] for t in plan.trials if states[t.id].status == "cancelled"]
    assert pruned and all(s.message.startswith(f"pruned: {prune}, step ") for s in pruned)
    found = world.outcome()
    assert found["points"]["pruned"] == len(pruned)
    assert sum(t.state.name == "PRUNED" for t in world.optuna()) == len(pruned)
    # the gentle signal reached those that were still running, and none was trained to its end
    assert all(world.steps[s.number] <= STEPS for s in pruned)
    # those that are pruned are worse than the best
    assert all(s.value > found["best"][0]["found"]["validation/loss"] for s in pruned)
    # it was asked for by a signal, and never killed
    assert not any(p.code == -9 for p in world.processes)


def test_a_constraint_is_kept_by_the_best(tmp_path, config):
    bound = {"validation/loss": {"at_least": 0.5}}
    world = SearchWorld(tmp_path, 0, 0.0, config, constraints=bound, trials=10)
    world.to_the_end(slots=2)
    found = world.outcome()
    assert found["infeasible"] > 0
    assert found["best"][0]["found"]["validation/loss"] >= 0.5


def test_several_metrics_have_a_front_and_each_of_it_is_confirmed(tmp_path, config):
    options = {"metric": ["validation/loss", "seconds"], "direction": ["minimize", "minimize"]}
    world = SearchWorld(tmp_path, 0, 0.0, config, sampler="nsga2", **options)
    world.to_the_end(slots=2)
    found = world.outcome()
    assert found["best"] and all(one["confirmed"] for one in found["best"])


def test_a_study_that_contradicts_the_ledger_is_made_anew(tmp_path, config):
    world = SearchWorld(tmp_path, 0, 0.0, config, trials=4)
    world.to_the_end(slots=2)
    before = [(t.params, t.value) for t in world.optuna()]
    (tmp_path / "search.db").unlink()  # it was lost
    world.to_the_end(slots=2)
    assert [(t.params, t.value) for t in world.optuna()] == before
    study = optuna.load_study(study_name="a search", storage=f"sqlite:///{tmp_path}/search.db")
    study.tell(study.ask(), 0.0)  # somebody else writes to it
    world.to_the_end(slots=2)
    assert [(t.params, t.value) for t in world.optuna()] == before
    assert world.attempts.total() == len(world.plan().trials)  # nothing ran again
    (tmp_path / "search.db").write_text("no database")
    with pytest.raises(JaxsftError, match=r"search\.db: Optuna cannot use it"):
        world.parent(slots=1)


def test_values_that_were_tried_are_not_trained_again(tmp_path, config):
    space = {"optim.learning_rate": [1e-4, 1e-3]}
    world = SearchWorld(tmp_path, 0, 0.0, config, space=space, trials=9, sampler="random")
    world.to_the_end(slots=3)
    assert world.outcome()["points"]["done"] == 9
    assert len(world.plan().trials) == 2 + 2  # and the confirmation
    assert [t.state.name for t in world.optuna()] == ["COMPLETE"] * 9


def test_a_failed_trial_that_is_run_again_counts(tmp_path, config):
    world = SearchWorld(tmp_path, 0, 0.0, config, trials=3, confirm=0)
    world.kinds = {1: "error"}
    world.to_the_end(slots=1)
    assert [t.state.name for t in world.optuna()] == ["COMPLETE", "FAIL", "COMPLETE"]
    world.kinds = {}
    assert sweep_parent.retry(world.plan(), world.workers_ledger) == [1]
    world.to_the_end(slots=1)
    assert [t.state.name for t in world.optuna()] == ["COMPLETE"] * 3
