"""`task=joint`: a label for the text and a tag for each word, over one encoder: the intent of an
utterance and its slots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records import Slots
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.metrics.base import Outputs
from jaxsft.models.attention import TokenInfo
from jaxsft.models.crf import TagHead
from jaxsft.models.heads import TextHead
from jaxsft.models.step_sums import Hits
from jaxsft.tasks import rows, specs
from jaxsft.tasks.loss_terms import Weighed
from jaxsft.tasks.tag import TagWords
from jaxsft.tasks.task import Output, Terms
from jaxsft.tasks.whole_text import TextTask


class JointHead(nn.Module):
    """Declares the head of the text, `text/`, and that of its words, `words/`; each is applied by
    itself.
    """

    text: TextHead
    words: TagHead

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        return self.text(x), self.words(x)


class SlotsAndIntent(TagWords):
    """The sum of the loss of the label and, weighed by `task.tags`, of that of the tags (Chen et
    al., 2019, arXiv:1902.10909).

    A frame is right where the label and every tag of the text are (sentence-level semantic frame
    accuracy; Hakkani-Tür et al., 2016).
    """

    spec = specs.JOINT

    def unlabelled(self, row: Row, columns: Any) -> Slots:
        # never read
        row = dataclasses.replace(row, fields={**row.fields, "label": self.intents[0]})
        return super().unlabelled(
            row, dataclasses.replace(columns, label="label", label_names=None, no_label=None)
        )

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Slots], where: Sequence[str]
    ) -> dict[str, Any]:
        intents = TextTask.fit_labels(config.task.intents, {r.label for r in records}, where)
        return {**super().fit(config, tokenizer, records, where), "intents": intents}

    @property
    def intents(self) -> list[str]:
        return self.state["intents"]

    def encode_all(self, records: Sequence[Slots], where: Sequence[str]) -> list[Encoded | str]:
        intents = TextTask.read_labels(
            self, records, where, self.intents, lambda r: (r.label,), option="task.intents"
        )
        words = super().encode_all(records, where)
        return [
            e._replace(segment={"label": label, "weight": 1.0})
            for e, (label,) in zip(words, intents, strict=True)
        ]

    def head(self, vocab: int, precision: str) -> JointHead:
        return JointHead(
            TextHead(self.config.model.embed, len(self.intents), precision, self.config.task.pool),
            super().head(vocab, precision),
        )

    @staticmethod
    def term_weights(config: Config) -> dict[str, float]:
        return {"intent": 1.0} | dict.fromkeys(TagWords.term_weights(config), config.task.tags)

    def totals(self, batch: Batch) -> Terms:
        tags = dict.fromkeys(TagWords.term_weights(self.config), batch.words["weight"].sum())
        return {"intent": TextTask.weight(batch).sum()} | tags

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        where = TokenInfo(batch.segment_ids, batch.positions)
        hidden = self.states(model, params, batch, noise)  # [B, S, D]
        noise = noise.at(model.config.layers + 1) if noise else None
        tags = self.of_states(
            hidden, model.head.words, params["head"]["words"], batch, hyper, noise, columns=columns
        )
        logits = model.head.text.apply(
            {"params": params["head"]["text"]},
            hidden,
            where,
            batch.example_ids.shape[1],
            noise and noise.at(1),
        )
        gold, present = batch.segment["label"].astype(jnp.int32), batch.example_ids >= 0
        values = self.head_loss.of_labels(logits, gold, hyper)
        terms = {"intent": Weighed(values, TextTask.weight(batch))}
        hits = Hits.update(logits.argmax(-1) == gold, present, "intent_accuracy")
        found = {"intent": logits} if columns else None
        text = Output.of(terms, {"intent": hits}, batch, found)
        return Output(*(a | b for a, b in zip(text, tags, strict=True)))

    # --- results
    # ----------------------------------------------------------------------------------------------
    def _intents(self, split: Split, columns) -> np.ndarray:
        """Returns the number of the predicted intent of each row, from the mean logits of its
        windows; -1 of a row that was dropped.
        """
        out = np.full(len(split.records), -1)
        out[rows.kept(split)[0]] = rows.mean(split, columns["intent"]).argmax(-1)
        return out

    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        found = super().row_outputs(split, columns)
        index = {label: i for i, label in enumerate(self.intents)}
        gold = np.array([index[record.label] for record in split.records], np.int64)
        wrong = found["word.tag"] != found["word.predicted"]
        hit = gold == self._intents(split, columns)
        frame = hit & (np.bincount(found["word.row"], wrong, len(found)) == 0)
        arrays = {**found.arrays, "intent_hit": hit, "frame_hit": frame}
        return dataclasses.replace(found, arrays=arrays)

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        intents = self._intents(split, columns)
        for line in super().predictions(split, columns, answers):
            gold, guess = split.records[line["row"]].label, self.intents[intents[line["row"]]]
            yield line | {
                "intent": gold,
                "predicted_intent": guess,
                "correct": line["correct"] and gold == guess,
            }

    @staticmethod
    def predicted(line: dict[str, Any]) -> dict[str, Any]:
        return {"prediction": line["prediction"], "predicted_intent": line["predicted_intent"]}
