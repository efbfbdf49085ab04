"""From token ids with a weight each to examples: fitted into the context, shifted once, by position.

A worked example, chat, with 1 on the tokens that are trained:

    ids      <user> h i <end> <bot> y o <end>        (8 ids)
    weights    0    0 0   0     0   1 1   1
    tokens   <user> h i <end> <bot> y o              (7 positions)
    targets    h    i <end> <bot> y o <end>
    weights    0    0   0     0   1 1   1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxsft.data.ledger import Aside, Ledger
from jaxsft.data.tokenizer_frame import Wrapped
from jaxsft.errors import ConfigError, DataError

TOO_LONG = ("error", "drop", "truncate_left", "truncate_right")


class Encoded(NamedTuple):
    """A record as ids, before it is fitted.

    Attributes:
      ids: `[n]` int32.
      weights: `[n]` float32, the weight of each id as a target; None where nothing is predicted token by token.
      segment: what belongs to the whole text, by name: numbers.
      chunk: cut into consecutive examples instead of following `data.too_long` (raw text).
      stop_ids: where given, the last trained id must be one of them to survive truncation.
      source: `[m]` int32, what an encoder reads; None where there is one stream.
      types: `[n]` int32, the token type of each id (BERT's first and second text); None where all are 0.
      frame: how many ids at the beginning and at the end stay where a text is cut: its special tokens.
    """

    ids: np.ndarray
    weights: np.ndarray | None = None
    segment: Mapping[str, float] = MappingProxyType({})
    chunk: bool = False
    stop_ids: tuple[int, ...] = ()
    source: np.ndarray | None = None
    types: np.ndarray | None = None
    frame: tuple[int, int] = (0, 0)

    @property
    def positions(self) -> int:
        """How many places of a row it takes: the last target is never an input."""
        return len(self.ids) - (self.weights is not None)

    @property
    def source_positions(self) -> int:
        return 0 if self.source is None else len(self.source)


class Example(NamedTuple):
    """What a row is packed from. `(row, part)` is its id: metrics and predictions merge by row."""

    row: int
    part: int
    tokens: np.ndarray
    targets: np.ndarray | None
    loss_weight: np.ndarray | None
    segment: Mapping[str, float]
    source: np.ndarray | None = None
    types: np.ndarray | None = None


def shift(encoded: Encoded, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and weights of the positions `[start, stop)`. The only place where anything is shifted."""
    return encoded.ids[start:stop], encoded.ids[start + 1 : stop + 1], encoded.weights[start + 1 : stop + 1]


def framed(text: Wrapped, segment: Mapping[str, float]) -> Encoded:
    """A text in its special tokens, of which nothing is predicted token by token."""
    kinds = np.array(text.types, np.int32) if any(text.types) else None
    return Encoded(np.array(text.ids, np.int32), segment=segment, types=kinds, frame=(text.head, text.tail))


def weighted(encoded: Encoded | str, weight: float) -> Encoded | str:
    """The row with its loss multiplied: the weight of its tokens, and that of the whole text. Raises ConfigError where it has neither."""
    if weight == 1 or isinstance(encoded, str):
        return encoded
    if encoded.weights is None and "weight" not in encoded.segment:
        raise ConfigError("data.columns.weight: this task has no weights that those of the rows could multiply; set data.columns.weight=none")
    weights = None if encoded.weights is None else encoded.weights * np.float32(weight)
    segment = {name: value * weight if name == "weight" else value for name, value in encoded.segment.items()}
    return encoded._replace(weights=weights, segment=segment)


def longest(encoded: Sequence[Encoded | None]) -> int:
    return max((e.positions for e in encoded if e is not None), default=0)


def fit(encoded: Encoded, limit: int, too_long: str) -> tuple[Encoded, int]:
    """The record cut to `limit` positions, and how many ids were cut. The caller has refused or dropped it where the policy says so.

    Of a record with a source this is the target, which is cut on the right only: a decoder starts from its first id."""
    excess = encoded.positions - limit
    if excess <= 0 or encoded.chunk:
        return encoded, 0
    size, left = len(encoded.ids), too_long == "truncate_left" and encoded.source is None
    head, tail = encoded.frame if sum(encoded.frame) + excess <= size else (0, 0)
    at = head if left else size - tail - excess
    kept = np.r_[0:at, at + excess : size]
    cut = {name: value[kept] for name in ("ids", "weights", "types") if (value := getattr(encoded, name)) is not None}
    return encoded._replace(**cut), excess


def fit_source(encoded: Encoded, limit: int, too_long: str) -> tuple[Encoded, int]:
    """As `fit`, of the source. Its last id, which closes it, stays."""
    excess = encoded.source_positions - limit
    if excess <= 0:
        return encoded, 0
    source = encoded.source
    kept = source[excess:] if too_long == "truncate_left" else np.concatenate([source[: limit - 1], source[-1:]])
    return encoded._replace(source=kept), excess


def too_long_for(encoded: Encoded, limit: int, source_limit: int) -> bool:
    return (encoded.positions > limit and not encoded.chunk) or encoded.source_positions > source_limit


def examples(encoded: Encoded, row: int, limit: int) -> list[Example]:
    """One example, or consecutive ones for a record that is chunked: every id but the first is a target exactly once."""
    if encoded.weights is None:
        return [Example(row, 0, encoded.ids, None, None, encoded.segment, types=encoded.types)]
    starts = range(0, encoded.positions, limit) if encoded.chunk else [0]
    shifted = (shift(encoded, start, min(start + limit, encoded.positions)) for start in starts)
    return [Example(row, part, *three, encoded.segment, encoded.source) for part, three in enumerate(shifted)]


def build(
    encoded: Sequence[Encoded | str],
    where: Sequence[str],
    limit: int,
    *,
    too_long: str,
    require_stop: bool,
    max_dropped: float,
    split: str,
    aside: Sequence[Aside] = (),
    source_limit: int = 0,
) -> tuple[list[Example], Ledger, dict[int, str]]:
    """Fits every record, drops what cannot be trained on, and writes all of it into the ledger.

    Args:
      encoded: per row, its ids, or the reason why the task gave none ("empty").
      where: per row, `file:line`.
      limit: positions of a packed row.
      aside: the rows that were put aside before; they are rows of the split, read and dropped.
      source_limit: positions of a packed row of sources.

    Returns: the examples, the ledger, and the reason of each dropped row.

    Raises:
      DataError: a row is longer than `limit` under `too_long=error`; or more than `max_dropped` of the rows would be dropped.
    """
    ledger, out, dropped = Ledger(), [], {}

    def drop(row: int, reason: str) -> None:
        e = encoded[row]
        ledger.drop(reason, *((len(e.ids), e.source_positions) if isinstance(e, Encoded) else ()))
        dropped[row] = reason

    for bad in aside:
        ledger.drop(bad.reason)
    if too_long == "error":
        _refuse_too_long(encoded, where, limit, source_limit, split)
    for row, e in enumerate(encoded):
        if isinstance(e, str):
            drop(row, e)
            continue
        if too_long == "drop" and too_long_for(e, limit, source_limit):
            drop(row, "too_long")
            continue
        fitted, cut = fit(e, limit, too_long)
        fitted, source_cut = fit_source(fitted, source_limit, too_long)
        trained = 0 if fitted.weights is None else int(np.count_nonzero(fitted.weights[1:]))
        if fitted.weights is not None and not trained:
            drop(row, "no_trained_token")
            continue
        if cut and require_stop and e.stop_ids and int(fitted.ids[np.flatnonzero(fitted.weights)[-1]]) not in e.stop_ids:
            drop(row, "stop_token_truncated")  # data.require_stop=false keeps it
            continue
        ledger.keep(len(fitted.ids), trained, cut, "truncated", fitted.source_positions, source_cut)
        out.extend(examples(fitted, row, limit))
    ledger.check()
    _refuse_many_dropped(ledger, dropped, where, max_dropped, split, aside)
    return out, ledger, dropped


def _refuse_too_long(encoded: Sequence[Encoded | str], where: Sequence[str], limit: int, source_limit: int, split: str) -> None:
    over = [i for i, e in enumerate(encoded) if isinstance(e, Encoded) and e.positions > limit and not e.chunk]
    if over:
        i = max(over, key=lambda i: encoded[i].positions)
        raise DataError(
            f"{where[i]}: {encoded[i].positions} tokens, but a row holds {limit} ({len(over)} of {len(encoded)} rows of {split} are longer); "
            f"raise model.context and data.max_length, or set data.too_long=drop|truncate_left|truncate_right"
        )
    over = [i for i, e in enumerate(encoded) if isinstance(e, Encoded) and e.source_positions > source_limit]
    if over:
        i = max(over, key=lambda i: encoded[i].source_positions)
        raise DataError(
            f"{where[i]}: the source has {encoded[i].source_positions} tokens, but a row holds {source_limit} ({len(over)} of {len(encoded)} rows of "
            f"{split} are longer); raise model.context and data.max_source_length, or set data.too_long=drop|truncate_left|truncate_right"
        )


def _refuse_many_dropped(
    ledger: Ledger, dropped: Mapping[int, str], where: Sequence[str], max_dropped: float, split: str, aside: Sequence[Aside]
) -> None:
    count = len(dropped) + len(aside)
    if not count:
        return
    if aside:
        place, reason = aside[0].where, aside[0].message.removeprefix(f"{aside[0].where}: ")
    else:
        place, reason = next((where[row], reason) for row, reason in dropped.items())
    if count > max_dropped * ledger.rows_read or not ledger.rows_kept:
        raise DataError(
            f"{place}: {count} of {ledger.rows_read} rows of {split} would be dropped "
            f"({', '.join(f'{k}: {n}' for k, n in ledger.rows_dropped.items())}; this is the first, {reason}); "
            f"data.max_dropped={max_dropped} allows fewer: mend the rows, or raise it"
        )


def segment_names(examples: Sequence[Example]) -> tuple[str, ...]:
    return tuple(sorted(examples[0].segment)) if examples else ()


def flat(examples: Sequence[Example]) -> dict[str, Any]:
    """The examples as flat arrays with offsets: what the cache stores and the pipeline reads."""
    lengths = np.array([len(e.tokens) for e in examples], np.int64)
    arrays = {
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "row": np.array([e.row for e in examples], np.int64),
        "part": np.array([e.part for e in examples], np.int32),
        "tokens": np.concatenate([e.tokens for e in examples]).astype(np.int32),
    }
    if examples[0].targets is not None:
        arrays["targets"] = np.concatenate([e.targets for e in examples]).astype(np.int32)
        arrays["loss_weight"] = np.concatenate([e.loss_weight for e in examples]).astype(np.float32)
    if examples[0].source is not None:
        arrays["source_offsets"] = np.concatenate([[0], np.cumsum([len(e.source) for e in examples])]).astype(np.int64)
        arrays["source_tokens"] = np.concatenate([e.source for e in examples]).astype(np.int32)
    if any(e.types is not None for e in examples):
        arrays["types"] = np.concatenate([np.zeros(len(e.tokens)) if e.types is None else e.types for e in examples]).astype(np.int32)
    for name in segment_names(examples):
        arrays[f"segment.{name}"] = np.array([e.segment[name] for e in examples])
    return arrays
