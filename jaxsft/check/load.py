"""Loads the splits for a check: every row is read, and bad rows are collected, not fatal."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from jaxsft.check.findings import Findings, some
from jaxsft.check.findings import rows as rows_of
from jaxsft.config.schema import Config
from jaxsft.data import file_records, one_file, unseen_labels, verdicts
from jaxsft.data.file_records import Parsed, Records
from jaxsft.data.formats import Row
from jaxsft.data.ledger import Aside
from jaxsft.data.records import Doubtful, Kind, Seq2Seq, group_references
from jaxsft.errors import DataError
from jaxsft.training.components import left_out

SPLITS = ("train", "validation", "test")
READ = 64  # rows that are looked at for columns that nothing reads


@dataclasses.dataclass(frozen=True)
class CheckedSplit:
    """One split: its records, where each stands, and the bad rows.

    `read` counts all rows.
    """

    name: str
    records: list[Any]
    where: list[str]
    aside: Sequence[Aside]
    read: int


def load(config: Config, findings: Findings) -> dict[str, CheckedSplit]:
    """Reads the splits by name; one that cannot be read at all is an error among the findings."""
    reading = dataclasses.replace(
        config, data=dataclasses.replace(config.data, on_bad_row="quarantine")
    )
    kind, d = config.task.spec.records, config.data
    found = _of_one_file(reading, kind, findings) if d.path else _of_files(reading, kind, findings)
    for note in left_out(config) if found else ():
        findings.add("left_out", "info", f"{note}.")
    if d.unseen_labels == "drop" and "train" in found:
        known = {label for record in found["train"].records for label in kind.classes(record)}
        found = {
            name: split if name == "train" else unseen_labels.seen(split, kind, known)
            for name, split in found.items()
        }
    parts = {name: _part(name, split) for name, split in found.items()}
    for part in parts.values():
        _bad_rows(config, part, findings)
    if d.columns.group_references:
        parts = {name: _grouped(part, findings) for name, part in parts.items()}
    return parts


def _of_files(config: Config, kind: Kind, findings: Findings) -> dict[str, Records]:
    """Reads the file of each split; those of a mixture are joined to its training rows."""
    files = [
        *(("train", one.path) for one in config.data.mixture.sources),
        *((name, path) for name in SPLITS if (path := getattr(config.data, name))),
    ]
    found: dict[str, Records] = {}
    for name, path in files:
        aside: list[Aside] = []
        if (parsed := _read(config, name, path, kind, name == "train", aside, findings)) is None:
            continue
        records, where, before, *_ = found.get(name, Records([], []))
        where = [*where, *(row.where for row in parsed.rows)]
        found[name] = Records([*records, *parsed.records], where, [*before, *aside])
    return found


def _of_one_file(config: Config, kind: Kind, findings: Findings) -> dict[str, Records]:
    """Reads one file and splits it as training would."""
    aside: list[Aside] = []
    parsed = _read(config, "train", config.data.path, kind, False, aside, findings)
    if parsed is None:
        return {}
    found, moved = one_file.split_file(config, parsed, kind, aside)
    if moved:
        message = (
            f"{rows_of(moved, 'the file')}: in train, which would lack a label of"
            f" {'it' if moved == 1 else 'them'} by the split alone."
        )
        findings.add("moved_to_train", "info", message, split="train", count=moved)
    return {"train": Records([], [], aside)} | found


def _read(
    config: Config,
    name: str,
    path: str,
    kind: Kind,
    weighted: bool,
    aside: list[Aside],
    findings: Findings,
) -> Parsed | None:
    """Reads the rows of a file; None where it cannot be read, which is told."""
    split = "" if config.data.path else name
    try:
        rows = file_records.usable_rows(config, path, kind, aside, split, training=name == "train")
        parsed = file_records.parse(config, rows, kind, aside, training=weighted)
    except Doubtful as error:
        findings.add(error.finding, "error", f"{error}.", split=name, repair=error.repair)
        return None
    except DataError as error:
        message, repair = (
            f"{name} cannot be read: {error}.",
            "data.format, data.encoding, or mend the file",
        )
        findings.add("unreadable", "error", message, split=name, repair=repair)
        return None
    _unread(rows, parsed.record, name, config, findings)
    return parsed


class _Read(dict[str, Any]):
    """The fields of a row; it notes which of them are read."""

    def __init__(self, fields: dict[str, Any], read: set[str]):
        super().__init__(fields)
        self.read = read

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)


def _unread(
    rows: Sequence[Row],
    record: Callable[[Row], Any] | None,
    split: str,
    config: Config,
    findings: Findings,
) -> None:
    """Adds a finding for columns that the record builder never reads in a sample of rows."""
    read = {*verdicts.of_split(config.data.keep, split), verdicts.ANSWER, *verdicts.SKIPPED}
    for i in range(min(len(rows), READ)):
        row = rows[i * len(rows) // min(len(rows), READ)]
        with contextlib.suppress(DataError):
            record(dataclasses.replace(row, fields=_Read(row.fields, read)))
    there = dict.fromkeys(name for row in rows for name in row.fields)
    if idle := [name for name in there if name not in read]:
        findings.add(
            "unread_columns",
            "info",
            f"Nothing reads the columns {some(idle, 12)} of {split}.",
            split=split,
            count=len(idle),
        )


def _part(name: str, split: Records) -> CheckedSplit:
    read = len(split.where) + len(split.aside)
    return CheckedSplit(name, split.records, split.where, split.aside, read)


KINDS_TOLD = 5  # kinds of bad rows that are told one by one


def _bad_rows(config: Config, part: CheckedSplit, findings: Findings) -> None:
    """Adds a finding for each reason of bad rows, with its count, and for each kind of damage."""
    messages = {
        "unreadable": "unreadable",
        "no_record": f"no record of task={config.task.name}",
        "no_label": f"the mark {config.data.columns.no_label!r}, no label; dropped",
        "rejected": "rejected by who annotated them; dropped",
        "ignored": "ignored by who annotated them; dropped",
        "skipped": "skipped by who annotated them; dropped",
        "not_answered": "without the verdict that the others have; dropped",
        "unseen_label": "a label that train lacks; dropped by data.unseen_labels=drop",
    }
    aside = config.data.on_bad_row == "quarantine"
    for reason in dict.fromkeys(a.reason for a in part.aside):
        those = [a for a in part.aside if a.reason == reason]
        declared = reason == "no_label" or those[0].declared
        what = messages.get(reason, f"left out by data.{reason}")
        repair = (
            ""
            if declared or aside or not part.records
            else "mend them, or data.on_bad_row=quarantine"
        )
        message = (
            f"{rows_of(len(those), part.name, part.read)}:"
            f" {what}{_by_label(config, part, those)}{'' if declared else _kinds(those)}."
        )
        severity, where = (
            "info" if declared else "warning" if aside else "error",
            [a.where for a in those],
        )
        findings.add(reason, severity, message, where, split=part.name, repair=repair)
    if not part.records:
        findings.add(
            "nothing_left",
            "error",
            f"No row of {part.name} gives a record.",
            split=part.name,
            count=part.read,
            repair="data.columns, or task",
        )


def _kinds(those: Sequence[Aside]) -> str:
    """Describes why rows are bad: one kind by its first message, several by one line each.

    A line has the count and the first place.
    """
    kinds = _by_kind(those)
    why = [kind[0].message.removeprefix(kind[0].where + ": ") for kind in kinds]
    if len(kinds) == 1:
        return f"; {'the first: ' if len(those) > 1 else ''}{why[0]}"
    return "".join(
        f"\n{len(kind):,} at {kind[0].where}{' and others' * (len(kind) > 1)}: {reason}"
        for kind, reason in zip(kinds, why, strict=True)
    )


def _by_kind(those: Sequence[Aside]) -> list[list[Aside]]:
    """Groups bad rows whose messages differ only in numbers and quoted text, most frequent first.

    Of many groups, the rarest are put together.
    """
    kinds: dict[str, list[Aside]] = {}
    for one in those:
        message = one.message.removeprefix(one.where + ": ")
        kinds.setdefault(
            re.sub(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"|[0-9.,]+(?: [0-9]+)*|0x[0-9a-f]+", "#", message),
            [],
        ).append(one)
    found = sorted(kinds.values(), key=len, reverse=True)
    return (
        found
        if len(found) <= KINDS_TOLD
        else [*found[: KINDS_TOLD - 1], [one for kind in found[KINDS_TOLD - 1 :] for one in kind]]
    )


def _by_label(config: Config, part: CheckedSplit, alike: Sequence[Aside]) -> str:
    """Describes the labels of bad rows, so that a class that loses many rows is seen."""
    kind, name = config.task.spec.records, config.data.columns.label or "label"
    lost = Counter(
        str(a.fields[name])
        for a in alike
        if isinstance(a.fields.get(name), str | int) and "\ufffd" not in str(a.fields[name])
    )
    kept = Counter(label for record in part.records for label in kind.labels(record))
    if not (known := {label: count for label, count in lost.most_common() if label in kept}):
        return ""
    some = [
        f"{label} {count:,} of {count + kept[label]:,}" for label, count in list(known.items())[:5]
    ]
    return (
        "; by label:"
        f" {', '.join(some)}{f' and {len(known) - 5:,} labels more' if len(known) > 5 else ''}"
    )


def _grouped(part: CheckedSplit, findings: Findings) -> CheckedSplit:
    if not part.records or not isinstance(part.records[0], Seq2Seq):
        return part
    records, where = group_references(part.records, part.where)
    findings.add(
        "grouped",
        "info",
        f"{len(part.records):,} rows of {part.name} are {len(records):,} sources with several"
        " references.",
        split=part.name,
    )
    return dataclasses.replace(part, records=records, where=where)
