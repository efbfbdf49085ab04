"""What the tasks on whole texts share: how a text becomes ids, how packed texts are read, and how
the parts of a row are put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.encoded_texts import framed
from jaxsft.data.pipeline import Batch
from jaxsft.data.records import features
from jaxsft.data.records.fields import declared_labels
from jaxsft.data.windows import sentences
from jaxsft.errors import ConfigError, DataError
from jaxsft.models.attention import TokenInfo
from jaxsft.models.feature_tokens import Features, Soft, place
from jaxsft.models.heads import TextHead, layers_of, pool
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.tasks.label_order import in_order
from jaxsft.tasks.task import Task, Terms

# what a task has learnt that changes no example, and hence not the name of encoded data
OF_NO_EXAMPLE = ("counts", "rows", "transition", "thresholds")


class TextTask(Task):
    """A text, or a pair of texts in one sequence, is pooled to a vector, from which the head makes
    `width` numbers.
    """

    @property
    def width(self) -> int:
        """Returns the number of outputs of the head for each text."""
        raise NotImplementedError

    # --- columns beside the text
    # ----------------------------------------------------------------------------------------------
    @staticmethod
    def fit_features(
        config: Config, records: Sequence[Any], where: Sequence[str]
    ) -> dict[str, Any]:
        """Learns what `data.columns.features` hold in the training rows; {} without features."""
        columns = config.data.columns
        return (
            {"features": features.learn(columns, [r.features for r in records], where)}
            if columns.features
            else {}
        )

    @property
    def _learnt(self) -> list[dict[str, Any]]:
        return self.state.get("features", [])

    @property
    def _soft(self) -> bool:
        return bool(self._learnt) and self.config.task.features == "tokens"

    def _with_features(self, one: Encoded, numbers: np.ndarray, classes: np.ndarray) -> Encoded:
        """Inserts places for the vectors of feature columns behind the first special tokens.

        They are at the beginning, so that a cut for length leaves them.
        """
        start, count = self._start, len(numbers)
        grown = lambda x: None if x is None else np.insert(x, start, np.zeros(count, x.dtype))
        segment = {**one.segment, "numbers": numbers, "classes": classes}
        first = (
            None
            if one.first_text_span is None
            else (one.first_text_span[0] + count, one.first_text_span[1] + count)
        )
        frame, breaks = (
            (one.special_tokens[0] + count, one.special_tokens[1]),
            [at + count for at in one.breaks],
        )
        return one._replace(
            ids=grown(one.ids),
            types=grown(one.types),
            segment=segment,
            first_text_span=first,
            special_tokens=frame,
            breaks=breaks,
        )

    @property
    def _start(self) -> int:
        """Counts the special tokens that stand before a text."""
        return self.tokenizer.wrap([], None).head

    # --- texts
    # ----------------------------------------------------------------------------------------------
    def encode_texts(
        self, records: Sequence[Any], where: Sequence[str], segments: Sequence[Mapping[str, Any]]
    ) -> list[Encoded | str]:
        """Encodes each record with its special tokens, or returns why it cannot be (`empty`).

        `text_lost` is the reason where the tokenizer makes no token of a text.

        Args:
          segments: per record, numbers and vectors by name; `weight` is the weight of the text.
        """
        first, second = (
            map(list, zip(*(_texts(record) for record in records), strict=True))
            if records
            else ([], [])
        )
        blank = [
            not a.strip() and not (b or "").strip() for a, b in zip(first, second, strict=True)
        ]
        cells = [getattr(r, "features", ()) for r in records]
        if self._learnt:
            numbers, classes = features.encode(self._learnt, cells, where)
            if not self._soft:
                template = self.config.task.feature_template
                first = [
                    features.written(template, self._learnt, row, text)
                    for row, text in zip(cells, first, strict=True)
                ]
        text_ids = self.tokenizer.encode_stream(first)
        paired = any(text is not None for text in second)
        pair_ids = (
            self.tokenizer.encode_batch([text or "" for text in second])
            if paired
            else [[]] * len(records)
        )
        encoded: list[Encoded | str] = []
        for i, (a, b, ids, pair, segment) in enumerate(
            zip(first, second, text_ids, pair_ids, segments, strict=True)
        ):
            if blank[i] or not (ids or pair):
                encoded.append("empty" if blank[i] else "text_lost")
                continue
            one = (
                self._pair(ids, pair, segment)
                if b is not None
                else framed(self.tokenizer.wrap(ids, None), segment)
            )
            if self.config.data.too_long == "sentence":
                one = one._replace(
                    breaks=self._breaks(a if b is None else b, one.special_tokens[0])
                )
            encoded.append(self._with_features(one, numbers[i], classes[i]) if self._soft else one)
        return encoded

    def _pair(self, a: list[int], b: list[int], segment: Mapping[str, Any]) -> Encoded:
        """Encodes two texts with special tokens around both or, `apart`, around each.

        Types 0 and 1 tell the texts apart. A long pair keeps its first text in every window.
        """
        if self.apart:
            both = [framed(self.tokenizer.wrap(ids, None), {}) for ids in (a, b)]
            ids, types = (
                np.concatenate([one.ids for one in both]),
                np.repeat(np.arange(2, dtype=np.int32), [len(one.ids) for one in both]),
            )
            start, head, tail = (
                both[0].special_tokens[0],
                len(both[0].ids) + both[1].special_tokens[0],
                both[1].special_tokens[1],
            )
            return Encoded(
                ids,
                segment=segment,
                types=types,
                special_tokens=(head, tail),
                first_text_span=(start, start + len(a)),
            )
        one = framed(self.tokenizer.wrap(a, b), segment)
        start, tail = one.special_tokens
        return one._replace(
            special_tokens=(len(one.ids) - tail - len(b), tail),
            first_text_span=(start, start + len(a)),
        )

    def _breaks(self, text: str, start: int) -> list[int]:
        """Returns the ids at which the sentences of a text begin, where `start` is its first id."""
        begins = [begin for begin, _ in self.tokenizer.offsets(text)]
        return (start + np.searchsorted(begins, sentences(text))).tolist()

    apart = False  # the two texts of a pair do not see each other

    def head(self, vocab: int, precision: str) -> TextHead | None:
        return self.make_head(TextHead, self.width, precision)

    def make_head(self, kind: type[TextHead], outputs: int, precision: str) -> TextHead:
        t = self.config.task
        sizes = tuple(features.sizes(self._learnt)) if self._soft else ()
        return kind(
            self.config.model.embed,
            outputs,
            precision,
            t.pool,
            bias=t.bias,
            features=sizes,
            **layers_of(t, self.config.model),
        )

    @property
    def digest(self) -> dict[str, Any]:
        t, found = self.config.task, super().digest
        state = {name: one for name, one in self.state.items() if name not in OF_NO_EXAMPLE}
        return {**found, "state": state, "sentences": self.config.data.too_long == "sentence"} | (
            {"features": [t.features, t.feature_template]} if self._learnt else {}
        )

    def read(
        self, model: Transformer, params: Params, batch: Batch, noise: Any
    ) -> Float[Array, "batch texts width"]:
        """Computes the outputs of the head for each packed text, `[B, G, width]`."""
        return self.of_states(model, params, batch, noise, self.states(model, params, batch, noise))

    def of_states(
        self, model: Transformer, params: Params, batch: Batch, noise: Any, x: Array
    ) -> Float[Array, "batch texts width"]:
        """Computes the outputs of the head from what it reads: `[B, G, D]`, or `[B, S, D]` for a
        head that pools by itself.
        """
        noise = noise.at(model.config.layers + 1) if noise else None
        return model.head.apply(
            {"params": params.get("head", {})},
            x,
            None if self.pooled else self.where(batch),
            self.count(batch),
            noise,
        )

    def backbone(self, model: Transformer, params: Params, batch: Batch, noise: Any) -> Array:
        where = self.where(batch)
        # [B, S, D]
        hidden = model.hidden(
            params, batch.tokens, where, noise, self._vectors(model, params, batch, where)
        )
        return (
            pool(
                hidden, where.segment_ids, where.positions, self.count(batch), self.config.task.pool
            )
            if self.pooled
            else hidden
        )

    @property
    def pooled(self) -> bool:
        return self.config.task.pool != "attention"

    def where(self, batch: Batch) -> TokenInfo:
        """Returns segments, positions and types of the texts that are pooled each by itself."""
        return TokenInfo(batch.segment_ids, batch.positions, batch.types)

    def count(self, batch: Batch) -> int:
        """Returns the largest number of texts in a row that `where` tells apart."""
        return batch.example_ids.shape[1]

    def _vectors(
        self, model: Transformer, params: Params, batch: Batch, where: TokenInfo
    ) -> Soft | None:
        if not self._soft:
            return None
        columns = Features(tuple(features.sizes(self._learnt)), model.config.embed)
        vectors = columns.apply(
            {"params": params["head"]["features"]},
            batch.segment["numbers"],
            batch.segment["classes"],
        )
        return place(vectors, where, self._start)

    def totals(self, batch: Batch) -> Terms:
        return {self.config.task.loss: self.weight(batch).sum()}

    @staticmethod
    def weight(batch: Batch) -> Float[Array, "batch texts"]:
        """Returns the weight of each text, `[B, G]` float32; 0 where there is none."""
        return jnp.where(batch.example_ids >= 0, batch.segment["weight"], 0).astype(jnp.float32)

    def read_labels(
        self,
        records: Sequence[Any],
        where: Sequence[str],
        labels: Sequence[str],
        of: Any,
        option: str = "task.labels",
    ) -> list[list[int]]:
        """Returns the indices of the labels of each record.

        `of` returns the labels of a record. Raises DataError for one that is not in the vocabulary;
        `option` names where it could be added.
        """
        index, out = {label: i for i, label in enumerate(labels)}, []
        for record, line in zip(records, where, strict=True):
            if unknown := [label for label in of(record) if label not in index]:
                known = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
                raise DataError(
                    f"{line}: label {unknown[0]!r} is not in the vocabulary of {len(index)} labels"
                    f" ({known}); add it by {option}"
                )
            out.append([index[label] for label in of(record)])
        return out

    @classmethod
    def fit_labels(
        cls, given: Sequence[str] | None, found: set[str], where: Sequence[str], least: int = 2
    ) -> list[str]:
        """Returns the vocabulary of labels: `task.labels`, or those of the training split in order.

        Raises ConfigError or DataError where there are fewer than `least`, or one stands twice.
        """
        labels = declared_labels(given, found) if given else in_order(found)
        if len(labels) < least or len(set(labels)) != len(labels):
            raise (ConfigError if given else DataError)(
                f"{where[0].rsplit(':', 1)[0] if where else 'task.labels'}: {len(set(labels))}"
                f" different labels ({', '.join(labels[:5])}); task={cls.name} needs at least"
                f" {least}, each named once; check data.columns.label and task.labels"
            )
        return labels


def _texts(record: Any) -> tuple[str, str | None]:
    return (
        (record.text_a, record.text_b)
        if hasattr(record, "text_a")
        else (record.text, record.text_pair)
    )


def about(record: Any) -> dict[str, Any]:
    """Returns the texts of a record, as a line of predictions shows them."""
    a, b = _texts(record)
    return {"text": a} | ({} if b is None else {"text_pair": b})
