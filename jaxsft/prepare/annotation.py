"""Annotations: what people answered to a schema (`annotation_schema`).

A value is, by the type of the schema: a label (class, pairwise), a number (rating), a sorted tuple
of labels (multi_label), a sorted tuple of spans `(start, end, label)` in characters, `end`
exclusive (span), or `(spans, relations)` with relations `(head span, label, tail span)` (relation).
As fields of a row it is `label`, `label`, `labels`, `spans`, or `spans` and `relations`, spelled as
the readers of annotation tools spell them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxsft.data import graphemes, schemes
from jaxsft.data.formats import Row
from jaxsft.errors import DataError
from jaxsft.prepare.annotation_schema import Schema


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One annotator's answer about one item.

    `value` None: they skipped it, or left it empty where an answer is needed.
    """

    item: str
    annotator: str
    value: Any
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Work:
    """The annotations of everybody, the text of every item, and the items that nobody has seen."""

    annotations: tuple[Annotation, ...]
    texts: Mapping[str, str]
    untouched: tuple[str, ...] = ()

    @property
    def annotators(self) -> list[str]:
        return sorted({a.annotator for a in self.annotations})

    @property
    def items(self) -> list[str]:
        """Returns the items that somebody answered, in the order in which they were read."""
        return list(dict.fromkeys(a.item for a in self.annotations if a.value is not None))

    def by_annotator(self) -> dict[str, dict[str, Any]]:
        """Returns annotator -> item -> value; answers only."""
        out: dict[str, dict[str, Any]] = {name: {} for name in self.annotators}
        for a in self.annotations:
            if a.value is not None:
                out[a.annotator][a.item] = a.value
        return out


# --- values
# --------------------------------------------------------------------------------------------------
def value_of(fields: Mapping[str, Any], schema: Schema, where: str) -> Any:
    """Returns the value that a row's fields hold; None where an answer is missing.

    Raises:
      DataError: a label, rating or relation that the schema does not know, several labels where one
        is asked for, or spans that leave the text.
    """
    if schema.type in ("span", "relation"):
        return _marked(fields, schema, where)
    given = (
        fields.get("rating")
        if schema.type == "rating" and fields.get("rating") is not None
        else fields.get("labels", fields.get("label"))
    )
    given = [] if given is None else given if isinstance(given, list | tuple) else [given]
    if schema.type == "multi_label":
        if "labels" not in fields and "label" not in fields:
            raise DataError(f"{where}: found no labels, but the columns {', '.join(fields)}")
        return (
            None
            if fields.get("labels", fields.get("label")) is None
            else tuple(sorted({_known(name, schema, where) for name in given}))
        )
    if len(given) > 1:
        raise DataError(
            f"{where}: found {len(given)} answers ({', '.join(map(str, given))}), expected one"
        )
    return _known(given[0], schema, where) if given else None


def fields_of(value: Any, schema: Schema) -> dict[str, Any]:
    """Returns the fields of a row that hold a value, the reverse of `value_of`.

    None: every field is null.
    """
    if schema.type == "multi_label":
        return {"labels": None if value is None else list(value)}
    if schema.type not in ("span", "relation"):
        return {"label": value}
    if value is None:
        return {"spans": None, **({"relations": None} if schema.type == "relation" else {})}
    spans, links = value if schema.type == "relation" else (value, ())
    out: dict[str, Any] = {"spans": [{"start": s, "end": e, "label": name} for s, e, name in spans]}
    if schema.type == "relation":
        out["relations"] = [
            {"head": spans.index(head), "tail": spans.index(tail), "label": name}
            for head, name, tail in links
        ]
    return out


def _known(given: Any, schema: Schema, where: str) -> Any:
    if schema.type == "rating":
        number = given
        if isinstance(given, str) and re.fullmatch(r"[+-]?\d+", given.strip()):
            number = int(given)
        low, high = schema.scale
        if (
            isinstance(number, bool)
            or not isinstance(number, int | float)
            or not math.isfinite(number)
            or number != int(number)
        ):
            raise DataError(
                f"{where}: found the rating {given!r}, expected a whole number from {low} to {high}"
            )
        if not low <= number <= high:
            raise DataError(f"{where}: found the rating {given!r}, expected {low} to {high}")
        return int(number)
    if given not in schema.names:
        raise DataError(
            f"{where}: found the label {given!r}, which the schema does not have; it has"
            f" {', '.join(schema.names)}"
        )
    return given


