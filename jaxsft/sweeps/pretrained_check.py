"""Checks configs that start from pretrained weights, in a process of its own: what they may be is
decided by code that imports JAX, which the parent of a sweep does not.

`python -m jaxsft.sweeps.pretrained_check` reads a list of {config, asked} from its standard input,
and writes a list with the message of what is wrong with each, null where nothing is.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from jaxsft.config import compose, resolve
from jaxsft.errors import JaxsftError
from jaxsft.sweeps import sweep_plan


def _message(values: dict[str, Any]) -> str | None:
    from jaxsft.training import setup

    try:
        config = sweep_plan.with_asked(compose.typed(values["config"]), values["asked"])
        setup.resolve_for(config, resolve.device_of_mesh(config.mesh))
    except JaxsftError as error:
        return " ".join(str(error).splitlines())
    return None


if __name__ == "__main__":
    answers = [_message(one) for one in json.load(sys.stdin)]
    print(json.dumps(answers))
