"""The child process of `sweeps/grouping.py`: `python -m jaxsft.training.stack_keys` reads configs
from stdin and writes their keys to stdout, both as JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from jaxsft import plugins
from jaxsft.config import compose
from jaxsft.errors import JaxsftError
from jaxsft.training import stack


def key_of(values: Mapping[str, Any]) -> str | None:
    """Returns the key of a config (`config`, `unasked`); None, and why to stderr, where it is
    wrong.
    """
    try:
        config = compose.typed(values["config"])
        plugins.use(config.plugins)
        unasked = tuple((name, value) for name, value in values["unasked"])
        return stack.stack_key(dataclasses.replace(config, unasked=unasked))
    except JaxsftError as error:
        print(error, file=sys.stderr)
        return None


def main() -> None:
    """Writes the keys of the configs on stdin."""
    asked = json.load(sys.stdin)  # of the parent, which may write infinities
    with contextlib.redirect_stdout(sys.stderr):
        found = [key_of(values) for values in asked]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
