"""`task=span_corruption`: raw text, of which spans are taken out and written by the decoder of an
encoder-decoder model, as T5 was pretrained.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.corruption import SpanCorruptor
from jaxsft.data.encode import Encoded
from jaxsft.data.encoded_texts import no_text
from jaxsft.data.pipeline import Batch
from jaxsft.data.records import Text
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.tasks import specs
from jaxsft.tasks.causal import CausalTask
from jaxsft.tasks.seq2seq import start_ids


class SpanCorruption(CausalTask):
    """Spans are drawn anew in every epoch of training, and once for evaluation."""

    spec = specs.SPAN_CORRUPTION

    def __init__(self, config: Config, tokenizer: Tokenizer, state: Mapping[str, Any]):
        super().__init__(config, tokenizer, state)
        _ = self.spans  # an error comes before the work

    @functools.cached_property
    def spans(self) -> SpanCorruptor:
        """Returns how spans are chosen and replaced.

        Raises ConfigError where the tokenizer has no sentinel or no eos.
        """
        t, tokenizer = self.config.task, self.tokenizer
        sentinels = []
        while (token := t.sentinel.replace("{i}", str(len(sentinels)))) in tokenizer.added:
            sentinels.append(tokenizer.special_id(token))
        if not sentinels:
            some = ",".join(repr(t.sentinel.replace("{i}", str(i))) for i in range(3))
            raise ConfigError(
                f"task.sentinel={t.sentinel}: the tokenizer has no such tokens; set"
                f" tokenizer.added=[{some},...] or name others"
            )
        if tokenizer.eos_id is None:
            raise ConfigError(
                "task=span_corruption: the tokenizer has no eos_token, so that a target would"
                " never end"
            )
        return SpanCorruptor(
            t.share,
            t.mean_length,
            np.array(sentinels, np.int32),
            tuple(start_ids(self.config, tokenizer)),
            (tokenizer.eos_id,),
        )

    @property
    def start_ids(self) -> Sequence[int]:
        return self.spans.start

    @property
    def source_frame(self) -> tuple[Sequence[int], Sequence[int]]:
        return (), self.spans.end

    def corrupt(self, batch: Batch, seed: int, epoch: int) -> Batch:
        return self.spans.batch(batch, seed, epoch)

    def encode_all(self, records: Sequence[Text], where: Sequence[str]) -> list[Encoded | str]:
        ids = self.tokenizer.encode_stream([r.text for r in records])
        return [
            no_text(record.text, one) or self.spans.encoded(np.array(one, np.int32))
            for record, one in zip(records, ids, strict=True)
        ]

    @property
    def digest(self) -> dict[str, Any]:
        t = self.config.task
        return {**super().digest, "spans": [t.share, t.mean_length, t.sentinel, self.spans.start]}
