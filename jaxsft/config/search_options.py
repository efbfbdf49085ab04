"""The options of a search over hyper-parameters: `search:` of a study.yaml, and
`search.NAME=value` behind `jaxsft train -m` and `jaxsft sweep run`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from jaxsft import documents
from jaxsft.config import compose, option
from jaxsft.config.option import option as declared
from jaxsft.errors import ConfigError

PREFIX = "search."
SAMPLERS = ("tpe", "random", "grid", "cmaes", "gp", "nsga2")
PRUNERS = ("none", "median", "halving", "wilcoxon")
DIRECTIONS = ("auto", "minimize", "maximize")
# numbers of a training that are no numbers of a split
COSTS = ("seconds", "parameters", "trainable_parameters")
_METRIC = r"validation/[\w@.-]+"


@dataclass(frozen=True)
class SearchConfig:
    """The options of a search for values."""

    sampler: str = declared(
        "tpe", "what proposes the next values: " + " | ".join(SAMPLERS), choices=SAMPLERS
    )
    trials: int = declared(
        40, "how many sets of values are tried; failed and pruned ones count", at_least=1
    )
    metric: Any = declared(
        "auto",
        "what is searched for: auto (`evaluation.metric`), a number such as validation/accuracy,"
        " or a list of several, which may hold " + ", ".join(COSTS),
    )
    direction: Any = declared(
        "auto", "whether more or less of each is better: auto | minimize | maximize"
    )
    prune: str = declared(
        "none",
        "which trials are stopped early: none | median (worse than half of the others at this"
        " step) | halving (not among the best quarter of its rung, asynchronously) | wilcoxon"
        " (after the first of several seeds the rows are worse than those of the best so far)",
        choices=PRUNERS,
    )
    start: int = declared(
        10, "sets of values that are drawn at random, and not pruned, before others", at_least=0
    )
    seed: int = declared(0, "of the sampler; another one tries other values")
    confirm: int = declared(
        3, "seeds that the best is trained with again before it is reported", at_least=0
    )
    storage: Optional[str] = declared(
        None,
        "a database of Optuna, as a URL or env:VARIABLE, which holds one; null: search.db in the"
        " sweep's folder",
    )
    space: Any = declared(
        dict,
        "values of each option: a list, or low and high, with log, step, or count (points of a"
        " grid)",
    )
    constraints: Any = declared(
        dict, "bounds that the best must keep, number by number: {at_most: 1e6} or {at_least: 0.5}"
    )

    @property
    def metrics(self) -> list[str]:
        """Returns what is searched for, as a list."""
        return [self.metric] if isinstance(self.metric, str) else list(self.metric)

    @property
    def directions(self) -> list[str]:
        """Returns the direction of each of the metrics."""
        if isinstance(self.direction, str):
            return [self.direction] * len(self.metrics)
        return list(self.direction)

    @property
    def limits(self) -> list[tuple[str, str, float]]:
        """Returns the constraints as number, `at_most` or `at_least`, and bound."""
        return [
            (name, kind, float(bound))
            for name, bounds in self.constraints.items()
            for kind, bound in bounds.items()
        ]


def read(given: Mapping[str, Any], where: str) -> SearchConfig:
    """Returns the options that were given by name, checked.

    Args:
      where: the file and the key before theirs, for messages.

    Raises ConfigError, which says what was found and what is expected.
    """
    given = {key: number(value) for key, value in given.items()}
    if isinstance(given.get("metric"), list):
        given["metric"] = [str(one) for one in given["metric"]]
    # OmegaConf would read dots in their keys
    open_ended = {key: given.pop(key) for key in ("space", "constraints") if key in given}
    config = compose.filled(SearchConfig, given, where, skip=())
    config = dataclasses.replace(config, **{"space": {}, "constraints": {}, **open_ended})
    for key, declaration, value in option.walk(config):
        if key not in ("space", "constraints", "metric", "direction"):
            option.check(f"{where}.{key}", declaration, value)
    _check_metrics(config, where)
    _check_constraints(config, where)
    if config.storage is not None and re.match(r"[\w+]+://[^/]*:[^/]*@", config.storage):
        raise ConfigError(
            f"{where}.storage: holds a password, which the plan of the sweep would show; put the"
            " URL into an environment variable and give env:VARIABLE"
        )
    return config


def _check_metrics(config: SearchConfig, where: str) -> None:
    """Raises ConfigError for an objective that cannot be one, or several that do not fit."""
    if not config.metrics or not all(isinstance(one, str) for one in config.metrics):
        raise ConfigError(f"{where}.metric: found {config.metric!r}, expected a name or several")
    for name in config.metrics:
        _check_number(name, f"{where}.metric")
    if len(config.directions) != len(config.metrics):
        raise ConfigError(
            f"{where}.direction: found {len(config.directions)} for {len(config.metrics)} metrics"
        )
    for one in config.directions:
        if one not in DIRECTIONS:
            raise ConfigError(f"{where}.direction: found {one!r}, expected {', '.join(DIRECTIONS)}")
    several = len(config.metrics) > 1
    if several and ("auto" in config.metrics or len(set(config.metrics)) < len(config.metrics)):
        raise ConfigError(f"{where}.metric: expected each of several by its own name")
    if several and config.sampler == "cmaes":
        raise ConfigError(
            f"{where}.sampler: cmaes searches for one number; use nsga2, tpe, gp, random or grid"
        )
    if several and config.prune != "none":
        raise ConfigError(f"{where}.prune: trials are pruned by one number, found several metrics")
    if config.prune != "none" and config.metrics[0] in COSTS:
        raise ConfigError(f"{where}.prune: {config.metrics[0]} is known at the end only")


def _check_number(name: str, where: str) -> None:
    if name.startswith("test/"):
        raise ConfigError(
            f"{where}: found {name!r}; the test split is reported once and chooses nothing;"
            " expected a number of validation"
        )
    if name not in ("auto", *COSTS) and not re.fullmatch(_METRIC, name):
        raise ConfigError(
            f"{where}: found {name!r}, expected one as validation/accuracy, or {', '.join(COSTS)}"
        )


def _check_constraints(config: SearchConfig, where: str) -> None:
    """Raises ConfigError for a bound that cannot be read."""
    where = f"{where}.constraints"
    if not isinstance(config.constraints, Mapping):
        raise ConfigError(f"{where}: found {config.constraints!r:.60}, expected bounds by name")
    for name, bounds in config.constraints.items():
        _check_number(str(name), where)
        known = isinstance(bounds, Mapping) and bounds and set(bounds) <= {"at_most", "at_least"}
        if name == "auto" or not known:
            raise ConfigError(
                f"{where}.{name}: found {bounds!r:.60}, expected at_most or at_least and a number"
            )
        for kind, bound in bounds.items():
            if isinstance(bound, bool) or not isinstance(bound, int | float):
                raise ConfigError(f"{where}.{name}.{kind}: found {bound!r}, expected a number")


def number(value: Any) -> Any:
    """Returns a value with `1e-3`, which YAML takes for a text, as the number that it is.

    >>> number({"low": "1e-3", "high": [1, "a"]})
    {'low': 0.001, 'high': [1, 'a']}
    """
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value):
        return float(value)
    if isinstance(value, Mapping):
        return {key: number(one) for key, one in value.items()}
    return [number(one) for one in value] if isinstance(value, list) else value


def taken(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the values of `search.NAME=value` among words by name, and the other words.

    Raises ConfigError where one is given twice.
    """
    mine = [word for word in words if word.startswith(PREFIX) and "=" in word]
    given: dict[str, Any] = {}
    for word in mine:
        name, _, text = word.removeprefix(PREFIX).partition("=")
        if name in given:
            raise ConfigError(f"{word}: {PREFIX}{name} was given before")
        given[name] = documents.parse_yaml(text, word, ConfigError) if text else ""
    return given, [word for word in words if word not in mine]
