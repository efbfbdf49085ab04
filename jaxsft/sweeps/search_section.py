"""The section of a sweep's report about its search: what was tried, the best so far, and by how
much the choice of the best flatters it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.reports import charts, score_charts
from jaxsft.reports.report_tables import ReportSection, ReportTable, TableCell, plain
from jaxsft.sweeps import search_book, search_outcome
from jaxsft.sweeps.search_outcome import PointResult
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.sweep_reading import text_of
from jaxsft.sweeps.trial_ledger import TrialLedger


@dataclasses.dataclass(frozen=True)
class SearchAccount:
    """The outcome of a search.

    Attributes:
      content: of search.json.
      results: of each point, in the order in which they were proposed.
    """

    content: Mapping[str, Any]
    results: Sequence[PointResult]

    @property
    def confirmed(self) -> Mapping[str, Any] | None:
        """Returns the numbers of the one best point with the seeds that confirm it; None where it
        is not confirmed, or several points are best.
        """
        best = self.content["best"]
        return best[0]["confirmation"] if len(best) == 1 and best[0]["confirmed"] else None

    def warning(self) -> str:
        """Returns what a reader should know of the best point first; "" where nothing."""
        best = self.content["best"]
        if not best or all(one["confirmed"] for one in best):
            return ""
        return (
            f"The best of {self.content['points']['done']} sets of values is not confirmed with"
            " other seeds: its number as found is too good by chance."
        )


def account_of(folder: Path) -> SearchAccount | None:
    """Returns what the search of a folder came to; None where it holds none. Raises JaxsftError."""
    plan = SweepPlan.read(folder)
    if not search_book.is_search(plan):
        return None
    states = TrialLedger(folder).states()
    results = search_outcome.results_of(plan, states)
    return SearchAccount(search_outcome.outcome(plan, states), results)


def search_section(of: SearchAccount | None) -> ReportSection | None:
    """Returns the best of a search with its selection bias, what was tried, and the best so far."""
    if of is None:
        return None
    told = [line.removeprefix("search: ").strip() for line in search_outcome.lines(of.content)]
    if of.content["best"]:
        told.append(
            "The best of many noisy numbers is partly luck. The seeds that confirm it had no part"
            " in the choice: report their mean, not the number as found. They stand in no arm"
            " below."
        )
    tables = [_best_table(of), _points_table(of)]
    return ReportSection(told, [one for one in tables if one.rows], _charts(of))


def _best_table(of: SearchAccount) -> ReportTable:
    rows = []
    for one in of.content["best"]:
        for metric, value in one["found"].items():
            other = (one.get("confirmation") or {}).get(metric) or {}
            seeds = len(other.get("values") or ())
            rows.append([
                TableCell(f"point {one['point']}", one["point"]), TableCell(metric), plain(value),
                plain(other.get("mean")), plain(other.get("std")), plain(seeds or None),
                plain(other.get("selection_bias")),
            ])  # fmt: skip
    heads = ["best", "number", "as found", "confirmed", "spread", "other seeds", "selection bias"]
    note = "Selection bias: how much better the search found it than the other seeds do."
    return ReportTable(heads, rows, "Best", note)


def _points_table(of: SearchAccount) -> ReportTable:
    options = list(dict.fromkeys(name for one in of.results for name in one.point.values))
    metrics = of.content["metrics"]
    best = {one["point"] for one in of.content["best"]}
    rows = []
    for one in of.results:
        number = one.point.number
        values = one.values or [None] * len(metrics)
        status = "breaks a constraint" if one.status == "done" and not one.feasible else one.status
        rows.append([
            TableCell(f"{number}{' *' if number in best else ''}", number),
            *(_value(one.point.values.get(name)) for name in options), TableCell(status),
            *map(plain, values), TableCell((one.message or "–")[:200]),
        ])  # fmt: skip
    heads = ["point", *options, "status", *metrics, "why"]
    return ReportTable(heads, rows, "What was tried", folded=len(rows) > 12, raw_heads=True)


def _value(value: Any) -> TableCell:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return TableCell(text_of(value), float(value) if numeric else None)


def best_so_far(results: Sequence[PointResult], more: bool) -> list[float]:
    """Returns the best number of the points up to each; NaN before the first that counts.

    >>> of = lambda *values: PointResult(None, "done" if values else "failed", values)
    >>> best_so_far([of(), of(2.0), of(3.0), of(1.0)], more=False)
    [nan, 2.0, 2.0, 1.0]
    """
    out, best = [], math.nan
    for one in results:
        if one.feasible and not (best >= one.values[0] if more else best <= one.values[0]):
            best = one.values[0]
        out.append(best)
    return out


def _charts(of: SearchAccount) -> list[charts.Chart]:
    """Returns the numbers in the order of the search, or one over the other where it has two."""
    metrics, directions = of.content["metrics"], of.content["directions"]
    done = [one for one in of.results if one.values]
    if not done:
        return []
    tips = [f"point {one.point.number}: {one.values[0]:.4g}" for one in done]
    if len(metrics) == 1:
        x, y = [one.point.number + 1 for one in done], [one.values[0] for one in done]
        so_far = best_so_far(of.results, directions[0] == "maximize")
        # a step at each point that is better than all before
        at = [i for i, value in enumerate(so_far) if math.isfinite(value)]
        steps = [(i + 1, so_far[j]) for i in at for j in ((i - 1, i) if i - 1 in at else (i,))]
        line = ("best so far", [a for a, _ in steps], [b for _, b in steps], "s1")
        title, across, note = f"{metrics[0]} of each set of values", "sets of values", ""
    else:
        x, y = ([one.values[i] for one in done] for i in (0, 1))
        best = {one["point"] for one in of.content["best"]}
        front = sorted(one.values[:2] for one in done if one.point.number in best)
        line = ("front", [a for a, _ in front], [b for _, b in front], "dotted s1")
        title, across, note = f"{metrics[1]} over {metrics[0]}", metrics[0], metrics[1]
    lines = [("tried", x, y, "dotted points s0"), line]
    scales = score_charts.around(x), score_charts.around(y)
    return [score_charts.plane(title, lines, across, note, *scales, {0: tips})]
