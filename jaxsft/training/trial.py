"""One training of a session: a pytree of state with what the host knows of it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsft import rundir
from jaxsft.config.schema import Config
from jaxsft.config.until import Until
from jaxsft.errors import JaxsftError
from jaxsft.models import step_sums
from jaxsft.tasks.loss_terms import objective_value
from jaxsft.training.hyper import Hyper
from jaxsft.training.step import State, StepMetrics


class Diverged(JaxsftError):
    """A loss or gradient was not finite under train.on_nan=stop."""


@dataclasses.dataclass
class Trial:
    """The state of one training, and what tells it from the others of its session.

    Attributes:
      config: with the options that are traced as this trial has them.
      hyper: the traced values.
      state: on the devices; the step donates it.
      best: value and step of the best evaluation.
      impatience: evaluations since the best one. validated: the step of the last one.
      total: the steps of the whole training. pruned: whether a search ends it early.
      reached: whether `train.until` held at an evaluation.
      window: sums that were merged since the last log line. window_skipped: the steps among them
        that were skipped.
      tuned: what the task has learnt from the validation split, such as thresholds.
    """

    config: Config
    hyper: Hyper
    state: State
    best: dict[str, Any] = dataclasses.field(default_factory=lambda: {"value": None, "step": None})
    impatience: int = 0
    validated: int = 0
    total: int = 0
    pruned: bool = False
    reached: bool = False
    window: Any = None
    window_skipped: int = 0
    tuned: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def step(self) -> int:
        """Returns the number of steps taken; waits for the device."""
        return int(self.state.step)

    # --- what a step reports
    # ----------------------------------------------------------------------------------------------
    def observe(self, metrics: StepMetrics) -> None:
        """Adds the sums of one step, read from the device, to the window.

        Raises:
          Diverged: they are not finite, under train.on_nan=stop.
        """
        self.window_skipped += int(metrics.skipped)
        if (
            metrics.skipped
            and self.config.train.on_nan == "stop"
            and not (
                np.isfinite(metrics.grad_norm)
                and all(np.isfinite(v) for v in metrics.terms.values())
            )
        ):
            raise Diverged(
                f"step {int(metrics.step) + 1}: the gradient is not finite (norm"
                f" {float(metrics.grad_norm)}, {terms_text(metrics)}); the newest checkpoint is"
                " from before it; lower optim.learning_rate, or set train.on_nan=skip"
            )
        sums = (metrics.terms, metrics.totals, metrics.states)
        self.window = step_sums.merge(self.window, step_sums.widen(sums))

    def summary(self, metrics: StepMetrics) -> dict[str, Any]:
        """Returns the numbers of a log line, and begins a new window.

        Loss and metrics are those of the window, rate and norm those of its last step.
        """
        terms, totals, merged = self.window
        values = {"loss": objective_value(terms, totals, self.hyper["terms"])}
        for state in merged.values():
            values |= state.brief()
        rate = float(metrics.learning_rate)
        values |= {
            "learning_rate": rate,
            **self._group_rates(rate),
            "grad_norm": float(metrics.grad_norm),
            "skipped": self.window_skipped,
        }
        self.window, self.window_skipped = None, 0
        return values

    def _group_rates(self, rate: float) -> dict[str, float]:
        """Returns the learning rate of each group, by a name that trackers accept.

        The name is made of the letters and digits of the group's pattern.
        """
        return {
            f"learning_rate_{'_'.join(re.findall(r'[A-Za-z0-9]+', g.pattern))}": rate * g.factor
            for g in self.config.optim.lr_groups
        }

    # --- what an evaluation says
    # ----------------------------------------------------------------------------------------------
    def judge(self, step: int, numbers: Mapping[str, float], metric: str, sign: int) -> None:
        """Notes the numbers of an evaluation at a step, and whether `train.until` holds for them.

        `metric` is that of `evaluation.metric`, `sign` -1 where less of it is better. A value that
        is not finite is no improvement. Nothing counts before pruning has ended: the best weights
        would have fewer zeros than was asked for.
        """
        if step <= self.hyper.get("prune_end", self.hyper.get("prune_begin", -1)):
            return
        value, until = numbers[metric], self.config.train.until
        if until is not None and Until.read(until).holds(numbers):
            self.reached = True
        if math.isfinite(value) and (
            self.best["value"] is None or sign * value > sign * self.best["value"]
        ):
            self.best, self.impatience = {"value": value, "step": step}, 0
        else:
            self.impatience += 1

    @property
    def out_of_patience(self) -> bool:
        """Returns whether as many evaluations as `evaluation.patience` brought no improvement."""
        patience = self.config.evaluation.patience
        return patience is not None and self.impatience >= patience

    @property
    def stops_early(self) -> bool:
        """Returns whether the trial has had its last step, before its end."""
        return self.pruned or self.reached or self.out_of_patience

    # --- what a checkpoint keeps beside the state
    # ----------------------------------------------------------------------------------------------
    def meta(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps beside the state, as plain JSON."""
        return {
            "best": self.best,
            "impatience": self.impatience,
            "validated": self.validated,
            "reached": self.reached,
            "window": _to_json(self.window),
            "window_skipped": self.window_skipped,
        }

    def restore(self, state: State, meta: rundir.Stored, empty_window: Any) -> None:
        """Restores state and meta of a checkpoint.

        `empty_window` has the structure of a window of metrics.
        """
        self.state = state
        self.best, self.impatience = meta["best"], meta["impatience"]
        self.validated = meta["validated"]
        self.reached = meta.get("reached", False)  # checkpoints of earlier versions have none
        self.window = _from_json(meta["window"], empty_window)
        self.window_skipped = meta["window_skipped"]


def terms_text(metrics: StepMetrics) -> str:
    """Returns the mean of each loss term of a step: `cross_entropy 2.31, z_loss 0.04`."""
    totals: Mapping[str, Any] = metrics.totals
    return ", ".join(
        f"{name} {float(value) / max(float(totals[name]), 1e-30):.4g}"
        for name, value in metrics.terms.items()
    )


def _to_json(window: Any) -> list | None:
    return None if window is None else [np.asarray(x).tolist() for x in jax.tree.leaves(window)]


def _from_json(values: list | None, like: Any) -> Any:
    if values is None:
        return None
    leaves = [
        np.asarray(v, np.int64 if x.dtype.kind == "i" else np.float64)
        for v, x in zip(values, jax.tree.leaves(like), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def common_step(trials: Sequence[Trial]) -> int:
    """Returns the steps that all trials have taken. Raises JaxsftError where they differ."""
    taken = sorted({trial.step for trial in trials})
    if len(taken) > 1:
        raise JaxsftError(
            f"the trials of a session have taken {taken[0]} to {taken[-1]} steps; expected the same"
            " number: let all of them go on from the same checkpoint"
        )
    return taken[0]
