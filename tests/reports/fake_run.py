"""A run directory made by hand, as a run of each task leaves it, for the tests of figures and
report.
"""

import math
import random
from pathlib import Path

import numpy as np
import yaml

from jaxsft.data.ledger import length_summary
from jaxsft.reports import facts
from jaxsft.rundir import JsonLines, write_json, write_text

LEDGER = {
    "train": {
        "rows": {"read": 5000, "kept": 4870, "dropped": {"duplicate prompt": 100, "no answer": 30}},
        "tokens": {
            "read": 150_000, "kept": 145_000,
            "dropped": {"truncated": 3_000, "duplicate prompt": 2_000}, "trained": 40_000,
            "masked": 105_000,
        },
        "packing": {"rows": 1200, "row_length": 128, "examples": 4870, "fill": 0.944,
        "real": 145_000, "padded": 8_600},
        "lengths": length_summary(np.arange(4870) % 59 + 1),
    },
    "validation": {
        "rows": {"read": 500, "kept": 500, "dropped": {}},
        "tokens": {"read": 15_000, "kept": 15_000, "dropped": {}, "trained": 4_100,
        "masked": 10_900},
        "packing": {"rows": 125, "row_length": 128, "examples": 500, "fill": 0.94, "real": 15_000,
        "padded": 1_000},
    },
}  # fmt: skip


def metrics(path: Path, steps: int = 400, broken: tuple[int, ...] = ()) -> None:
    """Write a plausible `metrics.jsonl`: a falling noisy loss, warm-up and cosine, a validation
    every 50 steps.
    """
    draw = random.Random(0)
    with JsonLines(path) as lines:
        for step in range(1, steps + 1):
            loss = (
                math.nan
                if step in broken
                else 0.05 + 5 * math.exp(-step / 60) * draw.uniform(0.85, 1.15)
            )
            rate = 3e-3 * min(step / 40, 0.5 + 0.5 * math.cos(math.pi * step / steps))
            lines.append(
                {
                    "step": step,
                    "kind": "train",
                    "loss": loss,
                    "learning_rate": rate,
                    "tokens_per_second": 10_000 + draw.random() * 500,
                }
            )
            if step % 50 == 0:
                good = 1 - math.exp(-step / 90)
                row = {
                    "accuracy": good,
                    "macro_f1": good * 0.93,
                    "micro_f1": good * 0.97,
                    "f1/猫": good * 0.8,
                }
                lines.append(
                    {
                        "step": step,
                        "kind": "validation",
                        "loss": 0.1 + 4.8 * math.exp(-step / 60),
                        **row,
                    }
                )


def confusion(path: Path, labels: list[str]) -> None:
    """Write a confusion file with a strong diagonal and a few pairs that are often confused; one
    class never occurs.
    """
    draw, count = random.Random(1), len(labels)
    matrix = [
        [draw.randint(30, 45) if i == j else int(draw.random() < 0.03) for j in range(count)]
        for i in range(count)
    ]
    for _ in range(count // 3):
        matrix[draw.randrange(count)][draw.randrange(count)] += draw.randint(3, 14)
    if count > 3:
        matrix[count - 1] = [0] * count
    write_json(path, {"labels": labels, "matrix": matrix})


def make(run: Path, labels: list[str] | None = None, broken: tuple[int, ...] = ()) -> Path:
    """Write a whole run directory: a classification run where `labels` are given, else a chat
    run."""
    task = "classify" if labels else "chat"
    config = facts.defaults(task)
    config["data"] |= {"path": "rows/demo"}
    config["train"] |= {"duration": "400steps"}
    write_text(run / "config.yaml", yaml.safe_dump(config | {"seed": 3}))
    write_json(run / "manifest.json", {
        "versions": {"jaxsft": "0.1.0", "jax": "0.10.2", "python": "3.11.9"},
        "devices": ["cpu:0"],
        "git": {"commit": "0123abc", "dirty": True},
        "hashes": {"data": "a" * 64},
        "parameters": {"total": 919_680, "trainable": 919_680},
    })  # fmt: skip
    write_json(run / "ledger.json", LEDGER)
    metrics(run / "metrics.jsonl", broken=broken)
    write_json(
        run / "result.json",
        {
            "test/accuracy": 0.9625,
            "test/loss": 0.1234567,
            "validation/accuracy": 0.97,
            "validation/loss": math.nan,
        },
    )
    if labels:
        confusion(run / "figures" / "confusion_test.json", labels)
    with JsonLines(run / "predictions" / "test.jsonl") as lines:
        for i in range(40):
            wrong = i % 8 == 0
            if labels:
                row = {
                    "text": f"text {i} | a\nb",
                    "label": labels[0],
                    "prediction": labels[wrong],
                    "probability": 0.9,
                    "correct": not wrong,
                }
            else:
                row = {
                    "prompt": f"Translate: <b>cat</b> | {i}\n",
                    "reference": "猫",
                    "prediction": "狗" if wrong else "猫",
                    "correct": not wrong,
                }
            lines.append({"row": i, **row})
    return run
