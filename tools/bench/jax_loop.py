"""A worker of train_step.py: jaxsft's own step, evaluation and generation. Arguments: folder,
variant (`packed bf16`).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

from jaxsft.config import compose
from jaxsft.config.durations import Clock
from jaxsft.config.schema import GenerateConfig
from jaxsft.data.pipeline import Batch
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.generation.decoding import generate
from jaxsft.sharding import mesh as meshes
from jaxsft.tasks.loss_terms import objective_value
from jaxsft.training import device
from jaxsft.training.checkpoint import unflatten
from jaxsft.training.components import build_components
from jaxsft.training.hyper import make_hyper


def main(folder: str, variant: str) -> None:
    place, precision = Path(folder), variant.split()[1]
    work = json.loads((place / "work.json").read_text(encoding="utf-8"))
    config = dataclasses.replace(compose.read(place / "config.yaml"), precision=precision)
    parts = build_components(
        config,
        Tokenizer.load(place / "tokenizer"),
        json.loads((place / "task.json").read_text(encoding="utf-8")),
    )
    stored = np.load(place / "weights.npz")
    params = unflatten(
        {name: jax.numpy.asarray(stored[name]) for name in stored.files}, parts.specs
    )
    batches = [load(place / f"packed-{k}.npz") for k in range(work["batches"])]
    hyper = make_hyper(config, Clock(len(batches), 1, 10**6)) | {"warmup": np.float32(0)}
    step = jax.jit(
        parts.program.step, donate_argnums=0, out_shardings=(None, meshes.replicated(parts.mesh))
    )
    evaluate = jax.jit(parts.program.evaluate)
    trained = jax.jit(parts.program.init_state)(params)
    order = itertools.cycle(range(len(batches)))
    first = None

    device.keep_memory()
    for line in sys.stdin:
        asked = json.loads(line)
        done = {"real": 0, "supervised": 0, "texts": 0}
        began = time.perf_counter()
        for _ in range(asked["steps"]):
            if asked["mode"] == "generate":
                how = GenerateConfig(batch_size=len(work["prompts"]))
                out = generate(
                    parts.model,
                    params,
                    work["prompts"],
                    how,
                    max_new_tokens=work["new"],
                    stop_ids=(),
                )
                done["real"] += sum(len(answer.ids) for answer in out)
                continue
            batch = batches[next(order)]
            if asked["mode"] == "train":
                trained, sums = step(trained, {}, batch, hyper)
                terms = sums.terms, sums.totals
            else:
                (*terms, _), _ = evaluate(params, {}, batch, hyper)
            first = (
                first
                if first is not None
                else objective_value(*jax.device_get(terms), hyper["terms"])
            )
            texts = int((batch.example_ids >= 0).sum())
            done["real"] += int(np.count_nonzero(batch.segment_ids))
            done["supervised"] += (
                texts if batch.targets is None else int((batch.loss_weight > 0).sum())
            )
            done["texts"] += texts
            jax.block_until_ready(terms)
        print(
            json.dumps({**done, "seconds": time.perf_counter() - began, "first_loss": first}),
            flush=True,
        )


def load(path: Path) -> Batch:
    a = np.load(path)
    texts = (
        {}
        if "targets" in a.files
        else {"label": a["labels"], "weight": (a["examples"] >= 0).astype(np.float32)}
    )
    by_token = [a["targets"], a["weights"]] if "targets" in a.files else [None, None]
    return Batch(a["tokens"], *by_token, a["segments"], a["positions"], a["examples"], texts)


if __name__ == "__main__":
    main(*sys.argv[1:])
