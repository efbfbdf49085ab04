"""Several trained runs as one model: the mean of their predictions, or of their weights.

The mean of the probabilities is the deep ensemble of Lakshminarayanan et al. (2017,
arXiv:1612.01474); the mean of the weights, and the greedy choice of whose, are the soups of
Wortsman et al. (2022, arXiv:2203.05482, algorithm 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft.data.encoded_split import Split
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation.evaluate import Evaluation
from jaxsft.evaluation.row_metrics import metrics_of
from jaxsft.inference import Model
from jaxsft.metrics.base import Outputs
from jaxsft.sharding.weights import flatten
from jaxsft.tasks import rows


@dataclasses.dataclass(frozen=True)
class Scored:
    """A file as a model read it, and what it came to; `rows_read` counts those left out too."""

    split: Split
    evaluation: Evaluation

    @property
    def outputs(self) -> Outputs:
        assert self.evaluation.outputs is not None
        return self.evaluation.outputs

    @property
    def where(self) -> list[str]:
        """Returns the file and line of each row that was scored."""
        return [self.split.where[row] for row in self.outputs.rows]


def score(models: Mapping[str, Model], file: str, name: str) -> dict[str, Scored]:
    """Evaluates each model alone on a file.

    Raises:
      ConfigError: the models have several tasks, or other labels.
      DataError: a row is scored by one model and not by another.
    """
    first, *others = models.items()
    for run, model in others:
        for what, of in (("task", lambda m: m.task.name), ("labels", _labels)):
            if of(model) != of(first[1]):
                raise ConfigError(
                    f"runs=: {what} of {run} is {of(model)}, of {first[0]} {of(first[1])};"
                    " expected the same of all"
                )
    found = {run: Scored(*model.scored(file, name)[:2]) for run, model in models.items()}
    there = found[first[0]].where
    for run, one in found.items():
        if one.where != there:
            row = min(set(one.where) ^ set(there), key=lambda text: (len(text), text))
            has, lacks = (run, first[0]) if row in one.where else (first[0], run)
            raise DataError(
                f"{row}: is scored by {has} and left out by {lacks}; expected rows that each of"
                " the runs takes (data.max_length, data.too_long)"
            )
    return found


def _labels(model: Model) -> Any:
    return model.task.state.get("labels") or model.task.state.get("targets")


def ensemble(model: Model, found: Sequence[Scored], chosen: Sequence[Scored] | None) -> Scored:
    """Evaluates the mean of the predictions of several models.

    Args:
      model: the first of them, whose task reads the mean.
      found: what each made of the file. chosen: of the rows that thresholds are tuned on.

    Raises:
      ConfigError: predictions of the task have no mean, or thresholds have no rows to be tuned on.
    """
    task = model.task
    if task.tune(found[0].outputs):
        if chosen is None:
            raise ConfigError(
                "task.threshold=tuned: the thresholds of the runs are not those of their mean;"
                " expected select=FILE, rows that no run was trained on"
            )
        task = task.with_tuned(task.tune(_mean(model, chosen)[1]))
    split, outputs, columns = found[0].split, *reversed(_mean(model, found, task))
    measured = metrics_of(task, outputs)
    numbers: dict[str, float] = {}
    for one in measured.values():
        numbers |= one.numbers()
    return Scored(split, Evaluation(numbers, columns, measured, outputs=outputs))


def _mean(
    model: Model, found: Sequence[Scored], task: Any = None
) -> tuple[dict[str, np.ndarray], Outputs]:
    """Returns the columns of the mean of some predictions, and the outputs of their rows."""
    task = task or model.task
    split = found[0].split
    mixed = task.mixed([one.outputs for one in found])
    parts = np.diff(np.append(rows.kept(split)[1], split.examples))  # of each row
    columns = {name: np.repeat(values, parts, axis=0) for name, values in mixed.items()}
    return columns, task.row_outputs(split, columns)


# --- weights
# --------------------------------------------------------------------------------------------------
def soup(models: Mapping[str, Model]) -> Model:
    """Returns the model whose trained weights are the mean of those of several.

    Raises:
      ConfigError: the models have other weights, or other frozen ones.
    """
    first, *others = models.items()
    for run, model in others:
        for what, of in (("trained", lambda m: m.run.weights), ("frozen", lambda m: m.run.frozen)):
            _check_alike(what, (run, of(model)), (first[0], of(first[1])))
    mean = lambda *xs: (sum(x.astype(jnp.float32) for x in xs) / len(xs)).astype(xs[0].dtype)
    weights = jax.tree.map(mean, *(model.run.weights for model in models.values()))
    return Model(dataclasses.replace(first[1].run, weights=weights))


def _check_alike(what: str, one: tuple[str, Any], other: tuple[str, Any]) -> None:
    """Raises ConfigError where weights differ: frozen ones at all, trained ones in their shape."""
    (run, mine), (first, theirs) = ((name, flatten(tree)) for name, tree in (one, other))
    for path in sorted(mine.keys() | theirs.keys()):
        there = path in mine and path in theirs
        same = there and mine[path].shape == theirs[path].shape
        if same and (what == "trained" or bool(jnp.array_equal(mine[path], theirs[path]))):
            continue
        raise ConfigError(
            f"runs=: {path} of {run} is {what} and not as in {first}; expected runs of one model"
            " that started from the same weights"
        )


def greedy_soup(
    models: Mapping[str, Model], file: str, number: str, lower_is_better: bool
) -> dict[str, Model]:
    """Returns the models whose soup is best on a file.

    The best model comes first; each of the others, the better one before, stays where the soup is
    not worse with it.
    """
    sign = -1 if lower_is_better else 1
    value = lambda model: sign * model.scored(file, "select")[2][number]
    alone = {run: value(model) for run, model in models.items()}
    order = sorted(models, key=lambda run: -alone[run])
    kept, best = {order[0]: models[order[0]]}, alone[order[0]]
    for run in order[1:]:
        tried = {**kept, run: models[run]}
        if (found := value(soup(tried))) >= best:
            kept, best = tried, found
    return kept
