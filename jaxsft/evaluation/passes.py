"""One pass over a split: the sums of the loss and what the model gives of each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsft.data import pipeline
from jaxsft.data.pipeline import Batch, Batches
from jaxsft.models import step_sums


class Passed:
    """The results of a pass over a split of one model, each example and word exactly once; where
    the batches are of chosen examples, the columns of the others are 0.

    Attributes:
      sums: (terms, totals, states), merged. columns: `[examples, ...]` by name.
    """

    def __init__(self, batches: Batches, decoded: Callable[[dict], dict]):
        """Starts with nothing."""
        self.sums: Any = None
        self.columns: dict[str, np.ndarray] = {}
        self._batches, self._decoded = batches, decoded
        self._seen = np.zeros(batches.split.examples, np.int64)

    def add(self, step: int, new: Any, values: Mapping[str, Any]) -> None:
        """Adds what a batch gave, on the host."""
        batches, seen = self._batches, self._seen
        self.sums = step_sums.merge(self.sums, step_sums.widen(new))
        ids, words = batches.example_ids(step), batches.word_ids(step)
        np.add.at(seen, ids[ids >= 0], 1)
        for name, value in self._decoded(values).items():
            to, count = (
                (words, batches.split.words) if name.startswith("word.") else (ids, len(seen))
            )
            column = self.columns.setdefault(name, np.zeros((count, *value.shape[2:]), value.dtype))
            column[to[to >= 0]] = value[to >= 0]

    def check(self) -> None:
        """Asserts that the pass had all that was asked for."""
        asked = np.ones(len(self._seen), np.int64)
        if self._batches.chosen is not None:
            asked = np.bincount(self._batches.chosen, minlength=len(self._seen))
        assert (self._seen == asked).all(), "an example was evaluated twice or not at all"


def run_pass(
    run: Callable[[Batch], tuple[Any, Mapping[str, Any]]],
    batches: Batches,
    decoded: Callable[[dict], dict] = lambda columns: columns,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns (terms, totals, states) and columns of a split, as of `Passed`.

    Args:
      decoded: what the host makes of the columns of a batch.
    """
    return run_passes(run, batches, [None], decoded)[0]


def run_passes(
    run: Callable[[Batch], tuple[Any, Mapping[str, Any]]],
    batches: Batches,
    places: Sequence[int | None],
    decoded: Callable[[dict], dict] = lambda columns: columns,
) -> list[tuple[Any, dict[str, np.ndarray]]]:
    """Returns what one pass gives of several models that run together, as `run_pass` of each.

    The device is read one batch late.

    Args:
      places: of the models on the leading axis of what `run` gives; None: it has none.
    """
    passed = [Passed(batches, decoded) for _ in places]

    def read(step: int, result: Any) -> None:
        result = jax.device_get(result)
        for one, place in zip(passed, places, strict=True):
            own = result if place is None else jax.tree.map(lambda x, i=place: x[i], result)
            one.add(step, *own)

    late = None
    for step, batch in enumerate(pipeline.stream(batches, 0, len(batches))):
        result = run(batch)
        if late is not None:
            read(*late)
        late = (step, result)
    read(*late)
    for one in passed:
        one.check()
    return [(one.sums, one.columns) for one in passed]
