"""The report of a run as one page, `report.html`, without any network.

The page is `templates/page.html.jinja` with `page.css` inside it; everything that a run holds goes
through Jinja's escaping. It works without a script: the few lines of `page.js` only open the
examples of a cell of a confusion matrix when the cell is clicked, sort tables, and draw the loss on
the other scale.
"""

import base64
import hashlib
import re
import shlex
import unicodedata
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from jaxsft.config import metric_names
from jaxsft.reports import charts, facts, ledger_facts, report_tables, samples, scores
from jaxsft.reports.beside_sections import (
    against_section,
    explanations_section,
    robustness_section,
)
from jaxsft.reports.bounds_section import bounds_section
from jaxsft.reports.confusion import behind, most_confused, per_class, read_confusion, shares
from jaxsft.reports.folds_sections import folds_section, gaps_section
from jaxsft.reports.score_charts import scores_section
from jaxsft.reports.slices_section import slices_section
from jaxsft.reports.worst_errors import errors_section
from jaxsft.rundir import number, write_text

EXAMPLES = 5  # behind one cell
# classes; a larger matrix is drawn as a map, with a list of its most frequent confusions; a dense
# one has small cells
LARGE, DENSE = 24, 12
LISTED = 30  # cells of a large matrix whose examples are in the page
DRAWN = 4000  # coloured cells of a map
TEXT_WIDTH = 600  # characters of a text
SCRIPTS = (
    ("ja", "\u3040-\u30ff"),
    ("ko", "\uac00-\ud7af\u1100-\u11ff"),
    ("zh", "\u4e00-\u9fff\u3400-\u4dbf"),
    ("ar", "\u0600-\u06ff"),
    ("he", "\u0590-\u05ff"),
)
FILES = {
    "config.yaml": "every option as it ran",
    "manifest.json": "versions, devices, command, hashes",
    "task.json": "labels, template, stop tokens",
    "label_names.json": "the names of the classes by their ids",
    "tokenizer": "the tokenizer, in the format of Hugging Face",
    "ledger.json": "what became of every row and token",
    "quarantine.jsonl": "rows that were put aside, each with its reason",
    "times.jsonl": "when, where and how long it was trained, and its memory",
    "metrics.jsonl": "a line per log interval and evaluation",
    "result.json": "the final numbers; written last",
    "predictions": "one line per input row",
    "evaluations": "results of jaxsft eval",
    "robustness": "results of jaxsft robustness",
    "explanations": "results of jaxsft explain",
    "compare.json": "a comparison with other runs",
    "checkpoints": "weights, optimizer, best metric",
    "steps.json": "which step is the newest, and which the best",
    "intervals.json": "the numbers with their bounds",
    "figures": "pictures, and the tables, slices, curves and confusion matrices as JSON",
    "report.md": "this report as Markdown",
    "report.html": "this page",
    "README.md": "the model card",
    "tensorboard": "the numbers of metrics.jsonl",
    "run.lock": "held while a process works here",
}


def write_page(run_dir: str | Path) -> Path:
    """Writes `report.html` into a run directory and returns its path.

    Raises:
        JaxsftError: `run_dir` is not the directory of a run, or the page cannot be written.
    """
    run_dir = Path(run_dir)
    facts.check(run_dir)
    return write_text(run_dir / "report.html", render(run_dir))


def render(run_dir: Path) -> str:
    """Returns the page as text.

    A file that is missing or damaged costs its own section, which says so.
    """
    environment = templates()
    sections = (
        ("results", "Results", _results), ("bounds", "Bounds", bounds_section),
        ("slices", "Slices", slices_section), ("crossval", "Folds", folds_section),
        ("gaps", "Gaps", gaps_section), ("curves", "Curves", _curves),
        ("scores", "Score curves", scores_section),
        ("confusions", "Confusions", _confusions), ("errors", "Worst errors", errors_section),
        ("robustness", "Robustness", robustness_section),
        ("explanations", "Explanations", explanations_section),
        ("against", "Other runs", against_section),
        ("samples", "Samples", _samples), ("data", "Data", _data),
        ("configuration", "Configuration", _configuration),
        ("environment", "Environment", _environment), ("files", "Files", _files),
    )  # fmt: skip
    script, changed = environment.get_template("page.js").render(), facts.changed(run_dir)

    def page(sections: list[tuple]) -> str:
        return environment.get_template("page.html.jinja").render(
            title=facts.title(run_dir),
            run=run_dir.resolve().name,
            written=f"{facts.last_written(run_dir):%Y-%m-%d %H:%M %Z}",
            finished=facts.finished(run_dir),
            changed=changed,
            step=_step(run_dir),
            sections=sections,
            script=Markup(script),  # ours, and nothing in it comes from the run
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )

    def sound(section: tuple) -> tuple:
        try:  # a value that cannot be shown is found when it is written
            page([section])
            return section
        except facts.DAMAGE as error:
            return (*section[:2], {}, _why(error))

    found = [(name, heading, *_section(section, run_dir)) for name, heading, section in sections]
    return page([sound(section) for section in found if section[2] is not None])


@cache  # they take longer to compile than a page to write
def templates() -> jinja2.Environment:
    """Returns the templates of the pages; what they are given is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxsft.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "num": facts.number_text,
        "text": facts.value_text,
        "shown": shown,
        "lang": language,
        "cut": cut,
        "breakable": breakable,
    }
    return environment


def _section(section: Any, run_dir: Path) -> tuple[Any, str]:
    """Returns the content of a section (None: the run has none) and why it failed, if so."""
    try:
        return section(run_dir), ""
    except facts.MissingFile as missing:
        return {}, str(missing)
    except facts.DAMAGE as error:
        return {}, _why(error)


def _why(error: Exception) -> str:
    return f"This section could not be written: {type(error).__name__}: {error}"


def _step(run_dir: Path) -> int:
    try:
        return facts.last_step(facts.read_or(run_dir, "metrics.jsonl", []))
    except facts.DAMAGE:
        return 0


# --- text
# --------------------------------------------------------------------------------------------------
def shown(text: Any) -> str:
    """Returns text with its control characters made visible.

    Characters that reorder those around them count as such.
    """
    bad = lambda c: (
        (unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t")
        or c in "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
    )
    return "".join(f"\\u{ord(c):04x}" if bad(c) else c for c in str(text).replace("\r\n", "\n"))


def cut(text: str) -> str:
    """Returns a text of at most TEXT_WIDTH characters; a longer one loses its middle."""
    return facts.shorten(text, TEXT_WIDTH)


def breakable(text: str) -> Markup:
    """Returns escaped text that may be broken after an underscore.

    Labels often have no other place for it.
    """
    return Markup(str(escape(text)).replace("_", "_<wbr>"))


def language(text: Any) -> str:
    """Returns the language by which a browser chooses a font for a text's script; else "".

    Han without kana is drawn as Chinese.
    """
    return next((name for name, letters in SCRIPTS if re.search(f"[{letters}]", str(text))), "")


# --- sections
# --------------------------------------------------------------------------------------------------
def _tiles(
    numbers: Mapping[str, Any], split: str, first: str, bounds: Mapping[tuple[str, str], Any]
) -> list[tuple[str, Any, Any, bool]]:
    """Returns the headline numbers of a split: (name, value, bounds, whether it chose), four of
    them at most and none twice under two names.
    """
    shown = {
        metric: numbers[metric]
        for metric in metric_names.ordered(list(numbers), first)
        if metric in (first, *metric_names.ORDER)
    }
    twice = metric_names.repeated(
        {(split, metric): value for metric, value in shown.items()}, list(shown)
    )
    return [
        (metric.replace("_", " "), value, bounds.get((split, metric)), metric == first)
        for metric, value in shown.items()
        if metric not in twice
    ][:4]


def _results(run_dir: Path) -> dict[str, Any]:
    """Returns headline numbers, the table of all numbers, and what was trained.

    An unfinished run has the newest validation instead.
    """
    rows = facts.read_or(run_dir, "metrics.jsonl", [])
    checks = [row for row in rows if row.get("kind") == "validation"]
    lines, broken = facts.training(run_dir) if rows else ([], [])
    first = scores.of_run(run_dir)
    out = {
        "training": lines,
        "broken_steps": broken,
        "tiles": [],
        "table": None,
        "tables": [],
        "broken": 0,
        "split": "",
        "checked_at": None,
    }
    out |= {"chosen": first, "left_out": [], "bounds": report_tables.bound_texts(run_dir)}
    if facts.finished(run_dir):
        found = facts.results(run_dir)
        splits, metrics, left_out = scores.table(found.values, first)
        of_run = {
            m: v
            for (s, m), v in found.values.items()
            if s in ("", "train") and m not in (*metrics, *left_out)
        }
        told = {name for name, _ in lines}
        out["training"] = lines + [
            (m.replace("_", " "), number_or_text(v)) for m, v in of_run.items() if m not in told
        ]
        out["tables"] = [
            {"split": s, "name": name, "columns": heads, "rows": rows}
            for s, name, heads, rows in facts.tables(run_dir)
        ]
        out |= {
            "table": {"splits": splits, "metrics": metrics, "values": found.values},
            "broken": found.broken,
            "count": len(found.values),
        }
        out |= {"left_out": left_out}
        split = next(iter(splits), "")
        numbers = {metric: value for (name, metric), value in found.values.items() if name == split}
    elif checks:
        split, numbers = "validation", checks[-1]
        out["checked_at"] = checks[-1].get("step")
    else:
        return out
    out["split"] = split
    out["tiles"] = _tiles(numbers, split, first, out["bounds"])
    return out


def _curves(run_dir: Path) -> dict[str, Any]:
    rows = facts.read(run_dir, "metrics.jsonl")
    return {"charts": charts.charts(rows, scores.of_run(run_dir))}


def _confusions(run_dir: Path) -> dict[str, Any] | None:
    paths = {
        path.stem.removeprefix("confusion_"): path
        for path in sorted((run_dir / "figures").glob("confusion_*.json"))
    }
    if not paths:
        return None
    return {
        "splits": [
            _confusion(run_dir, split, *read_confusion(paths[split]))
            for split in facts.by_split(list(paths))
        ]
    }


def _confusion(run_dir: Path, split: str, labels: list[str], matrix: Any) -> dict[str, Any]:
    """Returns the cells of one matrix with their shade, and the examples behind listed ones."""
    large = len(labels) > LARGE
    wrong = most_confused(matrix)
    listed = (
        wrong[:LISTED] if large else wrong + [(i, i) for i in range(len(labels)) if matrix[i, i]]
    )
    cells = behind(
        labels,
        matrix,
        samples.by_class(facts.read_or(run_dir, f"predictions/{split}.jsonl", [])),
        listed,
        EXAMPLES,
    )
    by_class = shares(matrix)
    where = (
        [(i, j) for i in range(len(labels)) for j in range(len(labels)) if matrix[i, j]]
        if large
        else []
    )
    where = sorted(where, key=lambda place: -matrix[place])[:DRAWN]
    return {
        "split": split, "labels": labels, "large": large,
        "dense": not large and len(labels) > DENSE,
        "examples": int(matrix.sum()), "right": int(matrix.trace()), "most": EXAMPLES,
        "rows": [] if large else [[(int(matrix[i, j]), _shade(by_class[i,
        j])) for j in range(len(labels))] for i in range(len(labels))],
        "map": [(i, j, int(matrix[i, j]), _shade(by_class[i, j])) for i, j in where],
        "cells": cells, "confused": len(wrong), "listed": min(len(wrong), len(listed)),
        "wrong": int(sum(matrix[place] for place in wrong)),
        "highest": max((int(matrix[place]) for place in wrong), default=0),
        "reachable": set(listed), "classes": per_class(labels, matrix),
    }  # fmt: skip


def _shade(share: float) -> float:
    """Returns the square root of a share, 0 for NaN.

    A confusion of 2 % has to be visible beside a diagonal of 95 %.
    """
    return round(float(share) ** 0.5, 3) if share > 0 else 0.0


def _samples(run_dir: Path) -> dict[str, Any]:
    """Returns some wrong predictions of each split and some of all, drawn at random."""
    splits = []
    for split, rows in facts.predictions(run_dir):
        kept = [row for row in rows if "dropped" not in row]
        # answers may have been generated for the first rows only
        answered = [row for row in kept if "prediction" in row] or kept
        wrong, drawn = samples.wrong_first(answered)
        right, judged = facts.judged(rows)
        splits.append({
            "split": split, "rows": len(rows), "dropped": len(rows) - len(kept),
            "answered": len(answered), "right": right, "judged": judged,
            "drawn": [samples.sample(row) for row in drawn], "wrong": judged - right,
            "wrong_drawn": [samples.sample(row) for row in wrong],
        })  # fmt: skip
    return {"splits": splits}


def _data(run_dir: Path) -> dict[str, Any]:
    splits, lines, problems = ledger_facts.accounts(run_dir)
    entries = ledger_facts.ledger(run_dir)
    panels = {title: stacks(bars) for title, bars in ledger_facts.ledger_panels(entries).items()}
    lengths = {
        split: histogram(entry["lengths"])
        for split, entry in entries.items()
        if entry.get("lengths")
    }
    return {
        "splits": splits,
        "lines": lines,
        "problems": problems,
        "panels": panels,
        "lengths": lengths,
    }


def stacks(bars: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Returns the rows of stacked bars, by split, and the colour of each part."""
    names = list(dict.fromkeys(part for parts in bars.values() for part in parts))
    kinds = {"kept": "k0", "trained": "k0", "real": "k0", "masked": "k1", "padding": "k2"}
    reasons = iter(f"d{i % 6}" for i in range(len(names)))
    classes = {name: kinds.get(name) or next(reasons) for name in names}
    rows = [
        (
            split,
            [
                (name, int(n), round(100 * n / sum(parts.values()), 3))
                for name, n in parts.items()
                if n
            ],
        )
        for split, parts in bars.items()
    ]
    return {"rows": rows, "classes": classes}


