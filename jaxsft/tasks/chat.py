"""`task=chat`: conversations, loss on the assistant's turns only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.records import KINDS, Chat, open_chat
from jaxsft.data.templates import Template
from jaxsft.data.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.tasks.causal import CausalTask


def template_of(name: str, tokenizer: Tokenizer, **options: Any) -> Template:
    """`auto` is the tokenizer's own template where it has one, else ours; anything else but `default` is a file."""
    if name == "default" or (name == "auto" and tokenizer.chat_template is None):
        return Template.default(tokenizer, **options)
    if name == "auto":
        return Template.of(tokenizer, **options)
    try:
        source = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"task.template={name}: expected auto, default or a readable file with a Jinja template ({error})") from error
    return Template(source, tokenizer, name, **options)


class ChatSFT(CausalTask):
    """One renderer for training, evaluation and generation; its source is kept with the run."""

    name = "chat"
    generates = True
    metrics = (*CausalTask.metrics, "exact_match", "stopped", "generated_rows")
    record, texts, inputs, outputs = (staticmethod(getattr(KINDS["chat"], name)) for name in ("record", "texts", "inputs", "outputs"))

    def __init__(self, config: Config, tokenizer: Tokenizer, state: Mapping[str, Any]):
        super().__init__(config, tokenizer, state)
        stored = self.state["template"]
        options = {"require_stop": config.data.require_stop, "allow_unwritten": config.task.allow_unwritten, "variables": stored["variables"]}
        self.template = Template(stored["source"], tokenizer, stored["name"], **options)

    can_generate = True

    def unlabelled(self, row: Row, columns: Any) -> Chat:
        """The answer to come stands as an empty assistant turn; one that is there is replaced."""
        return open_chat(row, columns)

    @property
    def stop_ids(self) -> list[int]:
        return self.state["stop_ids"]

    @classmethod
    def fit(cls, config: Config, tokenizer: Tokenizer, records: Sequence[Chat], where: Sequence[str]) -> dict[str, Any]:
        options = {"require_stop": config.data.require_stop, "allow_unwritten": config.task.allow_unwritten, "variables": config.task.variables}
        template = template_of(config.task.template, tokenizer, **options)
        kept = {"name": template.name, "source": template.source, "variables": template.variables, "sha256": template.digest}
        return {"template": kept, "stop_ids": list(template.stop_ids), "longest_answer": cls._longest_answer(template, records, where)}

    @staticmethod
    def _longest_answer(template: Template, records: Sequence[Chat], where: Sequence[str]) -> int:
        """Tokens of the longest last turn as it is trained, among the rows whose last message is long or has more than its content."""
        likely = sorted(range(len(records)), key=lambda i: len(records[i].messages[-1].content))[-64:]
        likely += [i for i, record in enumerate(records) if record.messages[-1].extra]
        rendered = template.render_all([records[i] for i in likely], [where[i] for i in likely])
        return max(end - start for start, end, _ in [one.turns[-1] for one in rendered])

    def encode_all(self, records: Sequence[Chat], where: Sequence[str]) -> list[Encoded | str]:
        stop = tuple(self.template.stop_ids) if self.config.data.require_stop else ()
        rendered = self.template.render_all(records, where)
        return [Encoded(np.array(r.ids, np.int32), r.weights, stop_ids=stop) for r in rendered]

    def prompt(self, record: Chat, where: str) -> list[int]:
        """The ids that generation of the last assistant turn starts from."""
        return self.template.prompt(record.messages[:-1], where, record.tools)

    @property
    def digest(self) -> dict[str, Any]:
        return {**super().digest, "allow_unwritten": self.config.task.allow_unwritten}

    def answer(self, record: Chat, where: str) -> list[int]:
        """The ids that the model is trained to write for the last turn, what the template writes into it and the stop token included."""
        rendered = self.template.render(record, where)
        start, end, _ = rendered.turns[-1]
        return rendered.ids[start:end]

    def reference(self, record: Chat, where: str) -> str:
        """The last turn as it is trained, which may be other than its content: a tool call, or an answer whose thought the prompt has opened."""
        ids = self.answer(record, where)
        return self.tokenizer.decode(ids[:-1] if ids and ids[-1] in self.stop_ids else ids, skip_special=False)

    def score(self, answers: Sequence[str], records: Sequence[Chat], where: Sequence[str]) -> dict[str, float]:
        hits = [matches(text, self.reference(record, place)) for text, record, place in zip(answers, records, where, strict=True)]
        return {"exact_match": float(np.mean(hits))}

    @property
    def answers_up_to(self) -> int:
        return 2 * self.state["longest_answer"] + 16

    def describe(self, record: Chat, where: str, answer: str | None) -> dict[str, Any]:
        out = {"prompt": "\n".join(m.content for m in record.messages[:-1]), "reference": self.reference(record, where)}
        return out if answer is None else out | {"prediction": answer, "correct": matches(answer, out["reference"])}


def matches(answer: str, reference: str) -> bool:
    """Exact match, but for white space at the ends."""
    return answer.strip() == reference.strip()
