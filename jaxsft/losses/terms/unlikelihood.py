"""Token unlikelihood: words that stood in an answer already are made less likely (Welleck et al.,
2019, arXiv:1908.04319, eq. 4 and 5).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxsft.products import finish_logits, to_vocab


def candidates(
    targets: Int[Array, "batch seq"],
    weights: Float[Array, "batch seq"],
    segments: Int[Array, "batch seq"],
) -> Bool[Array, "batch seq seq"]:
    """Returns which earlier targets of its text are not to be repeated at each place, `[B, S, S]`.

    Only trained targets are, each word once, and never the word that is right there. The first
    index is the place, the second that of the earlier target.
    """
    trained = weights > 0
    same_text = (segments[:, :, None] == segments[:, None, :]) & trained[:, None, :]
    earlier = jnp.tril(jnp.ones((targets.shape[1],) * 2, bool), -1)
    same_word = targets[:, :, None] == targets[:, None, :]
    first = trained & ~(same_text & same_word & earlier).any(-1)
    return same_text & earlier & ~same_word & first[:, None, :] & trained[:, :, None]


def values(
    log_p: Float[Array, "batch seq seq"], barred: Bool[Array, "batch seq seq"]
) -> Float[Array, "batch seq"]:
    """Computes `-sum_c log(1 - p(c))` over the candidates c of each place."""
    # finite where p is 1 to rounding
    least = -jnp.finfo(log_p.dtype).eps
    log_rest = jnp.log(-jnp.expm1(jnp.minimum(jnp.where(barred, log_p, -1.0), least)))
    return -jnp.where(barred, log_rest, 0).sum(-1)


def of_tokens(
    model: Any,
    params: Any,
    hidden: Float[Array, "batch seq embed"],
    log_z: Float[Array, "batch seq"],
    targets: Int[Array, "batch seq"],
    weights: Float[Array, "batch seq"],
    segments: Int[Array, "batch seq"],
) -> Float[Array, "batch seq"]:
    """Computes the loss of each place from the states that the targets are predicted from.

    Of the logits, those of the words of a row are made alone: `[B, S, S]`, not `[B, S, V]`; with an
    adapter on the output matrix all of them are.

    Args:
      log_z: the logarithm of the softmax's denominator (`tokens.TokenStats`).
    """
    matrix, finish = model.output_matrix(params), model.finish(params)
    hidden = hidden * model.config.logit_scale
    bias, cap = finish["bias"], finish["cap"]

    def of_row(states, words):
        if hasattr(matrix, "logits"):
            logits = to_vocab(states, matrix, model.precision)[:, words]
        else:
            logits = to_vocab(states, matrix[:, words], model.precision)
        return finish_logits(logits, None if bias is None else bias[words], cap)

    log_p = jax.vmap(of_row)(hidden, targets) - log_z[..., None]
    return values(log_p, candidates(targets, weights, segments))
