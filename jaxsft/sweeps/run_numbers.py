"""What a finished run directory says of a trial: its numbers, its size, its cost, and a digest of
all that it logged.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.errors import JaxsftError, first_line
from jaxsft.reports import facts
from jaxsft.rundir import number

# of a line of metrics.jsonl: how fast it went, which differs between runs that are the same
SPEEDS = (
    "tokens_per_second", "model_flops_per_second", "mfu", "time", "seconds", "wall_time",
)  # fmt: skip


def read_run(run_dir: Path, metric: str) -> tuple[dict[str, Any], list[str]]:
    """Returns what a finished run directory says of a trial, and what of it is damaged."""
    out: dict[str, Any] = {}
    notes = []
    for read in (_numbers, _bounds, _size, _times, _work, _stream):
        try:
            out |= read(run_dir, metric, out)
        except facts.MissingFile as missing:
            notes.append(str(missing))
        except facts.DAMAGE as error:
            told = str(error) if isinstance(error, JaxsftError) else first_line(error)
            notes.append(told.removeprefix(f"{run_dir}/"))
    if metric and not math.isfinite(out.get("value", math.nan)) and "numbers" in out:
        has = out["numbers"].get(metric)
        notes.append(f"{metric} is {'missing' if has is None else 'not finite'}.")
    return out, notes


def _numbers(run_dir: Path, metric: str, _: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        f"{split}/{key}" if split else key: number(value)
        for (split, key), value in facts.results(run_dir).values.items()
    }
    out: dict[str, Any] = {"numbers": found, "value": found.get(metric, math.nan)}
    steps = found.get("train/steps")
    if steps is not None and math.isfinite(steps):
        out["steps"] = int(steps)
    return out


def _bounds(run_dir: Path, metric: str, _: Mapping[str, Any]) -> dict[str, Any]:
    entry = facts.read_or(run_dir, "intervals.json", {}).get(metric) or {}
    return {"row_error": float(entry["se"])} if isinstance(entry.get("se"), int | float) else {}


def _size(run_dir: Path, *_: Any) -> dict[str, Any]:
    counts = dict(facts.parameters(facts.read_or(run_dir, "manifest.json", {})))
    count = counts.get("total", counts.get(""))
    return {} if count is None else {"parameters": count}


def _times(run_dir: Path, *_: Any) -> dict[str, Any]:
    rows = [row for row in facts.read_or(run_dir, "times.jsonl", []) if isinstance(row, Mapping)]
    out: dict[str, Any] = {}
    # of trials that trained together each has its share
    share = lambda row: number(row["seconds"]) / max(number(row.get("trials", 1)), 1)
    if seconds := [share(row) for row in rows if "seconds" in row]:
        out["seconds"] = sum(seconds)
    for key in facts.PEAKS:  # that of a device, where it is known
        if peaks := [number(row[key]) for row in rows if key in row]:
            out["peak_bytes"] = int(max(peaks))
    return out


def _work(run_dir: Path, _: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how many tokens were trained on, by the mean over the rows, and their FLOPs."""
    packing = (facts.read_or(run_dir, "ledger.json", {}).get("train") or {}).get("packing") or {}
    size = (facts.config_or_empty(run_dir).get("train") or {}).get("batch_size")
    if not (packing.get("rows") and isinstance(size, int) and known.get("steps")):
        return {}
    tokens = known["steps"] * size * number(packing.get("real", 0)) / packing["rows"]
    rows = facts.read_or(run_dir, "metrics.jsonl", [])
    rates = [
        number(row["model_flops_per_second"]) / number(row["tokens_per_second"])
        for row in rows
        if row.get("tokens_per_second") and row.get("model_flops_per_second")
    ]
    return {"tokens": tokens} | ({"flops": tokens * statistics.median(rates)} if rates else {})


def _stream(run_dir: Path, *_: Any) -> dict[str, Any]:
    return {"stream": stream_digest(facts.read_or(run_dir, "metrics.jsonl", []))}


def stream_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns a digest of the numbers that a run logged, without those of its speed; "" of none."""
    kept = [{k: v for k, v in row.items() if k not in SPEEDS} for row in rows]
    if not kept:
        return ""
    return hashlib.sha256(rundir.json_text(kept).encode("utf-8", "surrogatepass")).hexdigest()
