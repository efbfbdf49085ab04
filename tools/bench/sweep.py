"""A sweep as one stacked program against one process for each trial, two at a time: seconds by the
clock and of the processor, with start-up, compilation, evaluation and reports.

    python tools/bench/sweep.py lora MODEL     16 LoRA trials, 4 rates x 4 seeds, on a folder in the
                                               layout of Hugging Face; the stack takes <= 1/2
    python tools/bench/sweep.py tiny           32 trials of a tiny model, all of it trained: <= 1/8
    python tools/bench/sweep.py heads          32 heads over cached outputs of one model: <= 1/20

    [trials=N] [steps=N] [measured=N]          measured: how many processes are run; the time of
                                               all is taken to be in proportion

On a machine that others use, the clock says little: compare the seconds of the processor.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SLOTS = 2
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
BARS = {"lora": 1 / 2, "tiny": 1 / 8, "heads": 1 / 20}
TRIALS = {"lora": 16, "tiny": 32, "heads": 32}
STEPS = {"lora": 16, "tiny": 32, "heads": 32}
SMALL = [
    "model.layers=2",
    "model.embed=32",
    "model.heads=2",
    "model.kv_heads=2",
    "model.head_dim=16",
    "model.mlp=64",
    "model.context=64",
    "model.dropout=0",
]


def options(case: str, folder: Path, model: str, steps: int) -> list[str]:
    """Returns the options that all trials of a case have."""
    common = [
        "task=classify",
        f"data.train={folder / 'train.jsonl'}",
        f"data.validation={folder / 'held.jsonl'}",
        "data.max_length=64",
        "train.batch_size=4",
        f"train.duration={steps}steps",
        f"train.log_every={max(steps // 4, 1)}steps",
        f"evaluation.every={steps}steps",
        f"checkpoint.every={steps}steps",
        "schedule.warmup=1steps",
        "precision=fp32",
        "mesh.data=1",
    ]
    if case == "lora":
        return [*common, f"model.pretrained={model}", "adapter=lora", "model.dropout=0"]
    if case == "tiny":
        return [*common, *SMALL]
    return [*common, f"train.init_from={folder / 'base'}", "train.backbone=cached", *SMALL]


def write_rows(folder: Path) -> None:
    """Writes 80 short labelled texts, and 16 that are held out."""
    from jaxsft.data import synthetic
    from jaxsft.rundir import json_text

    rows = [{"text": r["prompt"], "label": r["language"]} for r in synthetic.generate(0, 96)]
    for name, part in (("train", rows[:80]), ("held", rows[80:])):
        (folder / f"{name}.jsonl").write_text("".join(json_text(row) + "\n" for row in part))


def grid(given: list[str], folder: Path, count: int) -> list[list[str]]:
    """Returns the options of each trial: rates, and seeds beside them."""
    return [
        [
            *given,
            f"optim.learning_rate={RATES[i % len(RATES)]}",
            f"seed={i // len(RATES)}",
            f"run_dir={folder / f'{i:03d}'}",
        ]
        for i in range(count)
    ]


def timed(run: Any) -> tuple[float, float]:
    """Returns the seconds that a call takes, by the clock and of the processes that it ends."""
    spent = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    clock, processor = time.monotonic(), spent()
    run()
    return time.monotonic() - clock, spent() - processor


def start(arguments: list[str], caches: Path) -> subprocess.Popen:
    """Starts Python in a process whose caches are its own."""
    env = {**os.environ, "XDG_CACHE_HOME": str(caches)}
    with open(os.devnull, "w") as nowhere:
        return subprocess.Popen([sys.executable, *arguments], env=env, stdout=nowhere)


def ended(process: subprocess.Popen) -> None:
    """Raises RuntimeError where a process did not end well."""
    if process.wait():
        raise RuntimeError(f"{process.args}: ended with {process.returncode}")


def processes(trials: list[list[str]], caches: Path) -> None:
    """Runs each trial in a process, some at a time."""
    waiting, running = list(trials), []
    while waiting or running:
        while waiting and len(running) < SLOTS:
            running.append(start(["-m", "jaxsft", "train", *waiting.pop(0)], caches))
        for process in [one for one in running if one.poll() is not None]:
            running.remove(process)
            ended(process)
        time.sleep(0.02)


def stack(trials: list[list[str]], caches: Path, folder: Path) -> None:
    """Runs all trials in one process, as one program."""
    (folder / "trials.json").write_text(json.dumps(trials))
    ended(start([__file__, "stack", str(folder / "trials.json")], caches))


def train_stack(path: str) -> None:
    """The process of `stack`."""
    from jaxsft import api

    trials = json.loads(Path(path).read_text())
    results = api.train_stack([api.compose(*given) for given in trials])
    if wrong := [one for one in results if isinstance(one, Exception)]:
        raise wrong[0]


def compare(case: str, model: str, trials: int, steps: int, measured: int) -> float:
    """Prints both times and their ratio, of the clock and of the processor; returns the latter.

    Raises ValueError where so few processes are measured that a slot is empty.
    """
    if measured % SLOTS:
        raise ValueError(f"measured={measured}: expected a multiple of {SLOTS}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder)
        given = options(case, folder, model, steps)
        if case == "heads":
            base = options("tiny", folder, model, 2)
            processes([[*base, f"run_dir={folder / 'base'}"]], folder / "caches")
        stacked = timed(lambda: stack(grid(given, folder / "stack", trials), folder / "a", folder))
        print(
            f"{case}: {trials} trials of {steps} steps as one program: {_said(stacked)}", flush=True
        )
        some = grid(given, folder / "solo", measured)
        alone = timed(lambda: processes(some, folder / "b"))
        alone = tuple(seconds * trials / measured for seconds in alone)
    from_all = "" if measured == trials else f" ({measured} were run)"
    print(f"{case}: {trials} processes, {SLOTS} at a time{from_all}: {_said(alone)}")
    clock, processor = (one / many for one, many in zip(stacked, alone, strict=True))
    print(
        f"{case}: the stack takes 1/{1 / clock:.1f} by the clock, 1/{1 / processor:.1f} of the"
        f" processor; expected 1/{1 / BARS[case]:.0f}",
        flush=True,
    )
    return processor


def _said(seconds: tuple[float, ...]) -> str:
    return f"{seconds[0]:.1f} s by the clock, {seconds[1]:.1f} s of the processor"


def main(arguments: list[str]) -> None:
    if not arguments:
        raise SystemExit(__doc__)
    if arguments[0] == "stack":
        train_stack(arguments[1])
        return
    case, *more = arguments
    if case not in BARS:
        raise SystemExit(__doc__)
    numbers = dict(one.split("=") for one in more if "=" in one)
    model = next((one for one in more if "=" not in one), "")
    trials = int(numbers.get("trials", TRIALS[case]))
    steps = int(numbers.get("steps", STEPS[case]))
    compare(case, model, trials, steps, int(numbers.get("measured", trials)))


if __name__ == "__main__":
    main(sys.argv[1:])
