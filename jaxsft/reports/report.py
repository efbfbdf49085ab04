"""`report.md` of a run: results, what was trained, what became of the data, figures, samples, configuration and environment.

Everything is read from the files of the run directory, so a report can be written again at any time, on any machine. A file that is
missing or damaged costs its own section, which says so. Numbers that are not finite are shown as they are.
"""

import datetime
import html
import math
import random
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from jaxsft.errors import JaxsftError
from jaxsft.reports.figures import confusions, read_confusion, series
from jaxsft.rundir import number, read_json, read_jsonl, write_text

SAMPLES = 10
CELL_WIDTH = 120
RUN_FILES = ("config.yaml", "manifest.json", "metrics.jsonl", "result.json")
CAPTIONS = {"loss": "Loss", "learning_rate": "Learning rate", "ledger": "What became of rows and tokens"}


def write_report(run_dir: str | Path) -> Path:
    """Write `report.md` into a run directory, with the figures that lie in its `figures/`, and return its path.

    Raises:
        JaxsftError: `run_dir` is not the directory of a run, or the report cannot be written.
    """
    run_dir = Path(run_dir)
    if not any((run_dir / name).is_file() for name in RUN_FILES):
        raise JaxsftError(f"{run_dir}: not a run directory (expected one of {', '.join(RUN_FILES)} in it)")
    sections = (
        ("Results", _results), ("Training", _training), ("Data ledger", _ledger), ("Figures", _figures),
        ("Sample predictions", _samples), ("Configuration", _configuration), ("Environment", _environment),
    )  # fmt: skip
    parts = [_title(run_dir)]
    for heading, section in sections:
        try:
            body = section(run_dir)
        except _Missing as missing:
            body = f"*{missing}*"
        except (JaxsftError, OSError, LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
            # A file that an editor or a crash damaged: the rest of the report is worth more than this section.
            body = f"*This section could not be written: {escape(f'{type(error).__name__}: {error}')}*"
        parts.append(f"## {heading}\n\n{body}")
    return write_text(run_dir / "report.md", "\n\n".join(parts) + "\n")


def samples_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], width: int = CELL_WIDTH) -> str:
    """Return a Markdown table of rows; cells are escaped, line breaks shown as ⏎, and shortened in the middle to `width` characters."""
    lines = [[_cell(row.get(column), width) for column in columns] for row in rows]
    return _table([escape(column.replace("_", " ")) for column in columns], lines, numbers=False)


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, inside a table cell too: no markup, no HTML, no line break, no control character."""
    text = text.replace("\r\n", "\n").replace("\n", "⏎").replace("\r", "⏎").replace("\t", "⇥")
    text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    text = re.sub(r"[\\|*`\[\]~$#]|(?<![^\W_])_|_(?![^\W_])", lambda found: "\\" + found.group(), text)
    return html.escape(text, quote=False)


def shorten(text: str, width: int) -> str:
    """Return the text with its middle replaced by … where it is longer than `width` characters: both ends of a prompt matter."""
    if len(text) <= width:
        return text
    tail = width // 3
    return f"{text[: width - tail - 1]}…{text[len(text) - tail :]}"


class _Missing(Exception):
    """A file that a section needs is not there; the message is what the section says."""


def _read(run_dir: Path, name: str) -> Any:
    path = run_dir / name
    if not path.exists():
        raise _Missing(f"`{name}` is missing from this run.")
    return read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)


def _config(run_dir: Path, name: str = "config.yaml") -> dict:
    path = run_dir / name
    content = yaml.safe_load(path.read_text("utf-8")) if path.exists() else {}
    return content if isinstance(content, dict) else {}


def _title(run_dir: Path) -> str:
    try:
        config = _config(run_dir)
    except (OSError, ValueError, yaml.YAMLError):
        config = {}
    names = [_name(config.get(key)) for key in ("task", "data")]
    title = " on ".join(escape(name) for name in names if name) or "Run"
    latest = max((path.stat().st_mtime for path in run_dir.iterdir() if path.name in RUN_FILES), default=0)
    written = datetime.datetime.fromtimestamp(latest).astimezone()
    return f"# {title}\n\nRun {_code(run_dir.resolve().name)}, last written {written:%Y-%m-%d %H:%M %Z}."


def _name(part: Any) -> str:
    """Return what a part of the config is called: itself, or its name, kind or path."""
    if isinstance(part, Mapping):
        found = next((part[key] for key in ("name", "kind", "type", "path", "train") if isinstance(part.get(key), str)), "")
        return Path(found).name if "/" in found else found
    return str(part or "")


def _results(run_dir: Path) -> str:
    result = _read(run_dir, "result.json")
    splits = list(dict.fromkeys(_split(key)[0] for key in result))
    metrics = list(dict.fromkeys(_split(key)[1] for key in result))
    if not metrics:
        return "*`result.json` holds no numbers.*"
    by_place = {_split(key): value for key, value in result.items()}
    lines = [[_code(metric), *(_number(by_place[split, metric]) if (split, metric) in by_place else "" for split in splits)] for metric in metrics]
    broken = sum(not math.isfinite(number(value)) for value in result.values())
    note = f"\n\n**{broken} of {len(result)} numbers {'is' if broken == 1 else 'are'} not finite.**" if broken else ""
    return _table(["metric", *(escape(split) or "run" for split in splits)], lines) + note


def _split(key: str) -> tuple[str, str]:
    split, slash, metric = key.partition("/")
    return (split, metric) if slash else ("", key)


def _training(run_dir: Path) -> str:
    rows = _read(run_dir, "metrics.jsonl")
    manifest = read_json(run_dir / "manifest.json") if (run_dir / "manifest.json").exists() else {}
    steps, losses = series(rows, "train", "loss")
    _, rates = series(rows, "train", "tokens_per_second")
    lines = [[f"parameters{f', {escape(kind)}' if kind else ''}", _number(count)] for kind, count in _parameters(manifest)]
    lines.append(["steps", _number(max((int(number(row["step"])) for row in rows if "step" in row), default=0))])
    ledger = read_json(run_dir / "ledger.json") if (run_dir / "ledger.json").exists() else {}
    trained = (ledger.get("train") or {}).get("tokens", {}).get("trained")
    if trained:  # none where whole texts carry the targets
        lines.append(["trained tokens in one pass over the training data", _number(trained)])
    if len(losses):
        lines.append(["training loss, first → last logged", f"{_number(losses[0])} → {_number(losses[-1])}"])
    if len(rates):
        lines.append(["tokens per second, median", _number(round(statistics.median(rates)))])
    broken = [int(step) for step, loss in zip(steps, losses, strict=True) if not math.isfinite(loss)]
    note = f"\n\n**The training loss was not finite at {len(broken)} logged steps, first at step {broken[0]:,}.**" if broken else ""
    return _table(["", "value"], lines) + note


def _parameters(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = manifest.get("parameters")
    if isinstance(found, Mapping):
        return [(kind, count) for kind, count in found.items() if isinstance(count, int)]
    return [("", found)] if isinstance(found, int) else []


def _ledger(run_dir: Path) -> str:
    ledger = {split: entry for split, entry in _read(run_dir, "ledger.json").items() if isinstance(entry, Mapping)}
    if not ledger:
        return "*`ledger.json` lists no split.*"
    lines: dict[str, dict[str, str]] = {}
    problems = []
    for split, entry in ledger.items():
        counts, wrong = _account(entry)
        problems += [f"{escape(split)}: {problem}" for problem in wrong]
        for label, count in counts:
            lines.setdefault(label, {})[split] = count
    table = _table(["", *map(escape, ledger)], [[label, *(counts.get(split, "") for split in ledger)] for label, counts in lines.items()])
    verdict = "".join(f"\n\n**Does not add up: {problem}.**" for problem in problems) or "\n\nEvery row and token is accounted for."
    return table + verdict


def _account(entry: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the lines of one split's account, and a sentence for each sum that is wrong."""
    lines, problems = [], []
    for unit in ("rows", "tokens"):
        part = entry.get(unit) or {}
        if not part:
            continue
        lines.append((f"{unit} read", _number(part.get("read", 0))))
        dropped = part.get("dropped") or {}
        lines += [(f"− {unit} dropped: {escape(reason)}", _number(count)) for reason, count in dropped.items()]
        lines.append((f"= {unit} kept", _number(part.get("kept", 0))))
        if part.get("read", 0) != part.get("kept", 0) + sum(dropped.values()):
            problems.append(f"{unit} read {part.get('read', 0):,} ≠ kept {part.get('kept', 0):,} + dropped {sum(dropped.values()):,}")
        if unit == "tokens" and part.get("trained"):
            lines += [("of these trained", _number(part["trained"])), ("of these masked", _number(part.get("masked", 0)))]
            if part.get("kept", 0) != part["trained"] + part.get("masked", 0):
                problems.append(f"tokens kept {part.get('kept', 0):,} ≠ trained {part['trained']:,} + masked {part.get('masked', 0):,}")
    packing = entry.get("packing") or {}
    if packing:
        lines.append(("packed rows × length", f"{_number(packing.get('rows', 0))} × {_number(packing.get('row_length', 0))}"))
        lines.append(("filled with real tokens", f"{number(packing.get('fill', math.nan)):.1%}"))
    return lines, problems


