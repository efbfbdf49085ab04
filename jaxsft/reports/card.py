"""The model card of a run: `README.md` with the front matter that Hugging Face reads.

It is made from the files of the run directory.

A card that a person has changed is theirs: it is written again only while it holds the line that
says who wrote it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from jaxsft.errors import JaxsftError
from jaxsft.reports import facts, ledger_facts
from jaxsft.reports.curves import COUNTS
from jaxsft.reports.markdown_report import code, escape, table, value_text, written_sections
from jaxsft.reports.report_tables import bound_texts, bounded, intervals
from jaxsft.rundir import write_text
from jaxsft.tasks.specs import SPECS, TaskSpec

MARK = "<!-- Written by jaxsft report. Remove this line to keep a text of your own. -->"
SHOWN_LABELS = 100


def write_card(run_dir: str | Path) -> Path | None:
    """Writes `README.md` into a run directory and returns its path.

    None where there is one that jaxsft has not written.

    Raises:
        JaxsftError: `run_dir` is not the directory of a run, `README.md` is no text file, or the
          card cannot be written.
    """
    run_dir = Path(run_dir)
    facts.check(run_dir)
    path = run_dir / "README.md"
    if path.exists() or path.is_symlink():
        try:
            before = path.read_text("utf-8", errors="replace")
        except OSError as error:
            raise JaxsftError(
                f"{path}: cannot read ({error.strerror}), so that the model card is not written"
            ) from error
        if MARK not in before:
            return None
    return write_text(path, card(run_dir))


def card(run_dir: Path) -> str:
    """Returns the card as text.

    A file that is missing or damaged costs its own section, which says so.
    """
    sections = (
        ("Intended task", _task), ("Training data", _data), ("Procedure", _procedure),
        ("Results", _results), ("Limits", _limits), ("Use", _use),
    )  # fmt: skip
    front = yaml.safe_dump(front_matter(run_dir), sort_keys=False, allow_unicode=True, width=1000)
    parts = [f"---\n{front}---\n{MARK}", f"# {escape(facts.title(run_dir))}"]
    if not facts.finished(run_dir):
        parts.append("**This run is unfinished: it has no results yet.**")
    parts += written_sections(run_dir, sections)
    return "\n\n".join(parts) + "\n"


def _spec(task: Any) -> TaskSpec | None:
    """Returns what is known of the task of a run; None of one that is not here."""
    return SPECS.get(task) if isinstance(task, str) else None


def front_matter(run_dir: Path) -> dict[str, Any]:
    """Returns the metadata of the front matter; no file of a run says the language."""
    task = _option(run_dir, "task.name")
    kind = getattr(_spec(task), "pipeline", None)
    tags = ["jaxsft", "jax", "supervised-fine-tuning", *([task] if isinstance(task, str) else [])]
    out = {"library_name": "jaxsft", "tags": tags} | ({"pipeline_tag": kind} if kind else {})
    try:
        results = _finite(facts.results(run_dir))
        scored = [
            _scored(run_dir, split, kind or "other", metrics) for split, metrics in results.items()
        ]
    except facts.DAMAGE:  # Missing too; the sections say so
        return out
    return out | (
        {"model-index": [{"name": run_dir.resolve().name, "results": scored}]} if scored else {}
    )


def _finite(results: facts.Results) -> dict[str, dict[str, Any]]:
    """Returns split → metric → value of what was scored.

    Numbers of the run itself and those that are not finite are not results.
    """
    out: dict[str, dict[str, Any]] = {}
    for split in facts.by_split(results.splits):
        found = {
            m: v
            for (s, m), v in results.values.items()
            if s == split and isinstance(v, int | float)
        }
        if split and any(
            metric == "loss" or metric.endswith(("accuracy", "match")) for metric in found
        ):
            out[split] = found
    return out


def _scored(run_dir: Path, split: str, kind: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    source = _option(run_dir, f"data.{split}") or _option(run_dir, "data.path")
    name = Path(source).name if isinstance(source, str) else split
    data = {"name": f"{name} ({split})", "type": name, "split": split}
    digest = (facts.read_or(run_dir, "manifest.json", {}).get("data") or {}).get(split)
    data |= {"revision": digest} if isinstance(digest, str) else {}
    listed = [
        {"type": metric, "name": metric.replace("_", " "), "value": value}
        for metric, value in metrics.items()
        if metric not in COUNTS
    ]
    return {"task": {"type": kind}, "dataset": data, "metrics": listed}


def _option(run_dir: Path, key: str) -> Any:
    return facts.flat(facts.config_or_empty(run_dir)).get(key)


# --- sections
# --------------------------------------------------------------------------------------------------
def _task(run_dir: Path) -> str:
    task = _option(run_dir, "task.name")
    if not isinstance(task, str):
        raise facts.MissingFile("config.yaml names no task.")
    about = getattr(_spec(task), "does", "does what its task says")
    text = (
        f"A model that {about} (`task={escape(task)}`), trained with jaxsft for the data below, and"
        " for nothing else."
    )
    labels = facts.read_or(run_dir, "task.json", {}).get("labels")
    if isinstance(labels, list):
        rest = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
        text += (
            f"\n\nIts {len(labels)} labels:"
            f" {', '.join(code(str(label)) for label in labels[:SHOWN_LABELS])}{rest}."
        )
    return text


def _data(run_dir: Path) -> str:
    entries, manifest = ledger_facts.ledger(run_dir), facts.read_or(run_dir, "manifest.json", {})
    lines = []
    for split, entry in entries.items():
        rows, tokens = entry.get("rows") or {}, entry.get("tokens") or {}
        source = _option(run_dir, f"data.{split}") or _option(run_dir, "data.path")
        digest = (
            (manifest.get("data") or {}).get(split)
            if isinstance(manifest.get("data"), Mapping)
            else None
        )
        dropped = (
            ", ".join(
                f"{escape(reason)}: {facts.number_text(n)}"
                for reason, n in (rows.get("dropped") or {}).items()
            )
            or "none"
        )
        counts = [
            facts.number_text(part.get(key, 0)) for part, key in ((rows, "read"), (rows, "kept"))
        ]
        lines.append([escape(split), code(Path(source).name) if isinstance(source, str) else "",
        *counts, dropped,
                      facts.number_text(tokens.get("kept", 0)),
                      code(digest) if isinstance(digest, str) else ""])  # fmt: skip
    note = "The hash is the SHA-256 of the rows of the split, as they were read."
    heads = ["split", "file", "rows read", "rows kept", "rows dropped", "tokens kept", "SHA-256"]
    return f"{table(heads, lines, numbers=False)}\n\n{note}"


def _procedure(run_dir: Path) -> str:
    lines, _ = facts.training(run_dir)
    named = ("optim.name", "optim.learning_rate", "schedule.name", "train.duration",
    "train.batch_size", "precision", "seed", "tokenizer.kind",
             "model.layers", "model.embed", "model.pretrained", "train.init_from")  # fmt: skip
    options = facts.flat(facts.config_or_empty(run_dir))
    rows = [[escape(name), escape(value)] for name, value in lines]
    rows += [
        [code(key), escape(str(options[key]))] for key in named if options.get(key) is not None
    ]
    base = options.get("model.pretrained") or options.get("train.init_from")
    start = (
        f"The weights of {code(str(base))} were trained further."
        if base
        else "There is no pretrained base: the weights were drawn at random."
    )
    return (
        f"{start} `config.yaml` has every option, `manifest.json` the versions and"
        f" hashes.\n\n{table(['', 'value'], rows, numbers=False)}"
    )


def _results(run_dir: Path) -> str:
    found, bounds = facts.results(run_dir), bound_texts(run_dir)
    splits = facts.by_split(found.splits)
    value = lambda split, metric: value_text(found, bounds, split, metric)
    rows = [[code(metric), *(value(split, metric) for split in splits)] for metric in found.metrics]
    text = table(["metric", *(escape(split) or "run" for split in splits)], rows)
    return f"{text}\n\n{_of_bounds(run_dir)}" if bounds else text


def _of_bounds(run_dir: Path) -> str:
    """Returns what the brackets behind the numbers are."""
    entries = [entry for entry in intervals(run_dir).values() if bounded(entry)]
    levels = sorted({f"{entry['level']:.4g}" for entry in entries if "level" in entry})
    methods = sorted({str(entry["method"]) for entry in entries if "method" in entry})
    clusters = any(entry.get("clusters") is not None for entry in entries)
    drawn = "whole clusters of rows" if clusters else "the rows"
    return (
        f"In brackets: bounds of level {' and '.join(levels)} over {drawn}"
        f" ({', '.join(methods)}); seeds are not in them."
    )


def _limits(run_dir: Path) -> str:
    """Returns what the files themselves show to be missing, and what no run measures."""
    entries = ledger_facts.ledger(run_dir)
    rows = facts.read_or(run_dir, "metrics.jsonl", [])
    found = [] if rows else ["Nothing was logged."]
    if "test" not in entries:
        found.append(
            "There was no test split: the numbers are of data that chose the checkpoint, or was"
            " trained on."
        )
    for split, entry in entries.items():
        if entry.get("also_in_train"):
            found.append(
                f"{facts.number_text(entry['also_in_train'])} rows of {escape(split)} are also in"
                " the training data, word for word."
            )
        if lacks := entry.get("lacks"):
            some = ", ".join(code(label) for label in lacks[:5]) + (
                ", ..." if len(lacks) > 5 else ""
            )
            found.append(
                f"{escape(split)} has no row of {facts.number_text(len(lacks))} labels ({some}): no"
                " number of it says anything about them."
            )
        if (entry.get("rows") or {}).get("truncated"):
            found.append(
                f"{facts.number_text(entry['rows']['truncated'])} rows of {escape(split)} were"
                " truncated."
            )
        if dropped := sum((entry.get("rows") or {}).get("dropped", {}).values()):
            found.append(
                f"{facts.number_text(dropped)} rows of {escape(split)} were dropped, and are in no"
                " number above."
            )
    if broken := (facts.training(run_dir)[1] if rows else []):
        found.append(f"The training loss was not finite at {len(broken)} logged steps.")
    if context := _option(run_dir, "model.context"):
        found.append(f"Texts are read up to {facts.number_text(context)} tokens.")
    calibrated = any((run_dir / "figures").glob("curves_*.json"))
    left = "bias and safety" if calibrated else "bias, safety and calibration"
    found.append(
        f"Measured is the data above alone. Other languages, domains and uses, {left} were not"
        " measured."
    )
    found.append(
        "One run with one seed: how far the numbers vary between seeds is not known from it."
    )
    found.append(
        "The licence of the weights follows from that of the data, which no file of the run states."
    )
    return "\n".join(f"- {line}" for line in found)


def _use(run_dir: Path) -> str:
    task, name = _option(run_dir, "task.name"), "DIR"
    lines = [f"jaxsft predict run={name} input=FILE output=predictions.jsonl"]
    if getattr(_spec(task), "can_generate", False):
        lines.insert(0, f'jaxsft generate run={name} prompt="..."')
    lines.append(f"jaxsft eval run={name} data.path=FILE")
    some = _option(run_dir, "train.freeze") or _option(run_dir, "adapter.name") not in (
        None,
        "none",
    )
    frozen = some and not _option(run_dir, "checkpoint.include_base")
    needs = (
        "it needs the run that its frozen weights come from" if frozen else "it needs nothing else"
    )
    return f"`DIR` is this directory; {needs}.\n\n" + "\n".join(f"    {line}" for line in lines)
