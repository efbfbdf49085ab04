"""Trainable and frozen parameters apart: only what is trained has a gradient, optimizer state and a
place in the checkpoint.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft import patterns
from jaxsft.config.adapters import AdapterConfig, NoAdapter
from jaxsft.errors import ConfigError
from jaxsft.models import adapters
from jaxsft.models.adapters import targets

Tree = dict[str, Any]
NONE = NoAdapter()


def partition(
    params: Tree, specs: Tree, freeze: Sequence[str], adapter: AdapterConfig = NONE
) -> tuple[Tree, Tree]:
    """Splits parameters into (trainable, frozen) by patterns of virtual paths.

    `layers/[01]/.*` freezes two layers of a stack, `encoder/layers/0/.*` one of an encoder's. With
    an adapter, weights that neither `train.freeze` nor `adapter.train` names are frozen, but for
    the adapter and the head of the task.

    A stack, and that of its adapter alike, is cut into segments of neighbouring layers that are
    frozen alike: the forward pass scans one after the other, and the lower ones, if nothing below
    them is trained, have no backward pass. Works on arrays and on `WeightSpec` alike (`specs` may
    be `params`).

    Raises:
      ConfigError: a pattern matches nothing, or everything is frozen.
    """
    frozen = frozen_mask(specs, freeze, adapter)
    edges: dict[tuple[str, ...], set[int]] = {}
    _find_edges(params, frozen, (), edges)
    cut_params, cut_frozen = _cut(params, frozen, (), edges)
    trainable = _select(cut_params, cut_frozen, 0.0)
    if not jax.tree.leaves(trainable):
        if adapter.name != NoAdapter.name:
            raise ConfigError(
                f"adapter={adapter.name}: has nothing to train in this model; choose another, or"
                " name weights by adapter.train"
            )
        raise ConfigError("train.freeze leaves nothing to train")
    return trainable, _select(cut_params, cut_frozen, 1.0)


def frozen_mask(specs: Tree, freeze: Sequence[str], adapter: AdapterConfig) -> Tree:
    """Returns 1 where a parameter is frozen, 0 where it is trained, as a tree.

    A stack whose layers differ has an array `[n]`.
    """
    rules = [(p, 1.0) for p in freeze]
    if adapter.name == NoAdapter.name:
        return patterns.resolve(rules, specs, 0.0, option="train.freeze")
    rules += [(p, 0.0) for p in adapter.train]
    given = patterns.resolve(
        rules,
        specs,
        math.nan,
        option="train.freeze and adapter.train" if freeze else "adapter.train",
    )
    default = jax.tree_util.tree_map_with_path(
        lambda path, s: float(not adapters.trains(adapter, patterns.path_string(path), s)), specs
    )

    def of_leaf(default: float, found: Any) -> Any:
        filled = np.where(np.isnan(found), default, found)
        return filled if filled.ndim else float(filled)

    return jax.tree.map(of_leaf, default, given)


def merge(a: Tree, b: Tree) -> Tree:
    """Merges two trees with different leaves, as `partition` returns them, into their union.

    Stacks stay cut into segments.
    """
    out = dict(a)
    for key, value in b.items():
        out[key] = merge(out[key], value) if key in out else value
    return out


def join(params: Tree) -> Tree:
    """Joins the segments of each stack into one: the layout that a fresh model has.

    An adapter of some layers stays as many segments as it is.
    """
    out = {}
    for key, child in params.items():
        out[key] = (
            _join(child)
            if is_stack(key, child)
            else join(child)
            if isinstance(child, dict)
            else child
        )
    return out


def _join(layers: Tree) -> Tree:
    """Concatenates neighbouring segments of the same structure along the layer axis."""
    out: list[tuple[int, list[Tree]]] = []
    end = -1
    for start in sorted(layers, key=int):
        stack = layers[start]
        if int(start) == end and jax.tree.structure(stack) == jax.tree.structure(out[-1][1][0]):
            out[-1][1].append(stack)
        else:
            out.append((int(start), [stack]))
        end = int(start) + jax.tree.leaves(stack)[0].shape[0]
    return {
        str(start): (
            jax.tree.map(lambda *w: jnp.concatenate(w), *stacks) if len(stacks) > 1 else stacks[0]
        )
        for start, stacks in out
    }


def is_stack(key: str, child: Any) -> bool:
    """Returns whether a part of a tree is a stack of layers, `layers/<first layer>/...`.

    A model has one, an encoder-decoder model one in each half.
    """
    return key == "layers" and isinstance(child, dict) and all(k.isdigit() for k in child)


def _find_edges(
    params: Tree, frozen: Tree, path: tuple[str, ...], edges: dict[tuple[str, ...], set[int]]
) -> None:
    """Adds to `edges` where segments of layers that are frozen alike begin and end.

    The key is the path of the stack in the base; edges of the base and of its adapter are united.
    """
    for key, child in params.items():
        if is_stack(key, child):
            for start, stack in child.items():
                depth = jax.tree.leaves(stack)[0].shape[0]
                rows = np.stack(
                    [np.broadcast_to(f, depth) for f in jax.tree.leaves(frozen[key][start])], axis=1
                )
                edges.setdefault(_of_base((*path, key)), set()).update(
                    int(start) + edge for run in targets.runs(rows) for edge in run
                )
        elif isinstance(child, dict):
            _find_edges(child, frozen[key], (*path, key), edges)


def _of_base(path: tuple[str, ...]) -> tuple[str, ...]:
    return path[1:] if path[0] == adapters.NAME else path


def _cut(
    params: Tree, frozen: Tree, path: tuple[str, ...], edges: dict[tuple[str, ...], set[int]]
) -> tuple[Tree, Tree]:
    """Cuts every stack of both trees into segments; `frozen` then has one number a leaf."""
    cut_params, cut_frozen = {}, {}
    for key, child in params.items():
        if is_stack(key, child):
            cut_params[key], cut_frozen[key] = {}, {}
            for start, stack in child.items():
                depth = jax.tree.leaves(stack)[0].shape[0]
                inner = [
                    e - int(start)
                    for e in sorted(edges[_of_base((*path, key))])
                    if 0 <= e - int(start) <= depth
                ]
                for first, last in itertools.pairwise(inner):
                    name = str(int(start) + first)
                    cut_params[key][name] = (
                        stack
                        if (first, last) == (0, depth)
                        else jax.tree.map(lambda w: _slice(w, first, last), stack)
                    )
                    cut_frozen[key][name] = jax.tree.map(
                        lambda f: float(f[first] if np.ndim(f) else f), frozen[key][start]
                    )
        elif isinstance(child, dict):
            cut_params[key], cut_frozen[key] = _cut(child, frozen[key], (*path, key), edges)
        else:
            cut_params[key], cut_frozen[key] = child, frozen[key]
    return cut_params, cut_frozen


def _slice(w: Any, first: int, last: int) -> Any:
    if hasattr(w, "axes"):  # a WeightSpec
        n = len(range(w.shape[0])[first:last])
        return type(w)((n, *w.shape[1:]), w.dtype, w.axes, w.inputs)
    return w[first:last]


def _select(tree: Tree, frozen: Tree, value: float) -> Tree:
    out = {}
    for key, child in tree.items():
        if isinstance(child, dict):
            if kept := _select(child, frozen[key], value):
                out[key] = kept
        elif frozen[key] == value:
            out[key] = child
    return out