def _figures(run_dir: Path) -> str:
    order = {stem: i for i, stem in enumerate(CAPTIONS)}
    drawn = sorted((run_dir / "figures").glob("*.png"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    if not drawn:
        raise _Missing("No figures were drawn for this run.")
    images = [f"![{escape(_caption(path.stem))}](figures/{quote(path.name)})" for path in drawn]
    return "\n\n".join(images + [_confusions(path) for path in sorted((run_dir / "figures").glob("confusion_*.json"))])


def _confusions(path: Path) -> str:
    """Return the most frequent confusions as text: a figure may have to show a class by its number alone."""
    labels, matrix = read_confusion(path)
    top = [(f"{labels.index(a)} {a}", f"{labels.index(b)} {b}", count) for a, b, count in confusions(labels, matrix)[:SAMPLES]]
    split = escape(path.stem.removeprefix("confusion_"))
    if not top:
        return f"No class was taken for another on {split}."
    lines = [[_cell(true, CELL_WIDTH), _cell(guess, CELL_WIDTH), _number(count)] for true, guess, count in top]
    return _table([f"most frequent confusions on {split}: true", "predicted", "examples"], lines, numbers=False)


def _caption(stem: str) -> str:
    kind, _, rest = stem.partition("_")
    return CAPTIONS.get(stem) or {"confusion": f"Confusions on {rest}", "validation": f"Validation: {rest}"}.get(kind, stem)


def _samples(run_dir: Path) -> str:
    files = sorted((run_dir / "predictions").glob("*.jsonl"))
    if not files:
        raise _Missing("No predictions were saved for this run.")
    return "\n\n".join(_split_samples(path) for path in files)


def _split_samples(path: Path) -> str:
    rows = read_jsonl(path)
    if not rows:
        return f"### {escape(path.stem)}\n\n*No rows.*"
    count = min(SAMPLES, len(rows))
    # Drawn, not evenly spaced: rows that come in a pattern (every eighth from one source) would give a false picture.
    chosen = [rows[i] for i in sorted(random.Random(0).sample(range(len(rows)), count))]
    columns = list(dict.fromkeys(key for row in chosen for key in row))
    judged = [row["correct"] for row in rows if isinstance(row.get("correct"), bool)]
    share = f" {sum(judged):,} of {len(judged):,} predictions are correct." if judged else ""
    return f"### {escape(path.stem)}\n\n{count} of {len(rows):,} rows, drawn at random with a fixed seed.{share}\n\n{samples_table(chosen, columns)}"


def _configuration(run_dir: Path) -> str:
    if not (run_dir / "config.yaml").exists():
        raise _Missing("`config.yaml` is missing from this run.")
    text = (run_dir / "config.yaml").read_text("utf-8")
    fence = "`" * max(3, 1 + max((len(found) for found in re.findall("`+", text)), default=0))
    full = f"<details><summary>The whole configuration</summary>\n\n{fence}yaml\n{text.rstrip()}\n{fence}\n\n</details>"
    if not (run_dir / "config_defaults.yaml").exists():
        return full
    here, usual = _flat(_config(run_dir)), _flat(_config(run_dir, "config_defaults.yaml"))
    keys = [key for key in dict.fromkeys([*here, *usual]) if here.get(key, "(absent)") != usual.get(key, "(absent)")]
    if not keys:
        return f"All options have their default values.\n\n{full}"
    lines = [[_code(key), _setting(here, key), _setting(usual, key)] for key in keys]
    return f"{_table(['option that is not at its default', 'value', 'default'], lines, numbers=False)}\n\n{full}"


def _setting(settings: Mapping[str, Any], key: str) -> str:
    return _code(shorten(str(settings[key]), CELL_WIDTH)) if key in settings else "(absent)"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if prefix else {}
    return {key: leaf for name, part in value.items() for key, leaf in _flat(part, f"{prefix}.{name}" if prefix else str(name)).items()}


def _environment(run_dir: Path) -> str:
    manifest = {key: value for key, value in _read(run_dir, "manifest.json").items() if key != "parameters"}
    return _table(["", "value"], [[escape(key), _cell(value, CELL_WIDTH)] for key, value in _flat(manifest).items()], numbers=False)


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]], numbers: bool = True) -> str:
    """Return a Markdown table of finished cells; with `numbers`, all columns but the first are aligned to the right."""
    rule = ["---"] + ["---:" if numbers else "---"] * (len(heads) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *lines))


def _cell(value: Any, width: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return escape(shorten(str(value), width)).strip() or "*(empty)*"


def _number(value: Any) -> str:
    """Return a count with thousands marks, another number with four significant digits, and NaN and infinities by name."""
    value = value if isinstance(value, int) else number(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _code(text: str) -> str:
    """Return a code span that may stand in a table cell."""
    ticks = "`" * (1 + max((len(found) for found in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{ticks}{space}{text.replace('|', chr(92) + '|').replace(chr(10), '⏎')}{space}{ticks}"
