"""Adjudication: one answer out of several annotators', by majority or Dawid and Skene's model.

A tie is said to be one and never broken.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from jaxsft.errors import ConfigError
from jaxsft.prepare.annotation import Work
from jaxsft.prepare.annotation_schema import Schema

METHODS = ("majority", "dawid_skene")
EQUAL = 1e-6  # two posteriors nearer than this are a tie


@dataclasses.dataclass(frozen=True)
class Decision:
    """The answer for one item.

    `status` is single (one annotator), unanimous, majority (more than half, or a posterior above
    0.5), plurality (most, but no more than half), or tie: then `value` is None and `candidates` are
    the answers that tie. `confidence` is the share of annotators, or the posterior; of values made
    of parts (labels, spans, relations) that of the least certain part that was kept, and 1 where
    none was.
    """

    item: str
    value: Any
    status: str
    votes: int
    confidence: float
    candidates: tuple = ()


@dataclasses.dataclass(frozen=True)
class Adjudication:
    """The decisions, one per item that somebody answered.

    From Dawid-Skene also P(an annotator writes the true class), by annotator.
    """

    decisions: tuple[Decision, ...]
    accuracy: Mapping[str, float] | None = None


def adjudicate(work: Work, schema: Schema, method: str) -> Adjudication:
    """Decides every item.

    majority: the answer of most annotators. Of multi_label, span and relation each part on its own:
    it is kept where more than half marked exactly it, and ties at one half. dawid_skene: the class
    of the highest posterior, with the errors of every annotator learnt from all items
    (`dawid_skene`); of multi_label each label on its own, as yes or no.

    Raises:
      ConfigError: no such method, or dawid_skene for spans or relations, which have no classes to
        confuse.
    """
    if method not in METHODS:
        raise ConfigError(f"method={method!r} is unknown; expected one of {', '.join(METHODS)}")
    if method == "dawid_skene":
        if schema.type in ("span", "relation"):
            raise ConfigError(
                f"method=dawid_skene needs classes, and type {schema.type} has none; use"
                " method=majority"
            )
        return _by_model(work, schema)
    votes: dict[str, list[Any]] = {item: [] for item in work.items}
    for given in work.by_annotator().values():
        for item, value in given.items():
            votes[item].append(value)
    decide = _by_parts if schema.type in ("multi_label", "span", "relation") else _by_votes
    return Adjudication(tuple(decide(item, values, schema) for item, values in votes.items()))


def _by_votes(item: str, values: Sequence[Any], schema: Schema) -> Decision:
    ranked = Counter(values).most_common()
    most, n = ranked[0][1], len(values)
    if len(first := sorted(value for value, count in ranked if count == most)) > 1:
        return Decision(item, None, "tie", n, most / n, tuple(first))
    status = (
        "single"
        if n == 1
        else "unanimous"
        if most == n
        else "majority"
        if 2 * most > n
        else "plurality"
    )
    return Decision(item, first[0], status, n, most / n)


def parts(value: Any, schema: Schema) -> list[tuple]:
    """Returns the parts of a value that are decided one by one.

    A part is ("labels" | "spans" | "relations", the part).
    """
    if schema.type == "relation":
        return [("spans", span) for span in value[0]] + [("relations", link) for link in value[1]]
    return [("spans" if schema.type == "span" else "labels", part) for part in value]


def _joined(found: Sequence[tuple], schema: Schema) -> Any:
    """Joins parts to a value.

    A relation brings its spans with it: they may tie where it does.
    """
    if schema.type != "relation":
        return tuple(sorted(part for _, part in found))
    links = tuple(sorted(part for kind, part in found if kind == "relations"))
    spans = {part for kind, part in found if kind == "spans"} | {
        end for head, _, tail in links for end in (head, tail)
    }
    return tuple(sorted(spans)), links


def _by_parts(item: str, values: Sequence[Any], schema: Schema) -> Decision:
    n = len(values)
    counts = Counter(part for value in values for part in parts(value, schema))
    kept = [part for part, count in counts.items() if 2 * count > n]
    tied = [part for part, count in counts.items() if 2 * count == n]
    sure = min((counts[part] / n for part in kept), default=1.0)
    if tied:
        return Decision(
            item, None, "tie", n, 0.5, (_joined(kept, schema), _joined([*kept, *tied], schema))
        )
    status = "single" if n == 1 else "unanimous" if len(set(values)) == 1 else "majority"
    return Decision(item, _joined(kept, schema), status, n, sure)


def ratings_of(work: Work, answer: Callable[[Any], int]) -> np.ndarray:
    """Returns ratings [annotators, items], -1 where an annotator gave none.

    They are in the orders of `work.annotators` and `work.items`.
    """
    items = {item: i for i, item in enumerate(work.items)}
    out = np.full((len(work.annotators), len(items)), -1)
    for line, given in zip(out, work.by_annotator().values(), strict=True):
        for item, value in given.items():
            line[items[item]] = answer(value)
    return out


def _by_model(work: Work, schema: Schema) -> Adjudication:
    from jaxsft.prepare import dawid_skene

    if not work.items:
        return Adjudication(())
    if schema.type != "multi_label":
        classes = list(schema.categories)
        ratings = ratings_of(work, classes.index)
        found = dawid_skene.estimate(ratings, len(classes))
        posterior = np.asarray(found.posterior)
        decisions = [
            _of_posterior(*of, classes) for of in zip(work.items, posterior, ratings.T, strict=True)
        ]
        right = np.einsum("c,acc->a", np.asarray(found.prior), np.asarray(found.confusion))
        return Adjudication(
            tuple(decisions), dict(zip(work.annotators, map(float, right), strict=True))
        )
    each, right = [], []
    for name in schema.names:
        ratings = ratings_of(work, lambda value, name=name: int(name in value))
        found = dawid_skene.estimate(ratings, 2)
        each.append(np.asarray(found.posterior)[:, 1])
        right.append(np.einsum("c,acc->a", np.asarray(found.prior), np.asarray(found.confusion)))
    votes = (ratings >= 0).sum(0)
    decisions = [
        _of_labels(*of, schema) for of in zip(work.items, np.stack(each, 1), votes, strict=True)
    ]
    return Adjudication(
        tuple(decisions), dict(zip(work.annotators, map(float, np.mean(right, 0)), strict=True))
    )


def _of_posterior(
    item: str, posterior: np.ndarray, ratings: np.ndarray, classes: Sequence[Any]
) -> Decision:
    given, top = ratings[ratings >= 0], float(posterior.max())
    first = [classes[c] for c in np.flatnonzero(posterior > top - EQUAL)]
    if len(first) > 1:
        return Decision(item, None, "tie", len(given), top, tuple(first))
    same = len(set(given.tolist())) == 1 and classes[given[0]] == first[0]
    status = (
        "single"
        if len(given) == 1
        else "unanimous"
        if same
        else "majority"
        if top > 0.5
        else "plurality"
    )
    return Decision(item, first[0], status, len(given), top)


def _of_labels(item: str, yes: np.ndarray, votes: int, schema: Schema) -> Decision:
    kept = tuple(
        sorted(name for name, p in zip(schema.names, yes, strict=True) if p > 0.5 + EQUAL / 2)
    )
    tied = tuple(
        name for name, p in zip(schema.names, yes, strict=True) if abs(p - 0.5) <= EQUAL / 2
    )
    if tied:
        return Decision(item, None, "tie", int(votes), 0.5, (kept, tuple(sorted((*kept, *tied)))))
    return Decision(
        item,
        kept,
        "single" if votes == 1 else "majority",
        int(votes),
        float(np.maximum(yes, 1 - yes).min()),
    )


# --- spans
# --------------------------------------------------------------------------------------------------
def matched(a: Sequence[tuple[int, int, str]], b: Sequence[tuple[int, int, str]], how: str) -> int:
    """Counts the spans of one annotator that have a partner of the same label among the other's.

    Partners have equal bounds (exact), or a character in common (overlap).

    A span has one partner at most; the pairs with the most characters in common are made first.
    """
    if how == "exact":
        return len(set(a) & set(b))
    shared = lambda x, y: min(x[1], y[1]) - max(x[0], y[0])
    pairs = sorted(
        (
            (shared(x, y), i, j)
            for i, x in enumerate(a)
            for j, y in enumerate(b)
            if x[2] == y[2] and shared(x, y) > 0
        ),
        reverse=True,
    )
    left, right = set(), set()
    for _, i, j in pairs:
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
    return len(left)


def part_f1(
    a: Mapping[str, Any], b: Mapping[str, Any], schema: Schema, how: str = "exact"
) -> float | None:
    """Computes F1 = 2 m / (|a| + |b|) of the parts of two annotators' values.

    It is over the items that both answered; m as in `matched`; None where there are none.

    F1 rather than kappa: what is not marked cannot be counted (Hripcsak and Rothschild, "Agreement,
    the F-Measure, and Reliability in Information Retrieval", JAMIA 12(3), 2005). how=overlap looks
    at spans only.
    """
    both = a.keys() & b.keys()
    found = total = 0
    for item in both:
        x, y = (
            [p for p in parts(v[item], schema) if how == "exact" or p[0] == "spans"] for v in (a, b)
        )
        found += (
            len(set(x) & set(y))
            if how == "exact"
            else matched([p[1] for p in x], [p[1] for p in y], how)
        )
        total += len(x) + len(y)
    return 2 * found / total if total else None


def pairwise(
    work: Work, score: Callable[[Mapping, Mapping], float | None]
) -> dict[tuple[str, str], float]:
    """Returns the score of every pair of annotators that has one."""
    given = work.by_annotator()
    found = {(a, b): score(given[a], given[b]) for a, b in combinations(work.annotators, 2)}
    return {
        pair: value for pair, value in found.items() if value is not None and np.isfinite(value)
    }
