"""The tasks by name. A new one is one new file, one line here and its class of options."""

from __future__ import annotations

from jaxsft.config.tasks import TASKS
from jaxsft.errors import ConfigError
from jaxsft.tasks.base import Task

NAMES = tuple(TASKS)


def get(name: str) -> type[Task]:
    """The class of a task. Raises ConfigError for one that is not known."""
    from jaxsft.tasks.chat import ChatSFT
    from jaxsft.tasks.classify import Classify
    from jaxsft.tasks.joint import SlotsAndIntent
    from jaxsft.tasks.lm import LM
    from jaxsft.tasks.mlm import MaskedLM
    from jaxsft.tasks.multilabel import MultiLabelTask
    from jaxsft.tasks.pair import PairTask
    from jaxsft.tasks.parse import ParseTrees
    from jaxsft.tasks.regress import Regress
    from jaxsft.tasks.seq2seq import Seq2SeqTask
    from jaxsft.tasks.span import SpanTask
    from jaxsft.tasks.span_corruption import SpanCorruption
    from jaxsft.tasks.tag import TagWords

    kinds = (
        ChatSFT,
        Classify,
        LM,
        MaskedLM,
        MultiLabelTask,
        PairTask,
        ParseTrees,
        Regress,
        Seq2SeqTask,
        SlotsAndIntent,
        SpanCorruption,
        SpanTask,
        TagWords,
    )
    found = {kind.name: kind for kind in kinds}
    if name not in found:
        raise ConfigError(f"task={name}: unknown; there are {', '.join(found)}")
    return found[name]
