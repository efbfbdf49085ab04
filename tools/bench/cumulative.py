"""What each means adds to the training step: padded, packed, chunked loss, bfloat16 operands,
rematerialisation, each on top of those before it.

python tools/bench/cumulative.py task=chat model=small data.train=train.jsonl [any option of jaxsft
train]

Alternating rounds; real tokens per second, the ratio to the first line, and the memory of a step as
the compiler gives it. `padded` is one text per row, padded to the longest of the data.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
import time

import jax
import numpy as np

from jaxsft import tasks
from jaxsft.commands import hydra_app
from jaxsft.config.durations import Clock
from jaxsft.config.schema import Config
from jaxsft.data.chosen_tokenizer import make_tokenizer
from jaxsft.data.splits import read_splits
from jaxsft.sharding import mesh as meshes
from jaxsft.training import device, setup
from jaxsft.training.components import build_components
from jaxsft.training.hyper import make_hyper

STEPS, ROUNDS = 3, 5


class Variant:
    """A compiled step over the batches of one config."""

    def __init__(self, config: Config):
        kind = tasks.get(config.task.name)
        records = read_splits(config, kind)["train"]
        tokenizer = make_tokenizer(config.tokenizer, kind, records[0])
        parts = build_components(
            config, tokenizer, kind.fit(config, tokenizer, records.records, records.where)
        )
        self.batches = parts.batches(parts.split("train", records), training=True)
        self.hyper = make_hyper(
            config, Clock(len(self.batches), self.batches.split.examples, len(self.batches))
        )
        self.state, self.k = jax.jit(parts.program.init_state)(parts.init_params()), 0
        step = jax.jit(
            parts.program.step,
            donate_argnums=0,
            out_shardings=(None, meshes.replicated(parts.mesh)),
        )
        self.step = step.lower(self.state, {}, self.batches[0], self.hyper).compile()
        self.memory = self.step.memory_analysis().temp_size_in_bytes
        self.round()

    def round(self) -> float:
        """Real tokens per second of some steps."""
        tokens, began = 0, time.perf_counter()
        for _ in range(STEPS):
            batch = self.batches[self.k % len(self.batches)]
            tokens += int(np.count_nonzero(batch.segment_ids))
            self.state, sums = self.step(self.state, {}, batch, self.hyper)
            self.k += 1
        jax.block_until_ready(sums)
        return tokens / (time.perf_counter() - began)


def variants(config: Config) -> dict[str, Config]:
    """By name, each with what the ones before it have."""
    change = lambda c, group, **values: dataclasses.replace(
        c, **{group: dataclasses.replace(getattr(c, group), **values)}
    )
    vocabulary = config.task.name != "classify"  # without an output over it there is no loss to cut
    first = change(
        change(dataclasses.replace(config, precision="fp32"), "data", packing=False),
        "model",
        remat=False,
    )
    out = {"padded": change(first, "loss", chunk="none") if vocabulary else first}
    last = out["+ packed"] = change(out["padded"], "data", packing=True)
    if vocabulary:
        last = out["+ chunked loss"] = change(last, "loss", chunk=512)
    last = out["+ bf16 operands"] = dataclasses.replace(last, precision="bf16")
    out["+ remat"] = change(last, "model", remat=True)
    return out


def bench(config: Config) -> int:
    device.keep_memory()
    made = {name: Variant(setup.resolve(changed)) for name, changed in variants(config).items()}
    speeds = {name: [] for name in made}
    for _, (name, variant) in itertools.product(range(ROUNDS), made.items()):
        speeds[name].append(variant.round())
    median = {name: statistics.median(values) for name, values in speeds.items()}
    print(
        "| | rows | real tokens/s | x padded | temporary memory of a step |\n|---|---|---|---|---|"
    )
    for name, value in median.items():
        rows, length = made[name].batches[0].tokens.shape
        print(
            f"| {name} | {rows} x {length} | {value:,.0f} | {value / median['padded']:.2f} |"
            f" {made[name].memory / 2**20:,.0f} MiB |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(hydra_app.run(sys.argv[1:], bench))
