"""Pruning in training (`prune.*`): some weights become zero, and a weight that is zero stays so.

The mask of a weight is where it is not zero; a checkpoint, a stack of trials and an export need
nothing more. The share of zeros after step `t` is (Zhu and Gupta, 2017, arXiv:1710.01878, equation
1, from no zeros)

    s(t) = s (1 - (1 - (t - begin) / (end - begin))^3)

which is brought about at `begin`, every `every` steps after it, and at `end`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxsft import patterns
from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError
from jaxsft.models.model_base import Params
from jaxsft.sharding.weight_spec import WeightSpec
from jaxsft.training.hyper import Hyper

LARGEST = 0x7F800000  # the bits of infinity; those of numbers without a sign grow with them


@dataclasses.dataclass(frozen=True)
class Pruning:
    """The pruning of a run; `specs` are those of the trainable weights."""

    config: Config
    specs: Any

    @functools.cached_property
    def pruned(self) -> list[bool]:
        """Returns which leaves are pruned. Raises ConfigError where a pattern matches none, or
        matches what is no matrix, or only some layers of a stack.
        """
        rules = [(pattern, 1.0) for pattern in self.config.prune.weights]
        found = patterns.resolve(rules, self.specs, 0.0, option="prune.weights")
        out = []
        for spec, chosen in zip(
            jax.tree.leaves(self.specs), _leaves(self.specs, found), strict=True
        ):
            some = np.ndim(chosen) > 0
            if (some or chosen) and not spec.inputs:
                raise ConfigError("prune.weights: matches a weight that is no matrix of a layer")
            if some:
                raise ConfigError(
                    "prune.weights: layers of one stack are pruned alike; name all of them"
                )
            if chosen and self.config.prune.kind == "2:4" and _inputs(spec) % 4:
                raise ConfigError(
                    f"prune.kind=2:4: a matrix with {_inputs(spec)} inputs has no groups of four;"
                    " leave it out of prune.weights"
                )
            out.append(bool(chosen))
        return out

    def check(self, hyper: Hyper, total: int) -> None:
        """Raises ConfigError where a run of `total` steps ends before its last zeros are made."""
        p = self.config.prune
        begin, end = (int(hyper.get(f"prune_{name}", 0)) for name in ("begin", "end"))
        if p.kind == "none":
            return
        last, name = (begin, "begin") if p.kind == "2:4" else (end, "end")
        if last < begin:
            raise ConfigError(f"prune.end={p.end}: comes before prune.begin={p.begin}")
        if total and last >= total:
            raise ConfigError(
                f"prune.{name}={getattr(p, name)}: is step {last}, but the run has {total} steps;"
                " let it end before, so that what is left can be trained"
            )

    def weights(self, before: Params, after: Params, step: Array, hyper: Hyper) -> Params:
        """Returns the weights after a step, of which those that were zero are, and those that the
        schedule makes zero now.
        """
        if self.config.prune.kind == "none":
            return after
        leaves, tree = jax.tree.flatten(after)
        chosen = [i for i, pruned in enumerate(self.pruned) if pruned]
        old = jax.tree.leaves(before)
        for i in chosen:
            leaves[i] = jnp.where(old[i] == 0, 0, leaves[i])
        specs = jax.tree.leaves(self.specs)
        given = ([leaves[i] for i in chosen], [specs[i] for i in chosen], step, hyper)
        for i, w in zip(chosen, self._made_zero(*given), strict=True):
            leaves[i] = w
        return jax.tree.unflatten(tree, leaves)

    def _made_zero(
        self, weights: list[Array], specs: list[WeightSpec], step: Array, hyper: Hyper
    ) -> list[Array]:
        if self.config.prune.kind == "2:4":
            keep = lambda: [
                jnp.where(two_of_four(w, spec), w, 0)
                for w, spec in zip(weights, specs, strict=True)
            ]
            return lax.cond(step == hyper["prune_begin"], keep, lambda: weights)
        begin, end = hyper["prune_begin"], hyper["prune_end"]
        since = step - begin
        due = (since >= 0) & (step <= end) & ((since % hyper["prune_every"] == 0) | (step == end))
        share = sparsity_at(step, begin, end, hyper["sparsity"])
        return lax.cond(due, lambda: self._smallest(weights, specs, share), lambda: weights)

    def _smallest(self, weights: list[Array], specs: list[WeightSpec], share: Array) -> list[Array]:
        bits = [_bits(w) for w in weights]
        if self.config.prune.scope == "global":
            count = jnp.floor(share * sum(x.size for x in bits))
            limits = [threshold(bits, count)] * len(bits)
        else:
            limits = [_of_layers(x, spec, share) for x, spec in zip(bits, specs, strict=True)]
        return [
            jnp.where(x <= limit, 0, w) for w, x, limit in zip(weights, bits, limits, strict=True)
        ]


def sparsity_at(step: Array, begin: Array, end: Array, final: Array) -> Float[Array, ""]:
    """Returns the share of zeros after a step.

    >>> [round(float(sparsity_at(t, 0, 4, 0.8)), 3) for t in range(5)]
    [0.0, 0.463, 0.7, 0.788, 0.8]
    """
    part = jnp.clip((step - begin) / jnp.maximum(end - begin, 1), 0, 1)
    return final * jnp.where(step >= end, 1, 1 - (1 - part) ** 3)


def threshold(bits: list[Array], count: Array) -> Array:
    """Returns the bits of the `count`-th smallest magnitude, by bisection: no sort, on no device a
    copy.
    """

    def half(_: int, edges: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = edges
        middle = low + (high - low) // 2
        enough = sum((x <= middle).sum() for x in bits) >= count
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    return lax.fori_loop(0, 31, half, (jnp.int32(-1), jnp.int32(LARGEST)))[1]


def two_of_four(w: Float[Array, ...], spec: WeightSpec) -> Bool[Array, ...]:
    """Returns which weights are the two largest of each four inputs of an output; of equal ones
    the first.
    """
    lead = w.shape[: spec.stacks]
    groups = jnp.abs(w).reshape(*lead, _inputs(spec) // 4, 4, -1)
    order = jnp.argsort(jnp.argsort(-groups, axis=-2, stable=True), axis=-2)
    return (order < 2).reshape(w.shape)


def _of_layers(bits: Array, spec: WeightSpec, share: Array) -> Array:
    """Returns the threshold of each layer, which broadcasts against the weight."""
    lead = bits.shape[: spec.stacks]
    flat = bits.reshape(math.prod(lead), -1)
    found = jax.vmap(lambda x: threshold([x], jnp.floor(share * x.size)))(flat)
    return found.reshape(lead + (1,) * (bits.ndim - len(lead)))


def _bits(w: Array) -> Array:
    return lax.bitcast_convert_type(jnp.abs(w).astype(jnp.float32), jnp.int32)


def _inputs(spec: WeightSpec) -> int:
    return (spec.matrix or (0, 0))[0]


def _leaves(specs: Any, found: Any) -> list[Any]:
    """Returns the values of leaves in their order; that of a stack whose layers differ is an
    array.
    """
    out: list[Any] = []
    jax.tree.map(lambda spec, value: out.append(value), specs, found)
    return out


def told(config: Config, specs: Any) -> list[str]:
    """Returns the line of the banner about pruning; none without it."""
    p = config.prune
    if p.kind == "none":
        return []
    all_ = zip(jax.tree.leaves(specs), Pruning(config, specs).pruned, strict=True)
    count = sum(math.prod(spec.shape) for spec, pruned in all_ if pruned)
    when = (
        f"two of each four at {p.begin}"
        if p.kind == "2:4"
        else f"{p.sparsity:.0%} of {p.scope} from {p.begin} to {p.end}"
    )
    return [f"{count:,} trained weights are pruned by magnitude: {when}"]
