"""Optimizers by name, built from Optax's transforms inside a jitted step, of traced rates.

An update is, in this order: the optimizer's direction; plus `weight_decay * decay_factor * w`; for
LAMB the trust ratio; times `-learning_rate * lr_factor`. What trials differ in comes traced, in
`hyper`, betas and the like among it; where they are not in it, they are the Python numbers of the
options.

Element-wise optimizers need not know about layers. What sees a weight as one matrix or one tensor
(Muon, Adafactor, LAMB's ratio) works per layer of a stack; on stacked leaves Optax's own would
silently mix the layers. Moments are float32, or float64 where the parameters are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxsft import patterns
from jaxsft.config import optim as config
from jaxsft.config.option import declarations
from jaxsft.errors import ConfigError
from jaxsft.optim.coefficient import Coefficient
from jaxsft.optim.parts import OPTIMIZERS
from jaxsft.optim.per_layer import widen, widened
from jaxsft.sharding.weight_spec import STACKS, WeightSpec

# the logical axis that an embedding has and a bias of several axes (heads, head_dim) has not
_EMBED = "embed"


def build(
    options: config.OptimConfig,
    hyper: Mapping[str, ArrayLike],
    specs: Any,
    lr_factors: Any,
    decay_factors: Any,
) -> optax.GradientTransformation:
    """Builds the optimizer of one step.

    Args:
      options: one of the classes in `optim/rules/`.
      hyper: traced scalars: `learning_rate`, already multiplied by the schedule, and `weight_decay`
        where the options have it.
      specs: the tree of `WeightSpec` of the trainable parameters.
      lr_factors: a tree like `specs`, of numbers, or of vectors [n] for a stack of n layers; see
        `factors`.
      decay_factors: likewise, for the weight decay.

    Returns:
      `init(params)`, whose structure and values do not depend on `hyper`, and `update(grads, state,
      params)`, which returns what is to be added to the parameters, in at least float32. A factor
      of 0 adds exactly nothing. Gradients come in normalised and clipped.

    Raises:
      ConfigError: `options.name` is unknown, or the options contradict each other.
    """
    if options.name not in OPTIMIZERS:
        raise ConfigError(f"optim={options.name}: unknown; choose one of {', '.join(OPTIMIZERS)}")
    rule, options = OPTIMIZERS[options.name], _with_coefficients(options, hyper)
    steps = [rule.direction(options, specs)]
    if hasattr(options, "weight_decay"):
        steps.append(_decay(hyper.get("weight_decay", options.weight_decay), decay_factors))
    if rule.after_decay is not None:
        steps.append(rule.after_decay(options, specs))
    steps.append(_descend(hyper["learning_rate"], lr_factors))
    return widened(optax.chain(*steps))


def _with_coefficients(options: Any, hyper: Mapping[str, Any]) -> Any:
    """Returns the options with the traced coefficients in the place of their numbers."""
    return dataclasses.replace(
        options,
        **{
            name: Coefficient.of(hyper[name])
            for name, one in declarations(type(options)).items()
            if one.accepts.traced
            and one.accepts.traced.kind == config.COEFFICIENT.kind
            and name in hyper
        },
    )


def init_state(options: config.OptimConfig, specs: Any, params: Any) -> Any:
    """Returns the optimizer state before the first step, which needs no hyper-parameters.

    Traceable, and the same under `jax.vmap`.
    """
    none = jax.tree.map(lambda _: 0.0, specs)
    return build(options, {"learning_rate": 0.0, "weight_decay": 0.0}, specs, none, none).init(
        params
    )


def factors(options: config.OptimConfig, specs: Any) -> tuple[Any, Any]:
    """Returns the learning-rate and weight-decay factors of each parameter.

    They follow from `lr_groups`, `decay_groups` and `default_decay`.

    Raises:
      ConfigError: a pattern is invalid or has no effect.
    """
    lr = patterns.resolve(
        [(g.pattern, g.factor) for g in options.lr_groups], specs, 1.0, option="optim.lr_groups"
    )
    groups = [(g.pattern, g.factor) for g in getattr(options, "decay_groups", [])]
    given = patterns.resolve(groups, specs, math.nan, option="optim.decay_groups")
    decay = jax.tree.map(
        lambda default, factor: _or_default(factor, default), default_decay(specs), given
    )
    return lr, decay


def default_decay(specs: Any) -> Any:
    """Returns 1 for matrices and embeddings, 0 for norms and biases, also those of several axes.

    This is the usual practice since GPT-2 and BERT.
    """

    def of_leaf(spec: WeightSpec) -> float:
        axes = [axis for axis in spec.axes if axis not in STACKS]
        return float(spec.matrix is not None or (len(axes) > 1 and _EMBED in axes))

    return jax.tree.map(of_leaf, specs)


def global_norm(tree: Any) -> Float[Array, ""]:
    """Computes the Euclidean norm over all leaves, in at least float32; 0 for an empty tree."""
    return jnp.asarray(optax.tree.norm(widen(tree)))


def clip_by_global_norm(grads: Any, max_norm: ArrayLike) -> tuple[Any, Float[Array, ""]]:
    """Scales the gradient down to norm `max_norm` where it is longer (Pascanu et al. 2013,
    arXiv:1211.5063; optax.clip_by_global_norm).

    Args:
      grads: a tree of arrays, normalised already.
      max_norm: traced; infinity means no clipping, so that trials with and without it can share a
        program.

    Returns:
      The gradient in at least float32, to the bit the same where it is short enough, and its norm
      before clipping. A NaN stays one.
    """
    norm = global_norm(grads)
    scale = jnp.where(norm > max_norm, max_norm / jnp.where(norm > 0, norm, 1), 1)
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), widen(grads)), norm


def ema_init(params: Any) -> Any:
    """Returns the first moving average: the parameters themselves, in at least float32.

    In less, 1 - decay would round to nothing.
    """
    return widen(params)


def ema_update(ema: Any, params: Any, decay: ArrayLike, step: ArrayLike) -> Any:
    """Updates the moving average: `e <- d e + (1 - d) p` with `d = min(decay, (1 + t) / (10 + t))`.

    The growing decay lets the first averages forget the initial parameters, so no bias needs
    correcting. Source: `num_updates` in TensorFlow's `tf.train.ExponentialMovingAverage`.

    Args:
      ema: the average so far, of `ema_init`.
      params: the parameters after this step.
      decay: traced, below 1.
      step: t, how many averages were taken before this one; traced.

    Returns:
      The new average, with the dtypes of `ema`. Parameters that stay equal to their average leave
      it as it is, to the bit.
    """
    t = jnp.asarray(step).astype(jnp.float32)
    d = jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(
        lambda e, p: e + (1 - d).astype(e.dtype) * (p.astype(e.dtype) - e), ema, params
    )


def match_params(state: Any, specs: Any, values: Any, default: Any) -> Any:
    """Maps each leaf of an optimizer state to the value of its parameter, such as a sharding.

    A leaf belongs to a parameter if its path ends in the parameter's and it has the same shape. The
    others, such as counters and Adafactor's factors, get `default`. It stands in for
    `optax.tree_map_params`, which cannot see through transforms that treat weights by their specs.

    Args:
      state: of `build(...).init`, arrays or shapes.
      specs: a tree of `WeightSpec`.
      values: a tree like `specs`.
      default: for everything else.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(specs)
    of_path = {
        path: (spec, found)
        for (path, spec), found in zip(leaves, tree.flatten_up_to(values), strict=True)
    }

    def value(keypath: tuple, leaf: Any) -> Any:
        for i in range(len(keypath)):  # the longest suffix first
            spec, found = of_path.get(keypath[i:], (None, None))
            if spec is not None and spec.shape == tuple(leaf.shape):
                return found
        return default

    return jax.tree_util.tree_map_with_path(value, state)


