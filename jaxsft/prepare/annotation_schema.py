"""Annotation schemas: what people are asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from jaxsft import documents
from jaxsft.errors import ConfigError

TYPES = ("class", "multi_label", "span", "relation", "rating", "pairwise")
KEYS = ("type", "labels", "relations", "scale", "guidelines", "text", "id", "responses")
POINTS = 101  # 0 to 100; every one is a class of its own for Dawid-Skene


@dataclasses.dataclass(frozen=True)
class Label:
    name: str
    description: str = ""


@dataclasses.dataclass(frozen=True)
class Schema:
    """One question about every item.

    `scale` is (lowest, highest) of a rating, both whole. `text`, `id` and `responses` name columns
    of the items; `id` None numbers them from 1; `text` of a pairwise schema is the prompt,
    `responses` are the two answers, and its labels are a, b and tie unless others are given.
    """

    type: str
    labels: tuple[Label, ...] = ()
    relations: tuple[Label, ...] = ()
    scale: tuple[int, int] | None = None
    guidelines: str = ""
    text: str = "text"
    id: str | None = "id"
    responses: tuple[str, str] = ("a", "b")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def categories(self) -> tuple[Any, ...]:
        """Returns the possible answers, in order; of a rating its numbers.

        For multi_label and span they are the labels.
        """
        return tuple(range(self.scale[0], self.scale[1] + 1)) if self.scale else self.names


def load(path: str | Path) -> Schema:
    """Loads the schema of a YAML file.

    Raises ConfigError, with the line, for whatever is not as `Schema` says.
    """
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    try:
        node, found = yaml.compose(content, Loader=documents.Loader), yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            f"{path}:{mark.line + 1 if mark else 1}: not YAML"
            f" ({getattr(error, 'problem', None) or error})"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(
            f"{path}:1: found {type(found).__name__}, expected keys such as type and labels"
        )
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        if key.value in lines:
            raise ConfigError(
                f"{path}:{key.start_mark.line + 1}: the key {key.value!r} was given before, on line"
                f" {lines[key.value]}"
            )
        lines[key.value] = key.start_mark.line + 1
    return _schema(found, lambda key: f"{path}:{lines.get(key, 1)}")


def _type(found: Mapping[str, Any], where: Any) -> str:
    """Returns the type of a schema. Raises ConfigError for a key that no schema or not this type
    has."""
    if unknown := [key for key in found if key not in KEYS]:
        raise ConfigError(
            f"{where(unknown[0])}: the key {unknown[0]!r} is unknown; expected one of"
            f" {', '.join(KEYS)}"
        )
    kind = found.get("type")
    if kind not in TYPES:
        raise ConfigError(
            f"{where('type')}: found type {kind!r}, expected one of {', '.join(TYPES)}"
        )
    fits = {
        "relations": ("relation",),
        "scale": ("rating",),
        "responses": ("pairwise",),
        "labels": tuple(t for t in TYPES if t != "rating"),
    }
    for key, types in fits.items():
        if key in found and kind not in types:
            raise ConfigError(
                f"{where(key)}: {key} does not fit type {kind}; it fits {', '.join(types)}"
            )
    return kind


def _schema(found: Mapping[str, Any], where: Any) -> Schema:
    kind = _type(found, where)
    labels = _labels(
        found.get("labels", ["a", "b", "tie"] if kind == "pairwise" else []),
        "labels",
        where("labels"),
    )
    relations = _labels(found.get("relations", []), "relations", where("relations"))
    least = {"class": 2, "pairwise": 2, "multi_label": 1, "span": 1, "relation": 1, "rating": 0}[
        kind
    ]
    if len(labels) < least:
        raise ConfigError(
            f"{where('labels')}: found {len(labels)} labels, type {kind} needs at least {least}"
        )
    if kind == "relation" and not relations:
        raise ConfigError(f"{where('relations')}: type relation needs at least one of them")
    texts = {
        key: found.get(key, default) for key, default in (("guidelines", ""), ("text", "text"))
    }
    for key, value in {
        **texts,
        **({"id": found["id"]} if found.get("id") is not None else {}),
    }.items():
        if not isinstance(value, str):
            raise ConfigError(f"{where(key)}: {key} is {value!r}, expected text")
    responses = found.get("responses", ["a", "b"])
    if (
        not isinstance(responses, list)
        or len(responses) != 2
        or not all(isinstance(r, str) for r in responses)
    ):
        raise ConfigError(
            f"{where('responses')}: responses is {responses!r}, expected the names of two columns"
        )
    scale = _scale(found.get("scale"), where("scale")) if kind == "rating" else None
    return Schema(
        kind,
        labels,
        relations,
        scale,
        texts["guidelines"],
        texts["text"],
        found.get("id", "id"),
        tuple(responses),
    )


def _labels(found: Any, key: str, where: str) -> tuple[Label, ...]:
    if not isinstance(found, list):
        raise ConfigError(
            f"{where}: {key} is {found!r}, expected a list of names, or of name and description"
        )
    out = []
    for entry in found:
        fields = entry if isinstance(entry, dict) else {"name": entry}
        name, description = fields.get("name"), fields.get("description", "")
        if (
            set(fields) - {"name", "description"}
            or not isinstance(name, str)
            or not name.strip()
            or not isinstance(description, str)
        ):
            raise ConfigError(
                f"{where}: found the entry {entry!r} in {key}, expected text (yes, no and numbers"
                " in quotes), or name and description"
            )
        out.append(Label(name, description))
    if repeated := [
        label.name
        for i, label in enumerate(out)
        if label.name in {before.name for before in out[:i]}
    ]:
        raise ConfigError(f"{where}: {repeated[0]!r} is in {key} twice")
    return tuple(out)


def _scale(found: Any, where: str) -> tuple[int, int]:
    whole = (
        isinstance(found, list)
        and len(found) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in found)
    )
    if not whole or not 0 < found[1] - found[0] < POINTS:
        raise ConfigError(
            f"{where}: scale is {found!r}, expected the lowest and the highest of at most {POINTS}"
            " whole ratings, such as [1, 5]"
        )
    return tuple(found)
