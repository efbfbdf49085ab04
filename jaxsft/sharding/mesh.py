"""The device mesh, and the rules that map logical axes to mesh axes."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsft.compat import auto_axes
from jaxsft.config import resolve as resolving
from jaxsft.config.schema import AXES, MeshConfig
from jaxsft.errors import ConfigError
from jaxsft.sharding import device_table, platforms
from jaxsft.sharding.device_table import DeviceKind
from jaxsft.sharding.weight_spec import WeightSpec
from jaxsft.sharding.weights import flatten

# Of activations `[rows, sequence, ...]`.
ACTIVATIONS: dict[str, Any] = {"rows": ("data", "fsdp"), "sequence": "context"}
RULES: dict[str, str | None] = {
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "head_dim": None,
    "layers": None,
    "positions": None,
    "classes": None,
    "rank": None,
    "virtual": None,
    "gates": None,
    "units": None,
    "experts": None,
    "experts_out": None,
}


def resolve(config: MeshConfig, rows: int | None = None) -> MeshConfig:
    """Resolves `auto` to a number: all devices that the other axes leave.

    Args:
      rows: of a micro-batch. In one process, `data=auto` takes only as many devices as can share
        them.

    Raises:
      ConfigError: the other axes do not divide the devices.
    """
    return resolving.mesh(config, platforms.facts(), rows)


def make_mesh(config: MeshConfig) -> Mesh:
    """Raises ConfigError where the mesh needs more devices than there are."""
    shape = tuple(getattr(config, axis) for axis in AXES)
    if math.prod(shape) > jax.device_count():
        wanted = " ".join(f"mesh.{axis}={n}" for axis, n in zip(AXES, shape, strict=True))
        raise ConfigError(
            f"{wanted} needs {math.prod(shape)} devices, found {jax.device_count()}; give a smaller"
            " mesh by these options"
        )
    chosen = jax.devices()[: math.prod(shape)]
    if len({d.process_index for d in chosen}) < jax.process_count():
        wanted = " ".join(f"mesh.{axis}={n}" for axis, n in zip(AXES, shape, strict=True))
        raise ConfigError(
            f"{wanted} takes {len(chosen)} of {jax.device_count()} devices and leaves a process"
            " without one; use all of them"
        )
    return jax.make_mesh(shape, AXES, axis_types=auto_axes(len(AXES)), devices=chosen)


def platform_of(mesh: Mesh | None) -> str:
    """Returns the platform that a program is compiled for: that of the mesh, or of this machine."""
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def kind_of(mesh: Mesh | None) -> DeviceKind:
    """Returns the kind of device that a program is compiled for."""
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    return device_table.kind_of(device.platform, device.device_kind)


def partition_spec(spec: WeightSpec, mesh: Mesh, path: str = "") -> PartitionSpec:
    """Returns the mesh axis of each dimension of a weight.

    A dimension that its mesh axis does not divide stays whole; `whole` lists those.

    Raises:
      ValueError: two dimensions want the same mesh axis, or a logical axis has no rule.
    """
    if unknown := [axis for axis in spec.axes if axis not in RULES]:
        raise ValueError(f"{path}: no sharding rule for the logical axes {unknown}")
    wanted = [RULES[axis] for axis in spec.axes]
    used = [axis for axis in wanted if axis and mesh.shape[axis] > 1]
    if len(used) != len(set(used)):
        raise ValueError(f"{path}: two of {spec.axes} are mapped to one mesh axis ({used})")
    return PartitionSpec(
        *(
            axis if axis and n % mesh.shape[axis] == 0 else None
            for axis, n in zip(wanted, spec.shape, strict=True)
        )
    )


def whole(specs: Any, mesh: Mesh) -> list[str]:
    """Returns the paths of weights with a dimension that its mesh axis does not divide."""
    out = []
    for path, spec in jax.tree_util.tree_flatten_with_path(specs)[0]:
        given = partition_spec(spec, mesh)
        if any(
            RULES[a] and mesh.shape[RULES[a]] > 1 and g is None
            for a, g in zip(spec.axes, given, strict=True)
        ):
            out.append("/".join(k.key for k in path))
    return out


def shardings(specs: Any, mesh: Mesh) -> Any:
    """Returns the tree of `NamedSharding` of a tree of `WeightSpec`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, s: NamedSharding(mesh, partition_spec(s, mesh, jax.tree_util.keystr(path))),
        specs,
    )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def sequences(mesh: Mesh, length: int) -> NamedSharding:
    """Returns the sharding of `[batch, seq, ...]` activations."""
    return NamedSharding(mesh, PartitionSpec(ACTIVATIONS["rows"], sequence_axis(mesh, length)))


