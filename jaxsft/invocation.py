"""The command line that started this process, as it can be typed again; a manifest has it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_command: list[str] | None = None


def remember(command: Sequence[str]) -> None:
    """Keep the words of a command line, `jaxsft train ...`."""
    global _command
    _command = list(command)


def command() -> list[str]:
    """Return the words of the command line; those of the Python program where no command of jaxsft
    runs.
    """
    return list(sys.argv) if _command is None else list(_command)
