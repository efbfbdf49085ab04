"""One declaration of an option: its default, what it does, what it may be and where it is read.

It is a field of the dataclass of its group. Validation, help, completion, the pages of the
documentation and the tests read the declaration.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxsft import plugins
from jaxsft.config import durations, hubid
from jaxsft.errors import ConfigError

Reasons = Sequence[str | tuple[str, str]]  # conditions, each with the reason where there is one


@dataclasses.dataclass(frozen=True)
class Trace:
    """An option whose value the compiled step is given, so that runs that differ in it alone are
    one program (`training/hyper.py`).

    Attributes:
      name: in the step; empty: that of the option.
      when: whether a program has the value: `always`; `set`, where it is not null; `above 0`; where
        it is `read` (`read_if`); where the forward pass is `random`; `term`, as the weight of a
        term of the loss.
      kind: of value: number | coefficient (of an optimizer) | steps | whole_steps | total_steps |
        seed | adapter_scale.
    """

    name: str = ""
    when: str = "always"
    kind: str = "number"


@dataclasses.dataclass(frozen=True)
class Accepts:
    """The values that an option may have, and what else is declared of it; the arguments of
    `option`.
    """

    choices: tuple[str, ...] = ()
    plugins: str = ""
    targets: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    what: str = ""
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    whole: bool = True
    duration: bool = False
    matches: str = ""
    hub: str = ""
    read_if: str = ""
    needs: Mapping[str, Reasons] = dataclasses.field(default_factory=dict)
    common: str = ""
    traced: Trace | None = None
    elsewhere: tuple[str, str] | None = None
    regularises: str = ""

    @property
    def bounded(self) -> bool:
        return any(b is not None for b in (self.at_least, self.at_most, self.above, self.below))


def option(default: Any, doc: str, *, needs: Any = (), **accepts: Any) -> Any:
    """Returns a dataclass field with a default and the sentence that documents it.

    A class or a function makes the default anew for each object; a list or a mapping is copied.

    Args:
      choices: the texts that it may be; of a list those of its items.
      plugins: the kind of plug-ins whose names it may be too.
      targets: of a loss, what it may compare outputs with (`jaxsft.losses.TARGETS`); the choices
        follow from it (`config.tasks.with_losses`).
      words: what it may be beside a number.
      what: a noun for what is expected, such as "a number of tokens".
      at_least, at_most, above, below: bounds of a number; without a finite upper one (or
        `at_most=math.inf`) the number must be finite.
      whole: beside words only whole numbers.
      duration: a number with a unit (`durations.parse`), within the bounds.
      matches: a regex for the whole text, or for each item of a list.
      hub: file | folder, which a name on the hub must be one of.
      read_if: a condition (`condition.py`); anything but the default is an error where it does not
        hold.
      needs: conditions without which anything but the default cannot work, or by value those of one
        value. A pair is a condition and its reason.
      common: the heading under which the help of `jaxsft train` shows it.
      traced: a `Trace` where the compiled step is given its value. It holds for the field of a
        subclass that says nothing of it.
      elsewhere: what other trainers call it, as words, and a value as an example.
      regularises: what it is called in the banner, of an option that keeps a model from learning
        its rows by heart: a run from a pretrained model takes it from there.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Sampling:
    ...     top_p: float = option(1.0, "tokens of this joint probability", above=0, at_most=1)
    ...     stop: list[str] = option([], "texts that end an answer")
    >>> Sampling().stop, docs(Sampling)["top_p"]
    ([], 'tokens of this joint probability')
    >>> expected(declarations(Sampling)["top_p"])
    'more than 0 and at most 1'
    """
    if isinstance(default, dataclasses.Field):  # it would be the value itself, and true
        raise TypeError(f"the default of an option is a value, found a field: {doc}")
    by_value = needs if isinstance(needs, Mapping) else {"": needs} if needs else {}
    metadata = {"doc": doc, "accepts": Accepts(needs=by_value, **accepts)}
    if isinstance(default, list | dict):
        original = default
        return dataclasses.field(default_factory=lambda: copy.deepcopy(original), metadata=metadata)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Declaration(NamedTuple):
    """A field of a dataclass of options."""

    name: str
    hint: Any
    default: Any
    doc: str
    accepts: Accepts

    @property
    def nullable(self) -> bool:
        return type(None) in typing.get_args(self.hint)


@functools.cache
def declarations(cls: type) -> Mapping[str, Declaration]:
    """Returns the options of a dataclass by name, inherited ones included."""
    hints = typing.get_type_hints(cls)
    return types.MappingProxyType(
        {
            f.name: Declaration(
                f.name,
                hints[f.name],
                f.default if f.default_factory is dataclasses.MISSING else f.default_factory(),
                f.metadata.get("doc", ""),
                _accepts(cls, f),
            )
            for f in dataclasses.fields(cls)
            if f.metadata.get("option", True)
        }
    )


def _accepts(cls: type, field: dataclasses.Field) -> Accepts:
    accepts = field.metadata.get("accepts", Accepts())
    for base in cls.__mro__[1:]:
        inherited = getattr(base, "__dataclass_fields__", {}).get(field.name)
        if accepts.traced is None and inherited is not None:
            traced = inherited.metadata.get("accepts", Accepts()).traced
            accepts = dataclasses.replace(accepts, traced=traced)
    return accepts


def docs(cls: type) -> dict[str, str]:
    """Returns what each documented field of a dataclass does, inherited fields included."""
    return {name: one.doc for name, one in declarations(cls).items() if one.doc}


def names(cls: type, prefix: str = "") -> Iterator[tuple[str, Declaration]]:
    """Yields (whole name, declaration) of each option of a class and of the classes in it."""
    for name, declaration in declarations(cls).items():
        if dataclasses.is_dataclass(declaration.hint):
            yield from names(declaration.hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", declaration


def walk(config: Any, prefix: str = "") -> Iterator[tuple[str, Declaration, Any]]:
    """Yields (whole name, declaration, value) of each option of a dataclass, nested ones included.

    Options of an item of a list are named `loss.penalties[0].weight`.
    """
    for name, declaration in declarations(type(config)).items():
        key, value = f"{prefix}{name}", getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{key}.")
            continue
        yield key, declaration, value
        for i, item in enumerate(value) if isinstance(value, list | tuple) else ():
            if dataclasses.is_dataclass(item):
                yield from walk(item, f"{key}[{i}].")


def expected(declaration: Declaration) -> str:
    """Returns what an option may be, as the end of "expected ..."; empty where anything may."""
    a, null = declaration.accepts, ", or null" if declaration.nullable else ""
    if a.choices:
        of = "some of" if _is_list(declaration) else "one of"
        return f"{of} {', '.join((*a.choices, *_of_plugins(a)))}{null}"
    if a.matches:
        return a.what
    if a.duration:
        return f"a duration{' of more than 0' if a.above == 0 else ''}{null}"
    if not a.bounded:
        return ""
    number = _number(declaration)
    words = f"{', '.join(a.words)}, or " if a.words else ""
    return f"{words}{number}{null}"


def _number(declaration: Declaration) -> str:
    """Returns what a number may be: "more than 0 and at most 1"."""
    a = declaration.accepts
    low = _bound("more than", a.above) or _bound("at least", a.at_least)
    high = _bound("less than", a.below) or _bound("at most", a.at_most)
    span = f"{low} and {high}" if low and high else low or high
    if a.at_least is not None and high.startswith("at most"):
        span = f"between {_digits(a.at_least)} and {_digits(a.at_most)}"
    what = a.what or ("a number" if a.words else "")
    if not what and _finite(declaration):
        what = "a finite number"
    of = " " if span.startswith("between") else " of "
    return f"{what}{of}{span}" if what and span else what or span


def _bound(words: str, value: float | None) -> str:
    if value is None or math.isinf(value):
        return ""
    return f"{words} {'2^32' if value == 2**32 else _digits(value)}"


def _digits(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else f"{value:g}"


def _finite(declaration: Declaration) -> bool:
    """Returns whether a number without an upper bound must be finite."""
    whole = int in (declaration.hint, *typing.get_args(declaration.hint))
    a = declaration.accepts
    return a.at_most is None and a.below is None and not whole and not a.duration


def _is_list(declaration: Declaration) -> bool:
    hints = (declaration.hint, *typing.get_args(declaration.hint))
    return any(typing.get_origin(hint) is list for hint in hints)


OF_ARRAYS = ("model.", "adapter.", "train.batch_size", "evaluation.batch_size")


def check(key: str, declaration: Declaration, value: Any) -> None:
    """Raises ConfigError where a value is not what the declaration of its option accepts."""
    a = declaration.accepts
    if value is None or value == "???":
        return
    if a.hub and hubid.is_hub(value):
        hubid.parse(value, file=a.hub == "file")
    if a.duration:
        _check_duration(key, a, value)
        return
    items = list(value) if isinstance(value, list | tuple) else [value]
    for item in items:
        if not _good(declaration, item):
            found = f"[{item}]" if _is_list(declaration) else value
            raise ConfigError(f"{key}={found}: expected {expected(declaration)}")
        if type(item) is int and key.startswith(OF_ARRAYS) and abs(item) >= 2**31:
            raise ConfigError(f"{key}={value}: expected a number below 2^31, as axes of arrays are")
        if a.targets and (targets := plugins.table("losses")[item].targets) not in a.targets:
            raise ConfigError(
                f"{key}={item}: this loss compares outputs with {targets}; expected one for"
                f" {' or '.join(a.targets)}"
            )


def _good(declaration: Declaration, value: Any) -> bool:
    a = declaration.accepts
    if a.choices:
        return value in a.choices or value in _of_plugins(a)
    if a.matches:
        return re.fullmatch(a.matches, value) is not None
    if value in a.words or not a.bounded:
        return True
    kinds = int if a.words and a.whole else int | float
    if a.words and (isinstance(value, bool) or not isinstance(value, kinds)):
        return False
    return _within(a, value) and (not _finite(declaration) or math.isfinite(value))


def _of_plugins(a: Accepts) -> list[str]:
    return plugins.names(a.plugins) if a.plugins else []


def _within(a: Accepts, value: float) -> bool:
    return (
        (a.at_least is None or value >= a.at_least)
        and (a.at_most is None or value <= a.at_most)
        and (a.above is None or value > a.above)
        and (a.below is None or value < a.below)
    )


def _check_duration(key: str, a: Accepts, value: str) -> None:
    number = durations.parse(value, key)[0]
    if not _within(a, number):
        raise ConfigError(f"{key}={value}: expected more than {a.above:g}")
