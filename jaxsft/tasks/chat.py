"""`task=chat`: conversations, loss on the assistant's turns only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.chat.templates import Template
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.records import Chat, open_chat
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.metrics import text_overlap
from jaxsft.metrics.base import Outputs
from jaxsft.tasks import specs
from jaxsft.tasks.causal import CausalTask
from jaxsft.tasks.chat_template import template_of
from jaxsft.tasks.last_turn import longest_answer, only_last


class ChatSFT(CausalTask):
    """One renderer for training, evaluation and generation; its source is kept with the run."""

    spec = specs.CHAT

    def __init__(self, config: Config, tokenizer: Tokenizer, state: Mapping[str, Any]):
        super().__init__(config, tokenizer, state)
        self.template = Template.from_stored(self.state["template"], tokenizer, **_rules(config))

    def unlabelled(self, row: Row, columns: Any) -> Chat:
        """Returns a conversation with an empty last answer, to be generated. Raises DataError."""
        return open_chat(row, columns)

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Chat], where: Sequence[str]
    ) -> dict[str, Any]:
        options = {**_rules(config), "variables": config.task.variables}
        template = template_of(config.task.template, tokenizer, **options)
        longest = longest_answer(template, records, where)
        return {
            "template": template.stored,
            "stop_ids": list(template.stop_ids),
            "longest_answer": longest,
        }

    def encode_all(self, records: Sequence[Chat], where: Sequence[str]) -> list[Encoded | str]:
        """Renders each conversation once, to ids and the weight of each as a target.

        The weight of an id is that of its message (`Message.weight`) where the assistant writes it,
        the stop token included, and 0 everywhere else (`Template.render`).
        """
        stop = tuple(self.template.stop_ids) if self.config.data.require_stop else ()
        chats = [self._trained(record) for record in records]
        made = lambda one: Encoded(np.array(one.ids, np.int32), one.weights, stop_ids=stop)
        return [
            made(one)._replace(more=tuple(map(made, one.others)))
            for one in self.template.render_all(chats, where)
        ]

    def _trained(self, record: Chat) -> Chat:
        """Returns the conversation, with weight 0 for turns that `task.train_turns` leaves out."""
        return record if self.config.task.train_turns == "all" else only_last(record)

    def written(self, record: Chat, where: str) -> list[bool]:
        """Returns for each id of a row's texts whether the template alone wrote it."""
        return self.template.written(self._trained(record), where)

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
        trained = dataclasses.replace(last, weight=1.0)
        trained = dataclasses.replace(record, messages=(*before, trained))
        rendered = self.template.render(only_last(trained), where)
        return rendered.ids[rendered.turns[0][0] : rendered.turns[-1][1]]

    def reference(self, record: Chat, where: str) -> str:
        """Returns the text of the last turn as it is trained, without its stop token.

        It may differ from the content of the turn: a tool call, or an answer whose thought the
        prompt has opened.
        """
        ids = self.answer(record, where)
        ids = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        return self.tokenizer.decode(ids, skip_special=False)

    def answer_outputs(
        self, answers: Sequence[str], records: Sequence[Chat], where: Sequence[str]
    ) -> Outputs:
        references = [
            [self.reference(record, place)] for record, place in zip(records, where, strict=True)
        ]
        texts = {"answer": answers, "references": references}
        tokens = text_overlap.tokens_for([text for texts in references for text in texts])
        return Outputs(np.arange(len(records)), {}, texts=texts, tokenizer=tokens)

    def describe(self, record: Chat, where: str, answer: str | None) -> dict[str, Any]:
        out = {
            "prompt": "\n".join(m.content for m in record.messages[:-1]),
            "reference": self.reference(record, where),
        }
        if answer is None:
            return out
        return out | {
            "prediction": answer,
            "correct": text_overlap.matches(answer, [out["reference"]]),
        }


def _rules(config: Config) -> dict[str, bool]:
    """Returns what of the config a template checks in each conversation that it renders."""
    task = config.task
    return {"require_stop": config.data.require_stop, "allow_unwritten": task.allow_unwritten}
