"""How fast rows are read, encoded, packed and batched, and how much memory a preparation takes;
each beside what one would write by hand.

python tools/bench/data.py [rows=20000] [rounds=3]

- read X: `formats.stream`; beside it a bare `json.loads`, `csv.reader` or `str.split` over the
  lines
- encode TASK: records to planned rows, through the cache (written, not found); beside it
  `encode_batch` of the bare `tokenizers` object on the same texts
- batches: batches of the planned rows, as the loop asks for them; beside it tokens per second of a
  training step: `tools/bench/train_step.py`
- memory: peak of `jaxsft prepare`, in a process of its own; beside it the same on four times the
  rows

All are alternated within a round; the median counts. Ratios are ours / theirs in rows per second: 1
is as fast.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxsft.config import overrides
from jaxsft.data import formats
from jaxsft.training import components, setup

WORDS = np.array(
    [
        f"{a}{b}{c}"
        for a in ("ta", "ri", "no", "lem")
        for b in ("ka", "so", "ber", "un", "it")
        for c in ("", "s", "ing", "ed")
    ]
)


def made(rows: int, seed: int = 0) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    words = lambda n: " ".join(rng.choice(WORDS, n))
    return [
        {
            "prompt": words(int(rng.integers(5, 60))),
            "completion": words(int(rng.integers(5, 120))),
            "label": f"c{i % 7}",
        }
        for i in range(rows)
    ]


def alternated(rounds: int, **functions: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def told(what: str, rows: int, seconds: dict[str, float], unit: str = "rows") -> None:
    ours, theirs = seconds["ours"], seconds["bare"]
    print(
        f"{what:<22}{rows / ours:>12,.0f} {unit}/s   bare {rows / theirs:>12,.0f}   ratio"
        f" {theirs / ours:.2f}",
        flush=True,
    )


def readers(folder: Path, rows: list[dict[str, str]], rounds: int) -> None:
    def lines(path: Path, read: Callable) -> Callable[[], int]:
        def run() -> int:
            with open(path, encoding="utf-8", newline="") as file:
                return sum(1 for _ in read(file))

        return run

    bare = {
        "jsonl": lambda file: map(json.loads, file),
        "csv": csv.DictReader,
        "tsv": lambda file: (line.rstrip("\n").split("\t") for line in file),
        "txt": lambda file: (line.rstrip("\n") for line in file),
    }
    for name, read in bare.items():
        path = folder / f"rows.{name}"
        formats.write(
            rows if name != "txt" else [{"text": row["completion"]} for row in rows], path
        )
        count = lambda path=path: sum(1 for _ in formats.stream(path))
        told(f"read {name}", len(rows), alternated(rounds, ours=count, bare=lines(path, read)))


def encoding(folder: Path, rounds: int, task: str, *options: str) -> None:
    file = folder / "rows.jsonl"
    config = setup.resolve(
        overrides.composed(
            [
                f"task={task}",
                f"data.train={file}",
                "tokenizer=bpe",
                f"data.cache_dir={folder}",
                *options,
            ]
        )
    )
    parts, records = components.prepare(config)
    texts = [text for record in records["train"][0] for text in parts.task.texts(record)]
    bare = parts.tokenizer._full  # the object of the library itself
    made = iter(range(1000))

    def ours() -> None:
        data = dataclasses.replace(
            config.data, cache_dir=str(folder / f"cache-{task}-{next(made)}")
        )
        fresh = dataclasses.replace(parts, config=dataclasses.replace(config, data=data))
        fresh.batches(fresh.split("train", records["train"]), training=True)

    told(
        f"encode {task}",
        len(records["train"][0]),
        alternated(
            rounds, ours=ours, bare=lambda: bare.encode_batch(texts, add_special_tokens=False)
        ),
    )
    batches = parts.batches(parts.split("train", records["train"]), training=True)
    seconds = alternated(rounds, ours=lambda: [batches[step] for step in range(len(batches))])[
        "ours"
    ]
    print(
        f"{'batches ' + task:<22}{batches.split.lengths.sum() / seconds:>12,.0f} tokens/s, by one"
        " thread"
    )


def memory(folder: Path, rows: list[dict[str, str]]) -> None:
    peaks = []
    for times in (1, 4):
        path = folder / f"big{times}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for _ in range(4 * times):
                file.writelines(json.dumps(row) + "\n" for row in rows)
        command = [
            sys.executable,
            "-c",
            PEAK,
            f"data.path={path}",
            f"output.dir={folder / f'out{times}'}",
            "stages=[{clean:{fields:[prompt]}}]",
        ]
        peaks.append(
            (
                path.stat().st_size / 2**20,
                int(
                    subprocess.run(
                        command, capture_output=True, text=True, check=True
                    ).stdout.split()[-1]
                )
                / 1024,
            )
        )
    (small, first), (large, second) = peaks
    print(
        f"{'memory prepare':<22}{first:,.0f} MiB for {small:,.0f} MiB of rows, {second:,.0f} MiB"
        f" for {large:,.0f} MiB: {second / first:.2f} times"
    )


# Not getrusage: a child inherits the peak of the process that it was forked from.
PEAK = """
import sys
from jaxsft.commands import prepare
prepare.main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main(rows: int = 20_000, rounds: int = 3) -> None:
    with tempfile.TemporaryDirectory(prefix="jaxsft-bench-") as name:
        folder, data = Path(name), made(rows)
        readers(folder, data, rounds)
        encoding(folder, rounds, "lm", "data.columns.text=completion")
        encoding(folder, rounds, "classify", "data.columns.text=completion")
        encoding(folder, rounds, "chat")
        memory(folder, data)
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main(**{k: int(v) for k, v in (argument.split("=") for argument in sys.argv[1:])})
