"""The plan of a mixture of data sets: each source is packed by itself, and an epoch reads a share
of the rows of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxsft.data import mixture
from jaxsft.data.packing import PackingPlan
from jaxsft.errors import DataError


class Mix(NamedTuple):
    """The rows of a mixture's sources in a plan.

    `starts` `[sources + 1]` says where each begins; `taken` and `examples` `[sources]`, how
    many rows an epoch reads and how many examples there are.
    """

    starts: np.ndarray
    taken: np.ndarray
    examples: np.ndarray
    paths: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Returns how many rows an epoch reads."""
        return int(self.taken.sum())

    @property
    def expected_examples(self) -> int:
        """Returns the expected number of examples of an epoch."""
        return round(float((self.taken * self.examples / np.diff(self.starts)).sum()))

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the plan rows of an epoch in order, `[rows]`."""
        return mixture.order(self.starts, self.taken, seed, epoch)

    def as_dict(self) -> list[dict[str, Any]]:
        rows, share = np.diff(self.starts).tolist(), (self.taken / self.taken.sum()).tolist()
        columns = zip(
            self.paths, self.examples.tolist(), rows, self.taken.tolist(), share, strict=True
        )
        return [
            dict(zip(("path", "examples", "rows", "rows_per_epoch", "share"), values, strict=True))
            for values in columns
        ]


def plan_mixture(
    mixed: np.ndarray, options: Any, make: Callable[[np.ndarray], PackingPlan]
) -> tuple[PackingPlan, Mix]:
    """Plans a mixture, so that a row is of one source.

    Args:
      mixed: `[examples]`, the source of each.
      options: `data.mixture`.
      make: plans some of the examples.

    Raises:
      DataError: a source has no example.
    """
    ids = [np.flatnonzero(mixed == i) for i in range(len(options.sources))]
    if empty := [s.path for s, mine in zip(options.sources, ids, strict=True) if not len(mine)]:
        raise DataError(
            f"data.mixture: no row of {empty[0]} can be trained on; see the reasons by jaxsft check"
            f" data.train={empty[0]}"
        )
    plans = [make(mine) for mine in ids]
    rows = [plan.rows for plan in plans]
    weights = [source.weight for source in options.sources]
    share = mixture.shares(rows, weights, options.temperature)
    sizes = [np.diff(plan.offsets) for plan in plans]
    whole = dataclasses.replace(
        plans[0],
        members=np.concatenate([mine[plan.members] for mine, plan in zip(ids, plans, strict=True)]),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(sizes))]),
        texts=max(plan.texts for plan in plans),
        tokens=sum(plan.tokens for plan in plans),
        source_tokens=sum(plan.source_tokens for plan in plans),
    )
    return whole, Mix(
        np.concatenate([[0], np.cumsum(rows)]),
        mixture.counts(rows, share, options.exhausted),
        np.array([len(mine) for mine in ids]),
        tuple(source.path for source in options.sources),
    )
