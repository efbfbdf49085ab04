"""`task=chat`: conversations, loss on the assistant's turns only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.chat import named_templates
from jaxsft.data.chat.templates import Template
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.records import Chat, open_chat
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.metrics import text_overlap
from jaxsft.metrics.base import Outputs
from jaxsft.tasks import specs
from jaxsft.tasks.causal import CausalTask


def template_of(name: str, tokenizer: Tokenizer, **options: Any) -> Template:
    """Returns the chat template of a name.

    `auto` is the tokenizer's own template where it has one, else ours. Other names are looked up
    among ours, then among the tokenizer's, then as files.

    Raises:
      ConfigError: there is none of this name, or the tokenizer lacks its tokens.
    """
    if name == "default" or (name == "auto" and not tokenizer.chat_templates):
        return Template.default(tokenizer, **options)
    if name == "auto":
        return Template.of(tokenizer, **options)
    if name in named_templates.NAMED:
        if missing := named_templates.lacking(name, tokenizer.added):
            raise ConfigError(
                f"task.template={name}: the tokenizer has no special token {missing[0]!r}; set"
                f" tokenizer.added={json.dumps(missing)}"
            )
        return Template(named_templates.source(name), tokenizer, name, **options)
    if name in tokenizer.chat_templates:
        return Template(tokenizer.chat_templates[name], tokenizer, name, **options)
    try:
        source = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        own = [own for own in tokenizer.chat_templates if own != "default"]
        known = ", ".join(("auto", "default", *named_templates.NAMED, *own))
        raise ConfigError(
            f"task.template={name}: expected {known}, or a readable file with a Jinja template"
            f" ({error})"
        ) from error
    return Template(source, tokenizer, name, **options)


def only_last(chat: Chat) -> Chat:
    """Returns the conversation with its last turn trained, and no other."""
    *before, last = chat.messages
    return dataclasses.replace(
        chat, messages=(*(dataclasses.replace(m, weight=0.0) for m in before), last)
    )


class ChatSFT(CausalTask):
    """One renderer for training, evaluation and generation; its source is kept with the run."""

    spec = specs.CHAT

    def __init__(self, config: Config, tokenizer: Tokenizer, state: Mapping[str, Any]):
        super().__init__(config, tokenizer, state)
        stored = self.state["template"]
        options = {
            "require_stop": config.data.require_stop,
            "allow_unwritten": config.task.allow_unwritten,
        }
        self.template = Template.from_stored(stored, tokenizer, **options)

    def unlabelled(self, row: Row, columns: Any) -> Chat:
        """Returns a conversation with an empty last answer, to be generated. Raises DataError."""
        return open_chat(row, columns)

    @property
    def stop_ids(self) -> list[int]:
        return self.state["stop_ids"]

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Chat], where: Sequence[str]
    ) -> dict[str, Any]:
        options = {
            "require_stop": config.data.require_stop,
            "allow_unwritten": config.task.allow_unwritten,
            "variables": config.task.variables,
        }
        template = template_of(config.task.template, tokenizer, **options)
        longest = cls._longest_answer(template, records, where)
        return {
            "template": template.stored,
            "stop_ids": list(template.stop_ids),
            "longest_answer": longest,
        }

    @staticmethod
    def _longest_answer(template: Template, records: Sequence[Chat], where: Sequence[str]) -> int:
        """Counts the tokens of the longest last turn as it is trained.

        Rendered are only the 64 rows whose last message is longest in characters, and those whose
        last message has more than its content.
        """
        there = [i for i, record in enumerate(records) if record.messages[-1].weight > 0]
        likely = sorted(there, key=lambda i: len(records[i].messages[-1].content))[-64:]
        likely += [i for i in there if records[i].messages[-1].extra]
        rendered = template.render_all(
            [only_last(records[i]) for i in likely], [where[i] for i in likely]
        )
        return max((one.turns[-1][1] - one.turns[0][0] for one in rendered), default=0)

    def encode_all(self, records: Sequence[Chat], where: Sequence[str]) -> list[Encoded | str]:
        stop = tuple(self.template.stop_ids) if self.config.data.require_stop else ()
        chats = (
            records
            if self.config.task.train_turns == "all"
            else [only_last(record) for record in records]
        )
        made = lambda one: Encoded(np.array(one.ids, np.int32), one.weights, stop_ids=stop)
        return [
            made(one)._replace(more=tuple(map(made, one.others)))
            for one in self.template.render_all(chats, where)
        ]

    def written(self, record: Chat, where: str) -> list[bool]:
        """Returns for each id of a row's texts whether the template alone wrote it."""
        return self.template.written(
            record if self.config.task.train_turns == "all" else only_last(record), where
        )

    def prompt(self, record: Chat, where: str) -> list[int]:
        """Returns the ids that generation of the last assistant turn starts from."""
        return self.template.prompt(record.messages[:-1], where, record.tools)

    @property
    def digest(self) -> dict[str, Any]:
        return {
            **super().digest,
            "allow_unwritten": self.config.task.allow_unwritten,
            "train_turns": self.config.task.train_turns,
        }

    def answer(self, record: Chat, where: str) -> list[int]:
        """Returns the trained ids of the last turn, those of the template and the stop included."""
        *before, last = record.messages
        rendered = self.template.render(
            only_last(
                dataclasses.replace(
                    record, messages=(*before, dataclasses.replace(last, weight=1.0))
                )
            ),
            where,
        )
        return rendered.ids[rendered.turns[0][0] : rendered.turns[-1][1]]

    def reference(self, record: Chat, where: str) -> str:
        """Returns the text of the last turn as it is trained, without its stop token.

        It may differ from the content of the turn: a tool call, or an answer whose thought the
        prompt has opened.
        """
        ids = self.answer(record, where)
        return self.tokenizer.decode(
            ids[:-1] if ids and ids[-1] in self.stop_ids else ids, skip_special=False
        )

    def answer_outputs(
        self, answers: Sequence[str], records: Sequence[Chat], where: Sequence[str]
    ) -> Outputs:
        references = [
            [self.reference(record, place)] for record, place in zip(records, where, strict=True)
        ]
        texts = {"answer": answers, "references": references}
        return Outputs(np.arange(len(records)), {}, texts=texts)

    @property
    def answers_up_to(self) -> int:
        return 2 * self.state["longest_answer"] + 16

    def describe(self, record: Chat, where: str, answer: str | None) -> dict[str, Any]:
        out = {
            "prompt": "\n".join(m.content for m in record.messages[:-1]),
            "reference": self.reference(record, where),
        }
        return (
            out
            if answer is None
            else out
            | {"prediction": answer, "correct": text_overlap.matches(answer, [out["reference"]])}
        )
