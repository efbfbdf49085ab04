"""The table of metrics: each file of this folder that has `METRICS`, and plug-ins."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from jaxsft import metrics, plugins
from jaxsft.errors import ConfigError
from jaxsft.metrics.base import Metric


def _own() -> dict[str, Metric]:
    """Returns the metrics of the files beside this one, by name."""
    out: dict[str, Metric] = {}
    for file in pkgutil.iter_modules(metrics.__path__):
        if file.name in ("base", "by_name"):
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


def check_fits(name: str, given: Iterable[str], task: str) -> None:
    """Raises ConfigError where a metric is unknown, or reads what a task does not give."""
    metric, given = take(name), list(given)
    if missing := [need for need in metric.needs if need not in given]:
        raise ConfigError(
            f"evaluation.metrics=[{name}]: reads {', '.join(missing)}, which task={task} does not"
            f" give; it gives {', '.join(given)}"
        )


def numbers_of(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the numbers that metrics give, each once."""
    return tuple(dict.fromkeys(number for name in names for number in METRICS[name].names))


def lower_is_better(names: Iterable[str]) -> set[str]:
    """Returns those of the numbers of metrics of which less is better."""
    return {number for name in names for number in METRICS[name].lower_is_better}
