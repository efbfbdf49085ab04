"""A worker that trains nothing: it claims its trial as a real one does, and behaves as the seed of
its config says. Called as `fake_worker.py SWEEP NUMBER` by a scheduler under test.

seed 0-9: leaves a result; 10-19: raises; 20-29: is killed the first time; 30-39: hangs; 40-49: the
disk is full; 50-59: waits for the file `go`; 60-69: as that, and is interrupted by SIGTERM;
110-119: as 10-19, and so on
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path

from jaxsft.errors import ConfigError
from jaxsft.rundir import write_json, write_text
from jaxsft.sweeps import worker

PATIENCE = 60.0  # seconds, so that no test waits for ever where something is broken


class Result:
    stopped_by = None


def train(config) -> Result:
    folder, kind = Path(config.run_dir), config.seed // 10 % 10
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "starts", "a") as file:
        file.write("x\n")
    starts = len((folder / "starts").read_text().splitlines())
    if kind == 1:
        raise ValueError(f"seed {config.seed} is a mistake of the program")
    if kind == 2 and starts == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == 3:
        time.sleep(PATIENCE)
    if kind == 4 and not (folder.parents[1] / "room").exists():
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ConfigError("result.json: cannot write (No space left on device)") from error
    result = Result()
    if kind in (5, 6):
        if kind == 6:
            told = []
            signal.signal(signal.SIGTERM, lambda *_: told.append(signal.SIGTERM))
        end = time.monotonic() + PATIENCE
        while not (folder.parents[1] / "go").exists():
            assert time.monotonic() < end, "nobody let it go"
            time.sleep(0.05)
            if kind == 6 and told:
                result.stopped_by = signal.SIGTERM
                return result
    write_text(folder / "config.yaml", "evaluation: {metric: validation/loss}\n")
    write_text(folder / "report.html", "<p>a report</p>")
    write_json(folder / "result.json", {"validation/loss": float(config.seed)})
    return result


def train_stack(configs, on_event) -> None:
    """Several trials in one process, one after another; what one raises is its own.

    One with a seed above 1000 is told of a metric once the file `go` is there.
    """
    for place, config in enumerate(configs):
        try:
            outcome = train(config)
            if config.seed > 1000:
                Path(config.run_dir, "pruned").write_text(str(on_event(place, "metric", {})))
        except ValueError as error:
            outcome = ConfigError(str(error))
        on_event(place, "end", {"outcome": outcome})


FAKES = {"train_alone": train, "train_together": train_stack}

if __name__ == "__main__":
    for name, fake in FAKES.items():
        setattr(worker, name, fake)
    sys.exit(worker.main(sys.argv[1:]))
