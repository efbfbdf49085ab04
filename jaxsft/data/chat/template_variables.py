"""Variables of a chat template beside the conversation (`task.variables`).

They are checked here, and written as Jinja where a template leaves the run.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

from jaxsft.errors import ConfigError

DATE, CLOCK = "date", "strftime_now"  # the variable, and the function of templates that writes it
GIVEN = ("messages", "tools", "documents", "add_generation_prompt")  # by every conversation


def clock(variables: Mapping[str, Any]) -> dict[str, Callable[[str], str]]:
    """Returns `strftime_now` for the given date; empty without a date, for a run must repeat.

    Raises ConfigError where it is no date.
    """
    if variables.get(DATE) is None:
        return {}
    try:
        date = datetime.datetime.fromisoformat(str(variables[DATE]))
    except ValueError:
        raise ConfigError(
            f"task.variables: date={variables[DATE]} is no date; expected one such as 2026-01-31"
        ) from None
    return {CLOCK: lambda form: date.strftime(str(form))}


def check(variables: Mapping[str, Any], names: Collection[str], template: str) -> None:
    """Raises ConfigError for a variable that the template, which expects these names, never reads,
    or that every conversation gives itself.
    """
    if taken := sorted(variables.keys() & set(GIVEN)):
        raise ConfigError(f"task.variables: {taken[0]} is given by each conversation; leave it out")
    known = {*names} | ({DATE} if CLOCK in names else set())
    if unread := sorted(variables.keys() - known):
        raise ConfigError(
            f"task.variables: template {template!r} reads no {unread[0]}; it reads"
            f" {', '.join(sorted(known))}"
        )


def pinned(source: str, variables: Mapping[str, Any]) -> str:
    """Returns the template with its variables set at the top, so that it repeats anywhere.

    Raises ConfigError where Jinja cannot express one.
    """
    head = [f"{{%- set {name} = {literal(value)} " for name, value in variables.items()]
    if (date := clock(variables)) and (
        forms := {form: date[CLOCK](form) for form in _forms(source)}
    ):
        head.append(f"{{%- macro {CLOCK}(form) -%}}{{{{ {literal(forms)}[form] }}}}{{%- endmacro ")
    # a minus would take the white space that the template begins with
    end = "%}\n" if source[:1].isspace() else "-%}\n"
    return "".join(part + end for part in head) + source


def literal(value: Any) -> str:
    """Returns a value as a Jinja literal. Raises ConfigError where there is none."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return (
            json.dumps(value, ensure_ascii=False)
            .replace("{", "\\x7b")
            .replace("}", "\\x7d")
            .replace("#", "\\x23")
        )
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{literal(str(key))}: {literal(part)}" for key, part in value.items())
            + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    raise ConfigError(
        f"task.variables: {value!r} cannot be written into a template; expected text, numbers,"
        " true, false, null, lists or objects"
    )


def _forms(source: str) -> list[str]:
    """Returns the date formats that a template asks for.

    Raises ConfigError where one is no constant.
    """
    try:
        calls = list(
            Environment(extensions=["jinja2.ext.loopcontrols"])
            .parse(_without_marks(source))
            .find_all(nodes.Call)
        )
    except TemplateSyntaxError as error:
        raise ConfigError(f"the chat template, line {error.lineno}: {error.message}") from None
    asked = [
        call for call in calls if isinstance(call.node, nodes.Name) and call.node.name == CLOCK
    ]
    if not all(len(call.args) == 1 and isinstance(call.args[0], nodes.Const) for call in asked):
        raise ConfigError(
            "the chat template asks for the date in a form that it makes up, so that the date of"
            " the run cannot be written into it"
        )
    return [call.args[0].value for call in asked]


def _without_marks(source: str) -> str:
    return re.sub(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}", "", source)
