"""What went wrong with entities: boundaries, types, entities that are missed or made up.

The four schemas are those of SemEval-2013 task 9 (Segura-Bedmar et al., 2013), matched as the
library nervaluate does. A predicted entity is compared with a gold one that it overlaps by at least
a hundredth of the gold one's length, each gold one with at most one, in the order of the text:

- strict: right where boundaries and type are; else incorrect;
- exact: right where the boundaries are; else incorrect;
- partial: right where the boundaries are; else partial, which counts half;
- type: right where the type is; among several it is the one whose boundaries are closest.

A predicted entity without a partner is spurious, a gold one without is missed. Of one type, only
gold and predicted entities of that type are matched, so that a confusion of two types is missed in
one and spurious in the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxsft.errors import DataError
from jaxsft.metrics import chunks
from jaxsft.metrics.base import Cells, Metric, Outputs, ratio

SCHEMAS = ("strict", "exact", "partial", "type")
OUTCOMES = ("correct", "incorrect", "partial", "missed", "spurious")
ERRORS = ("boundary", "type", "boundary_and_type", "missed", "spurious")
SCORES = ("precision", "recall", "f1")


class EntitySpans(NamedTuple):
    """Entities in order of their beginning, none of which overlaps another: first position,
    position behind the last one, number of the type, place of the row. Positions of different rows
    differ.
    """

    start: np.ndarray
    end: np.ndarray
    type: np.ndarray
    row: np.ndarray


# --- who is compared with whom
# --------------------------------------------------------------------------------------------------
def overlapping(gold: EntitySpans, predicted: EntitySpans) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and the last gold entity that each predicted one overlaps enough; the last
    is less than the first where there is none.
    """
    first = np.searchsorted(gold.end, predicted.start, side="right")
    last = np.searchsorted(gold.start, predicted.end, side="left") - 1

    def too_little(at: np.ndarray) -> np.ndarray:
        one = np.clip(at, 0, len(gold.start) - 1)
        both = np.minimum(gold.end[one], predicted.end) - np.maximum(
            gold.start[one], predicted.start
        )
        return (first <= last) & (100 * both < gold.end[one] - gold.start[one])

    if len(gold.start):  # those between the two ends lie in the predicted one as a whole
        first = first + too_little(first)
        last = last - too_little(last)
    return first, last


def partners(gold: EntitySpans, predicted: EntitySpans, by_type: bool) -> np.ndarray:
    """Returns the gold entity with which each predicted one is compared, -1 where there is none.

    In the order of the text, each takes the first that no other has; `by_type`, the closest one of
    its type before that.
    """
    out = np.full(len(predicted.start), -1)
    first, last = overlapping(gold, predicted)
    some = np.flatnonzero(first <= last)
    if not len(some):
        return out
    first, last = first[some], last[some]
    if by_type:
        # what each would take of all that it overlaps, and without the first of them
        free, taken = (_closest(gold, predicted, some, first + skip, last) for skip in (0, 1))
    else:
        free, taken = first, np.where(first < last, first + 1, -1)
    # Two neighbours share one gold entity at most: the last of one, the first of the other. So all
    # that goes from one to the next is whether that is taken.
    shared = np.append(first[1:] == last[:-1], False)
    after_free = shared & (free == last)
    after_taken = shared & ((taken == last) | (first == last))
    known = np.where(after_free == after_taken, np.arange(len(some)), -1)
    at = np.append(-1, np.maximum.accumulate(known)[:-1])  # the neighbour that decides
    out[some] = np.where((at >= 0) & after_free[at], taken, free)
    return out


def _closest(
    gold: EntitySpans, predicted: EntitySpans, some: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Returns the gold entity of the same type with the closest boundaries, else the first; -1
    where `last` is less than `first`.
    """
    number = np.maximum(last - first + 1, 0)
    of = np.repeat(np.arange(len(some)), number)
    entity = np.arange(len(of)) - np.repeat(np.cumsum(number) - number, number) + first[of]
    it = some[of]
    other = gold.type[entity] != predicted.type[it]
    far = abs(gold.start[entity] - predicted.start[it]) + abs(gold.end[entity] - predicted.end[it])
    order = np.lexsort((entity, np.where(other, 0, far), other, of))
    out = np.full(len(some), -1)
    best = order[np.flatnonzero(np.diff(of[order], prepend=-1))]
    out[of[best]] = entity[best]
    return out


# --- statistics of a row
# --------------------------------------------------------------------------------------------------
def outcomes(gold: EntitySpans, predicted: EntitySpans) -> list[tuple[np.ndarray, ...]]:
    """Returns (row, type, outcome) of the entities that count, of each schema in turn."""
    out = []
    for schema in SCHEMAS:
        if schema in ("strict", "type"):  # the others are matched as `strict` is
            partner = partners(gold, predicted, by_type=schema == "type")
            missed = _left(gold, partner)
        same, alike = _agreement(gold, predicted, partner)
        right = {"strict": same & alike, "type": alike}.get(schema, same)
        wrong = OUTCOMES.index("partial" if schema == "partial" else "incorrect")
        outcome = np.where(partner < 0, OUTCOMES.index("spurious"), np.where(right, 0, wrong))
        out.append(_items(gold, predicted, missed, outcome, OUTCOMES.index("missed")))
    return out


def errors(gold: EntitySpans, predicted: EntitySpans) -> tuple[np.ndarray, ...]:
    """Returns (row, type, number in ERRORS) of the entities of the schema `type`; a right one has
    the number -1.
    """
    partner = partners(gold, predicted, by_type=True)
    same, alike = _agreement(gold, predicted, partner)
    error = np.where(alike, np.where(same, -1, 0), np.where(same, 1, 2))
    error = np.where(partner < 0, ERRORS.index("spurious"), error)
    missed = _left(gold, partner)
    return _items(gold, predicted, missed, error, ERRORS.index("missed"))


def _agreement(
    gold: EntitySpans, predicted: EntitySpans, partner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether boundaries and whether types agree; neither where there is no partner."""
    if not len(gold.start):
        return (np.zeros(len(partner), bool),) * 2
    there = partner >= 0
    same = (gold.start[partner] == predicted.start) & (gold.end[partner] == predicted.end)
    return there & same, there & (gold.type[partner] == predicted.type)


def _left(gold: EntitySpans, partner: np.ndarray) -> np.ndarray:
    """Returns the gold entities that are no one's partner."""
    left = np.ones(len(gold.start) + 1, bool)
    left[partner] = False  # -1 is the one behind the last
    return np.flatnonzero(left[:-1])


def _items(
    gold: EntitySpans,
    predicted: EntitySpans,
    missed: np.ndarray,
    number: np.ndarray,
    of_missed: int,
) -> tuple[np.ndarray, ...]:
    return (
        np.append(predicted.row, gold.row[missed]),
        np.append(predicted.type, gold.type[missed]),
        np.append(number, np.full(len(missed), of_missed)),
    )


def _apart(spans: EntitySpans, width: int) -> EntitySpans:
    """Moves the entities of each type to positions of their own."""
    order = np.lexsort((spans.start, spans.type))
    moved = EntitySpans(
        spans.start + spans.type * width, spans.end + spans.type * width, *spans[2:]
    )
    return EntitySpans(*(x[order] for x in moved))


def observe(gold: EntitySpans, predicted: EntitySpans, number: int) -> dict[str, Cells]:
    """Returns the outcomes of entities of `number` types: `all`, `[schema, outcome]`, matched among
    all types; `each`, `[type, schema, outcome]`, matched among those of one type.
    """
    width = 1 + max((int(x.end.max()) for x in (gold, predicted) if len(x.end)), default=0)
    found = {
        "all": outcomes(gold, predicted),
        "each": outcomes(_apart(gold, width), _apart(predicted, width)),
    }
    out = {}
    for name, schemas in found.items():
        row, type_, outcome = (np.concatenate(x) for x in zip(*schemas, strict=True))
        schema = np.repeat(np.arange(len(SCHEMAS)), [len(items[0]) for items in schemas])
        axes = ([type_] if name == "each" else []) + [schema, outcome]
        shape = (*([number] if name == "each" else []), len(SCHEMAS), len(OUTCOMES))
        out[name] = Cells.of(*axes, shape=shape, row=row)
    return out


def of_words(outputs: Outputs) -> tuple[EntitySpans, EntitySpans]:
    """Returns the gold and the predicted entities of tags, as conlleval reads them."""
    row, out = outputs["word.row"], []
    for name in ("word.tag", "word.predicted"):
        found = chunks.lenient(outputs[name], row, outputs.labels)
        out.append(EntitySpans(*found, row[found.start]))
    return out[0], out[1]


def of_characters(outputs: Outputs) -> tuple[EntitySpans, EntitySpans]:
    """Returns the gold and the predicted entities of arrays `[entities, 4]`: row, first character,
    character behind the last one, type.

    Raises:
      DataError: an entity is empty, or overlaps another of its row.
    """
    both = [np.asarray(outputs[name]).reshape(-1, 4) for name in ("span.gold", "span.predicted")]
    width = 1 + max((int(x[:, 2].max()) for x in both if len(x)), default=0)
    out = []
    for name, x in zip(("gold", "predicted"), both, strict=True):
        row, start, end, type_ = x[np.lexsort((x[:, 1], x[:, 0]))].T
        meets = np.append(False, (row[1:] == row[:-1]) & (start[1:] < end[:-1]))[: len(row)]
        if (bad := np.flatnonzero(meets | (start >= end) | (start < 0))).size:
            what = "overlaps another" if meets[bad[0]] else "is empty"
            raise DataError(
                f"row {outputs.rows[row[bad[0]]]}: the {name} entity of the characters"
                f" {start[bad[0]]} to {end[bad[0]]} {what}; entities are compared one by one"
            )
        out.append(EntitySpans(start + row * width, end + row * width, type_, row))
    return out[0], out[1]


# --- numbers
# --------------------------------------------------------------------------------------------------
def each(state: dict[str, Any]) -> dict[str, Any]:
    """Computes support, outcomes, precision, recall and F1 of every type, under every schema."""
    gold = state["each"][..., 0, :4].sum(-1)  # all but the spurious ones
    return {"support": gold} | _numbers(state["each"])


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes outcomes, precision, recall and F1 of all types together, under every schema."""
    return _numbers(state["all"])


def _numbers(table: Any) -> dict[str, Any]:
    """Computes the numbers of counts `[..., schema, outcome]`; 0/0 is 0."""
    out = {}
    for i, schema in enumerate(SCHEMAS):
        correct, incorrect, partial, missed, spurious = (table[..., i, j] for j in range(5))
        good, matched = correct + 0.5 * partial, correct + incorrect + partial
        numbers = (correct, incorrect, partial, missed, spurious) + (
            ratio(good, matched + spurious, 0.0),
            ratio(good, matched + missed, 0.0),
            ratio(2 * good, 2 * matched + spurious + missed, 0.0),
        )
        for name, number in zip((*OUTCOMES, *SCORES), numbers, strict=True):
            out[f"{schema}_{name}"] = number
    return out


def each_error(state: Any) -> dict[str, Any]:
    """Computes how many entities of every type have each error; of the gold type, but of a spurious
    entity the predicted one, and of one with a wrong type as well.
    """
    return {f"{name}_errors": state[..., i] for i, name in enumerate(ERRORS)}


def value_errors(state: Any) -> dict[str, Any]:
    """Computes how many entities have each error."""
    return each_error(state.sum(-2))


def observe_errors(outputs: Outputs) -> Cells:
    """Returns the errors of entities, `[type, error]`."""
    row, type_, error = errors(*of_words(outputs))
    shape = (len(chunks.types(outputs.labels)), len(ERRORS))
    return Cells.of(type_, error, shape=shape, row=row)


_COUNTS = tuple(f"{schema}_{name}" for schema in SCHEMAS for name in OUTCOMES)
_LOWER = tuple(name for name in _COUNTS if not name.endswith(("_correct", "_partial")))
_NAMES = tuple(f"{schema}_{name}" for schema in SCHEMAS for name in (*OUTCOMES, *SCORES))
_OF_WORDS = {
    "needs": ("word.row", "word.tag", "word.predicted"),
    "rows_of": lambda outputs: chunks.types(outputs.labels),
    "scheme": "chunks",
}
METRICS = {
    "entity_schemas": Metric(
        names=_NAMES,
        observe=lambda outputs: observe(*of_words(outputs), len(chunks.types(outputs.labels))),
        value=value,
        each=each,
        table="entities",
        lower_is_better=_LOWER,
        counts=("support", *_COUNTS),
        **_OF_WORDS,
    ),
    "entity_errors": Metric(
        names=tuple(f"{name}_errors" for name in ERRORS),
        observe=observe_errors,
        value=value_errors,
        each=each_error,
        table="entity_errors",
        lower_is_better=tuple(f"{name}_errors" for name in ERRORS),
        counts=tuple(f"{name}_errors" for name in ERRORS),
        **_OF_WORDS,
    ),
    "span_schemas": Metric(
        names=_NAMES,
        needs=("span.gold", "span.predicted"),
        observe=lambda outputs: observe(*of_characters(outputs), len(outputs.labels)),
        value=value,
        each=each,
        table="entities",
        lower_is_better=_LOWER,
        counts=("support", *_COUNTS),
    ),
}
