"""The charts and tables of a quality card, by its family of measures."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from jaxsft.reports import charts, facts

BARS = 30  # classes with a bar of their own
KINDS = ("absent", "null", "empty", "nan", "missing")  # of cells


def missing(card: Mapping[str, Any]) -> dict[str, Any]:
    found = card["tables"]["columns"]
    names = dict.fromkeys(column for columns in found.values() for column in columns)
    lines = [
        (
            name,
            [
                f"{columns[name]['missing']:,}" if name in columns else ""
                for columns in found.values()
            ],
        )
        for name in names
    ]
    tables = [{"title": "Missing cells", "first": "column", "heads": list(found), "lines": lines}]
    for split, columns in found.items():
        if lines := [
            (column, [f"{counts[kind]:,}" for kind in KINDS[:-1]])
            for column, counts in columns.items()
            if counts["missing"]
        ]:
            tables.append(
                {
                    "title": f"Kinds of missing cells, {split}",
                    "first": "column",
                    "heads": KINDS[:-1],
                    "lines": lines,
                }
            )
    return {"tables": tables}


def types(card: Mapping[str, Any]) -> dict[str, Any]:
    kinds = sorted({kind for counts in card["tables"]["types"].values() for kind in counts})
    types = [
        (column, [f"{counts.get(kind, 0):,}" for kind in kinds])
        for column, counts in card["tables"]["types"].items()
    ]
    tables = [
        {"title": "Types of cells, all splits", "first": "column", "heads": kinds, "lines": types}
    ]
    damage = card["tables"]["damage"]
    lines = [
        (what.replace("_", " "), [f"{counts[what]:,}" for counts in damage.values()])
        for what in next(iter(damage.values()))
    ]
    tables.append(
        {
            "title": "Damaged characters, rows",
            "first": "kind",
            "heads": list(damage),
            "lines": lines,
        }
    )
    if card["tables"]["label_variants"]:
        lines = [(group[0], [", ".join(group[1:])]) for group in card["tables"]["label_variants"]]
        tables.append(
            {
                "title": "Labels in several spellings",
                "first": "most frequent",
                "heads": ["others"],
                "lines": lines,
            }
        )
    return {"tables": tables}


def diversity(card: Mapping[str, Any]) -> dict[str, Any]:
    curves = [(split, np.array(c["words"], float), np.array(c["vocabulary"], float),
    f"dotted s{i % charts.COLOURS}")
              for i,
              (split,
              c) in enumerate(card["curves"]["growth"].items()) if len(c["words"]) > 1]  # fmt: skip
    drawn = (
        [charts.chart("Growth of the vocabulary: different words by words read", curves, zero=True)]
        if curves
        else []
    )
    clusters = card["tables"]["clusters"]
    lines = [
        (f"cluster {at}", cluster["sizes"], cluster["example"])
        for at, cluster in enumerate(clusters, start=1)
    ]
    bars = (
        [_bars(card, "Clusters of texts, each with the text nearest to its centre", lines)]
        if lines
        else []
    )
    return {"charts": drawn, "bars": bars}


def distribution(card: Mapping[str, Any]) -> dict[str, Any]:
    bars = [
        _bars(card, title, [(name, counts, "") for name, counts in card["tables"][table].items()])
        for table, title in (
            ("classes", "Labels"),
            ("scripts", "Scripts"),
            ("languages", "Languages of a sample"),
        )
        if card["tables"][table]
    ]
    titles = {
        "characters": "Characters of a row",
        "words": "Words of a row",
        "label": "Label (a quantity)",
    }
    histograms = [
        _histogram(titles[what], found)
        for what, found in card["curves"]["lengths"].items()
        if found
    ]
    return {"bars": bars, "histograms": histograms}


def _bars(
    card: Mapping[str, Any], title: str, lines: Sequence[tuple[str, Mapping[str, int], str]]
) -> dict[str, Any]:
    """Returns horizontal bars, one per split, as shares of the split.

    The widest is as wide as the page.
    """
    totals = {
        split: max(sum(counts.get(split, 0) for _, counts, _ in lines), 1)
        for split in card["data"]["splits"]
    }
    share = lambda split, count: count / totals[split]
    widest = (
        max(
            (share(split, counts.get(split, 0)) for _, counts, _ in lines for split in totals),
            default=0,
        )
        or 1
    )
    made = [
        (name,
        [(f"s{i % charts.COLOURS}", split, counts.get(split, 0),
        f"{100 * share(split, counts.get(split, 0)):.3g} %",
                 round(100 * share(split, counts.get(split, 0)) / widest, 2)) for i,
                 split in enumerate(totals)], note)
        for name, counts, note in lines
    ]  # fmt: skip
    return {
        "title": title,
        "splits": [(f"s{i % charts.COLOURS}", split) for i, split in enumerate(totals)],
        "lines": made[:BARS],
        "rest": made[BARS:],
    }


def _histogram(title: str, found: Mapping[str, Any]) -> dict[str, Any]:
    out = []
    for split, counts in found["counts"].items():
        highest, edges = max(counts), list(pairwise(found["edges"]))
        last = len(counts) - 1
        bars = [(facts.number_text(low),
        facts.number_text(found["longest"] if at == last else high), count,
        round(100 * count / max(highest, 1), 2))
                for at,
                ((low, high), count) in enumerate(zip(edges, counts, strict=True))]  # fmt: skip
        out.append({"split": split, "bars": bars, "highest": highest})
    return {
        "title": title,
        "first": facts.number_text(found["edges"][0]),
        "last": facts.number_text(found["longest"]),
        "splits": out,
    }
