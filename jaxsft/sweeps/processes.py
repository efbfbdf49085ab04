"""Processes of trials: how one is started, recognised by another parent, and ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from jaxsft.errors import JaxsftError
from jaxsft.sweeps.trial_ledger import TrialState

LEASE = 600.0  # seconds without a sign of life after which a process on another machine is lost
BEAT = 5.0  # seconds between two signs of life
UNKNOWN = 1000  # the code of a process that another parent started: nobody can ask for it


class Handle(Protocol):
    """A process of one or several trials."""

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while it runs."""
        ...

    def stop(self) -> None:
        """Asks it to write a checkpoint and end."""
        ...

    def kill(self) -> None:
        """Ends it at once, with all that it started."""
        ...


class Child:
    """A process that this one started, in a group of its own: Ctrl-C does not reach it."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]):
        """Starts it; what it prints is added to `log`.

        Raises OSError where the system starts no further process.
        """
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=dict(env),
                start_new_session=True,
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._process.terminate()

    def kill(self) -> None:
        _kill_group(self._process.pid)
        with contextlib.suppress(OSError):
            self._process.kill()


@dataclasses.dataclass(frozen=True)
class Orphan:
    """A process of this machine that a parent started which is dead."""

    pid: int
    start: str

    def poll(self) -> int | None:
        return None if started_at(self.pid) == self.start else UNKNOWN

    def stop(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            _kill_group(self.pid)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(OSError):
                os.kill(self.pid, number)


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A process on another machine, of which only the signs of life are seen: the time of a file.

    Attributes:
      until: the end of its lease; without a sign of life it is taken for lost from then on.
    """

    beat: Path
    until: float = 0.0

    def poll(self) -> int | None:
        seen = 0.0
        with contextlib.suppress(OSError):
            seen = self.beat.stat().st_mtime
        return None if time.time() < max(self.until, seen + LEASE) else UNKNOWN

    def stop(self) -> None:
        """Ignores the call: a signal does not reach the other machine."""

    def kill(self) -> None:
        """Ignores the call, as `stop`."""


def find(state: TrialState, beat: Path) -> Handle | None:
    """Returns the living process that a state names; None where it is dead, or none was named."""
    if state.status not in ("leased", "started"):
        return None
    if state.host != platform.node():
        other: Handle = Elsewhere(beat, state.until or 0.0)
    elif state.pid is None or state.start is None:
        return None
    else:
        other = Orphan(state.pid, state.start)
    return other if other.poll() is None else None


def started_at(pid: int) -> str | None:
    """Returns when a process began, as a text that no other process of this machine has together
    with the number; None where there is no such process, or it has ended.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # behind the name, which may hold anything: state, parent, ...; the 20th is the start
        fields = text.rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        return f"{boot}-{fields[19]}"
    except (OSError, IndexError):
        if sys.platform.startswith("linux"):
            return None
    asked = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return " ".join(asked.stdout.split()) or None


def own_start() -> str:
    """Returns `started_at` of this process. Raises JaxsftError where the system does not tell."""
    found = started_at(os.getpid())
    if found is None:
        raise JaxsftError("sweeps need /proc or the program ps, to tell a process from another one")
    return found


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
