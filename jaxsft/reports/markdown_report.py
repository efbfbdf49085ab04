"""The report of a run as Markdown, `report.md`.

Results, what was trained, what became of the data, figures, samples, configuration and environment.

Everything is read from the files of the run directory, so a report can be written again at any
time, on any machine. A file that is missing or damaged costs its own section, which says so.
Numbers that are not finite are shown as they are.
"""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jaxsft.errors import JaxsftError
from jaxsft.reports import facts, ledger_facts, samples, scores
from jaxsft.reports.beside_sections import (
    against_section,
    explanations_section,
    robustness_section,
)
from jaxsft.reports.bounds_section import bounds_section
from jaxsft.reports.confusion import confusions, read_confusion
from jaxsft.reports.folds_sections import folds_section, gaps_section
from jaxsft.reports.report_tables import ReportSection, bound_texts
from jaxsft.reports.score_charts import scores_section
from jaxsft.reports.slices_section import slices_section
from jaxsft.reports.worst_errors import errors_section
from jaxsft.rundir import write_text

CELL_WIDTH = 120
CAPTIONS = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    "ledger": "What became of rows and tokens",
}


def write_report(run_dir: str | Path) -> Path:
    """Writes `report.md` into a run directory, with figures of its `figures/`; returns its path.

    Raises:
        JaxsftError: `run_dir` is not the directory of a run, or the report cannot be written.
    """
    run_dir = Path(run_dir)
    facts.check(run_dir)
    of = lambda section: lambda run_dir: section_text(section(run_dir))
    sections = (
        ("Results", _results), ("Bounds", of(bounds_section)), ("Slices", of(slices_section)),
        ("Folds", of(folds_section)), ("Gaps", of(gaps_section)),
        ("Training", _training), ("Data ledger", _ledger), ("Figures", _figures),
        ("Score curves", of(scores_section)), ("Robustness", of(robustness_section)),
        ("Explanations", of(explanations_section)), ("Other runs", of(against_section)),
        ("Worst errors", of(errors_section)),
        ("Sample predictions", _samples), ("Configuration", _configuration),
        ("Environment", _environment),
    )  # fmt: skip
    parts = [_title(run_dir)]
    parts += written_sections(run_dir, sections)
    return write_text(run_dir / "report.md", "\n\n".join(parts) + "\n")


def written_sections(
    run_dir: Path, sections: Sequence[tuple[str, Callable[[Path], str]]]
) -> list[str]:
    """Returns each section under its heading.

    A file that is missing or damaged costs its own section, which says so.
    """
    out = []
    for heading, section in sections:
        try:
            body = section(run_dir)
        except facts.MissingFile as missing:
            body = f"*{escape(str(missing))}*"
        except facts.DAMAGE as error:
            body = (
                f"*This section could not be written: {escape(f'{type(error).__name__}: {error}')}*"
            )
        if body:
            out.append(f"## {heading}\n\n{body}")
    return out


def section_text(section: ReportSection | None) -> str:
    """Returns a section of tables as Markdown, "" of none; bounds are numbers here."""
    if section is None:
        return ""
    parts = [f"**{escape(line)}**" for line in section.notices]
    parts += [escape(line) for line in section.told]
    for one in section.tables:
        parts += [f"### {escape(one.title)}"] if one.title else []
        cell = lambda c: escape(facts.shorten(c.text, CELL_WIDTH)).strip()
        heads = [escape(head.replace("_", " ")) for head in one.heads]
        parts.append(table(heads, [[cell(c) for c in row] for row in one.rows], numbers=False))
        parts += [escape(one.note)] if one.note else []
    return "\n\n".join(parts)


def samples_table(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], width: int = CELL_WIDTH
) -> str:
    """Returns a Markdown table of rows.

    Cells are escaped, line breaks shown as ⏎, and shortened in the middle to `width`
    characters.
    """
    lines = [[_cell(row.get(column), width) for column in columns] for row in rows]
    return table([escape(column.replace("_", " ")) for column in columns], lines, numbers=False)


def escape(text: str) -> str:
    """Escapes text for Markdown, inside a table cell too.

    No markup, no HTML, no line break, no control character is left.
    """
    text = text.replace("\r\n", "\n").replace("\n", "⏎").replace("\r", "⏎").replace("\t", "⇥")
    text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    text = re.sub(
        r"[\\|*`\[\]~$#]|(?<![^\W_])_|_(?![^\W_])", lambda found: "\\" + found.group(), text
    )
    return html.escape(text, quote=False)


