"""Attention of rows whose tokens are spread over devices, the parts of a row along the mesh axis
`context`, inside `shard_map`.

Either each device gathers the keys and values of the whole row (Grattafiori et al., 2024,
arXiv:2407.21783, section 3.3.2), or they go round from device to device, while each computes with
those that it has (ring attention: Liu et al., 2023, arXiv:2310.01889). Who may attend to whom is
told by segments and positions, which go with the keys.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from jaxsft.models.attention import blocked
from jaxsft.models.attention.blocked import Rules
from jaxsft.models.attention.needs import CONTEXT


def gathered(run: Callable[..., Array]) -> Callable[..., Array]:
    """Returns a backend that is given the parts of a row's keys, and runs `run` with all of them.

    Gradients of keys and values are reduced and scattered.
    """

    def of_all(axis, q, k, v, query, key, *how):
        whole = lambda x: lax.all_gather(x, axis, axis=1, tiled=True)
        return run(q, *jax.tree.map(whole, (k, v)), query, jax.tree.map(whole, key), *how)

    return of_all


def ring(axis: str, *arrays_and_how: Any) -> Array:
    """Computes `blocked.run` of the queries of this device with the keys of all devices.

    No device holds more of a row's keys and values than its own part, twice.
    """
    return blocked.run(*arrays_and_how, of_blocks=functools.partial(_ring, axis))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ring(axis, rules, q, k, v, q_where, k_where):
    return _forward(axis, rules, q, k, v, q_where, k_where)[0]


def _forward(axis: str, rules: Rules, q, k, v, q_where, k_where):
    of_keys = lambda k, v, where: blocked.rows_forward(rules, q, k, v, q_where, where)

    def add(found, keys):
        (out, lse), (more, more_lse) = found, of_keys(*keys)
        total = jnp.logaddexp(lse, more_lse)
        share = lambda x, of: x * jnp.exp(of - total)[..., None]
        return share(out, lse) + share(more, more_lse), total

    def visit(state, _):
        found, keys = state
        return (add(found, keys), _passed_on(axis, keys)), None

    keys = (k, v, k_where)
    start = of_keys(*keys), _passed_on(axis, keys)
    (found, others), _ = lax.scan(visit, start, length=lax.axis_size(axis) - 2)
    out, lse = add(found, others)
    out, lse = (checkpoint_name(x, CONTEXT) for x in (out.astype(q.dtype), lse))
    return out, (q, k, v, q_where, k_where, out, lse)


def _backward(axis: str, rules: Rules, saved, g):
    q, k, v, q_where, k_where, out, lse = saved
    delta = blocked.delta_of(out, g)

    def visit(state, _):
        dq, (dk, dv), keys = state
        given = blocked.rows_backward(rules, q, *keys[:2], q_where, keys[2], lse, delta, g)
        # gradients go round with their keys, and are home after as many steps as there are devices
        own = _passed_on(axis, (dk + given[1], dv + given[2]))
        return (dq + given[0], own, _passed_on(axis, keys)), None

    wide = lambda x: jnp.zeros(x.shape, delta.dtype)
    start = (wide(q), (wide(k), wide(v)), (k, v, k_where))
    (dq, (dk, dv), _), _ = lax.scan(visit, start, length=lax.axis_size(axis))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_ring.defvjp(_forward, _backward)


def _passed_on(axis: str, tree: Any) -> Any:
    """Gives arrays to the next device of the ring; returns those of the one before."""
    size = lax.axis_size(axis)
    order = [(i, (i + 1) % size) for i in range(size)]
    return jax.tree.map(lambda x: lax.ppermute(x, axis, order), tree)
