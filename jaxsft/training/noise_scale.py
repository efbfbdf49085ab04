"""The noise scale of the gradient, which says up to which batch size a larger one helps
(McCandlish et al., 2018, arXiv:1812.06162, equation 2.9 and appendix A.1).

    B_simple = tr(S) / |G|^2        S: covariance of the gradient of a row, G: the mean gradient

Both are estimated without bias from the square norms of gradients of two batch sizes, b < B:

    |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b)      tr(S) = (|G_b|^2 - |G_B|^2) / (1/b - 1/B)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from jaxsft.config.schema import Config
from jaxsft.data.pipeline import Batch
from jaxsft.errors import ConfigError
from jaxsft.sharding import hosts, platforms
from jaxsft.training import device, loop, setup
from jaxsft.training.session import Session
from jaxsft.training.trial import Trial


class NoiseScale(NamedTuple):
    """The noise at a step: rows of a batch, and bounds of them over the measured batches.

    Attributes:
      rows: B_simple; infinity where the gradient is lost in the noise of so few batches.
    """

    step: int
    rows: float
    low: float
    high: float


def of_norms(small: np.ndarray, large: np.ndarray, b: int, B: int, step: int = 0) -> NoiseScale:
    """Returns the noise scale of square norms.

    Args:
      small: mean over the small batches of each large one, `[batches]`; of `b` rows each.
      large: `[batches]`; of `B` rows.

    The bounds are those of the middle 90 % of 1,000 bootstrap draws of the batches.
    """
    drawn = np.random.default_rng(0).integers(0, len(small), (1000, len(small)))
    ratio = lambda s, g: np.where(g > 0, s / np.where(g > 0, g, 1), np.inf)

    def scale(small: np.ndarray, large: np.ndarray) -> np.ndarray:
        signal = (B * large - b * small) / (B - b)
        noise = (small - large) / (1 / b - 1 / B)
        # ratio of means, as the mean of ratios would have a bias of its own
        return ratio(np.maximum(noise.mean(-1), 0), signal.mean(-1))

    low, high = np.quantile(scale(small[drawn], large[drawn]), (0.05, 0.95), method="nearest")
    return NoiseScale(step, float(scale(small, large)), float(low), float(high))


def measure(
    config: Config, steps: int, points: int, batches: int, parts: int
) -> Iterator[NoiseScale]:
    """Trains a config for some steps, and yields the noise at equal distances up to the last.

    Args:
      batches: that are measured at each point. parts: small batches of each.

    Raises JaxsftError; ConfigError where a batch cannot be cut into parts.
    """
    rows = config.train.batch_size
    train = dataclasses.replace(
        config.train, duration=f"{steps + batches}steps", accumulate=parts, until=None
    )
    if rows % parts:
        raise ConfigError(
            f"probe.parts={parts}: train.batch_size={rows} rows are not divided into so many parts"
        )
    config = dataclasses.replace(config, train=train)
    hosts.start(config.hosts)
    platforms.devices()
    device.keep_programs(config.compilation_cache)
    session = Session(setup.resolve(config))
    trial = session.trial()
    session.cache_backbone()
    session.compile(trial)
    norms = jax.jit(_norms(session, parts))
    due = {round(steps * (i + 1) / points) for i in range(points)}
    for step, batch in enumerate(session.stream(0), start=1):
        if step > steps:
            return
        session.advance([trial], batch)
        if step in due:
            found = [_measured(session, trial, norms, step + i) for i in range(batches)]
            small, large = (np.array(column, float) for column in zip(*found, strict=True))
            yield of_norms(small, large, rows // parts, rows, step)


def _norms(session: Session, parts: int) -> Any:
    """Returns the function that computes the square norms (mean of the small batches, large)."""
    program = session.program
    alone = dataclasses.replace(program.config.train, accumulate=1)
    of_part = dataclasses.replace(program, config=dataclasses.replace(program.config, train=alone))

    def norms(state: Any, frozen: Any, batch: Batch, hyper: Any) -> tuple[Any, Any]:
        cut = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)
        square = lambda program, rows: program.step(state, frozen, rows, hyper)[1].grad_norm ** 2
        return lax.map(lambda rows: square(of_part, rows), cut).mean(), square(program, batch)

    return norms


def _measured(session: Session, trial: Trial, norms: Any, step: int) -> tuple[float, float]:
    train = session.batches["train"]
    batch = session.components.put(train[step], train)
    return loop.fetch(norms(trial.state, session.frozen, batch, trial.hyper))


def suggested(found: Sequence[NoiseScale]) -> int | None:
    """Returns the power of two next to the noise of the last point; None where it is not known.

    >>> suggested([NoiseScale(10, 90.0, 70.0, 120.0)])
    64
    """
    rows = found[-1].rows
    return None if not math.isfinite(rows) else 2 ** max(math.floor(math.log2(max(rows, 1))), 0)
