"""The scheduler on a simulated machine: parents, workers and power are lost at random events, and
the account stays true. Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import pytest

from jaxsft.sweeps.scheduler import Grid, Scheduler, SweepLimits
from jaxsft.sweeps.trial_ledger import TrialLedger, fold
from tests.sweeps.simulated import World


@pytest.mark.parametrize("block", range(8))
def test_no_trial_is_lost_or_doubled_whatever_is_killed(block, tmp_path):  # guards I3
    parents = killed = 0
    for seed in range(block * 25, block * 25 + 25):
        folder = tmp_path / str(seed)
        folder.mkdir()
        world = World(folder, seed, count=7, kills=0.01 if seed % 5 else 0.0)
        world.to_the_end(slots=1 + seed % 3)
        _check(world)
        parents += world.parents
        killed += sum(p.code == -9 for p in world.processes)
    assert parents > 50 and killed > 50  # it was put to the test


def _check(world: World) -> None:
    """The ledger says what happened, and each trial happened once."""
    ledger = TrialLedger(world.folder)
    events, states = ledger.events(), ledger.states()
    assert fold(events) == states
    for trial in world.trials:
        state, kind = states[trial.id], world.behaviour(trial)
        done = [e for e in events if e.trial == trial.id and e.event == "done"]
        number = trial.number
        if kind == "fine":
            assert state.status == "done" and len(done) == 1 and world.finished[number] == 1
        elif kind == "error":
            # an error is final: it is not run into twice
            assert (state.status, state.kind) == ("failed", "error") and world.errors[number] == 1
        else:
            assert (state.status, state.kind) == ("failed", "timeout")
        leases = [e.attempt for e in events if e.trial == trial.id and e.event == "leased"]
        assert leases == list(range(1, len(leases) + 1))
        assert world.attempts[number] == sum(
            e.trial == trial.id and e.event == "started" for e in events
        )
    assert not [p for p in world.alive() if p.stage != "starting"]


def test_without_failures_each_trial_is_started_once_and_all_slots_are_used(tmp_path):
    world = World(tmp_path, 3, count=9, kills=0.0)
    world.kinds = ["fine"] * 9
    assert world.parent(slots=3)
    assert world.attempts == dict.fromkeys(range(9), 1) and world.most == 3


@pytest.mark.parametrize("stop", [False, True])
def test_after_a_failure_others_start_or_do_not(stop, tmp_path):  # guards I3
    world = World(tmp_path, 0, count=6, kills=0.0)
    world.kinds = ["error"] + ["fine"] * 5
    ledger = world.ledger()
    limits = SweepLimits(stop_on_error=stop)
    Scheduler(
        ledger, Grid(world.trials), 2, world.start, world.find, limits,
        clock=world.clock, wait=world.wait,
    ).run()  # fmt: skip
    statuses = [ledger.states()[trial.id].status for trial in world.trials]
    assert statuses[0] == "failed"
    # what ran beside it goes to its end
    assert statuses.count("done") == (5 if not stop else statuses[1:].count("done"))
    assert ("planned" in statuses) is stop and "interrupted" not in statuses


def test_what_is_killed_again_and_again_has_failed_in_the_end(tmp_path):
    world = World(tmp_path, 0, count=2, kills=0.0)
    world.kinds = ["fine", "fine"]
    whole = world.start

    def start(trials, slot, attempts):
        made = whole(trials, slot, attempts)
        if trials[0].number == 0:
            made.act()
            made.kill()
        return made

    world.start = start
    world.parent(slots=1, retries=2)
    states = world.workers_ledger.states()
    first, second = (states[trial.id] for trial in world.trials)
    assert (first.status, first.kind, first.attempt) == ("failed", "infrastructure", 3)
    assert first.message == "was killed by signal 9" and second.status == "done"


def test_a_cancelled_trial_is_ended_and_stays_so(tmp_path):
    world = World(tmp_path, 1, count=2, kills=0.0)
    world.kinds = ["hang", "fine"]

    def cancel(scheduler):
        if world.attempts[0] and scheduler.ledger.states()[world.trials[0].id].status == "started":
            scheduler.ledger.append("cancelled", world.trials[0].id, 0, 1)

    world.interrupt = cancel
    assert world.parent(slots=1)
    statuses = [world.workers_ledger.states()[t.id].status for t in world.trials]
    assert statuses == ["cancelled", "done"] and world.attempts[0] == 1


def test_the_second_request_to_stop_is_obeyed_at_once(tmp_path):
    world = World(tmp_path, 1, count=2, kills=0.0)
    world.kinds = ["deaf", "deaf"]
    pressed = []

    def press(scheduler):
        if len(scheduler.running) == 2 and world.steps[0] == 1 and len(pressed) < 2:
            pressed.append(world.now)
            scheduler.stop()

    world.interrupt = press
    assert world.parent(slots=2)
    states = world.workers_ledger.states()
    assert [states[t.id].status for t in world.trials] == ["interrupted"] * 2
    assert len(pressed) == 2 and world.now - pressed[1] < 2
