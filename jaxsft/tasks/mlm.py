"""`task=mlm`: raw text, of which some tokens are hidden and guessed. For pretraining an encoder,
and for adapting one to a domain.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.encoded_texts import framed, no_text
from jaxsft.data.masking import Masking
from jaxsft.data.pipeline import Batch
from jaxsft.data.records import Text
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.models.attention import TokenInfo
from jaxsft.models.heads_mlm import MaskedHead
from jaxsft.tasks import specs
from jaxsft.tasks.causal import CausalTask, TrainedTokens
from jaxsft.tasks.task import Output


class MaskedLM(CausalTask):
    """Texts are framed as whole texts are, and long ones cut into pieces with the frame each, so
    that nothing is lost. Masks are drawn anew in every epoch of training (Liu et al., 2019,
    arXiv:1907.11692, section 4.1) and once for evaluation. The loss is that of the chosen tokens,
    each with the weight of its row.
    """

    spec = specs.MLM

    def __init__(self, config: Config, tokenizer: Tokenizer, state: Mapping[str, Any]):
        super().__init__(config, tokenizer, state)
        _ = self.masking  # an error comes before the work

    @functools.cached_property
    def masking(self) -> Masking:
        """Returns how tokens are chosen and hidden.

        Raises ConfigError where the tokenizer has no mask token, or cannot tell where words begin,
        which `task.whole_word` needs.
        """
        t, tokenizer = self.config.task, self.tokenizer
        mask = tokenizer.mask_id if t.mask_token is None else tokenizer.special_id(t.mask_token)
        if mask is None:
            raise ConfigError(
                "task=mlm: the tokenizer has no mask token; set tokenizer.added=['<|mask|>']"
                " task.mask_token='<|mask|>'"
            )
        inner = tokenizer.inner() if t.whole_word else None
        if t.whole_word and inner is None:
            raise ConfigError(
                "task.whole_word=true: the pieces of this tokenizer do not tell where a word"
                " begins; set task.whole_word=false"
            )
        empty = tokenizer.wrap([])
        return Masking(
            t.share, t.random, t.kept, mask, tokenizer.ordinary(), inner, (empty.head, empty.tail)
        )

    def corrupt(self, batch: Batch, seed: int, epoch: int) -> Batch:
        return self.masking.batch(batch, seed, epoch)

    def encode_all(self, records: Sequence[Text], where: Sequence[str]) -> list[Encoded | str]:
        encoded: list[Encoded | str] = []
        for record, ids in zip(
            records, self.tokenizer.encode_stream([r.text for r in records]), strict=True
        ):
            one = framed(self.tokenizer.wrap(ids), {"weight": 1.0})._replace(chunk=True)
            encoded.append(no_text(record.text, ids) or one)
        return encoded

    def head_uses(self, lengths: np.ndarray) -> float:
        """Counts the tokens that are chosen to be guessed, on which alone the head runs."""
        return float(sum(self.masking.count(int(n)) for n in lengths))

    def head(self, vocab: int, precision: str) -> MaskedHead:
        m = self.config.model
        return MaskedHead(m, vocab, precision, self.config.task.activation)

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        # [B, S, D]
        hidden = model.hidden(
            params, batch.tokens, TokenInfo(batch.segment_ids, batch.positions, batch.types), noise
        )
        most = self.masking.most(batch.tokens.shape[1], batch.example_ids.shape[1])
        # the chosen places, then others, whose weight is 0
        at = jnp.argsort(batch.loss_weight <= 0, axis=1, stable=True)[:, :most]
        take = functools.partial(jnp.take_along_axis, indices=at, axis=1)
        weight, targets, segments = map(take, (batch.loss_weight, batch.targets, batch.segment_ids))
        # [B, K, E]
        x = model.head.apply(
            {"params": params["head"]},
            jnp.take_along_axis(hidden, at[..., None], axis=1),
            method="transform",
        )
        chosen = TrainedTokens(x, targets, weight, segments)
        return self.of_tokens(model, params, chosen, batch, hyper, columns=columns)