def sequence_axis(mesh: Mesh | None, length: int) -> str | None:
    """Returns the mesh axis that the tokens of rows of a length are spread over.

    None: each device has whole rows, as it has the single tokens of decoding, which no axis
    divides.
    """
    axis = ACTIVATIONS["sequence"]
    return None if mesh is None or length % mesh.shape[axis] else axis


def check_lengths(mesh: Mesh, row: int, source: int = 0) -> None:
    """Raises ConfigError where `mesh.context` does not divide the tokens of a row, or of a source,
    which every device would then have whole.
    """
    count = mesh.shape["context"]
    for name, length in (("max_length", row), ("max_source_length", source)):
        if length % count:
            raise ConfigError(
                f"mesh.context={count} does not divide rows of {length} tokens; set data.{name} to"
                f" a multiple of it, as {-(-length // count) * count}"
            )


def rows(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of `[batch, ...]` input arrays."""
    return NamedSharding(mesh, PartitionSpec(ACTIVATIONS["rows"]))


def row_shards(mesh: Mesh) -> int:
    return math.prod(mesh.shape[axis] for axis in ACTIVATIONS["rows"])


def rows_here(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns the rows of a global batch that this process's devices hold, in ascending order."""
    slices = rows(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices]))


def place_rows(tree: Any, mesh: Mesh, batch_size: int) -> Any:
    """Makes global arrays `[batch_size, ...]` from the rows of this process."""
    where = rows(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, where)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(where, x, (batch_size, *x.shape[1:])), tree
    )


# --- what lies where
# --------------------------------------------------------------------------------------------------
LARGE = 2**20  # elements: 4 MiB in float32, on every device


def check_spread(tree: Any, mesh: Mesh, allow: bool) -> list[str]:
    """Returns a note for each large array that the mesh should shard but every device holds whole.

    Args:
      tree: arrays, or shapes with shardings.

    Raises:
      ConfigError: there is one, and `allow` is false.
    """
    if mesh.shape["fsdp"] * mesh.shape["tensor"] == 1:
        return []
    found = [
        (path, x)
        for path, x in flatten(tree).items()
        if x.size >= LARGE and x.sharding.is_fully_replicated
    ]
    if found and not allow:
        path, x = found[0]
        raise ConfigError(
            f"{path} {list(x.shape)} would lie whole on each of {mesh.size} devices ({len(found)}"
            f" such arrays): mesh.fsdp={mesh.shape['fsdp']} mesh.tensor={mesh.shape['tensor']}"
            " divide none of its axes; choose sizes that do, or set mesh.allow_replicated=true"
        )
    return [f"{path} {list(x.shape)} lies whole on every device" for path, x in found]


def table(tree: Any) -> str:
    """Formats path, shape, spec and bytes per device of every array, and the sum, as a table."""
    lines, total = [("array", "shape", "spec", "bytes per device")], 0
    for path, x in flatten(tree).items():
        size = math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        total += size
        spec = ", ".join(
            str(axis or "-")
            for axis in (*x.sharding.spec, *[None] * (x.ndim - len(x.sharding.spec)))
        )
        lines.append((path, str(list(x.shape)), f"({spec})", f"{size:,}"))
    lines.append(("sum", "", "", f"{total:,}"))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        "  ".join([*map(str.ljust, line[:3], widths), line[3].rjust(widths[3])]) for line in lines
    )
