"""The order of labels: which output of a head is which."""

from __future__ import annotations

import re
from collections.abc import Iterable


def in_order(labels: Iterable[str]) -> list[str]:
    """Sorts labels as numbers where all are whole numbers (label i is output i), else as text."""
    found = sorted(labels)
    return (
        sorted(found, key=int)
        if all(re.fullmatch(r"[+-]?[0-9]{1,18}", label) for label in found)
        else found
    )
