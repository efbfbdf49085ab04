"""Attention block by block, skipping every block in which no query may look at any key: memory
linear in the length, work linear in what a packed row really needs. The algorithm is
FlashAttention-2 (Dao, 2023, arXiv:2307.08691, algorithms 1 and 2) with a softmax that is never
stored.

Letters: S queries, T keys, K kv heads, G query heads of a kv head, N head dim, C block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from jaxsft.models.attention.needs import CONTEXT
from jaxsft.models.attention.reference import TokenInfo, segment_mask
from jaxsft.models.attention.score_options import ScoreOptions
from jaxsft.products import at_least_fp32, contract

BLOCK = 128
_LOW = -1e30  # below any score; finite, so that a row without keys gives no NaN


class _Row(NamedTuple):
    """One row, cut into blocks of tokens.

    Queries are `[blocks, K, G, C, N]`, keys and values `[blocks, K, C, N]`, the inputs of the
    mask `[blocks, C]`.
    """

    q: Array
    k: Array
    v: Array
    q_where: tuple[Array, ...]
    k_where: tuple[Array, ...]


class Rules(NamedTuple):
    """The mask and the soft cap of a block of scores, as functions that close over no traced value.

    Attributes:
      mask: from what is known of the queries and of the keys, `[C]` each, to `[C, C]`. Padding has
        segment 0 and sees nothing.
      cap: of scores, before the mask.
      slope: the derivative of `cap`, from its value.
    """

    mask: Callable[[tuple[Array, ...], tuple[Array, ...]], Array]
    cap: Callable[[Array], Array]
    slope: Callable[[Array], Array | float]
    precision: str


def run(
    q: Array,
    k: Array,
    v: Array,
    query: TokenInfo,
    key: TokenInfo,
    how: ScoreOptions,
    precision: str,
    window: Int[Array, ""] | None = None,
    of_blocks: Callable[..., Array] | None = None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Computes the same as `reference.run` block by block, without the score matrix.

    Blocks in which no query may attend to any key are skipped; memory is linear in the length.

    Args:
      of_blocks: in the place of `_attend`, for keys that are on other devices too.
    """

    def mask(q_where, k_where):
        q_where, reach = (q_where[:2], q_where[2][0]) if len(q_where) == 3 else (q_where, None)
        one = lambda where: TokenInfo(*(x[None] for x in where))
        return segment_mask(one(q_where), one(k_where), how.causal, reach)[0]

    # What depends on no layer is computed before the scan over layers, for its gradient: the masks
    # of all pairs of blocks, quadratic in the length. Behind the barrier they depend on this layer.
    q, query, key = lax.optimization_barrier((q, query, key))
    # A traced window is an argument, one copy a query: what a custom gradient closes over has no
    # trace.
    reach = () if window is None else (jnp.broadcast_to(window, query.positions.shape),)
    return attend(
        q * how.scale,
        k,
        v,
        (*query[:2], *reach),
        key[:2],
        Rules(mask, how.cap, how.slope, precision),
        of_blocks,
    )


