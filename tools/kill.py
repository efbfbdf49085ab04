"""Kills runs of two processes at random moments, again and again, lets 1, 2 or 4 processes finish
them, and compares with an undisturbed run.

python tools/kill.py [kills=100] [seed=0] [patience=300]

`patience` is how many seconds a run may take that nobody kills.

A run is killed ten times (`kill -9`: both processes, or one of them, whose loss must end the
other), then finished on the same mesh by 1, 2 or 4 processes in turn. Every logged loss must be
that of the undisturbed run: to the bit where two processes computed it, within 1e-5 of it
elsewhere.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxsft.data import synthetic
from jaxsft.rundir import json_text, read_json, read_jsonl

DEVICES, KILLS_A_RUN, LONGEST = 4, 10, 16.0  # seconds after the start of a run until it is killed
MODEL = {
    "layers": 2,
    "embed": 16,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "mlp": 32,
    "context": 128,
    "dropout": 0.1,
}
OPTIONS = [
    *(
        "task=classify",
        "tokenizer=bytes",
        "precision=fp32",
        "mesh.data=2",
        "mesh.fsdp=2",
        "train.batch_size=8",
        "train.duration=400steps",
    ),
    *(
        "train.log_every=1steps",
        "checkpoint.every=20steps",
        "evaluation.every=50steps",
        *(f"model.{k}={v}" for k, v in MODEL.items()),
    ),
]


def start(folder: Path, run_dir: Path, processes: int) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = (
        f"--xla_force_host_platform_device_count={DEVICES // processes}"
        " --xla_backend_optimization_level=0"
    )
    env = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    data = [
        f"data.train={folder / 'train.jsonl'}",
        f"data.validation={folder / 'held.jsonl'}",
        f"run_dir={run_dir}",
    ]
    joined = lambda i: [
        f"hosts.coordinator=127.0.0.1:{port}",
        f"hosts.count={processes}",
        f"hosts.index={i}",
        "hosts.timeout=10",
        "hosts.wait=20",
    ]
    command = lambda i: [
        sys.executable,
        "-m",
        "jaxsft",
        "train",
        *OPTIONS,
        *data,
        *(joined(i) if processes > 1 else []),
    ]
    log = open(folder / "log.txt", "ab")  # noqa: SIM115 - the processes write to it
    return [
        subprocess.Popen(
            command(i), cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
        for i in range(processes)
    ]


def losses(run_dir: Path) -> dict[tuple[str, int], float]:
    return (
        {(row["kind"], row["step"]): row["loss"] for row in read_jsonl(run_dir / "metrics.jsonl")}
        if (run_dir / "metrics.jsonl").exists()
        else {}
    )


def checkpoint(run_dir: Path) -> int:
    return max(
        (int(p.name) for p in (run_dir / "checkpoints").glob("*") if p.name.isdigit()), default=0
    )


def kill(processes: list[subprocess.Popen], rng: random.Random) -> str | None:
    """Kills both, or one; returns what became of them; None: the run had ended. Raises RuntimeError
    where the other goes on, or one failed.
    """
    if any(p.poll() is not None for p in processes):
        if any(p.wait(60) for p in processes):
            raise RuntimeError(
                f"a process ended by itself with {[p.returncode for p in processes]}"
            )
        return None
    victims = processes if rng.random() < 0.8 else [rng.choice(processes)]
    for p in victims:
        p.send_signal(signal.SIGKILL)
    for p in processes:
        try:
            code = p.wait(60)
        except subprocess.TimeoutExpired:
            p.kill()
            raise RuntimeError("the other process hangs") from None
        if p not in victims and code == 0:
            return "one killed at its end"
    return (
        "both killed"
        if len(victims) == len(processes)
        else f"process {processes.index(victims[0])} killed"
    )


def finish(folder: Path, run_dir: Path, processes: int, patience: int) -> None:
    started = start(folder, run_dir, processes)
    try:
        codes = [p.wait(patience) for p in started]
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            f"{run_dir.name} has not ended after {patience} s; patience=SECONDS waits longer"
        ) from None
    finally:
        for p in started:
            p.kill()  # of one that has ended it does nothing
    if any(codes):
        raise RuntimeError(f"{processes} processes ended with {codes}; see {folder / 'log.txt'}")


def compare(run_dir: Path, whole: Path, exact_until: int) -> None:
    """Raises AssertionError where a number is another one."""
    found, wanted = losses(run_dir), losses(whole)
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())[:5]
    for key, value in wanted.items():
        exact = key[1] <= exact_until
        assert found[key] == value if exact else abs(found[key] - value) <= 1e-5 * abs(value), (
            f"{run_dir}: {key}: {found[key]} != {value}"
        )
    here, there = (read_json(d / "result.json") for d in (run_dir, whole))
    assert here.keys() == there.keys() and all(
        abs(here[k] - there[k]) <= 1e-4 * max(abs(there[k]), 1) for k in there
    ), (here, there)
    predicted = lambda d: [
        line["prediction"] for line in read_jsonl(d / "predictions" / "validation.jsonl")
    ]
    assert predicted(run_dir) == predicted(whole)


def main(kills: int = 100, seed: int = 0, patience: int = 300) -> None:
    rng, done = random.Random(seed), 0
    folder = Path(tempfile.mkdtemp(prefix="jaxsft-kill-"))
    rows = [{"text": r["prompt"], "label": r["language"]} for r in synthetic.generate(0, 320)]
    for name, part in (("train", rows[:256]), ("held", rows[256:])):
        (folder / f"{name}.jsonl").write_text(
            "".join(json_text(row) + "\n" for row in part), encoding="utf-8"
        )
    began = time.monotonic()
    finish(folder, folder / "whole", 2, patience)
    alone = time.monotonic() - began
    longest = max(LONGEST, 0.6 * alone)  # where all is slow, not only the start is to be hit
    print(f"undisturbed: {alone:.0f} s", flush=True)
    for run, last in enumerate([2, 1, 4] * kills):
        if done >= kills:
            break
        run_dir, told = folder / f"run-{run}", []
        for _ in range(min(KILLS_A_RUN, kills - done)):
            processes = start(folder, run_dir, 2)
            time.sleep(rng.uniform(0.0, longest))
            if (how := kill(processes, rng)) is None:
                break
            told.append(f"{how} at {max((step for _, step in losses(run_dir)), default=0)}")
            done += 1
        exact_until = 10**9 if last == 2 else checkpoint(run_dir)
        finish(folder, run_dir, last, patience)
        compare(run_dir, folder / "whole", exact_until)
        print(
            f"run {run}: {', '.join(told)}; finished by {last}: equal ({done} kills,"
            f" {time.monotonic() - began:.0f} s)",
            flush=True,
        )
    print(f"{done} kills, every run ended with the numbers of the undisturbed one")


if __name__ == "__main__":
    main(**{key: int(value) for key, _, value in (a.partition("=") for a in sys.argv[1:])})
