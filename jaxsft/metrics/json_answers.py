"""Answers that have to be JSON: whether they are, are equal to a reference, and follow a schema.

The whole answer is read, without a fence of Markdown around it: what a program could not read is
not valid. The schema is the text `schema` of the row, so that each may have one of its own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from jaxsft import documents, extras
from jaxsft.errors import DataError
from jaxsft.metrics.base import Metric, Outputs, ratio
from jaxsft.metrics.text_overlap import of_texts, references_of

_ASKED = "the metric json_schema"


def canonical(value: Any) -> Hashable:
    """Returns what is equal for equal values of JSON: the order of keys does not matter, 1 is 1.0,
    and neither is true.
    """
    if isinstance(value, Mapping):
        return "object", frozenset((key, canonical(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return "list", tuple(canonical(part) for part in value)
    if isinstance(value, bool) or value is None:
        return "literal", value
    return "text" if isinstance(value, str) else "number", value


def read(text: str) -> tuple[bool, Any]:
    """Returns whether a text is JSON (RFC 8259, each key once), and its value."""
    try:
        return True, documents.decode(text)
    except ValueError:
        return False, None


def observe_valid(outputs: Outputs) -> np.ndarray:
    """Returns whether each answer is JSON, `[rows, 1]`."""
    return np.array([[read(answer)[0]] for answer in outputs["answer"]], float).reshape(-1, 1)


def observe_match(outputs: Outputs) -> dict[str, np.ndarray]:
    """Returns whether a reference of each row is JSON, and whether its answer is equal to one."""
    rows = []
    for answer, references in zip(outputs["answer"], references_of(outputs), strict=True):
        known = {canonical(value) for valid, value in map(read, references) if valid}
        valid, value = read(answer)
        rows.append((bool(known), valid and canonical(value) in known))
    there, equal = np.array(rows, np.float64).reshape(-1, 2).T
    return {"rows": there, "equal": equal}


def value_match(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the share of equal answers, of the rows that have a reference in JSON."""
    return {"json_match": ratio(state["equal"], state["rows"]), "json_rows": state["rows"]}


def observe_schema(outputs: Outputs) -> np.ndarray:
    """Returns whether each answer is JSON that follows its schema, `[rows, 1]`.

    Raises:
      DataError: a schema is none, or refers to something outside of it.
    """
    rows = []
    for row, answer, schema in zip(outputs.rows, outputs["answer"], outputs["schema"], strict=True):
        try:
            follows = _validator(schema if isinstance(schema, str) else json.dumps(schema))
            valid, value = read(answer)
            rows.append(valid and follows(value))
        except DataError as error:
            raise DataError(f"row {row}: {error}") from None
    return np.array(rows, float).reshape(-1, 1)


@functools.lru_cache(maxsize=1024)
def _validator(schema: str) -> Callable[[Any], bool]:
    """Returns whether a value follows a schema. Nothing is loaded that it refers to."""
    validators = extras.need("jsonschema", _ASKED, extra="text").validators
    referencing = extras.need("referencing", _ASKED, extra="text")
    valid, value = read(schema)
    if not valid or not isinstance(value, dict | bool):
        raise DataError("its schema is no JSON Schema (expected an object in JSON)")
    of = validators.validator_for(value, default=validators.Draft202012Validator)
    try:
        of.check_schema(value)
    except extras.need("jsonschema", _ASKED, extra="text").SchemaError as error:
        raise DataError(f"its schema is no JSON Schema ({error.message[:200]})") from None
    validator = of(value, registry=referencing.Registry())

    def follows(answer: Any) -> bool:
        try:
            return validator.is_valid(answer)
        except referencing.exceptions.Unresolvable as error:
            raise DataError(f"its schema refers to {error.ref!r}, which is not in it") from None

    return follows


METRICS = {
    "json_valid": of_texts(("json_valid",), observe_valid, needs=("answer",)),
    "json_match": Metric(
        ("json_match", "json_rows"),
        ("answer", "references"),
        observe_match,
        value_match,
        counts=("json_rows",),
    ),
    "json_schema": of_texts(("json_schema",), observe_schema, needs=("answer", "schema")),
}
