"""Writes the figures, report.md, report.html and the model card (README.md) of a run directory again.

jaxsft report runs/mine
"""

from __future__ import annotations

from jaxsft.errors import ConfigError
from jaxsft.reports import outputs


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise ConfigError("give one run directory: jaxsft report DIR")
    for path in outputs.write_all(arguments[0].removeprefix("run=")):
        print(path)
    return 0
