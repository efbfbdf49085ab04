"""Progress before the first output: a line for each stage that takes longer than a moment."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

AFTER = 1.0  # seconds: a file that is refused at once is told by its error alone
_timer: threading.Timer | None = None


def doing(what: str) -> None:
    """Prints the stage that begins, unless it ends within a moment; ends the one before it."""
    global _timer
    done()
    _timer = threading.Timer(AFTER, _tell, [what])
    _timer.daemon = True
    _timer.start()


def done() -> None:
    """Cancels the line of the stage that has ended."""
    global _timer
    if _timer is not None:
        _timer.cancel()
    _timer = None


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """Ends the current stage when the block ends, however it ends."""
    try:
        yield
    finally:
        done()


def _tell(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)
