"""Trainable and frozen parameters apart: only what is trained has a gradient, optimizer state and a place in the checkpoint."""

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
from jaxsft.models.adapters import sites
from jaxsft.sharding.weights import LAYERS

Tree = dict[str, Any]
NONE = NoAdapter()


def partition(params: Tree, specs: Tree, freeze: Sequence[str], adapter: AdapterConfig = NONE) -> tuple[Tree, Tree]:
    """(trainable, frozen) by patterns of virtual paths; `layers/[01]/.*` freezes two layers of a stack.

    With an adapter, what nothing names is frozen but for the adapter and the head of the task. The stack, and that of the adapter alike, is cut into
    segments of neighbouring layers that are frozen alike: the forward pass scans one after the other, and the lower ones, if nothing below them is
    trained, have no backward pass. Works on arrays and on `WeightSpec` alike (`specs` may be `params`).

    Raises:
      ConfigError: a pattern matches nothing, or everything is frozen.
    """
    frozen = _frozen(specs, freeze, adapter)
    if freeze or adapter.name != NoAdapter.name:
        params, frozen = _cut_alike(params, frozen)
    trainable = _select(params, frozen, 0.0)
    if not jax.tree.leaves(trainable):
        if adapter.name != NoAdapter.name:
            raise ConfigError(
                f"adapter={adapter.name}: leaves nothing to train in this model; choose another adapter, or name weights by adapter.train"
            )
        raise ConfigError("train.freeze leaves nothing to train")
    return trainable, _select(params, frozen, 1.0)


def _frozen(specs: Tree, freeze: Sequence[str], adapter: AdapterConfig) -> Tree:
    """1 where a parameter is frozen, 0 where it is trained; `[n]` of a stack whose layers differ."""
    rules = [(p, 1.0) for p in freeze]
    if adapter.name == NoAdapter.name:
        return patterns.resolve(rules, specs, 0.0, option="train.freeze")
    rules += [(p, 0.0) for p in adapter.train]
    given = patterns.resolve(rules, specs, math.nan, option="train.freeze and adapter.train" if freeze else "adapter.train")
    default = jax.tree_util.tree_map_with_path(lambda path, s: float(not adapters.trains(adapter, patterns.path_string(path), s)), specs)

    def of_leaf(default: float, found: Any) -> Any:
        filled = np.where(np.isnan(found), default, found)
        return filled if filled.ndim else float(filled)

    return jax.tree.map(of_leaf, default, given)


def _cut_alike(params: Tree, frozen: Tree) -> tuple[Tree, Tree]:
    """Both with every stack cut at the edges of all of them."""
    places = [((LAYERS,), params), ((adapters.NAME, LAYERS), params.get(adapters.NAME, {}))]
    stacks = {path: tree[LAYERS] for path, tree in places if LAYERS in tree}
    flags = {path: frozen[LAYERS] if len(path) == 1 else frozen[adapters.NAME][LAYERS] for path in stacks}
    edges = sorted({edge for path, layers in stacks.items() for start in layers for edge in _edges(int(start), layers[start], flags[path][start])})
    for path, layers in stacks.items():
        pieces, values = {}, {}
        for start, stack in layers.items():
            n = jax.tree.leaves(stack)[0].shape[0]
            inner = [edge - int(start) for edge in edges if 0 <= edge - int(start) <= n]
            for first, last in itertools.pairwise(inner):
                name, whole = str(int(start) + first), (first, last) == (0, n)
                pieces[name] = stack if whole else jax.tree.map(lambda w: _slice(w, first, last), stack)
                values[name] = jax.tree.map(lambda f: float(f[first] if np.ndim(f) else f), flags[path][start])
        params, frozen = (_put(tree, path, new) for tree, new in ((params, pieces), (frozen, values)))
    return params, frozen


def _put(tree: Tree, path: tuple[str, ...], value: Any) -> Tree:
    return {**tree, path[0]: _put(tree[path[0]], path[1:], value) if len(path) > 1 else value}


def _edges(start: int, stack: Tree, frozen: Tree) -> list[int]:
    """Where runs of layers whose leaves are frozen alike begin and end."""
    depth = jax.tree.leaves(stack)[0].shape[0]
    rows = np.stack([np.broadcast_to(f, depth) for f in jax.tree.leaves(frozen)], axis=1)
    return [start + edge for run in sites.runs(rows) for edge in run]


def merge(a: Tree, b: Tree) -> Tree:
    """The union of two trees with different leaves: what `partition` took apart, still cut into segments."""
    out = dict(a)
    for key, value in b.items():
        out[key] = merge(out[key], value) if key in out else value
    return out


def join(params: Tree) -> Tree:
    """One stack again from the segments, of the adapter too: the layout that a fresh model has."""
    out = {**params, LAYERS: _join(params[LAYERS])}
    if LAYERS in params.get(adapters.NAME, {}):
        out[adapters.NAME] = {**params[adapters.NAME], LAYERS: _join(params[adapters.NAME][LAYERS])}
    return out


def _join(layers: Tree) -> Tree:
    """Neighbouring segments of the same structure as one."""
    out: list[tuple[int, list[Tree]]] = []
    end = -1
    for start in sorted(layers, key=int):
        stack = layers[start]
        if int(start) == end and jax.tree.structure(stack) == jax.tree.structure(out[-1][1][0]):
            out[-1][1].append(stack)
        else:
            out.append((int(start), [stack]))
        end = int(start) + jax.tree.leaves(stack)[0].shape[0]
    return {str(start): jax.tree.map(lambda *w: jnp.concatenate(w), *stacks) if len(stacks) > 1 else stacks[0] for start, stacks in out}


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