# --- factors
# --------------------------------------------------------------------------------------------------
def _decay(weight_decay: ArrayLike, decay_factors: Any) -> optax.GradientTransformation:
    def add(update: jax.Array, param: jax.Array, factor: Any) -> jax.Array:
        return (
            update
            if not np.any(factor)
            else update
            + jnp.asarray(weight_decay).astype(update.dtype) * _along_layers(factor, update) * param
        )

    return optax.stateless(
        lambda updates, params: jax.tree.map(add, updates, params, decay_factors)
    )


def _descend(learning_rate: ArrayLike, lr_factors: Any) -> optax.GradientTransformation:
    def scale(update: jax.Array, factor: Any) -> jax.Array:
        factor = _along_layers(factor, update)
        # Minus zero added to anything, minus zero too, leaves its bits alone; and a NaN in the
        # direction of a frozen weight must not reach it.
        return jnp.where(
            factor == 0,
            jnp.asarray(-0.0, update.dtype),
            -jnp.asarray(learning_rate).astype(update.dtype) * factor * update,
        )

    return optax.stateless(lambda updates, _: jax.tree.map(scale, updates, lr_factors))


def _along_layers(factor: Any, like: jax.Array) -> jax.Array:
    """Reshapes a number or a vector [n] to multiply an array of n layers, in that array's dtype.

    Raises ValueError where the vector has another length than the first axis.
    """
    factor = jnp.asarray(factor, like.dtype)
    if factor.ndim and factor.shape != like.shape[:1]:
        raise ValueError(f"factors {factor.shape} for a stack of shape {like.shape}")
    return factor.reshape(factor.shape + (1,) * (like.ndim - 1)) if factor.ndim else factor


def _or_default(factor: Any, default: float) -> Any:
    filled = np.where(np.isnan(factor), default, factor)
    return filled if filled.ndim else float(filled)
