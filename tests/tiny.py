"""Small data files, the smallest model, and ways to run the command line: what the tests of whole
runs share.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from jaxsft import cli
from jaxsft.config import compose, overrides, schema
from jaxsft.data import synthetic
from jaxsft.optim.rules.adamw import AdamW
from jaxsft.rundir import json_text, read_json, read_jsonl, write_json
from jaxsft.training import loop
from jaxsft.training.recorder import Result
from tests import xla

RATES = ("tokens_per_second", "model_flops_per_second", "mfu")  # they depend on the machine
MODEL = [
    "model.layers=2",
    "model.embed=16",
    "model.heads=2",
    "model.kv_heads=2",
    "model.head_dim=8",
    "model.mlp=32",
    "model.context=128",
]
FAST = [
    *MODEL,
    "precision=fp32",
    "train.duration=4steps",
    "evaluation.generate=never",
    "generate.max_new_tokens=4",
    "mesh.data=1",
]


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json_text(row) + "\n" for row in rows), encoding="utf-8")
    return path


def data(folder: Path) -> Path:
    """chat.jsonl, chat_held.jsonl, labels.jsonl, labels_held.jsonl, book.txt and labels.tsv (no
    header) in a folder.
    """
    rows = synthetic.generate(0, 40)
    labels = [{"text": r["prompt"], "label": r["language"]} for r in rows]
    write_lines(folder / "chat.jsonl", rows[:28])
    write_lines(folder / "chat_held.jsonl", rows[28:])
    write_lines(folder / "labels.jsonl", labels[:28])
    write_lines(folder / "labels_held.jsonl", labels[28:])
    (folder / "book.txt").write_text(
        "\n".join(f"{r['prompt']} {r['completion']}" for r in rows) + "\n", encoding="utf-8"
    )
    (folder / "labels.tsv").write_text(
        "".join(f"{r['label']}\t{r['text']}\n" for r in labels), encoding="utf-8"
    )
    return folder


def config(folder: Path, run_dir: Path, /, task: str = "chat", **groups: dict) -> schema.Config:
    """A small run with dropout, validation after every epoch and held-out data; each group is a
    dict of what differs.
    """
    stem = {"chat": "chat", "classify": "labels"}.get(task)
    files = (
        {"train": str(folder / f"{stem}.jsonl"), "validation": str(folder / f"{stem}_held.jsonl")}
        if stem
        else {"train": str(folder / "book.txt")}
    )
    given = {
        "data": files,
        "model": {
            "layers": 2,
            "embed": 16,
            "heads": 2,
            "kv_heads": 2,
            "head_dim": 8,
            "mlp": 32,
            "context": 128,
            "causal": task != "classify",
            "dropout": 0.1,
        },
        "train": {"duration": "12steps", "batch_size": 4, "log_every": "1steps"},
        "evaluation": {"generate": "never", "every": "4steps"},
        "checkpoint": {"every": "4steps"},
    }
    types = {
        "data": schema.DataConfig,
        "model": schema.ModelConfig,
        "train": schema.TrainConfig,
        "evaluation": schema.EvaluationConfig,
    }
    types |= {
        "checkpoint": schema.CheckpointConfig,
        "generate": schema.GenerateConfig,
        "loss": schema.LossConfig,
        "seeds": schema.Seeds,
    }
    made = {
        name: cls(**(given.get(name, {}) | groups.get(name, {}))) for name, cls in types.items()
    }
    plain = {k: v for k, v in groups.items() if k not in types}
    base = {
        "optim": AdamW(learning_rate=1e-2),
        "schedule": schema.SCHEDULES["cosine"](warmup="0steps"),
        "precision": "fp32",
        "mesh": schema.MeshConfig(data=1),
        "run_dir": str(run_dir),
    }
    return schema.Config(task=compose.GROUPS["task"][task](), **{**base, **made, **plain})


def jaxsft(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def train(*arguments: str) -> Result:
    """Trains in this process, without the pages: composed once, where the command line composes
    three times. Raises what the command line tells.
    """
    return loop.train(overrides.composed(arguments))


def start(*arguments: str, cwd: Path) -> subprocess.Popen:
    """The command line in a process of its own, with one virtual device."""
    env = {
        **os.environ,
        "XLA_FLAGS": xla.flags(),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "jaxsft", *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def meta(run_dir: Path, step: int) -> dict:
    """What a run keeps of a step beside its arrays."""
    return json.loads((run_dir / "checkpoints" / str(step) / "meta" / "metadata").read_text())


def unsealed(run_dir: Path) -> Path:
    """The run directory as it was before manifests and steps had hashes of files and names of
    runs."""
    manifest = {
        k: v for k, v in read_json(run_dir / "manifest.json").items() if k not in ("run", "files")
    }
    write_json(run_dir / "manifest.json", manifest)
    (run_dir / "steps.json").unlink()
    for path in (run_dir / "checkpoints").glob("*/meta/metadata"):
        path.write_text(
            json.dumps(
                {
                    k: v
                    for k, v in json.loads(path.read_text()).items()
                    if k not in ("run", "step", "sum")
                }
            )
        )
    return run_dir


def outcome(run_dir: Path) -> dict:
    """Everything that a run came to and that must not depend on how often it was interrupted."""
    lines = [
        {k: v for k, v in line.items() if k not in RATES}
        for line in read_jsonl(run_dir / "metrics.jsonl")
    ]
    predictions = {p.name: p.read_bytes() for p in sorted((run_dir / "predictions").glob("*"))}
    return {
        "result": read_json(run_dir / "result.json"),
        "metrics": lines,
        "predictions": predictions,
    }
