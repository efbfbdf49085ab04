"""Optimizers by name, built from Optax's transforms inside a jitted step, of traced rates.

An update is, in this order: the optimizer's direction; plus `weight_decay * decay_factor * w`; for
LAMB the trust ratio; times `-learning_rate * lr_factor`. Betas and the like are Python numbers of
the options; what trials differ in comes traced, in `hyper`.

Element-wise optimizers need not know about layers. What sees a weight as one matrix or one tensor
(Muon, Adafactor, LAMB's ratio) works per layer of a stack; on stacked leaves Optax's own would
silently mix the layers. Moments are float32, or float64 where the parameters are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxsft import patterns, plugins
from jaxsft.config import optim as config
from jaxsft.errors import ConfigError
from jaxsft.optim.per_layer import (
    ADAM,
    MUON,
    matrix_first,
    muon_dimensions,
    muon_labels,
    per_layer,
    widen,
    widened,
)
from jaxsft.sharding.weights import STACKS, WeightSpec

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
      options: one of the classes in `config/optim.py`.
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
    if options.name not in DIRECTIONS:
        raise ConfigError(f"optim={options.name}: unknown; choose one of {', '.join(DIRECTIONS)}")
    steps = [DIRECTIONS[options.name](options, specs)]
    if hasattr(options, "weight_decay"):
        steps.append(_decay(hyper["weight_decay"], decay_factors))
    if options.name in AFTER_DECAY:
        steps.append(AFTER_DECAY[options.name](options, specs))
    steps.append(_descend(hyper["learning_rate"], lr_factors))
    return widened(optax.chain(*steps))


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


# --- directions: options, specs -> transform
# -------------------------------------------------------------------------------------------------
def sgd(options: config.SGD, specs: Any) -> optax.GradientTransformation:
    """Builds gradient descent with momentum `m <- momentum m + g` (optax.sgd).

    Sutskever et al. 2013.
    """
    del specs
    if options.nesterov and not options.momentum:
        raise ConfigError("optim.nesterov=true needs optim.momentum above 0")
    return optax.trace(options.momentum, options.nesterov) if options.momentum else optax.identity()


def adam(
    options: config.Adam | config.AdamW | config.Lamb, specs: Any
) -> optax.GradientTransformation:
    """Builds Adam's direction for adam, adamw and lamb (optax.scale_by_adam).

    Kingma and Ba 2015, arXiv:1412.6980.
    """
    del specs
    return optax.scale_by_adam(options.b1, options.b2, options.eps)


def adagrad(options: config.Adagrad, specs: Any) -> optax.GradientTransformation:
    """Builds Adagrad's direction (Duchi et al. 2011, JMLR 12; optax.scale_by_rss)."""
    del specs
    return optax.scale_by_rss(options.initial_accumulator, options.eps)


def lion(options: config.Lion, specs: Any) -> optax.GradientTransformation:
    """Builds Lion's direction (Chen et al. 2023, arXiv:2302.06675; optax.scale_by_lion)."""
    del specs
    return optax.scale_by_lion(options.b1, options.b2)


def adafactor(options: config.Adafactor, specs: Any) -> optax.GradientTransformation:
    """Builds Adafactor's direction on the [inputs, outputs] matrix of each layer.

    Shazeer and Stern 2018, arXiv:1804.04235.

    The chain is optax.adafactor's, but for the decay, which is multiplied by the learning rate as
    everywhere here, and momentum, which would give up the memory that Adafactor is chosen for.
    """
    one = [
        optax.scale_by_factored_rms(
            decay_rate=options.decay_rate,
            min_dim_size_to_factor=options.min_size_to_factor,
            epsilon=options.eps,
        ),
        optax.clip_by_block_rms(options.update_clip),
    ]
    if options.scale_by_parameter:
        one.append(optax.scale_by_param_block_rms())
    return matrix_first(optax.chain(*one), specs)


def muon(options: config.Muon, specs: Any) -> optax.GradientTransformation:
    """Builds Muon's direction on matrices (optax.contrib.scale_by_muon), Adam's on the rest.

    Jordan et al. 2024.

    The update of a matrix is multiplied by `sqrt(max(1, outputs / inputs))`; with `consistent_rms`,
    by `consistent_rms * sqrt(max(inputs, outputs))` instead (Liu et al. 2025, arXiv:2502.16982).
    """
    orthogonal = optax.contrib.scale_by_muon(
        ns_steps=options.ns_steps,
        beta=options.momentum,
        eps=options.eps,
        nesterov=options.nesterov,
        weight_dimension_numbers=muon_dimensions(specs),
    )
    labels = muon_labels(specs)

    def scale(spec: WeightSpec, label: str) -> float:
        if label != MUON:
            return 1.0
        inputs, outputs = spec.matrix
        if options.consistent_rms is not None:
            return options.consistent_rms * math.sqrt(max(inputs, outputs))
        return math.sqrt(max(1.0, outputs / inputs))

    both = optax.partition(
        {
            MUON: orthogonal,
            ADAM: optax.scale_by_adam(options.adam_b1, options.adam_b2, options.adam_eps),
        },
        labels,
    )
    return optax.chain(both, _scale(jax.tree.map(scale, specs, labels)))


# --- what follows the decay
# --------------------------------------------------------------------------------------------------
def trust_ratio(options: config.Lamb, specs: Any) -> optax.GradientTransformation:
    """Builds LAMB's factor `|w| / |update|` of each weight of each layer; 1 where either is 0.

    You et al. 2020, arXiv:1904.00962; optax.scale_by_trust_ratio.
    """
    del options
    return per_layer(optax.scale_by_trust_ratio(), specs)


def adam_rate(options: config.Muon, specs: Any) -> optax.GradientTransformation:
    """Scales the updates that Muon leaves to AdamW, decay included, by their rate factor."""
    return _scale(
        jax.tree.map(
            lambda label: options.adam_learning_rate_factor if label == ADAM else 1.0,
            muon_labels(specs),
        )
    )


@dataclass(frozen=True)
class Optimizer:
    """An optimizer of a plug-in.

    Attributes:
      options: the class of `optim.*`, a `jaxsft.config.optim.OptimConfig`.
      direction: `(options, specs) -> GradientTransformation`: the direction alone; weight decay,
        where the options have it, and the learning rate follow.
      preset: options where it is chosen, as in a file of `conf/optim/`.
    """

    options: type[config.OptimConfig]
    direction: Callable[[Any, Any], optax.GradientTransformation]
    preset: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return id(self)


_OWN: dict[str, Callable[[Any, Any], optax.GradientTransformation]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adam,
    "adagrad": adagrad,
    "adafactor": adafactor,
    "lion": lion,
    "lamb": adam,
    "muon": muon,
}
DIRECTIONS = plugins.Registry("optimizers", _OWN, read=lambda optimizer: optimizer.direction)
AFTER_DECAY: dict[str, Callable[[Any, Any], optax.GradientTransformation]] = {
    "lamb": trust_ratio,
    "muon": adam_rate,
}


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


def _scale(scales: Any) -> optax.GradientTransformation:
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda u, s: u * jnp.asarray(s, u.dtype), updates, scales)
    )


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
