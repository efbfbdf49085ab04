"""The sites of adapters, which patterns of module paths choose.

They form a tree that mirrors the base, cut into segments of layers that are adapted alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsft import patterns
from jaxsft.sharding.weight_spec import LAYERS, WeightSpec

Tree = dict[str, Any]


class Leaf(NamedTuple):
    """The declaration of one weight of an adapter, as for one layer; `init(key, shape, dtype)`."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: Callable
    inputs: int = 0


class Site(NamedTuple):
    """A module that gets an adapter.

    Attributes:
      path: of the module, with the first layer of its segment.
      spec: of one layer of the weight that the adapter belongs to.
      rule: the number of the pattern list that chose it, from 1.
      layers: the numbers of the layers of the segment; None where the module is in no stack.
    """

    path: str
    spec: WeightSpec
    rule: int = 1
    layers: range | None = None


# modules that look for an adapter when they run
HOOKED = ("q", "k", "v", "o", "gate", "up", "down", "project", "tokens", "positions", "types")


def linears(specs: Tree) -> Tree:
    """Returns the linear layers and embeddings that can be adapted, each as the spec of its `w`.

    A recurrent cell has both of its matrices, by their names. Left out are experts and the head
    of a task, which is trained as a whole; the output matrix over the vocabulary is at `head`.
    """
    out = {}
    for key, child in specs.items():
        if isinstance(child, dict):
            w = child.get("w")
            if "u" in child:
                out[key] = {name: child[name] for name in ("w", "u")}
            elif isinstance(w, WeightSpec):
                if "experts" not in w.axes and (
                    key in HOOKED or (key == "head" and "vocab" in w.axes)
                ):
                    out[key] = w
            else:
                out[key] = linears(child)
    return {key: child for key, child in out.items() if not isinstance(child, dict) or child}


def attentions(specs: Tree) -> Tree:
    """Returns the modules that have keys and values, each as the spec of its key weight."""
    out = {
        key: child["k"]["w"] if "k" in child and "v" in child else attentions(child)
        for key, child in specs.items()
        if isinstance(child, dict)
    }
    return {key: child for key, child in out.items() if not isinstance(child, dict) or child}


def choose(modules: Tree, *targets: Sequence[str], option: str = "adapter.target") -> Tree:
    """Returns the sites that the patterns match, a tree at `.../layers/<first layer>/...`.

    Raises:
      ConfigError: a pattern matches nothing.
    """
    chosen = patterns.resolve(
        [(p, float(rule)) for rule, target in enumerate(targets, start=1) for p in target],
        modules,
        0.0,
        option=option,
    )
    return _sites(modules, chosen, ())


def _sites(modules: Tree, chosen: Tree, path: tuple[str, ...]) -> Tree:
    out: Tree = {}
    for key, child in modules.items():
        if key == LAYERS:
            for start, stack in child.items():
                out.setdefault(key, {}).update(
                    _segments(stack, chosen[key][start], int(start), (*path, key))
                )
        elif isinstance(child, dict):
            out[key] = _sites(child, chosen[key], (*path, key))
        elif chosen[key]:
            out[key] = Site("/".join((*path, key)), child, int(chosen[key]))
    return {key: child for key, child in out.items() if child}


def _segments(stack: Tree, chosen: Tree, start: int, path: tuple[str, ...]) -> Tree:
    """Returns `{first layer: sites}` of a stack; neighbouring layers adapted alike share one."""
    leaves, flags = jax.tree.leaves(stack), jax.tree.leaves(chosen)
    depth = leaves[0].shape[0]
    rows = np.stack([np.broadcast_to(flag, depth) for flag in flags], axis=1)  # [layers, modules]
    out = {}
    for first, last in runs(rows):
        if rows[first].any():
            name = str(start + first)
            out[name] = _of_segment(
                stack, iter(rows[first]), range(start + first, start + last), (*path, name)
            )
    return out


def _of_segment(stack: Tree, flags: Any, layers: range, path: tuple[str, ...]) -> Tree:
    out = {}
    for key in sorted(stack):  # the order of the leaves
        child = stack[key]
        if isinstance(child, dict):
            out[key] = _of_segment(child, flags, layers, (*path, key))
        elif rule := int(next(flags)):
            spec = WeightSpec(child.shape[1:], child.dtype, child.axes[1:], child.inputs)
            out[key] = Site("/".join((*path, key)), spec, rule, layers)
    return {key: child for key, child in out.items() if child}


def runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """Returns the runs of equal rows of `[n, ...]` as (start, stop)."""
    starts = [0, *(i for i in range(1, len(rows)) if (rows[i] != rows[i - 1]).any())]
    return list(zip(starts, [*starts[1:], len(rows)], strict=True))


def cut(layers: Tree, beside: Tree) -> list[tuple[int, Tree, Tree]]:
    """Cuts layers and adapters into common segments: (first layer, stack, adapters), bottom up.

    Stacks are sliced where only one of the two is cut.

    Args:
      layers: `{first layer: stack}`.
      beside: likewise, of some of the layers.
    """
    depths = {
        int(start): _depth(stack) for tree in (layers, beside) for start, stack in tree.items()
    }
    edges = sorted(
        {*depths, *(start + depth for start, depth in depths.items())}
        | _ends(layers)
        | _ends(beside)
    )
    return [
        (first, _slice(layers, first, last), _slice(beside, first, last))
        for first, last in itertools.pairwise(edges)
    ]


def _ends(layers: Tree) -> set[int]:
    return {
        edge for start, stack in layers.items() for edge in (int(start), int(start) + _depth(stack))
    }


def _depth(stack: Tree) -> int:
    return jax.tree.leaves(stack)[0].shape[0]


def _slice(layers: Tree, first: int, last: int) -> Tree:
    for start, stack in layers.items():
        if int(start) <= first and last <= int(start) + _depth(stack):
            whole = int(start) == first and last == int(start) + _depth(stack)
            return (
                stack
                if whole
                else jax.tree.map(lambda w: w[first - int(start) : last - int(start)], stack)
            )
    return {}
