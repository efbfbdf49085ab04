"""The findings of a check, each with the rows that it is about and with its repair."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

SEVERITIES = ("error", "warning", "info")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
      id: a word for it, which `check.accept` takes.
      severity: error (training would refuse it, or a result would be spoilt), warning (rows to look
        at), info (a number worth knowing).
      message: one sentence.
      split: the split that it is about; None: several, or none.
      count: of rows (or classes) that it is about.
      rows: `file:line` of the first of them.
      repair: the override or the preparation stage that mends it.
      accepted: it would be an error, and `check.accept` names it.
    """

    id: str
    severity: str
    message: str
    split: str | None = None
    count: int = 0
    rows: tuple[str, ...] = ()
    repair: str = ""
    accepted: bool = False


class Findings:
    """The findings of a check, in the order in which they are added."""

    def __init__(self, places: int, accept: Sequence[str] = ()):
        self.places, self.accept, self.found = places, frozenset(accept), []

    def add(
        self,
        id: str,
        severity: str,
        message: str,
        where: Sequence[str] = (),
        *,
        split: str | None = None,
        count: int | None = None,
        repair: str = "",
    ):
        """Adds a finding. `where` holds `file:line` of all its rows; only the first are kept."""
        accepted = severity == "error" and id in self.accept
        number = len(where) if count is None else count
        shown = tuple(where[: self.places])
        self.found.append(
            Finding(
                id,
                "info" if accepted else severity,
                message,
                split,
                number,
                shown,
                repair,
                accepted,
            )
        )

    def sorted(self) -> list[Finding]:
        """Returns the findings, errors first."""
        return sorted(self.found, key=lambda finding: SEVERITIES.index(finding.severity))


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The result of a check: findings, numbers by split, and rows token by token."""

    task: str
    findings: list[Finding]
    numbers: dict[str, Any]
    samples: list[dict[str, Any]]

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of `check.json`."""
        counts = {
            severity: sum(f.severity == severity for f in self.findings) for severity in SEVERITIES
        }
        found = [
            dataclasses.asdict(finding) | {"rows": list(finding.rows)} for finding in self.findings
        ]
        return {
            "task": self.task,
            "counts": counts,
            "findings": found,
            "splits": self.numbers,
            "samples": self.samples,
        }


def rows(count: int, split: str, whole: int | None = None) -> str:
    """Formats a count of rows: `1 row of train`, `7 rows of train (0.2 %)`."""
    return f"{count:,} {'row' if count == 1 else 'rows'} of {split}" + (
        f" ({percent(count, whole)})" if whole else ""
    )


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.3g} %" if whole else "0 %"


def some(names: Sequence[str], most: int = 5) -> str:
    """Formats the first `most` names, quoted, and how many more there are."""
    return ", ".join(map(repr, names[:most])) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )
