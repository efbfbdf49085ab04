"""Splits one file into training, validation and test rows by content.

It depends on no order and no seed of the machine, and equal rows never leak.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from jaxsft.config import rules
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError


def canonical(row: Row) -> str:
    """Returns the fields as JSON with sorted keys: equal for rows with equal content."""
    return json.dumps(row.fields, sort_keys=True, separators=(",", ":"))


def normalise(
    text: str, case: bool = True, space: bool = True, punctuation: re.Pattern[str] | None = None
) -> str:
    """Returns the text in NFC, without what should not count.

    That is case, the amount of white space, and what `punctuation` matches.
    """
    text = unicodedata.normalize("NFC", text)
    if case:
        text = unicodedata.normalize("NFC", text.casefold())
    if punctuation:
        text = punctuation.sub(" ", text)
    return " ".join(text.split()) if space else text


def text_key(given: Sequence[str]) -> str:
    """Joins what a model is given of a row (`records.Kind.given`) into the text by which rows are
    equal: for the split of a file, for the stages `dedup` and `split`, for the overlap that a check
    finds, and for the count of a run.
    """
    return "\n".join(map(normalise, given))


def keys(rows: Sequence[Row], alike: Sequence[str]) -> list[str]:
    """Returns per row what makes it equal to others for `split_rows`: the least content of all rows
    with its `text_key`, so that a file without such rows is split by the contents alone. `alike`:
    the `text_key` of each row.
    """
    least: dict[str, str] = {}
    for row, key in zip(rows, alike, strict=True):
        content = canonical(row)
        least[key] = min(content, least.get(key, content))
    return [least[key] for key in alike]


def split_rows(
    rows: Sequence[Row],
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    stratify: Callable[[Row], str] | None = None,
    key: Callable[[Row], str] | None = None,
) -> tuple[list[Row], list[Row], list[Row]]:
    """Splits rows into (train, validation, test), each in the order of the file.

    Within a stratum the distinct contents are sorted by the hash of content and seed and cut at the
    quantiles, so the parts do not depend on the order of the rows, and rows of equal content share
    a part. A stratum of at least three contents has one in each part of a positive fraction.

    Args:
      rows: of one file.
      fractions: of the distinct contents for each part; they sum to 1.
      seed: another one gives another split.
      stratify: the label of a row; each label is split by itself. Without it all rows are one
        stratum.
      key: what makes two rows equal (such as the text alone); by default all fields. Equal rows
        with several labels go with the smallest label.

    Raises:
      ConfigError: the fractions are not three numbers of at least 0 that sum to 1.
    """
    shares = [float(fraction) for fraction in fractions]
    for message in rules.fractions(shares):
        raise ConfigError(message)
    hashes = [_hash(key(row) if key else canonical(row), seed) for row in rows]
    label_of: dict[bytes, str] = {}
    for row, content in zip(rows, hashes, strict=True):
        label = stratify(row) if stratify else ""
        label_of[content] = min(label, label_of.get(content, label))
    strata: dict[str, list[bytes]] = defaultdict(list)
    for content, label in label_of.items():
        strata[label].append(content)
    part_of: dict[bytes, int] = {}
    for contents in strata.values():
        sizes = _sizes(len(contents), shares)
        parts = [part for part, size in enumerate(sizes) for _ in range(size)]
        part_of.update(zip(sorted(contents), parts, strict=True))
    split: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
    for row, content in zip(rows, hashes, strict=True):
        split[part_of[content]].append(row)
    return split


def split_file(
    rows: Sequence[Row], records: Sequence[Any], kind: Any, fractions: Sequence[float], seed: int
) -> tuple[list[tuple[list[Row], list[Any]]], int]:
    """Splits the rows of a file as training does: rows that say the same share a part, each label
    is spread evenly, and no part but the first has a label that the first one lacks.

    Args:
      records: of the rows. kind: what gives their `text_key`, `stratum` and `classes` (a task, or
        its `records.Kind`).

    Returns: for train, validation and test their rows and records, and how many rows went to train
    for a label that it would lack.
    """
    record_of = {id(row): record for row, record in zip(rows, records, strict=True)}
    alike = keys(rows, [kind.text_key(record) for record in records])
    key_of = {id(row): key for row, key in zip(rows, alike, strict=True)}
    stratify, key = lambda row: kind.stratum(record_of[id(row)]), lambda row: key_of[id(row)]
    parts, moved = split_rows(rows, fractions, seed, stratify, key), []
    if float(fractions[0]) > 0:
        order = {id(row): place for place, row in enumerate(rows)}
        parts, moved = with_every_label(
            parts, key, lambda row: kind.classes(record_of[id(row)]), order, seed
        )
    return [(part, [record_of[id(row)] for row in part]) for part in parts], len(moved)


def with_every_label(
    parts: Sequence[list[Row]],
    key: Callable[[Row], str],
    labels: Callable[[Row], Sequence[Hashable]],
    order: Mapping[int, int],
    seed: int = 0,
) -> tuple[tuple[list[Row], ...], list[Row]]:
    """Moves to the first part, training, the rows of the others that have a label which it lacks:
    it could never be learnt, and no score could tell of it. Of the rows of a label those of one
    content go, the first by hash, and what is equal to them by `key`.

    Args:
      parts: of `split_rows`. key: as there. labels: all labels of a row. order: by `id` of a row,
        its place in the file.

    Returns: the parts, and the rows that were moved.
    """
    known = {label for row in parts[0] for label in labels(row)}
    waiting: dict[str, list[Row]] = defaultdict(list)
    for row in (row for part in parts[1:] for row in part):
        waiting[key(row)].append(row)
    moved: set[int] = set()
    for content in sorted(waiting, key=lambda content: _hash(content, seed)):
        if new := {label for row in waiting[content] for label in labels(row)} - known:
            known |= new
            moved |= {id(row) for row in waiting[content]}
    if not moved:
        return tuple(parts), []
    gone = [row for part in parts[1:] for row in part if id(row) in moved]
    first = sorted([*parts[0], *gone], key=lambda row: order[id(row)])
    return (first, *([row for row in part if id(row) not in moved] for part in parts[1:])), gone


def _hash(content: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{content}".encode("utf-8", "backslashreplace")).digest()


def _sizes(count: int, shares: list[float]) -> list[int]:
    """Returns how many of `count` contents each part gets.

    Rounded quantiles, then one from the largest part for each empty part, while it has two.
    """
    first, second = round(count * shares[0]), round(count * (shares[0] + shares[1]))
    sizes = [first, second - first, count - second]
    for part, share in enumerate(shares):
        largest = max(range(3), key=sizes.__getitem__)
        if share > 0 and sizes[part] == 0 and count >= 3 and sizes[largest] > 1:
            sizes[part] += 1
            sizes[largest] -= 1
    return sizes
