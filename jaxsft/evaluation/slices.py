"""Slices of a split: rows that are alike in a column, in length, or by a rule of a YAML file, each
with its numbers and their bounds; and the worst of them, corrected for having looked at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import documents
from jaxsft.config.rules import least_replicates
from jaxsft.config.schema import Config
from jaxsft.data.encoded_split import Split
from jaxsft.data.file_records import RULES
from jaxsft.errors import ConfigError
from jaxsft.evaluation import bounds
from jaxsft.evaluation.measured import Measured

MOST = 50  # values of a column that have a slice each; more numbers than that go into quarters
TESTS = ("equals", "in", "at_least", "below", "contains")


def groups(split: Split, config: Config) -> dict[str, np.ndarray]:
    """Returns, by the name of each slice of `evaluation.slices`, which rows are in it, `[rows]`
    bool over all records of the split.

    Raises ConfigError for a column with too many values, or a file that holds no rules.
    """
    out: dict[str, np.ndarray] = {}
    for masks in families(split, config).values():
        out |= masks
    return out


def families(split: Split, config: Config) -> dict[str, dict[str, np.ndarray]]:
    """Returns the same by what is named in `evaluation.slices`: a column, `length`, a file."""
    out: dict[str, dict[str, np.ndarray]] = {}
    for name in config.evaluation.slices:
        if name == "length":
            lengths = np.bincount(split.arrays["row"], split.lengths, len(split.records))
            out[name] = _quarters("length", lengths)
        elif name.endswith(RULES):
            out[name] = _of_rules(split, Path(name))
        else:
            out[name] = _of_values(name, _column(split, name))
    return out


def _column(split: Split, name: str) -> list[Any]:
    return [split.beside[where][name] for where in split.where]


def _of_values(name: str, values: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns a slice for each value of a column, or quarters of many numbers."""
    texts = np.array([str(value) for value in values])
    found = sorted(set(texts.tolist()))
    if len(found) <= MOST:
        return {f"{name}={value}": texts == value for value in found}
    try:
        return _quarters(name, np.array([float(value) for value in values]))
    except (TypeError, ValueError):
        raise ConfigError(
            f"evaluation.slices=[{name}]: the column has {len(found)} values, more than {MOST}, and"
            " they are no numbers; name a column of fewer, or a YAML file of rules"
        ) from None


def _quarters(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Returns four slices of about as many rows; fewer where many values are equal."""
    edges = np.unique(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    out = {}
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        last = i == len(edges) - 2
        inside = (values >= low) & ((values <= high) if last else (values < high))
        out[f"{name} {low:g} to {'' if last else 'below '}{high:g}"] = inside
    return out or {f"{name} {values[0]:g}": np.ones(len(values), bool)}


def _of_rules(split: Split, file: Path) -> dict[str, np.ndarray]:
    """Returns the slices of a file: a list of `{name, column, TEST: value}`, with one of `TESTS`.

    `column` is one of the record itself (`text`, `label`, ...), or `length` in tokens.
    """
    rules = documents.read_yaml(file)
    if not isinstance(rules, list):
        raise ConfigError(f"{file}: expected a list of rules {{name, column, {'|'.join(TESTS)}}}")
    lengths = np.bincount(split.arrays["row"], split.lengths, len(split.records))
    out = {}
    for number, rule in enumerate(rules, start=1):
        test = _test(rule, f"{file}: rule {number}")
        column = rule["column"]
        values: Sequence[Any] = lengths.tolist()
        if column != "length":
            values = [_field(record, column, f"{file}: rule {number}") for record in split.records]
        out[str(rule["name"])] = np.array([_holds(test, rule[test], v) for v in values], bool)
    return out


def _test(rule: Any, where: str) -> str:
    """Returns the test of a rule. Raises ConfigError where it is no rule."""
    found = [test for test in TESTS if isinstance(rule, Mapping) and test in rule]
    if len(found) != 1 or set(rule) != {"name", "column", found[0]}:
        raise ConfigError(
            f"{where}: expected name, column and one of {', '.join(TESTS)}; found {rule!r}"
        )
    number = found[0] in ("at_least", "below")
    value = rule[found[0]]
    if (number and (isinstance(value, bool) or not isinstance(value, int | float))) or (
        found[0] == "in" and not isinstance(value, list)
    ):
        kind = "a number" if number else "a list"
        raise ConfigError(f"{where}: {found[0]}: expected {kind}, found {value!r}")
    return found[0]


def _field(record: Any, name: str, where: str) -> Any:
    if not hasattr(record, name):
        known = ", ".join(sorted(vars(record))) if hasattr(record, "__dict__") else "its fields"
        raise ConfigError(f"{where}: no column {name!r}; a record has {known}, and there is length")
    return getattr(record, name)


def _holds(test: str, asked: Any, value: Any) -> bool:
    """Returns whether a value passes a test; what is no number passes no test of numbers."""
    if test in ("at_least", "below"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return value >= asked if test == "at_least" else value < asked
    if test == "contains":
        return str(asked) in (value if isinstance(value, list | tuple) else str(value))
    wanted = asked if test == "in" else [asked]
    return str(value) in map(str, wanted)


def report(
    measured: Mapping[str, Measured],
    masks: Mapping[str, np.ndarray],
    clusters: np.ndarray | None,
    config: Config,
) -> list[dict[str, Any]]:
    """Returns, for each slice, its name, its number of rows and its numbers with bounds.

    Those under `corrected` are wider: together, all slices hold with the level that was asked for
    (Bonferroni), so that the worst of them is no artefact of having looked at many.
    """
    e, out = config.evaluation, []
    family = 1 - (1 - e.level) / max(len(masks), 1)
    # quantiles that far out need more replicates
    enough = max(e.replicates, least_replicates(family))
    for name, mask in masks.items():
        numbers, corrected = {}, {}
        for one in measured.values():
            part = one.of(mask[one.rows])
            if not len(part.rows):
                continue
            numbers |= interval_of(part, clusters, e.level, e.replicates)
            if e.replicates:
                corrected |= interval_of(part, clusters, family, enough)
        wide = {
            number: [entry["low"], entry["high"]]
            for number, entry in corrected.items()
            if entry.get("low") is not None
        }
        out.append({"slice": name, "rows": int(mask.sum()), "numbers": numbers, "corrected": wide})
    return out


def interval_of(
    one: Measured, clusters: np.ndarray | None, level: float, replicates: int
) -> dict[str, dict[str, Any]]:
    """Returns the numbers of a metric with their bounds; without replicates only the numbers.

    Args:
      clusters: of all records of the split, by number of the row.
    """
    if not replicates:
        return {name: {"value": value, "n": len(one.rows)} for name, value in one.numbers().items()}
    own = None if clusters is None else clusters[one.rows]
    out = bounds.intervals(
        one.metric, one.statistics, one.rows, clusters=own, level=level, replicates=replicates
    )
    for name, entry in out.items():
        if name in one.metric.unbounded:
            reason = "rows that are drawn again make it smaller, whatever is true"
            entry |= {"low": None, "high": None, "se": None, "method": "none", "reason": reason}
        if one.signature:
            entry["signature"] = one.signature
    return out
