"""Labels of a split that no row of train has (`data.unseen_labels=drop`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from jaxsft.data.file_records import Records
from jaxsft.data.ledger import Aside


def seen(split: Records, task: Any, known: Collection[tuple[str, str]]) -> Records:
    """Returns the rows whose labels (`Kind.classes`) are all known; the others are put aside as
    `unseen_label`.
    """
    keep, aside = [], list(split.aside)
    for i, (record, where) in enumerate(zip(split.records, split.where, strict=True)):
        if new := [name for kind, name in task.classes(record) if (kind, name) not in known]:
            file, _, line = where.rpartition(":")
            message = f"{where}: no row of train has the label {new[0]!r}"
            aside.append(Aside(file, int(line), "unseen_label", message, declared=True))
        else:
            keep.append(i)
    return split._replace(
        records=[split.records[i] for i in keep],
        where=[split.where[i] for i in keep],
        aside=aside,
    )
