"""A worker inside a job of a cluster: what `jaxsft.sweeps.worker` does, in a process that
submitit or Ray started.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from jaxsft.sweeps import worker


def run(folder: str, numbers: Sequence[int], log: str, home: str) -> int:
    """Trains trials of a sweep, and returns the exit code of a worker.

    SIGUSR2, by which submitit says that the time is up or that the job is preempted, and SIGINT,
    by which Ray cancels a task, ask for a checkpoint as SIGTERM does.

    Args:
      log: what is printed is added to this file.
      home: the directory that the sweep was planned in.
    """
    os.chdir(home)
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        with contextlib.suppress(OSError):
            os.setsid()  # Ctrl-C is for the parent, which asks for a checkpoint
    with contextlib.suppress(ValueError):  # not in the main thread
        # until training handles it, SIGTERM ends the process: there is nothing to save
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, _stop)
    with _printed_to(log):
        return worker.process([folder, *map(str, numbers)])


@contextlib.contextmanager
def _printed_to(log: str) -> Iterator[None]:
    """Adds all that is printed in the block to a file, by libraries in C++ too."""
    before = [os.dup(1), os.dup(2)]
    with open(log, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        finally:
            for number, descriptor in enumerate(before, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)


def _stop(number: int, frame: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
