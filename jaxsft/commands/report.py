"""Writes the figures and report.md of a run directory again.

jaxsft report runs/mine
"""

from __future__ import annotations

from jaxsft import remote
from jaxsft.errors import ConfigError
from jaxsft.reports import figures, report


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise ConfigError("give one run directory: jaxsft report DIR")
    place = arguments[0].removeprefix("run=")
    run_dir = remote.opened(place)
    mirror = remote.Mirror(place, run_dir)
    figures.write_figures(run_dir)
    path = report.write_report(run_dir)
    mirror.push()
    print(remote.join(place, path.name))
    return 0
