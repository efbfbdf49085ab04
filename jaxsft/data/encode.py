"""From token ids with one weight each to examples, shifted once, and the account of all rows.

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

from jaxsft.data.encoded_words import EncodedWords
from jaxsft.data.ledger import Aside, Ledger, check_dropped


class Encoded(NamedTuple):
    """A record as ids, before it is fitted into a row.

    Attributes:
      ids: `[n]` int32.
      weights: `[n]` float32, the weight of each id as a target; None where nothing is predicted
        token by token.
      segment: what belongs to the whole text, by name: numbers, or arrays of one shape.
      chunk: cut into consecutive examples, each with the special tokens, instead of following
        `data.too_long` (raw text).
      stop_ids: where given, the last trained id must be one of them to survive truncation.
      source: `[m]` int32, what an encoder reads; None where there is one stream.
      types: `[n]` int32, the token type of each id (BERT's first and second text); None where all
        are 0.
      special_tokens: how many ids at the beginning and at the end are special tokens, which stay
        in every window where a text is cut.
      first_text_span: where the ids of the first text of a pair stand; those of the second stand
        between the special tokens. A cut takes from the longer one.
      pointers: names in `segment` of places in `ids`; 0 where a window does not hold them all. `at`
        there becomes how many ids a window leaves out.
      breaks: where a sentence begins, in ids, between the special tokens; for `too_long=sentence`.
      words: where something is said of each word.
      more: further texts of the same record, each an example of its own.
    """

    ids: np.ndarray
    weights: np.ndarray | None = None
    segment: Mapping[str, Any] = MappingProxyType({})
    chunk: bool = False
    stop_ids: tuple[int, ...] = ()
    source: np.ndarray | None = None
    types: np.ndarray | None = None
    special_tokens: tuple[int, int] = (0, 0)
    first_text_span: tuple[int, int] | None = None
    pointers: tuple[str, ...] = ()
    breaks: Sequence[int] = ()
    words: EncodedWords | None = None
    more: tuple[Encoded, ...] = ()

    @property
    def texts(self) -> tuple[Encoded, ...]:
        """Returns all texts of the record."""
        return (self, *self.more)

    @property
    def positions(self) -> int:
        """Returns how many positions of a row it takes; the last target is never an input."""
        return len(self.ids) - (self.weights is not None)

    @property
    def source_positions(self) -> int:
        return 0 if self.source is None else len(self.source)

    @property
    def trained(self) -> int:
        """Returns how many targets there are: ids, or words."""
        if self.words is not None:
            return int(np.count_nonzero(self.words.values["weight"]))
        return 0 if self.weights is None else int(np.count_nonzero(self.weights[1:]))


class Example(NamedTuple):
    """One example, the unit that rows are packed from.

    `(row, part)` is its id: metrics and predictions merge by row.
    """

    row: int
    part: int
    tokens: np.ndarray
    targets: np.ndarray | None
    loss_weight: np.ndarray | None
    segment: Mapping[str, Any]
    source: np.ndarray | None = None
    types: np.ndarray | None = None
    words: EncodedWords | None = None


class Fitted(NamedTuple):
    """A record that fits into rows: its examples, and what became of its ids.

    Attributes:
      kept, trained, cut: ids that are left, targets among them, ids that were cut off.
      source, source_cut: the same of its source.
      lost: ids of texts of it that were dropped, by reason.
      several: it is several texts.
    """

    examples: list[Example]
    kept: int
    trained: int
    cut: int = 0
    source: int = 0
    source_cut: int = 0
    lost: Mapping[str, int] = MappingProxyType({})
    several: bool = False


def shift(encoded: Encoded, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns inputs, targets and weights of the positions `[start, stop)`.

    It is the only place where anything is shifted.
    """
    return (
        encoded.ids[start:stop],
        encoded.ids[start + 1 : stop + 1],
        encoded.weights[start + 1 : stop + 1],
    )


def examples(encoded: Encoded, row: int, limit: int) -> list[Example]:
    """Returns one example, or consecutive ones for a chunked record.

    Every id but the first is a target exactly once.
    """
    ids, segment = encoded.ids, encoded.segment
    if encoded.weights is None:
        return [Example(row, 0, ids, None, None, segment, None, encoded.types, encoded.words)]
    starts = range(0, encoded.positions, limit) if encoded.chunk else [0]
    shifted = (shift(encoded, start, min(start + limit, encoded.positions)) for start in starts)
    return [
        Example(row, part, *three, segment, encoded.source) for part, three in enumerate(shifted)
    ]


def build(
    encoded: Sequence[Encoded | str],
    where: Sequence[str],
    limits: Any,
    *,
    max_dropped: float,
    split: str,
    aside: Sequence[Aside] = (),
) -> tuple[list[Example], Ledger, dict[int, str]]:
    """Fits every record, drops what cannot be trained on, and writes all of it into the ledger.

    Args:
      encoded: per row, its ids, or the reason why the task gave none ("empty", "text_lost",
        "answer_lost").
      where: per row, `file:line`.
      limits: a `long_texts.Limits`: the length of a row, and what becomes of a record that is
        longer. One that fits is `examples` of it as it is.
      aside: the rows that were put aside before; they are rows of the split, read and dropped.

    Returns: the examples, the ledger, and the reason of each dropped row.

    Raises:
      DataError: a row is too long under `too_long=error`; or more than `max_dropped` of the rows
        would be dropped.
    """
    ledger, out, dropped = Ledger(), [], {}
    for bad in aside:
        ledger.drop(bad.reason)
    limits.check(encoded, where, split)
    for row, e in enumerate(encoded):
        fitted = e if isinstance(e, str) else limits.fit(e, row, where[row])
        if isinstance(fitted, Fitted):
            ledger.keep(*fitted[1:])
            out += fitted.examples
            continue
        dropped[row] = fitted
        tokens = 0 if isinstance(e, str) else sum(len(one.ids) for one in e.texts)
        ledger.drop(fitted, tokens, 0 if isinstance(e, str) else e.source_positions)
    ledger.check()
    check_dropped(ledger, dropped, where, max_dropped, split, aside)
    return out, ledger, dropped
