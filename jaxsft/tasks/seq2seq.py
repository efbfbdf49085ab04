"""`task=seq2seq`: a text that becomes another. For two kinds of model, told apart by
`model.decoder_layers`.

Decoder-only (0): source and target are one causal stream, `bos template(source) target eos`, of
which the target and its eos are trained. Encoder-decoder: the encoder reads `bos template(source)
eos`, the decoder is given `start target` and trained on `target eos`. Tokens that the tokenizer has
not are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.encoded_texts import no_text
from jaxsft.data.formats import Row
from jaxsft.data.records import Seq2Seq, group_references, seq2seq_record
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.metrics import text_overlap as text_scores
from jaxsft.metrics.base import Outputs
from jaxsft.tasks import specs
from jaxsft.tasks.causal import CausalTask

SLOT = "{source}"


class Seq2SeqTask(CausalTask):
    """Training has a row for each reference; evaluation has a row for each source: its loss is that
    of the first reference, so that a source counts once; its answer is scored against all of them.
    """

    spec = specs.SEQ2SEQ

    def __init__(self, config: Config, tokenizer: Tokenizer, state: Mapping[str, Any]):
        super().__init__(config, tokenizer, state)
        self.scores = text_scores.installed() if config.task.scores is None else config.task.scores
        text_scores.check(self.scores)
        self.two = config.model.decoder_layers > 0
        self.before, self.after = self.state["pattern"].split(SLOT)

    # --- data
    # ----------------------------------------------------------------------------------------------
    def unlabelled(self, row: Row, columns: Any) -> Seq2Seq:
        """Returns the record of a row with an empty target; one in the row is not read.

        Raises DataError.
        """
        name = columns.target or "target"
        blank = dataclasses.replace(row, fields={**row.fields, name: ""})
        return seq2seq_record(blank, dataclasses.replace(columns, target=name, references=None))

    @classmethod
    def arrange(
        cls, records: Sequence[Seq2Seq], where: Sequence[str], columns: Any, training: bool
    ) -> tuple[list[Seq2Seq], list[str]]:
        if training:
            pairs = [
                (r, place, text)
                for r, place in zip(records, where, strict=True)
                for text in r.references or (r.target,)
            ]
            return [dataclasses.replace(r, target=text, references=()) for r, _, text in pairs], [
                place for _, place, _ in pairs
            ]
        return (
            group_references(records, where)
            if columns.group_references
            else (list(records), list(where))
        )

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Seq2Seq], where: Sequence[str]
    ) -> dict[str, Any]:
        if tokenizer.eos_id is None:
            raise ConfigError(
                "task=seq2seq: the tokenizer has no eos_token, so that an answer would never end;"
                " declare one in tokenizer_config.json"
            )
        two, template = config.model.decoder_layers > 0, config.task.template
        if template == "auto":
            template = SLOT if two else f"{SLOT}\n"
        start = start_ids(config, tokenizer) if two else []
        longest = sorted({r.target for r in records}, key=len)[-64:]
        return {
            "pattern": template,
            "start_ids": start,
            "stop_ids": [tokenizer.eos_id],
            "longest_answer": (
                1 + max((len(ids) for ids in tokenizer.encode_batch(longest)), default=0)
            ),
            "score_tokens": (
                text_scores.tokens_for([r.target for r in records]) if records else None
            ),
        }

    def encode_all(self, records: Sequence[Seq2Seq], where: Sequence[str]) -> list[Encoded | str]:
        sources = self.tokenizer.encode_stream(
            [self.before + r.source + self.after for r in records]
        )
        targets = self.tokenizer.encode_stream([r.target for r in records])
        stop, out = tuple(self.stop_ids) if self.config.data.require_stop else (), []
        around = self.tokenizer.encode(self.before + self.after)
        for record, source, target in zip(records, sources, targets, strict=True):
            # An empty target is an answer of its own; one that the tokenizer empties is another
            # answer than the row has.
            lost = "answer_lost" if record.target.strip() and not target else None
            if reason := no_text(record.source, [] if source == around else source) or lost:
                out.append(reason)
                continue
            given, source = (
                (self.state["start_ids"], self._framed(source))
                if self.two
                else (self._framed(source), None)
            )
            ids = np.array([*given, *target, self.tokenizer.eos_id], np.int32)
            weights = np.ones(len(ids), np.float32)
            weights[: len(given)] = 0
            out.append(
                Encoded(
                    ids,
                    weights,
                    stop_ids=stop,
                    source=None if source is None else np.array(source, np.int32),
                )
            )
        return out

    def _framed(self, source: list[int]) -> list[int]:
        """Adds the special tokens to the ids of a source: bos, and eos for an encoder."""
        begin = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return [*begin, *source, *([self.tokenizer.eos_id] if self.two else [])]

    @property
    def source_frame(self) -> tuple[Sequence[int], Sequence[int]] | None:
        ids = self._framed([])
        return (ids[:-1], ids[-1:]) if self.two else None

    # --- answers
    # ----------------------------------------------------------------------------------------------
    @property
    def start_ids(self) -> list[int]:
        """Returns the ids that a decoder starts from; [] for a decoder-only model."""
        return self.state["start_ids"]

    def prompt(self, record: Seq2Seq, where: str) -> list[int]:
        """Returns the ids that an answer is generated from.

        They precede it in the stream of a decoder-only model, or are what the encoder reads.
        """
        return self._framed(self.tokenizer.encode(self.before + record.source + self.after))

    def answer(self, record: Seq2Seq, where: str) -> list[int]:
        """Returns the ids of the longest reference, its stop token included."""
        return max(
            (
                [*self.tokenizer.encode(text), self.tokenizer.eos_id]
                for text in self.references(record, where)
            ),
            key=len,
        )

    def references(self, record: Seq2Seq, where: str) -> list[str]:
        return list(record.references or (record.target,))

    @property
    def answer_measures(self) -> tuple[str, ...]:
        return tuple(self.scores)

    def answer_outputs(
        self, answers: Sequence[str], records: Sequence[Seq2Seq], where: Sequence[str]
    ) -> Outputs:
        references = [
            self.references(record, place) for record, place in zip(records, where, strict=True)
        ]
        asked = self.config.task.score_tokens
        # A folder that was never trained here has seen no target: those that are scored decide.
        learnt = self.state.get("score_tokens") or text_scores.tokens_for(
            [text for texts in references for text in texts]
        )
        return Outputs(
            np.arange(len(records)),
            {},
            texts={"answer": answers, "references": references},
            tokenizer=learnt if asked == "auto" else asked,
        )

    def describe(self, record: Seq2Seq, where: str, answer: str | None) -> dict[str, Any]:
        out: dict[str, Any] = {"source": record.source, "reference": record.target}
        out |= {"references": list(record.references)} if len(record.references) > 1 else {}
        return (
            out
            if answer is None
            else out
            | {
                "prediction": answer,
                "correct": text_scores.matches(answer, self.references(record, where)),
            }
        )


def start_ids(config: Config, tokenizer: Tokenizer) -> list[int]:
    """Returns the ids that a decoder starts from: those of `task.start`, else bos, else padding.

    Raises ConfigError where the tokenizer has none of them.
    """
    if config.task.start is not None:
        return [tokenizer.special_id(token) for token in config.task.start]
    if tokenizer.bos_id is not None:
        return [tokenizer.bos_id]
    if "pad_token" not in tokenizer.role_strings():
        raise ConfigError(
            "task.start: the tokenizer has neither a bos_token nor a pad_token that a decoder could"
            " start from; name a token"
        )
    return [tokenizer.pad_id]
