"""Exports of doccano as JSON lines.

A text with spans `[[start, end, label], ...]`, with labels, or with entities and relations.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import IO, Any

from jaxsft.config.option import option
from jaxsft.data.formats import jsonl
from jaxsft.data.formats.row import Bad, Format, NoOptions, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.data.formats.spans import Problem, located, relation
from jaxsft.errors import DataError

LABELS = ("label", "labels", "cats")  # of the newer and the older versions


@dataclasses.dataclass(frozen=True, slots=True)
class DoccanoOptions:
    annotators: bool = option(
        False, "true: the file is called as its annotator (doccano exports a file each): ann.jsonl"
    )


def read(source: Source, encoding: str, options: DoccanoOptions) -> Numbered:
    """Reads `{"text", "spans" or "labels", "relations", "annotator"}` and all other fields.

    `relations` where the export has any; `annotator` where it names the users (several users are
    several rows), or with the option `annotators`. A span that leaves its text, and a relation
    without its spans, make the row `Bad`.
    """
    annotator = (
        {"annotator": PurePath(source.name.removesuffix(".gz")).stem} if options.annotators else {}
    )
    for found in jsonl.read_lines(source, encoding, NoOptions()):
        if isinstance(found, Bad):
            yield found
            continue
        line, row = found
        try:
            rows = list(_rows(row))
        except Problem as problem:
            yield Bad(line, str(problem))
            continue
        yield from ((line, {**fields, **annotator}) for fields in rows)


def _rows(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # the version before 1.5 calls it data in some exports
    column = "text" if "text" in row else "data"
    text = row.get(column)
    if not isinstance(text, str):
        raise Problem(f"found no text, but {', '.join(row) or 'nothing'}")
    given = [name for name in LABELS if name in row]
    rest = {
        key: value
        for key, value in row.items()
        if key not in (column, *LABELS, "entities", "relations", "annotations")
    }
    base = {"text": text, **rest}
    if isinstance(row.get("entities"), list):
        index = {
            str(entity.get("id")): i
            for i, entity in enumerate(row["entities"])
            if isinstance(entity, dict)
        }
        spans = [_span(text, entity) for entity in row["entities"]]
        links = row.get("relations") or []
        if not isinstance(links, list):
            raise Problem(f"found the relations {links!r}, expected a list")
        cats = {"labels": row[given[0]]} if given and isinstance(row[given[0]], list) else {}
        yield {
            **base,
            **cats,
            "spans": spans,
            "relations": [_relation(link, index) for link in links],
        }
    elif isinstance(row.get("annotations"), list):
        if not all(
            isinstance(part, dict) and isinstance(part.get("user"), int | str | None)
            for part in row["annotations"]
        ):
            raise Problem(
                "found an annotation that is no object, or whose user is neither a number nor a"
                " name"
            )
        for user in dict.fromkeys(part.get("user") for part in row["annotations"]) or [None]:
            yield {
                **base,
                **_labelled(
                    text, [part for part in row["annotations"] if part.get("user") == user]
                ),
                "annotator": user,
            }
    elif given:
        yield {**base, **_labelled(text, row[given[0]])}
    else:
        raise Problem(f"found no label, labels or entities, but {', '.join(row)}")


def _labelled(text: str, labels: Any) -> dict[str, Any]:
    """Returns spans or labels, whichever the list has.

    An empty list gives both, so that either task reads it.
    """
    if isinstance(labels, str | int):
        return {"labels": [labels]}
    if not isinstance(labels, list):
        raise Problem(f"found the label {labels!r}, expected a list")
    if not labels:
        return {"spans": [], "labels": []}
    if all(isinstance(label, str | int) for label in labels):
        return {"labels": labels}
    if all(isinstance(label, dict) and "start_offset" not in label for label in labels):
        return {"labels": [label.get("label") for label in labels]}
    return {"spans": [_span(text, label) for label in labels]}


def _span(text: str, span: Any) -> dict[str, Any]:
    if isinstance(span, dict):
        span = [span.get("start_offset"), span.get("end_offset"), span.get("label")]
    if not isinstance(span, list) or len(span) != 3 or not isinstance(span[2], str | int):
        raise Problem(f"found the span {span!r}, expected [start, end, label]")
    start, end = located(text, span[0], span[1], None, f"the span {span[2]!r}")
    return {"start": start, "end": end, "label": span[2]}


def _relation(link: Any, index: dict[str, int]) -> dict[str, Any]:
    if not isinstance(link, dict):
        raise Problem(
            f"found the relation {link!r}, expected an object with from_id, to_id and type"
        )
    return relation(
        str(link.get("from_id")), str(link.get("to_id")), link.get("type"), index, "a relation"
    )


def write(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes rows as doccano imports them.

    Spans become `label: [[start, end, label]]`, with relations `entities` and `relations`,
    labels `label: [...]`.

    Raises:
      DataError: a row without text, with spans and labels at once, with neither, or with a span
        that leaves the text.
    """
    for number, row in enumerate(rows, start=1):
        text, spans, labels = row.get("text"), row.get("spans"), row.get("labels")
        if not isinstance(text, str) or (spans is None and labels is None) or (spans and labels):
            raise DataError(
                f"{name}: row {number} has no text, or not one of spans and labels; write .jsonl"
                " instead"
            )
        if outside := [
            span for span in spans or [] if not 0 <= span["start"] < span["end"] <= len(text)
        ]:
            raise DataError(
                f"{name}: row {number}: the span {json.dumps(outside[0])} leaves its text of"
                f" {len(text)} characters"
            )
        out = {
            "text": text,
            **{
                key: value
                for key, value in row.items()
                if key not in ("text", "spans", "labels", "relations")
            },
        }
        if row.get("relations") is not None and spans is not None:
            entities = [
                {"id": i, "label": s["label"], "start_offset": s["start"], "end_offset": s["end"]}
                for i, s in enumerate(spans)
            ]
            links = [
                {"id": i, "from_id": r["head"], "to_id": r["tail"], "type": r["label"]}
                for i, r in enumerate(row["relations"])
            ]
            out = {**out, "entities": entities, "relations": links}
        else:
            out["label"] = (
                [[s["start"], s["end"], s["label"]] for s in spans] if spans else labels or []
            )
        file.write(jsonl.dumped(out, name, number) + b"\n")


def _looks_like(head: bytes) -> bool:
    """Returns whether a file begins as an export of doccano.

    Nearly every whole line is an object with a text, and one of them has spans as only doccano
    spells them: a bad row does not decide.
    """
    lines = [
        line for line in head.split(b"\n")[: 50 if head.count(b"\n") > 1 else 1] if line.strip()
    ]
    lines = lines[:-1] if len(lines) > 1 and len(head) >= 2**16 else lines
    rows = [
        row
        for line in lines
        if isinstance(row := _object(line), dict) and isinstance(row.get("text"), str)
    ]
    return len(rows) > 0.5 * len(lines) and any(map(_has_spans, rows))


def _object(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _has_spans(row: dict[str, Any]) -> bool:
    for name in (*LABELS, "entities", "annotations"):
        part = row.get(name)
        if (
            isinstance(part, list)
            and part
            and all(isinstance(s, dict) and "start_offset" in s and "end_offset" in s for s in part)
        ):
            return True
        if (
            name in LABELS
            and isinstance(part, list)
            and part
            and all(isinstance(s, list) and list(map(type, s)) == [int, int, str] for s in part)
        ):
            return True
    return False


FORMAT = Format(
    "doccano",
    (),
    read,
    "a `text` with `spans` or `labels`, and `relations`",
    DoccanoOptions,
    _looks_like,
    write,
    order=160,
)
