"""Writes everything for human readers: figures, `report.md`, `report.html` and the model card."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxsft.errors import JaxsftError
from jaxsft.reports import card, facts, figures, markdown_report, page


def write_all(run_dir: str | Path) -> list[Path]:
    """Writes figures, report.md, report.html and README.md; returns the last three.

    A README.md of the user's own stays and is left out. What a damaged file spoils is told on
    stderr, and the rest is written.

    Raises:
        JaxsftError: `run_dir` is not the directory of a run, or nothing can be written.
    """
    run_dir = Path(run_dir)
    facts.check(run_dir)
    failed: list[JaxsftError] = []

    def attempt(write: Callable[[Path], Any]) -> Any:
        try:
            return write(run_dir)
        except JaxsftError as error:
            failed.append(error)
            print(f"{error}", file=sys.stderr)
            return None

    attempt(figures.write_figures)
    written = [
        path
        for write in (markdown_report.write_report, card.write_card, page.write_page)
        if (path := attempt(write)) is not None
    ]
    if not written:
        raise failed[-1]
    if changed := facts.changed(run_dir):
        print(changed, file=sys.stderr)
    return written
