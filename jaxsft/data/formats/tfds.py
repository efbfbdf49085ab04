"""Data sets that TensorFlow Datasets has prepared, read and written without TensorFlow.

Read is what `tfds.builder_from_directory(folder).as_data_source(split)` reads: ArrayRecord and
Parquet. Written is ArrayRecord, one tf.train.Example per row, in shards of at most 5,000 records:
one read of a record takes time in proportion to the records of its file.

A tf.train.Example has texts, 64-bit integers and 32-bit floats, flat or in a list. What they do not
hold (nested values, nulls, absent fields, mixed types, floats of 64 bits) is written as JSON text,
and the feature's description, `JSON_TEXT`, says so: the reader gives the rows back exactly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.config.option import option
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Tree
from jaxsft.errors import ConfigError, DataError

JSON_TEXT = "JSON text; an empty text stands for no field"
PER_SHARD = 5_000
BATCH = 256  # records that are fetched at once: far faster than one by one
_named_set = re.compile(r"tfds:(?P<name>/?[\w.-]+(?:/[\w.-]+)*)(?::(?P<split>.+))?")
_version = re.compile(r"\d+\.\d+\.\d+")


@dataclasses.dataclass(frozen=True, slots=True)
class TfdsOptions:
    split: str = option(
        "", "such as train, or a part of one, train[:10%]; may stay empty where there is only one"
    )
    class_names: bool = option(
        True, "the ids of a ClassLabel become its names (-1, no label, becomes null); false: ids"
    )
    columns: Sequence[str] = option(
        (),
        "that the caller wants; others are left out where they hold what no text is, such as"
        " images",
    )


# --- where it is
# --------------------------------------------------------------------------------------------------
def located(path: str) -> tuple[Path, str]:
    """Returns the folder and the split that `tfds:name[/config][/version][:split]` means.

    It lies below TFDS_DATA_DIR or ~/tensorflow_datasets. Without a version it is the newest;
    without a config, the only one. The name may be the folder of a data set itself,
    `tfds:path/to/set:train`.

    Raises:
      DataError: there is none, or there are several configs (they are listed).
    """
    matched = _named_set.fullmatch(path)
    if not matched:
        raise DataError(
            f"{path}: expected tfds:name[/config][/version][:split], such as tfds:glue/sst2:train"
        )
    if (Path(matched["name"]) / "dataset_info.json").is_file():
        return Path(matched["name"]), matched["split"] or ""
    root = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder, split = root / matched["name"], matched["split"] or ""
    while not (folder / "dataset_info.json").is_file():
        inside = (
            sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
            if folder.is_dir()
            else []
        )
        versions = sorted(
            (name for name in inside if _version.fullmatch(name)),
            key=lambda v: [int(part) for part in v.split(".")],
        )
        if versions:
            folder /= versions[-1]
        elif len(inside) == 1:
            folder /= inside[0]
        elif inside:
            raise DataError(
                f"{path}: found the configs {', '.join(inside)} in {folder}; name one,"
                f" tfds:{matched['name']}/<config>"
            )
        else:
            raise DataError(
                f"{path}: there is no prepared data set in {folder}; set TFDS_DATA_DIR to the"
                " folder that holds it"
            )
    return folder, split


def _is_prepared(tree: Tree) -> bool:
    return "dataset_info.json" in tree.files and "features.json" in tree.files


# --- read
# --------------------------------------------------------------------------------------------------
def read(tree: Tree, encoding: str, options: TfdsOptions) -> Numbered:
    """Reads the rows of a split, numbered from 1.

    Texts are decoded, class ids become names, sequences lists, a sequence of dicts a list of
    dicts.

    Raises:
      DataError: damaged; no such split, or several and none is chosen (they are listed); prepared
        in a file format that needs TensorFlow; a wanted feature (`columns`) that is no text, number
        or list of them.
    """
    import tensorflow_datasets as tfds

    if not tree.path.is_dir():
        raise DataError(
            f"{tree.name}: a TFDS data set is read from a folder; unpack the archive first"
        )
    with _told(tree.name):
        builder = tfds.builder_from_directory(str(tree.path))
        splits = list(builder.info.splits)
    split = options.split or (splits[0] if len(splits) == 1 else "")
    if re.split(r"[\[+]", split)[0] not in splits:
        what = f"there is no split {split!r}" if split else "there are several splits"
        raise DataError(
            f"{tree.name}: {what}; set data.options.split to one of {', '.join(splits)}"
        )
    features = _wanted(tfds, tree.name, builder.info.features, options.columns)
    skipped = {
        name: tfds.decode.SkipDecoding() for name in builder.info.features if name not in features
    }
    try:
        records = builder.as_data_source(split, decoders=skipped or None)
        expected = builder.info.splits[split].num_examples
    except NotImplementedError:
        kind = builder.info.file_format.value
        raise DataError(
            f"{tree.name}: {kind} files need TensorFlow; prepare the data set with"
            " file_format='array_record'"
        ) from None
    # a RecursionError too: a split that is called all
    except (AssertionError, ValueError, KeyError, OSError, RuntimeError) as error:
        raise DataError(
            f"{tree.name}: the split {split!r} cannot be read ({_sentence(error)}); there are"
            f" {', '.join(splits)}"
        ) from None
    if len(records) != expected:  # TFDS reads a part of a split from Parquet as the whole
        raise DataError(
            f"{tree.name}: the split {split!r} gives {len(records)} rows, expected {expected};"
            " choose a whole split, or prepare it again"
        )
    for begin in range(0, len(records), BATCH):
        with _told(tree.name):
            part = records.__getitems__(list(range(begin, min(begin + BATCH, len(records)))))
        for line, record in enumerate(part, start=begin + 1):
            try:
                values = {
                    name: _plain(tfds, feature, record[name], options)
                    for name, feature in features.items()
                }
            except ValueError as error:  # JSON and UTF-8 errors are of this kind too
                yield Bad(line, f"the record cannot be read ({_sentence(error)})")
            else:
                yield line, {name: value for name, value in values.items() if value is not _ABSENT}


def _wanted(
    tfds: Any, name: str, features: Mapping[str, Any], columns: Sequence[str]
) -> dict[str, Any]:
    """Returns the features that become columns: all, or those in `columns`.

    Raises DataError where one of them has no text form.
    """
    wanted = {}
    for column, feature in features.items():
        barred = _barred(tfds, feature)
        if barred and (not columns or column in columns):
            raise DataError(
                f"{name}: the feature {column!r} is {barred}, which is no text; set"
                " data.options.columns=[<column>, ...] to those that you want"
            )
        if not barred:
            wanted[column] = feature
    return wanted


def _barred(tfds: Any, feature: Any) -> str | None:
    f = tfds.features
    if isinstance(feature, f.FeaturesDict):
        return next((found for part in feature.values() if (found := _barred(tfds, part))), None)
    if isinstance(feature, f.Image | f.Video | f.Audio | f.Dataset):
        return f"of the kind {type(feature).__name__}"
    if isinstance(feature, f.Sequence):
        return _barred(tfds, feature.feature)
    if isinstance(feature, f.Tensor) and len(feature.shape) > 1:
        return f"a tensor of the shape {feature.shape}"
    return None


_ABSENT = object()


def _plain(tfds: Any, feature: Any, value: Any, options: TfdsOptions) -> Any:
    f = tfds.features
    if isinstance(feature, f.Text) and feature.doc.desc == JSON_TEXT:
        return json.loads(value) if value else _ABSENT
    if isinstance(feature, f.FeaturesDict):
        return {key: _plain(tfds, part, value[key], options) for key, part in feature.items()}
    # TFDS keeps a list of dicts as a dict of lists
    if isinstance(feature, f.Sequence) and isinstance(feature.feature, f.FeaturesDict):
        columns = {
            key: _plain(tfds, f.Sequence(part), value[key], options)
            for key, part in feature.feature.items()
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(feature, f.Sequence):
        return [_plain(tfds, feature.feature, part, options) for part in value]
    if isinstance(feature, f.ClassLabel) and options.class_names and feature.names:
        if not -1 <= int(value) < len(feature.names):
            raise ValueError(f"class id {int(value)}, expected -1 to {len(feature.names) - 1}")
        return None if int(value) == -1 else feature.names[int(value)]
    return _value(value)


def _value(value: Any) -> Any:
    """Converts numpy values to Python's, and bytes to text."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, Mapping):
        return {str(key): _value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_value(part) for part in value]
    return _value(value.tolist()) if hasattr(value, "tolist") else value


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    # protobuf, absl, pyarrow, json and the system: every kind that a damaged file can raise
    except Exception as error:
        raise DataError(
            f"{name}: the data set is damaged, or none that TFDS prepared ({_sentence(error)});"
            " prepare it again"
        ) from None


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# --- write
# --------------------------------------------------------------------------------------------------
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
    if not _version.fullmatch(version):
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


FORMAT = Format(
    "tfds",
    (),
    read,
    "the features of a data set that TensorFlow Datasets prepared",
    TfdsOptions,
    _is_prepared,
    tree=True,
    order=10,
)
