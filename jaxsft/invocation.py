"""The command line that started this process, as it can be typed again, and the revision of the
code that it runs; a manifest has both.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_command: list[str] | None = None
_of_runs: dict[str, list[str]] = {}


def remember(command: Sequence[str], run_dir: str | None = None) -> None:
    """Stores the words of a command line, `jaxsft train ...`.

    Args:
      run_dir: the run that it would make alone, one of several of this process; None: all.
    """
    global _command
    if run_dir is not None:
        _of_runs[run_dir] = list(command)
    else:
        _command = list(command)


def command(run_dir: str | None = None) -> list[str]:
    """Returns the words of the command line of a run, or of the Python program where no command
    runs."""
    if run_dir in _of_runs:
        return list(_of_runs[run_dir])
    return list(sys.argv) if _command is None else list(_command)


def git_revision() -> str | None:
    """Returns the Git revision of this code, with `+` where it was changed.

    Returns None outside a checkout.
    """
    here = Path(__file__).parent
    try:
        run = lambda *args: subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        return run("rev-parse", "HEAD") + (
            "+" if run("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None
