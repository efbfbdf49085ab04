"""Writes the figures, report.md, report.html and the model card (README.md) of a run directory
again; or sets several runs side by side.

  jaxsft report runs/mine
  jaxsft report runs/one runs/two ... [output=comparison.html]

Of several runs the table of the options that differ and of the numbers is printed, and written with
the curves into one page.
"""

from __future__ import annotations

from jaxsft import remote
from jaxsft.errors import ConfigError


def main(arguments: list[str]) -> int:
    output = [a.removeprefix("output=") for a in arguments if a.startswith("output=")]
    places = [a.removeprefix("run=") for a in arguments if not a.startswith("output=")]
    if not places or (output and len(places) < 2) or len(output) > 1 or "" in (*places, *output):
        raise ConfigError(
            "give one run directory: jaxsft report DIR; or several: jaxsft report DIR DIR ..."
            " [output=comparison.html]"
        )
    return (
        _one(places[0])
        if len(places) == 1
        else _several(places, output[0] if output else "comparison.html")
    )


def _one(place: str) -> int:
    from jaxsft.reports import outputs

    run_dir = remote.opened(place)
    mirror = remote.Mirror(place, run_dir)
    paths = outputs.write_all(run_dir)
    mirror.push()
    for path in paths:
        print(remote.join(place, path.relative_to(run_dir)))
    return 0


def _several(places: list[str], output: str) -> int:
    from jaxsft.reports import run_comparison

    runs = [remote.opened(place) for place in places]
    print("\n".join(run_comparison.compare(runs).lines()))
    print(run_comparison.write(runs, output))
    return 0
