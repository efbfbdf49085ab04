"""Measures what suits a run, and says it as an override to paste; a figure and the numbers lie in
probe.output.

  jaxsft probe rates task=... data.train=FILE    trains some steps at each of many learning rates,
                                                 all of them as one program
  jaxsft probe noise ...                         the noise scale of the gradient: up to about so
                                                 many rows, a larger batch saves steps
  jaxsft probe rows ...                          the most rows of which the compiled steps fit into
                                                 the memory of a device; nothing is trained

The options are those of jaxsft train, and probe.NAME=value: low, high, count, steps, points,
batches, parts, memory, output. docs/probes.md has all of them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxsft import progress, rundir
from jaxsft.commands import hydra_app
from jaxsft.config import sweep_options
from jaxsft.config.probe_options import PREFIX, ProbeConfig
from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError, JaxsftError


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in PROBES:
        raise ConfigError(f"jaxsft probe: expected one of {', '.join(PROBES)} (see --help)")
    options, words = sweep_options.taken(arguments[1:], ProbeConfig, PREFIX)
    if options.low >= options.high:
        raise ConfigError(f"probe.low={options.low:g}: expected less than {options.high:g}")
    probe = PROBES[arguments[0]]

    def run(config: Config) -> int:
        with progress.ended():
            return probe(config, options)

    return hydra_app.run(words, run)


def rates(config: Config, options: ProbeConfig) -> int:
    import numpy as np

    from jaxsft.reports import probe_figures
    from jaxsft.training import rate_range

    asked = np.geomspace(options.low, options.high, options.count)
    found = rate_range.measure(config, asked, options.steps)
    progress.done()
    start, best = float(np.median(found.losses[0])), int(found.ends.argmin())
    for rate, end in zip(found.rates, found.ends, strict=True):
        print(f"{rate:10.3g}  {f'{end:.4f}' if math.isfinite(end) else 'diverged'}")
    suggested = found.suggested()
    numbers = {"rates": found.rates.tolist(), "losses": found.losses.tolist()}
    figure = lambda: probe_figures.draw_rates(found.rates, found.ends, start, suggested)
    print(
        f"loss {start:.4g} before the first step; {found.ends[best]:.4g} at the best rate,"
        f" {found.rates[best]:.3g}"
    )
    return _written(options, "rates", figure, numbers, f"optim.learning_rate={suggested:.2g}")


def noise(config: Config, options: ProbeConfig) -> int:
    from jaxsft.reports import probe_figures
    from jaxsft.training import noise_scale

    found = []
    points = min(options.points, options.steps)
    for one in noise_scale.measure(config, options.steps, points, options.batches, options.parts):
        found.append(one)
        progress.done()
        print(f"step {one.step}: {one.rows:,.1f} rows [{one.low:,.1f}, {one.high:,.1f}]")
    rows = noise_scale.suggested(found)
    if rows is None:
        raise JaxsftError(
            "the gradient is lost in the noise of the measured batches; take more of them"
            " (probe.batches) or larger ones (train.batch_size)"
        )
    figure = lambda: probe_figures.draw_noise(found, config.train.batch_size)
    numbers = {"points": [one._asdict() for one in found]}
    return _written(options, "noise", figure, numbers, f"train.batch_size={rows}")


def rows(config: Config, options: ProbeConfig) -> int:
    from jaxsft.planning import batch_finder
    from jaxsft.reports import probe_figures

    def tell(line: str) -> None:
        progress.done()
        print(line, file=sys.stderr, flush=True)

    memory = None if options.memory is None else options.memory * 2**30
    found = batch_finder.find(config, memory, tell)
    if not found.rows:
        fewest, sizes = next(iter(found.compiled.items()))
        raise JaxsftError(
            f"{fewest} rows need {max(sizes) / 2**30:.2f} GiB, and there are"
            f" {found.limit / 2**30:.2f}; take shorter rows (data.max_length), model.remat=true or"
            " adapter=lora"
        )
    figure = lambda: probe_figures.draw_rows(found.compiled, found.limit, found.rows)
    numbers = {"rows": found.rows, "limit": found.limit, "compiled": found.compiled}
    print(f"{found.limit / 2**30:.2f} GiB: {found.rows} rows fit")
    return _written(options, "rows", figure, numbers, f"train.batch_size={found.rows}")


PROBES: dict[str, Callable[[Config, ProbeConfig], int]] = {
    "rates": rates,
    "noise": noise,
    "rows": rows,
}


def _written(options: ProbeConfig, name: str, figure: Any, numbers: Any, override: str) -> int:
    from jaxsft.reports import probe_figures

    folder = Path(options.output)
    rundir.write_json(folder / f"{name}.json", {**numbers, "override": override})
    print(f"figure: {probe_figures.save(folder, name, figure)}")
    print(f"override: {override}")
    return 0
