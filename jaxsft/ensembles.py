"""Several trained runs as one model: the mean of their predictions, or of their weights.

The mean of the probabilities is the deep ensemble of Lakshminarayanan et al. (2017,
arXiv:1612.01474); the mean of the weights, and the greedy choice of whose, are the soups of
Wortsman et al. (2022, arXiv:2203.05482, algorithm 1).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft.config.adapters import BitFit, NoAdapter
from jaxsft.config.model import Architecture
from jaxsft.data.encoded_split import Split
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation.evaluate import Evaluation
from jaxsft.evaluation.row_metrics import metrics_of
from jaxsft.inference import Model
from jaxsft.metrics.base import Outputs
from jaxsft.sharding.weights import flatten
from jaxsft.tasks import rows
from jaxsft.tasks.prediction_lines import PredictionLines
from jaxsft.tasks.task import Task

# options of tasks by which a head, or what is behind it, computes
OF_HEADS = (
    *("pool", "head", "activation", "ordinal", "standardize", "encoder", "features"),
    "prior_correction",
)


@dataclasses.dataclass(frozen=True)
class Scored:
    """A file as a model read it, what it came to, and the task that reads the columns."""

    split: Split
    evaluation: Evaluation
    task: Task

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
      ConfigError: the models have several tasks, or other labels, or predictions without a mean.
      DataError: a row is scored by one model and not by another.
    """
    first, *others = models.items()
    for run, model in others:
        for what, of in (("task", lambda m: m.task.name), ("labels", _labels)):
            if of(model) != of(first[1]):
                raise ConfigError(
                    f"runs=: {what} of {run} is {of(model)!s:.80}, of {first[0]}"
                    f" {of(first[1])!s:.80}; expected the same of all"
                )
    if type(first[1].task).mixed is PredictionLines.mixed:
        first[1].task.mixed(())  # told before anything is scored
    found = {
        run: Scored(*model.scored(file, name)[:2], model.task) for run, model in models.items()
    }
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
    task = _of_rows(model.task)
    if task.tune(found[0].outputs):
        if chosen is None:
            raise ConfigError(
                "task.threshold=tuned: the thresholds of the runs are not those of their mean;"
                " expected select=FILE, rows that no run was trained on"
            )
        task = task.with_tuned(task.tune(_mean(task, chosen)[1]))
    columns, outputs = _mean(task, found)
    measured = metrics_of(task, outputs)
    numbers: dict[str, float] = {}
    for one in measured.values():
        numbers |= one.numbers()
    return Scored(found[0].split, Evaluation(numbers, columns, measured, outputs=outputs), task)


def _of_rows(task: Task) -> Task:
    """Returns a task that reads one prediction of a row, which all of its windows have."""
    if getattr(task.config.task, "windows", "mean") == "mean":
        return task
    task, options = copy.copy(task), dataclasses.replace(task.config.task, windows="mean")
    task.config = dataclasses.replace(task.config, task=options)
    return task


def _mean(task: Task, found: Sequence[Scored]) -> tuple[dict[str, np.ndarray], Outputs]:
    """Returns the columns of the mean of some predictions, and the outputs of their rows."""
    split = found[0].split
    mixed = task.mixed([one.outputs for one in found])
    parts = np.diff(np.append(rows.kept(split)[1], split.examples))  # of each row
    columns = {name: np.repeat(values, parts, axis=0) for name, values in mixed.items()}
    return columns, task.row_outputs(split, columns)


# --- weights
# --------------------------------------------------------------------------------------------------
def soup(models: Mapping[str, Model], select: str | None = None) -> Model:
    """Returns the model whose trained weights are the mean of those of several.

    Args:
      select: the file that thresholds (`task.threshold=tuned`) are tuned on.

    Raises:
      ConfigError: the models compute or read otherwise, have other weights, other frozen ones, or
        adapters, whose mean is not that of the weights; or thresholds have no rows.
    """
    first, *others = models.items()
    for run, model in models.items():
        if not isinstance(adapter := model.config.adapter, NoAdapter | BitFit):
            raise ConfigError(
                f"soup=: {run} has an adapter ({type(adapter).__name__}), and the mean of"
                " adapters is not the adapter of the mean of the weights; expected runs that"
                " train the weights themselves, or leave soup= out"
            )
    for run, model in others:
        for what, of in (("trained", lambda m: m.run.weights), ("frozen", lambda m: m.run.frozen)):
            _check_alike(what, (run, of(model)), (first[0], of(first[1])))
        _check_meaning((run, model), first)
    mean = lambda *xs: (sum(x.astype(jnp.float32) for x in xs) / len(xs)).astype(xs[0].dtype)
    weights = jax.tree.map(mean, *(model.run.weights for model in models.values()))
    return _tuned(Model(dataclasses.replace(first[1].run, weights=weights)), select)


def _tuned(model: Model, select: str | None) -> Model:
    """Returns a model with thresholds of its own, where the task tunes them. Raises ConfigError."""
    task = model.task
    if getattr(task.config.task, "threshold", None) != "tuned":
        return model
    if select is None:
        raise ConfigError(
            "task.threshold=tuned: the thresholds of the runs are not those of their soup;"
            " expected select=FILE, rows that no run was trained on"
        )
    outputs = model.scored(select, "select")[1].outputs
    parts = dataclasses.replace(model.run.parts, task=task.with_tuned(task.tune(outputs)))
    return Model(dataclasses.replace(model.run, parts=parts))


def _check_meaning(one: tuple[str, Model], other: tuple[str, Model]) -> None:
    """Raises ConfigError where the same weights would say something else in two runs."""
    (run, mine), (first, theirs) = ((name, _meaning(model)) for name, model in (one, other))
    for what in (name for name in mine | theirs if mine.get(name) != theirs.get(name)):
        values = " and ".join(f"{values.get(what)!r:.60}" for values in (mine, theirs))
        raise ConfigError(
            f"soup=: {what} of {run} and {first}: {values}; expected runs that differ in nothing"
            " that gives the weights another meaning"
        )


def _meaning(model: Model) -> dict[str, Any]:
    """Returns what weights are read by: the architecture, the tokenizer, what a task learnt."""
    config, task = model.config, model.task
    options = {f.name for f in dataclasses.fields(Architecture)} - {"context"}
    found = {f"model.{name}": getattr(config.model, name) for name in sorted(options)}
    found |= {f"task.{n}": getattr(config.task, n) for n in OF_HEADS if hasattr(config.task, n)}
    found["the tokenizer"] = task.tokenizer.digest
    pretrained, run = config.model.pretrained, config.train.init_from
    start = [
        str(Path(one).resolve()) if Path(one).exists() else one for one in (pretrained, run) if one
    ]
    found["what it started from,"] = start or f"seeds.init={config.seeds.init}"
    of_loss = () if found.get("task.prior_correction", 0) else ("counts", "rows", "transition")
    kept = task.state.keys() - {"thresholds", *of_loss}
    return found | {f"the {name} of training": task.state[name] for name in sorted(kept)}


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

    def value(model: Model) -> float:
        if number not in (numbers := model.scored(file, "select")[2]):
            raise ConfigError(
                f"evaluation.metric: there is no {number} of {file}; expected one of"
                f" {', '.join(numbers)}"
            )
        return sign * numbers[number]

    alone = {run: value(_tuned(model, file)) for run, model in models.items()}
    order = sorted(models, key=lambda run: -alone[run])
    kept, best = {order[0]: models[order[0]]}, alone[order[0]]
    for run in order[1:]:
        tried = {**kept, run: models[run]}
        if (found := value(soup(tried, file))) >= best:
            kept, best = tried, found
    return kept
