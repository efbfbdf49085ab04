"""The splits of a config as a check sees them: every row is read, and what gives no record is collected instead of ending the check."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jaxsft.config.schema import Config
from jaxsft.data import split as splitting
from jaxsft.data import weights
from jaxsft.data.formats import Row
from jaxsft.data.ledger import Aside
from jaxsft.data.records import KINDS, Kind, Seq2Seq, group_references, parse_rows
from jaxsft.errors import DataError
from jaxsft.prepare.check.findings import Findings, rows
from jaxsft.training import setup

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Part:
    """One split: its records, where each stands, and the rows that gave none. `read` counts all of them."""

    name: str
    records: list[Any]
    where: list[str]
    aside: Sequence[Aside]
    read: int


def load(config: Config, findings: Findings) -> dict[str, Part]:
    """The splits, by name; one that cannot be read at all is an error among the findings."""
    reading = dataclasses.replace(config, data=dataclasses.replace(config.data, on_bad_row="quarantine"))
    kind, d = KINDS[config.task.name], config.data
    found = {}
    paths = [("train", d.path)] if d.path else [*(("train", one.path) for one in d.mixture.sources), *((name, getattr(d, name)) for name in SPLITS)]
    for name, path in paths:
        if path:
            try:
                read = _read(reading, name, path, kind, training=name == "train" and not d.path)
                found[name] = tuple(a + b for a, b in zip(found[name], read, strict=True)) if name in found else read
            except DataError as error:
                findings.add(
                    "unreadable", "error", f"{name} cannot be read: {error}.", split=name, repair="data.format, data.encoding, or mend the file"
                )
    for note in setup.left_out(config) if found else ():
        findings.add("left_out", "info", f"{note}.")
    if d.path and found:
        found = _split(config, *found["train"], kind)
    parts = {name: _part(name, *read) for name, read in found.items()}
    for part in parts.values():
        _bad_rows(config, part, findings)
    if config.data.columns.group_references:
        parts = {name: _grouped(part, findings) for name, part in parts.items()}
    return parts


Read = tuple[list[Row], list[Any], list[Aside]]


def _read(config: Config, name: str, path: str, kind: Kind, training: bool) -> Read:
    columns, aside = config.data.columns, []
    rows = setup.read_rows(config, path, setup.wanted(config, kind, training=name == "train"), aside, "" if config.data.path else name)
    if not rows:
        return [], [], aside
    columns = kind.infer_columns(rows[0], columns)
    record = (lambda row, columns: weights.weighted(kind.record(row, columns), row, columns)) if training else kind.record
    rows, records = parse_rows(rows, record, columns, aside, "quarantine")
    return rows, records, aside


def _split(config: Config, rows: list[Row], records: list[Any], aside: list[Aside], kind: Kind) -> dict[str, Read]:
    """As training would split the file."""
    record_of = {id(row): record for row, record in zip(rows, records, strict=True)}
    grouped = config.data.columns.group_references and bool(records) and isinstance(records[0], Seq2Seq)
    keys = splitting.keys(rows, [kind.texts(record) for record in records], [record.source if grouped else None for record in records])
    key_of = {id(row): key for row, key in zip(rows, keys, strict=True)}
    stratify, key = lambda row: kind.stratum(record_of[id(row)]), lambda row: key_of[id(row)]
    parts = splitting.split_rows(rows, config.data.fractions, config.data.split_seed, stratify, key)
    out = {}
    for name, part in zip(SPLITS, parts, strict=True):
        if part or name == "train":
            out[name] = (part, [record_of[id(row)] for row in part], aside if name == "train" else [])
    return out


def _part(name: str, rows: list[Row], records: list[Any], aside: list[Aside]) -> Part:
    return Part(name, records, [row.where for row in rows], aside, len(rows) + len(aside))


KINDS_TOLD = 5  # kinds of bad rows that are told one by one


def _bad_rows(config: Config, part: Part, findings: Findings) -> None:
    messages = {
        "unreadable": "unreadable",
        "no_record": f"no record of task={config.task.name}",
        "no_label": f"the mark {config.data.columns.no_label!r}, no label; dropped",
    }
    aside = config.data.on_bad_row == "quarantine"
    for reason, what in messages.items():
        if not (those := [a for a in part.aside if a.reason == reason]):
            continue
        declared = reason == "no_label"
        repair = "" if declared or aside or not part.records else "mend them, or data.on_bad_row=quarantine"
        message = f"{rows(len(those), part.name, part.read)}: {what}{_by_label(config, part, those)}{'' if declared else _kinds(those)}."
        severity, where = "info" if declared else "warning" if aside else "error", [a.where for a in those]
        findings.add(reason, severity, message, where, split=part.name, repair=repair)
    if not part.records:
        findings.add(
            "nothing_left", "error", f"No row of {part.name} gives a record.", split=part.name, count=part.read, repair="data.columns, or task"
        )


def _kinds(those: Sequence[Aside]) -> str:
    """Why rows are bad: of one kind its first message, of several a line each, with its count and its first place."""
    kinds = _by_kind(those)
    why = [kind[0].message.removeprefix(kind[0].where + ": ") for kind in kinds]
    if len(kinds) == 1:
        return f"; {'the first: ' if len(those) > 1 else ''}{why[0]}"
    return "".join(f"\n{len(kind):,} at {kind[0].where}{' and others' * (len(kind) > 1)}: {reason}" for kind, reason in zip(kinds, why, strict=True))


def _by_kind(those: Sequence[Aside]) -> list[list[Aside]]:
    """Bad rows whose messages differ in numbers and in what they quote only; the most frequent kinds first, the rarest of many together."""
    kinds: dict[str, list[Aside]] = {}
    for one in those:
        message = one.message.removeprefix(one.where + ": ")
        kinds.setdefault(re.sub(r"'(?:[^'\\]|\\.)*'|\"[^\"]*\"|[0-9.,]+(?: [0-9]+)*|0x[0-9a-f]+", "#", message), []).append(one)
    found = sorted(kinds.values(), key=len, reverse=True)
    return found if len(found) <= KINDS_TOLD else [*found[: KINDS_TOLD - 1], [one for kind in found[KINDS_TOLD - 1 :] for one in kind]]


def _by_label(config: Config, part: Part, alike: Sequence[Aside]) -> str:
    """Of which labels the rows are, where the label can still be read: a class that loses many of its rows is seen."""
    kind, name = KINDS[config.task.name], config.data.columns.label or "label"
    lost = Counter(str(a.fields[name]) for a in alike if isinstance(a.fields.get(name), str | int) and "\ufffd" not in str(a.fields[name]))
    kept = Counter(label for record in part.records for label in kind.labels(record))
    if not (known := {label: count for label, count in lost.most_common() if label in kept}):
        return ""
    some = [f"{label} {count:,} of {count + kept[label]:,}" for label, count in list(known.items())[:5]]
    return f"; by label: {', '.join(some)}{f' and {len(known) - 5:,} labels more' if len(known) > 5 else ''}"


def _grouped(part: Part, findings: Findings) -> Part:
    if not part.records or not isinstance(part.records[0], Seq2Seq):
        return part
    records, where = group_references(part.records, part.where)
    findings.add(
        "grouped", "info", f"{len(part.records):,} rows of {part.name} are {len(records):,} sources with several references.", split=part.name
    )
    return dataclasses.replace(part, records=records, where=where)
