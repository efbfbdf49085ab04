"""A search as the source of a sweep's trials: a free slot asks for values, a trial that has ended
is told. When all points have ended, the best is trained again with seeds that it has not seen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from jaxsft import rundir
from jaxsft.errors import DataError, JaxsftError
from jaxsft.sweeps import search_book, search_outcome, worse_rows
from jaxsft.sweeps.search_book import SearchBook, SearchPoint
from jaxsft.sweeps.search_outcome import PRUNED, PointResult
from jaxsft.sweeps.search_study import StudyMirror
from jaxsft.sweeps.sweep_plan import PlannedTrial
from jaxsft.sweeps.trial_ledger import BUSY, ENDED, TrialState


class OptunaSource:
    """A source that decides on the next trial from what it knows of the others."""

    def __init__(self, book: SearchBook, study: StudyMirror, retries: int = 0):
        """Takes up a search where plan and ledger say that it stands.

        Args:
          retries: how often a trial may be lost and is started again (`scheduler.unfinished`).
        """
        self.book, self.study, self.options = book, study, study.options
        self.ledger, self._retries = book.ledger, retries
        self._waiting: deque[PlannedTrial] = deque()
        self._given: set[str] = set()
        self._held: dict[int, deque[str]] = {}  # trials of other seeds, until the first has ended
        self._seen: dict[str, tuple[int, int | None]] = {}
        self.points = {one.number: one for one in search_book.points_of(book.plan)}
        self.results: dict[int, PointResult] = {}
        states = self._final()
        found = [self._result(one, states) for one in self.points.values()]
        self.results = {one.point.number: one for one in found}
        study.reconcile(found, self._curve)
        for one in found:
            if one.status == "open":
                self._offer(one.point, states)

    # --- the protocol
    # ----------------------------------------------------------------------------------------------
    def ask(self, free_slots: int) -> list[PlannedTrial]:
        """Returns trials to run now; none where it waits, or the search is over."""
        self._settle()
        while len(self._waiting) < free_slots and self._next():
            self._settle()
        count = min(free_slots, len(self._waiting))
        return [self._waiting.popleft() for _ in range(count)]

    def tell(self, trial: PlannedTrial, state: TrialState) -> None:
        """Tells what became of the point of a trial, where all its trials have ended."""
        for point in [one for one in self.points.values() if trial.id in one.trials]:
            if self.results[point.number].status == "open":
                self._judge(point)

    def look(self) -> None:
        """Cancels trials whose numbers say that they are not worth going on."""
        if self.options.prune not in ("median", "halving"):
            return
        states = self.ledger.states()
        for number, result in self.results.items():
            for name in result.point.trials if result.status == "open" else ():
                state = states.get(name)
                if state is None or state.status != "started" or state.step is None:
                    continue
                if self._seen.get(name) != (state.attempt, state.step):
                    self._seen[name] = state.attempt, state.step
                    self.study.report(number, self._curve(result))
                    if self.study.to_prune(number):
                        self._prune([name], f"{self.options.prune}, step {state.step}")

    # --- points
    # ----------------------------------------------------------------------------------------------
    def _next(self) -> bool:
        """Plans a further point, or confirmations; returns whether there was anything to plan."""
        number = len(self.points)
        if number < self.options.trials:
            point = self.book.add(self.study.ask(number))
            self.points[number] = point
            states = self.ledger.states()
            self.results[number] = self._result(point, states)
            if self.results[number].status != "open":
                self.study.tell(self.results[number])
            self._offer(point, states)
            return True
        if any(one.status == "open" for one in self.results.values()) or not self.options.confirm:
            return False
        planned = search_book.confirmations_of(self.book.plan)
        for one in search_outcome.best(self.options, list(self.results.values())):
            if one.point.number not in planned:
                self.book.confirm(one.point, self.book.fresh_seeds(self.options.confirm))
                ids = search_book.confirmations_of(self.book.plan)[one.point.number]
                self._give(ids, self.ledger.states())
                return True
        return False

    def _offer(self, point: SearchPoint, states: Mapping[str, TrialState]) -> None:
        """Gives out the trials of a point: the others after the first where rows decide."""
        if self.options.prune != "wilcoxon":
            self._give(point.trials, states)
            return
        self._held[point.number] = deque(point.trials)
        self._go_on(point, states)

    def _go_on(self, point: SearchPoint, states: Mapping[str, TrialState]) -> None:
        """Gives out the next seed of a point, if those before have ended and its rows are not
        worse than those of the best.
        """
        held = self._held.get(point.number)
        while held:
            ended = [name for name in point.trials if name not in held]
            if any(self._status(states, name) not in ENDED for name in ended):
                return
            if self._is_worse(point, [n for n in ended if self._status(states, n) == "done"]):
                self._prune(list(held), f"wilcoxon, after {len(ended)} of {len(point.trials)}")
                held.clear()
                return
            self._give([held.popleft()], states)

    def _status(self, states: Mapping[str, TrialState], name: str) -> str:
        return states[name].status if name in states else "planned"

    def _is_worse(self, point: SearchPoint, done: list[str]) -> bool:
        """Returns whether the rows of finished trials are worse than those of the best point."""
        known = list(self.results.values())
        best = search_outcome.best(self.options, known)
        if not done or not best or point.number < self.options.start:
            return False
        places = [point.trials.index(name) for name in done]
        rows = [self.book.trials[name].run_dir for name in done]
        theirs = [self.book.trials[best[0].point.trials[i]].run_dir for i in places]
        more = self.options.directions[0] == "maximize"
        return worse_rows.is_worse(rows, theirs, self.options.metrics[0], more)

    def _give(self, ids: list[str] | tuple[str, ...], states: Mapping[str, TrialState]) -> None:
        """Gives out trials that were not, if they are to be started."""
        for trial in self.book.planned(ids):
            state = states.get(trial.id) or TrialState(trial.id, trial.number)
            lost = state.status == "failed" and state.kind == "infrastructure"
            again = lost and state.lost <= self._retries
            if trial.id not in self._given and (
                state.status in ("planned", "interrupted") or again
            ):
                self._given.add(trial.id)
                self._waiting.append(trial)

    # --- results
    # ----------------------------------------------------------------------------------------------
    def _final(self) -> dict[str, TrialState]:
        """Returns the states, where a trial that was lost and is started again has not ended."""
        out = {}
        for name, state in self.ledger.states().items():
            lost = state.status == "failed" and state.kind == "infrastructure"
            if lost and state.lost <= self._retries:
                state = TrialState(state.trial, state.number, "interrupted", state.attempt)
            out[name] = state
        return out

    def _settle(self) -> None:
        """Tells all points that have ended, and gives out trials whose process was found gone."""
        for point in self.points.values():
            if self.results[point.number].status == "open":
                self._judge(point)
        states = self.ledger.states()
        for point in [one.point for one in self.results.values() if one.status == "open"]:
            held = self._held.get(point.number, ())
            self._give([name for name in point.trials if name not in held], states)
        for ids in search_book.confirmations_of(self.book.plan).values():
            self._give(ids, states)

    def _judge(self, point: SearchPoint) -> None:
        """Tells what became of a point, if it has ended."""
        self._go_on(point, self._final())
        result = self._result(point, self._final())
        if result.status == "open":
            return
        if self.options.prune in ("median", "halving"):
            self.study.report(point.number, self._curve(result))
        self.study.tell(result)
        self.results[point.number] = result

    def _result(self, point: SearchPoint, states: Mapping[str, TrialState]) -> PointResult:
        return search_outcome.result_of(
            self.options, point, self.book.planned(point.trials), states
        )

    def _curve(self, result: PointResult) -> dict[int, float]:
        """Returns the numbers of a point's trial at its evaluations, by step."""
        out: dict[int, float] = {}
        metric = self.options.metrics[0]
        for trial in self.book.planned(result.point.trials[:1]):
            state = self.ledger.states().get(trial.id)
            path = trial.run_dir / "metrics.jsonl"
            rows = _rows(path) if path.is_file() else []
            for row in rows:
                value = row.get(metric.partition("/")[2])
                if row.get("kind") == "validation" and value is not None:
                    out[int(row["step"])] = rundir.number(value)
            # the event of a worker whose file is not seen from here
            told = state is not None and state.status in BUSY and state.metric == metric
            if told and state.step is not None and state.value is not None:
                out.setdefault(state.step, state.value)
        return {step: value for step, value in out.items() if math.isfinite(value)}

    def _prune(self, ids: list[str], why: str) -> None:
        """Writes down that trials are not worth going on; the scheduler ends those that run."""
        with self.ledger.locked() as states:
            for trial in self.book.planned(ids):
                state = states[trial.id]
                if state.status not in ENDED:
                    self.ledger.write(
                        "cancelled", trial.id, trial.number, state.attempt, message=PRUNED + why
                    )


def _rows(path) -> list[dict]:
    """Returns the lines of a run's metrics; none where they cannot be read now."""
    try:
        return rundir.read_jsonl(path)
    except (DataError, JaxsftError, OSError):  # its last line is being written
        return []
