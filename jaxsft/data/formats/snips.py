"""The raw files of SNIPS (Coucke et al. 2018, arXiv:1805.10190).

They hold `{"GetWeather": [{"data": [{"text": "in "}, {"text": "Rome", "entity": "city"}]}]}`.

Each utterance is a row: its whole text, its intent, and the slots as spans of characters.
"""

from __future__ import annotations

import re

from jaxsft.data.formats import jsonl
from jaxsft.data.formats.row import Bad, Format, NoOptions, Numbered
from jaxsft.data.formats.source import Source

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


def _looks_like(head: bytes) -> bool:
    return _begins.match(head) is not None


FORMAT = Format(
    "snips",
    (),
    read,
    "`text`, `intent` and `spans` (start, end, label) of an utterance",
    looks_like=_looks_like,
    order=130,
)
