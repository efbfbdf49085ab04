"""Exports of Label Studio: JSON, with every annotator's results, and JSON-MIN.

One annotator's work on one task is a row.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

from jaxsft.config.option import option
from jaxsft.data.formats import jsonl
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.data.formats.spans import Problem, located, relation
from jaxsft.errors import ConfigError, DataError

TAKE = ("annotations", "predictions", "both")
OURS = ("id", "text", "spans", "relations", "labels", "annotator", "skipped", "seconds")
# what JSON-MIN adds to a task
MINIMAL = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")


@dataclasses.dataclass(frozen=True, slots=True)
class LabelStudioOptions:
    take: str = option(
        "annotations",
        "annotations (of people; `completions` in old exports) | predictions (of models) | both",
    )
    text: str = option("text", "the field of the task's data that was annotated")

    def __post_init__(self) -> None:
        if self.take not in TAKE:
            raise ConfigError(
                f"data.options.take={self.take!r} is unknown; expected one of {', '.join(TAKE)}"
            )


def read(source: Source, encoding: str, options: LabelStudioOptions) -> Numbered:
    """Reads one row per task and annotator, with its spans, relations and labels.

    `{"id", "text", "spans", "relations", "labels", "annotator", "skipped"}`, `seconds` (the
    lead time) where the tool has measured it, the other data of the task, and a column per
    control that is no span.

    `labels` are all that was chosen (choices, taxonomies as `A/B`); a control's own column has its
    choices, rating, number or texts. A task that nobody has annotated is a row with annotator,
    spans, relations and labels None; so is one that was skipped, with its annotator. A result that
    is broken, or of another kind (regions of an image), makes its row `Bad`.
    """
    for found in jsonl.read_document(source, encoding, jsonl.DocumentOptions()):
        if isinstance(found, Bad):
            yield found
            continue
        line, task = found
        try:
            rows = list(
                _of_task(task, options)
                if isinstance(task.get("data"), dict)
                else _of_minimal(task, options)
            )
        except Problem as problem:
            yield Bad(line, str(problem))
            continue
        yield from (
            Bad(line, str(row)) if isinstance(row, Problem) else (line, row) for row in rows
        )


def _of_task(
    task: dict[str, Any], options: LabelStudioOptions
) -> Iterator[dict[str, Any] | Problem]:
    data = task["data"]
    base = {
        "id": task.get("id"),
        "text": _text(data, options.text),
        **{key: value for key, value in data.items() if key != options.text},
    }
    if taken := next((key for key in OURS[2:] if key in data), None):
        raise Problem(
            f"the task's data has a field {taken!r}, which is a column of its own here; rename it"
        )
    works = []
    if options.take != "predictions":
        works += [
            (_annotator(work), work)
            for work in _objects(task, "annotations") or _objects(task, "completions")
        ]
    if options.take != "annotations":
        works += [
            (f"model {work.get('model_version') or ''}".strip(), work)
            for work in _objects(task, "predictions")
        ]
    none = {"spans": None, "relations": None, "labels": None}
    if not works:
        yield {**base, **none, "annotator": None, "skipped": False}
    for annotator, work in works:
        if work.get("was_cancelled") or work.get("skipped"):
            yield {**base, **none, "annotator": annotator, "skipped": True, **_seconds(work)}
            continue
        try:
            yield {
                **base,
                **_results(_objects(work, "result"), base),
                "annotator": annotator,
                "skipped": False,
                **_seconds(work),
            }
        except Problem as problem:
            yield problem


def _objects(parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = parent.get(key) or []
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise Problem(f"found {str(found)[:60]} in {key!r}, expected a list of objects")
    return found


def _text(data: dict[str, Any], field: str) -> str:
    if not isinstance(data.get(field), str):
        raise Problem(
            f"found no text in the field {field!r} of the task's data, which has"
            f" {', '.join(data) or 'nothing'}; set data.options.text=<field>"
        )
    return data[field]


def _annotator(work: dict[str, Any]) -> Any:
    """Returns the name or number of the annotator; a complete export has a whole user there."""
    by = work.get("completed_by", work.get("created_username"))
    if isinstance(by, dict):
        by = by.get("email") or by.get("username") or by.get("id")
    return by.strip() if isinstance(by, str) else by


def _seconds(work: dict[str, Any]) -> dict[str, float]:
    found = work.get("lead_time")
    return (
        {"seconds": found} if isinstance(found, int | float) and not isinstance(found, bool) else {}
    )


def _results(results: list[dict[str, Any]], base: dict[str, Any]) -> dict[str, Any]:
    spans: list[dict[str, Any]] = []
    relations, labels, columns, index = [], [], {}, {}
    for result in results:
        kind, value, name = (
            result.get("type"),
            result.get("value", {}),
            str(result.get("from_name", "label")),
        )
        if not isinstance(value, dict):
            raise Problem(
                f"found the result {str(result)[:80]}, expected an object with type and value"
            )
        if kind == "relation":
            continue
        if kind == "labels":
            index.setdefault(str(result.get("id")), len(spans))
            spans += _spans(base["text"], value)
            continue
        found = _value(kind, value)
        labels += found if kind in ("choices", "taxonomy") else []
        if name == "labels" and kind in ("choices", "taxonomy"):
            continue
        if name in base or name in OURS:
            raise Problem(
                f"the control {name!r} has the name of another column; rename it in the labelling"
                " setup, or in the export"
            )
        columns[name] = columns[name] + found if isinstance(columns.get(name), list) else found
    for result in results:
        if result.get("type") == "relation":
            ends = (result.get("from_id"), result.get("to_id"))
            ends = ends[::-1] if result.get("direction") == "left" else ends
            named = result.get("labels") if isinstance(result.get("labels"), list) else []
            relations += [
                relation(*map(str, ends), label, index, "a relation") for label in named or [None]
            ]
    return {"spans": spans, "relations": relations, "labels": labels, **columns}


def _spans(text: str, value: dict[str, Any]) -> list[dict[str, Any]]:
    names = value.get("labels")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise Problem(f"the span from {value.get('start')} to {value.get('end')} has no labels")
    start, end = located(
        text, value.get("start"), value.get("end"), value.get("text"), f"the span {names[0]!r}"
    )
    return [{"start": start, "end": end, "label": name} for name in names]


def _value(kind: Any, value: dict[str, Any]) -> Any:
    if kind == "choices" and isinstance(value.get("choices"), list):
        return value["choices"]
    if kind == "taxonomy" and isinstance(value.get("taxonomy"), list):
        return ["/".join(map(str, path)) for path in value["taxonomy"]]
    if kind == "textarea" and isinstance(value.get("text"), list | str):
        return value["text"] if isinstance(value["text"], list) else [value["text"]]
    if kind in ("rating", "number") and isinstance(value.get(kind), int | float):
        return value[kind]
    if kind == "pairwise" and isinstance(value.get("selected"), str):
        return value["selected"]
    if kind == "datetime" and isinstance(value.get("datetime"), str):
        return value["datetime"]
    raise Problem(
        f"a result of the type {kind!r} is no annotation of a text; expected labels, choices,"
        " taxonomy, textarea, rating, number or relation"
    )


def _of_minimal(task: dict[str, Any], options: LabelStudioOptions) -> Iterator[dict[str, Any]]:
    """Yields the row of a JSON-MIN task, whose results stand beside its data.

    Lists of spans become `spans`; `{"choices": [...]}` a list; the rest stays as it is.
    """
    text, spans, columns = _text(task, options.text), [], {}
    for key, value in task.items():
        if (
            isinstance(value, list)
            and value
            and all(
                isinstance(part, dict) and "labels" in part and "start" in part for part in value
            )
        ):
            spans += [span for part in value for span in _spans(text, part)]
        elif key not in (options.text, *MINIMAL):
            columns[key] = (
                value["choices"] if isinstance(value, dict) and set(value) == {"choices"} else value
            )
    yield {
        "id": task.get("id"),
        "text": text,
        **columns,
        "spans": spans,
        "annotator": task.get("annotator"),
    }


# --- write
# --------------------------------------------------------------------------------------------------
def write(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes rows as a JSON export that reads as the same rows.

    Those of one id, or without ids each row, are the annotations of one task. Spans are of the
    control `label`, `labels` of the control `labels`; other columns are data of the task.

    Raises:
      DataError: a row without text; a span that leaves it; rows of one id with different data.
    """
    tasks: dict[Any, dict[str, Any]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("text"), str):
            raise DataError(f"{name}: row {number} has no text; write .jsonl instead")
        id = row["id"] if row.get("id") is not None else f"row {number}"
        data = {
            "text": row["text"],
            **{key: value for key, value in row.items() if key not in OURS},
        }
        task = tasks.setdefault(
            id,
            {**({"id": id} if row.get("id") is not None else {}), "data": data, "annotations": []},
        )
        if task["data"] != data:
            raise DataError(
                f"{name}: row {number}: the data of {id!r} differ from those of the row before;"
                " give each text its own id"
            )
        known = any(
            row.get(key) is not None for key in ("spans", "relations", "labels", "annotator")
        ) or row.get("skipped")
        if known:
            about = {
                "completed_by": row.get("annotator"),
                "was_cancelled": bool(row.get("skipped")),
            }
            about |= {"lead_time": row["seconds"]} if row.get("seconds") is not None else {}
            task["annotations"].append({**about, "result": _spelled(row, f"{name}: row {number}")})
    jsonl.write_list(tasks.values(), file, name)


