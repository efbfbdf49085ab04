"""Training step, evaluation and greedy generation of jaxsft against PyTorch with transformers: same
data, weights and sizes, in alternating rounds.

python tools/bench/train_step.py task=chat model=small tokenizer=bpe data.train=train.jsonl [any
option of jaxsft train]

Each variant is a process of its own that works only when it is its turn. `padded` takes as many
examples as a packed step has on average and pads them to the longest of the batch, as such loops
do; `packed` takes the very rows that jaxsft packed, with the mask that keeps texts apart. All start
from the same weights; the loss of the first batch is printed, and must agree. PyTorch and
transformers come with the extra `bench`; BENCH_PYTHON names another interpreter that has them.
BENCH_MODES and BENCH_VARIANTS choose what is measured, separated by commas (`BENCH_VARIANTS=all`:
the slow ones too, such as torch.compile in bfloat16). Rounds go on until BENCH_SECONDS
(150, of all modes and without compiling) are over, one at least and five at most.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import tasks
from jaxsft.commands import hydra_app
from jaxsft.config import compose
from jaxsft.config.schema import Config
from jaxsft.data.chosen_tokenizer import make_tokenizer
from jaxsft.data.pipeline import Batches
from jaxsft.data.splits import read_splits
from jaxsft.errors import ConfigError
from jaxsft.sharding import platforms
from jaxsft.training import setup
from jaxsft.training.checkpoint import flatten
from jaxsft.training.components import build_components

BATCHES, ROUNDS, STEPS = 12, 5, 1
PROMPTS, PROMPT, NEW = 8, 64, 64  # of generation
TORCH = [
    "padded fp32 eager",
    "packed fp32 eager",
    "packed fp32 compiled",
    "padded bf16 eager",
    "packed bf16 eager",
    "packed bf16 compiled",
]
SLOW = ("torch padded bf16 eager", "torch packed bf16 compiled")  # by BENCH_VARIANTS only
OURS = ["packed fp32", "packed bf16"]
MODES = {"train": 0.6, "evaluate": 0.2, "generate": 0.2}  # the part of the time that each may take


class Worker:
    """A variant in a process of its own; it answers one JSON line to each line."""

    def __init__(self, name: str, command: list[str]):
        env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
        self.name, self.process = (
            name,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
            ),
        )

    def ask(self, mode: str, steps: int) -> dict[str, Any]:
        """Seconds, and how many real tokens, supervised tokens and examples were done in them.
        Raises RuntimeError where the worker died.
        """
        self.process.stdin.write(json.dumps({"mode": mode, "steps": steps}) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended with {self.process.wait()}")


def packed_batch(batches: Batches, step: int) -> dict[str, np.ndarray]:
    batch = batches[step]
    out = {
        "tokens": batch.tokens,
        "segments": batch.segment_ids,
        "positions": batch.positions,
        "examples": batch.example_ids,
    }
    if batch.targets is not None:
        return out | {"targets": batch.targets, "weights": batch.loss_weight}
    return out | {"labels": batch.segment["label"]}


def padded_batch(batches: Batches, examples: np.ndarray) -> dict[str, np.ndarray]:
    """One example a row, filled up on the right to the longest."""
    arrays = batches.split.arrays
    longest = int(batches.split.lengths[examples].max())

    def rows(name: str) -> np.ndarray:
        out = np.zeros((len(examples), longest), arrays[name].dtype)
        for row, example in zip(out, examples, strict=True):
            start, stop = arrays["offsets"][example : example + 2]
            row[: stop - start] = arrays[name][start:stop]
        return out

    real = np.arange(longest) < batches.split.lengths[examples][:, None]
    out = {
        "tokens": rows("tokens"),
        "segments": real.astype(np.int32),
        "examples": examples[:, None],
    }
    out["positions"] = np.where(real, np.arange(longest), 0).astype(np.int32)
    if "targets" in arrays:
        return out | {"targets": rows("targets"), "weights": rows("loss_weight")}
    return out | {"labels": arrays["segment.label"][examples][:, None]}


def write_work(config: Config, folder: Path) -> None:
    """Batches, weights and sizes, for all workers."""
    kind = tasks.get(config.task.name)
    records = read_splits(config, kind)["train"]
    tokenizer = make_tokenizer(config.tokenizer, kind, records[0])
    parts = build_components(
        config, tokenizer, kind.fit(config, tokenizer, records.records, records.where)
    )
    batches = parts.batches(parts.split("train", records), training=True)
    count = min(BATCHES, len(batches))
    per_step = max(round(batches.split.examples / len(batches)), 1)
    order = np.random.default_rng(0).permutation(batches.split.examples)
    for k in range(count):
        np.savez(folder / f"packed-{k}.npz", **packed_batch(batches, k))
        some = np.take(order, range(k * per_step, (k + 1) * per_step), mode="wrap")
        np.savez(folder / f"padded-{k}.npz", **padded_batch(batches, some))
    # What every loop must compute alike before a speed means anything: the loss of the first packed
    # batch.
    np.savez(
        folder / "weights.npz",
        **{name: np.asarray(x) for name, x in flatten(parts.init_params()).items()},
    )
    rng = np.random.default_rng(1)
    sizes = {
        "vocab": tokenizer.vocab_size,
        "batches": count,
        "classes": len(parts.task.state.get("labels", ())),
    }
    generation = {
        "prompts": rng.integers(0, tokenizer.vocab_size, (PROMPTS, PROMPT)).tolist(),
        "new": NEW,
    }
    work = {
        "model": dataclasses.asdict(config.model),
        "train": {"learning_rate": config.optim.learning_rate},
        **sizes,
        **generation,
    }
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    (folder / "task.json").write_text(json.dumps(parts.task.state), encoding="utf-8")
    tokenizer.save(folder / "tokenizer")
    (folder / "config.yaml").write_text(compose.to_yaml(config), encoding="utf-8")
    fill = np.count_nonzero(batches[0].segment_ids) / batches[0].tokens.size
    wide = [np.load(folder / f"padded-{k}.npz")["segments"] for k in range(count)]
    print(
        f"{sum(np.asarray(x).size for x in flatten(parts.init_params()).values()):,} parameters;"
        f" packed {batches[0].tokens.shape}, fill {fill:.2f}; padded {wide[0].shape}, fill"
        f" {sum(w.sum() for w in wide) / sum(w.size for w in wide):.2f}; {per_step} examples a step"
    )


def interpreter() -> str:
    """One that has PyTorch and transformers. Raises ConfigError."""
    if python := os.environ.get("BENCH_PYTHON"):
        return python
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        return sys.executable
    raise ConfigError(
        "PyTorch and transformers are not installed: pip install 'jaxsft[bench]', or set"
        " BENCH_PYTHON to an interpreter that has them"
    )


def measure(workers: list[Worker], mode: str, causal: bool) -> None:
    """Alternating rounds of one mode, and a line for each variant: medians, and ratios to the
    padded and to the packed and compiled fp32 loop.
    """
    asked = [w for w in workers if mode != "generate" or (causal and "padded" not in w.name)]
    if not asked:
        return
    warm = {w.name: w.ask(mode, 2) for w in asked}
    found: dict[str, list[dict]] = {w.name: [] for w in asked}
    end = time.monotonic() + MODES[mode] * float(os.environ.get("BENCH_SECONDS", "150"))
    for done in range(ROUNDS):
        if done and time.monotonic() > end:
            break
        for worker in asked:
            found[worker.name].append(worker.ask(mode, STEPS))
    rate = lambda rows, what: statistics.median(row[what] / row["seconds"] for row in rows)
    real = {name: rate(rows, "real") for name, rows in found.items()}
    base = [
        name
        for name in (
            "torch padded fp32 eager",
            "torch packed fp32 compiled",
            "torch packed fp32 eager",
        )
        if name in real
    ][:2]
    print(
        f"\n{mode}: median of {len(found[asked[0].name])} rounds of {STEPS}; first loss"
        + "".join(f"; x {name}" for name in base)
    )
    for name, value in real.items():
        spread = [row["real"] / row["seconds"] for row in found[name]]
        more = (
            f"{rate(found[name], 'supervised'):9,.0f} supervised/s"
            f" {rate(found[name], 'texts'):7,.1f} texts/s"
            if mode == "train"
            else ""
        )
        ratios = "  ".join(f"{value / real[b]:5.2f}" for b in base)
        first = warm[name].get("first_loss")
        loss = "" if first is None else f"{first:.4f}"
        print(
            f"{name:<28} {value:9,.0f} real tokens/s ({min(spread):,.0f}-{max(spread):,.0f}) {more}"
            f"  {loss}  {ratios}"
        )


def bench(config: Config) -> int:
    config = setup.resolve(config)
    if (
        (m := config.model).norm != "rms"
        or not m.gated
        or m.positions != "rope"
        or m.norm_position != "pre"
        or m.activation != "silu"
        or m.dropout
    ):
        raise ConfigError(
            "the PyTorch model is a Llama: set model.norm=rms model.gated=true model.positions=rope"
            " model.dropout=0"
        )
    if config.task.name == "classify" and (config.task.head, config.task.pool) != (
        "linear",
        "mean",
    ):
        raise ConfigError(
            "the PyTorch head is one linear layer on the mean of the states: set task.head=linear"
            " task.pool=mean"
        )
    if config.loss.label_smoothing or config.loss.z_loss:
        raise ConfigError(
            "the PyTorch loss is plain cross-entropy: set loss.label_smoothing=0 loss.z_loss=0"
        )
    here = Path(__file__).parent
    variants = [*(f"torch {n}" for n in TORCH), *(f"jaxsft {n}" for n in OURS)]
    here_is = platforms.facts()
    if here_is.kind == "cpu" and not here_is.bf16:
        variants = [name for name in variants if "bf16" not in name]
        print("no bf16: this CPU only emulates it; BENCH_VARIANTS names it all the same")
    asked = os.environ.get("BENCH_VARIANTS", "")
    usual = [name for name in variants if name not in SLOW]
    chosen = variants if asked == "all" else asked.split(",") if asked else usual
    python = interpreter() if any(name.startswith("torch ") for name in chosen) else ""
    modes = os.environ.get("BENCH_MODES", ",".join(MODES)).split(",")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_work(config, Path(folder))
        workers = []
        for name in chosen:
            side, _, variant = name.partition(" ")
            command = (
                [python, str(here / "torch_loop.py")]
                if side == "torch"
                else [sys.executable, str(here / "jax_loop.py")]
            )
            workers.append(Worker(name, [*command, folder, variant]))
            stack.callback(workers[-1].process.kill)
        for mode in modes:
            measure(workers, mode, config.model.causal)
    return 0


if __name__ == "__main__":
    sys.exit(hydra_app.run(sys.argv[1:], bench))
