"""The report on annotators, as a dict and as Markdown.

It says how far they agree with each other, with the decisions and with gold answers.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.errors import DataError
from jaxsft.prepare import agreement
from jaxsft.prepare.adjudicate import Adjudication, matched, pairwise, part_f1, parts, ratings_of
from jaxsft.prepare.annotation import Work
from jaxsft.prepare.annotation_schema import Schema

CLASSES = ("class", "pairwise", "rating")  # one answer per item


def report(
    work: Work, schema: Schema, adjudication: Adjudication, gold: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Computes the numbers of the whole, and of every annotator.

    Of one answer per item: percent agreement, Krippendorff's alpha (ordinal for ratings, else
    nominal), Cohen's kappa of pairs (with quadratic weights for ratings). Of parts: F1 of pairs,
    exact, and for spans by overlap; multi_label also alpha of each label, as yes or no. See
    `jaxsft.prepare.agreement`.

    Args:
      gold: item -> the known answer. An annotator's accuracy is the share of equal answers, or the
        F1 of parts; confusions are against gold where it is given, else against the decisions
        without ties.

    Raises:
      DataError: none of the gold items was annotated.
    """
    if gold is not None and not set(gold) & set(work.items):
        raise DataError(
            f"gold: none of its {len(gold)} items was annotated; expected the ids of the tasks in"
            " `item`"
        )
    decided = {d.item: d.value for d in adjudication.decisions if d.value is not None}
    known = decided if gold is None else gold
    pairs = _pairs(work, schema)
    given = work.by_annotator()
    annotators = {}
    for name in work.annotators:
        own = [a for a in work.annotations if a.annotator == name]
        annotators[name] = {
            "items": len(given[name]),
            "skipped": sum(a.value is None for a in own),
            "agreement": {
                measure: _mean([v for pair, v in of.items() if name in pair])
                for measure, of in pairs.items()
            },
            "with_decisions": _against(given[name], decided, schema),
            "with_gold": None if gold is None else _against(given[name], gold, schema),
            "reliability": None if adjudication.accuracy is None else adjudication.accuracy[name],
            "confusion": _confusion(given[name], known, schema),
            "seconds": _seconds([a.seconds for a in own if a.seconds is not None]),
        }
    return {
        "type": schema.type,
        "items": len(work.items),
        "untouched": len(work.untouched),
        "annotations": sum(a.value is not None for a in work.annotations),
        "statuses": dict(Counter(d.status for d in adjudication.decisions)),
        "ties": [d.item for d in adjudication.decisions if d.status == "tie"],
        "agreement": {
            **_alpha(work, schema),
            **{f"{measure}_mean": _mean(list(of.values())) for measure, of in pairs.items()},
        },
        "confusion_against": "decisions" if gold is None else "gold",
        "annotators": annotators,
    }


def _pairs(work: Work, schema: Schema) -> dict[str, dict[tuple[str, str], float]]:
    if schema.type not in CLASSES:
        measures = {
            "f1_exact": "exact",
            **({"f1_overlap": "overlap"} if schema.type != "multi_label" else {}),
        }
        return {
            name: pairwise(work, lambda a, b, how=how: part_f1(a, b, schema, how))
            for name, how in measures.items()
        }
    place, weights = schema.categories.index, "quadratic" if schema.type == "rating" else "none"

    def kappa(a: Mapping, b: Mapping) -> float | None:
        both = sorted(a.keys() & b.keys())
        lines = np.array([[place(v[item]) for item in both] for v in (a, b)], float)
        return agreement.cohen_kappa(*lines, weights) if both else None

    same = lambda a, b: _mean([float(a[item] == b[item]) for item in a.keys() & b.keys()])
    return {"percent": pairwise(work, same), "kappa": pairwise(work, kappa)}


def _alpha(work: Work, schema: Schema) -> dict[str, Any]:
    """Computes Krippendorff's alpha, where anything was answered twice."""
    if schema.type in ("span", "relation"):
        return {}

    def alpha(ratings: np.ndarray, level: str) -> float | None:
        table = np.where(ratings < 0, np.nan, ratings.astype(float))
        if len(table) < 2 or not ((ratings >= 0).sum(0) > 1).any():
            return None
        found = agreement.krippendorff_alpha(table, level)
        return found if np.isfinite(found) else None

    if schema.type == "multi_label":
        return {
            "alpha": {
                n: alpha(ratings_of(work, lambda value, n=n: int(n in value)), "nominal")
                for n in schema.names
            }
        }
    return {
        "alpha": alpha(
            ratings_of(work, schema.categories.index),
            "ordinal" if schema.type == "rating" else "nominal",
        )
    }


