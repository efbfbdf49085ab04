"""What is being done before anything can be shown: a line for each stage that takes longer than a
moment.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

AFTER = 1.0  # seconds: a file that is refused at once is told by its error alone
_timer: threading.Timer | None = None


def doing(what: str) -> None:
    """Say on standard error what has begun, if it has not ended within a moment; the stage before
    it has ended.
    """
    global _timer
    done()
    _timer = threading.Timer(AFTER, _tell, [what])
    _timer.daemon = True
    _timer.start()


def done() -> None:
    """Say nothing of what has ended."""
    global _timer
    if _timer is not None:
        _timer.cancel()
    _timer = None


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """Whatever ends the block ends the stage that it was in."""
    try:
        yield
    finally:
        done()


def _tell(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)
