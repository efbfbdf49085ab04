"""The training rows of a mixture of data sets."""

from __future__ import annotations

from typing import Any

from jaxsft.config.schema import Config
from jaxsft.data import prepared
from jaxsft.data.file_records import Records, beside, read_split
from jaxsft.data.ledger import Aside
from jaxsft.errors import DataError


def read_mixture(config: Config, task: Any) -> Records:
    """Reads the training rows of `data.mixture.sources`, one source after another. Raises DataError
    where one has no row, or a row is in two of them.
    """
    records: list[Any] = []
    aside: list[Aside] = []
    source: dict[str, int] = {}
    more: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(config.data.mixture.sources):
        prepared.check_raw(one.path)
        parsed = read_split(config, one.path, task, aside, "train")
        if not parsed.records:
            raise DataError(f"data.mixture: no row of {one.path} gives a record")
        if twice := [row.where for row in parsed.rows if row.where in source]:
            raise DataError(
                f"{twice[0]}: is in two sources of data.mixture; give each of them its own files"
            )
        source |= {row.where: number for row in parsed.rows}
        records += parsed.records
        more |= beside(config, parsed.rows) if config.evaluation.on_train else {}
    return Records(records, list(source), aside, source=source, beside=more)
