"""Seconds from the command to the first trained step: cold, and with examples and compiled programs
of an earlier start on disk.

python tools/bench/startup.py task=classify data.train=train.csv [any option of jaxsft train]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def first_step(options: list[str], caches: Path, run_dir: Path) -> float:
    """Raises RuntimeError where the run ends without a step."""
    env = {**os.environ, "XDG_CACHE_HOME": str(caches)}
    given = [
        *options,
        f"run_dir={run_dir}",
        "train.log_every=1steps",
        "train.duration=3steps",
        "evaluation.generate=never",
    ]
    began = time.monotonic()
    lines = run_dir / "metrics.jsonl"
    # not a pipe: one that nobody reads fills up, and the run would wait
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "jaxsft", "train", *given],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        try:
            while not (lines.exists() and lines.stat().st_size):
                if process.poll() is not None:
                    said.seek(0)
                    raise RuntimeError(said.read())
                time.sleep(0.02)
            return time.monotonic() - began
        finally:
            process.kill()
            process.wait()


def main(options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(("cold", "warm", "warm", "warm")):
            print(
                f"{name}:"
                f" {first_step(options, Path(folder) / 'caches', Path(folder) / f'run-{i}'):.1f} s"
                " to the first step",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
