"""The values that a search may choose from, option by option.

optim.learning_rate: {low: 1e-5, high: 1e-3, log: true}
train.batch_size: {low: 8, high: 64, step: 8}         whole numbers where both bounds are
task.dropout: [0, 0.1]                                one of a list
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft.errors import ConfigError

KEYS = ("low", "high", "log", "step", "count")
MOST = 1_000_000  # points of a grid
Setting = dict[str, Any]  # value by option


@dataclasses.dataclass(frozen=True)
class Axis:
    """The values of one option: `choices`, or all from `low` to `high`.

    Attributes:
      log: each factor is as likely as the next.
      step: between values; None: none.
      count: how many of them a grid takes; None: as `step` says.
    """

    option: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    count: int | None = None

    @property
    def whole(self) -> bool:
        """Returns whether the values are whole numbers."""
        return all(isinstance(x, int) for x in (self.low, self.high, self.step or 0))

    def plain(self) -> Any:
        """Returns the axis as a study writes it."""
        if self.choices:
            return list(self.choices)
        own = dataclasses.asdict(self)
        return {key: own[key] for key in KEYS if own[key] not in (None, False)}

    def suggested(self, trial: Any) -> Any:
        """Returns the value that a trial of Optuna has for the option."""
        if self.choices:
            return trial.suggest_categorical(self.option, list(self.choices))
        if self.whole:
            step = int(self.step or 1)
            return trial.suggest_int(self.option, self.low, self.high, step=step, log=self.log)
        return trial.suggest_float(self.option, self.low, self.high, step=self.step, log=self.log)

    def ends(self) -> list[Any]:
        """Returns the values that are checked before anything starts."""
        return list(self.choices) or [self.low, self.high]

    def grid(self, where: str) -> list[Any]:
        """Returns the values of a grid. Raises ConfigError where they are not countable."""
        if self.choices:
            return list(self.choices)
        if self.count is not None:
            found = [self._at(i / max(self.count - 1, 1)) for i in range(self.count)]
            return list(dict.fromkeys(found))
        if self.step is None and not (self.whole and not self.log):
            raise ConfigError(
                f"{where}.{self.option}: a grid needs a list, a step or a count, found"
                f" {self.plain()}"
            )
        step = self.step or 1
        return [self.low + i * step for i in range(int((self.high - self.low) / step + 1e-9) + 1)]

    def _at(self, share: float) -> Any:
        """Returns the value at a share of the way from `low` to `high`."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + share * (high - low))
        else:
            value = self.low + share * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else float(f"{value:.12g}")


