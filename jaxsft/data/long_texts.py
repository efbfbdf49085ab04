"""What becomes of a text that is longer than a row (`data.too_long`): refused, dropped, cut short,
or cut into windows. A text that fits is not changed.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.data.encode import Encoded, Fitted, examples
from jaxsft.data.encoded_words import EncodedWords
from jaxsft.data.windows import cut_places, owners, sentence_windows, windows, word_windows
from jaxsft.errors import ConfigError, DataError

# the options that `limits` reads
OPTIONS = ("max_length", "max_source_length", "too_long", "stride", "require_stop")
# row lengths are rounded up to it: matrix units like it, and near lengths share a compiled program
ROW_MULTIPLE = 32


@dataclasses.dataclass(frozen=True)
class Limits:
    """The length of a row, and the policy for longer records.

    Attributes:
      row, source: positions of a packed row, and of a packed row of sources (0: there are none).
      too_long: `data.too_long`.
      require_stop: a record whose stop token would be cut off is dropped.
      stride: of windows, as in `cut`.
    """

    row: int
    too_long: str
    require_stop: bool
    source: int = 0
    stride: int | None = None

    def check(self, encoded: Sequence[Encoded | str], where: Sequence[str], split: str) -> None:
        """Raises DataError where `too_long=error` and a record is longer than a row."""
        if self.too_long == "error":
            _refuse_too_long(encoded, where, self.row, self.source, split)

    def fit(self, encoded: Encoded, row: int, where: str) -> Fitted | str:
        """Returns the examples of a record and the account of its ids, or why it is dropped."""
        limit = self.row
        if self.too_long == "drop" and too_long_for(encoded, limit, self.source):
            return "too_long"
        if encoded.positions > limit and (
            self.too_long in ("window", "sentence") or (encoded.chunk and encoded.weights is None)
        ):
            parts = cut(encoded, limit, self.stride, where, self.too_long == "sentence")
            cuts = [examples(one, row, limit)[0]._replace(part=i) for i, one in enumerate(parts)]
            # an id counts once, in however many windows it stands
            return Fitted(cuts, len(encoded.ids), encoded.trained)
        if encoded.more:
            return self._fit_texts(encoded, row, where)
        fitted, lost = fit(encoded, limit, self.too_long, where)
        fitted, source_lost = fit_source(fitted, self.source, self.too_long)
        return _of_no_use(fitted, lost, self.require_stop) or Fitted(
            examples(fitted, row, limit),
            len(fitted.ids),
            fitted.trained,
            lost,
            fitted.source_positions,
            source_lost,
        )

    def _fit_texts(self, encoded: Encoded, row: int, where: str) -> Fitted | str:
        """Fits a record of several texts.

        A text in which nothing can be trained after cutting is dropped with all its tokens, and
        the record where none is left.
        """
        out, trained, kept, cut_off, lost = [], 0, 0, 0, Counter()
        for one in encoded.texts:
            fitted, excess = fit(one._replace(more=()), self.row, self.too_long, where)
            if why := _of_no_use(fitted, excess, self.require_stop):
                lost[why] += len(one.ids)
                continue
            out.append(examples(fitted, row, self.row)[0]._replace(part=len(out)))
            kept, trained = kept + len(fitted.ids), trained + fitted.trained
            cut_off += excess
        return (
            Fitted(out, kept, trained, cut_off, lost=lost, several=True)
            if out
            else next(iter(lost))
        )


def limits(
    encoded: Sequence[Encoded | str],
    context: int,
    data: Any,
    least: tuple[int, int] = (1, 1),
) -> Limits:
    """Returns the limits that `data`, the DataConfig, sets to these records.

    Rows, and rows of sources, are at least `least` long where the context has room.
    """
    kept = [e for e in encoded if not isinstance(e, str)]
    row, source = row_length(longest(kept), context, data.max_length), 0
    if any(e.source is not None for e in kept):
        long = max(e.source_positions for e in kept)
        source = row_length(long, context, data.max_source_length)
        source = max(source, min(least[1], context))
    row = max(row, min(least[0], context))
    return Limits(row, data.too_long, data.require_stop, source, data.stride)


def longest(encoded: Sequence[Encoded | str]) -> int:
    """Returns the positions of the longest text; 0 where there is none."""
    kept = (e for e in encoded if isinstance(e, Encoded))
    return max((one.positions for e in kept for one in e.texts), default=0)


def row_length(longest: int, context: int, requested: Any) -> int:
    """Returns the row length; `auto` is the longest example, rounded up, at most the context."""
    if requested != "auto":
        return int(requested)
    return min(-(-max(longest, 1) // ROW_MULTIPLE) * ROW_MULTIPLE, context)


def fit(encoded: Encoded, limit: int, too_long: str, where: str = "") -> tuple[Encoded, int]:
    """Cuts the record to `limit` positions; returns it and the number of ids that were cut.

    The caller has refused or dropped it where the policy says so.

    Of a record with a source this is the target, which is cut on the right only: a decoder starts
    from its first id.

    Raises:
      DataError: the special tokens alone are longer.
    """
    excess = encoded.positions - limit
    if excess <= 0 or encoded.chunk:
        return encoded, 0
    body = (encoded.special_tokens[0], len(encoded.ids) - encoded.special_tokens[1])
    bodies = [body] if encoded.first_text_span is None else [encoded.first_text_span, body]
    if sum(stop - start for start, stop in bodies) <= excess:
        raise DataError(
            f"{where}: {len(encoded.ids)} tokens, of which a row of {limit} would hold no text;"
            " raise data.max_length"
        )
    keep = cut_places(
        len(encoded.ids), bodies, excess, too_long if encoded.source is None else "truncate_right"
    )
    kept = {
        name: value[keep]
        for name in ("ids", "weights", "types")
        if (value := getattr(encoded, name)) is not None
    }
    return encoded._replace(**kept), excess


def fit_source(encoded: Encoded, limit: int, too_long: str) -> tuple[Encoded, int]:
    """Cuts the source as `fit` does; its last id, which closes it, stays."""
    excess = encoded.source_positions - limit
    if excess <= 0:
        return encoded, 0
    source = encoded.source
    kept = (
        source[excess:]
        if too_long == "truncate_left"
        else np.concatenate([source[: limit - 1], source[-1:]])
    )
    return encoded._replace(source=kept), excess


def too_long_for(encoded: Encoded, limit: int, source_limit: int) -> bool:
    return any(
        (one.positions > limit and not one.chunk) or one.source_positions > source_limit
        for one in encoded.texts
    )


def cut(
    encoded: Encoded, limit: int, stride: int | None, where: str, sentences: bool = False
) -> list[Encoded]:
    """Cuts the record into windows of at most `limit` ids, each with the special tokens.

    `stride` None is half a window. With `sentences`, windows begin and end with sentences and
    do not overlap.

    The weight of a whole text is shared by its windows; of one in pieces (`chunk`), whose tokens
    have the loss, each piece has it. A word carries its loss in the window that owns it
    (`windows.owners`), and 0 elsewhere.

    Raises:
      DataError: the special tokens or a word leave no room.
      ConfigError: `stride` leaves ids between two windows.
    """
    begin, end = encoded.special_tokens[0], len(encoded.ids) - encoded.special_tokens[1]
    room, words = limit - encoded.special_tokens[0] - encoded.special_tokens[1], encoded.words
    longest = 1 if words is None else int(np.diff(words.offsets).max())
    if longest > room:
        raise DataError(
            f"{where}: a word has {longest} tokens, but a window holds {room}; raise"
            " data.max_length, or set data.too_long=drop"
        )
    stride = max(room // 2, 1) if stride is None else stride
    if stride > room:
        raise ConfigError(
            f"data.stride={stride}: a window holds {room} tokens, so that some would be in none;"
            f" expected at most {room}"
        )
    if words is None:
        spans = windows(end - begin, room, stride)
        if encoded.chunk:
            spans = [(a, min(a + room, end - begin)) for a in range(0, end - begin, room)]
        if sentences:
            spans = sentence_windows([at - begin for at in encoded.breaks], end - begin, room)
        segment = _shared(encoded, len(spans))
        kinds = lambda a, b: None if encoded.types is None else _framed(encoded, a, b, "types")
        of = lambda a, b: {
            "ids": _framed(encoded, begin + a, begin + b),
            "types": kinds(begin + a, begin + b),
            "segment": _pointed(encoded, segment, begin, a, b),
        }
        return [encoded._replace(**of(a, b), breaks=()) for a, b in spans]
    return _cut_words(encoded, words, room, stride)


def _framed(encoded: Encoded, first: int, last: int, name: str = "ids") -> np.ndarray:
    """Returns the values `[first, last)` of a record between those of its special tokens."""
    values, (before, behind) = getattr(encoded, name), encoded.special_tokens
    return np.concatenate([values[:before], values[first:last], values[len(values) - behind :]])


def _shared(encoded: Encoded, parts: int) -> dict[str, Any]:
    """Returns the values of the whole text for each of its parts, which share its weight."""
    divided = lambda name: name == "weight" and not encoded.chunk
    return {
        name: value / parts if divided(name) else value for name, value in encoded.segment.items()
    }


def _cut_words(encoded: Encoded, words: EncodedWords, room: int, stride: int) -> list[Encoded]:
    """Cuts a record of words into windows of whole words, as `cut` does."""
    begin = encoded.special_tokens[0]
    spans = word_windows(words.offsets - begin, room, stride)
    owner = owners(spans, words.count)
    out = []
    for number, (a, b) in enumerate(spans):
        values = {name: value[a:b] for name, value in words.values.items()}
        mine = owner[a:b] == number
        values["weight"] = np.where(mine, values["weight"], 0).astype(np.float32)
        own = (
            (int(np.argmax(mine)), int(len(mine) - np.argmax(mine[::-1]))) if mine.any() else (0, 0)
        )
        part = EncodedWords(
            words.offsets[a : b + 1] - words.offsets[a] + begin, values, a, own, words.count
        )
        ids = _framed(encoded, int(words.offsets[a]), int(words.offsets[b]))
        out.append(encoded._replace(ids=ids, words=part, segment=_shared(encoded, len(spans))))
    return out


def _pointed(
    encoded: Encoded, segment: Mapping[str, Any], begin: int, first: int, last: int
) -> Mapping[str, Any]:
    """Returns the segment values of a window, with pointers relative to it.

    The window is `ids[begin + first:begin + last]` and the special tokens.
    """
    if not encoded.pointers:
        return segment
    here = all(begin + first <= segment[name] < begin + last for name in encoded.pointers)
    return {
        **segment,
        **{name: segment[name] - first if here else 0 for name in encoded.pointers},
        "at": first,
    }


def _of_no_use(fitted: Encoded, lost: int, require_stop: bool) -> str | None:
    """Returns why a record, of which `lost` ids were cut, cannot be trained on; None if it can."""
    if fitted.weights is None:
        return None
    if not fitted.trained:
        return "no_trained_token"
    cut_off = (
        lost
        and require_stop
        and fitted.stop_ids
        and int(fitted.ids[np.flatnonzero(fitted.weights)[-1]]) not in fitted.stop_ids
    )
    return "stop_token_truncated" if cut_off else None  # data.require_stop=false keeps it


def _refuse_too_long(
    encoded: Sequence[Encoded | str],
    where: Sequence[str],
    limit: int,
    source_limit: int,
    split: str,
) -> None:
    most = [longest([e]) if isinstance(e, Encoded) and not e.chunk else 0 for e in encoded]
    over = [i for i, positions in enumerate(most) if positions > limit]
    if over:
        i = max(over, key=most.__getitem__)
        cuts = "window" if encoded[i].words is not None else "truncate_left|truncate_right"
        if encoded[i].weights is None and encoded[i].words is None:
            cuts += "|window|head_tail|sentence"
        raise DataError(
            f"{where[i]}: {most[i]} tokens, but a row holds {limit} ({len(over)} of {len(encoded)}"
            f" rows of {split} are longer); raise model.context and data.max_length, or set"
            f" data.too_long=drop|{cuts}"
        )
    over = [
        i
        for i, e in enumerate(encoded)
        if isinstance(e, Encoded) and e.source_positions > source_limit
    ]
    if over:
        i = max(over, key=lambda i: encoded[i].source_positions)
        raise DataError(
            f"{where[i]}: the source has {encoded[i].source_positions} tokens, but a row holds"
            f" {source_limit} ({len(over)} of {len(encoded)} rows of {split} are longer); raise"
            " model.context and data.max_source_length, or set"
            " data.too_long=drop|truncate_left|truncate_right"
        )
