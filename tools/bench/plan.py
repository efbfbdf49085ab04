"""Compares what a plan says of a training step with the step itself, on one device of this machine:

    python -m tools.bench.plan [override ...]

Memory is the growth of this process from before its state is made to the peak of two steps;
FLOPs are those that the compiler counts itself, which is right where no loop is left.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft.config.environment import Device
from jaxsft.config.overrides import composed
from jaxsft.planning import compile_ahead
from jaxsft.planning.compiled_text import parse
from jaxsft.planning.costs import costs_of
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import platforms

SIZES = ("argument", "output", "alias", "temp")


def main(words: list[str]) -> dict[str, float]:
    """Returns and prints predictions beside measurements."""
    asked = composed(["task=lm", "mesh.data=1", *words])
    config = compile_ahead.resolved(asked, Device("cpu", 1, 1, platforms.has_bf16()))
    parts, batch = compile_ahead.shape_parts(config, meshes.make_mesh(config.mesh))
    lowered = compile_ahead.lower_step(parts, batch, "step")
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    sizes = [getattr(memory, f"{name}_size_in_bytes") for name in SIZES]
    predicted = sizes[0] + sizes[1] - sizes[2] + sizes[3]
    counted = costs_of(parse(compiled.as_text()))
    analysis = compiled.cost_analysis()
    measured = _peak(compiled, lowered, batch.tokens.shape[1])
    found = {
        "memory predicted": predicted,
        "memory measured": measured,
        "FLOPs predicted": counted.flops,
        "FLOPs of the compiler": float(analysis["flops"]),
        "FLOPs of the model": compile_ahead.step_facts(parts, batch, "cpu")["model_flops"],
    }
    for name, value in found.items():
        print(f"{name:<24}{value:>20,.0f}")
    print(f"memory: measured / predicted {measured / predicted:.3f}")
    print(f"FLOPs: compiler / predicted {float(analysis['flops']) / counted.flops:.3f}")
    return found


def _peak(compiled, lowered, length: int) -> float:
    """Returns the bytes by which this process grows in two steps."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    array = lambda x: jnp.asarray(np.full(x.shape, 1e-3 if x.dtype.kind == "f" else 0, x.dtype))
    (state, frozen, batch, hyper), _ = jax.tree.map(array, lowered.in_avals)
    segments = jnp.ones_like(batch.tokens)
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), segments.shape)
    batch = batch._replace(segment_ids=segments, positions=positions)
    for _ in range(2):
        state, metrics = compiled(state, frozen, batch, hyper)
    assert not bool(metrics.skipped)
    return _status("VmHWM") - before


def _status(name: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024.0 * int(re.search(rf"{name}:\s+(\d+) kB", text)[1])


if __name__ == "__main__":
    main(sys.argv[1:])
