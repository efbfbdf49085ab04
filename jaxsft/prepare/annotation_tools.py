"""Tasks for annotation tools: Label Studio, doccano and CoNLL files.

What annotators send back is read by `jaxsft.data.formats`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from jaxsft.data import schemes
from jaxsft.data.formats import Row, conll, doccano, labelstudio, require_column
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.annotation import fields_of, tokens_of, value_of
from jaxsft.prepare.annotation_schema import Schema
from jaxsft.rundir import json_text

TOOLS = {"labelstudio": "json", "doccano": "jsonl", "conll": "conll"}  # and the usual suffix
STARS = 10  # Label Studio draws ratings from 1 to at most so many as stars; others are typed


def export_tasks(items: Iterable[Row], schema: Schema, tool: str) -> str:
    """Returns the file that the tool imports.

    Every item has its id as `item`, its text, and what it is labelled with already, if
    anything.

    A pairwise item has its two responses beside the prompt in Label Studio, and below it in
    doccano. Labels that are there already (`label`, `labels`, `rating`, `spans`, `relations`, or
    `tokens` with `tags`) are predictions in Label Studio, and labels to correct in doccano and
    CoNLL.

    Raises:
      ConfigError: no such tool, or one that cannot ask such a question.
      DataError: an item without id or text, two of one id, a label that the schema does not have,
        or spans that CoNLL cannot spell.
    """
    if tool not in TOOLS:
        raise ConfigError(f"tool={tool!r} is unknown; expected one of {', '.join(TOOLS)}")
    if tool == "conll" and schema.type != "span":
        raise ConfigError(
            f"tool=conll takes a schema of type span (this one is {schema.type}); use labelstudio"
            " or doccano"
        )
    rows = _rows(items, schema, tool)
    if tool == "labelstudio":
        return _label_studio(rows, schema)
    file = io.BytesIO()
    (doccano.write if tool == "doccano" else conll.write)(rows, file, f"tool={tool}")
    return file.getvalue().decode("utf-8")


def label_studio_config(schema: Schema) -> str:
    """Returns the labelling setup (XML) that fits the tasks of `export_tasks`.

    Guidelines are its header.
    """
    lines = ["<View>"]
    lines += [
        f"  <Header value={quoteattr(line)}/>"
        for line in schema.guidelines.strip().split("\n")
        if line.strip()
    ]
    lines.append('  <Text name="text" value="$text"/>')
    if schema.type == "pairwise":
        lines += [
            f'  <Header value={quoteattr(f"{n}:")}/>\n  <Text name="{n}" value="${n}"/>'
            for n in ("a", "b")
        ]
    if schema.type == "rating":
        low, high = schema.scale
        stars = f'Rating name="rating" toName="text" maxRating="{high}"'
        typed = f'Number name="rating" toName="text" min="{low}" max="{high}"'
        lines.append(f'  <{stars if low == 1 and high <= STARS else typed} required="true"/>')
    elif schema.type in ("span", "relation"):
        lines += [
            '  <Labels name="label" toName="text">',
            *_choices("Label", schema.labels),
            "  </Labels>",
        ]
        if schema.type == "relation":
            lines += ["  <Relations>", *_choices("Relation", schema.relations), "  </Relations>"]
    else:
        choice = "multiple" if schema.type == "multi_label" else "single"
        needed = "" if schema.type == "multi_label" else ' required="true"'
        lines += [
            f'  <Choices name="labels" toName="text" choice="{choice}"{needed}>',
            *_choices("Choice", schema.labels),
            "  </Choices>",
        ]
    return "\n".join([*lines, "</View>", ""])


def _choices(tag: str, labels: Sequence[Any]) -> list[str]:
    return [
        f"    <{tag} value={quoteattr(x.name)}"
        f"{f' hint={quoteattr(x.description)}' if x.description else ''}/>"
        for x in labels
    ]


def _rows(items: Iterable[Row], schema: Schema, tool: str) -> list[dict[str, Any]]:
    out, seen = [], {}
    for number, row in enumerate(items, start=1):
        item = (
            str(number)
            if schema.id is None
            else require_column(
                row, schema.id, "in the schema id: (null numbers the items), here id:"
            )
        )
        if not isinstance(item, str | int) or isinstance(item, bool) or str(item).strip() == "":
            raise DataError(
                f"{row.where}: column {schema.id!r} holds {item!r}, expected the id of an item"
            )
        item = str(item)
        if item in seen:
            raise DataError(
                f"{row.where}: the id {item!r} stands at {seen[item]} too; give each item its own,"
                " or set id: null in the schema"
            )
        seen[item] = row.where
        text = _text(row, schema.text, "text:")
        found = {"item": item, "text": text}
        if schema.type == "pairwise":
            a, b = (_text(row, name, "responses:") for name in schema.responses)
            found |= (
                {"text": f"{text}\n\nA: {a}\n\nB: {b}"} if tool == "doccano" else {"a": a, "b": b}
            )
        out.append(found | _given(row, schema, tool))
    return out


def _text(row: Row, name: str, key: str) -> str:
    text = require_column(row, name, f"in the schema {key}, here {key}")
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"{row.where}: column {name!r} holds {text!r:.60}, expected a text that annotators can"
            " read"
        )
    return text


def _given(row: Row, schema: Schema, tool: str) -> dict[str, Any]:
    """Returns the labels that the item already has, as the writers of formats take them."""
    known = (
        ("spans", "tags") if schema.type in ("span", "relation") else ("label", "labels", "rating")
    )
    value = (
        value_of(row.fields, schema, row.where)
        if any(row.fields.get(key) is not None for key in known)
        else None
    )
    if tool == "conll":
        return _tagged(row.fields[schema.text], value or (), row.where)
    if schema.type in ("span", "relation"):
        none: dict[str, Any] = {
            "spans": [],
            **({"relations": []} if schema.type == "relation" else {}),
        }
        return fields_of(value, schema) if value is not None else none if tool == "doccano" else {}
    if tool == "labelstudio" and schema.type == "rating":
        return {} if value is None else {"rating": value}
    labels = [] if value is None else list(value) if schema.type == "multi_label" else [str(value)]
    return {"labels": labels} if labels or tool == "doccano" else {}


def _tagged(text: str, spans: Iterable[tuple[int, int, str]], where: str) -> dict[str, Any]:
    places = tokens_of(text)
    first, last = (
        {s: i for i, (s, _) in enumerate(places)},
        {e: i + 1 for i, (_, e) in enumerate(places)},
    )
    chunks = []
    for start, end, label in spans:
        if start not in first or end not in last:
            raise DataError(
                f"{where}: the span {text[start:end]!r} does not begin and end with tokens, which"
                " CoNLL needs; use labelstudio or doccano"
            )
        chunks.append((first[start], last[end], label))
    try:
        tags = schemes.tags(chunks, len(places), "iob2")
    except DataError as error:
        raise DataError(f"{where}: {error}; use labelstudio or doccano") from None
    return {"tokens": [text[s:e] for s, e in places], "tags": tags}


def _label_studio(rows: Sequence[dict[str, Any]], schema: Schema) -> str:
    ratings = {row["item"]: row.pop("rating") for row in rows if "rating" in row}
    file = io.BytesIO()
    labelstudio.write(rows, file, "tool=labelstudio")
    tasks = json.loads(file.getvalue())
    for task in tasks:
        results = [work["result"] for work in task.pop("annotations")]
        if (rating := ratings.get(task["data"]["item"])) is not None:
            kind = "rating" if schema.scale[0] == 1 and schema.scale[1] <= STARS else "number"
            results = [
                [{"from_name": "rating", "to_name": "text", "type": kind, "value": {kind: rating}}]
            ]
        if results:
            task["predictions"] = [
                {"model_version": "given", "result": result} for result in results
            ]
    return "[\n" + ",\n".join(map(json_text, tasks)) + "\n]\n"
