"""The entry of a split in `ledger.json`: rows, tokens, packing, lengths, row weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft.data.encoded_split import Split
from jaxsft.data.ledger import length_summary
from jaxsft.data.packing import PackingPlan
from jaxsft.data.pipeline import Batches


def ledger_entry(batches: Batches) -> dict[str, Any]:
    """Returns the split's entry of `ledger.json`."""
    entry = {
        **batches.split.ledger,
        "packing": packing_facts(batches.plan),
        "lengths": length_summary(batches.split.lengths),
    }
    if batches.mix is not None:
        entry["mixture"] = batches.mix.as_dict()
    entry |= _weight_summary(batches.split)
    sources = batches.split.source_lengths
    return entry if sources is None else entry | {"source_lengths": length_summary(sources)}


def packing_facts(plan: PackingPlan) -> dict[str, Any]:
    """Returns the sizes of a plan, and how full its rows are."""
    fill = lambda real, row: {
        "fill": real / max(plan.rows * row, 1),
        "real": real,
        "padded": plan.rows * row - real,
    }
    facts = {
        "rows": plan.rows,
        "row_length": plan.row_length,
        "examples": len(plan.members),
        "max_texts_per_row": plan.texts,
        **fill(plan.tokens, plan.row_length),
    }
    if plan.source_length:
        source = fill(plan.source_tokens, plan.source_length)
        facts["source"] = {"row_length": plan.source_length, **source}
    return facts


def _weight_summary(split: Split) -> dict[str, Any]:
    """Returns `weights`: least, mean and largest row weight; empty where every row weighs 1.

    Weights are those of `data.columns.weight`, over the rows that are kept.
    """
    weights = np.array(
        [
            getattr(record, "weight", 1.0)
            for i, record in enumerate(split.records)
            if i not in split.dropped
        ]
    )
    if np.all(weights == 1):
        return {}
    low, mean, high = (float(v) for v in (weights.min(), weights.mean(), weights.max()))
    return {"weights": {"min": low, "mean": mean, "max": high}}
