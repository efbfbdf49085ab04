"""The equality of rows in a preparation, where the task is not known.

It is what the task that reads such columns would be given of them.

It is `records.Kind.text_key` of that task, so that the stages `dedup` and `split` mean the same by
a repeated row as `jaxsft check` and a run do.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.records import CHAT, TOKENS, chat_record, form_of
from jaxsft.data.records.chat_forms import LISTS
from jaxsft.data.records.fields import first_of
from jaxsft.data.records.sequences import glued, joined_words
from jaxsft.errors import DataError
from jaxsft.prepare.text_columns import has_text, text_in
from jaxsft.rundir import json_text

# beside labels, numbers and chats
ANSWERS = (
    ("target", "references"),
    ("tags",),
    ("heads", "head", "deprels", "deprel"),
    ("answers",),
)


def texts_of(row: Row, columns: Columns) -> list[str] | None:
    """Returns the texts that are compared: words joined as in their text, both texts of a pair, the
    turns of a chat before its answer, the source of a target, a question and its context. None
    where the row has none of these columns.
    """
    fields = row.fields
    if columns.text is None and (words := _words(row, columns)) is not None:
        return [joined_words(words, glued(row, words))]
    text = columns.text or "text"
    if has_text(fields.get(text)):
        pair = columns.text_pair or (
            "text_pair" if isinstance(fields.get("text_pair"), str) else None
        )
        return [
            text_in(row, name, "data.columns.text_pair")
            for name in ([text, pair] if pair else [text])
        ]
    if _is_chat(row, columns):
        return _asked(row, columns)
    for names in (
        (columns.source or "source",),
        (columns.text or "question", columns.text_pair or "context"),
    ):
        if all(isinstance(fields.get(name), str) for name in names):
            return [fields[name] for name in names]
    return None


def answer_of(row: Row, columns: Columns) -> str:
    """Returns as JSON what is learnt of a row, by which rows of equal texts contradict each other;
    "" where it has none.
    """
    named = [
        columns.label or "label",
        columns.score,
        *columns.targets,
        *columns.labels,
        "labels",
        "intent",
    ]
    found = {name: row.fields[name] for name in named if name and name in row.fields}
    for roles in ANSWERS:
        found |= {
            n: row.fields[n]
            for role in roles
            if (n := getattr(columns, role, None) or role) in row.fields
        }
    if not found and _is_chat(row, columns) and texts_of(row, columns) is not None:
        try:
            last = chat_record(row, columns).messages[-1]
        except DataError:
            return ""
        found = {"answer": [last.content, dict(last.extra)]}
    if len(found) == 1:
        return json_text(next(iter(found.values())))
    return json_text(found) if found else ""


def _words(row: Row, columns: Columns) -> Sequence[str] | None:
    words = row.fields.get(columns.tokens or first_of(row, TOKENS))
    return (
        words
        if isinstance(words, list)
        and words
        and all(isinstance(word, str) and word for word in words)
        else None
    )


def _is_chat(row: Row, columns: Columns) -> bool:
    if (
        columns.messages
        or columns.prompt
        or columns.completion
        or any(isinstance(row.fields.get(name), list) for name in LISTS)
    ):
        return True
    try:
        return form_of(row, columns) in ("alpaca", "prompt")
    except DataError:
        return False


def _asked(row: Row, columns: Columns) -> list[str] | None:
    """Returns what a conversation is compared by.

    A row that could not be trained on is compared by all that it says.
    """
    try:
        return CHAT.compared(chat_record(row, columns))
    except DataError:
        turns = columns.messages or next((n for n in LISTS if n in row.fields), None)
        names = [turns, columns.prompt or "prompt", columns.completion or "completion"]
        said = [
            text_in(row, name, "data.columns.messages")
            for name in names
            if name and has_text(row.fields.get(name))
        ]
        return said or None
