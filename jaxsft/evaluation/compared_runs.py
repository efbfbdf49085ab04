"""Reads what is known of the rows of runs that are to be compared, and refuses runs whose rows
differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import remote, rundir
from jaxsft.errors import DataError
from jaxsft.evaluation import statistics_file
from jaxsft.evaluation.statistics_file import RowStatistics
from jaxsft.metrics import by_name
from jaxsft.metrics.base import Metric, of_each_target, ratio

# of a line of predictions: what was read and what is right, not what was predicted
ASKED = (
    "text", "text_pair", "label", "labels", "target", "targets", "reference", "references",
    "prompt", "words", "tags", "tokens", "answers", "context", "question",
)  # fmt: skip
COLUMN = "correct"


@dataclass(frozen=True)
class RunRows:
    """The statistics of the rows of one run, and the metrics that they are of."""

    name: str
    content: RowStatistics
    metrics: Mapping[str, Metric]
    lines: Path | None = None  # its predictions, which say where a row stands

    def place(self, row: int) -> str:
        """Returns where a row stands in its file, or its number."""
        for line in _lines(self.lines) if self.lines and self.lines.is_file() else ():
            if line.get("row") == row and "where" in line:
                return f"row {row} ({line['where']})"
        return f"row {row}"


def read(places: Sequence[str], split: str, columns: Sequence[str] = ()) -> list[RunRows]:
    """Returns the rows of runs or files of predictions, in one order.

    Runs are compared by their files of statistics; where one of them has none, or columns are
    named, all are by columns of their predictions.

    Raises DataError where one cannot be read, or the rows of two differ.
    """
    files = [_files(place, split) for place in places]
    if not columns and all(statistics.is_file() for statistics, _ in files):
        runs = [_of_statistics(place, *pair) for place, pair in zip(places, files, strict=True)]
    else:
        runs = [
            _of_lines(place, lines, columns)
            for place, (_, lines) in zip(places, files, strict=True)
        ]
    for run in runs[1:]:
        same_rows(runs[0], run)
    return runs


def _files(place: str, split: str) -> tuple[Path, Path]:
    """Returns the files of statistics and of predictions of a run, or of one of the two."""
    path = Path(remote.opened(place)) if remote.is_remote(place) else Path(place)
    if path.is_dir():
        folder = path if (path / f"{split}.jsonl").is_file() else path / "predictions"
        pair = folder / f"{split}.npz", folder / f"{split}.jsonl"
        if not pair[0].is_file() and not pair[1].is_file():
            raise DataError(
                f"{place}: has no predictions of the split {split!r} (expected {pair[0]}); name"
                " another one with split=, or train with data.test="
            )
        return pair
    if not path.is_file():
        raise DataError(f"{place}: is no run directory and no file of predictions")
    return path.with_suffix(".npz"), path.with_suffix(".jsonl")


def _of_statistics(place: str, file: Path, lines: Path) -> RunRows:
    content = statistics_file.load(file)
    metrics = {
        name: of_each_target(by_name.take(name, str(file)), content.labels.get(name, ()))
        for name in content.metrics
    }
    return RunRows(place, content, metrics, lines)


# --- columns of predictions
# --------------------------------------------------------------------------------------------------
def column_metric(name: str) -> Metric:
    """Makes the metric of a column: the mean over rows of a number that each has."""
    return Metric(
        (name,),
        (name,),
        lambda outputs: np.stack([outputs[name], np.ones(len(outputs))], -1),
        lambda state: {name: ratio(state[..., 0], state[..., 1])},
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return rundir.read_jsonl(path)


def _of_lines(place: str, path: Path, columns: Sequence[str]) -> RunRows:
    if not path.is_file():
        raise DataError(f"{path}: is missing; the columns of predictions are read from it")
    numbered = [(i, line) for i, line in enumerate(_lines(path), start=1) if "dropped" not in line]
    if not numbered:
        raise DataError(f"{path}: has no row with a prediction")
    numeric = [key for key, x in numbered[0][1].items() if _is_number(x) and key != "row"]
    if not columns and COLUMN not in numeric:
        raise DataError(
            f"{path}: has neither statistics beside it nor a column {COLUMN!r}; name columns with"
            f" numbers: columns={','.join(numeric[:3]) or 'NAME'}"
        )
    wanted = list(columns) or [COLUMN]
    for number, line in numbered:
        for name in wanted:
            if not _is_number(line.get(name)):
                raise DataError(
                    f"{path}:{number}: {name!r} is {line.get(name)!r}, expected a number; columns"
                    f" with numbers are {', '.join(numeric) or 'none'}"
                )
        if not isinstance(line.get("row", number - 1), int):
            raise DataError(f"{path}:{number}: 'row' is {line['row']!r}, expected a whole number")
    numbered.sort(key=lambda pair: pair[1].get("row", pair[0] - 1))
    rows = np.array([line.get("row", number - 1) for number, line in numbered], np.int64)
    if len(np.unique(rows)) < len(rows):
        raise DataError(f"{path}: a row occurs twice")
    asked = [{key: line[key] for key in ASKED if key in line} for _, line in numbered]
    ones = np.ones(len(rows))
    content = RowStatistics(
        {
            name: np.stack([np.array([float(line[name]) for _, line in numbered]), ones], -1)
            for name in wanted
        },
        rows,
        statistics_file.digests(asked),
        chosen=wanted[0],
    )
    return RunRows(place, content, {name: column_metric(name) for name in wanted}, path)


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float)


# --- the same rows
# --------------------------------------------------------------------------------------------------
def same_rows(one: RunRows, other: RunRows) -> None:
    """Raises DataError, which names the first row that only one has, or that differs."""
    a, b = one.content, other.content
    if only := np.setxor1d(a.rows, b.rows).tolist():
        row = only[0]
        has, lacks = (one, other) if row in a.rows else (other, one)
        raise DataError(
            f"{other.name}: its rows are not those of {one.name}: {has.place(row)} is missing in"
            f" {lacks.name} ({len(only)} in all are in one only)"
        )
    if (differ := np.flatnonzero(a.digests != b.digests)).size:
        row = int(a.rows[differ[0]])
        raise DataError(
            f"{other.name}: its rows are not those of {one.name}: {one.place(row)} was another"
            f" text or another answer there ({differ.size} of {len(a.rows)} rows differ)"
        )
    if not (shared := set(one.metrics) & set(other.metrics)):
        raise DataError(f"{other.name}: has no metric of {one.name} ({', '.join(one.metrics)})")
    for name in shared:
        if only := np.setxor1d(a.rows_of(name), b.rows_of(name)).tolist():
            raise DataError(
                f"{other.name}: {name} is not of the rows of {one.name}: {one.place(only[0])}"
                f" counts in one only ({len(only)} such rows); evaluate both alike"
                " (evaluation.generate_rows)"
            )
