"""The command line that started this process, as it can be typed again; a manifest has it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_command: list[str] | None = None


def remember(command: Sequence[str]) -> None:
    """Stores the words of a command line, `jaxsft train ...`."""
    global _command
    _command = list(command)


def command() -> list[str]:
    """Returns the words of the command line, or of the Python program where no command runs."""
    return list(sys.argv) if _command is None else list(_command)
