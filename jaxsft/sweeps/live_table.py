"""What a sweep looks like while it runs: one table that is redrawn on a terminal, a line for each
event elsewhere; and the account of it at the end.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft.rundir import duration_text
from jaxsft.sweeps.scheduler import Scheduler
from jaxsft.sweeps.sweep_plan import PlannedTrial
from jaxsft.sweeps.trial_ledger import BUSY, TrialState

TAIL = 12  # lines of the log of a failure
ROWS = 30  # trials in the table at a time
EVERY = 1.0  # seconds between two drawings
COLOURS = {"done": "green", "failed": "red", "started": "cyan", "interrupted": "yellow"}


class LiveTable:
    """Shows a running sweep; called by the scheduler at every turn."""

    def __init__(self, trials: Sequence[PlannedTrial], before: Mapping[str, TrialState]):
        """Takes the trials, and their states `before`, which are no news."""
        self._trials = list(trials)
        self._last = {name: state.status for name, state in before.items()}
        self._drawn = 0.0
        self._live: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)

    def __enter__(self) -> LiveTable:
        """Returns itself; the table is taken away at the end of the block."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, scheduler: Scheduler) -> None:
        """Draws the table, or prints what has changed."""
        now, states = time.monotonic(), scheduler.ledger.states()
        known = {trial.id for trial in self._trials}
        # a search decides on more
        self._trials += [t for job in scheduler.running for t in job.trials if t.id not in known]
        news = [
            (trial, states[trial.id])
            for trial in self._trials
            if trial.id in states and self._last.get(trial.id) != states[trial.id].status
        ]
        self._last |= {trial.id: state.status for trial, state in news}
        for trial, state in news:
            if state.status == "failed":
                self._say(f"{_title(trial)} failed: {state.message}\n{self._tail(trial)}".rstrip())
            elif self._live is None and state.status not in ("planned", "leased"):
                self._say(_event_text(trial, state))
        if self._live is not None and (news or now - self._drawn > EVERY):
            self._drawn = now
            self._live.update(self._table(states, scheduler.slots), refresh=True)

    def _say(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _tail(self, trial: PlannedTrial) -> str:
        return "\n".join(f"    {line}" for line in log_tail(trial))

    def _table(self, states: Mapping[str, TrialState], slots: int) -> Any:
        from rich.table import Table

        table = Table(box=None, caption=caption(self._trials, states, slots))
        for head in ("trial", "swept", "status", "metric", "step", "time"):
            table.add_column(head, overflow="fold")
        for trial in _shown(self._trials, states):
            state = states.get(trial.id) or TrialState(trial.id, trial.number)
            status = f"[{COLOURS[state.status]}]{state.status}" if state.status in COLOURS else ""
            cells = [trial.name, status or state.status, number_text(state)]
            step = "" if state.step is None or state.status == "done" else str(state.step)
            table.add_row(str(trial.number), *cells, step, _time(state))
        return table


def _shown(
    trials: Sequence[PlannedTrial], states: Mapping[str, TrialState]
) -> Sequence[PlannedTrial]:
    """Returns the trials for which there is room: those that run, then those that ended last."""
    if len(trials) <= ROWS:
        return trials
    rank = {"started": 0, "leased": 0, "failed": 1, "interrupted": 1, "done": 2}
    status = lambda one: states[one.id].status if one.id in states else "planned"
    chosen = sorted(trials, key=lambda one: (rank.get(status(one), 3), -one.number))[:ROWS]
    return sorted(chosen, key=lambda one: one.number)


def _title(trial: PlannedTrial) -> str:
    return f"trial {trial.number}{f' ({trial.name})' if trial.overrides else ''}"


def _event_text(trial: PlannedTrial, state: TrialState) -> str:
    number = number_text(state)
    told = {
        "started": "started" if state.attempt < 2 else f"started again (attempt {state.attempt})",
        "done": f"done{f', {number}' if number else ''}, {_time(state)}",
        "interrupted": f"interrupted: {state.message}",
    }
    return f"{_title(trial)}: {told.get(state.status, state.status)}"


def number_text(state: TrialState) -> str:
    """Returns the metric of a trial with its name; "" where it has none yet."""
    if state.value is None:
        return ""
    return f"{(state.metric or '').partition('/')[2] or state.metric} {state.value:.4g}"


def _time(state: TrialState) -> str:
    return "" if state.seconds is None else duration_text(state.seconds)


def caption(
    trials: Sequence[PlannedTrial], states: Mapping[str, TrialState], slots: int = 1
) -> str:
    """Returns how many trials there are of each status, and how long the rest will take."""
    mine = [states[one.id] for one in trials if one.id in states]
    counts = Counter("running" if state.status in BUSY else state.status for state in mine)
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    took = [state.seconds for state in mine if state.status == "done" and state.seconds]
    left = sum(state.status in ("planned", "interrupted", *BUSY) for state in mine)
    if not took or not left:
        return text
    return f"{text}; about {duration_text(statistics.mean(took) * left / max(slots, 1))} to go"


def log_tail(trial: PlannedTrial) -> list[str]:
    """Returns the last lines that the processes of a trial printed."""
    try:
        with open(trial.beside(".log"), "rb") as file:
            file.seek(max(file.seek(0, 2) - 20_000, 0))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-TAIL:]


def status_lines(trials: Sequence[PlannedTrial], states: Mapping[str, TrialState]) -> list[str]:
    """Returns a table of all trials as lines of text."""
    rows = [("trial", "status", "metric", "attempts", "time", "swept", "")]
    for trial in trials:
        state = states.get(trial.id) or TrialState(trial.id, trial.number)
        message = state.message if state.status in ("failed", "interrupted") else ""
        rows.append(
            (
                str(trial.number),
                state.status,
                number_text(state),
                str(state.attempt),
                _time(state),
                ",".join(trial.overrides),
                message or "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lined = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return [*(line.rstrip() for line in lined), caption(trials, states)]


def failures(trials: Sequence[PlannedTrial], states: Mapping[str, TrialState]) -> list[str]:
    """Returns a line for each trial that failed, and one that counts them."""
    failed = [(one, states[one.id]) for one in trials if states[one.id].status == "failed"]
    if not failed:
        return []
    return [
        *(
            f"jaxsft: {_title(trial)}: {state.message} ({state.kind}, {trial.beside('.log')})"
            for trial, state in failed
        ),
        f"jaxsft: {len(failed)} of {len(trials)} trials failed:"
        f" {', '.join(str(trial.number) for trial, _ in failed)}",
    ]
