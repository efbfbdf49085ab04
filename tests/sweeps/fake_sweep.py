"""Folders of sweeps made by hand, as a sweep leaves them, with numbers drawn from a seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jaxsft.evaluation import statistics_file
from jaxsft.rundir import JsonLines, write_json, write_text
from tests.evaluation.two_runs import content, labels

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """How the numbers of a sweep come about.

    Attributes:
      grid: the values of each option; arms: the settings themselves, in its place.
      quality: the accuracy that a setting has in the mean.
      broken: by trial number what becomes of it: failed, started, planned, no_run, nan, no_result.
      unused_seed: all seeds give the same numbers.
      statistics: whether runs leave those of their rows.
    """

    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    arms: Sequence[Options] = ()
    seeds: Sequence[int] = (0, 1, 2)
    quality: Callable[[Options], float] = lambda _: 0.8
    seed_sd: float = 0.01
    rows: int = 200
    broken: Mapping[int, str] = field(default_factory=dict)
    unused_seed: bool = False
    statistics: bool = True
    study: Mapping[str, Any] | None = None
    metric: str = "validation/accuracy"
    draw: int = 0

    def settings(self) -> list[Options]:
        if self.arms:
            return list(self.arms)
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


def make(folder: Path, how: Made) -> Path:
    """Writes the folder of a sweep and returns it."""
    settings = how.settings()
    names = [*dict.fromkeys(name for options in settings for name in options)]
    given = ["train", "-m", "task=classify", "data.train=rows.jsonl", "hydra.sweep.dir=x"]
    given += [f"{name}=1,2" for name in names]
    trials = []
    with JsonLines(folder / "ledger.jsonl") as ledger:
        for number, (options, seed) in enumerate(itertools.product(settings, how.seeds)):
            words = [f"{name}={value}" for name, value in options.items()]
            words += [f"seed={seed}"] if len(how.seeds) > 1 or seed else []
            trial_id = f"{number:08x}" + "0" * 56
            config = {
                "evaluation": {"metric": how.metric},
                "seed": seed,
                "task": {"name": "classify"},
            }
            trials.append({"number": number, "id": trial_id, "overrides": words, "config": config})
            _run(folder, how, ledger, number, trial_id, options, seed)
    swept = [*names, *(["seed"] if len(how.seeds) > 1 else [])]
    plan = {
        "contract": 1, "created": "2026-01-01T00:00:00Z", "given": given, "swept": swept,
        "study": how.study, "trials": trials,
    }  # fmt: skip
    write_text(folder / "plan.yaml", yaml.safe_dump(plan, sort_keys=False))
    return folder


def _run(
    folder: Path,
    how: Made,
    ledger: JsonLines,
    number: int,
    trial_id: str,
    options: Options,
    seed: int,
) -> None:
    """Writes the events of a trial, and its run directory."""
    fate = how.broken.get(number, "done")
    event = {"trial": trial_id, "number": number, "attempt": 1, "host": "here", "pid": 1}
    tell = lambda what, **more: ledger.append({"time": "t", "event": what, **event, **more})
    tell("planned", attempt=0)
    if fate == "planned":
        return
    tell("leased", until=1.0, slot=0)
    tell("started")
    if fate == "started":
        return
    if fate == "failed":
        tell("failed", kind="error", code=1, message="train.batch_size=0: is too few", log="x.log")
        return
    run = f"jobs/{number:03d}-{trial_id[:8]}"
    if fate != "no_run":
        write_run(folder / run, how, options, seed, fate)
    tell("done", run_dir=run, metric=how.metric, value=0.0, seconds=10.0 + number)


def write_run(run: Path, how: Made, options: Options, seed: int, fate: str = "done") -> Path:
    """Writes the run directory of a trial."""
    key = [
        how.draw,
        0 if how.unused_seed else seed,
        *(ord(letter) for letter in repr(sorted(options.items()))),
    ]
    rng = np.random.default_rng(key)
    share = min(max(how.quality(options) + how.seed_sd * rng.normal(), 0.02), 0.98)
    result: dict[str, float] = {"train/steps": 40}
    for split, gold in (("validation", 1), ("test", 2)):
        outputs = labels(how.rows, share, int(rng.integers(1 << 30)), gold)
        value = float(np.mean(outputs["label"] == outputs["predicted"]))
        result |= {f"{split}/loss": 1.2 - value, f"{split}/accuracy": value}
        if how.statistics:
            (run / "predictions").mkdir(parents=True, exist_ok=True)
            statistics_file.save(run / "predictions" / f"{split}.npz", content(outputs))
    if fate == "nan":
        result["validation/accuracy"] = math.nan
    error = math.sqrt(0.16 / how.rows)
    write_json(run / "intervals.json", {"validation/accuracy": {"value": 0.8, "se": error}})
    write_json(run / "manifest.json", {"parameters": {"total": 7000, "trainable": 7000}})
    packing = {"rows": 100, "real": 3000, "padded": 200}
    write_json(run / "ledger.json", {"train": {"packing": packing}})
    write_text(
        run / "config.yaml",
        yaml.safe_dump({"train": {"batch_size": 8}, "evaluation": {"metric": how.metric}}),
    )
    with JsonLines(run / "times.jsonl") as times:
        times.append({"seconds": 20.0 + 10 * len(str(options)) % 7, "peak_host_bytes": 3 << 20})
    with JsonLines(run / "metrics.jsonl") as lines:
        for step in range(1, 41):
            loss = 1.5 * math.exp(-step / 15) + 0.2 + 0.05 * rng.normal()
            speed = {"tokens_per_second": 1000.0 + seed, "model_flops_per_second": 2e6 + 2e3 * seed}
            lines.append({"step": step, "kind": "train", "loss": loss} | speed)
            if step % 8 == 0:
                value = result["test/accuracy"] * (1 - math.exp(-step / 10))
                lines.append({"step": step, "kind": "validation", "loss": loss, "accuracy": value})
    if fate != "no_result":
        write_json(run / "result.json", result)
    return run
