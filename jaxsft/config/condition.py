"""Conditions on a config, written as text: where an option is read, and what it needs.

`model.positions=rope|learned`, `train.init_from` (is set), `model.experts>0`, `task!=lm`; several
stand with `and` and `or` between them. A name is an option, a group (`task`: the choice), what a
task says of itself: `output` (vocabulary | text | span | words), `answer` (`TaskSpec.output`) and
`stops` (true where a stop token is trained), or what the loss of its option `task.loss` says:
`targets` and `reads` (`jaxsft.losses.Loss`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_TERM = re.compile(r"(?P<key>[\w.]+)(?:(?P<sign>!=|=|>)(?P<value>\S+))?")
OF_TASKS = {  # what a task says of itself, as it is told
    "output=vocabulary": "by tasks with an output over the vocabulary",
    "output=text": "by tasks on whole texts",
    "output=span": "by tasks that point into a text",
    "output=words": "by tasks on words",
    "answer=label": "by tasks that give one label",
    "answer=answer": "by tasks that answer",
    "answer=target": "by tasks that write a text for another",
    "answer=continuation": "by tasks that go on with a text",
    "targets=labels": "by losses of labels",
    "targets=together": "by losses of texts that belong together",
    "reads": "by losses that read it",
    "stops=true": "by tasks that train a stop token",
}
ABOUT_TASKS = {text.partition("=")[0] for text in OF_TASKS}


class Term(NamedTuple):
    """One comparison; `sign` is empty where the option must be set, whatever it is."""

    key: str
    sign: str
    values: tuple[str, ...]

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Returns whether a flat config (`validate.flat`) fulfils it."""
        found = value_of(self.key, config)
        if self.sign == "":
            return bool(found)
        if self.sign == ">":
            return found is not None and found > float(self.values[0])
        several = found if isinstance(found, list | tuple) and found else [found]
        return any(is_text(one, text) for one in several for text in self.values) == (
            self.sign == "="
        )

    def __str__(self) -> str:
        if not self.sign:
            return self.key
        values = " or ".join(self.values)
        if self.sign == ">":
            return f"{self.key} above {values}"
        return f"{self.key}={values}" if self.sign == "=" else f"{self.key} other than {values}"


@functools.cache
def parse(text: str) -> tuple[tuple[Term, ...], ...]:
    """Returns the alternatives, each of terms that must hold together.

    >>> [str(term) for term in parse("model.positions=rope|learned and model.window")[0]]
    ['model.positions=rope or learned', 'model.window']
    """
    return tuple(tuple(map(_term, part.split(" and "))) for part in text.split(" or "))


def _term(text: str) -> Term:
    match = _TERM.fullmatch(text.strip())
    assert match, f"no condition: {text!r}"
    return Term(match["key"], match["sign"] or "", tuple((match["value"] or "").split("|")))


def holds(text: str, config: Mapping[str, Any]) -> bool:
    """Returns whether a flat config (`validate.flat`) fulfils a condition; an empty one holds."""
    return not text or any(all(term.holds(config) for term in part) for part in parse(text))


def broken(text: str, config: Mapping[str, Any]) -> Term:
    """Returns the first term of the first alternative that does not hold."""
    return next(term for term in parse(text)[0] if not term.holds(config))


def where(text: str, config: Mapping[str, Any] | None = None) -> str:
    """Writes a condition as the end of a sentence that begins with "is read".

    Of a single condition that `config` breaks, only what is lacking is written.

    >>> where("model.positions=rope and model.window")
    'with model.positions=rope and model.window only'
    >>> where("output=vocabulary or task=pair")
    'by tasks with an output over the vocabulary, or with task=pair only'
    """
    by, said, parts = [], [], parse(text)
    if config is not None and len(parts) == 1:
        parts = (tuple(term for term in parts[0] if not term.holds(config)),)
    for part in parts:
        of_tasks = [term for term in part if term.key in ABOUT_TASKS]
        outputs = [
            OF_TASKS.get(term.key) or OF_TASKS[f"{term.key}={value}"]
            for term in of_tasks
            for value in term.values
        ]
        rest = " and ".join(str(term) for term in part if term not in of_tasks)
        if outputs:
            by.append(" and ".join(outputs) + (f" with {rest}" if rest else ""))
        else:
            said.append(rest)
    return ", or ".join([*by, *([f"with {' or '.join(said)}"] if said else [])]) + " only"


def value_of(key: str, config: Mapping[str, Any]) -> Any:
    """Returns the value of an option, or the choice of a group; None where there is none."""
    return next((config[k] for k in (key, f"{key}.name", f"{key}.kind") if k in config), None)


def is_text(value: Any, text: str) -> bool:
    """Returns whether a value is that of a text in a condition: `true`, `null`, `0.1`, a word."""
    if value is None or isinstance(value, bool):
        return text == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return text.replace(".", "", 1).isdigit() and float(text) == value
    return not value and text == "null" if isinstance(value, list | tuple) else value == text