def _spelled(row: dict[str, Any], where: str) -> list[dict[str, Any]]:
    out = []
    for i, span in enumerate(row.get("spans") or []):
        start, end = span["start"], span["end"]
        if not 0 <= start < end <= len(row["text"]):
            raise DataError(
                f"{where}: the span {json.dumps(span)} leaves its text of {len(row['text'])}"
                " characters"
            )
        value = {
            "start": start,
            "end": end,
            "text": row["text"][start:end],
            "labels": [span["label"]],
        }
        out.append(
            {
                "id": f"s{i}",
                "from_name": "label",
                "to_name": "text",
                "type": "labels",
                "value": value,
            }
        )
    if row.get("labels"):
        out.append(
            {
                "from_name": "labels",
                "to_name": "text",
                "type": "choices",
                "value": {"choices": row["labels"]},
            }
        )
    for link in row.get("relations") or []:
        ends = {"from_id": f"s{link['head']}", "to_id": f"s{link['tail']}"}
        out.append(
            {
                "type": "relation",
                **ends,
                "direction": "right",
                "labels": [] if link["label"] is None else [link["label"]],
            }
        )
    return out


_result = re.compile(rb'"(annotations|completions|predictions)"\s*:\s*\[')


def _looks_like(head: bytes) -> bool:
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return False
    full = (
        _result.search(head) is not None
        and re.search(rb'"data"\s*:\s*\{', head) is not None
        and (b'"result"' in head or b'"completed_by"' in head)
    )
    return full or all(
        f'"{key}"'.encode() in head for key in ("annotator", "annotation_id", "lead_time")
    )


FORMAT = Format(
    "labelstudio",
    (),
    read,
    "one annotator's `spans`, `relations` and `labels` on one `text`, with `annotator`",
    LabelStudioOptions,
    _looks_like,
    write,
    order=150,
)
