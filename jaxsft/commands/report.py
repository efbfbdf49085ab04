"""Writes the figures, report.md, report.html and the model card (README.md) of a run directory again.

jaxsft report runs/mine
"""

from __future__ import annotations

from jaxsft import remote
from jaxsft.errors import ConfigError
from jaxsft.reports import outputs


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise ConfigError("give one run directory: jaxsft report DIR")
    place = arguments[0].removeprefix("run=")
    run_dir = remote.opened(place)
    mirror = remote.Mirror(place, run_dir)
    paths = outputs.write_all(run_dir)
    mirror.push()
    for path in paths:
        print(remote.join(place, path.relative_to(run_dir)))
    return 0
