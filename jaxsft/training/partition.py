"""Trainable and frozen parameters apart: only what is trained has a gradient, optimizer state and a place in the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft import patterns
from jaxsft.errors import ConfigError

Tree = dict[str, Any]


def partition(params: Tree, specs: Tree, freeze: Sequence[str]) -> tuple[Tree, Tree]:
    """(trainable, frozen) by patterns of virtual paths; `layers/[01]/.*` freezes two layers of a stack, `encoder/layers/0/.*` one of an encoder's.

    A stack is cut into segments of neighbouring layers that are frozen alike: the forward pass scans one after the other, and the lower ones,
    if nothing below them is trained, have no backward pass. Works on arrays and on `WeightSpec` alike (`specs` may be `params`).

    Raises:
      ConfigError: a pattern matches nothing, or everything is frozen.
    """
    frozen = patterns.resolve([(p, 1.0) for p in freeze], specs, 0.0, option="train.freeze")
    cut_params, cut_frozen = _cut(params, frozen)
    trainable = _select(cut_params, cut_frozen, 0.0)
    if not jax.tree.leaves(trainable):
        raise ConfigError("train.freeze leaves nothing to train")
    return trainable, _select(cut_params, cut_frozen, 1.0)


def merge(a: Tree, b: Tree) -> Tree:
    """The union of two trees with different leaves: what `partition` took apart, still cut into segments."""
    out = dict(a)
    for key, value in b.items():
        out[key] = merge(out[key], value) if key in out else value
    return out


def join(params: Tree) -> Tree:
    """Each stack as one again from its segments: the layout that a fresh model has."""
    out = {}
    for key, child in params.items():
        if is_stack(key, child):
            stacks = [child[k] for k in sorted(child, key=int)]
            out[key] = {"0": jax.tree.map(lambda *w: jnp.concatenate(w), *stacks) if len(stacks) > 1 else stacks[0]}
        else:
            out[key] = join(child) if isinstance(child, dict) else child
    return out


def is_stack(key: str, child: Any) -> bool:
    """Whether this part of a tree is `layers/<first layer>/...`: one of the model's, or one of each of its halves."""
    return key == "layers" and isinstance(child, dict) and all(k.isdigit() for k in child)


def _cut(params: Tree, frozen: Tree) -> tuple[Tree, Tree]:
    """Both trees with every stack cut into segments that are frozen alike; what is frozen as one number a leaf."""
    cut_params, cut_frozen = {}, {}
    for key, child in params.items():
        if is_stack(key, child):
            cut_params[key], cut_frozen[key] = {}, {}
            for start, stack in child.items():
                for first, last in _runs(frozen[key][start]):
                    name = str(int(start) + first)
                    cut_params[key][name] = jax.tree.map(lambda w: _slice(w, first, last), stack)
                    cut_frozen[key][name] = jax.tree.map(lambda f: float(f[first] if np.ndim(f) else f), frozen[key][start])
        elif isinstance(child, dict):
            cut_params[key], cut_frozen[key] = _cut(child, frozen[key])
        else:
            cut_params[key], cut_frozen[key] = child, frozen[key]
    return cut_params, cut_frozen


def _slice(w: Any, first: int, last: int | None) -> Any:
    if hasattr(w, "axes"):  # a WeightSpec
        n = len(range(w.shape[0])[first:last])
        return type(w)((n, *w.shape[1:]), w.dtype, w.axes, w.inputs)
    return w if (first, last) == (0, None) else w[first:last]


def _runs(frozen: Tree) -> list[tuple[int, int | None]]:
    """Neighbouring layers whose leaves are frozen alike, as slices."""
    leaves = jax.tree.leaves(frozen)
    depth = max((len(f) for f in leaves if np.ndim(f)), default=0)
    if not depth:
        return [(0, None)]
    rows = np.stack([np.broadcast_to(f, depth) for f in leaves], axis=1)
    starts = [0, *(i for i in range(1, depth) if (rows[i] != rows[i - 1]).any())]
    return list(zip(starts, [*starts[1:], depth], strict=True))


def _select(tree: Tree, frozen: Tree, value: float) -> Tree:
    out = {}
    for key, child in tree.items():
        if isinstance(child, dict):
            if kept := _select(child, frozen[key], value):
                out[key] = kept
        elif frozen[key] == value:
            out[key] = child
    return out
