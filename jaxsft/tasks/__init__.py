"""The tasks by name: `specs.py` says what can be said of one without JAX; its class is imported
when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxsft.errors import ConfigError
from jaxsft.tasks.specs import SPECS

if TYPE_CHECKING:
    from jaxsft.tasks.task import Task

NAMES = tuple(SPECS.own)


def get(name: str) -> type[Task]:
    """Returns the class of a task. Raises ConfigError for one that is not known."""
    if name not in SPECS:
        raise ConfigError(f"task={name}: unknown; there are {', '.join(SPECS)}")
    return SPECS[name].task()