def _against(own: Mapping[str, Any], known: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    both = own.keys() & known.keys()
    if schema.type in CLASSES:
        return {
            "items": len(both),
            "accuracy": _mean([float(own[item] == known[item]) for item in both]),
        }
    return {"items": len(both), "f1": part_f1({i: own[i] for i in both}, known, schema)}


def _confusion(own: Mapping[str, Any], known: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Compares answers with gold ones.

    Of one answer per item: {right: {given: items}}. Of parts: {label: {"found", "missed",
    "extra"}}, and of spans those `nearly` found: by overlap only.
    """
    both = sorted(own.keys() & known.keys())
    if schema.type in CLASSES:
        counts = Counter((known[item], own[item]) for item in both)
        return {
            str(c): {str(g): counts[c, g] for g in schema.categories if counts[c, g]}
            for c in schema.categories
            if any(counts[c, g] for g in schema.categories)
        }
    out: dict[str, dict[str, int]] = {}
    name = lambda part: (
        part[1] if part[0] == "labels" else part[1][2] if part[0] == "spans" else part[1][1]
    )
    for item in both:
        mine, right = parts(own[item], schema), parts(known[item], schema)
        for label in sorted({name(p) for p in (*mine, *right)}):
            a, b = ([p for p in side if name(p) == label] for side in (mine, right))
            line, same = (
                out.setdefault(label, {"found": 0, "missed": 0, "extra": 0}),
                len(set(a) & set(b)),
            )
            if spans := [p for p in (*a, *b) if p[0] == "spans"]:
                near = matched(
                    *([p[1] for p in side if p[0] == "spans"] for side in (a, b)), "overlap"
                )
                line["nearly"] = (
                    line.get("nearly", 0) + near - sum(p in a and p in b for p in set(spans))
                )
            line["found"], line["missed"], line["extra"] = (
                line["found"] + same,
                line["missed"] + len(b) - same,
                line["extra"] + len(a) - same,
            )
    return dict(sorted(out.items()))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


# --- Markdown
# --------------------------------------------------------------------------------------------------
def markdown(found: Mapping[str, Any], title: str = "Annotators") -> str:
    """Returns the report as a Markdown page."""
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(found["statuses"].items()))
    lines = [
        f"# {title}",
        "",
        (
            f"{found['items']} items of type {found['type']}, {found['annotations']} annotations;"
            f" {statuses or 'nothing decided'}."
        ),
    ]
    if found["untouched"]:
        lines.append(f"{found['untouched']} items were not annotated by anybody.")
    if found["ties"]:
        shown = ", ".join(map(_cell, found["ties"][:20]))
        lines += ["", f"Ties: {shown}{' ...' if len(found['ties']) > 20 else ''}"]
    lines += ["", "| agreement | |", "|---|---|"]
    for name, value in found["agreement"].items():
        each = value.items() if isinstance(value, dict) else [("", value)]
        lines += [f"| {_cell(f'{name} {label}'.strip())} | {_number(v)} |" for label, v in each]
    measures = (
        list(next(iter(found["annotators"].values()))["agreement"]) if found["annotators"] else []
    )
    heads = [
        "annotator",
        "items",
        "skipped",
        *measures,
        "as decided",
        "as gold",
        "reliability",
        "median seconds",
    ]
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, of in found["annotators"].items():
        gold = (
            None
            if of["with_gold"] is None
            else of["with_gold"].get("accuracy", of["with_gold"].get("f1"))
        )
        decided = of["with_decisions"].get("accuracy", of["with_decisions"].get("f1"))
        numbers = [
            *(of["agreement"][m] for m in measures),
            decided,
            gold,
            of["reliability"],
            (of["seconds"] or {}).get("median"),
        ]
        lines.append(
            f"| {_cell(name)} | {of['items']} | {of['skipped']} |"
            f" {' | '.join(map(_number, numbers))} |"
        )
    for name, of in found["annotators"].items():
        lines += [
            "",
            f"## {_cell(name)}",
            "",
            *_confusion_lines(of["confusion"], found["type"], found["confusion_against"]),
        ]
    return "\n".join([*lines, ""])


def _confusion_lines(
    confusion: Mapping[str, Mapping[str, int]], kind: str, against: str
) -> list[str]:
    columns = list(dict.fromkeys(given for line in confusion.values() for given in line))
    columns = sorted(columns) if kind in CLASSES else columns
    corner = f"{against} ↓ given →" if kind in CLASSES else f"against {against}"
    lines = [f"| {corner} | {' | '.join(map(_cell, columns))} |", "|---" * (len(columns) + 1) + "|"]
    return [
        *lines,
        *(
            f"| {_cell(right)} | {' | '.join(str(line.get(c, 0)) for c in columns)} |"
            for right, line in confusion.items()
        ),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cell(text: Any) -> str:
    """Escapes text so that it cannot break a table or become markup."""
    return "".join(f"\\{c}" if c in "|<>*_`[]#\\" else c for c in " ".join(str(text).split()))


def _seconds(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"median": statistics.median(seconds), "total": sum(seconds), "items": len(seconds)}
