"""The sections of the report of a sweep, of what its analysis found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jaxsft.reports import facts, sweep_page
from jaxsft.reports.charts import COLOURS
from jaxsft.reports.report_tables import (
    NOWHERE,
    ReportSection,
    ReportTable,
    TableCell,
    bounds_text,
    cells_of,
    ends_of,
    plain,
    scale_of,
)
from jaxsft.rundir import duration_text
from jaxsft.sweeps import sweep_charts
from jaxsft.sweeps.arm_tests import MOST_MORE, ArmComparison
from jaxsft.sweeps.option_effects import PairEffect
from jaxsft.sweeps.search_section import search_section
from jaxsft.sweeps.seed_groups import SeedSummary
from jaxsft.sweeps.sweep_findings import COSTS, SweepAnalysis
from jaxsft.sweeps.sweep_reading import ABSENT, UNFINISHED, text_of

MOST_CELLS = 3  # pairs of options whose means are shown
HEADS = {"seconds": "seconds", "tokens": "tokens", "flops": "FLOPs", "peak_bytes": "peak memory"}


def page_of(found: SweepAnalysis) -> sweep_page.SweepPage:
    """Returns what stands in the report."""
    results = found.results
    title = str(results.study.get("name") or "") or f"Sweep over {_names(results.options)}"
    made = (
        ("search", "Search", search_section(found.search), None),
        ("arms", "Arms", arms_section(found), None),
        ("comparisons", "Comparisons", comparisons_section(found), None),
        ("options", "Options", options_section(found), sweep_charts.parallel_of(found)),
        ("curves", "Curves", curves_section(found), None),
        ("cost", "Cost", cost_section(found), None),
        ("test", "Test", test_section(found), None),
        ("trials", "Trials", trials_section(found), None),
        ("method", "How it is computed", method_section(found), None),
    )
    return sweep_page.SweepPage(
        title=title,
        name=results.folder.resolve().name,
        meta=_meta(found),
        question=str(results.study.get("question") or ""),
        tiles=_tiles(found),
        notices=found.warnings,
        command=found.command(),
        sections=[section for section in made if section[2] is not None],
    )


def _names(options: Sequence[str]) -> str:
    return ", ".join(options[:3]) + (" ..." if len(options) > 3 else "") or "seeds"


def _meta(found: SweepAnalysis) -> str:
    results = found.results
    count = lambda *kinds: sum(trial.status in kinds for trial in results.trials)
    parts = [f"{len(results.trials)} trials in {len(found.groups)} arms: {count('done')} done"]
    for name, kinds in (
        ("failed", ("failed",)),
        ("not finished", UNFINISHED),
        ("put aside", ("superseded", "cancelled")),
    ):
        if n := count(*kinds):
            parts.append(f"{n} {name}")
    chosen = f"; chosen by {results.metric}" if results.metric else ""
    return ", ".join(parts) + chosen


def _tiles(found: SweepAnalysis) -> list[tuple[str, str, str]]:
    """Returns the numbers that a reader looks for first."""
    if not found.best:
        return []
    results, best = found.results, found.summaries[found.best]
    entry = {"low": best.low, "high": best.high}
    out = [(results.metric, facts.number_text(best.mean), _of_seeds(best.n, bounds_text(entry)))]
    if found.search is not None:
        out = [(f"{results.metric}, as found", *out[0][1:])]
        if confirmed := (found.search.confirmed or {}).get(results.metric):
            told = f"{_of_seeds(len(confirmed['values']), '')} that did not choose"
            mean = facts.number_text(confirmed["mean"])
            out.insert(0, (f"{results.metric}, confirmed", mean, told))
    if found.best in found.of_test:
        test = found.of_test[found.best]
        entry = {"low": test.low, "high": test.high}
        told = f"{_of_seeds(test.n, bounds_text(entry))}; did not choose"
        out.append((_test_name(found), facts.number_text(test.mean), told))
    told = [pair for pair in found.family.of(found.best) if pair.verdict in ("better", "worse")]
    out.append(
        ("told apart from the best", f"{len(told)} of {len(found.summaries) - 1}", "arms, by Holm")
    )
    seconds = [trial.seconds for trial in results.trials if trial.seconds is not None]
    if seconds:
        out.append(("time of all trials", duration_text(sum(seconds)), ""))
    return out


def _of_seeds(n: int, text: str) -> str:
    return f"{n} seed{'' if n == 1 else 's'}{f' {text}' if text else ''}"


def _test_name(found: SweepAnalysis) -> str:
    return f"test/{found.results.metric.partition('/')[2]}"


# --- arms
# --------------------------------------------------------------------------------------------------
def _entry(of: SeedSummary, which: str = "mean") -> dict[str, Any]:
    mean = which == "mean"
    low, high = (of.low, of.high) if mean else (of.iqm_low, of.iqm_high)
    value = of.mean if mean else of.iqm
    out = {"value": value, "low": low, "high": high, "method": "bootstrap over the seeds"}
    return out | ({} if of.n > 1 else {"reason": "one seed has no spread"})


def arms_section(found: SweepAnalysis) -> ReportSection | None:
    """Returns the arms with their spread over the seeds; None where no trial has a number."""
    if not found.summaries:
        return None
    of = scale_of([_entry(one) for one in found.summaries.values()])
    rows = []
    for group in found.ranked():
        one = found.summaries[group.label]
        star = " *" if group.label == found.best else ""
        rows.append([
            TableCell(group.label + star), plain(one.n), *cells_of(_entry(one), of), plain(one.sd),
            plain(one.iqm if one.n > 1 else None),
            TableCell(bounds_text(_entry(one, "iqm")) or NOWHERE),
            plain(group.planned - len(group.trials) or None),
        ])  # fmt: skip
    heads = ["arm", "seeds", "mean", "bounds", "spread", "IQM", "its bounds", "without number"]
    told = [
        f"{found.results.metric}"
        f"{' (less is better)' if found.results.lower_is_better else ''} of the trials of each arm,"
        " the best first (*). An arm is a setting of the options; its trials differ in their seeds."
    ]
    kept = [i for i in range(len(heads)) if i < 4 or any(r[i].text != NOWHERE for r in rows)]
    table = ReportTable(
        [heads[i] for i in kept], [[row[i] for i in kept] for row in rows], ends=ends_of(of),
        note="Spread: the standard deviation between seeds. IQM: the mean of the middle half.",
    )  # fmt: skip
    return ReportSection(told, [table])


# --- comparisons
# --------------------------------------------------------------------------------------------------
def comparisons_section(found: SweepAnalysis) -> ReportSection | None:
    """Returns the tests between arms with their verdicts; None where there is nothing to test."""
    family = found.family
    if not family.pairs:
        return None
    entries = [
        {"value": pair.difference, "low": pair.low, "high": pair.high} for pair in family.pairs
    ]
    most = max(
        (abs(x) for e in entries for x in e.values() if x is not None and math.isfinite(x)),
        default=0,
    )
    of = (-1.05 * most or -1.0, 1.05 * most or 1.0)
    rows = [
        [
            TableCell(pair.b if family.reference else f"{pair.a} → {pair.b}"),
            TableCell(_verdict(pair), tip=_tip(pair)),
            *cells_of(entry, of, mark=0.0), plain(pair.p_holm), plain(pair.p), plain(pair.p_seeds),
            TableCell(f"{pair.seeds_better} of {pair.shared}" if pair.shared else NOWHERE),
            plain(pair.minimum_detectable), plain(pair.row_se), plain(pair.seed_se),
            TableCell(pair.test or NOWHERE),
        ]
        for pair, entry in zip(family.pairs, entries, strict=True)
    ]  # fmt: skip
    heads = [
        "arm" if family.reference else "arms", "verdict", "difference", "bounds", "p, Holm", "p",
        "p, seeds alone", "seeds better", "least told", "error of rows", "error of seeds", "test",
    ]  # fmt: skip
    against = f" with {family.reference} (the first arm)" if family.reference else ""
    count = "1 comparison" if len(rows) == 1 else f"{len(rows)} comparisons"
    told = [
        f"{count}{against} of {found.results.metric.partition('/')[2]} on the same rows of"
        f" {family.split} and the same seeds: the second arm less the first. Verdicts are by the p"
        " that holds for all of them together (Holm).",
        *family.notes,
    ]
    if family.split != "test":
        told.append(
            f"The rows of {family.split} chose checkpoints and the best arm too, which flatters it."
        )
    kept = [i for i in range(len(heads)) if i < 4 or any(r[i].text != NOWHERE for r in rows)]
    note = (
        "Least told: the smallest difference that is told with a probability of 0.8 at the level of"
        f" all comparisons. Tied: not even {MOST_MORE} more seeds an arm would tell a difference as"
        " large as the one seen; it is no proof that there is none."
    )
    table = ReportTable(
        [heads[i] for i in kept], [[row[i] for i in kept] for row in rows], note=note,
        ends=ends_of(of), of_bars="The line is no difference.",
    )  # fmt: skip
    return ReportSection(told, [table])


def _verdict(pair: ArmComparison) -> str:
    sign = {"better": "▲ ", "worse": "▼ "}.get(pair.verdict, "")
    return sign + pair.told()


def _tip(pair: ArmComparison) -> str:
    text = facts.number_text
    return f"{text(pair.value_a)} → {text(pair.value_b)}, {pair.seeds} seeds an arm"


# --- options
# --------------------------------------------------------------------------------------------------
def options_section(found: SweepAnalysis) -> ReportSection | None:
    """Returns what each option does, and what pairs do; None where nothing was swept but seeds."""
    if not found.results.options or not found.summaries:
        return None
    it = found.effects
    tables = []
    if it.options:
        rows = [
            [
                TableCell(one.name), plain(one.importance), plain(one.share), plain(one.p),
                plain(one.rank), plain(len(one.levels)),
            ]
            for one in it.options
        ]  # fmt: skip
        heads = [
            "option",
            "importance",
            "share of variance",
            "p, Holm",
            "rank correlation",
            "levels",
        ]
        kept = [i for i in range(len(heads)) if any(row[i].text != NOWHERE for row in rows)]
        rows = [[row[i] for i in kept] for row in rows]
        note = "Share: what the option explains of the variance between trials, given the others."
        tables.append(ReportTable([heads[i] for i in kept], rows, "All options", note))
    means = [{"value": m.mean, "low": m.low, "high": m.high} for o in it.options for m in o.levels]
    of = scale_of(means) if means else (0.0, 1.0)
    for one in it.options:
        rows = [
            [
                TableCell(m.level), plain(m.n),
                *cells_of({"value": m.mean, "low": m.low, "high": m.high}, of),
            ]
            for m in one.levels
        ]  # fmt: skip
        heads = ["level", "trials", "mean", "bounds"]
        tables.append(ReportTable(heads, rows, f"Effect of {one.name}", ends=ends_of(of)))
    if it.pairs:
        rows = [
            [TableCell(f"{pair.a} × {pair.b}"), plain(pair.share), plain(pair.p)]
            for pair in it.pairs
        ]
        note = "What two options do together beyond what each does by itself."
        heads = ["options", "share of variance", "p, Holm"]
        tables.append(ReportTable(heads, rows, "Interactions", note, folded=len(rows) > 6))
        tables += [_cells(pair) for pair in it.pairs[:MOST_CELLS]]
    return ReportSection(it.notes, tables)


def _cells(pair: PairEffect) -> ReportTable:
    names, others = pair.levels
    rows = [
        [TableCell(name), *map(plain, cells)] for name, cells in zip(names, pair.cells, strict=True)
    ]
    heads = [f"{pair.a} ↓  {pair.b} →", *others]
    return ReportTable(heads, rows, f"Means of {pair.a} × {pair.b}", folded=True, raw_heads=True)


# --- curves and cost
# --------------------------------------------------------------------------------------------------
def curves_section(found: SweepAnalysis) -> ReportSection | None:
    """Returns the learning curves of the best arms; None where no trial logged any."""
    drawn, notes = sweep_charts.curves_of(found)
    if not drawn:
        return ReportSection(notices=notes) if notes else None
    shown = min(len(found.summaries), COLOURS)
    more = len(found.summaries) - shown
    told = "The mean over the seeds of an arm, and the range of its seeds as a band."
    if more:
        told += f" The best {shown} arms; {more} others are left out."
    return ReportSection([told], charts=drawn, notices=notes)


def cost_section(found: SweepAnalysis) -> ReportSection | None:
    """Returns cost against quality; None where no cost is known."""
    kinds = [kind for kind in COSTS if found.costs(kind)]
    if not kinds:
        return None
    fronts = {kind: found.front(kind) for kind in kinds}
    rows = []
    for group in found.ranked():
        costs = [found.costs(kind).get(group.label) for kind in kinds]
        on = [HEADS[kind] for kind in kinds if group.label in fronts[kind]]
        sizes = [t.parameters for t in group.trials if t.parameters is not None]
        cells = [*map(_cost_cell, costs), plain(max(sizes, default=None))]
        rows.append(
            [TableCell(group.label), plain(group.mean), *cells, TableCell(", ".join(on) or NOWHERE)]
        )
    heads = [
        "arm",
        found.results.metric,
        *(HEADS[kind] for kind in kinds),
        "parameters",
        "on the front of",
    ]
    told = [
        "The mean of a trial of each arm. An arm on the front is beaten by none that costs less:"
        " take one from there."
    ]
    note = "Tokens are those that were trained on, without padding; FLOPs are the model's on them."
    return ReportSection(
        told, [ReportTable(heads, rows, note=note)], sweep_charts.fronts_of(found, kinds)
    )


def _cost_cell(value: float | None) -> TableCell:
    if value is None:
        return TableCell(NOWHERE)
    text = f"{value:.3g}" if value >= 1e6 or value < 100 else f"{value:,.0f}"
    return TableCell(text, value)


# --- test, trials, method
# --------------------------------------------------------------------------------------------------
def test_section(found: SweepAnalysis) -> ReportSection | None:
    """Returns the number of the best arm on the test split, once; None where it has none."""
    if found.best not in found.of_test:
        return None
    one, name = found.of_test[found.best], _test_name(found)
    entry = _entry(one)
    of = scale_of([entry])
    told = [
        f"The best arm was chosen by {found.results.metric}; the test split chose nothing. Its"
        " number is reported here once, of that arm alone. To choose by it after all would make it"
        " a second validation split."
    ]
    if found.family.split == "test":
        told.append("The comparisons above are on its rows too: they test arms, and chose none.")
    rows = [[TableCell(found.best), plain(one.n), *cells_of(entry, of), plain(one.sd)]]
    return ReportSection(told, [ReportTable(["arm", "seeds", name, "bounds", "spread"], rows)])


def trials_section(found: SweepAnalysis) -> ReportSection:
    """Returns the table of all trials; one that failed has its reason."""
    results = found.results
    heads = [
        "trial", *results.options, *results.seeds, "part", "status", results.metric or "number",
        "steps", "seconds", "parameters", "tokens", "FLOPs", "peak memory", "attempts", "reason",
    ]  # fmt: skip
    rows = []
    for trial in results.trials:
        values = [trial.options.get(n) for n in results.options]
        values += [trial.seeds.get(n) for n in results.seeds]
        peak = trial.peak_bytes
        memory = TableCell(NOWHERE if peak is None else facts.bytes_text(peak), peak)
        rows.append([
            TableCell(f"{trial.number} · {trial.id[:8]}", trial.number), *map(_option, values),
            TableCell("confirms" if trial.confirms else NOWHERE), TableCell(trial.status),
            plain(trial.value if trial.measured else None),
            plain(trial.steps), _cost_cell(trial.seconds), plain(trial.parameters),
            _cost_cell(trial.tokens), _cost_cell(trial.flops), memory,
            plain(trial.attempts or None), TableCell(trial.reason or NOWHERE),
        ])  # fmt: skip
    kept = [
        i for i, head in enumerate(heads)
        if head in ("trial", "status") or any(row[i].text not in (NOWHERE, ABSENT) for row in rows)
    ]  # fmt: skip
    told = ["The same with all numbers of validation stands in trials.csv."]
    rows = [[row[i] for i in kept] for row in rows]
    return ReportSection(told, [ReportTable([heads[i] for i in kept], rows, raw_heads=True)])


def _option(value: Any) -> TableCell:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return TableCell(text_of(value), float(value) if numeric else None)


def method_section(found: SweepAnalysis) -> ReportSection:
    """Returns how the numbers above came about."""
    return ReportSection([
        "Bounds of an arm are 95 % bounds from a bootstrap over its seeds, widened for few of them;"
        " with fewer than five seeds they are little more than the range.",
        "A comparison is Student's t. Its variance has the part of the rows that more seeds would"
        " not lessen, from a bootstrap over rows that all runs share, and the variance between the"
        " runs of each arm. Where runs left no statistics of their rows it is a t of the"
        " differences of shared seeds. With one seed an arm there is no verdict: it tells two runs"
        " apart, not two settings.",
        "A verdict needs a p below 0.05 after Holm's correction for all comparisons above. How many"
        " seeds are needed is computed for the smallest difference that the study says matters,"
        " else for the one seen.",
        "Up to six arms are compared with each other, or all with the baseline of the study; more"
        " arms are a search, where each is compared with the best on the rows of validation alone.",
    ])  # fmt: skip
