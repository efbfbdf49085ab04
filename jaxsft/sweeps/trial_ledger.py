"""`ledger.jsonl` of a sweep: what happened to each trial, one line an event.

The file only grows. Each line is on the disk before its writer goes on, and one process writes at a
time (`ledger.lock`); a line that a power cut left torn is ignored, and cut off before the next one
is written. What a trial stands at is a pure function of the lines, `fold`.

Parent and workers write here. A worker asks, under the lock, whether the attempt that it was
started for is still the one that counts (`claim`): so a trial runs once, whichever process died in
between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from jaxsft import documents, rundir
from jaxsft.errors import DataError, JaxsftError

try:
    import fcntl
except ImportError:  # no POSIX locks on this system: `TrialLedger` says so
    fcntl = None

NAME, LOCK = "ledger.jsonl", "ledger.lock"
EVENTS = (
    "planned",
    "leased",
    "started",
    "metric",
    "done",
    "failed",
    "interrupted",
    "superseded",
    "cancelled",
)
ENDED = ("done", "failed", "cancelled", "superseded")  # such a trial is not started by itself
BUSY = ("leased", "started")


@dataclasses.dataclass(frozen=True)
class Event:
    """One line of the ledger.

    Attributes:
      event: one of `EVENTS`.
      trial, number: the trial's id and its number in the plan.
      attempt: how often the trial was leased, this time included.
      host, pid: of the process that wrote the line.
      about: what belongs to the event (`until` and `slot` of a lease, ...).
    """

    time: str
    event: str
    trial: str
    number: int
    attempt: int
    host: str
    pid: int
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Returns the event as the object of its line."""
        own = {name: value for name, value in vars(self).items() if name != "about"}
        return {**own, **self.about}

    @classmethod
    def of_row(cls, row: Mapping[str, Any], where: str) -> Event:
        """Returns the event of a line. Raises DataError where a line is none."""
        names = [f.name for f in dataclasses.fields(cls) if f.name != "about"]
        missing = [name for name in names if name not in row]
        if missing or row["event"] not in EVENTS:
            found = f"no {missing[0]!r}" if missing else f"the event {row['event']!r}"
            raise DataError(f"{where}: has {found}; another version of jaxsft wrote it")
        about = {key: value for key, value in row.items() if key not in names}
        return cls(**{name: row[name] for name in names}, about=about)


@dataclasses.dataclass(frozen=True)
class TrialState:
    """What a trial stands at.

    Attributes:
      status: planned | leased | started | done | failed | interrupted | cancelled | superseded.
      until: the end of the lease, in seconds since 1970; a worker's signs of life extend it.
      host, pid, start: the process that runs it, and when that process began (`processes.py`).
      lost: failures of the infrastructure since the trial was planned.
      metric, value, step: the newest number that the trial is judged by; of a finished one its
        result.
      run_dir: of a finished trial, relative to the sweep's folder.
      kind, code, message, log: of a failure: error | timeout | infrastructure, the exit code, one
        line, and the file with the rest.
      by: the id of the trial that took this one's place.
    """

    trial: str
    number: int
    status: str = "planned"
    attempt: int = 0
    until: float | None = None
    slot: int | None = None
    host: str | None = None
    pid: int | None = None
    start: str | None = None
    lost: int = 0
    since: str | None = None
    metric: str | None = None
    value: float | None = None
    step: int | None = None
    run_dir: str | None = None
    seconds: float | None = None
    kind: str | None = None
    code: int | None = None
    message: str | None = None
    log: str | None = None
    by: str | None = None


def fold(
    events: Iterable[Event], states: Mapping[str, TrialState] | None = None
) -> dict[str, TrialState]:
    """Returns the state of each trial after the events, by id.

    Args:
      states: those before the events; None: there were none.
    """
    found = dict(states or {})
    for event in events:
        before = found.get(event.trial) or TrialState(event.trial, event.number)
        found[event.trial] = _after(before, event)
    return found


def _after(state: TrialState, event: Event) -> TrialState:
    """Returns the state of a trial after an event.

    What an attempt says that is not the newest one no longer counts, but that it is done.
    """
    changed = lambda **values: dataclasses.replace(state, **values)
    get, name = event.about.get, event.event
    if name == "planned":
        return TrialState(event.trial, event.number, attempt=state.attempt)
    if name == "superseded":
        return changed(status="superseded", by=get("by"))
    if name == "done":
        told = {"metric": get("metric"), "value": _number(get("value")), "seconds": get("seconds")}
        ended = {"run_dir": get("run_dir"), "message": None, "kind": None}
        if state.status == "superseded":
            return changed(**told, **ended)
        return changed(status="done", **told, **ended)
    if state.status in ("done", "superseded"):
        return state
    if name == "cancelled":
        return changed(status="cancelled", message=get("message"))
    if name == "leased":
        lease = {"attempt": event.attempt, "until": get("until"), "slot": get("slot")}
        fresh = {"host": event.host, "pid": None, "start": None, "since": event.time}
        return changed(status="leased", message=None, kind=None, code=None, **lease, **fresh)
    if event.attempt != state.attempt or state.status == "cancelled":
        return state
    if name == "started":
        return changed(
            status="started", host=event.host, pid=event.pid, start=get("start"), since=event.time
        )
    if name == "metric":
        return changed(metric=get("name"), value=_number(get("value")), step=get("step"))
    if name == "failed":
        lost = state.lost + (get("kind") == "infrastructure")
        why = {key: get(key) for key in ("kind", "code", "message", "log")}
        return changed(status="failed", lost=lost, **why)
    again = state.lost + bool(get("lost"))
    return changed(status="interrupted", message=get("message"), lost=again)


