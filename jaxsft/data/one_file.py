"""One file that is split by content into training, validation and test (`data.fractions`)."""

from __future__ import annotations

from typing import Any

from jaxsft.config.schema import Config
from jaxsft.data import prepared, row_weights, split_rule
from jaxsft.data.file_records import Parsed, Records, beside, check_some, parse_some, usable_rows
from jaxsft.data.ledger import Aside
from jaxsft.data.records import parse_rows
from jaxsft.errors import ConfigError


def read_one_file(config: Config, task: Any) -> dict[str, Records]:
    """Reads `data.path` and splits its rows; what was put aside counts as training rows.

    Raises ConfigError where no row is left for training, and DataError.
    """
    d, aside = config.data, []
    rows = usable_rows(config, d.path, task, aside, split="", training=True)
    parsed = parse_some(config, rows, task, aside)
    check_some(parsed.records, aside, d.path)
    splits, _ = split_file(config, parsed, task, aside)
    if "train" not in splits:
        raise ConfigError(
            f"data.fractions={list(d.fractions)}: no row of {d.path} is left for training"
        )
    return splits


def split_file(
    config: Config, parsed: Parsed, task: Any, aside: list[Aside]
) -> tuple[dict[str, Records], int]:
    """Splits the rows of a file (`split_rule.split_file`).

    Args:
      parsed: without weights, which are read of the rows that train.
      aside: the rows that were put aside; they count as rows of train, and those whose weight is
        none join them.

    Returns: the splits that a row falls to; and how many rows went to train for a label that it
      would lack.

    Raises:
      DataError: a training row has no weight, unless `data.on_bad_row` is quarantine.
    """
    d = config.data
    parts, moved = split_rule.split_file(
        parsed.rows, parsed.records, task, d.fractions, d.split_seed
    )
    out = {
        name: Records(records, [row.where for row in rows], beside=beside(config, rows))
        for name, (rows, records) in zip(prepared.SPLITS, parts, strict=True)
        if rows
    }
    if "train" not in out:
        return out, moved
    record_of = {id(row): record for row, record in zip(*parts[0], strict=True)}
    weighted = lambda row, columns: row_weights.weighted(record_of[id(row)], row, columns)
    rows, records = parse_rows(parts[0][0], weighted, d.columns, aside, d.on_bad_row)
    notes = (
        (f"{moved:,} rows are in train, which would lack a label of theirs by the split alone",)
        if moved
        else ()
    )
    where = [row.where for row in rows]
    out["train"] = out["train"]._replace(records=records, where=where, aside=aside, notes=notes)
    return out, moved
