"""The device mesh, and the rules from logical axes to it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsft.compat import auto_axes
from jaxsft.config.schema import MeshConfig
from jaxsft.errors import ConfigError
from jaxsft.sharding.weights import WeightSpec

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # the mesh axes that rows are spread over
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
}


def make_mesh(config: MeshConfig) -> Mesh:
    """Raises ConfigError where the mesh needs more devices than there are."""
    shape = tuple(getattr(config, axis) for axis in AXES)
    if min(shape) < 1 or np.prod(shape) > jax.device_count():
        wanted = " ".join(f"mesh.{axis}={n}" for axis, n in zip(AXES, shape, strict=True))
        raise ConfigError(f"{wanted} needs {np.prod(shape)} devices, found {jax.device_count()}; give a smaller mesh by these options")
    return jax.make_mesh(shape, AXES, axis_types=auto_axes(3), devices=jax.devices()[: int(np.prod(shape))])


def partition_spec(spec: WeightSpec, mesh: Mesh, path: str = "") -> PartitionSpec:
    """The mesh axis of each dimension. A dimension that its mesh axis does not divide stays whole; `whole` lists those.

    Raises:
      ValueError: two dimensions want the same mesh axis, or a logical axis has no rule.
    """
    if unknown := [axis for axis in spec.axes if axis not in RULES]:
        raise ValueError(f"{path}: no sharding rule for the logical axes {unknown}")
    wanted = [RULES[axis] for axis in spec.axes]
    used = [axis for axis in wanted if axis and mesh.shape[axis] > 1]
    if len(used) != len(set(used)):
        raise ValueError(f"{path}: two of {spec.axes} are mapped to one mesh axis ({used})")
    return PartitionSpec(*(axis if axis and n % mesh.shape[axis] == 0 else None for axis, n in zip(wanted, spec.shape, strict=True)))


def whole(specs: Any, mesh: Mesh) -> list[str]:
    """The paths whose rule could not be followed, because the mesh axis does not divide the dimension."""
    out = []
    for path, spec in jax.tree_util.tree_flatten_with_path(specs)[0]:
        given = partition_spec(spec, mesh)
        if any(RULES[a] and mesh.shape[RULES[a]] > 1 and g is None for a, g in zip(spec.axes, given, strict=True)):
            out.append("/".join(k.key for k in path))
    return out


def shardings(specs: Any, mesh: Mesh) -> Any:
    """The tree of `NamedSharding` of a tree of `WeightSpec`."""
    return jax.tree_util.tree_map_with_path(lambda path, s: NamedSharding(mesh, partition_spec(s, mesh, jax.tree_util.keystr(path))), specs)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """The sharding of `[batch, ...]` arrays."""
    return NamedSharding(mesh, PartitionSpec(BATCH))
