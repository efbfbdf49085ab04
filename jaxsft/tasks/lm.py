"""`task=lm`: raw text, every token trained. For continued pretraining before tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.encoded_texts import no_text
from jaxsft.data.records import Text
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.tasks import specs
from jaxsft.tasks.causal import CausalTask


class LM(CausalTask):
    """Documents are framed by the tokenizer's bos and eos; one that is longer than a row is cut
    into consecutive chunks, so that nothing is lost.
    """

    spec = specs.LM

    def prompt(self, record: Text, where: str) -> list[int]:
        """Returns the ids that a continuation starts from: bos, if declared, and the text's."""
        return (
            [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        ) + self.tokenizer.encode(record.text)

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Text], where: Sequence[str]
    ) -> dict[str, Any]:
        return {"stop_ids": [] if tokenizer.eos_id is None else [tokenizer.eos_id]}

    def encode_all(self, records: Sequence[Text], where: Sequence[str]) -> list[Encoded | str]:
        before = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        after = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        encoded = []
        for record, ids in zip(
            records, self.tokenizer.encode_stream([r.text for r in records]), strict=True
        ):
            if reason := no_text(record.text, ids) or (
                "empty" if len(before + ids + after) == 1 else None
            ):
                encoded.append(reason)
                continue
            ids = np.array(before + ids + after, np.int32)
            weights = np.ones(len(ids), np.float32)
            weights[0] = 0  # nothing precedes it
            encoded.append(Encoded(ids, weights, chunk=True))
        return encoded
