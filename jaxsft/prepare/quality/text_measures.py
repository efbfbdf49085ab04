"""The texts, labels and words of a row, as the measures see them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from jaxsft.config.schema import Columns
from jaxsft.data import scripts
from jaxsft.data.formats import Row
from jaxsft.errors import DataError
from jaxsft.prepare.stages.language import script_counts

NO_SCRIPT = "none"
# of a label; an empty text is the only missing text
MISSING = ("", "na", "n/a", "nan", "null", "none")


@dataclasses.dataclass(frozen=True)
class Fields:
    """The columns of text, and that of the label (None: there are no labels).

    Attributes:
      separator: between the labels of one cell; None: a cell holds one.
      one_hot: columns of 0 and 1, each named as its class, instead of a label.
      no_label: the mark of a row that has none.
    """

    text: tuple[str, ...]
    label: str | None = None
    separator: str | None = None
    one_hot: tuple[str, ...] = ()
    no_label: str | None = None

    @property
    def labelled(self) -> bool:
        return self.label is not None or bool(self.one_hot)

    def parts(self, row: Row) -> list[str]:
        """Returns the texts of a row, one per text column that holds any; of a chat by turns."""
        return [text for name in self.text for text in _texts(row.fields.get(name))]

    def text_of(self, row: Row) -> str:
        return "\n".join(self.parts(row))

    def labels(self, row: Row) -> tuple[str, ...]:
        """Returns the labels of a row, sorted.

        There is none where the cell is missing, empty, or a word that stands for nothing
        (NA, nan, null, none).
        """
        if self.one_hot:
            return tuple(
                sorted(
                    name
                    for name in self.one_hot
                    if label_text(row.fields.get(name)) in ("1", "true")
                )
            )
        if self.label is None:
            return ()
        value = row.fields.get(self.label)
        found = value if isinstance(value, list) else [value]
        if isinstance(value, str) and self.separator:
            found = [part.strip() for part in value.split(self.separator)]
        known = (
            text
            for text in map(label_text, found)
            if text.strip().lower() not in MISSING and text != self.no_label
        )
        return tuple(sorted(known))


def fields_of(names: Iterable[str], columns: Columns, multilabel: bool, where: str) -> Fields:
    """Returns the columns that the options name, or those of the usual names (`USUAL`).

    The label is the column `label`, where there is one.

    Raises:
      DataError: no column of text is there.
    """
    names = list(names)
    text = _text_columns(names, columns)
    if not text:
        found, usual = (
            ", ".join(map(repr, names)) or "none",
            "; ".join(" and ".join(group) for group in USUAL),
        )
        raise DataError(
            f"{where}: found columns {found}, expected text ({usual}); set"
            " data.columns.text=<column>"
        )
    label = columns.label or ("label" if "label" in names else None)
    return Fields(
        text,
        label,
        columns.separator if multilabel else None,
        tuple(columns.labels),
        columns.no_label,
    )


USUAL = (
    ("text",),
    ("prompt", "completion"),
    ("messages",),
    ("conversations",),
    ("instruction", "output"),
    ("source", "target"),
    ("tokens",),
)


def _text_columns(names: Sequence[str], columns: Columns) -> tuple[str, ...]:
    c = columns
    if c.text is not None or c.text_pair is not None:
        return (c.text or "text", *([c.text_pair] if c.text_pair else []))
    if c.form == "alpaca":
        asked = (c.system, c.prompt or "instruction", c.input or "input", c.completion or "output")
        return tuple(name for name in asked if name in names or name in (c.prompt, c.completion))
    if c.prompt is not None or c.completion is not None or c.form == "prompt":
        return (
            *([c.system] if c.system else []),
            c.prompt or "prompt",
            c.completion or "completion",
        )
    if c.messages is not None or c.form in ("messages", "sharegpt"):
        return (c.messages or ("conversations" if c.form == "sharegpt" else "messages"),)
    if c.source is not None or c.target is not None:
        return (c.source or "source", c.target or "target")
    if c.tokens is not None:
        return (c.tokens,)
    found = next((group for group in USUAL if set(group) <= set(names)), ())
    return (
        (*found[:1], "input", *found[1:])
        if found[:1] == ("instruction",) and "input" in names
        else found
    )


def _texts(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return [" ".join(value)] if value else []
    if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        return [text for turn in value for text in _texts(turn.get("content", turn.get("value")))]
    return [json.dumps(value, ensure_ascii=False, sort_keys=True)]


def label_text(value: Any) -> str:
    """Returns a label as text: 3, 3.0 and "3" are one, true is "true"; a missing one is ""."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    )


def strings(value: Any) -> list[str]:
    """Returns all texts in a row, however deep they lie."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict | list):
        return [
            text
            for part in (value.values() if isinstance(value, dict) else value)
            for text in strings(part)
        ]
    return []


def normalised(text: str) -> str:
    """Returns the spelling in which equal texts are equal: NFKC, case-folded, space collapsed."""
    return " ".join(
        (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split()
    )


def words(text: str) -> list[str]:
    """Returns the words (`data.scripts.words`) in one case and one normal form."""
    return scripts.words(normalised(text))


def script(text: str) -> str:
    """Returns the script of most letters; kana and Han together are Japanese; none without letters.

    Scripts are told by Unicode names (`stages.language`).
    """
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else NO_SCRIPT
    counts = script_counts(text)
    if kana := counts.pop("Hiragana", 0) + counts.pop("Katakana", 0):
        counts["Japanese"] = kana + counts.pop("Han", 0)
    return max(sorted(counts), key=counts.__getitem__) if counts else NO_SCRIPT


def key(text: str) -> int:
    """Returns 64 bits that stand for a text.

    Two of 10 million texts share them with a chance of 3 in a million.
    """
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )
