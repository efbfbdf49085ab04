"""The step, compiled for sixteen TPU chips on a machine that has none: which collectives appear,
and what a chip must hold.
"""

import functools
import importlib.util
import os
import re

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxsft import tasks
from jaxsft.compat import auto_axes
from jaxsft.config.durations import Clock
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.optim.rules.adamw import AdamW
from jaxsft.sharding import mesh as meshes
from jaxsft.training.components import build_components
from jaxsft.training.hyper import make_hyper
from tests import conftest

ROWS, VOCAB, EMBED = 32, 640, 512
MODEL = {
    "layers": 2,
    "embed": EMBED,
    "heads": 8,
    "kv_heads": 4,
    "head_dim": 64,
    "mlp": 2048,
    "context": 512,
    "unroll": "none",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="the TPU compiler is not installed (the extra `aot`)",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def without_flags():
    """The compiler for TPU ends the process for a flag of this machine's that it does not know."""
    jax.devices()  # which has read them
    flags = os.environ.pop("XLA_FLAGS", None)
    yield
    if flags is not None:
        os.environ["XLA_FLAGS"] = flags


@functools.cache
def chips() -> np.ndarray:
    """The sixteen chips of a v5e 4x4, as a description."""
    import libtpu
    from jax.experimental import topologies

    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_LIBRARY_PATH": libtpu.get_library_path()}
    options = {"chip_config_name": "default", "chips_per_host_bounds": (2, 2, 1), "num_slices": 1}
    return np.array(
        topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4", **options).devices
    )


@functools.cache
def compiled(data: int, fsdp: int, tensor: int, length: int = 512, **changes):
    """The training step of a chat model with AdamW, its state spread as the training loop spreads
    it.
    """
    mesh = Mesh(
        chips()[: data * fsdp * tensor].reshape(data, fsdp, 1, tensor),
        meshes.AXES,
        axis_types=auto_axes(4),
    )
    config = conftest.make_config(
        "chat",
        precision="bf16",
        optim=AdamW(learning_rate=3e-4),
        model=MODEL | {"context": length} | changes,
        train={"batch_size": ROWS},
    )
    records = conftest.make_records("chat", 64, longest=length - 32)
    tokenizer = Tokenizer.train((m.content for r in records[0] for m in r.messages), VOCAB, False)
    parts = build_components(
        config, tokenizer, tasks.get("chat").fit(config, tokenizer, *records), mesh
    )
    assert parts.model.vocab == VOCAB
    shaped = lambda tree, places: jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places
    )
    batch = parts.batches(parts.split("train", records), training=True)[0]
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((ROWS, *x.shape[1:]), x.dtype, sharding=meshes.rows(mesh)),
        batch,
    )
    state = jax.eval_shape(
        parts.program.init_state, shaped(parts.specs, meshes.shardings(parts.specs, mesh))
    )
    places = parts.state_shardings(state)
    step = jax.jit(
        parts.program.step, donate_argnums=0, out_shardings=(places, meshes.replicated(mesh))
    )
    # it has no place for programs of a device that is not here
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        return step.lower(
            shaped(state, places), {}, batch, make_hyper(config, Clock(10, 10, 10))
        ).compile()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def results(program, operation: str) -> list[tuple[int, ...]]:
    """The shapes that a collective gives, over the whole program."""
    lines = re.findall(rf"= \(?(.*?) {operation}(?:-start)?\(", program.as_text())
    return [
        tuple(int(n) for n in shape.split(",") if n)
        for line in lines
        for shape in re.findall(r"\w+\[([\d,]*)\]", line)
    ]


def reduces_and_scatters(program) -> bool:
    """As an operation of its own, fused, or as a ring of permutations around a product."""
    return bool(re.search(r"reduce-scatter|collective-permute", program.as_text()))


def test_one_chip_talks_to_nobody():
    assert not any(
        results(compiled(1, 1, 1), op)
        for op in ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
    )


def test_data_parallel_only_adds_gradients():
    assert results(compiled(16, 1, 1), "all-reduce") and not results(
        compiled(16, 1, 1), "all-gather"
    )


@pytest.mark.parametrize("mesh", [(1, 16, 1), (1, 4, 4)], ids=["fsdp", "fsdp x tensor"])
def test_weights_are_gathered_and_gradients_scattered(mesh):
    program = compiled(*mesh)
    assert results(program, "all-gather") and reduces_and_scatters(program)
    activations = ROWS // mesh[1] * MODEL["context"] * EMBED  # of the rows of a chip
    for shape in results(program, "all-gather"):
        of_a_row = len(shape) > 2 and shape[-1] == VOCAB and np.prod(shape) >= VOCAB * ROWS
        assert not of_a_row, f"logits are gathered: {shape}"
        assert np.prod(shape) <= max(EMBED * MODEL["mlp"], activations), (
            f"more than a weight is gathered: {shape}"
        )


def test_a_chip_holds_less_the_more_there_are():
    one, *others = (
        compiled(*mesh).memory_analysis() for mesh in ((1, 1, 1), (1, 16, 1), (1, 4, 4))
    )
    for many in others:
        assert many.argument_size_in_bytes < one.argument_size_in_bytes / 16 * 1.25
        assert many.temp_size_in_bytes < one.temp_size_in_bytes / 8


def test_long_rows_stay_on_their_chips():
    """No array of attention has the rows of the whole batch; the kernel is that of TPUs."""
    text = compiled(1, 16, 1, length=2048).as_text()
    assert "splash" in text
    assert not re.findall(rf"\w+\[{ROWS},(?:2048|16),[\d,]+\]", text)
