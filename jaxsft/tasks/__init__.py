"""The tasks by name. A new one is one new file, one line here and its class of options."""

from __future__ import annotations

from jaxsft.tasks.base import Task


def get(name: str) -> type[Task]:
    from jaxsft.tasks.chat import ChatSFT
    from jaxsft.tasks.classify import Classify
    from jaxsft.tasks.lm import LM

    return {"chat": ChatSFT, "classify": Classify, "lm": LM}[name]
