"""A range test of the learning rate: the same training at many rates, as one compiled program.

Each rate starts from the same weights and sees the same batches, at a constant rate behind the
warm-up. Smith (2015, arXiv:1506.01186) raises the rate within one training instead, where each
rate goes on from what the one before has left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxsft.config.schema import SCHEDULES, Config
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.sharding import hosts, platforms
from jaxsft.tasks.loss_terms import objective_value
from jaxsft.training import device, loop, setup, stack
from jaxsft.training.stacked_session import StackedSession
from jaxsft.training.trial import Trial

NEAR = 0.1  # of the fall of the loss at the best rate: what a lower rate may lose against it


class RateRange(NamedTuple):
    """The losses of a range test.

    Attributes:
      rates: `[rates]`, rising.
      losses: of the training batches, `[steps, rates]`; NaN from where a rate diverged.
    """

    rates: np.ndarray
    losses: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """Returns the mean loss over the last third of the steps, `[rates]`; infinity where it
        diverged.
        """
        tail = self.losses[-max(len(self.losses) // 3, 1) :]
        return np.nan_to_num(tail.mean(0), nan=np.inf, posinf=np.inf)

    def suggested(self) -> float:
        """Returns the lowest rate, below the best one, that is nearly as good in these steps.

        The best rate of a short training is near the one that diverges; a longer one wants less.
        Nearly as good is what loses at most a tenth of the best one's fall of the loss, and so do
        all rates between the two.

        >>> fall = np.array([[3.0, 3, 3, 3], [2.9, 1.1, 1.0, np.nan]])
        >>> RateRange(np.array([1e-4, 1e-3, 1e-2, 1e-1]), fall).suggested()
        0.001

        Raises JaxsftError where no rate lowers the loss.
        """
        start, best = float(np.median(self.losses[0])), int(self.ends.argmin())
        fall = start - self.ends[best]
        if not fall > 0:
            raise JaxsftError(
                f"no rate from {self.rates[0]:.3g} to {self.rates[-1]:.3g} lowers the loss in"
                f" {len(self.losses)} steps; take more (probe.steps), or other rates (probe.low,"
                " probe.high)"
            )
        at = best
        while at and self.ends[at - 1] <= self.ends[best] + NEAR * fall:
            at -= 1
        return float(self.rates[at])


def measure(config: Config, rates: Sequence[float], steps: int) -> RateRange:
    """Trains a config for some steps at each rate. Raises JaxsftError."""
    optim = dataclasses.replace(config.optim, learning_rate=float(rates[0]))
    train = dataclasses.replace(config.train, duration=f"{steps}steps", on_nan="skip", until=None)
    schedule = SCHEDULES["constant"](warmup=config.schedule.warmup)
    shared = dataclasses.replace(config, optim=optim, train=train, schedule=schedule)
    hosts.start(shared.hosts)
    platforms.devices()
    device.keep_programs(shared.compilation_cache)
    shared = setup.resolve(shared)
    if why := stack.alone(shared):
        raise ConfigError(f"jaxsft probe rates: all rates are one program, but {why}")
    session = StackedSession(shared)
    trials = []
    for rate in rates:
        own = dataclasses.replace(session.config.optim, learning_rate=float(rate))
        trials.append(session.trial(dataclasses.replace(session.config, optim=own)))
        session.park(trials[-1])
    session.forget_starts()
    session.cache_backbone()
    most = stack.most_at_once(session, trials)
    parts = [trials[i : i + most] for i in range(0, len(trials), most)]
    losses = np.concatenate([_trained(session, part) for part in parts], 1)
    return RateRange(np.asarray(rates, float), losses)


def _trained(session: StackedSession, trials: Sequence[Trial]) -> np.ndarray:
    """Returns the loss of each step, `[steps, trials]`."""
    session.begin(trials)
    losses = []
    for batch in session.stream(0):
        found = session.split(trials, loop.fetch(session.advance(trials, batch)))
        losses.append(
            [
                objective_value(one.terms, one.totals, trial.hyper["terms"])
                for one, trial in zip(found, trials, strict=True)
            ]
        )
    session.drop()
    return np.array(losses, float)
