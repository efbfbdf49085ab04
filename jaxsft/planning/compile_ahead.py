"""Compiles a step of a run for devices that need not be there, in a process of its own:

    python -m jaxsft.planning.compile_ahead FOLDER step|evaluate|decode

reads `FOLDER/request.json` and writes there `facts.json` before it compiles, and `program.txt` with
`memory.json` after it. For TPU the optimised program and its memory lie in `FOLDER/dump` minutes
before the machine code does: who waits for them may end this process then.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft import rundir, tasks
from jaxsft.compat import auto_axes
from jaxsft.config import compose
from jaxsft.config import resolve as resolving
from jaxsft.config.durations import Clock
from jaxsft.config.environment import Device, Facts
from jaxsft.config.schema import BytesTokenizer, Config
from jaxsft.config.tasks import LMTask
from jaxsft.data import splits
from jaxsft.data.chosen_tokenizer import make_tokenizer
from jaxsft.data.pipeline import Batch
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.generation import decode_slots, decoding
from jaxsft.generation.kv_cache import cache_dtype
from jaxsft.generation.sampling import Sampling
from jaxsft.hf import pretrained_folder as folders
from jaxsft.models.attention import backends
from jaxsft.models.attention.needs import AttentionNeeds
from jaxsft.models.attention.score_options import ScoreOptions
from jaxsft.models.layer_stack import depth_of
from jaxsft.models.transformer import Transformer
from jaxsft.planning.chips import Topology
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import platforms
from jaxsft.sharding.weights import flatten
from jaxsft.training import (
    components,
    device,
    frozen_weights,
    partition,
    setup,
    started_from,
)
from jaxsft.training.components import Components
from jaxsft.training.hyper import make_hyper

TEXTS = 16  # of a row, where no data says how many


def main(folder: Path, what: str) -> None:
    """Compiles, and writes what came of it; an error of the user into `error.json`."""
    try:
        _compile(folder, what)
    except JaxsftError as error:
        rundir.write_json(folder / "error.json", {"error": str(error)})


def _compile(folder: Path, what: str) -> None:
    request = rundir.read_json(folder / "request.json")
    unasked = tuple((key, value) for key, value in request["unasked"])
    asked = dataclasses.replace(compose.read(folder / "config.yaml"), unasked=unasked)
    topology = None
    if request["topology"]:
        topology = Topology.of(request["topology"], request.get("slices") or 1)
    devices = _tpu_devices(topology) if topology else np.array(platforms.devices())
    kind = "tpu" if topology else platforms.facts().kind
    own = platforms.facts() if topology is None else Device("tpu", devices.size)
    config = resolved(asked, own)
    shape = [getattr(config.mesh, axis) for axis in meshes.AXES]
    mesh = _mesh(devices[: math.prod(shape)], shape, topology.slices if topology else 1)
    parts, batch = _of_data(config, mesh) if _has_data(asked) else shape_parts(config, mesh)
    facts = step_facts(parts, batch, kind)
    if topology is None:
        facts["room"] = device.room(mesh, None)  # bytes
    rundir.write_json(folder / "facts.json", facts)
    lowered = lower_step(parts, batch, what)
    options = {}
    if kind == "tpu":
        options = {"xla_dump_to": str(folder / "dump"), "xla_dump_hlo_as_text": True}
    jax.config.update("jax_enable_compilation_cache", False)
    compiled = lowered.compile(compiler_options=options)
    memory = compiled.memory_analysis()
    names = ("argument", "output", "alias", "temp")
    sizes = {name: int(getattr(memory, f"{name}_size_in_bytes")) for name in names}
    rundir.write_text(folder / "program.txt", compiled.as_text())
    rundir.write_json(folder / "memory.json", sizes)


# --- devices and config
# --------------------------------------------------------------------------------------------------
def _tpu_devices(topology: Topology) -> np.ndarray:
    """Returns the chips of a topology as descriptions. Raises ConfigError without libtpu."""
    try:
        from jax.experimental import topologies

        extra = {
            "chip_config_name": "default",
            "chips_per_host_bounds": tuple(min(2, n) for n in (*topology.dims, 1)),
        }
        found = topologies.get_topology_desc(
            platform="tpu",
            topology_name=topology.name,
            num_slices=topology.slices,
            **({} if topology.kind == "v5p" else extra),
        )
    except Exception as error:  # of the plug-in, of whatever kind
        why = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"plan.topology={topology.name}: the TPU compiler does not know it, or is not here"
            f" (jaxsft[aot] brings it): {why}"
        ) from error
    return np.array(found.devices)


def _mesh(devices: np.ndarray, shape: list[int], slices: int = 1) -> jax.sharding.Mesh:
    """Returns the mesh, in the order that suits the wires where JAX knows it.

    Of several slices each has a part of `mesh.data`. Raises ConfigError where it needs more devices
    than there are.
    """
    if math.prod(shape) != devices.size:
        wanted = " ".join(f"mesh.{axis}={n}" for axis, n in zip(meshes.AXES, shape, strict=True))
        raise ConfigError(f"{wanted} needs {math.prod(shape)} devices, found {devices.size}")
    kinds = auto_axes(len(shape))
    if slices > 1:
        data, *rest = shape
        if data % slices:
            raise ConfigError(f"mesh.data={data} is no multiple of plan.slices={slices}")
        parts = np.split(devices.reshape(-1), slices)
        laid = [_mesh(part, [data // slices, *rest]).devices for part in parts]
        return jax.sharding.Mesh(np.concatenate(laid), meshes.AXES, axis_types=kinds)
    try:
        chosen = list(devices.flat)
        return jax.make_mesh(shape, meshes.AXES, axis_types=kinds, devices=chosen)
    except (ValueError, NotImplementedError):
        return jax.sharding.Mesh(devices.reshape(shape), meshes.AXES, axis_types=kinds)


def _has_data(config: Config) -> bool:
    return bool(config.data.path or config.data.train or config.data.mixture.sources)


def resolved(config: Config, own: Device) -> Config:
    """Returns the config that runs on these devices.

    Without data, `model.pretrained` may be a folder with a config.json and nothing else; the task
    is then `lm`, whose step is that of a chat.
    """
    if _has_data(config):
        return setup.resolve_for(config, own)
    spec = config.task.spec
    if not (spec.over_vocabulary and spec.causal and spec.decoder == "no"):
        raise ConfigError(
            f"task={config.task.name}: what its batches look like hangs on the data; give"
            " data.train=FILE"
        )
    model = config.model
    if model.pretrained:
        source = folders.open_source(Path(model.pretrained), model.part)
        kept = started_from.own_options(config) | {"pretrained": None}
        found = dataclasses.replace(source.model(None), **kept)
        model = started_from.longer(model, found)
    if config.data.max_length != "auto":
        model = dataclasses.replace(model, context=max(model.context, config.data.max_length))
    data = dataclasses.replace(config.data, train="none.jsonl")
    config = dataclasses.replace(
        config, task=LMTask(), data=data, model=model, tokenizer=BytesTokenizer(), unasked=()
    )
    return resolving.resolve(config, Facts(own))


# --- shapes
# --------------------------------------------------------------------------------------------------
def _of_data(config: Config, mesh: jax.sharding.Mesh) -> tuple[Components, Any]:
    """Returns the parts of the run, and a batch of its data as shapes."""
    kind = tasks.get(config.task.name)
    records = splits.read_splits(config, kind)
    tokenizer = make_tokenizer(config.tokenizer, kind, records["train"].records)
    state = components.fitted(config, kind, tokenizer, records)
    parts = components.build_components(config, tokenizer, state, mesh)
    first = parts.batches(parts.split("train", records["train"]), training=True)[0]
    rows, place = config.train.batch_size, meshes.rows(mesh)
    shaped = lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=place)
    return parts, jax.tree.map(shaped, first)


def shape_parts(config: Config, mesh: jax.sharding.Mesh) -> tuple[Components, Any]:
    """Returns the parts of a run on raw text, and a batch of full rows as shapes."""
    tokenizer = Tokenizer.bytes()
    parts = components.build_components(config, tokenizer, {}, mesh)
    longest, context = config.data.max_length, config.model.context
    rows, length = config.train.batch_size, context if longest == "auto" else longest
    meshes.check_lengths(mesh, length)
    place = meshes.rows(mesh)
    array = lambda dtype, width: jax.ShapeDtypeStruct((rows, width), dtype, sharding=place)
    whole, weights = array(jnp.int32, length), array(jnp.float32, length)
    texts = array(jnp.int32, TEXTS)
    return parts, Batch(whole, whole, weights, whole, whole, texts, {})


def _shaped(tree: Any, places: Any) -> Any:
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places
    )


def _weights(parts: Components) -> tuple[Any, Any, Any, Any]:
    """Returns (trainable, frozen, state, its shardings), all as shapes."""
    config = parts.config
    whole = _shaped(parts.specs, meshes.shardings(parts.specs, parts.mesh))
    trainable, _ = partition.partition(whole, parts.specs, config.train.freeze, config.adapter)
    frozen = frozen_weights.shapes(parts)
    state = jax.eval_shape(parts.program.init_state, trainable)
    places = parts.state_shardings(state)
    return trainable, frozen, _shaped(state, places), places


def lower_step(parts: Components, batch: Any, what: str) -> Any:
    """Lowers the training step, or that of an evaluation."""
    trainable, frozen, state, places = _weights(parts)
    hyper, everywhere = make_hyper(parts.config, Clock(10, 10, 10)), meshes.replicated(parts.mesh)
    if what == "step":
        step = jax.jit(parts.program.step, donate_argnums=0, out_shardings=(places, everywhere))
        return step.lower(state, frozen, batch, hyper)
    if what == "decode":
        return _lower_decoding(parts, batch.tokens.shape[1])
    evaluate = jax.jit(parts.program.evaluate, out_shardings=everywhere)
    return evaluate.lower(trainable, frozen, batch, hyper)


def _lower_decoding(parts: Components, prompt: int) -> Any:
    """Lowers the loop that draws tokens, of which costs count one.

    Raises ConfigError for a task that writes nothing token by token.
    """
    config, model, mesh = parts.config, parts.model, parts.mesh
    if not isinstance(model, Transformer) or model.config.decoder_layers or not model.config.causal:
        raise ConfigError(
            "plan.decode=true: the model is no decoder; leave the option out, or give task=lm"
        )
    params = _shaped(parts.specs, meshes.shardings(parts.specs, mesh))
    layers = {
        str(int(start) + i): jax.tree.map(_one_layer, stack)
        for start, stack in params["layers"].items()
        for i in range(depth_of(stack))
    }
    params |= {"layers": layers}  # as `unstacked` leaves them
    shards, wanted = meshes.row_shards(mesh), config.generate.batch_size
    rows, new = -(-wanted // shards) * shards, config.generate.max_new_tokens
    dtype = cache_dtype(model, params)
    make = functools.partial(decode_slots.empty, model, rows, prompt + new, new, dtype, mesh)
    state = jax.eval_shape(make)
    state = _shaped(state, decode_slots.places_of(state, mesh))
    sampling, stop = Sampling.of(config.generate, 0), np.zeros(1, np.int32)
    return decoding.decode.lower(
        model, params, state, state.done, sampling, stop, np.int32(new), np.int32(rows), mesh
    )


def _one_layer(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype, sharding=x.sharding)


def step_facts(parts: Components, batch: Any, platform: str) -> dict[str, Any]:
    """Returns what is known of the step before it is compiled, for one device of the mesh."""
    config, model = parts.config, parts.config.model
    trainable, frozen, state, _ = _weights(parts)
    size = lambda tree: int(
        sum(
            math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
            for x in jax.tree.leaves(tree)
        )
    )
    rows, length = batch.tokens.shape
    specs = (parts.specs, parts.program.specs)
    lengths = np.full(rows, length)
    flops = device.model_flops(config, parts.task, *specs, lengths)
    how = ScoreOptions.of(model, model.causal) if model.kind == "transformer" else None
    chosen, pairs = "none", 0.0
    if how is not None:
        window = model.window if model.window_layers is None else None
        needs = AttentionNeeds(
            length,
            length,
            model.heads,
            model.kv_heads,
            model.head_dim,
            how,
            config.precision,
            True,
            window,
            model.window is not None,
            parts.mesh.shape["context"],
        )
        chosen = backends.choose(model.attention, needs, platform)
        pairs = length * (min(window or length, length) if window else length)
        pairs = pairs / 2 if model.causal and not window else pairs
    n = parts.mesh.size
    return {
        "platform": platform,
        "devices": n,
        "mesh": {axis: int(parts.mesh.shape[axis]) for axis in meshes.AXES},
        "rows": rows,
        "tokens": rows * length,
        "length": length,
        "parameters": int(sum(math.prod(s.shape) for s in flatten(parts.specs).values())),
        "precision": config.precision,
        "attention": chosen,
        "model_flops": flops / n,
        "attended_flops": 2 * pairs * model.heads * model.head_dim * rows / n,
        "state_bytes": {
            "trained weights": size(trainable),
            "frozen weights": size(frozen),
            "optimizer and counters": size(state) - size(state.trainable),
            "batch": size(batch),
        },
    }


def _end_with(parent: int) -> None:
    """Ends this process, which may compile for minutes, when the one that waits for it is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    main(Path(sys.argv[1]), sys.argv[2])
