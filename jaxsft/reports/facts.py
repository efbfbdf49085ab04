"""The facts in a run's files, from which `report.md`, `report.html` and the card are made.

Text is given as it was found; each writer escapes it in its own way.
"""

import copy
import datetime
import functools
import math
import os
import random
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jaxsft import plugins, seal
from jaxsft.config import overrides
from jaxsft.documents import YAML_BYTES, parse_yaml, read_text
from jaxsft.errors import DataError, JaxsftError
from jaxsft.reports.curves import series
from jaxsft.rundir import duration_text, number, read_json, read_jsonl

SAMPLES = 10
RUN_FILES = ("config.yaml", "manifest.json", "metrics.jsonl", "result.json")
SPLITS = ("test", "validation", "train")  # what a reader asks for first
ABSENT = "(absent)"
PEAKS = {"peak_host_bytes": "the process", "peak_device_bytes": "one device"}
# A file that an editor or a crash damaged costs its own section, whatever it makes a reader of it
# raise: the rest of a report is worth more.
DAMAGE = (Exception,)


class MissingFile(Exception):
    """The error that a file of a section is missing; the message is what the section says."""


def check(run_dir: Path) -> None:
    """Raises JaxsftError where `run_dir` is not the directory of a run."""
    if not any(os.path.isfile(run_dir / name) for name in RUN_FILES):
        raise JaxsftError(
            f"{run_dir}: not a run directory (expected one of {', '.join(RUN_FILES)} in it)"
        )


def read(run_dir: Path, name: str) -> Any:
    """Returns the content of a JSON or JSON-lines file of the run.

    Raises Missing, and JaxsftError as `rundir.read_json`.
    """
    path = run_dir / name
    if not path.exists():
        raise MissingFile(f"{name} is missing from this run.")
    return read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)


def read_or(run_dir: Path, name: str, otherwise: Any) -> Any:
    """Returns the content of a file of the run, or `otherwise` where there is none."""
    return read(run_dir, name) if (run_dir / name).exists() else otherwise


def config(run_dir: Path) -> dict:
    """Returns `config.yaml`, empty where there is none. Raises DataError where it is damaged."""
    path = run_dir / "config.yaml"
    if not path.exists():
        return {}
    text = read_text(path, DataError, YAML_BYTES)
    return copy.deepcopy(_config(text, path))


@functools.lru_cache(maxsize=8)
def _config(text: str, path: Path) -> dict:
    """Parses a `config.yaml`; a report asks for it thirty times."""
    return parse_yaml(text, path, top=dict)


def config_or_empty(run_dir: Path) -> dict:
    """Returns `config.yaml`, empty where there is none or it is damaged."""
    try:
        return config(run_dir)
    except DataError:
        return {}


def finished(run_dir: Path) -> bool:
    """Returns whether the run is complete: `result.json` is its last file."""
    return (run_dir / "result.json").is_file()


def by_split(names: Sequence[str]) -> list[str]:
    """Returns the names of splits in order: test, validation, train, then the others."""
    return sorted(
        dict.fromkeys(names), key=lambda name: SPLITS.index(name) if name in SPLITS else len(SPLITS)
    )


# --- title and results
# --------------------------------------------------------------------------------------------------
def title(run_dir: Path) -> str:
    """Returns the title of a run: its task and its data."""
    found = config_or_empty(run_dir)
    return (
        " on ".join(name for name in (_name(found.get(key)) for key in ("task", "data")) if name)
        or "Run"
    )


def changed(run_dir: Path) -> str:
    """Returns a sentence on what is wrong with the files of the weights; "" if nothing is.

    Also "" where no manifest can say it.
    """
    try:
        if (run_dir / seal.MANIFEST).exists():
            seal.check(run_dir)
    except JaxsftError as error:
        return str(error)
    return ""


def last_written(run_dir: Path) -> datetime.datetime:
    """Returns when the newest of the files that make a run was written, in local time."""
    latest = max(
        (path.lstat().st_mtime for path in run_dir.iterdir() if path.name in RUN_FILES), default=0
    )
    return datetime.datetime.fromtimestamp(latest).astimezone()


def _name(part: Any) -> str:
    """Returns the name of a part of the config: itself, or its name, kind or path."""
    if isinstance(part, Mapping):
        found = next(
            (
                part[key]
                for key in ("name", "kind", "type", "path", "train")
                if isinstance(part.get(key), str)
            ),
            "",
        )
        return Path(found).name if "/" in found else found
    return str(part or "")


@dataclass(frozen=True)
class Results:
    """The numbers of `result.json` by (split, metric).

    The split of a number of the whole run is "".
    """

    splits: list[str]
    metrics: list[str]
    values: dict[tuple[str, str], Any]

    @property
    def broken(self) -> int:
        """Returns how many numbers are not finite."""
        return sum(not math.isfinite(number(value)) for value in self.values.values())


