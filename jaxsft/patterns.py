"""Strategy by pattern: ordered (regex, value) lists over virtual parameter paths, first match wins.

A stack of layers is one array with a leading layer axis, at `.../layers/<first layer>/...`.
Patterns see the layers one by one: the leaf `layers/4/attention/q/w` with shape [n, ...] stands for
`layers/4/attention/q/w` ... `layers/{4+n-1}/attention/q/w`. A pattern matches a whole path
(`re.fullmatch`). One that has no effect is an error: a typing mistake in it would silently train
another model.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from jaxsft.errors import ConfigError

T = TypeVar("T")

_LAYERS = "layers"
_SHOWN = 6  # how many paths an error lists


def path_string(keypath: Sequence[Any]) -> str:
    """Formats the path of a leaf, as `jax.tree_util` gives it, as `layers/0/attention/q/w`."""
    return jax.tree_util.keystr(tuple(keypath), simple=True, separator="/")


def virtual_paths(specs: Any) -> list[str]:
    """Returns every parameter's path of a tree of `WeightSpec`, layer by layer, in leaf order."""
    leaves = jax.tree_util.tree_flatten_with_path(specs)[0]
    return [path for keypath, spec in leaves for path in paths_of(path_string(keypath), spec)]


def resolve(rules: Sequence[tuple[str, T]], specs: Any, default: T, *, option: str) -> Any:
    """Returns the value of each parameter.

    Args:
      rules: (regex, value), in order; the first regex that matches the whole virtual path gives the
        value.
      specs: a tree of `WeightSpec`.
      default: the value where no regex matches.
      option: the name of the config option that holds the rules, for error messages.

    Returns:
      A tree like `specs`. A leaf is one value where all its layers agree (always so for a leaf that
      is no stack); else a numpy vector [n] of float64 for numbers, a list of n values for anything
      else (flags too). Map over it as `jax.tree.map(f, specs, values)`, so that lists count as
      leaves.

    Raises:
      ConfigError: a regex is invalid, matches no parameter, or is hidden by the ones before it.
    """
    compiled = [(_compile(pattern, option), value) for pattern, value in rules]
    deciding: set[int] = set()  # the rules that were first for some path

    def value_of(path: str) -> T:
        for i, (regex, value) in enumerate(compiled):
            if regex.fullmatch(path):
                deciding.add(i)
                return value
        return default

    values = jax.tree_util.tree_map_with_path(
        lambda keypath, spec: _collapse(
            [value_of(p) for p in paths_of(path_string(keypath), spec)]
        ),
        specs,
    )
    for i, (regex, _) in enumerate(compiled):
        if i not in deciding:
            raise ConfigError(
                _without_effect(regex, [r for r, _ in compiled[:i]], virtual_paths(specs), option)
            )
    return values


def full(pattern: str, path: str, option: str) -> bool:
    """Returns whether the regex matches the whole path. Raises ConfigError where it is invalid."""
    return _compile(pattern, option).fullmatch(path) is not None


def paths_of(path: str, spec: Any) -> list[str]:
    """Returns the virtual paths of one leaf: one, or one for each layer of a stack."""
    if not spec.stacked:
        return [path]
    keys = path.split("/")
    for i in range(len(keys) - 1):
        if keys[i] == _LAYERS and keys[i + 1].isdigit():
            first, before, after = int(keys[i + 1]), keys[: i + 1], keys[i + 2 :]
            return [
                "/".join([*before, str(first + layer), *after]) for layer in range(spec.shape[0])
            ]
    raise ValueError(f"{path}: a stack of layers must lie at .../{_LAYERS}/<first layer>/...")


def _collapse(values: list[Any]) -> Any:
    if all(value == values[0] for value in values[1:]):
        return values[0]
    numeric = all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )
    return np.array(values, np.float64) if numeric else values


def _compile(pattern: str, option: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{option}: {pattern!r} is not a regular expression: {error}") from error


def _without_effect(
    regex: re.Pattern[str], earlier: Iterable[re.Pattern[str]], paths: list[str], option: str
) -> str:
    """Builds the message about a pattern that decides nothing."""
    matched = [path for path in paths if regex.fullmatch(path)]
    if matched:
        hiding = dict.fromkeys(e.pattern for path in matched for e in earlier if e.fullmatch(path))
        return (
            f"{option}: pattern {regex.pattern!r} has no effect: all that it matches"
            f" ({_listed(matched)}) is matched before by {', '.join(map(repr, hiding))}; the first"
            " match wins, so put the narrower pattern first"
        )
    message = f"{option}: pattern {regex.pattern!r} matches no parameter"
    if any(regex.search(path) for path in paths):
        message += f" (a pattern must match the whole path; did you mean '.*{regex.pattern}.*'?)"
    shown = _one_per_stack(paths)
    close = difflib.get_close_matches(regex.pattern, shown, n=3, cutoff=0.5)
    if close:
        message += f"; close: {', '.join(close)}"
    return f"{message}; the parameters are: {_listed(shown)}"


def _one_per_stack(paths: list[str]) -> list[str]:
    """Returns the paths without their repetitions in other layers, which would crowd a message."""
    return list(
        {
            re.sub(rf"(^|/){_LAYERS}/\d+/", rf"\1{_LAYERS}/#/", path): path
            for path in reversed(paths)
        }.values()
    )[::-1]


def _listed(paths: list[str]) -> str:
    return ", ".join(paths[:_SHOWN]) + (
        f", ... ({len(paths)} in all)" if len(paths) > _SHOWN else ""
    )
