"""The options that people use first, for the help of `jaxsft train`: from their declarations,
without JAX or Hydra."""

from __future__ import annotations

import textwrap

from jaxsft.config import option
from jaxsft.config.adapters import LowRank
from jaxsft.config.schema import Config

HEADINGS = ("Data", "Model", "Training", "Evaluation", "The run")
WIDTH = 24


def common() -> dict[str, list[tuple[str, option.Declaration]]]:
    """Returns (whole name, declaration) of the options that declare a heading, by heading."""
    found: dict[str, list[tuple[str, option.Declaration]]] = {name: [] for name in HEADINGS}
    for key, declaration in (*option.names(Config), *option.names(LowRank, "adapter.")):
        if heading := declaration.accepts.common:
            found[heading].append((key, declaration))
    return found


def text() -> str:
    """Returns the options by heading, a paragraph each: name, what it does, what it may be."""
    out = []
    for heading, options in common().items():
        out += ["", f"{heading}:"]
        for key, declaration in options:
            out += _lines(key, declaration)
    return "\n".join(out)


def _lines(key: str, declaration: option.Declaration) -> list[str]:
    default = declaration.default
    if key == "optim.learning_rate":  # of the optimizer that runs where none is named
        default = Config().optim.learning_rate
    shown = "" if default in (None, (), []) else f" [{str(default).lower()}]"
    lines = textwrap.wrap(f"{declaration.doc}{shown}", 100 - WIDTH - 2)
    name = f"  {key + '=':<{WIDTH - 2}}"
    first = [name + lines[0]] if len(key) < WIDTH - 3 else [name, " " * WIDTH + lines[0]]
    return first + [" " * WIDTH + line for line in lines[1:]]