def read(values: Any, where: str) -> tuple[Axis, ...]:
    """Returns the axes of a space.

    Args:
      where: the file and the key, for messages.

    Raises ConfigError, which names the option, what was found and what is expected.
    """
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(f"{where}: found {values!r:.60}, expected values of options by name")
    return tuple(_axis(key, value, f"{where}.{key}") for key, value in flat(values).items())


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values by the whole names of options; a mapping without `low` or `high` holds
    options of a group.

    >>> flat({"optim": {"learning_rate": [1, 2]}, "seed": {"low": 1, "high": 2}})
    {'optim.learning_rate': [1, 2], 'seed': {'low': 1, 'high': 2}}
    """
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value and not set(value) & set(KEYS):
            out |= {f"{key}.{name}": one for name, one in flat(value).items()}
        else:
            out[str(key)] = value
    return out


def _axis(name: str, value: Any, where: str) -> Axis:
    if name == "seed" or name.startswith("seeds."):
        raise ConfigError(
            f"{where}: a seed is nothing to search for; seeds of a study train each set of values"
            " with each of them"
        )
    if name in ("run_dir", "evaluation.metric"):
        raise ConfigError(f"{where}: cannot differ between the trials of a search")
    if isinstance(value, list | tuple):
        return _of_list(name, list(value), where)
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where}: found {value!r:.60}, expected a list of values, or low and high"
        )
    for key in value:
        if key not in KEYS:
            raise ConfigError(f"{where}.{key}: unknown; there are {', '.join(KEYS)}")
    for key in ("low", "high"):
        if key not in value:
            raise ConfigError(f"{where}: has no {key}")
    for key in ("low", "high", "step", "count"):
        one = value.get(key)
        fits = isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
        if not fits and (key in value or key in ("low", "high")):
            raise ConfigError(f"{where}.{key}: found {one!r}, expected a number")
    if not isinstance(value.get("log", False), bool):
        raise ConfigError(f"{where}.log: found {value['log']!r}, expected true or false")
    axis = Axis(name, **value)
    _check_range(axis, where)
    return axis


def _of_list(name: str, values: list[Any], where: str) -> Axis:
    if not values:
        raise ConfigError(f"{where}: found an empty list, expected values")
    for one in values:
        if not isinstance(one, str | int | float | bool | None):
            raise ConfigError(f"{where}: found {one!r:.60}, expected texts, numbers, true, false")
    if len({(type(one), one) for one in values}) < len(values):
        raise ConfigError(f"{where}: has a value twice")
    return Axis(name, tuple(values))


def _check_range(axis: Axis, where: str) -> None:
    if axis.low >= axis.high:
        raise ConfigError(f"{where}: low is {axis.low} and high is {axis.high}, expected more")
    if axis.log and axis.low <= 0:
        raise ConfigError(f"{where}.low: found {axis.low}, expected more than 0 with log: true")
    if axis.log and axis.step is not None:
        raise ConfigError(f"{where}.step: goes without log: true only; count is for grids")
    if axis.step is not None and axis.step <= 0:
        raise ConfigError(f"{where}.step: found {axis.step}, expected more than 0")
    if axis.count is not None and (not isinstance(axis.count, int) or axis.count < 1):
        raise ConfigError(f"{where}.count: found {axis.count}, expected a whole number from 1")


def grid(axes: Sequence[Axis], where: str) -> list[Setting]:
    """Returns all combinations of the values of a grid. Raises ConfigError for too many."""
    columns = {axis.option: axis.grid(where) for axis in axes}
    if math.prod(len(values) for values in columns.values()) > MOST:
        raise ConfigError(f"{where}: its grid has more than {MOST:,} points")
    return [dict(zip(columns, row, strict=True)) for row in itertools.product(*columns.values())]


def edges(axes: Sequence[Axis]) -> list[Setting]:
    """Returns settings that have each end of each axis once, the others at their first one."""
    first = {axis.option: axis.ends()[0] for axis in axes}
    rest = [{**first, axis.option: value} for axis in axes for value in axis.ends()[1:]]
    return [first, *rest]


def of_words(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the space of words in Hydra's grammar, and the words that have one value.

    `a=interval(1,2)`, `a=tag(log,interval(1e-5,1e-3))`, `a=int(interval(1,8))`,
    `a=range(0,10,2)`, `a=1,2,3` and `a=choice(1,2,3)` are values to choose from.

    Raises ConfigError where a word cannot be read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import IntervalSweep, QuotedString, RangeSweep

    space: dict[str, Any] = {}
    rest = []
    for word, one in zip(words, OverridesParser.create().parse_overrides(list(words)), strict=True):
        if not one.is_sweep_override():
            rest.append(word)
            continue
        value, key = one.value(), one.get_key_element().lstrip("+")
        if isinstance(value, IntervalSweep):
            log = {"log": True} if "log" in value.tags else {}
            space[key] = {"low": value.start, "high": value.end, **log}
        elif isinstance(value, RangeSweep):
            last = value.stop - value.step
            space[key] = {"low": value.start, "high": last, "step": value.step}
        else:
            plain = lambda x: x.text if isinstance(x, QuotedString) else x
            space[key] = [plain(x) for x in one.sweep_iterator(transformer=lambda x: x)]
    return space, rest


def chosen(config: Mapping[str, Any], option: str) -> Any:
    """Returns the value of an option in a plain config; None where it has none."""
    found: Any = config
    for part in option.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
