"""Scores of chunks of words, such as names: right where beginning, end and type are right.

Two readings of the tags: `strict` takes only what the scheme allows, and `lenient` also reads tags
that it does not allow, as the conlleval script of CoNLL-2000 does. Valid tags are the same chunks
in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsft.data import schemes
from jaxsft.metrics.base import Cells, Metric, Outputs, averaged, scored
from jaxsft.metrics.classification import SCORES


class FoundChunks(NamedTuple):
    """The chunks of all rows, in order: first word, word behind the last, number of the type."""

    start: np.ndarray
    end: np.ndarray
    type: np.ndarray


def types(labels: Sequence[str]) -> list[str]:
    """Returns the types of the chunks of a vocabulary of tags, sorted."""
    parts = [schemes.split(label) or ("O", "") for label in labels]
    return sorted({type_ for prefix, type_ in parts if prefix != "O"})


def strict(tag: np.ndarray, row: np.ndarray, labels: Sequence[str], scheme: str) -> FoundChunks:
    """Returns the chunks that are written exactly as the scheme demands.

    Equal to `schemes.strict` of each row, and so to the strict mode of seqeval.

    Args:
      tag: `[words]`, numbers of labels, -1 where nothing is known.
      row: `[words]`, the row of each word; words of a row are neighbours.
    """
    scheme = schemes.named(scheme)
    kind, names = schemes.SCHEMES[scheme], types(labels)
    parts = [*(schemes.split(label) or ("O", "") for label in labels), ("O", "")]
    letter = np.array([prefix for prefix, _ in parts])[tag]
    type_ = np.array([names.index(t) if p != "O" else -1 for p, t in parts])[tag]
    fresh = np.append(True, row[1:] != row[:-1])[: len(row)]  # the first word of a row
    before = np.where(fresh, "O", np.roll(letter, 1))
    same = ~fresh & (type_ == np.roll(type_, 1))
    goes_on = [kind.inside, kind.end] if kind.closes else [kind.inside]
    joined = np.isin(letter, goes_on) & np.isin(before, [kind.begin, kind.inside]) & same
    if scheme == "iob1":
        opens_b = (letter == "B") & np.isin(before, ["B", "I"]) & same
        behind_open_b = np.append(False, opens_b[:-1])[: len(row)] & same
        opens = opens_b | (
            (letter == "I") & ~((before == "I") & same) & ~((before == "B") & behind_open_b)
        )
    else:
        opens = np.isin(letter, [kind.begin, kind.single])
    # the first word from here on that does not go on with a chunk
    place = np.where(joined, len(row), np.arange(len(row)))
    stop = np.append(np.minimum.accumulate(place[::-1])[::-1], len(row))
    start = np.flatnonzero(opens)
    end = stop[start + 1]
    last = letter[end - 1]
    if kind.closes:
        good = np.isin(last, [kind.end, kind.single])
    elif scheme == "iob1":
        behind = np.minimum(end, max(len(row) - 1, 0))
        other = (end < len(row)) & ~fresh[behind] & (letter[behind] == "B")
        good = ~((last == "B") & other & (type_[behind] != type_[end - 1]))
    else:
        good = np.ones(len(start), bool)
    return FoundChunks(start[good], end[good], type_[start[good]])


def lenient(tag: np.ndarray, row: np.ndarray, labels: Sequence[str]) -> FoundChunks:
    """Returns the chunks that conlleval finds, whatever the scheme.

    Equal to `schemes.spans(repair=True)` of each row, and so to the default mode of seqeval: a tag
    that goes on with no chunk of its type opens one, and a chunk ends before the next tag that does
    not go on with it.

    Args:
      tag: `[words]`, numbers of labels, -1 where nothing is known.
      row: `[words]`, the row of each word; words of a row are neighbours.
    """
    names = types(labels)
    parts = [*(schemes.split(label) or ("O", "") for label in labels), ("O", "")]
    inside = np.array([prefix != "O" for prefix, _ in parts])
    opening = np.array([prefix in "BSU" for prefix, _ in parts])
    closing = np.array([prefix in "ELSU" for prefix, _ in parts])
    type_ = np.array([names.index(t) if p != "O" else -1 for p, t in parts])[tag]
    joined = np.zeros(len(row), bool)
    joined[1:] = (
        (inside & ~closing)[tag[:-1]]
        & (inside & ~opening)[tag[1:]]
        & (type_[1:] == type_[:-1])
        & (row[1:] == row[:-1])
    )
    start = np.flatnonzero((type_ >= 0) & ~joined)
    stop = np.append(np.flatnonzero(~joined), len(row))  # where no chunk goes on, and the end
    return FoundChunks(start, stop[np.searchsorted(stop, start, side="right")], type_[start])


def compared(
    gold: FoundChunks, predicted: FoundChunks, row: np.ndarray, number: int
) -> dict[str, Cells]:
    """Returns what counts of two lists of chunks: the gold and predicted ones and those in both, by
    type (`number` of them).
    """
    # a word begins one chunk of a list at most
    at = np.searchsorted(gold.start, predicted.start)
    near = np.minimum(at, max(len(gold.start) - 1, 0))
    right = np.zeros(len(predicted.start), bool)
    if len(gold.start):
        right = (gold.start[near] == predicted.start) & (gold.end[near] == predicted.end)
        right &= gold.type[near] == predicted.type
    cells = lambda found, keep: Cells.of(
        found.type[keep], shape=(number,), row=row[found.start[keep]]
    )
    everything = slice(None)
    return {
        "hit": cells(predicted, right),
        "predicted": cells(predicted, everything),
        "gold": cells(gold, everything),
    }


def _observed(
    read: Callable[[np.ndarray, Outputs], FoundChunks], outputs: Outputs
) -> dict[str, Cells]:
    row, number = outputs["word.row"], len(types(outputs.labels))
    gold, predicted = (read(outputs[name], outputs) for name in ("word.tag", "word.predicted"))
    return compared(gold, predicted, row, number)


def observe(outputs: Outputs) -> dict[str, Cells]:
    """Returns the gold, predicted and right chunks of each row by type, read strictly."""
    read = lambda tag, o: strict(tag, o["word.row"], o.labels, o.scheme)
    return _observed(read, outputs)


def observe_lenient(outputs: Outputs) -> dict[str, Cells]:
    """Returns the gold, predicted and right chunks of each row by type, as conlleval reads them."""
    return _observed(lambda tag, o: lenient(tag, o["word.row"], o.labels), outputs)


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes precision, recall and F1: micro, weighted, macro over the types that occur."""
    hit, predicted, gold = (state[name] for name in ("hit", "predicted", "gold"))
    return averaged(hit, predicted, gold, (gold + predicted) > 0)


def value_lenient(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the same under names that say how the tags were read."""
    return {f"conlleval_{name}": score for name, score in value(state).items()}


def each(state: dict[str, Any]) -> dict[str, Any]:
    """Computes support, number of predictions, precision, recall and F1 of every type."""
    found = {"support": state["gold"], "predicted": state["predicted"]}
    return found | scored(state["hit"], state["predicted"], state["gold"])


def _of_chunks(
    names: tuple[str, ...], observe: Callable[[Outputs], Any], value: Any, table: str
) -> Metric:
    return Metric(
        names,
        ("word.row", "word.tag", "word.predicted"),
        observe,
        value,
        each=each,
        table=table,
        rows_of=lambda outputs: types(outputs.labels),
        scheme="chunks",
        counts=("support", "predicted"),
    )


METRICS = {
    "chunk_scores": _of_chunks(SCORES, observe, value, "chunks"),
    "conlleval_scores": _of_chunks(
        tuple(f"conlleval_{name}" for name in SCORES),
        observe_lenient,
        value_lenient,
        "conlleval_chunks",
    ),
}
