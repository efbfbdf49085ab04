"""From token ids with one weight each to examples, fitted into the context and shifted once.

A worked example, chat, with 1 on the tokens that are trained:

    ids      <user> h i <end> <bot> y o <end>        (8 ids)
    weights    0    0 0   0     0   1 1   1
    tokens   <user> h i <end> <bot> y o              (7 positions)
    targets    h    i <end> <bot> y o <end>
    weights    0    0   0     0   1 1   1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxsft.data.ledger import Aside, Ledger
from jaxsft.data.tokenizers.special_tokens import Wrapped
from jaxsft.data.windows import cut_places, owners, sentence_windows, windows, word_windows
from jaxsft.errors import ConfigError, DataError


class EncodedWords(NamedTuple):
    """The words of a text, one after another between the special tokens of an `Encoded`.

    Attributes:
      offsets: `[words + 1]` int32, in ids: word i is `ids[offsets[i]:offsets[i + 1]]`.
      values: what belongs to each word, `[words]` arrays by name. `weight` is that of its loss,
        `head` another word of the text from 1 (0: none).
      first_word: the number of the first word in its text.
      owned_words: the words, as a slice, that this window of the text answers for; None: all.
      whole: how many words the text has; None: all of them are here.
    """

    offsets: np.ndarray
    values: Mapping[str, np.ndarray]
    first_word: int = 0
    owned_words: tuple[int, int] | None = None
    whole: int | None = None

    @property
    def count(self) -> int:
        return len(self.offsets) - 1


class Encoded(NamedTuple):
    """A record as ids, before it is fitted into the context.

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


