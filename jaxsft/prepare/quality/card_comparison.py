"""The comparison of two cards: what became better, and what worse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxsft import rundir
from jaxsft.errors import DataError

NOISE = 1e-5  # relative; cards keep six digits


def read(path: str) -> dict[str, Any]:
    """Reads a card.json.

    Raises DataError where the file is none, JaxsftError where it cannot be read.
    """
    found = rundir.read_json(path)
    if (
        not isinstance(found, dict)
        or not str(found.get("card", "")).startswith("jaxsft quality card")
        or not isinstance(found.get("numbers"), dict)
    ):
        raise DataError(
            f"{path}: not a quality card (expected the card.json that `jaxsft quality` writes)"
        )
    return found


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a line for every number of either card.

    It has family, part, measure, before, after, difference, and verdict.

    A part is a split, a pair of splits or a benchmark. Where both cards have one split only, those
    are compared whatever their names are. The verdict is better, worse, same, changed (neither
    direction is better, or one is no number), added or removed.
    """
    out = []
    definitions = {**before.get("definitions", {}), **after.get("definitions", {})}
    for family in dict.fromkeys([*before["numbers"], *after["numbers"]]):
        old, new = before["numbers"].get(family, {}), after["numbers"].get(family, {})
        if len(old) == len(new) == 1 and set(old) != set(new):
            name = f"{next(iter(old))} → {next(iter(new))}"
            old, new = {name: next(iter(old.values()))}, {name: next(iter(new.values()))}
        for part in dict.fromkeys([*old, *new]):
            a, b = old.get(part, {}), new.get(part, {})
            for measure in dict.fromkeys([*a, *b]):
                out.append(
                    {
                        "family": family,
                        "part": part,
                        "measure": measure,
                        **_line(a, b, measure, definitions.get(measure, {}).get("better", "")),
                    }
                )
    return out


def _line(a: Mapping[str, Any], b: Mapping[str, Any], measure: str, better: str) -> dict[str, Any]:
    old, new = a.get(measure), b.get(measure)
    line = {"before": old, "after": new, "better": better, "difference": None}
    if measure not in a or measure not in b:
        return line | {"verdict": "added" if measure not in a else "removed"}
    numeric = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (old, new))
    if numeric:
        line["difference"] = float(f"{new - old:.6g}")
    if old == new or (numeric and abs(new - old) <= NOISE * max(abs(old), abs(new))):
        return line | {"verdict": "same"}
    if not numeric or not better:
        return line | {"verdict": "changed"}
    return line | {"verdict": "better" if (new > old) == (better == "higher") else "worse"}
