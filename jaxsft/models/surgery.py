"""Changes of the depth and width of a pretrained Transformer: functions on its config and weights.

    keep_layers, repeat_layers   some of the layers, and each of them several times in a row
    keep_decoder_layers          some of those of a decoder, where keep_layers is of its encoder;
      the other options are of both halves
    resize_mlp, resize_heads     more hidden units or heads, with the same function (Net2WiderNet:
      Chen et al., 2015, arXiv:1511.05641), or fewer:
                                 those whose weights are largest
    bidirectional                no mask of what comes later; no weight changes

What is not asked to change stays as it is, to the bit. A unit that is copied shares its outgoing
weights among its copies by chance: equal shares would keep the copies alike for ever, for their
gradients would be equal.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft.config.model import ModelConfig
from jaxsft.models.model_base import Params
from jaxsft.models.position_inputs import RELATIVE
from jaxsft.models.structure import decoder_layers, layers


def apply(params: Params, old: ModelConfig, wanted: ModelConfig, seed: int) -> Params:
    """Converts weights of the architecture `old` to those of `structure.resized(wanted)`.

    Args:
      params: with one stack of layers, or one of each half.
      wanted: has the options (`structure.FIELDS`).
      seed: of which units are copied, and of the shares of their copies.
    """
    asked_of = dataclasses.replace(
        old,
        **{
            name: getattr(wanted, name)
            for name in ("keep_layers", "keep_decoder_layers", "repeat_layers")
        },
    )
    if not old.decoder_layers:
        return _stack(params, old, wanted, layers(asked_of), seed)
    halves = {"encoder": layers(asked_of), "decoder": decoder_layers(asked_of)}
    return {
        **params,
        **{
            name: _stack(params[name], old, wanted, order, seed + i)
            for i, (name, order) in enumerate(halves.items())
        },
    }


def _stack(
    half: Params, old: ModelConfig, wanted: ModelConfig, order: list[int], seed: int
) -> Params:
    """Changes the layers of one stack: a whole model, or one half of an encoder-decoder."""
    stack, out = jax.tree.map(lambda w: w[np.array(order)], half["layers"]["0"]), dict(half)
    if wanted.resize_mlp and wanted.resize_mlp != old.mlp:
        stack = {**stack, "mlp": resize_mlp(stack["mlp"], wanted.resize_mlp, seed)}
    if wanted.resize_heads and wanted.resize_heads != old.heads:
        groups, biased = (
            wanted.resize_heads * old.kv_heads // old.heads,
            old.positions in RELATIVE,
        )
        for i, name in enumerate(name for name in ("attention", "cross") if name in stack):
            alike = biased and name == "attention"
            stack[name], of_heads = resize_heads(stack[name], groups, seed + 2 * i, alike)
            if alike:
                out["relative"] = {"w": half["relative"]["w"][:, of_heads[0]]}
    return {**out, "layers": {"0": stack}}


def resize_mlp(mlp: Params, units: int, seed: int) -> Params:
    """Resizes a stack of MLPs to `units` hidden units. `up/w` is [L, D, F], `down/w` [L, F, D]."""
    into, down = [name for name in ("up", "gate") if name in mlp], mlp["down"]["w"]
    importance = _norm(down, 2)
    for name in into:
        importance = importance * _norm(mlp[name]["w"], 1)
    chosen, share = choose(np.asarray(importance), units, seed)
    out = dict(mlp)
    for name in into:
        out[name] = {k: _take(w, chosen, 2 if k == "w" else 1) for k, w in mlp[name].items()}
    out["down"] = {
        **mlp["down"],
        "w": _take(down, chosen, 1) * share[:, :, None].astype(down.dtype),
    }
    return out


def resize_heads(
    attention: Params, groups: int, seed: int, alike: bool = False
) -> tuple[Params, np.ndarray]:
    """Resizes a stack of attentions to `groups` groups of heads; returns also the heads `[L, H]`.

    A group is the heads that share keys and values.

    Args:
      attention: `q/w` [L, D, H, N], `k/w` [L, D, K, N], `o/w` [L, H, N, D].
      alike: all layers have the same heads, by their importance in all of them.
    """
    o, v = attention["o"]["w"], attention["v"]["w"]
    depth, heads, kv_heads = o.shape[0], o.shape[1], v.shape[2]
    each = heads // kv_heads
    importance = _norm(v, (1, 3)) * _norm(o.reshape(depth, kv_heads, -1), 2)
    importance = np.asarray(importance)
    if alike:
        importance = np.square(importance).sum(0, keepdims=True)
    chosen, share = (np.broadcast_to(x, (depth, groups)) for x in choose(importance, groups, seed))
    of_heads = (chosen[:, :, None] * each + np.arange(each)).reshape(depth, -1)
    out = dict(attention)
    for name, index in (("q", of_heads), ("k", chosen), ("v", chosen)):
        out[name] = {k: _take(w, index, 2 if k == "w" else 1) for k, w in attention[name].items()}
    out["o"] = {
        **attention["o"],
        "w": _take(o, of_heads, 1) * np.repeat(share, each, 1)[:, :, None, None].astype(o.dtype),
    }
    return out, of_heads


def choose(importance: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the units of each layer, `[L, count]`, and the factors of their outgoing weights.

    Fewer: the most important ones, in their order, unchanged. More: all, and copies of some that
    are drawn evenly; the shares of a unit and its copies add to 1.
    """
    depth, units = importance.shape
    if count <= units:
        kept = np.sort(np.argsort(-importance, axis=1, kind="stable")[:, :count], axis=1)
        return kept, np.ones((depth, count))
    rng = np.random.default_rng(seed)
    copies = np.stack(
        [
            np.concatenate([rng.permutation(units) for _ in range(-(-(count - units) // units))])[
                : count - units
            ]
            for _ in range(depth)
        ]
    )
    chosen = np.concatenate([np.tile(np.arange(units), (depth, 1)), copies], 1)
    part = rng.uniform(0.5, 1.5, chosen.shape)
    whole = np.zeros((depth, units))
    np.add.at(whole, (np.arange(depth)[:, None], chosen), part)
    times = np.zeros((depth, units))
    np.add.at(times, (np.arange(depth)[:, None], chosen), 1)
    alone = np.take_along_axis(times, chosen, 1) == 1
    return chosen, np.where(alone, 1.0, part / np.take_along_axis(whole, chosen, 1))


def _norm(w: Any, axes: int | tuple[int, ...]) -> Any:
    return jnp.sqrt(jnp.square(w.astype(jnp.float32)).sum(axes))


def _take(w: Any, index: np.ndarray, axis: int) -> Any:
    """Returns `w[l, ..., index[l], ...]` for each layer l."""
    return jax.vmap(lambda a, i: jnp.take(a, i, axis=axis - 1))(w, jnp.asarray(index))
