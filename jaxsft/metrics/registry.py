"""The table of metrics: each file of this folder that has `METRICS`, and plug-ins."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from jaxsft import metrics, plugins
from jaxsft.errors import ConfigError
from jaxsft.metrics.base import Metric, Outputs


def _own() -> dict[str, Metric]:
    """Returns the metrics of the files beside this one, by name."""
    out: dict[str, Metric] = {}
    for file in pkgutil.iter_modules(metrics.__path__):
        if file.name in ("base", "registry"):
            continue
        for name, metric in getattr(
            importlib.import_module(f"{metrics.__name__}.{file.name}"), "METRICS", {}
        ).items():
            assert name not in out, f"two metrics are called {name}"
            out[name] = metric
    return out


METRICS = plugins.Registry("metrics", _own())


def take(name: str, option: str = "evaluation.metrics") -> Metric:
    """Returns a metric by its name. Raises ConfigError where there is none."""
    if name not in METRICS:
        raise ConfigError(f"{option}=[{name}]: unknown; there are {', '.join(sorted(METRICS))}")
    return METRICS.take(name)


def fitting(names: Iterable[str], outputs: Outputs, task: str) -> dict[str, Metric]:
    """Returns metrics by name. Raises ConfigError where the outputs lack what one reads."""
    out = {}
    for name in names:
        out[name] = metric = take(name)
        if not metric.fits(outputs):
            there = ", ".join([*outputs.arrays, *outputs.texts])
            raise ConfigError(
                f"evaluation.metrics=[{name}]: reads {', '.join(metric.needs)}"
                + (f" of tags with scheme={metric.scheme}" if metric.scheme else "")
                + f"; task={task} gives {there} (scheme {outputs.scheme})"
            )
    return out


def numbers_of(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the numbers that metrics give, each once."""
    return tuple(dict.fromkeys(number for name in names for number in METRICS[name].names))


def lower_is_better(names: Iterable[str]) -> set[str]:
    """Returns those of the numbers of metrics of which less is better."""
    return {number for name in names for number in METRICS[name].lower_is_better}