def _marked(fields: Mapping[str, Any], schema: Schema, where: str) -> Any:
    found = (
        spans_of_tokens(fields, where)
        if "tokens" in fields and "spans" not in fields
        else fields.get("spans", fields.get("labels"))
    )
    if found is None:
        return None
    links_found = fields.get("relations") or []
    if not isinstance(found, list | tuple) or not isinstance(links_found, list | tuple):
        raise DataError(
            f"{where}: found spans {found!r:.60} and relations {links_found!r:.60}, expected a list"
            " of each"
        )
    text, spans = fields.get(schema.text, fields.get("text")), []
    if text is not None and not isinstance(text, str):
        raise DataError(f"{where}: the text is {text!r:.60}, expected a string")
    for span in found:
        if not isinstance(span, dict) or not all(
            isinstance(span.get(key), int) for key in ("start", "end")
        ):
            raise DataError(
                f"{where}: found the span {span!r}, expected an object with start, end and label"
            )
        if not 0 <= span["start"] < span["end"] or (
            isinstance(text, str) and span["end"] > len(text)
        ):
            raise DataError(
                f"{where}: the span from {span['start']} to {span['end']} is empty or leaves its"
                f" text of {len(text or '')} characters"
            )
        spans.append((span["start"], span["end"], _known(span.get("label"), schema, where)))
    ordered = tuple(sorted(set(spans)))
    if schema.type == "span":
        return ordered
    names, links = tuple(label.name for label in schema.relations), set()
    for link in links_found:
        if not isinstance(link, dict) or not all(
            isinstance(link.get(end), int) and 0 <= link[end] < len(spans)
            for end in ("head", "tail")
        ):
            raise DataError(
                f"{where}: found the relation {link!r}, expected head and tail, the numbers of two"
                " spans, and label"
            )
        if link.get("label") not in names:
            raise DataError(
                f"{where}: found the relation {link.get('label')!r}, which the schema does not"
                f" have; it has {', '.join(names)}"
            )
        links.add((spans[link["head"]], link["label"], spans[link["tail"]]))
    return ordered, tuple(sorted(links))


def tokens_of(text: str) -> list[tuple[int, int]]:
    """Returns the bounds of the tokens of a text: words, and every other visible character."""
    return graphemes.words(text)


