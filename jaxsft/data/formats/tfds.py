"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow.

Read is what `tfds.builder_from_directory(folder).as_data_source(split)` reads: ArrayRecord and
Parquet. `tfds_write.py` writes them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.config.option import option
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Tree
from jaxsft.errors import DataError

BATCH = 256  # records that are fetched at once: far faster than one by one
_named_set = re.compile(r"tfds:(?P<name>/?[\w.-]+(?:/[\w.-]+)*)(?::(?P<split>.+))?")
JSON_TEXT = "JSON text; an empty text stands for no field"  # as `tfds_write.py` describes it
VERSION = re.compile(r"\d+\.\d+\.\d+")


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
            (name for name in inside if VERSION.fullmatch(name)),
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
    records = _records(tfds, tree.name, builder, split, features)
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


def _records(
    tfds: Any, name: str, builder: Any, split: str, features: Mapping[str, Any]
) -> Sequence[Any]:
    """Opens a split, of which only some features are decoded. Raises DataError."""
    skipped = {
        one: tfds.decode.SkipDecoding() for one in builder.info.features if one not in features
    }
    try:
        records = builder.as_data_source(split, decoders=skipped or None)
        expected = builder.info.splits[split].num_examples
    except NotImplementedError:
        kind = builder.info.file_format.value
        raise DataError(
            f"{name}: {kind} files need TensorFlow; prepare the data set with"
            " file_format='array_record'"
        ) from None
    # a RecursionError too: a split that is called all
    except (AssertionError, ValueError, KeyError, OSError, RuntimeError) as error:
        raise DataError(
            f"{name}: the split {split!r} cannot be read ({_sentence(error)}); there are"
            f" {', '.join(builder.info.splits)}"
        ) from None
    if len(records) != expected:  # TFDS reads a part of a split from Parquet as the whole
        raise DataError(
            f"{name}: the split {split!r} gives {len(records)} rows, expected {expected};"
            " choose a whole split, or prepare it again"
        )
    return records


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
