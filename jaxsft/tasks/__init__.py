"""The tasks by name. A new one is one new file, one line here and its class of options."""

from __future__ import annotations

from jaxsft.errors import ConfigError
from jaxsft.tasks.base import Task

NAMES = ("chat", "lm", "classify", "tag", "parse")


def get(name: str) -> type[Task]:
    """The class of a task. Raises ConfigError where there is none that can be trained."""
    from jaxsft.tasks.chat import ChatSFT
    from jaxsft.tasks.classify import Classify
    from jaxsft.tasks.lm import LM
    from jaxsft.tasks.parse import ParseTrees
    from jaxsft.tasks.tag import TagWords

    found = {"chat": ChatSFT, "classify": Classify, "lm": LM, "tag": TagWords, "parse": ParseTrees}
    if name not in found:
        raise ConfigError(f"task={name}: there is no head for it yet, so that jaxsft check alone reads it; what can be trained is {', '.join(found)}")
    return found[name]
