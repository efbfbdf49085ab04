"""The statistics of the rows of a split, by metric, in one file beside the predictions:
`predictions/<split>.npz`, from which runs are compared without running a model again.

An uncompressed zip of arrays as NumPy writes it, without pickle. Its header says what each array
is, and has the SHA-256 of all of them. Each row has a digest of what was read and asked there, so
that two files can be held against each other row by row.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import documents, rundir
from jaxsft.errors import DataError, first_line
from jaxsft.evaluation.measured import Measured
from jaxsft.metrics.base import Cells, Statistics, select

VERSION = 1
MOST = 1 << 32  # bytes of a file that are read
HEADER = "header"
MEMBERS = 4096  # arrays of a file that are read


@dataclass(frozen=True)
class RowStatistics:
    """The content of a file.

    Attributes:
      metrics: statistics by the name of the metric, as its `observe` gave them.
      rows: `[rows]` int64, their numbers in the split, ascending.
      digests: `[rows]` uint64, of the records of the rows.
      clusters: `[rows]`, what each row belongs to; None: rows are independent.
      places: of a metric that has some of the rows only, such as those that were answered: which
        of `rows`, ascending; the others have all.
      labels: what the axes of the tables of a metric stand for, of those that have any.
      chosen: the name of the number that the run was chosen by; "" where there is none.
    """

    metrics: dict[str, Statistics]
    rows: np.ndarray
    digests: np.ndarray
    clusters: np.ndarray | None = None
    places: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    chosen: str = ""

    def rows_of(self, metric: str) -> np.ndarray:
        """Returns the numbers of the rows that a metric has."""
        return self.rows[self.places[metric]] if metric in self.places else self.rows

    def clusters_of(self, metric: str) -> np.ndarray | None:
        """Returns the clusters of the rows that a metric has."""
        if self.clusters is None or metric not in self.places:
            return self.clusters
        return self.clusters[self.places[metric]]


def of_measured(
    measured: Mapping[str, Measured],
    records: Sequence[Any],
    clusters: Sequence[Any] | None = None,
    chosen: str = "",
) -> RowStatistics:
    """Returns what the file of a split holds.

    Args:
      measured: the metrics of the split; one may have some of its rows only.
      records: of all rows of the split, by number.
      clusters: of all rows of the split, by number; None: rows are independent.
      chosen: the name of the number that the run is chosen by.
    """
    every = [np.asarray(one.rows, np.int64) for one in measured.values()]
    rows = np.unique(np.concatenate(every)) if every else np.zeros(0, np.int64)
    metrics, places = {}, {}
    for (name, one), own in zip(measured.items(), every, strict=True):
        order = np.argsort(own)
        metrics[name] = select(one.statistics, order)
        if len(own) < len(rows):
            places[name] = np.searchsorted(rows, own[order])
    of_rows = None if clusters is None else np.asarray([clusters[row] for row in rows])
    labels = {
        name: tuple(map(str, one.labels)) for name, one in measured.items() if len(one.labels)
    }
    found = digests(records[row] for row in rows)
    return RowStatistics(metrics, rows, found, of_rows, places, labels, chosen)


def digests(records: Iterable[Any]) -> np.ndarray:
    """Returns a digest of each record, uint64: a dataclass, or what JSON can hold."""
    return np.array([_digest(record) for record in records], np.uint64)


def _digest(record: Any) -> int:
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        record = dataclasses.asdict(record)
    text = rundir.json_text(record).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def save(path: str | Path, content: RowStatistics) -> None:
    """Replaces the file, all or nothing. Raises JaxsftError where it cannot be written."""
    arrays: dict[str, np.ndarray] = {
        "rows": np.asarray(content.rows, np.int64),
        "digests": np.asarray(content.digests, np.uint64),
    }
    if content.clusters is not None:
        arrays["clusters"] = _plain_clusters(np.asarray(content.clusters))
    trees = {
        name: _put(statistics, arrays, f"metric.{i}")
        for i, (name, statistics) in enumerate(content.metrics.items())
    }
    numbers = {name: i for i, name in enumerate(content.metrics)}
    for name, places in content.places.items():
        arrays[f"places.{numbers[name]}"] = np.asarray(places, np.int64)
    header = {
        "version": VERSION,
        "metrics": trees,
        "labels": {name: list(map(str, labels)) for name, labels in content.labels.items()},
        "places": {name: f"places.{numbers[name]}" for name in content.places},
        "chosen": content.chosen,
        "sha256": _sha256(arrays),
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with rundir.atomic_file(path) as file:
        np.savez(file, **{HEADER: text}, **arrays)


def _plain_clusters(clusters: np.ndarray) -> np.ndarray:
    """Returns clusters as int64 or as text, which need no pickle."""
    return clusters.astype(np.int64) if clusters.dtype.kind in "iu" else clusters.astype(np.str_)


def _put(statistics: Statistics, arrays: dict[str, np.ndarray], name: str) -> Any:
    """Adds the arrays of statistics, and returns a description of them in JSON."""
    if isinstance(statistics, Mapping):
        return {
            "of": {
                key: _put(one, arrays, f"{name}.{i}")
                for i, (key, one) in enumerate(statistics.items())
            }
        }
    if isinstance(statistics, Cells):
        arrays[f"{name}.index"] = np.asarray(statistics.index, np.int64)
        if statistics.row is not None:
            arrays[f"{name}.row"] = np.asarray(statistics.row, np.int64)
        shape = list(map(int, statistics.shape))
        return {"cells": name, "shape": shape, "has_row": statistics.row is not None}
    arrays[name] = np.asarray(statistics)
    return {"array": name}


def _sha256(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def load(path: str | Path) -> RowStatistics:
    """Returns the content of a file.

    Raises DataError where it cannot be read, or is damaged, or does not hold together.
    """
    header, arrays = _read(Path(path))
    try:
        if header["version"] != VERSION:
            raise DataError(
                f"{path}: has version {header['version']!r}, expected {VERSION}; evaluate the run"
                " again with this version of jaxsft"
            )
        if header["sha256"] != _sha256(arrays):
            raise DataError(
                f"{path}: is damaged (its arrays do not have the SHA-256 of its header)"
            )
        rows, of_rows, clusters = arrays["rows"], arrays["digests"], arrays.get("clusters")
        count = len(rows)
        good = rows.dtype == np.int64 and of_rows.dtype == np.uint64 and rows.ndim == 1
        same = of_rows.shape == rows.shape and (clusters is None or clusters.shape == rows.shape)
        if not (good and same and (np.diff(rows) > 0).all()):
            raise DataError(f"{path}: its rows, digests and clusters do not fit together")
        places = {name: arrays[array] for name, array in header["places"].items()}
        for name, place in places.items():
            inside = place.size == 0 or (place.min() >= 0 and place.max() < count)
            ascending = place.dtype == np.int64 and (np.diff(place) > 0).all()
            if place.ndim != 1 or not (inside and ascending):
                raise DataError(f"{path}: {name}: has rows that are not there")
        metrics = {
            name: _take(tree, arrays, len(places.get(name, rows)), f"{path}: {name}")
            for name, tree in header["metrics"].items()
        }
        labels = {name: tuple(map(str, those)) for name, those in header["labels"].items()}
        chosen = str(header["chosen"])
        return RowStatistics(metrics, rows, of_rows, clusters, places, labels, chosen)
    except (KeyError, TypeError, AttributeError, ValueError) as cause:
        raise DataError(f"{path}: not a file of statistics ({first_line(cause)})") from cause


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise DataError(f"{path}: is missing, or no file")
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            # what is stored as it is cannot grow when it is read
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise DataError(f"{path}: holds compressed arrays, which jaxsft does not write")
            if len(members) > MEMBERS or sum(member.file_size for member in members) > MOST:
                raise DataError(f"{path}: is larger than any such file needs to be")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, MemoryError) as cause:
        raise DataError(f"{path}: not a file of statistics ({first_line(cause)})") from cause
    if HEADER not in arrays or arrays[HEADER].dtype != np.uint8:
        raise DataError(f"{path}: not a file of statistics (it has no header)")
    text = arrays.pop(HEADER).tobytes()
    return documents.parse_json(text, path, DataError, dict), arrays


def _take(tree: Any, arrays: Mapping[str, np.ndarray], count: int, where: str) -> Statistics:
    """Returns the statistics that a header describes. Raises DataError where they do not fit."""
    if "of" in tree:
        return {key: _take(one, arrays, count, where) for key, one in tree["of"].items()}
    if "array" in tree:
        array = arrays[tree["array"]]
        if array.ndim < 1 or len(array) != count or array.dtype.kind not in "biuf":
            raise DataError(f"{where}: an array does not have a number for each of {count} rows")
        return array
    index, shape = arrays[f"{tree['cells']}.index"], tuple(tree["shape"])
    row = arrays[f"{tree['cells']}.row"] if tree["has_row"] else None
    size = math.prod(shape)
    items = count if row is None else len(row)
    good = index.dtype == np.int64 and index.shape == (items,) and 0 < size <= 1 << 31
    good = good and all(isinstance(n, int) and n > 0 for n in shape)
    good = good and (not items or (index.min() >= -1 and index.max() < size))
    if good and row is not None and items:
        good = row.dtype == np.int64 and row.min() >= 0 and row.max() < count
    if not good:
        raise DataError(f"{where}: a table has cells or rows that are not there")
    return Cells(index, shape, row)
