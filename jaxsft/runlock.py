"""The lock of a folder that one process writes to: a run directory, a sweep, a preparation."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path

from jaxsft.errors import JaxsftError
from jaxsft.rundir import friendly

try:
    import fcntl
except ImportError:  # no POSIX locks on this system: `RunLock` says so
    fcntl = None


class RunLock:
    """The right to write to one run directory, held until `release`, the end of the `with` block,
    or the end of the process.
    """

    NAME = "run.lock"

    def __init__(
        self,
        run_dir: str | Path,
        busy: str = "is writing to this run directory; wait for it, or choose another run_dir=",
    ):
        """Takes the lock, `run.lock` in `run_dir`; `busy` completes the message where it is held.

        Raises:
            JaxsftError: another process (or another lock in this one) holds it, or the file cannot
              be made.
        """
        path = Path(run_dir) / self.NAME
        with friendly(path, "open"):
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - open for as long as the lock is held
        try:
            self._take(path, busy)
        except BaseException:
            self._file.close()
            raise
        _held.add(self)

    def _take(self, path: Path, busy: str) -> None:
        try:
            if fcntl is None:
                raise OSError("this system has no flock")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read(200).decode("utf-8", "replace").strip() or "another process"
            raise JaxsftError(f"{path.parent}: {holder} {busy}") from error
        # some network file systems have no locks at all; refusing every run there would help nobody
        except OSError as error:
            warnings.warn(
                f"{path}: no lock on this file system ({error}); start only one run in this"
                " directory",
                stacklevel=4,
            )
        with contextlib.suppress(OSError):  # who holds it is only for the message above
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {os.uname().nodename}".encode())

    def release(self) -> None:
        """Releases the lock; a second call does nothing.

        The file stays: removing it would let two processes lock two files.
        """
        self._file.close()
        _held.discard(self)

    def __enter__(self) -> RunLock:
        """Returns itself; the lock is released at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Releases the lock."""
        self.release()


_held: set[RunLock] = set()


def _forget_locks() -> None:
    """Closes a forked child's copies of the locks, which would outlive a killed parent."""
    for held in tuple(_held):
        held.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
