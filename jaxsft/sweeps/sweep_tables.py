"""The tables of a sweep as files: `trials.csv`, `trials.parquet`, and `study.tex` for a paper."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.errors import ConfigError
from jaxsft.extras import need
from jaxsft.rundir import atomic_file, atomic_lines
from jaxsft.sweeps.seed_groups import SeedSummary
from jaxsft.sweeps.sweep_findings import SweepAnalysis

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names of all columns, in the order in which they come up."""
    return list(dict.fromkeys(name for row in rows for name in row))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes rows as CSV, an empty cell where a row has no value, and returns the path."""
    with atomic_lines(path) as file:
        writer = csv.DictWriter(file, columns(rows), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path | None:
    """Writes rows as Parquet and returns the path; None where pandas or pyarrow is missing."""
    try:
        pandas = need("pandas", "trials.parquet", "frames")
        need("pyarrow", "trials.parquet", "parquet")
    except ConfigError:
        path.unlink(missing_ok=True)  # one of an earlier time would not be of these trials
        return None
    frame = pandas.DataFrame(list(rows), columns=columns(rows))
    for name in frame.columns:  # an option may be a number in one trial and text in another
        kinds = {type(value) for value in frame[name] if value is not None and value == value}
        if len(kinds - {int, float}) > (0 if kinds & {int, float} else 1):
            frame[name] = frame[name].map(lambda value: None if value is None else str(value))
    with atomic_file(path) as file:
        frame.to_parquet(file, index=False)
    return path


# --- LaTeX
# --------------------------------------------------------------------------------------------------
def escaped(text: str) -> str:
    """Returns text as LaTeX sets it, with nothing in it that LaTeX would read as a command."""
    return "".join(_TEX.get(letter, letter) for letter in text)


def bold(found: SweepAnalysis) -> set[str]:
    """Returns the arms that are set in bold: where a study has a baseline, those that are better
    than it; else the one that is better than each that it was compared with. By p of Holm.
    """
    names = [group.label for group in found.groups]
    if not found.baseline:
        return {name for name in names if found.family.wins(name)}
    return {name for name in names if name != found.baseline and found.family.wins(name)}


def latex(found: SweepAnalysis) -> str:
    """Returns a table of the arms for a paper (booktabs), each number with half its bounds."""
    results, strong = found.results, bold(found)
    names = list(results.options) if not results.study else ["arm"]
    splits = [results.metric.partition("/")[0] or "validation"]
    if found.of_test and len(found.of_test) == len(found.summaries):
        splits.append("test")
    # that of the rows that were compared is what Holm speaks of
    where = found.family.split if found.family.split in splits else splits[0]
    of_splits = [f"{results.metric.partition('/')[2]}, {split}" for split in splits]
    heads = [*map(escaped, names), "seeds", *map(escaped, of_splits)]
    columns_of = {s: found.of_test if s == "test" else found.summaries for s in splits}
    digits = {split: _digits([*column.values()]) for split, column in columns_of.items()}
    lines = []
    for group in found.groups:
        if group.label not in found.summaries:
            continue
        options = [group.label] if results.study else [str(group.options[n]) for n in names]
        cells = [*map(escaped, options), str(len(group.trials))]
        for split, column in columns_of.items():
            is_strong = group.label in strong and split == where
            cells.append(_tex_number(column[group.label], digits[split], is_strong))
        lines.append(" & ".join(cells) + r" \\")
    if not lines:
        return "% No trial has a number yet.\n"
    count = len(found.family.pairs)
    told = (
        "% mean and half the bounds (0.95) over the seeds; bold: better by the p of Holm for"
        f" {count} comparison{'' if count == 1 else 's'} on {where}\n"
        "% needs \\usepackage{booktabs}\n"
    )
    body = "\n".join(lines)
    return (
        f"{told}\\begin{{tabular}}{{{'l' * len(names)}r{'r' * len(splits)}}}\n\\toprule\n"
        f"{' & '.join(heads)} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def _digits(of: Sequence[SeedSummary]) -> int:
    """Returns after how many digits the numbers of a column end: two of their typical bounds."""
    halves = sorted(
        (one.high - one.low) / 2
        for one in of
        if one.low is not None and one.high is not None and one.high > one.low
    )
    if not halves:
        return 4
    return min(max(1 - math.floor(math.log10(halves[len(halves) // 2])), 0), 6)


def _tex_number(of: SeedSummary, digits: int, strong: bool) -> str:
    spread = ""
    if of.low is not None and of.high is not None:
        spread = rf" \pm {(of.high - of.low) / 2:.{digits}f}"
    number = f"{of.mean:.{digits}f}"
    return f"$\\mathbf{{{number}}}{spread}$" if strong else f"${number}{spread}$"