def _title(run_dir: Path) -> str:
    heading = escape(facts.title(run_dir))
    note = (
        ""
        if facts.finished(run_dir)
        else "\n\n**This run is unfinished: it has no `result.json` yet.**"
    )
    note += f"\n\n**{escape(changed)}**" if (changed := facts.changed(run_dir)) else ""
    return (
        f"# {heading}\n\nRun {code(run_dir.resolve().name)}, last written"
        f" {facts.last_written(run_dir):%Y-%m-%d %H:%M %Z}.{note}"
    )


def _results(run_dir: Path) -> str:
    found = facts.results(run_dir)
    if not found.metrics:
        return "*`result.json` holds no numbers.*"
    first = scores.of_run(run_dir)
    splits, metrics, left_out = scores.table(found.values, first)
    bounds = bound_texts(run_dir)
    value = lambda split, metric: value_text(found, bounds, split, metric)
    lines = [
        [
            code(metric) + (" (chose the checkpoint)" if metric == first else ""),
            *(value(s, metric) for s in splits),
        ]
        for metric in metrics
    ]
    broken = found.broken
    note = (
        f"\n\n**{broken} of {len(found.values)} numbers {'is' if broken == 1 else 'are'} not"
        " finite.**"
        if broken
        else ""
    )
    if left_out:
        note = (
            "\n\nEqual to accuracy, since each row has one label:"
            f" {', '.join(map(code, left_out))}." + note
        )
    parts = [table(["metric", *(escape(split) or "run" for split in splits)], lines) + note]
    for split, name, heads, rows in facts.tables(run_dir):
        cells = [
            [escape(facts.shorten(str(first), CELL_WIDTH)), *map(facts.value_text, rest)]
            for first, *rest in rows
        ]
        parts.append(
            f"### {escape(name)} of {escape(split)}\n\n"
            + table([escape(head.replace("_", " ")) for head in heads], cells)
        )
    return "\n\n".join(parts)


def value_text(
    found: facts.Results, bounds: Mapping[tuple[str, str], str], split: str, metric: str
) -> str:
    """Returns a number of a run with its bounds, "" where it has none."""
    if (split, metric) not in found.values:
        return ""
    text = facts.number_text(found.values[split, metric])
    return " ".join(filter(None, [text, escape(bounds.get((split, metric), ""))]))


def _training(run_dir: Path) -> str:
    lines, broken = facts.training(run_dir)
    note = (
        f"\n\n**The training loss was not finite at {len(broken)} logged steps, first at step"
        f" {broken[0]:,}.**"
        if broken
        else ""
    )
    return table(["", "value"], [[escape(name), value] for name, value in lines]) + note


def _ledger(run_dir: Path) -> str:
    splits, lines, problems = ledger_facts.accounts(run_dir)
    if not splits:
        return "*`ledger.json` lists no split.*"
    counted = table(
        ["", *map(escape, splits)],
        [
            [escape(label), *(counts.get(split, "") for split in splits)]
            for label, counts in lines.items()
        ],
    )
    verdict = (
        "".join(f"\n\n**Does not add up: {escape(problem)}.**" for problem in problems)
        or "\n\nEvery row and token is accounted for."
    )
    return counted + verdict


def _figures(run_dir: Path) -> str:
    order = {stem: i for i, stem in enumerate(CAPTIONS)}
    drawn = sorted(
        (run_dir / "figures").glob("*.png"),
        key=lambda path: (order.get(path.stem, len(order)), path.stem),
    )
    if not drawn:
        raise facts.MissingFile(
            "No figures were drawn for this run; `jaxsft report` on its directory draws them."
        )
    images = [f"![{escape(_caption(path.stem))}](figures/{quote(path.name)})" for path in drawn]
    return "\n\n".join(
        images
        + [_confusions(path) for path in sorted((run_dir / "figures").glob("confusion_*.json"))]
    )


