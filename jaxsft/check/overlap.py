"""Duplicates within a split and across splits, where a score would measure memorised rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from jaxsft.check.findings import Findings, rows
from jaxsft.check.load import CheckedSplit
from jaxsft.data.records import Kind
from jaxsft.prepare.neighbours import Neighbours, banding, recall


def find_overlap(
    parts: Mapping[str, CheckedSplit], kind: Kind, near: float, findings: Findings
) -> dict[str, dict[str, Any]]:
    """Finds duplicates and leaks of each split, in what the model is given.

    Texts are compared after normalisation (NFC, case, white space).

    Args:
      near: the Jaccard similarity of shingles from which two texts are near duplicates; 0: they are
        not looked for.
    """
    keys = {name: list(map(kind.text_key, part.records)) for name, part in parts.items()}
    out: dict[str, dict[str, Any]] = {name: {} for name in parts}
    for name, part in parts.items():
        first: dict[str, str] = {}
        # by text, what an answer goes with it; none where texts have no answer
        said: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        again, answers = [], 0
        for key, where, record in zip(keys[name], part.where, part.records, strict=True):
            answer = tuple(kind.texts(record)[len(kind.given(record)) :])
            if first.setdefault(key, where) != where:
                again.append(where)
                answers += answer not in said[key]
            said[key].add(answer)
        out[name]["repeated"] = len(again)
        if again:
            of = f"; {answers:,} of them have another answer to it" if answers else ""
            message = f"{rows(len(again), name, len(part.where))}: the text of an earlier one{of}."
            repair = (
                "the stage dedup with conflict=keep keeps the first answer"
                if answers
                else "the stage dedup"
            )
            findings.add(
                "duplicates",
                "info" if answers == len(again) else "warning",
                message,
                again,
                split=name,
                repair=repair,
            )
    leaked = _exact(parts, keys, findings, out)
    if near:
        _near(parts, keys, near, leaked, findings, out)
    return out


def _exact(
    parts: Mapping[str, CheckedSplit],
    keys: Mapping[str, list[str]],
    findings: Findings,
    out: dict[str, dict[str, Any]],
) -> dict[str, set[int]]:
    """Returns the rows of each split, by number, whose text an earlier split has."""
    leaked: dict[str, set[int]] = defaultdict(set)
    names = list(parts)
    for i, name in enumerate(names):
        for other in names[:i]:
            # the first place of each text
            there = dict(zip(reversed(keys[other]), reversed(parts[other].where), strict=True))
            same = [n for n, key in enumerate(keys[name]) if key in there]
            out[name][f"in_{other}"] = len(same)
            leaked[name].update(same)
            if same:
                pairs = [f"{parts[name].where[n]} = {there[keys[name][n]]}" for n in same]
                message = f"{rows(len(same), name, len(keys[name]))}: the text of a row of {other}."
                findings.add(
                    "leak_exact",
                    "error",
                    message,
                    pairs,
                    split=name,
                    repair=f"the stage dedup, or check.accept=[leak_exact] ({_so(other)})",
                )
    return leaked


def _so(other: str) -> str:
    return (
        "the score of such rows is of what was learnt by heart"
        if other == "train"
        else "what chose the checkpoint scores it"
    )


def _near(
    parts: Mapping[str, CheckedSplit],
    keys: Mapping[str, list[str]],
    near: float,
    leaked: Mapping[str, set[int]],
    findings: Findings,
    out: dict[str, dict[str, Any]],
) -> None:
    number = {
        key: i
        for i, key in enumerate(dict.fromkeys(key for those in keys.values() for key in those))
    }
    groups, _ = Neighbours(threshold=near).groups(list(number))
    # by group: (split, where) of the first row of an earlier split
    seen: dict[int, tuple[str, str]] = {}
    chance = recall(near, *banding(near, 128))
    for name, part in parts.items():
        group_of = [int(groups[number[key]]) for key in keys[name]]
        alike: dict[str, list[str]] = defaultdict(list)
        for n, (group, where) in enumerate(zip(group_of, part.where, strict=True)):
            if group in seen and n not in leaked.get(name, ()):
                other, place = seen[group]
                alike[other].append(f"{where} ~ {place}")
        for other, pairs in alike.items():
            out[name][f"near_{other}"] = len(pairs)
            message = (
                f"{rows(len(pairs), name, len(keys[name]))}: nearly the text of a row of {other} "
                f"(Jaccard similarity from {near:g}, {chance:.1%} of such pairs are seen)."
            )
            findings.add(
                "leak_near", "warning", message, pairs, split=name, repair="the stage dedup"
            )
        for group, where in zip(group_of, part.where, strict=True):
            seen.setdefault(group, (name, where))
