"""Writes the figures and report.md of a run directory again.

jaxsft report runs/mine
"""

from __future__ import annotations

from jaxsft.errors import ConfigError
from jaxsft.reports import figures, report


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise ConfigError("give one run directory: jaxsft report DIR")
    run_dir = arguments[0].removeprefix("run=")
    figures.write_figures(run_dir)
    print(report.write_report(run_dir))
    return 0