def results(run_dir: Path) -> Results:
    """Returns the numbers of a run.

    Raises Missing where it is unfinished, and DataError for what is no number.
    """
    found = read(run_dir, "result.json")
    values = {}
    for key, value in found.items():
        split, slash, metric = key.partition("/")
        number(value)
        values[(split, metric) if slash else ("", key)] = value
    return Results(
        list(dict.fromkeys(s for s, _ in values)), list(dict.fromkeys(m for _, m in values)), values
    )


# --- training and data
# --------------------------------------------------------------------------------------------------
def training(run_dir: Path) -> tuple[list[tuple[str, str]], list[int]]:
    """Returns (name, value) of what was trained, and the steps with a non-finite training loss.

    Raises Missing.
    """
    rows = read(run_dir, "metrics.jsonl")
    steps, losses = series(rows, "train", "loss")
    _, rates = series(rows, "train", "tokens_per_second")
    lines = [
        (f"parameters{f', {kind}' if kind else ''}", number_text(count))
        for kind, count in parameters(read_or(run_dir, "manifest.json", {}))
    ]
    lines.append(("steps", number_text(last_step(rows))))
    trained = (
        (read_or(run_dir, "ledger.json", {}).get("train") or {}).get("tokens", {}).get("trained")
    )
    if trained:  # none where whole texts carry the targets
        lines.append(("trained tokens in one pass over the training data", number_text(trained)))
    if len(losses):
        lines.append(
            (
                "training loss, first → last logged",
                f"{number_text(losses[0])} → {number_text(losses[-1])}",
            )
        )
    if len(rates):
        lines.append(("tokens per second, median", number_text(round(statistics.median(rates)))))
    lines += sessions(run_dir)
    return lines, [
        int(step) for step, loss in zip(steps, losses, strict=True) if not math.isfinite(loss)
    ]


def sessions(run_dir: Path) -> list[tuple[str, str]]:
    """Returns (name, value) of a run's time, place, duration and memory; empty without records."""
    found = [row for row in read_or(run_dir, "times.jsonl", []) if isinstance(row, Mapping)]
    if not found:
        return []
    hosts = dict.fromkeys(str(row["host"]) for row in found if row.get("host"))
    peak = lambda key: max((number(row[key]) for row in found if key in row), default=0)
    sizes = [
        (f"peak memory of {what}", bytes_text(int(peak(key))))
        for key, what in PEAKS.items()
        if peak(key)
    ]
    again = f", in {len(found)} sessions" if len(found) > 1 else ""
    most = int(max(number(row.get("trials", 1)) for row in found))
    again += f", of {most} trials together" if most > 1 else ""
    return [
        ("started", str(found[0].get("started", "")).replace("T", " ").replace("+00:00", " UTC")),
        ("duration", duration_text(sum(number(row.get("seconds", 0)) for row in found)) + again),
        ("host", ", ".join(hosts)),
        *sizes,
    ]


def command(run_dir: Path) -> str:
    """Returns the command of a run as it can be pasted into a shell; "" without one."""
    found = read_or(run_dir, "manifest.json", {})
    words = found.get("command") if isinstance(found, Mapping) else None
    return shlex.join(map(str, words)) if isinstance(words, list) else ""