def histogram(
    entry: Mapping[str, Any], unit: str = "tokens", noun: str = "examples"
) -> dict[str, Any]:
    """Returns the bars of `ledger.length_summary`."""
    edges, counts = entry["histogram"]["edges"], entry["histogram"]["counts"]
    highest = max(counts)
    bars = [
        (low, high - 1, count, round(100 * count / highest, 2))
        for (low, high), count in zip(pairwise(edges), counts, strict=True)
    ]
    facts_of = [
        ("shortest", entry["min"]),
        *entry["quantiles"].items(),
        ("longest", entry["max"]),
        ("mean", number(entry["mean"])),
    ]
    return {
        "unit": unit,
        "noun": noun,
        "bars": bars,
        "facts": facts_of,
        "first": entry["min"],
        "last": entry["max"],
        "highest": highest,
    }


def _configuration(run_dir: Path) -> dict[str, Any]:
    if not (run_dir / "config.yaml").exists():
        raise facts.MissingFile("config.yaml is missing from this run.")
    out = {
        "command": facts.command(run_dir),
        "text": (run_dir / "config.yaml").read_text("utf-8"),
        "changed": [],
        "filled": [],
        "problem": "",
    }
    try:
        found = facts.difference(run_dir)
    except facts.DAMAGE as error:
        return out | {"problem": str(error)}
    return out | {
        "changed": [row for row in found if not facts.filled_in(row[2])],
        "filled": [row for row in found if facts.filled_in(row[2])],
    }


