"""Cross-entropy over the vocabulary for every token, without ever holding the logits of all of
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxsft.products import at_least_fp32, to_vocab

PLAIN_LOGITS = 2**25  # logits that are held at once without a second thought: 128 MiB in float32
CHUNK_LOGITS = 2**23


class TokenStats(NamedTuple):
    """Statistics of each token, `[...]`, from which losses and metrics are computed."""

    nll: Float[Array, ...]  # -log p(target)
    log_z: Float[Array, ...]  # log of the softmax's denominator
    uniform: Float[Array, ...]  # mean over the vocabulary of -log p
    correct: Array  # bool: the target has the largest logit


def from_logits(logits: Float[Array, "... vocab"], targets: Int[Array, ...]) -> TokenStats:
    logits = logits.astype(at_least_fp32(logits.dtype))
    log_z = jax.nn.logsumexp(logits, axis=-1)
    gold = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return TokenStats(log_z - gold, log_z, log_z - logits.mean(-1), logits.argmax(-1) == targets)


def chunk_rows(chunk: Any, tokens: int, vocab: int) -> int | None:
    """Returns how many tokens' logits are held at once; None for all of them."""
    if chunk == "none" or (chunk == "auto" and tokens * vocab <= PLAIN_LOGITS):
        return None
    rows = max(CHUNK_LOGITS // vocab, 128) if chunk == "auto" else int(chunk)
    return rows if rows < tokens else None


def token_stats(
    hidden: Float[Array, "batch seq embed"],
    w: Float[Array, "embed vocab"],
    targets: Int[Array, "batch seq"],
    *,
    precision: str,
    chunk: Any = "auto",
    shards: int = 1,
    finish: Callable[[Array], Array] = lambda logits: logits,
) -> TokenStats:
    """Computes `from_logits(finish(hidden @ w), targets)`, in chunks where the logits are many.

    A chunk is recomputed in the backward pass.

    Args:
      chunk: tokens of a device whose logits are held at once, rounded to whole columns of its rows:
        auto | none | a number.
      shards: how many devices share the rows.
      finish: what a model does to its logits, each by itself (a bias, a soft cap).

    Returns: arrays `[batch, seq]`.
    """
    b, s, _ = hidden.shape

    def one(h, t):
        with jax.named_scope("logits"):
            return from_logits(finish(to_vocab(h, w, precision)), t)

    tokens = chunk_rows(chunk, -(-b // shards) * s, w.shape[1])
    if tokens is None:
        return one(hidden, targets)
    # columns, not rows: every device has a part of each chunk
    columns = min(max(tokens * shards // b, 1), s)
    count = -(-s // columns)

    def cut(x):  # [B, S, ...] -> [count, B, columns, ...]
        x = jnp.pad(x, ((0, 0), (0, count * columns - s), *[(0, 0)] * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(b, count, columns, *x.shape[2:]), 1, 0)

    stats = lax.map(lambda args: jax.checkpoint(one)(*args), (cut(hidden), cut(targets)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, -1)[:, :s], stats)


def z_loss(stats: TokenStats) -> Float[Array, ...]:
    """Computes `log(Z)^2`, which keeps the softmax's denominator near 1.

    Chowdhery et al., PaLM, 2022, section 5.
    """
    return jnp.square(stats.log_z)
