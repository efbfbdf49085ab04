"""The tools that a conversation may call (JSON schemas): of a column, in the older spelling of
OpenAI, or inside the first message.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxsft.data.formats import Row
from jaxsft.data.records.fields import show, without_none
from jaxsft.data.records.messages import Message, json_of
from jaxsft.errors import DataError


def tools_of(row: Row, columns: Any, inside: tuple) -> tuple:
    """Returns the tools of a row: those of the column `data.columns.tools` (`tools` where it names
    none, or `functions`, the older spelling of OpenAI), or those `inside` its first message.

    Raises DataError where two of these places have some.
    """
    name = columns.tools or "tools"
    tools = _tools(row.fields.get(name), f"{row.where}: column {name!r}")
    if columns.tools is None and (former := _functions(row)):
        if tools or inside:
            raise DataError(
                f"{row.where}: the columns 'tools' and 'functions' are both there, expected one;"
                " drop a column"
            )
        tools = former
    if tools and inside:
        raise DataError(
            f"{row.where}: the column {name!r} and the first message both have tools, expected"
            " one; drop the column"
        )
    return tools or inside


def without_tools(messages: tuple[Message, ...], where: str) -> tuple[tuple[Message, ...], tuple]:
    """Takes the tools out of the system message, where MiniMind writes them: (messages, tools)."""
    if not messages or messages[0].role != "system" or "tools" not in messages[0].extra:
        return messages, ()
    tools = _tools(messages[0].extra["tools"], f"{where}: the tools of message 1")
    first = dataclasses.replace(
        messages[0], extra={k: v for k, v in messages[0].extra.items() if k != "tools"}
    )
    return (first, *messages[1:]), tools


def _functions(row: Row) -> tuple:
    """Returns the tools of a row in the older spelling of OpenAI, `functions`."""
    found = _tools(row.fields.get("functions"), f"{row.where}: column 'functions'")
    return tuple({"type": "function", "function": one} for one in found)


def _tools(tools: Any, where: str) -> tuple:
    # Arrow files keep schemas that differ by row as JSON text
    if isinstance(tools, str) and tools.strip():
        tools = json_of(tools, where, "a list of tools")
    if not tools:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{where} holds {show(tools)}, expected a list of objects")
    return tuple(without_none(tools))
