"""Runs the stages one after another over the splits, and counts every row on both sides.

Stages that need one row at a time are chained, so that rows stream through them; before any other
the rows go to the disk. What is on the disk is kept with a key of everything that it depends on: an
interrupted preparation goes on behind the last stage that was done.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
import multiprocessing
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import plugins, rundir
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import spool
from jaxsft.prepare.spool import Log, Spool
from jaxsft.prepare.stage import Report, RowSource, Stage

CHUNK = 512  # rows that a process is given at once
UNSPLIT = "all"  # the name of the set whose rows belong to no split yet


@dataclasses.dataclass
class StageEntry:
    """A stage of the list, and what became of its rows: the manifest's entry.

    Attributes:
      options: those of the stage, plain JSON. state: what it learnt.
      reports: per set that came in. read, written: rows per set.
    """

    name: str
    stage: Stage
    options: dict[str, Any]
    state: dict[str, Any] = dataclasses.field(default_factory=dict)
    reports: dict[str, Report] = dataclasses.field(default_factory=dict)
    read: dict[str, int] = dataclasses.field(default_factory=dict)
    written: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def streams(self) -> bool:
        """Returns whether it takes one row at a time, and nothing of the others."""
        kind = type(self.stage)
        return self.stage.on != "all" and not self.stage.learns and kind.rows is Stage.rows

    def touches(self, split: str) -> bool:
        return self.stage.on != "train" or split == "train"

    def check(self) -> None:
        """Raises AssertionError where rows went missing: a bug of the stage, never the user's
        data."""
        out, into = sum(self.written.values()), sum(self.read.values())
        new = sum(sum(r.added.values()) for r in self.reports.values())
        gone = sum(len(r.dropped) for r in self.reports.values())
        assert out == into + new - gone, (
            f"stage {self.name}: {into} rows in + {new} added - {gone} dropped is not the {out}"
            " that came out"
        )

    def summary(self) -> dict[str, Any]:
        """Counts, for the manifest."""
        self.check()
        reports = {}
        for split, report in self.reports.items():
            counts = {
                "read": self.read.get(split, 0),
                "dropped": dict(sorted(report.dropped.counts.items())),
            }
            counts |= {
                name: dict(sorted(getattr(report, name).items()))
                for name in ("added", "changed", "marked")
                if getattr(report, name)
            }
            reports[split] = counts | ({"facts": report.facts} if report.facts else {})
        told = {"stage": self.name, "options": self.options, "state": self.state}
        return told | {"replayed": self.stage.replayed, "sets": reports, "written": self.written}


def run(
    entries: Sequence[StageEntry],
    sets: Mapping[str, Iterable[Row]],
    work: Path,
    key: str,
    workers: int = 1,
) -> dict[str, Spool]:
    """Runs all stages and fills the entries.

    Args:
      sets: the rows as read, per split; `all` where they belong to none.
      work: the folder for rows between stages; what another call with the same `key` and stages
        left there is used.
      key: names what `sets` depends on.

    Raises:
      ConfigError: a stage learns, or works on the training split only, before there is one, or
        before the rows are split again.
    """
    _in_order(entries, sets)
    segments = _segments(entries)
    keys = list(itertools.accumulate(segments, _chained, initial=key))[1:]
    done = max((i + 1 for i, k in enumerate(keys) if (work / k / "done.json").exists()), default=0)
    current: Mapping[str, Iterable[Row]] = sets
    for number, (segment, k) in enumerate(zip(segments, keys, strict=True)):
        current = (
            _recall(segment, work / k)
            if number < done
            else _segment(segment, current, work / k, workers)
        )
        if number:  # the rows before it are not needed again
            for before in (work / keys[number - 1]).glob("*.rows"):
                before.unlink()
    return dict(current)


def _in_order(entries: Sequence[StageEntry], sets: Iterable[str]) -> None:
    """Raises ConfigError where a split follows a stage that has used the training rows.

    What was learned from training rows, their copies and means would go into the test split
    with the rows that a later split puts there.
    """
    before, mixed, folded = None, [], None
    for entry in entries:
        if folded is not None and (entry.stage.learns or entry.stage.on == "train"):
            does = (
                "learns from the training rows"
                if entry.stage.learns
                else "changes the training rows only"
            )
            raise ConfigError(
                f"stages: {entry.name} {does}, and folds have no training split; take it out, or"
                f" the folds of {folded.name}"
            )
        if entry.stage.splits and (
            torn := [
                e
                for e in mixed
                if e.options.get("group") is None
                or e.options["group"] != entry.options.get("group")
            ]
        ):
            raise ConfigError(
                f"stages: {entry.name} stands behind {torn[0].name}, which makes rows out of other"
                f" rows, so that test rows would hold training rows; put {entry.name} before it, or"
                " give both the same group"
            )
        if entry.stage.splits and before is not None:
            does = "learns from" if before.stage.learns else "changes"
            raise ConfigError(
                f"stages: {entry.name} stands behind {before.name}, which {does} the training rows;"
                f" put {entry.name} before it"
            )
        if entry.stage.learns or entry.stage.on == "train":
            before = before or entry
        if entry.stage.splits:
            made = entry.options.get("folds") and (
                entry.options["folds_as"] == "pairs" or "train" not in sets
            )
            folded = entry if made else None
        mixed += [entry] if entry.stage.mixes else []


def _segments(entries: Sequence[StageEntry]) -> list[list[StageEntry]]:
    """Groups the stages: neighbours that stream share a segment; any other stage begins one."""
    out: list[list[StageEntry]] = [[]]
    for entry in entries:
        if not entry.streams:
            out.append([])
        out[-1].append(entry)
    return out  # the first one, perhaps without stages, reads the files


def _chained(key: str, segment: list[StageEntry]) -> str:
    return rundir.sha256_json({"before": key, "stages": [[e.name, e.options] for e in segment]})[
        :16
    ]


def _segment(
    segment: list[StageEntry], sets: Mapping[str, Iterable[Row]], folder: Path, workers: int
) -> dict[str, Spool]:
    flows: Mapping[str, Iterable[Row]] = sets
    for number, entry in enumerate(segment):
        entry.reports = {
            split: Report(dropped=Log(folder / f"{number}-{split}.dropped")) for split in flows
        }
        if entry.streams:
            flows = {
                split: _counted(entry, split, _through(entry, split, iter(rows), workers))
                for split, rows in flows.items()
            }
        else:  # the first of its segment, so that the sets are on the disk
            flows = {
                split: _counted(entry, split, rows) for split, rows in _whole(entry, sets).items()
            }
    out = {split: spool.write(folder / f"{split}.rows", rows) for split, rows in flows.items()}
    for entry in segment:
        entry.check()
    rundir.write_json(
        folder / "done.json",
        {"rows": {s: len(rows) for s, rows in out.items()}, "stages": [_told(e) for e in segment]},
    )
    return out


def _told(entry: StageEntry) -> dict[str, Any]:
    reports = {}
    for split, report in entry.reports.items():
        report.dropped.close()
        reports[split] = {**vars(report), "dropped": report.dropped.counts}
    return {"state": entry.state, "read": entry.read, "written": entry.written, "reports": reports}


def _recall(segment: list[StageEntry], folder: Path) -> dict[str, Spool]:
    found = rundir.read_json(folder / "done.json")
    for number, (entry, told) in enumerate(zip(segment, found["stages"], strict=True)):
        entry.state, entry.read, entry.written = told["state"], told["read"], told["written"]
        for split, told_of in told["reports"].items():
            log = Log(folder / f"{number}-{split}.dropped", Counter(told_of["dropped"]))
            counters = {name: Counter(told_of[name]) for name in ("added", "changed", "marked")}
            entry.reports[split] = Report(log, facts=told_of["facts"], **counters)
    return {split: Spool(folder / f"{split}.rows", rows) for split, rows in found["rows"].items()}


def _whole(entry: StageEntry, sets: Mapping[str, RowSource]) -> Mapping[str, Iterable[Row]]:
    """Runs a stage that needs to see more than a row."""
    stage = entry.stage
    entry.read = {split: len(rows) for split, rows in sets.items()}
    if stage.on == "all":
        return stage.sets(sets, entry.reports)
    if (stage.learns or stage.on == "train") and "train" not in sets:
        does = "learns from the training rows" if stage.learns else "changes the training rows only"
        raise ConfigError(
            f"stages: {entry.name} {does}, and there is no training split yet; put split before it,"
            " or give data.train="
        )
    if stage.learns:
        learnt = stage.fit(sets["train"], entry.reports["train"])
        entry.state = json.loads(rundir.json_text(learnt))  # as it will be read from the manifest
    return {
        split: (
            stage.rows(split, rows, entry.state, entry.reports[split])
            if entry.touches(split)
            else rows
        )
        for split, rows in sets.items()
    }


def _through(entry: StageEntry, split: str, rows: Iterator[Row], workers: int) -> Iterator[Row]:
    """Yields rows through a stage that takes them one by one."""
    report = entry.reports[split]
    entry.read[split] = 0
    if entry.stage.on == "train" and split == UNSPLIT:
        raise ConfigError(
            f"stages: {entry.name} changes the training rows only, and there is no training split"
            " yet; put split before it"
        )

    def counted() -> Iterator[Row]:
        for row in rows:
            entry.read[split] += 1
            yield row

    if not entry.touches(split):
        yield from counted()
    elif entry.stage.slow and workers > 1:
        yield from _in_processes(entry.stage, split, counted(), report, workers)
    else:
        yield from entry.stage.rows(split, counted(), entry.state, report)


def _counted(entry: StageEntry, split: str, rows: Iterable[Row]) -> Iterator[Row]:
    entry.written[split] = 0
    for row in rows:
        entry.written[split] += 1
        yield row


def _in_processes(
    stage: Stage, split: str, rows: Iterator[Row], report: Report, workers: int
) -> Iterator[Row]:
    """Runs chunks of rows in fresh processes, in order; yields the new rows.

    There are never more chunks on the way than keep the processes busy.
    """
    stage = dataclasses.replace(
        stage, context=dataclasses.replace(stage.context, score=None, predict=None)
    )
    with concurrent.futures.ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        initializer=plugins.use,
        initargs=(plugins.given(),),
    ) as pool:
        waiting: deque[concurrent.futures.Future] = deque()
        try:
            while True:
                while len(waiting) < 2 * workers and (chunk := list(itertools.islice(rows, CHUNK))):
                    waiting.append(pool.submit(_chunk, stage, split, chunk))
                if not waiting:
                    return
                out, told = waiting.popleft().result()
                report.merge(told)
                yield from out
        except concurrent.futures.process.BrokenProcessPool:
            raise DataError(
                f"stage {type(stage).__name__}: a process ended by itself (out of memory?); set"
                " workers=1"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _chunk(stage: Stage, split: str, rows: list[Row]) -> tuple[list[Row], Report]:
    report = Report()
    return list(stage.rows(split, rows, {}, report)), report
