"""The process of a job: `python -m jaxsft.sweeps.worker SWEEP NUMBER [NUMBER ...]`.

One number is trained by itself, several as one program (`training/stack.py`). The worker reads what
it is to do from `jobs/NNN-ID8.json`, which the parent wrote, claims each trial in the ledger, and
writes there itself what comes of it; a thread gives signs of life and the newest numbers. So
nothing is lost when the parent dies in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsft import documents, invocation, plugins, rundir
from jaxsft.errors import DataError, JaxsftError, first_line
from jaxsft.sweeps import device_slots, processes, sweep_plan
from jaxsft.sweeps.scheduler import FULL, KILLED
from jaxsft.sweeps.trial_ledger import TrialLedger
from jaxsft.sweeps.work_order import WorkOrder

if TYPE_CHECKING:  # they import JAX
    from jaxsft.config.schema import Config
    from jaxsft.training.recorder import Result
    from jaxsft.training.stack import OnEvent

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
UNWANTED = ("cancelled", "superseded")
EXHAUSTED = "RESOURCE_EXHAUSTED"  # how XLA names a device that is out of memory


# --- signs of life
# --------------------------------------------------------------------------------------------------
class Pulse(threading.Thread):
    """Gives signs of life of trials, and their newest numbers, until it is stopped."""

    def __init__(self, ledger: TrialLedger, orders: Sequence[WorkOrder]):
        super().__init__(daemon=True)
        self._ledger, self._orders = ledger, orders
        self._over = threading.Event()
        self._read = {order.trial.id: 0 for order in orders}
        self._told = {order.trial.id: -1 for order in orders}  # the step that was told last

    def leave(self, order: WorkOrder) -> None:
        """Says nothing more of a trial that has ended."""
        self._orders = [one for one in self._orders if one is not order]

    def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, JaxsftError):  # the trial itself will say it
                for order in self._orders:
                    order.trial.beside(".alive").touch()
                    self._tell(order)
            if self._over.wait(processes.BEAT):
                return

    def stop(self) -> None:
        """Ends the thread, after what it is writing."""
        self._over.set()
        self.join()

    def _tell(self, order: WorkOrder) -> None:
        """Writes the numbers of evaluations that are new."""
        trial = order.trial
        path = trial.run_dir / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size == self._read[trial.id]:
            return
        rows = rundir.read_jsonl(path)
        self._read[trial.id] = size
        name = metric_of(trial.run_dir)
        for row in rows:
            value = row.get(name.partition("/")[2])
            if row.get("kind") != "validation" or value is None:
                continue
            if row["step"] > self._told[trial.id]:
                self._told[trial.id] = row["step"]
                about = {"name": name, "value": value, "step": row["step"]}
                self._ledger.append("metric", trial.id, trial.number, order.attempt, **about)


def metric_of(run_dir: Path) -> str:
    """Returns the metric that a run is judged by; "" where it has said nothing yet."""
    path = run_dir / "config.yaml"
    values = documents.read_yaml(path, DataError, dict) if path.is_file() else {}
    return str((values.get("evaluation") or {}).get("metric") or "")


# --- the work
# --------------------------------------------------------------------------------------------------
def main(arguments: Sequence[str]) -> int:
    """Trains what the orders say, and returns the exit code of the worst of them."""
    folder, numbers = Path(arguments[0]), [int(number) for number in arguments[1:]]
    ledger, start = TrialLedger(folder), processes.own_start()
    orders = [WorkOrder.read(folder, number) for number in numbers]
    device_slots.use(orders[0].cores)
    orders = [one for one in orders if ledger.claim(one.trial.id, one.attempt, start)]
    if not orders:
        print("another process has these trials", file=sys.stderr)
        return 0
    pulse = Pulse(ledger, orders)
    ends = TrialEnds(ledger, orders, pulse)
    pulse.start()
    try:
        _train(orders, ends)
    finally:
        pulse.stop()
    return ends.code


class TrialEnds:
    """Writes what came of each trial of a process as soon as it has ended.

    Attributes:
      code: the exit code of the worst of them.
    """

    def __init__(self, ledger: TrialLedger, orders: Sequence[WorkOrder], pulse: Pulse):
        self.code, self._ledger, self._pulse = 0, ledger, pulse
        self._left = dict(enumerate(orders))
        self._share, self._since = 0.0, time.time()  # seconds of each trial until then
        self._unwanted: set[int] = set()

    def on_event(self, place: int, event: str, facts: Mapping[str, Any]) -> bool:
        """Takes note of an event of a stack; returns whether the trial is to end now."""
        if event == "metric":
            with self._ledger.locked() as states:
                if states[self._left[place].trial.id].status in UNWANTED:
                    self._unwanted.add(place)
        if "outcome" in facts:
            self.end(place, facts["outcome"])
        return place in self._unwanted

    def end(self, place: int, how: Any) -> None:
        """Writes what came of a trial: its result, or what ended it."""
        now, together = time.time(), len(self._left)
        self._share, self._since = self._share + (now - self._since) / together, now
        order = self._left.pop(place)
        self._pulse.leave(order)
        if place in self._unwanted and not isinstance(how, BaseException):
            # what it has come to is no result, or it would count for one
            (order.trial.run_dir / "result.json").unlink(missing_ok=True)
            return
        self.code = max(self.code, _written(self._ledger, order, how, self._share))

    def fail(self, error: BaseException) -> None:
        """Writes what ended all trials that are left."""
        for place in list(self._left):
            self.end(place, error)


def _train(orders: Sequence[WorkOrder], ends: TrialEnds) -> None:
    """Trains what the orders say, and tells how each ended."""
    try:
        configs = [order.trial.typed() for order in orders]
        for config in configs:
            plugins.use(config.plugins)
        for order, config in zip(orders, configs, strict=True):
            invocation.remember(["jaxsft", "train", *order.words], config.run_dir)
        plugins.begin()
        if len(orders) == 1:
            ends.end(0, train_alone(configs[0]))
        else:
            train_together(configs, ends.on_event)
    except BaseException as error:
        if not isinstance(error, JaxsftError):
            traceback.print_exc()
        ends.fail(error)


def train_alone(config: Config) -> Result:
    """Trains one trial and writes its pages; its pictures, which take most of the time of a small
    one, are drawn on request (`jaxsft report`).
    """
    from jaxsft.reports.outputs import write_pages
    from jaxsft.training import loop

    return loop.train(config, write_pages)


def train_together(configs: Sequence[Config], on_event: OnEvent) -> None:
    """Trains several trials as one program, and writes what `train_alone` does."""
    from jaxsft.reports.outputs import write_pages
    from jaxsft.training import stack

    stack.train_stack(configs, on_event, write_pages)


def _written(ledger: TrialLedger, order: WorkOrder, how: Any, seconds: float) -> int:
    """Writes what came of a trial, and returns the exit code for it."""
    trial = order.trial
    tell = lambda event, **about: ledger.append(
        event, trial.id, trial.number, order.attempt, **about
    )
    if isinstance(how, KeyboardInterrupt):
        tell("interrupted", message="was stopped before it could write a checkpoint")
        return KILLED + signal.SIGINT
    if isinstance(how, BaseException):
        message = " ".join(f"{'' if _mendable(how) else f'{type(how).__name__}: '}{how}".split())
        print(f"jaxsft: {message}", file=sys.stderr, flush=True)
        if _is_full(how):
            tell("interrupted", message=message[:500])
            return FULL
        lost = isinstance(how, MemoryError) or EXHAUSTED in str(how)
        log = f"{sweep_plan.JOBS}/{trial.beside('.log').name}"
        kind = "infrastructure" if lost else "error"
        tell("failed", kind=kind, code=1, message=message[:500], log=log)
        return 1
    if how.stopped_by is not None:
        tell("interrupted", message=f"was stopped by signal {int(how.stopped_by)}")
        return KILLED + int(how.stopped_by)
    numbers = documents.read_json(trial.run_dir / "result.json", DataError, dict, halves=True)
    metric = metric_of(trial.run_dir)
    tell(
        "done",
        run_dir=f"{sweep_plan.JOBS}/{trial.run_dir.name}",
        metric=metric if metric in numbers else None,
        value=numbers.get(metric),
        seconds=round(seconds, 1),
    )
    return 0


def _mendable(error: BaseException) -> bool:
    return isinstance(error, JaxsftError)


def _is_full(error: BaseException | None) -> bool:
    """Returns whether a full disk is behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    return False


def process(arguments: Sequence[str]) -> int:
    """Runs `main`, and returns the exit code of the process, of a full ledger too."""
    try:
        return main(arguments)
    except JaxsftError as failure:  # the ledger cannot be written
        print(f"jaxsft: {first_line(failure)}", file=sys.stderr, flush=True)
        return FULL if _is_full(failure) else 1


if __name__ == "__main__":
    code = process(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
