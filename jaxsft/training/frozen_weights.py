"""The weights that are not trained, as they are held: in float32, or in 8 or 4 bits
(`model.frozen_dtype`), which a layer widens when its turn in the scan comes (QLoRA: Dettmers et
al., 2023, arXiv:2305.14314).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxsft import quantised
from jaxsft.errors import ConfigError
from jaxsft.hf import read
from jaxsft.models.model_base import Params
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.weight_spec import WeightSpec
from jaxsft.sharding.weights import flatten
from jaxsft.training import partition
from jaxsft.training.components import Components

FLOAT = "float"  # of `model.frozen_dtype`


def are_quantised(parts: Components) -> bool:
    """Returns whether a run holds weights that it does not train in few bits."""
    return parts.config.model.frozen_dtype != FLOAT


def split(parts: Components, params: Params) -> tuple[Params, Params]:
    """Splits parameters into those that are trained and those that are not, as they are held.

    Raises:
      ConfigError: as `partition.partition`; or nothing that is frozen can be held in few bits.
    """
    rules = (parts.config.train.freeze, parts.config.adapter)
    trainable, frozen = partition.partition(params, parts.specs, *rules)
    if not are_quantised(parts):
        return trainable, frozen
    del params
    kind, specs = parts.config.model.frozen_dtype, chosen(parts)
    leaves, tree = jax.tree.flatten(frozen)
    del frozen
    for i, path in enumerate(flatten(_specs(parts))):
        if path in specs:  # one after the other, so that no more than one is held twice
            places = _places(parts, specs[path], kind)
            leaves[i] = _quantising(kind, specs[path], places)(leaves[i])
    return trainable, jax.tree.unflatten(tree, leaves)


def shapes(parts: Components) -> Params:
    """Returns shape, dtype and sharding of the weights that are not trained, as they are held."""
    specs, quantised_specs = _specs(parts), chosen(parts) if are_quantised(parts) else {}
    kind = parts.config.model.frozen_dtype
    placed = flatten(meshes.shardings(specs, parts.mesh))

    def of(path: str, spec: WeightSpec) -> Any:
        if path not in quantised_specs:
            return jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=placed[path])
        shape, places = _shape(kind, spec), _places(parts, spec, kind)
        like = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        return jax.tree.map(like, shape, places)

    made = [of(path, spec) for path, spec in flatten(specs).items()]
    return jax.tree.unflatten(jax.tree.structure(specs), made)


def widened(parts: Components, params: Params) -> Params:
    """Returns parameters whose frozen weights have the values that they have where they are held
    in few bits: what an adapter starts from.
    """
    if not are_quantised(parts):
        return params
    return partition.join(quantised.widened(partition.merge(*split(parts, params))))


def chosen(parts: Components) -> Mapping[str, WeightSpec]:
    """Returns the frozen weights that are held in few bits, by path.

    They are the matrices that linear layers of the body read, and the embedding of tokens where
    nothing else reads it. Raises ConfigError where there is none.
    """
    specs = flatten(_specs(parts))
    found = read.read_by_products(specs)
    if not parts.config.task.spec.over_vocabulary:
        found |= {"embed/tokens/w"} & specs.keys()
    if not found:
        raise ConfigError(
            f"model.frozen_dtype={parts.config.model.frozen_dtype}: no linear layer is frozen; set"
            " adapter=lora or train.freeze, or leave the option out"
        )
    return {path: specs[path] for path in found}


def told(parts: Components) -> list[str]:
    """Returns the line of the banner about what is held in few bits; none where nothing is."""
    if not are_quantised(parts):
        return []
    specs = chosen(parts)
    full = 4 * sum(math.prod(spec.shape) for spec in specs.values())
    held = sum(_bytes(_shape(parts.config.model.frozen_dtype, spec)) for spec in specs.values())
    return [
        f"{len(specs)} frozen weights are held in {parts.config.model.frozen_dtype}:"
        f" {held / 2**20:,.2f} MiB, {held / full:.1%} of the {full / 2**20:,.2f} MiB in float32"
        f" ({8 * held / (full / 4):.2f} bits a weight)"
    ]


def _specs(parts: Components) -> Params:
    rules = (parts.config.train.freeze, parts.config.adapter)
    return partition.partition(parts.specs, parts.specs, *rules)[1]


def _shape(kind: str, spec: WeightSpec) -> quantised.Quantised:
    like = jax.ShapeDtypeStruct(spec.shape, spec.dtype)
    return jax.eval_shape(lambda w: quantised.quantise(w, kind, spec.inputs, spec.stacked), like)


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _places(parts: Components, spec: WeightSpec, kind: str) -> quantised.Quantised:
    """Returns the sharding of each array: its blocks are spread over `fsdp` where that divides
    them.
    """
    mesh, axis = parts.mesh, int(spec.stacked)

    def place(x: jax.ShapeDtypeStruct) -> NamedSharding:
        spread = x.shape[axis] % mesh.shape["fsdp"] == 0
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp" if spread else None))

    return jax.tree.map(place, _shape(kind, spec))


@functools.cache
def _quantising(kind: str, spec: WeightSpec, places: quantised.Quantised) -> Any:
    """Returns the program that quantises weights of this description."""
    make = lambda w: quantised.quantise(w, kind, spec.inputs, spec.stacked)
    return jax.jit(make, out_shardings=places)
