"""One declaration of an option: its default and what it does, in the dataclass of its group."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any


def option(default: Any, doc: str) -> Any:
    """Returns a dataclass field with a default and the sentence that documents it.

    A class or a function makes the default anew for each object; a list or a mapping is copied.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Sampling:
    ...     top_p: float = option(1.0, "draw from the likeliest tokens of this joint probability")
    ...     stop: list[str] = option([], "texts that end an answer")
    >>> Sampling().stop, docs(Sampling)["top_p"]
    ([], 'draw from the likeliest tokens of this joint probability')
    """
    if isinstance(default, dataclasses.Field):  # it would be the value itself, and true
        raise TypeError(f"the default of an option is a value, found a field: {doc}")
    metadata = {"doc": doc}
    if isinstance(default, list | dict):
        original = default
        return dataclasses.field(default_factory=lambda: copy.deepcopy(original), metadata=metadata)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def docs(cls: type) -> dict[str, str]:
    """Returns what each documented field of a dataclass does, inherited fields included."""
    return {f.name: f.metadata["doc"] for f in dataclasses.fields(cls) if "doc" in f.metadata}
