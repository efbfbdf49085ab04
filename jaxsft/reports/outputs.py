"""Writes everything for human readers: figures, `report.md`, `report.html` and the model card."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxsft.errors import JaxsftError
from jaxsft.reports import card, facts, markdown_report, page


def write_all(run_dir: str | Path) -> list[Path]:
    """Writes figures, report.md, report.html and README.md; returns the last three.

    A README.md of the user's own stays and is left out. What a damaged file spoils is told on
    stderr, and the rest is written.

    Raises:
        JaxsftError: `run_dir` is not the directory of a run, or nothing can be written.
    """
    from jaxsft.reports import figures  # with matplotlib, which takes a second

    facts.check(Path(run_dir))
    _attempt(figures.write_figures, Path(run_dir))
    return write_pages(run_dir)


def write_pages(run_dir: str | Path) -> list[Path]:
    """Writes what `write_all` writes, but for the figures, which take most of its time."""
    run_dir = Path(run_dir)
    facts.check(run_dir)
    writers = (markdown_report.write_report, card.write_card, page.write_page)
    tried = [_attempt(write, run_dir) for write in writers]
    written = [path for path in tried if isinstance(path, Path)]
    if not written:
        raise next(error for error in reversed(tried) if isinstance(error, JaxsftError))
    if changed := facts.changed(run_dir):
        print(changed, file=sys.stderr)
    return written


def _attempt(write: Callable[[Path], Any], run_dir: Path) -> Any:
    """Returns what a writer returns, or its error, which it tells on stderr."""
    try:
        return write(run_dir)
    except JaxsftError as error:
        print(f"{error}", file=sys.stderr)
        return error
