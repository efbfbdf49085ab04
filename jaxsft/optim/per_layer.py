"""Wrappers of Optax transforms: per layer of a stack, on matrices, in at least float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsft.sharding.weight_spec import WeightSpec

MUON, ADAM = "muon", "adam"
_VOCAB = "vocab"


def widen(tree: Any) -> Any:
    """Returns the tree with every leaf in at least float32."""
    return jax.tree.map(
        lambda x: jnp.asarray(x).astype(jnp.promote_types(jnp.asarray(x).dtype, jnp.float32)), tree
    )


def widened(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Wraps a transform so that it sees widened parameters and its moments are at least float32.

    Gradients take the width of their parameters, so that the dtypes of the state never change.
    """

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        params = widen(params)
        return tx.update(jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params), state, params)

    return optax.GradientTransformation(lambda params: tx.init(widen(params)), update)


def per_layer(tx: optax.GradientTransformation, specs: Any) -> optax.GradientTransformation:
    """Applies a transform of one tensor to each leaf, and to each layer (and expert) of a stacked
    leaf. Its state is a tree like `specs` of its states.
    """

    def each(f: Callable, spec: WeightSpec) -> Callable:
        for _ in range(spec.stacks):
            f = jax.vmap(f)
        return f

    def init(params: Any) -> Any:
        return jax.tree.map(lambda spec, p: each(tx.init, spec)(p), specs, params)

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        pairs = jax.tree.map(
            lambda spec, g, s, p: each(tx.update, spec)(g, s, p), specs, grads, state, params
        )
        return jax.tree.map(lambda _, pair: pair[0], specs, pairs), jax.tree.map(
            lambda _, pair: pair[1], specs, pairs
        )

    return optax.GradientTransformation(init, update)


def matrix_first(tx: optax.GradientTransformation, specs: Any) -> optax.GradientTransformation:
    """Wraps a transform as `per_layer`, with weights of several axes seen as [inputs, outputs].

    An example is a weight [embed, heads, head_dim].
    """
    inner = per_layer(tx, specs)

    def flat(tree: Any) -> Any:
        return jax.tree.map(lambda spec, x: x.reshape(_flat_shape(spec)), specs, tree)

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = inner.update(flat(grads), state, flat(params))
        return jax.tree.map(lambda spec, u: u.reshape(spec.shape), specs, updates), state

    return optax.GradientTransformation(lambda params: inner.init(flat(params)), update)


def muon_labels(specs: Any) -> Any:
    """Returns MUON for matrices and ADAM for everything else.

    A head over the vocabulary is left to Adam, as in Jordan et al. 2024, and so is a weight
    without output axes, which is a vector.
    """

    def of_leaf(spec: WeightSpec) -> str:
        outputs = len(spec.axes) - spec.stacks - spec.inputs
        return MUON if spec.inputs and outputs and _VOCAB not in spec.axes else ADAM

    return jax.tree.map(of_leaf, specs)


def muon_dimensions(specs: Any) -> Any:
    """Returns which axes of each of Muon's weights are inputs and which are outputs.

    The axes of layers and experts are neither, which makes them batch axes: Optax
    orthogonalises each matrix by itself, and the momentum keeps the shape (hence the sharding)
    of the weight. Elsewhere `optax.MaskedNode`.
    """

    def of_leaf(spec: WeightSpec, label: str) -> Any:
        if label != MUON:
            return optax.MaskedNode()
        first = spec.stacks
        split = first + spec.inputs
        return optax.contrib.MuonDimensionNumbers(
            tuple(range(first, split)), tuple(range(split, len(spec.shape)))
        )

    return jax.tree.map(of_leaf, specs, muon_labels(specs))


def _flat_shape(spec: WeightSpec) -> tuple[int, ...]:
    if spec.matrix is None:
        return spec.shape
    return (*spec.shape[: spec.stacks], *spec.matrix)


def scaled(scales: Any) -> optax.GradientTransformation:
    """Builds what multiplies each update by a number."""
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda u, s: u * jnp.asarray(s, u.dtype), updates, scales)
    )