def _number(value: Any) -> float | None:
    """Returns a number of a line; JSON has "NaN" and its kind as texts."""
    return None if value is None else rundir.number(value)


class TrialLedger:
    """The ledger of one sweep, read as far as it goes at each call and held as states."""

    def __init__(
        self,
        folder: str | Path,
        clock: Callable[[], float] = time.time,
        durable: bool = True,
    ):
        """Opens the ledger in a sweep's folder, which exists.

        Args:
          clock: seconds since 1970.
          durable: lines survive a power cut; tests do without.

        Raises:
          JaxsftError: the system has no locks.
        """
        if fcntl is None:
            raise JaxsftError("sweeps need the file locks of Linux or macOS; this system has none")
        self.folder = Path(folder)
        self.path, self.clock, self._durable = self.folder / NAME, clock, durable
        self._states: dict[str, TrialState] = {}
        self._read = 0  # bytes of whole lines that are in the states
        self._lines = 0

    # --- read
    # ----------------------------------------------------------------------------------------------
    def events(self) -> list[Event]:
        """Returns all events, in the order of the file. Raises DataError for a damaged line."""
        return list(self._events_from(0, 0)[0])

    def states(self) -> dict[str, TrialState]:
        """Returns what each trial stands at now, by id; only new lines are read.

        Raises DataError for a damaged line.
        """
        events, self._read, self._lines = self._events_from(self._read, self._lines)
        self._states = fold(events, self._states)
        return dict(self._states)

    def _events_from(self, start: int, line: int) -> tuple[list[Event], int, int]:
        """Returns the events behind a place, where whole lines end, and how many there are."""
        try:
            with open(self.path, "rb") as file:
                file.seek(start)
                content = file.read()
        except FileNotFoundError:
            return [], 0, 0
        except OSError as error:
            raise JaxsftError(f"{self.path}: cannot read ({error.strerror})") from error
        whole = content[: content.rfind(b"\n") + 1]
        found = []
        for text in whole.split(b"\n")[:-1]:
            line += 1
            found.append(_event(text, f"{self.path}:{line}"))
        return found, start + len(whole), line

    # --- write
    # ----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def locked(self) -> Iterator[dict[str, TrialState]]:
        """Yields the states while no other process writes; `append` in the block sees them true.

        Raises JaxsftError where the lock cannot be had.
        """
        path = self.folder / LOCK
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise JaxsftError(f"{path}: cannot write ({error.strerror})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.states()
        finally:
            os.close(lock)

    def append(self, event: str, trial: str, number: int, attempt: int, **about: Any) -> None:
        """Writes one event, under the lock, to the disk.

        Raises JaxsftError where it cannot; nothing of the line is left then.
        """
        with self.locked():
            self.write(event, trial, number, attempt, **about)

    def write(self, event: str, trial: str, number: int, attempt: int, **about: Any) -> None:
        """Writes one event; the caller holds the lock (`locked`). Raises as `append`."""
        assert event in EVENTS
        moment = datetime.datetime.fromtimestamp(self.clock(), datetime.UTC)
        about = {key: value for key, value in about.items() if value is not None}
        when = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        one = Event(when, event, trial, number, attempt, platform.node(), os.getpid(), about)
        line = rundir.json_text(one.row()).encode("utf-8", "backslashreplace") + b"\n"
        try:
            with open(self.path, "a+b", buffering=0) as file:
                _append_line(file, line)
                if self._durable:
                    os.fsync(file.fileno())
        except OSError as error:
            raise JaxsftError(f"{self.path}: cannot write ({error.strerror})") from error

    def claim(self, trial: str, attempt: int, start: str) -> bool:
        """Writes that this process runs an attempt, if it is still the newest one.

        Returns whether it is; where not, another process has the trial, or it is not wanted.
        """
        with self.locked() as states:
            state = states.get(trial)
            if state is None or state.status != "leased" or state.attempt != attempt:
                return False
            self.write("started", trial, state.number, attempt, start=start)
            return True


def _append_line(file: IO[bytes], line: bytes) -> None:
    """Writes a line behind the last whole one; a torn one is cut off. Raises OSError."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            end = file.read().rfind(b"\n") + 1
            file.truncate(end)
    try:
        written = 0
        # a nearly full disk takes a part of the line, and refuses the rest
        while written < len(line):
            written += file.write(line[written:])
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise


def _event(line: bytes, where: str) -> Event:
    try:
        row = documents.decode(line.decode("utf-8"), halves=True)
    except ValueError as error:
        raise DataError(f"{where}: not a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object (found {type(row).__name__})")
    return Event.of_row(row, where)