def _confusions(path: Path) -> str:
    """Returns the most frequent confusions as text.

    A figure may have to show a class by its number alone.
    """
    labels, matrix = read_confusion(path)
    top = [
        (f"{labels.index(a)} {a}", f"{labels.index(b)} {b}", count)
        for a, b, count in confusions(labels, matrix)[: facts.SAMPLES]
    ]
    split = escape(path.stem.removeprefix("confusion_"))
    if not top:
        return f"No class was taken for another on {split}."
    lines = [
        [_cell(true, CELL_WIDTH), _cell(guess, CELL_WIDTH), facts.number_text(count)]
        for true, guess, count in top
    ]
    return table(
        [f"most frequent confusions on {split}: true", "predicted", "examples"],
        lines,
        numbers=False,
    )


def _caption(stem: str) -> str:
    kind, _, rest = stem.partition("_")
    return CAPTIONS.get(stem) or {
        "confusion": f"Confusions on {rest}",
        "curves": f"Curves of scores on {rest}",
        "validation": f"Validation: {rest}",
    }.get(kind, stem)


def _samples(run_dir: Path) -> str:
    return "\n\n".join(_split_samples(split, rows) for split, rows in facts.predictions(run_dir))


def _split_samples(split: str, rows: list[dict]) -> str:
    if not rows:
        return f"### {escape(split)}\n\n*No rows.*"
    wrong, chosen = samples.wrong_first(rows)
    correct, judged = facts.judged(rows)
    share = f" {correct:,} of {judged:,} predictions are correct." if judged else ""
    parts = (
        [
            (
                f"{len(wrong)} of {judged - correct:,} wrong ones, drawn at random with a fixed"
                f" seed.{share}"
            ),
            _samples_table(wrong),
        ]
        if wrong
        else []
    )
    parts += [
        (
            f"{len(chosen)} of {len(rows):,} rows, drawn at random with a fixed"
            f" seed.{'' if wrong else share}"
        ),
        _samples_table(chosen),
    ]
    return "\n\n".join([f"### {escape(split)}", *parts])


def _samples_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [samples.readable(row) for row in rows]
    return samples_table(lines, list(dict.fromkeys(key for line in lines for key in line)))


def _configuration(run_dir: Path) -> str:
    if not (run_dir / "config.yaml").exists():
        raise facts.MissingFile("config.yaml is missing from this run.")
    text = (run_dir / "config.yaml").read_text("utf-8")
    command = facts.command(run_dir)
    pasted = (
        f"The command, to be pasted into a shell:\n\n    {escaped_line(command)}\n\n"
        if command
        else ""
    )
    fence = "`" * max(3, 1 + max((len(found) for found in re.findall("`+", text)), default=0))
    full = (
        "<details><summary>The whole"
        f" configuration</summary>\n\n{fence}yaml\n{text.rstrip()}\n{fence}\n\n</details>"
    )
    try:
        changed = facts.difference(run_dir)
    except JaxsftError as error:
        return f"{pasted}*{escape(str(error))}*\n\n{full}"
    if not changed:
        return f"{pasted}All options have their default values.\n\n{full}"
    lines = [
        [code(key), *(code(facts.shorten(str(value), CELL_WIDTH)) for value in pair)]
        for key, *pair in changed
    ]
    heads = ["option that is not at its default", "value", "default"]
    return f"{pasted}{table(heads, lines, numbers=False)}\n\n{full}"


def escaped_line(text: str) -> str:
    """Returns text for a block of code that is one line."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _environment(run_dir: Path) -> str:
    manifest = {
        key: value
        for key, value in facts.read(run_dir, "manifest.json").items()
        if key != "parameters"
    }
    return table(
        ["", "value"],
        [[escape(key), _cell(value, CELL_WIDTH)] for key, value in facts.flat(manifest).items()],
        numbers=False,
    )


def table(heads: Sequence[str], lines: Iterable[Sequence[str]], numbers: bool = True) -> str:
    """Returns a Markdown table of finished cells.

    With `numbers`, all columns but the first are aligned to the right.
    """
    rule = ["---"] + ["---:" if numbers else "---"] * (len(heads) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *lines))


def _cell(value: Any, width: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, int | float):
        return facts.number_text(value)
    if isinstance(value, list | dict):
        value = facts.value_text(value)
    return escape(facts.shorten(str(value), width)).strip() or "*(empty)*"


def code(text: str) -> str:
    """Returns a code span that may stand in a table cell."""
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in text) or " "
    ticks = "`" * (1 + max((len(found) for found in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{ticks}{space}{text.replace('|', chr(92) + '|').replace(chr(10), '⏎')}{space}{ticks}"