def attend(
    q: Array,
    k: Array,
    v: Array,
    q_where: tuple,
    k_where: tuple,
    rules: Rules,
    of_blocks: Callable[..., Array] | None = None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Computes softmax attention block by block, with a backward pass of its own.

    Args:
      q: `[B, S, H, N]`, already scaled; k, v: `[B, T, K, N]`, K divides H.
      q_where, k_where: what the mask reads, `[B, S]` and `[B, T]` each.
    """
    b, s, h, n = q.shape
    heads = k.shape[2]
    q = q.reshape(b, s, heads, h // heads, n).transpose(0, 2, 3, 1, 4)  # [B, K, G, S, N]
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)  # [B, K, T, N]
    row = _Row(
        _cut(q, 3),
        _cut(k, 2),
        _cut(v, 2),
        tuple(_cut(x, 1) for x in q_where),
        tuple(_cut(x, 1) for x in k_where),
    )
    out = (of_blocks or _attend)(rules, *row)  # [B, blocks, K, G, C, N]
    out = jnp.moveaxis(out, 1, 3).reshape(b, heads, h // heads, -1, n)[:, :, :, :s]
    return out.transpose(0, 3, 1, 2, 4).reshape(b, s, h, n)


def _cut(x: Array, axis: int) -> Array:
    """Cuts an axis into zero-padded blocks: `[B, ..., S, ...]` -> `[B, blocks, ..., C, ...]`."""
    pad = -x.shape[axis] % BLOCK
    x = jnp.pad(x, [(0, pad if i == axis else 0) for i in range(x.ndim)])
    x = x.reshape(*x.shape[:axis], -1, BLOCK, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(rules, q, k, v, q_where, k_where):
    return _forward(rules, q, k, v, q_where, k_where)[0]


def _forward(rules, q, k, v, q_where, k_where):
    out, lse = rows_forward(rules, q, k, v, q_where, k_where)
    out = out.astype(q.dtype)
    # what the backward pass needs: where it is kept, this pass is not run again
    out, lse = (checkpoint_name(x, CONTEXT) for x in (out, lse))
    return out, (q, k, v, q_where, k_where, out, lse)


def _backward(rules, saved, g):
    q, k, v, q_where, k_where, out, lse = saved
    dq, dk, dv = rows_backward(rules, q, k, v, q_where, k_where, lse, delta_of(out, g), g)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_attend.defvjp(_forward, _backward)


def rows_forward(rules: Rules, *row: Any) -> tuple[Array, Array]:
    """Returns outputs `[B, blocks, K, G, C, N]` and log denominators `[B, blocks, K, G, C]` of
    rows that are cut into blocks, the arrays of a `_Row`.
    """
    return lax.map(lambda one: _row_forward(rules, _Row(*one)), row)


def rows_backward(rules: Rules, *arrays: Any) -> tuple[Array, Array, Array]:
    """Returns dq, dk and dv of rows, given lse, `delta_of` and the gradient of the output too."""
    return lax.map(lambda x: _row_backward(rules, _Row(*x[:5]), *x[5:]), arrays)


def delta_of(out: Array, g: Array) -> Array:
    """Computes the part of the gradient of a softmax that is the same for all keys."""
    return (out.astype(at_least_fp32(out.dtype)) * g).sum(-1)  # [B, blocks, K, G, C]


def _at(x, i):
    return jax.tree.map(lambda y: lax.dynamic_index_in_dim(y, i, keepdims=False), x)


def _row_forward(rules: Rules, row: _Row):
    """Returns a row's output `[blocks, K, G, C, N]` and log denominators `[blocks, K, G, C]`."""

    def of_queries(i):
        q, where = _at((row.q, row.q_where), i)

        def visit(j, carry):
            allowed = rules.mask(where, _at(row.k_where, j))

            def add(carry):
                high, total, acc = carry
                s = rules.cap(contract("kgsn,ktn->kgst", q, _at(row.k, j), rules.precision))
                s = jnp.where(allowed, s, _LOW)
                new = jnp.maximum(high, s.max(-1))
                p = jnp.where(allowed, jnp.exp(s - new[..., None]), 0)
                scale = jnp.exp(high - new)
                acc = acc * scale[..., None] + contract(
                    "kgst,ktn->kgsn", p, _at(row.v, j), rules.precision
                )
                return new, total * scale + p.sum(-1), acc

            return lax.cond(allowed.any(), add, lambda carry: carry, carry)

        wide = at_least_fp32(q.dtype)
        start = (
            jnp.full(q.shape[:-1], _LOW, wide),
            jnp.zeros(q.shape[:-1], wide),
            jnp.zeros(q.shape, wide),
        )
        high, total, acc = lax.fori_loop(0, row.k.shape[0], visit, start)
        total = jnp.where(total > 0, total, 1)  # a padding query has no key at all: its output is 0
        return acc / total[..., None], high + jnp.log(total)

    return lax.map(of_queries, jnp.arange(row.q.shape[0]))


def _row_backward(rules: Rules, row: _Row, lse, delta, g):
    """Returns dq, dk and dv of a row, laid out as `row`.

    Probabilities are computed again from the saved denominators.
    """

    zeros = lambda x: jnp.zeros(x.shape[1:], at_least_fp32(x.dtype))  # of one block

    def scores_and_gradient(i, j, allowed):
        q, lse_i, delta_i, g_i = _at((row.q, lse, delta, g), i)
        k, v = _at((row.k, row.v), j)
        s = rules.cap(contract("kgsn,ktn->kgst", q, k, rules.precision))
        p = jnp.where(allowed, jnp.exp(s - lse_i[..., None]), 0)
        dp = contract("kgsn,ktn->kgst", g_i, v, rules.precision)
        return p, p * (dp - delta_i[..., None]) * rules.slope(s), q, k, g_i

    def of_queries(i):
        def visit(j, dq):
            allowed = rules.mask(_at(row.q_where, i), _at(row.k_where, j))

            def add(dq):
                _, ds, _, k, _ = scores_and_gradient(i, j, allowed)
                return dq + contract("kgst,ktn->kgsn", ds, k, rules.precision)

            return lax.cond(allowed.any(), add, lambda dq: dq, dq)

        return lax.fori_loop(0, row.k.shape[0], visit, zeros(row.q))

    def of_keys(j):
        def visit(i, carry):
            allowed = rules.mask(_at(row.q_where, i), _at(row.k_where, j))

            def add(carry):
                p, ds, q, _, g_i = scores_and_gradient(i, j, allowed)
                dk, dv = carry
                return dk + contract("kgst,kgsn->ktn", ds, q, rules.precision), dv + contract(
                    "kgst,kgsn->ktn", p, g_i, rules.precision
                )

            return lax.cond(allowed.any(), add, lambda carry: carry, carry)

        return lax.fori_loop(0, row.q.shape[0], visit, (zeros(row.k), zeros(row.v)))

    dq = lax.map(of_queries, jnp.arange(row.q.shape[0]))
    dk, dv = lax.map(of_keys, jnp.arange(row.k.shape[0]))
    return dq, dk, dv
