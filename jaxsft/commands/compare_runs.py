"""Says whether runs differ on the rows that all were evaluated on, and by how much.

  jaxsft compare runs/a runs/b [runs/c ...] [split=test] [metrics=accuracy,f1_macro]
  jaxsft compare runs/a1,runs/a2,runs/a3 runs/b1,runs/b2,runs/b3
  jaxsft compare a.jsonl b.jsonl [columns=correct,score] [--json] [output=FOLDER]

Runs joined by commas are one arm, a seed each. The first arm is what the others are held against:
a difference is the later one less the earlier one, with bounds, a test on the same rows, p for the
whole family of pairs (Holm) and over the numbers of a pair (Benjamini and Hochberg), and the
smallest difference that these rows would show. level=0.95, replicates=1000 and seed=0 are the
bootstrap's. --json prints the result as JSON; output=FOLDER writes compare.json and compare.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.errors import ConfigError

OWN = ("split", "metrics", "columns", "level", "replicates", "seed", "output")
HEADS = ("number", "pair", "from", "to", "difference", "bounds", "p", "Holm", "BH", "test", "least")


def main(arguments: list[str]) -> int:
    places, options, as_json = parsed(arguments)

    from jaxsft.evaluation import compare, compared_runs

    groups = [[part for part in place.split(",") if part] for place in places]
    flat = [place for group in groups for place in group]
    if len(groups) < 2 or not all(groups):
        raise ConfigError(
            "give two runs or files of predictions at least: jaxsft compare RUN_A RUN_B [...]"
        )
    if len(set(flat)) < len(flat):
        twice = next(place for place in flat if flat.count(place) > 1)
        raise ConfigError(f"{twice}: is given twice; a run is not compared with itself")
    settings = compare.Settings(
        level=numeric(options, "level", 0.95, float),
        replicates=numeric(options, "replicates", 1000, int),
        seed=numeric(options, "seed", 0, int),
        numbers=listed(options.get("metrics")),
    )
    runs = iter(
        compared_runs.read(flat, options.get("split", "test"), listed(options.get("columns")))
    )
    names = short_names(groups)
    arms = [
        compare.Arm(name, tuple(next(runs) for _ in group))
        for name, group in zip(names, groups, strict=True)
    ]
    result = compare.compare(arms, settings)
    if folder := options.get("output"):
        rundir.write_json(Path(folder) / "compare.json", result.as_json())
        rundir.write_text(Path(folder) / "compare.md", markdown(result))
    if as_json:
        print(rundir.json_text(result.as_json(), indent=1))
    else:
        show(result)
    return 0


def parsed(arguments: list[str]) -> tuple[list[str], dict[str, str], bool]:
    """Returns (places, options, whether JSON is wanted). Raises ConfigError for an unknown one."""
    places, options = [], {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument == "--json":
            continue
        if argument.startswith("-"):
            raise ConfigError(f"{argument}: unknown; there is --json")
        if equals and key in OWN:
            if key in options or not value:
                raise ConfigError(f"{key}=: give it once, with a value")
            options[key] = value
        elif equals and key.isidentifier() and not Path(argument.split(",")[0]).exists():
            raise ConfigError(f"{key}=: unknown; there are {', '.join(f'{k}=' for k in OWN)}")
        else:
            places.append(argument)
    return places, options, "--json" in arguments


def numeric(options: dict[str, str], name: str, default: Any, kind: type) -> Any:
    """Returns an option as a number. Raises ConfigError where it is none, or negative."""
    try:
        value = kind(options[name]) if name in options else default
    except ValueError:
        value = None
    if value is None or not 0 <= value < 2**63:
        raise ConfigError(f"{name}={options[name]}: expected a number that is not negative")
    return value


def listed(value: str | None) -> list[str]:
    """Returns what a value with commas lists, with or without brackets around it."""
    return [part.strip() for part in (value or "").strip("[]").split(",") if part.strip()]


def short_names(groups: list[list[str]]) -> list[str]:
    """Returns a name for each arm: the last part of its first path, or more where two are alike.

    A file of predictions has the name of its run.
    """
    first = [Path(group[0]) for group in groups]
    runs = [p.parent.parent if p.parent.name == "predictions" else p for p in first]
    for paths, parts in ((runs, 1), (runs, 2), (first, 3), (first, 99)):
        names = [
            "/".join(path.parts[-parts:]) + (f" (+{n} seeds)" if (n := len(group) - 1) else "")
            for path, group in zip(paths, groups, strict=True)
        ]
        if len(set(names)) == len(names):
            return names
    return [f"{i}: {name}" for i, name in enumerate(names, start=1)]


# --- what is shown
# --------------------------------------------------------------------------------------------------
def cells(entry: dict[str, Any]) -> list[str]:
    """Returns the cells of a comparison, under `HEADS`."""
    sign = {"better": " ▲", "worse": " ▼"}.get(entry["verdict"], "")
    bound = "–" if entry["low"] is None else f"[{entry['low']:+.4f}, {entry['high']:+.4f}]"
    p_text = lambda p: "–" if p is None else f"{p:.2g}"
    least = entry.get("minimum_detectable")
    return [
        entry["number"] + (" (less is better)" if entry["lower_is_better"] else ""),
        f"{entry['a']} → {entry['b']}",
        f"{entry['value_a']:.4f}",
        f"{entry['value_b']:.4f}",
        f"{entry['difference']:+.4f}{sign}",
        bound,
        *map(p_text, (entry["p"], entry["p_holm"], entry["p_bh"])),
        entry["test"],
        "–" if least is None else f"{least:.4f}",
    ]


def footer(result: Any) -> Iterable[str]:
    """Returns the lines below the table: the arms that are not told apart, and notes."""
    of = result.facts
    rows = f"{of['rows']:,} rows" + (
        f" in {of['clusters']:,} clusters" if of["clusters"] is not None else ""
    )
    yield (
        f"{rows}; bounds of {of['level']:.0%} from {of['replicates']:,} replicates (seed"
        f" {of['seed']}); ▲ better, ▼ worse by the p of the family (Holm); least: the smallest"
        " difference that these rows show with power 0.8"
    )
    alike: dict[str, list[str]] = {}
    for number, sets in result.tied.items():
        if text := "; ".join(" = ".join(sorted(one)) for one in sets if len(one) > 1):
            alike.setdefault(text, []).append(number)
    for text, numbers in alike.items():
        yield f"not told apart: {text} ({', '.join(numbers)})"
    yield from result.notes


def show(result: Any) -> None:
    """Prints the comparison as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*HEADS)
    for entry in result.pairs:
        table.add_row(*cells(entry))
    # into a file or a pipe nothing is cut
    console = Console(width=None if sys.stdout.isatty() else 220, highlight=False)
    console.print(table)
    for line in footer(result):
        console.print(line, markup=False, soft_wrap=True)


def markdown(result: Any) -> str:
    """Returns the comparison as a page of Markdown."""
    escaped = lambda text: text.replace("|", "\\|")
    lines = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    lines += [f"| {' | '.join(map(escaped, cells(entry)))} |" for entry in result.pairs]
    return "\n".join(["# Comparison", "", *lines, "", *footer(result), ""])
