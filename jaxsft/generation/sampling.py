"""Sampling from logits: repetition penalty, temperature, top-k, top-p and min-p.

They apply in the order of transformers, and all options are traced.

Letters: B batch, V vocab.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxsft.config.schema import GenerateConfig


class Sampling(NamedTuple):
    """The sampling options as traced scalars, so that another value needs no other program.

    Attributes:
      temperature: 0 takes the largest logit.
      top_k: 0 is off. top_p: 1 is off. min_p: 0 is off. penalty: 1 is off.
    """

    seed: UInt32[Array, ""]
    temperature: Float[Array, ""]
    top_k: Int[Array, ""]
    top_p: Float[Array, ""]
    min_p: Float[Array, ""]
    penalty: Float[Array, ""]

    @classmethod
    def of(cls, options: GenerateConfig, seed: int) -> Sampling:
        o = options
        off = (o.top_k or 0, 1.0 if o.top_p is None else o.top_p, o.min_p or 0.0)
        return cls(
            np.uint32(seed),
            np.float32(o.temperature),
            np.int32(off[0]),
            *map(np.float32, (*off[1:], o.repetition_penalty)),
        )


def choose(
    logits: Float[Array, "batch vocab"],
    seen: Bool[Array, "batch vocab"],
    numbers: UInt32[Array, batch],
    step: Int[Array, batch],
    sampling: Sampling,
) -> Int[Array, batch]:
    """Draws one id per row: the largest logit, or a sample of the filtered softmax.

    Sampling uses the Gumbel-max trick.

    Args:
      seen: the tokens of the prompt and of the answer so far.
      numbers, step: of the prompts and of the new tokens; with the seed, all that a sample depends
        on.
    """
    s = sampling
    logits = lax.cond(s.penalty == 1, lambda x: x, lambda x: penalised(x, seen, s.penalty), logits)

    def sample(logits):
        logits = filtered(logits.astype(jnp.float32) / s.temperature, s.top_k, s.top_p, s.min_p)
        key = jax.random.key(s.seed)
        keys = jax.vmap(lambda n, t: jax.random.fold_in(jax.random.fold_in(key, n), t))(
            numbers, step
        )
        return (
            logits + jax.vmap(lambda k: jax.random.gumbel(k, logits.shape[1:], jnp.float32))(keys)
        ).argmax(-1)

    return lax.cond(s.temperature == 0, lambda x: x.argmax(-1), sample, logits).astype(jnp.int32)


def penalised(
    scores: Float[Array, "batch vocab"], seen: Bool[Array, "batch vocab"], penalty: Float[Array, ""]
) -> Float[Array, "batch vocab"]:
    """Divides positive scores of seen tokens by the penalty and multiplies negative ones by it.

    Keskar et al., 2019; as transformers.
    """
    penalty = penalty.astype(scores.dtype)
    return jnp.where(seen, jnp.where(scores < 0, scores * penalty, scores / penalty), scores)


def filtered(
    logits: Float[Array, "batch vocab"],
    top_k: Int[Array, ""],
    top_p: Float[Array, ""],
    min_p: Float[Array, ""],
) -> Float[Array, "batch vocab"]:
    """Returns float32 logits with -inf for tokens that cannot be drawn.

    Dropped are those outside the k largest, then outside the nucleus of mass p of those
    (Holtzman et al., 2020), then of a probability below `min_p` times the largest (Nguyen et
    al., 2024). Tokens of equal logits stay or go together.
    """
    top = logits.max(-1, keepdims=True)

    def cut(logits):
        k = jnp.where(top_k > 0, top_k, logits.shape[-1]).astype(jnp.float32)
        logits = jnp.where(logits >= _threshold(logits, jnp.ones_like(logits), k), logits, -jnp.inf)
        mass = jnp.exp(logits - top)
        nucleus = jnp.where(top_p < 1, top_p, jnp.inf) * mass.sum(-1, keepdims=True)
        return jnp.where(logits >= _threshold(logits, mass, nucleus), logits, -jnp.inf)

    logits = lax.cond((top_k > 0) | (top_p < 1), cut, lambda x: x, logits)
    return jnp.where(logits >= top + jnp.log(min_p), logits, -jnp.inf)


def _threshold(
    x: Float[Array, "batch vocab"], weight: Float[Array, "batch vocab"], bound: Array
) -> Float[Array, "batch 1"]:
    """Returns the smallest float32 `v` with `sum of weight where x > v` < bound, per row.

    It bisects over the bits of floats: exact, and 32 passes cost a tenth of a sort of a large
    vocabulary on CPU.
    """
    sign = jnp.int32(np.iinfo(np.int32).min)

    def value(key):  # unsigned integers in the order of the floats
        bits = lax.bitcast_convert_type(key, jnp.int32)
        return lax.bitcast_convert_type(jnp.where(bits < 0, bits ^ sign, ~bits), jnp.float32)

    def halve(_, between):
        low, high = between
        middle = low + (high - low) // 2
        good = jnp.where(x > value(middle), weight, 0).sum(-1, keepdims=True) < bound
        return jnp.where(good, low, middle + 1), jnp.where(good, middle, high)

    # From -inf, whose bits turned are 0x007FFFFF, to inf, where nothing is larger.
    low = jnp.full((x.shape[0], 1), 0x007FFFFF, jnp.uint32)
    high = jnp.full((x.shape[0], 1), 0xFF800000, jnp.uint32)
    return value(lax.fori_loop(0, 32, halve, (low, high))[1])
