"""Writes the text of messages by a template, as Hugging Face gives them to one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft.data.chat.provenance import Tracked
from jaxsft.data.chat.template_environment import Environment
from jaxsft.data.chat.template_variables import CLOCK
from jaxsft.data.chat.turns import Draft
from jaxsft.data.records import Message
from jaxsft.data.records.messages import THOUGHTS
from jaxsft.errors import DataError


@dataclasses.dataclass
class Drafting:
    """The writer of the texts of conversations by one template.

    Attributes:
      name: of the template, for errors.
      environment: the Jinja environment; of symbolic values, another one.
      template: compiled in this environment.
      roles: the strings of special tokens, by role.
      variables: further names that the template reads.
      in_parts: whether a content is given as a list of parts.
      text_arguments: whether the arguments of a call are given as JSON text.
    """

    name: str
    environment: Environment
    template: Any
    roles: Mapping[str, str]
    variables: Mapping[str, Any]
    in_parts: bool = False
    text_arguments: bool = False

    def __call__(self, tools: tuple, where: str) -> Draft:
        """Returns a function that renders messages, each list of them once."""
        made: dict[tuple[int, bool], Tracked] = {}

        def draft(messages: Sequence[Message], prompt: bool) -> Tracked:
            key = (len(messages), prompt)
            if key not in made:
                made[key] = self._text(messages, tools, prompt, where)
            return made[key]

        return draft

    def _text(self, messages: Sequence[Message], tools: tuple, prompt: bool, where: str) -> Tracked:
        given = self.environment.given
        variables = {
            **self.roles,
            **self.variables,
            # A role is one of four known words, so the template may build its tokens from it.
            "messages": [
                {
                    "role": m.role,
                    "content": self._content(given(m.content)),
                    **given(self._fields(m)),
                }
                for m in messages
            ],
            "tools": given(list(tools)) or None,
            "documents": None,
            "add_generation_prompt": prompt,
        }
        try:
            return self.environment.run(
                self.template, variables, f"{where}: template {self.name!r}"
            )
        except DataError as error:
            if f"'{CLOCK}' is undefined" not in str(error):
                raise
            raise DataError(
                f"{where}: template {self.name!r} writes the date of today ({CLOCK}), but a run"
                " must repeat; give it a date that stays, such as 'task.variables={date:"
                " 2026-01-31}'"
            ) from None

    def _content(self, content: Any) -> Any:
        return [{"type": "text", "text": content}] if self.in_parts else content

    def _fields(self, message: Message) -> dict[str, Any]:
        """Returns the other fields of a message.

        A thought has all names that templates know it by, as in Hugging Face.
        """
        fields = dict(message.extra)
        if found := [fields[name] for name in THOUGHTS if name in fields]:
            fields = {"thinking": found[0]} | fields | {"reasoning_content": found[0]}
        if self.text_arguments and "tool_calls" in fields:
            fields["tool_calls"] = [_with_text_arguments(call) for call in fields["tool_calls"]]
        return fields


def _with_text_arguments(call: Any) -> Any:
    """Returns a tool call with its arguments as JSON text."""
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        return call
    function = dict(call["function"])
    if isinstance(function.get("arguments"), Mapping):
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": function}
