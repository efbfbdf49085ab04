"""Real tokens per second of the training step: packed against one text per row (padded to the longest), in bf16 and fp32, in alternating rounds.

python tools/bench/packing.py task=classify data.train=train.csv [any option of jaxsft train]
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
from jaxsft.sharding import mesh as meshes
from jaxsft.training import setup
from jaxsft.training.step import make_hyper

STEPS, ROUNDS = 4, 5


class Variant:
    """A compiled step over the batches of one config."""

    def __init__(self, config: Config):
        kind = tasks.get(config.task.name)
        records = setup.read_splits(config, kind)["train"]
        tokenizer = setup.make_tokenizer(config, kind, records[0])
        parts = setup.make_parts(config, tokenizer, kind.fit(config, tokenizer, *records))
        self.batches = parts.batches(parts.split("train", records), training=True)
        self.hyper = make_hyper(config, Clock(len(self.batches), self.batches.split.examples, len(self.batches)))
        self.step = jax.jit(parts.program.step, donate_argnums=0, out_shardings=(None, meshes.replicated(parts.mesh)))
        self.state, self.k = jax.jit(parts.program.init_state)(parts.init_params()), 0
        self.round()  # compiles

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


def bench(config: Config) -> int:
    variants = {}
    for packing, precision in itertools.product((False, True), ("fp32", "bf16")):
        changed = dataclasses.replace(config, precision=precision, data=dataclasses.replace(config.data, packing=packing))
        variants[f"{'packed' if packing else 'padded'} {precision}"] = Variant(setup.resolve(changed))
    speeds = {name: [] for name in variants}
    for _, (name, variant) in itertools.product(range(ROUNDS), variants.items()):
        speeds[name].append(variant.round())
    median = {name: statistics.median(values) for name, values in speeds.items()}
    for name, value in median.items():
        shape = variants[name].batches[0].tokens.shape
        print(f"{name:<12} rows {shape[0]} x {shape[1]:<5} {value:9,.0f} real tokens/s   {value / median['padded fp32']:.2f} x padded fp32")
    return 0


if __name__ == "__main__":
    sys.exit(hydra_app.run(sys.argv[1:], bench))
