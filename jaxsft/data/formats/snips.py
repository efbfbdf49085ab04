"""The raw files of SNIPS (Coucke et al. 2018, arXiv:1805.10190).

They hold `{"GetWeather": [{"data": [{"text": "in "}, {"text": "Rome", "entity": "city"}]}]}`.

Each utterance is a row: its whole text, its intent, and the slots as spans of characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import IO, Any

from jaxsft.data.formats import jsonl
from jaxsft.data.formats.row import Bad, Format, NoOptions, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.errors import DataError

_begins = re.compile(
    rb'(\xef\xbb\xbf)?\s*\{\s*"[^"\\]*"\s*:\s*\[\s*\{\s*"data"\s*:\s*\[\s*\{\s*"(text|entity)"\s*:'
)


def read(source: Source, encoding: str, options: NoOptions) -> Numbered:
    """Reads rows `{"text", "intent", "spans": [{"start", "end", "label"}]}`; `end` is exclusive."""
    for found in jsonl.read_document(
        source, encoding, jsonl.DocumentOptions(records="*", key="intent")
    ):
        if isinstance(found, Bad):
            yield found
            continue
        line, row = found
        parts = row.get("data")
        if "intent" not in row:
            yield Bad(
                line,
                'found an utterance that stands in no intent, expected {"<intent>": [{"data":'
                " [...]}]}",
            )
            continue
        if not isinstance(parts, list) or not all(
            isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts
        ):
            yield Bad(
                line,
                'found an utterance without its parts, expected {"data": [{"text": ..., "entity":'
                " ...}, ...]}",
            )
            continue
        text, spans = "", []
        for part in parts:
            if part.get("entity") is not None:
                spans.append(
                    {
                        "start": len(text),
                        "end": len(text) + len(part["text"]),
                        "label": part["entity"],
                    }
                )
            text += part["text"]
        yield line, {"text": text, "intent": row["intent"], "spans": spans}


def write(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes rows in the raw form, intents in the order of their first row.

    Raises DataError where spans overlap, leave the text, or a field is missing.
    """
    intents: dict[str, list[Any]] = {}
    for number, row in enumerate(rows, start=1):
        text, parts, at = row.get("text"), [], 0
        if (
            not isinstance(text, str)
            or not isinstance(row.get("intent"), str)
            or set(row) - {"text", "intent", "spans"}
        ):
            raise DataError(
                f"{name}: row {number} has the columns {sorted(row)}, expected text, intent and"
                " spans; write .jsonl instead"
            )
        for span in sorted(row.get("spans") or [], key=lambda span: span["start"]):
            if not at <= span["start"] < span["end"] <= len(text):
                raise DataError(
                    f"{name}: row {number}: the span {span} overlaps another or leaves the text;"
                    " write .jsonl instead"
                )
            parts += [{"text": text[at : span["start"]]}] if span["start"] > at else []
            parts.append({"text": text[span["start"] : span["end"]], "entity": span["label"]})
            at = span["end"]
        intents.setdefault(row["intent"], []).append(
            {"data": parts + ([{"text": text[at:]}] if text[at:] else [])}
        )
    file.write(
        json.dumps(intents, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
        + b"\n"
    )


def _looks_like(head: bytes) -> bool:
    return _begins.match(head) is not None


FORMAT = Format(
    "snips",
    (),
    read,
    "`text`, `intent` and `spans` (start, end, label) of an utterance",
    looks_like=_looks_like,
    write=write,
    order=130,
)