def shift(encoded: Encoded, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns inputs, targets and weights of the positions `[start, stop)`.

    It is the only place where anything is shifted.
    """
    return (
        encoded.ids[start:stop],
        encoded.ids[start + 1 : stop + 1],
        encoded.weights[start + 1 : stop + 1],
    )


def framed(text: Wrapped, segment: Mapping[str, Any]) -> Encoded:
    """Returns a text with its special tokens, in which no token is predicted."""
    kinds = np.array(text.types, np.int32) if any(text.types) else None
    return Encoded(
        np.array(text.ids, np.int32),
        segment=segment,
        types=kinds,
        special_tokens=(text.head, text.tail),
    )


def weighted(encoded: Encoded | str, weight: float) -> Encoded | str:
    """Multiplies the loss of a row: the weights of its tokens and that of the whole text.

    Raises ConfigError where it has neither.
    """
    if weight == 1 or isinstance(encoded, str):
        return encoded
    words = encoded.words
    if encoded.weights is None and "weight" not in encoded.segment and words is None:
        raise ConfigError(
            "data.columns.weight: this task has no weights that those of the rows could multiply;"
            " set data.columns.weight=none"
        )
    weights = None if encoded.weights is None else encoded.weights * np.float32(weight)
    segment = {
        name: value * weight if name == "weight" else value
        for name, value in encoded.segment.items()
    }
    if words is not None:
        words = words._replace(
            values={**words.values, "weight": words.values["weight"] * np.float32(weight)}
        )
    more = tuple(weighted(one, weight) for one in encoded.more)
    return encoded._replace(weights=weights, segment=segment, words=words, more=more)


def longest(encoded: Sequence[Encoded | None]) -> int:
    return max((one.positions for e in encoded if e is not None for one in e.texts), default=0)


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


def examples(encoded: Encoded, row: int, limit: int) -> list[Example]:
    """Returns one example, or consecutive ones for a chunked record.

    Every id but the first is a target exactly once.
    """
    if encoded.weights is None:
        return [
            Example(
                row,
                0,
                encoded.ids,
                None,
                None,
                encoded.segment,
                types=encoded.types,
                words=encoded.words,
            )
        ]
    starts = range(0, encoded.positions, limit) if encoded.chunk else [0]
    shifted = (shift(encoded, start, min(start + limit, encoded.positions)) for start in starts)
    return [
        Example(row, part, *three, encoded.segment, encoded.source)
        for part, three in enumerate(shifted)
    ]


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
    framed = lambda a, b: np.concatenate([encoded.ids[:begin], encoded.ids[a:b], encoded.ids[end:]])
    divided = lambda name: name == "weight" and not encoded.chunk
    shared = lambda parts: {
        name: value / parts if divided(name) else value for name, value in encoded.segment.items()
    }
    if words is None:
        spans = windows(end - begin, room, stride)
        if encoded.chunk:
            spans = [(a, min(a + room, end - begin)) for a in range(0, end - begin, room)]
        if sentences:
            spans = sentence_windows([at - begin for at in encoded.breaks], end - begin, room)
        segment = shared(len(spans))
        kinds = lambda a, b: (
            None
            if encoded.types is None
            else np.concatenate([encoded.types[:begin], encoded.types[a:b], encoded.types[end:]])
        )
        of = lambda a, b: {
            "ids": framed(begin + a, begin + b),
            "types": kinds(begin + a, begin + b),
            "segment": _pointed(encoded, segment, begin, a, b),
        }
        return [encoded._replace(**of(a, b), breaks=()) for a, b in spans]
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
        ids = framed(int(words.offsets[a]), int(words.offsets[b]))
        out.append(encoded._replace(ids=ids, words=part, segment=shared(len(spans))))
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
    stride: int | None = None,
) -> tuple[list[Example], Ledger, dict[int, str]]:
    """Fits every record, drops what cannot be trained on, and writes all of it into the ledger.

    Args:
      encoded: per row, its ids, or the reason why the task gave none ("empty", "text_lost",
        "answer_lost").
      where: per row, `file:line`.
      limit, source_limit: positions of a packed row, and of a packed row of sources.
      aside: the rows that were put aside before; they are rows of the split, read and dropped.
      stride: of windows, as in `cut`.

    Returns: the examples, the ledger, and the reason of each dropped row.

    Raises:
      DataError: a row is longer than `limit` under `too_long=error`; or more than `max_dropped` of
        the rows would be dropped.
    """
    ledger, out, dropped = Ledger(), [], {}

    def drop(row: int, reason: str) -> None:
        e = encoded[row]
        ledger.drop(
            reason,
            *(
                (sum(len(one.ids) for one in e.texts), e.source_positions)
                if isinstance(e, Encoded)
                else ()
            ),
        )
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
        if e.positions > limit and (
            too_long in ("window", "sentence") or (e.chunk and e.weights is None)
        ):
            parts = cut(e, limit, stride, where[row], too_long == "sentence")
            # an id counts once, in however many windows it stands
            ledger.keep(len(e.ids), _trained(e))
            out.extend(
                examples(one, row, limit)[0]._replace(part=number)
                for number, one in enumerate(parts)
            )
            continue
        if e.more:
            kept, reason = _keep_texts(e, row, limit, too_long, require_stop, where[row], ledger)
            if reason is not None:
                drop(row, reason)
            out.extend(kept)
            continue
        fitted, lost = fit(e, limit, too_long, where[row])
        fitted, source_lost = fit_source(fitted, source_limit, too_long)
        if reason := _of_no_use(fitted, lost, require_stop):
            drop(row, reason)
            continue
        ledger.keep(
            len(fitted.ids),
            _trained(fitted),
            lost,
            "truncated",
            fitted.source_positions,
            source_lost,
        )
        out.extend(examples(fitted, row, limit))
    ledger.check()
    _refuse_many_dropped(ledger, dropped, where, max_dropped, split, aside)
    return out, ledger, dropped


def _keep_texts(
    encoded: Encoded,
    row: int,
    limit: int,
    too_long: str,
    require_stop: bool,
    where: str,
    ledger: Ledger,
) -> tuple[list[Example], str | None]:
    """Returns the examples of a record of several texts; without any, the reason.

    The ledger counts them. A text in which nothing can be trained after cutting is dropped with
    all its tokens.
    """
    out, trained, kept, cut, lost, reason = [], 0, 0, 0, Counter(), None
    for one in encoded.texts:
        fitted, excess = fit(one._replace(more=()), limit, too_long, where)
        if why := _of_no_use(fitted, excess, require_stop):
            lost[why] += len(one.ids)
            reason = reason or why
            continue
        out.append(examples(fitted, row, limit)[0]._replace(part=len(out)))
        kept, trained, cut = kept + len(fitted.ids), trained + _trained(fitted), cut + excess
    if not out:
        return [], reason
    ledger.keep(kept, trained, cut, "truncated")
    for why, tokens in lost.items():
        ledger.lose(why, tokens)
    ledger.several_texts += 1
    return out, None


def no_text(text: str, ids: Sequence[int]) -> str | None:
    """Returns why a text gives no example: `empty` (white space), `text_lost` (the tokenizer keeps
    nothing of it); None where it has ids.
    """
    return "empty" if not text.strip() else None if len(ids) else "text_lost"


def _of_no_use(fitted: Encoded, lost: int, require_stop: bool) -> str | None:
    """Returns why a record, of which `lost` ids were cut, cannot be trained on; None if it can."""
    if fitted.weights is None:
        return None
    if not _trained(fitted):
        return "no_trained_token"
    cut_off = (
        lost
        and require_stop
        and fitted.stop_ids
        and int(fitted.ids[np.flatnonzero(fitted.weights)[-1]]) not in fitted.stop_ids
    )
    return "stop_token_truncated" if cut_off else None  # data.require_stop=false keeps it


def _trained(encoded: Encoded) -> int:
    """Returns how many targets there are: ids, or words."""
    if encoded.words is not None:
        return int(np.count_nonzero(encoded.words.values["weight"]))
    return 0 if encoded.weights is None else int(np.count_nonzero(encoded.weights[1:]))


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


def _refuse_many_dropped(
    ledger: Ledger,
    dropped: Mapping[int, str],
    where: Sequence[str],
    max_dropped: float,
    split: str,
    aside: Sequence[Aside],
) -> None:
    bad = [one for one in aside if not one.declared]
    count = len(dropped) + len(bad)
    if not count:
        return
    if bad:
        place, reason = bad[0].where, bad[0].message.removeprefix(f"{bad[0].where}: ")
    else:
        place, reason = next((where[row], reason) for row, reason in dropped.items())
    if count > max_dropped * ledger.rows_read or not ledger.rows_kept:
        allowed = (
            f"data.max_dropped={max_dropped:g} allows fewer: mend the rows, or raise it"
            if ledger.rows_kept
            else "none is left: mend the rows"
        )
        raise DataError(
            f"{place}: {count} of {ledger.rows_read} rows of {split} would be dropped"
            f" ({', '.join(f'{k}: {n}' for k, n in ledger.rows_dropped.items())}; this is the"
            f" first, {reason}); {allowed}"
        )


def segment_names(examples: Sequence[Example]) -> tuple[str, ...]:
    return tuple(sorted(examples[0].segment)) if examples else ()


def flat(examples: Sequence[Example]) -> dict[str, Any]:
    """Returns the examples as flat arrays with offsets, as the cache stores them."""
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
        arrays["source_offsets"] = np.concatenate(
            [[0], np.cumsum([len(e.source) for e in examples])]
        ).astype(np.int64)
        arrays["source_tokens"] = np.concatenate([e.source for e in examples]).astype(np.int32)
    if any(e.types is not None for e in examples):
        arrays["types"] = np.concatenate(
            [np.zeros(len(e.tokens)) if e.types is None else e.types for e in examples]
        ).astype(np.int32)
    for name in segment_names(examples):
        arrays[f"segment.{name}"] = np.array([e.segment[name] for e in examples])
    if examples[0].words is not None:
        arrays |= _flat_words([e.words for e in examples])
    return arrays


def _flat_words(words: Sequence[EncodedWords]) -> dict[str, np.ndarray]:
    """Returns flat arrays of all words of the examples.

    Where each begins and ends in its example, its number in its text, and whether its window
    owns it.
    """
    joined = lambda parts, kind: np.concatenate([*parts]).astype(kind)
    numbers = [np.arange(w.count) for w in words]
    owned = [
        np.ones(w.count, bool)
        if w.owned_words is None
        else (n >= w.owned_words[0]) & (n < w.owned_words[1])
        for w, n in zip(words, numbers, strict=True)
    ]
    arrays = {
        "word_offsets": np.concatenate([[0], np.cumsum([w.count for w in words])]).astype(np.int64),
        "word.start": joined([w.offsets[:-1] for w in words], np.int32),
        "word.stop": joined([w.offsets[1:] for w in words], np.int32),
        "word.index": joined(
            [n + w.first_word for w, n in zip(words, numbers, strict=True)], np.int32
        ),
        "word.own": joined(owned, bool),
        "word.last": joined(
            [
                n + w.first_word + 1 == (w.count if w.whole is None else w.whole)
                for w, n in zip(words, numbers, strict=True)
            ],
            bool,
        ),
    }
    return arrays | {
        f"word.{name}": np.concatenate([w.values[name] for w in words]) for name in words[0].values
    }