def bytes_text(count: int) -> str:
    """Returns a size in the largest unit of which there is at least one."""
    units: Sequence[str] = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(max(count.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{count / 1024**power:,.1f} {units[power]}" if power else f"{count} B"


def last_step(rows: Sequence[Mapping[str, Any]]) -> int:
    """Returns the last step in the lines of `metrics.jsonl`, 0 where there is none."""
    return max((int(number(row["step"])) for row in rows if "step" in row), default=0)


def parameters(manifest: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Returns (kind, count) of the parameters in a manifest; the kind of a single count is ""."""
    found = manifest.get("parameters")
    if isinstance(found, Mapping):
        return [(kind, count) for kind, count in found.items() if isinstance(count, int)]
    return [("", found)] if isinstance(found, int) else []


# --- predictions
# --------------------------------------------------------------------------------------------------
def predictions(run_dir: Path) -> Iterator[tuple[str, list[dict]]]:
    """Yields (split, lines) of each predictions file, test first.

    Raises Missing where there is none.
    """
    folder = run_dir / "predictions"
    names = by_split([path.stem for path in sorted(folder.glob("*.jsonl"))])
    if not names:
        raise MissingFile("No predictions were saved for this run.")
    for name in names:
        yield name, read_jsonl(folder / f"{name}.jsonl")


def drawn(rows: Sequence[Any], count: int = SAMPLES) -> list[Any]:
    """Returns up to `count` rows in their order, drawn at random with a fixed seed.

    Rows that come in a pattern (every eighth from one source) would give a false picture if
    they were evenly spaced.
    """
    return [
        rows[i] for i in sorted(random.Random(0).sample(range(len(rows)), min(count, len(rows))))
    ]


def judged(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Returns how many predictions are correct, and how many were judged at all."""
    marks = [row["correct"] for row in rows if isinstance(row.get("correct"), bool)]
    return sum(marks), len(marks)


def tables(run_dir: Path) -> Iterator[tuple[str, str, list[str], list[list[Any]]]]:
    """Yields (split, what a row is, column names, rows) of each table of labels or targets.

    The test split comes first. Raises DataError for what is no table.
    """
    paths = {
        tuple(path.stem.split("_", 2)[1:]): path
        for path in sorted((run_dir / "figures").glob("table_*_*.json"))
    }
    for split in by_split(list(dict.fromkeys(split for _, split in paths))):
        for (name, of), path in paths.items():
            if of == split:
                found = read_json(path)
                columns, rows = (
                    found.get(key) if isinstance(found, Mapping) else None
                    for key in ("columns", "rows")
                )
                if (
                    not isinstance(columns, list)
                    or not isinstance(rows, list)
                    or any(len(row) != len(columns) for row in rows)
                ):
                    raise DataError(f"{path}: expected columns, and rows of as many cells")
                yield split, name, columns, rows


# --- configuration
# --------------------------------------------------------------------------------------------------
def difference(run_dir: Path) -> list[tuple[str, Any, Any]]:
    """Returns (option, value, default) of every option that differs from `jaxsft train task=...`.

    ABSENT stands where there is none.

    Raises:
        Missing: there is no config.yaml.
        DataError: its task is not one of this version.
    """
    if not (run_dir / "config.yaml").exists():
        raise MissingFile("config.yaml is missing from this run.")
    here = config(run_dir)
    task = (here.get("task") or {}).get("name") if isinstance(here.get("task"), Mapping) else None
    if (
        not isinstance(task, str)
        or not (overrides.config_folder() / "task" / f"{task}.yaml").is_file()
    ):
        raise DataError(
            f"{run_dir / 'config.yaml'}: no task of this version of jaxsft (found {task!r}), so"
            " there are no defaults to compare with"
        )
    ours, usual = flat(here), flat(defaults(task))
    keys = [
        key
        for key in dict.fromkeys([*ours, *usual])
        if ours.get(key, ABSENT) != usual.get(key, ABSENT)
    ]
    return [(key, ours.get(key, ABSENT), usual.get(key, ABSENT)) for key in keys]


def filled_in(default: Any) -> bool:
    """Returns whether a default is filled in by the user or the run: null, `auto` and `???`."""
    return default in (None, "auto", "???")


def defaults(task: str) -> dict[str, Any]:
    """Returns the config of a task as this version composes it without any override."""
    return copy.deepcopy(_defaults(task, tuple(plugins.found())))


@functools.cache
def _defaults(task: str, theirs: tuple[plugins.Plugin, ...]) -> dict[str, Any]:
    """Composes the config of a task, with these plug-ins; several files of a report ask for it."""
    return OmegaConf.to_container(overrides.node([f"task={task}"]))


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens a mapping: `{"a": {"b": 1}}` -> `{"a.b": 1}`; an empty one stays a value."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if prefix else {}
    return {
        key: leaf
        for name, part in value.items()
        for key, leaf in flat(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }


# --- text
# --------------------------------------------------------------------------------------------------
def number_text(value: Any) -> str:
    """Formats a number: counts with thousands marks, others with four significant digits.

    NaN and infinities are written by name.
    """
    value = value if isinstance(value, int) else number(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def value_text(value: Any) -> str:
    """Formats a value as text: of a list its parts, of a mapping its names and values.

    The largest number comes first.
    """
    if isinstance(value, Mapping):
        order = sorted(
            value.items(),
            key=lambda pair: -number(pair[1]) if isinstance(pair[1], int | float) else math.inf,
        )
        return ", ".join(f"{name} {value_text(part)}" for name, part in order)
    if isinstance(value, list):
        return ", ".join(map(value_text, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return number_text(value)


def shorten(text: str, width: int) -> str:
    """Returns the text with its middle replaced by … where it exceeds `width` characters.

    Both ends of a prompt matter.
    """
    if len(text) <= width:
        return text
    tail = width // 3
    return f"{text[: width - tail - 1]}…{text[len(text) - tail :]}"


def short(text: str, width: int) -> str:
    """Returns the text on one line, cut with an ellipsis where it exceeds `width` characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"
