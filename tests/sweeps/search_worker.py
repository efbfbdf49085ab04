"""A worker that trains nothing, for searches: its loss is a function of the learning rate, and a
little of the seed. Called as `search_worker.py SWEEP NUMBER` by a scheduler under test.

A learning rate above 0.05 raises; where there is a file `wait`, it waits for the file `go`.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path

from jaxsft.rundir import write_json, write_text
from jaxsft.sweeps import worker
from tests.sweeps.fake_worker import PATIENCE

STEPS = 4


class Result:
    stopped_by = None


def loss(rate: float, seed: int) -> float:
    return (math.log10(rate) + 3) ** 2 + 0.01 * (seed * 7919 % 13)


def train(config) -> Result:
    folder, rate = Path(config.run_dir), config.optim.learning_rate
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "starts", "a") as file:
        file.write("x\n")
    if rate > 0.05:
        raise ValueError(f"a learning rate of {rate} diverges")
    told, result, end = [], Result(), time.monotonic() + PATIENCE
    signal.signal(signal.SIGTERM, lambda *_: told.append(signal.SIGTERM))
    write_text(folder / "config.yaml", "evaluation: {metric: validation/loss}\n")
    sweep = folder.parents[1]
    for step in range(1, STEPS + 1):
        with open(folder / "metrics.jsonl", "a") as file:
            row = {"kind": "validation", "step": step, "loss": loss(rate, config.seed) + 1 / step}
            file.write(json.dumps(row) + "\n")
        while (sweep / "wait").exists() and not (sweep / "go").exists() and not told:
            assert time.monotonic() < end, "nobody let it go"
            time.sleep(0.05)
        if told:
            result.stopped_by = signal.SIGTERM
            return result
    write_json(folder / "manifest.json", {"parameters": {"total": 1000 * config.train.batch_size}})
    write_text(folder / "report.html", "<p>a report</p>")
    write_json(folder / "result.json", {"validation/loss": loss(rate, config.seed)})
    return result


FAKES = {"train_alone": train}

if __name__ == "__main__":
    worker.train_alone = train
    sys.exit(worker.main(sys.argv[1:]))
