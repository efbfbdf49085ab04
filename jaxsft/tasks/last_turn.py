"""The last turn of a conversation: what is answered, and how long it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jaxsft.data.chat.templates import Template
from jaxsft.data.records import Chat


def only_last(chat: Chat) -> Chat:
    """Returns the conversation with its last turn trained, and no other."""
    *before, last = chat.messages
    return dataclasses.replace(
        chat, messages=(*(dataclasses.replace(m, weight=0.0) for m in before), last)
    )


def longest_answer(template: Template, records: Sequence[Chat], where: Sequence[str]) -> int:
    """Counts the tokens of the longest last turn as it is trained.

    Rendered are only the 64 rows whose last message is longest in characters, and those whose
    last message has more than its content.
    """
    there = [i for i, record in enumerate(records) if record.messages[-1].weight > 0]
    likely = sorted(there, key=lambda i: len(records[i].messages[-1].content))[-64:]
    likely += [i for i in there if records[i].messages[-1].extra]
    rendered = template.render_all(
        [only_last(records[i]) for i in likely], [where[i] for i in likely]
    )
    return max((one.turns[-1][1] - one.turns[0][0] for one in rendered), default=0)
