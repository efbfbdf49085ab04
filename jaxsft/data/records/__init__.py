"""Typed records, made from rows once and checked for every row, by kind. A task says in its spec
which kind it learns from; several share one.

A parser takes a row and `columns`, which is `data.columns`: the name of a column for each field,
None for the default name, and how what is found there is read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from jaxsft.data import split_rule
from jaxsft.data.formats import Row, listed
from jaxsft.data.formats.row import AnyName
from jaxsft.data.ledger import Aside
from jaxsft.data.records import settled
from jaxsft.data.records.chat_forms import FORMS, LISTS, form_of
from jaxsft.data.records.conversations import Chat, chat_record, open_chat
from jaxsft.data.records.fields import Doubtful, Unlabelled, label_names, label_text
from jaxsft.data.records.messages import ROLES, Message
from jaxsft.data.records.questions import Question, question_record
from jaxsft.data.records.sequences import (
    SCHEMES,
    TOKENS,
    Parse,
    Slots,
    Spans,
    Tags,
    joined,
    parse_record,
    slots_record,
    span_record,
    tag_record,
    tags_of,
    words,
)
from jaxsft.data.records.source_target import Seq2Seq, group_references, seq2seq_record
from jaxsft.data.records.whole_texts import (
    LabelledText,
    MultiLabel,
    Pair,
    Regression,
    Text,
    label_record,
    multilabel_record,
    pair_record,
    regression_record,
    text_record,
)
from jaxsft.errors import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """The facts about the records of a task before it has a head.

    Attributes:
      record: `record(row, columns)`; raises DataError.
      texts: the texts of a record: what a tokenizer is trained on, and what is compared between
        rows.
      given: those of them that the model is given; the others it learns.
      reads: the fields of data.columns that decide about a record; `weight` is read for all.
      compared: the texts by which rows are equal (`text_key`), where these are not those that are
        given.
      labels: the names of the classes that a record has.
      stratum: rows of one stratum are spread evenly over the splits.
      inputs, outputs: the columns of a delimited file that hold what is given and what is learnt.
      infer_columns: `infer_columns(row, columns)`: the columns, from the first row, where the names
        that were not given leave no doubt.
      settle: `settle(rows, columns, declared)`: the columns, from all rows of a file, where these
        tell how they are to be read; `declared` are the labels that the task is given. Raises
        Doubtful.
    """

    record: Callable[[Row, Any], Any]
    texts: Callable[[Any], list[str]]
    given: Callable[[Any], list[str]]
    reads: tuple[str, ...]
    labels: Callable[[Any], tuple[str, ...]] = lambda record: ()
    stratum: Callable[[Any], str] = lambda record: ""
    inputs: Callable[[Any], list[str]] = lambda columns: _text_columns(columns)
    outputs: Callable[[Any], list[str]] = lambda columns: []
    infer_columns: Callable[[Row, Any], Any] = lambda row, columns: columns
    compared: Callable[[Any], list[str]] | None = None
    settle: settled.Settle = settled.neither

    def text_key(self, record: Any) -> str:
        """Returns a text that is equal for two rows with the same input.

        It is made of `compared`, by default of what the model is given, in NFC, without regard to
        case and white space.
        """
        return split_rule.text_key((self.compared or self.given)(record))

    def classes(self, record: Any) -> list[tuple[str, str]]:
        """Returns every label that must be known to learn or score a record, as `("label", name)`.

        The label of a text beside labels of its words is `("text", name)`.
        """
        found = [("label", name) for name in self.labels(record)]
        beside = self.stratum(record)
        return found if not beside or beside in self.labels(record) else [*found, ("text", beside)]


def _text_columns(columns: Any) -> list[str]:
    return (
        [columns.text or "text"]
        + ([columns.text_pair] if columns.text_pair else [])
        + [*columns.features]
    )


def _one_or_two(record: Any) -> list[str]:
    return [record.text] if record.text_pair is None else [record.text, record.text_pair]


def _other_column(row: Row, columns: Any) -> Any:
    """Returns the columns with the one of the label: `label`, or the only column beside the text.

    Applies where `data.columns.label` is not given. Raises DataError where there are several.
    """
    if columns.label:
        return columns
    others = [
        name
        for name in row.fields
        if name
        not in (
            columns.text or "text",
            columns.text_pair,
            columns.weight,
            *columns.features,
        )
    ]
    if "label" not in others and len(others) != 1:
        raise DataError(
            f"{row.where}: no column 'label'; found {listed(row.fields)}; {_label_hint(row)}"
        )
    return dataclasses.replace(columns, label="label" if "label" in others else others[0])


def _asked(record: Chat) -> list[str]:
    """Returns the texts that ask for the last answer of a conversation.

    They are the turns before the last one, with the calls in them, and the tools as JSON; of a
    conversation of one turn, that turn.
    """
    asked = [
        (
            f"{m.content}\n{json.dumps(m.extra['tool_calls'])}"
            if "tool_calls" in m.extra
            else m.content
        )
        for m in record.messages[:-1]
    ]
    return [*asked, *map(json.dumps, record.tools)] if asked else [record.messages[-1].content]


def _label_hint(row: Row) -> str:
    """Returns advice for a row that has no column with a label.

    The label may stand in front of the text, or in the name of the folder.
    """
    if set(row.fields) != {"text"}:
        return "set data.columns.label=<column>"
    if "\t" in str(row.fields["text"]):
        return "the line has tabs: set data.format=tsv"
    return (
        "set data.columns.label=<column>; where commas or semicolons part cells, data.format=csv;"
        " where the first word of each line is its label, data.format=fasttext"
        " data.options.prefix=none; where each file is a text and its folder the label,"
        " data.unit=file data.columns.label=folder"
    )


def _given_names(*names: str | None) -> list[str]:
    return [name for name in names if name]


def _chat_inputs(columns: Any) -> list[str]:
    """Returns the columns of a delimited file that an answer is generated from.

    Where no option says which, they may be those of any form (`chat_forms.form_of`); a list of
    messages is text there, which spells it.
    """
    if columns.messages is not None:
        return [columns.messages]
    if columns.form in ("messages", "sharegpt"):
        return [AnyName(*LISTS)]
    name = AnyName("prompt", "instruction", *LISTS) if _no_form(columns) else "prompt"
    return [
        columns.prompt or ("instruction" if columns.form == "alpaca" else name),
        *_given_names(columns.input),
    ]


def _chat_outputs(columns: Any) -> list[str]:
    if columns.messages is not None or columns.form in ("messages", "sharegpt"):
        return []
    name = AnyName("completion", "output", *LISTS) if _no_form(columns) else "completion"
    return [columns.completion or ("output" if columns.form == "alpaca" else name)]


def _no_form(columns: Any) -> bool:
    """Returns whether no option says in which form a conversation is."""
    return columns.form == "auto" and (columns.prompt, columns.completion) == (None, None)


_label = lambda record: (record.label,)
_words = lambda record: [joined(record)]

_LABEL = ("label", "label_names", "no_label")
_TEXTS = ("text", "text_pair")
_BESIDE = ("features", "categories", "missing")
_WORDS = ("tokens", "tags", "text", "spans", "scheme", "allow")

CHAT = Kind(
    chat_record,
    texts=lambda record: [m.content for m in record.messages],
    given=lambda record: [m.content for m in record.messages[:-1]],
    reads=(
        "form",
        "prompt",
        "completion",
        "messages",
        "input",
        "history",
        "system",
        "tools",
        "allow",
    ),
    compared=_asked,
    inputs=_chat_inputs,
    outputs=_chat_outputs,
)
TEXT = Kind(
    text_record,
    texts=lambda record: [record.text],
    given=lambda record: [record.text],
    reads=("text",),
    inputs=lambda columns: [columns.text or "text"],
)
LABEL = Kind(
    label_record,
    _one_or_two,
    _one_or_two,
    (*_TEXTS, *_LABEL, *_BESIDE),
    _label,
    lambda record: record.label,
    outputs=lambda columns: _given_names(columns.label),
    infer_columns=_other_column,
    settle=settled.label,
)
LABELS = Kind(
    multilabel_record,
    _one_or_two,
    _one_or_two,
    (*_TEXTS, *_LABEL, *_BESIDE, "labels", "separator", "allow"),
    lambda record: record.labels,
    outputs=lambda columns: [*columns.labels] or _given_names(columns.label),
    settle=settled.labels,
)
NUMBERS = Kind(
    regression_record,
    _one_or_two,
    _one_or_two,
    (*_TEXTS, *_BESIDE, "label", "targets"),
    outputs=lambda columns: [*columns.targets] or [columns.label or "label"],
)
TAGS = Kind(
    tag_record,
    _words,
    _words,
    (*_WORDS, "label_names"),
    lambda record: tuple(sorted({*record.tags})),
    inputs=lambda columns: [],
    settle=settled.tags,
)
SLOTS = Kind(
    slots_record,
    _words,
    _words,
    (*_WORDS, *_LABEL),
    lambda record: tuple(sorted({*record.tags})),
    lambda record: record.label,
    inputs=lambda columns: [],
    settle=settled.both,
)
TREE = Kind(
    parse_record,
    _words,
    _words,
    ("tokens", "heads", "deprels", "allow"),
    lambda record: tuple(sorted({*record.deprels})),
    inputs=lambda columns: [],
)
SOURCE_TARGET = Kind(
    seq2seq_record,
    texts=lambda record: [record.source, *(record.references or (record.target,))],
    given=lambda record: [record.source],
    reads=("source", "target", "references", "group_references"),
    inputs=lambda columns: [columns.source or "source"],
    outputs=lambda columns: [columns.target or columns.references or "target"],
)
QUESTION = Kind(
    question_record,
    texts=lambda record: [record.question, record.context],
    given=lambda record: [record.question, record.context],
    reads=(*_TEXTS, "answers"),
    inputs=lambda columns: [columns.text or "question", columns.text_pair or "context"],
    outputs=lambda columns: [columns.answers or "answers"],
)
PAIR = Kind(
    pair_record,
    texts=lambda record: [record.text_a, record.text_b],
    given=lambda record: [record.text_a, record.text_b],
    reads=(*_TEXTS, *_LABEL, "score"),
    labels=lambda record: () if record.label is None else (record.label,),
    stratum=lambda record: record.label or "",
    inputs=lambda columns: [columns.text or "text", columns.text_pair or "text_pair"],
    outputs=lambda columns: _given_names(columns.label, columns.score),
    settle=lambda rows, columns, declared: (
        columns if columns.score else settled.label(rows, columns, declared)
    ),
)


def settled_columns(task: Any, rows: Sequence[Row], columns: Any, options: Any) -> Any:
    """Returns the columns of a file, with what its rows decide.

    That is which columns were not named, and how what they hold is read. `task` is the task or its
    `Kind`, `options` its options.

    Raises:
      DataError: the rows leave that in doubt.
    """
    columns = task.infer_columns(rows[0], columns)
    declared = getattr(options, "intents" if hasattr(options, "intents") else "labels", None) or ()
    return options.spec.records.settle(rows, columns, [label_text(label) for label in declared])


def columns_read(kind: Kind) -> tuple[str, ...]:
    """Returns the fields of data.columns that decide about records of a kind, and their weight."""
    return (*kind.reads, "weight")


def parse_rows(
    rows: Sequence[Row],
    record: Callable[[Row, Any], Any],
    columns: Any,
    aside: list[Aside],
    on_bad_row: str,
) -> tuple[list[Row], list[Any]]:
    """Parses rows, and returns those that give a record, with their records.

    The others are put into `aside`: as `no_label` where that is declared, else as `no_record`.

    Raises:
      DataError: of the first row that gives none, unless `on_bad_row` is quarantine.
    """
    kept, records = [], []
    for row in rows:
        try:
            found = record(row, columns)
        except Unlabelled as error:
            aside.append(Aside(row.file, row.line, "no_label", str(error)))
        except DataError as error:
            if on_bad_row != "quarantine":
                raise
            aside.append(Aside(row.file, row.line, "no_record", str(error), row.fields))
        else:
            kept.append(row)
            records.append(found)
    return kept, records


__all__ = [
    "CHAT",
    "LABEL",
    "LABELS",
    "NUMBERS",
    "PAIR",
    "QUESTION",
    "SLOTS",
    "SOURCE_TARGET",
    "TAGS",
    "TEXT",
    "TREE",
    "Chat",
    "Doubtful",
    "FORMS",
    "Kind",
    "LabelledText",
    "Message",
    "MultiLabel",
    "Pair",
    "Parse",
    "Question",
    "ROLES",
    "Regression",
    "SCHEMES",
    "Seq2Seq",
    "Slots",
    "Spans",
    "TOKENS",
    "Tags",
    "Text",
    "Unlabelled",
    "chat_record",
    "columns_read",
    "form_of",
    "group_references",
    "joined",
    "label_names",
    "label_record",
    "multilabel_record",
    "open_chat",
    "pair_record",
    "parse_record",
    "parse_rows",
    "question_record",
    "regression_record",
    "seq2seq_record",
    "settled_columns",
    "slots_record",
    "span_record",
    "tag_record",
    "tags_of",
    "text_record",
    "words",
]
