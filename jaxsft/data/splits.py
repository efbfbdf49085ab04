"""From the files of a config to the records of its splits.

`task` is everywhere a task or its `records.Kind`: what is asked of it here needs no model.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.schema import Config
from jaxsft.data import prepared
from jaxsft.data.file_records import Records, beside, check_some, read_split
from jaxsft.data.ledger import Aside
from jaxsft.data.mixture_rows import read_mixture
from jaxsft.data.one_file import read_one_file
from jaxsft.data.unseen_labels import seen


def read_splits(config: Config, task: Any) -> dict[str, Records]:
    """Reads train, and validation and test where there are any. Raises ConfigError and DataError.

    Each has a file (`file_records.read_split`), or `data.path` is divided by the content of its
    rows (`one_file.read_one_file`). What gives no record is put aside with its reason; of one file
    that is divided it counts as training rows.
    """
    d = config.data
    out = read_one_file(config, task) if d.path else _of_files(config, task)
    if d.unseen_labels == "drop":
        known = {label for record in out["train"].records for label in task.classes(record)}
        out = {
            name: split if name == "train" else seen(split, task, known)
            for name, split in out.items()
        }
    return {
        name: arranged(task, split, d.columns, training=name == "train")
        for name, split in out.items()
    }


def _of_files(config: Config, task: Any) -> dict[str, Records]:
    """Reads the file of each split; those of a mixture are the training rows together."""
    d, out = config.data, {}
    files = {name: file for name in prepared.SPLITS if (file := getattr(d, name))}
    if d.train:
        prepared.check_alike(files)
    else:
        out["train"] = read_mixture(config, task)
    for name, file in files.items():
        aside: list[Aside] = []
        parsed = read_split(config, file, task, aside, name)
        check_some(parsed.records, aside, file)
        scored = name != "train" or config.evaluation.on_train
        more = beside(config, parsed.rows) if scored else {}
        out[name] = Records(parsed.records, [row.where for row in parsed.rows], aside, beside=more)
    return out


def arranged(task: Any, split: Records, columns: Any, training: bool) -> Records:
    """Returns the records as the model meets them (`Task.arrange`)."""
    records, where = task.arrange(split.records, split.where, columns, training)
    return split._replace(
        records=records,
        where=where,
        rows=None if len(records) == len(split.records) else len(split.records),
    )
