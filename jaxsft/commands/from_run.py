"""Splits command lines into arguments of `eval`, `predict` or `generate` and overrides."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxsft import remote
from jaxsft.errors import ConfigError

if TYPE_CHECKING:
    from jaxsft.inference import Model


def arguments(
    given: Sequence[str], own: Sequence[str], needed: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Returns (arguments of the command, overrides of the run) of words `key=value`.

    Raises ConfigError for an argument that is missing, given twice, or misspelt.
    """
    keys = [a.partition("=")[0] for a in given]
    for key, argument in zip(keys, given, strict=True):
        if "=" not in argument:
            raise ConfigError(
                f"{argument}: expected key=value; there are {', '.join(f'{k}=' for k in own)} and"
                " options of the run"
            )
        if key in own and keys.count(key) > 1:
            raise ConfigError(f"{key}= is given twice; give one")
        if "." not in key and key not in own and (near := difflib.get_close_matches(key, own, 1)):
            raise ConfigError(f"{key}=: unknown; did you mean {near[0]}=?")
    mine = {k: v for k, s, v in (a.partition("=") for a in given) if s and k in own}
    if missing := [k for k in needed if not mine.get(k)]:
        raise ConfigError(f"missing {missing[0]}=; give {' '.join(f'{k}=...' for k in needed)}")
    return mine, [a for a in given if a.partition("=")[0] not in own]


def apart(read: Sequence[str], written: Sequence[str]) -> None:
    """Raises ConfigError where an output is also an input, or is written twice."""
    try:
        places = [Path(path).resolve() for path in (*read, *written)]
    except (OSError, ValueError):  # no path of a file at all, which its reader tells
        return
    for path, place in zip(written, places[len(read) :], strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"{path} is read and written, or written twice; give another output")


def home(model: Model, mine: dict[str, str], *parts: str) -> Path | None:
    """Returns where a report is written: `output=`, or a folder of the run; None where it is no run
    directory of this machine.
    """
    from jaxsft.hf import pretrained_folder

    if "output" in mine:
        return Path(mine["output"])
    if pretrained_folder.is_source(model.folder) or remote.is_remote(mine["run"]):
        return None
    return Path(model.folder, *parts)


def tell_unwritten(run: str) -> None:
    """Says that a report is printed only."""
    print(
        f"{run}: is no run directory of this machine, so that nothing is written;"
        " output=FOLDER keeps the report",
        file=sys.stderr,
    )
