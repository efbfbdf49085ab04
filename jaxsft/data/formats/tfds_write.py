"""Writes data sets of TensorFlow Datasets without TensorFlow, which `tfds.py` reads.

Written is ArrayRecord, one tf.train.Example per row, in shards of at most 5,000 records: one read
of a record takes time in proportion to the records of its file.

A tf.train.Example has texts, 64-bit integers and 32-bit floats, flat or in a list. What they do not
hold (nested values, nulls, absent fields, mixed types, floats of 64 bits) is written as JSON text,
and the feature's description, `JSON_TEXT`, says so: the reader gives the rows back exactly.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.data.formats.tfds import JSON_TEXT, VERSION
from jaxsft.errors import ConfigError, DataError

PER_SHARD = 5_000


def write_tfds(
    folder: str | Path,
    name: str,
    version: str,
    splits: Mapping[str, Iterable[dict[str, Any]]],
    shards: int | None = None,
    description: str = "",
) -> Path:
    """Writes rows as a data set that `tfds.builder_from_directory(folder)` reads.

    `data.train=<folder>` reads it too. The same rows give the same bytes.

    The folder is made aside and renamed; a data set that stands there is replaced. The rows are
    held in memory: all of them tell a column's type.

    Args:
      folder: what becomes the folder of the data set; `<TFDS_DATA_DIR>/<name>/<version>` makes it
        `tfds:<name>`.
      name: lower case letters, digits and `_`.
      version: such as 1.0.0.
      splits: by name, such as train and test.
      shards: files per split, at most one per row; None: as many as 5,000 rows a file need.
      description: goes into dataset_info.json.

    Raises:
      ConfigError: name, version, a split's name or `shards` is impossible.
      DataError: a split without rows; a value that JSON does not have; something else stands at
        `folder`.
    """
    import tensorflow_datasets as tfds

    folder = Path(folder)
    _check_names(name, version, splits, shards)
    held = {split: list(rows) for split, rows in splits.items()}
    if empty := [split for split, rows in held.items() if not rows]:
        raise DataError(f"{folder}: the split {empty[0]!r} has no rows; leave it out")
    if folder.exists() and not (folder / "dataset_info.json").is_file():
        raise DataError(
            f"{folder}: found something that is no TFDS data set, and do not replace it; give"
            " another folder"
        )
    kinds = _kinds(held, str(folder))
    features = tfds.features.FeaturesDict(
        {column: _feature(tfds, kind) for column, kind in kinds.items()}
    )
    with rundir.atomic_folder(folder) as aside:
        infos = [
            _write_split(tfds, aside, name, split, rows, kinds, features, shards)
            for split, rows in held.items()
        ]
        tfds.folder_dataset.write_metadata(
            data_dir=str(aside),
            features=features,
            split_infos=infos,
            version=version,
            check_data=False,
            description=description,
        )
    return folder


def _check_names(name: str, version: str, splits: Mapping[str, Any], shards: int | None) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(
            f"the name of a TFDS data set cannot be {name!r}; expected lower case letters, digits"
            " and _"
        )
    if not VERSION.fullmatch(version):
        raise ConfigError(
            f"the version of a TFDS data set cannot be {version!r}; expected three numbers such as"
            " 1.0.0"
        )
    if not splits or (
        wrong := [split for split in splits if not re.fullmatch(r"(?!all$)[a-zA-Z]\w*", split)]
    ):
        raise ConfigError(
            f"a split of a TFDS data set cannot be {wrong[0]!r}; expected letters, digits and _,"
            " and not all"
            if splits
            else "there is no split to write"
        )
    if shards is not None and shards < 1:
        raise ConfigError(f"shards={shards}: expected at least 1")


def _write_split(
    tfds: Any,
    folder: Path,
    name: str,
    split: str,
    rows: list,
    kinds: dict[str, Any],
    features: Any,
    shards: int | None,
) -> Any:
    from array_record.python import array_record_module

    count = min(len(rows), shards or math.ceil(len(rows) / PER_SHARD))
    bounds = [len(rows) * i // count for i in range(count + 1)]
    size = 0
    for i, (begin, end) in enumerate(itertools.pairwise(bounds)):
        path = folder / f"{name}-{split}.array_record-{i:05d}-of-{count:05d}"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for row in rows[begin:end]:
            example = features.serialize_example(
                {column: _spelled(kind, row, column) for column, kind in kinds.items()}
            )
            size += len(example)
            writer.write(example)
        writer.close()
    lengths = [end - begin for begin, end in itertools.pairwise(bounds)]
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(folder), dataset_name=name, split=split, filetype_suffix="array_record"
    )
    return tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
    )


def _kinds(splits: Mapping[str, list[dict[str, Any]]], name: str) -> dict[str, Any]:
    """Returns the kind of each column, in the order of their first appearance.

    It is "text", "int", "float", "bool", ("list", one of these) or "json".
    """
    kinds: dict[str, Any] = {}
    number = 0
    for split, rows in splits.items():
        for at, row in enumerate(rows, start=1):
            number += 1
            for column, value in row.items():
                if not isinstance(column, str) or not _utf8(column) or not column:
                    raise DataError(
                        f"{name}: row {at} of {split}: found the column name {column!r}, expected a"
                        " text"
                    )
                _check_json(value, f"{name}: row {at} of {split}, column {column!r}")
                kind = _kind(value)
                # a column that an earlier row lacks
                before = kinds.get(column, kind if number == 1 else "json")
                kinds[column] = _joined(before, kind)
            for column in kinds.keys() - row.keys():
                kinds[column] = "json"
    if not kinds:
        raise DataError(f"{name}: the rows have no columns; there is nothing to write")
    return {
        column: ("list", "text") if kind == ("list", None) else kind
        for column, kind in kinds.items()
    }


def _joined(before: Any, kind: Any) -> Any:
    # an empty list fits every list
    if before == kind or (kind == ("list", None) and before[0] == "list"):
        return before
    return kind if before == ("list", None) and kind[0] == "list" else "json"


def _kind(value: Any) -> Any:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "json"
    if isinstance(value, float):
        return "float" if _is_single(value) else "json"
    if isinstance(value, str):
        return "text" if _utf8(value) else "json"
    if isinstance(value, list):
        inside = {_kind(part) for part in value}
        simple = len(inside) == 1 and isinstance(next(iter(inside)), str) and "json" not in inside
        return ("list", next(iter(inside))) if simple else "json" if inside else ("list", None)
    return "json"


def _is_single(value: float) -> bool:
    """Returns whether 32 bits hold the float exactly: all that tf.train.Example has."""
    if not math.isfinite(value):
        return True
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0] == value
    except OverflowError:
        return False


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_json(value: Any, where: str) -> None:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise DataError(f"{where}: found a key of a dict that is no text; convert it first")
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            _check_json(part, where)
    elif not (value is None or isinstance(value, str | bool | int | float)):
        raise DataError(
            f"{where}: found a {type(value).__name__}, which is no JSON value; convert it first"
        )


def _feature(tfds: Any, kind: Any) -> Any:
    import numpy as np

    f = tfds.features
    if isinstance(kind, tuple):
        return f.Sequence(_feature(tfds, kind[1]))
    if kind == "json":
        return f.Text(doc=JSON_TEXT)
    return (
        f.Text()
        if kind == "text"
        else f.Scalar({"int": np.int64, "float": np.float32, "bool": np.bool_}[kind])
    )


def _spelled(kind: Any, row: dict[str, Any], column: str) -> Any:
    if kind != "json":
        return row[column]
    if column not in row:
        return ""
    text = json.dumps(row[column], ensure_ascii=False)
    return text if _utf8(text) else json.dumps(row[column])