def spans_of_tokens(fields: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Converts the chunks of IOB2 tags to spans of the text beside them.

    Raises DataError where a token is not in the text, or the tags are not IOB2.
    """
    text, tokens, tags = fields.get("text"), fields["tokens"], fields.get("tags")
    if not isinstance(text, str) or tags is None:
        raise DataError(
            f"{where}: found tokens without"
            f" {'tags' if isinstance(text, str) else 'a comment `# text = ...`'}, which places them"
        )
    if not all(
        isinstance(part, list) and all(isinstance(cell, str) and cell for cell in part)
        for part in (tokens, tags)
    ) or len(tokens) != len(tags):
        raise DataError(
            f"{where}: found tokens {tokens!r:.60} and tags {tags!r:.60}, expected two lists of"
            " text, of one length"
        )
    if problems := schemes.problems(tags, "iob2"):
        raise DataError(f"{where}: token {problems[0][0] + 1}: {problems[0][1]}")
    at, places = 0, []
    for token in tokens:
        start = text.find(token, at)
        if start < 0:
            raise DataError(
                f"{where}: the token {token!r} is not in the rest of its text"
                f" {text[at : at + 40]!r}"
            )
        at = start + len(token)
        places.append((start, at))
    return [
        {"start": places[s][0], "end": places[e - 1][1], "label": name}
        for s, e, name in schemes.spans(tags, "iob2")
    ]


# --- annotations
# --------------------------------------------------------------------------------------------------
def collect(files: Iterable[tuple[str, Sequence[Row]]], schema: Schema) -> Work:
    """Collects everybody's work, from rows as the readers of annotation tools give them.

    Rows have `item`, `text`, the value's fields, and `annotator`, `skipped` and `seconds` where
    they are there. A row without `annotator` is the work of the annotator that its file is
    given with.

    Raises:
      DataError: an item without id, an annotator who answers twice, one item with two texts, or a
        value that `value_of` refuses.
    """
    annotations: dict[tuple[str, str], tuple[Annotation, str]] = {}
    unknown: dict[str, list[str]] = {}  # by label, where it stands
    texts: dict[str, tuple[str, str]] = {}
    seen: dict[str, None] = {}
    for owner, rows in files:
        for row in rows:
            item = _item(row)
            _same_text(texts, item, row)
            seen[item] = None
            untouched = (
                "annotator" in row.fields
                and row.fields["annotator"] is None
                and not row.fields.get("skipped")
            )
            if untouched and all(
                row.fields.get(key) is None for key in ("labels", "spans", "label")
            ):
                continue
            annotator = str(
                owner if row.fields.get("annotator") is None else row.fields["annotator"]
            )
            if foreign := [] if row.fields.get("skipped") else _foreign(row.fields, schema):
                for label in foreign:
                    unknown.setdefault(label, []).append(row.where)
                continue
            value = None if row.fields.get("skipped") else value_of(row.fields, schema, row.where)
            one = Annotation(item, annotator, value, _seconds(row))
            if (item, annotator) in annotations:
                before = annotations[item, annotator][1]
                raise DataError(
                    f"{row.where}: {annotator!r} annotated item {item!r} before ({before}); set"
                    " annotators=[...] where files are of others"
                )
            annotations[item, annotator] = (one, row.where)
    if unknown:
        raise _unknown_labels(unknown, schema)
    done = {item for item, _ in annotations}
    return Work(
        tuple(a for a, _ in annotations.values()),
        {i: t for i, (t, _) in texts.items()},
        tuple(i for i in seen if i not in done),
    )


def _item(row: Row) -> str:
    item = row.fields.get("item")
    if not isinstance(item, str | int) or isinstance(item, bool) or item == "":
        raise DataError(
            f"{row.where}: found no `item`, which `jaxsft annotate export` gives every"
            f" task; columns: {', '.join(row.fields)}"
        )
    return str(item)


def _unknown_labels(unknown: Mapping[str, Sequence[str]], schema: Schema) -> DataError:
    """Makes the error about labels that the schema lacks, by label the places where it stands."""
    (_, (first, *_)), *_ = unknown.items()
    often = lambda places: f" ({len(places):,})" if len(unknown) > 1 or len(places) > 1 else ""
    shown = ", ".join(
        f"{label!r}{often(places)}"
        for label, places in sorted(unknown.items(), key=lambda one: -len(one[1]))
    )
    one = "the label" if len(unknown) == 1 else f"{len(unknown):,} labels"
    return DataError(
        f"{first}: found {one} {shown}, which the schema does not have; it has"
        f" {', '.join(schema.names)}"
    )


def _foreign(fields: Mapping[str, Any], schema: Schema) -> list[str]:
    """Returns the labels of a row that the schema does not have.

    Of ratings and damaged values none, which `value_of` refuses.
    """
    if schema.type == "rating":
        return []
    given = (
        fields.get("spans", fields.get("labels"))
        if schema.type in ("span", "relation")
        else fields.get("labels", fields.get("label"))
    )
    given = given if isinstance(given, list | tuple) else [given]
    names = [part.get("label") if isinstance(part, dict) else part for part in given]
    return list(
        dict.fromkeys(name for name in names if isinstance(name, str) and name not in schema.names)
    )


def _same_text(texts: dict[str, tuple[str, str]], item: str, row: Row) -> None:
    text = row.fields.get("text")
    if isinstance(text, str) and texts.setdefault(item, (text, row.where))[0] != text:
        raise DataError(
            f"{row.where}: item {item!r} has another text than in {texts[item][1]}; spans and"
            " labels would not mean the same"
        )


def _seconds(row: Row) -> float | None:
    found = row.fields.get("seconds", row.fields.get("lead_time"))
    if found is None:
        return None
    if (
        isinstance(found, bool)
        or not isinstance(found, int | float)
        or not math.isfinite(found)
        or found < 0
    ):
        raise DataError(f"{row.where}: found {found!r} seconds, expected a number of at least 0")
    return float(found)