def _environment(run_dir: Path) -> dict[str, Any]:
    manifest = facts.read(run_dir, "manifest.json")
    if not isinstance(manifest, Mapping):
        raise ValueError(f"manifest.json: expected an object (found {type(manifest).__name__})")
    return {"lines": [(key, _plain(key, value)) for key, value in facts.flat(manifest).items()]}


def _plain(key: str, value: Any) -> str:
    if isinstance(value, list):
        return shlex.join(map(str, value)) if key == "command" else ", ".join(map(str, value))
    return "–" if value is None or value == {} else number_or_text(value)


def number_or_text(value: Any) -> str:
    """Formats a number as a report shows it, and any other value as its text."""
    return (
        facts.number_text(value)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else str(value)
    )


def _files(run_dir: Path) -> dict[str, Any]:
    """Returns name, files, bytes and meaning of everything in the run directory.

    The page itself has no size yet.
    """
    names = sorted(
        {path.name for path in run_dir.iterdir() if not path.name.startswith(".")} | {"report.html"}
    )
    return {"lines": [_file(run_dir / name) for name in names]}


def _file(path: Path) -> tuple[str, int, str, str]:
    inside = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    size = (
        ""
        if path.name == "report.html"
        else facts.bytes_text(sum(p.stat().st_size for p in inside))
    )
    return path.name + ("/" if path.is_dir() else ""), len(inside), size, FILES.get(path.name, "")
