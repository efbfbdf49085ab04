"""Dropout, and noise on embeddings: a traced rate, and one key per row."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxsft.products import at_least_fp32


class Dropout(NamedTuple):
    """A traced dropout rate and one key per row.

    A row's mask depends neither on its micro-batch nor on its device.
    """

    rate: Float[Array, ""]
    keys: Array  # [B]
    # the rate of an adapter's own dropout, which has the same keys
    adapter: Float[Array, ""] | None = None
    neftune: Float[Array, ""] | None = None  # how strong the noise on embeddings is

    def at(self, site: int | Int[Array, ""]) -> Dropout:
        return self._replace(keys=jax.vmap(jax.random.fold_in, (0, None))(self.keys, site))

    def of_another_pass(self) -> Dropout:
        """Returns dropout with other keys at every site."""
        return self.at(2**31 - 1)

    def of_adapter(self) -> Dropout | None:
        return None if self.adapter is None else Dropout(self.adapter, self.keys)


def apply_dropout(
    x: Float[Array, "batch ..."], dropout: Dropout | None, site: int
) -> Float[Array, "batch ..."]:
    """Applies inverted dropout (Srivastava et al., 2014); the identity without it or at rate 0.

    Each element draws 16 random bits, so the rate is exact to 1/65536.
    """
    if dropout is None:
        return x
    keep = jnp.round((1.0 - dropout.rate) * 65536.0)
    bits = jax.vmap(lambda key: jax.random.bits(key, x.shape[1:], jnp.uint16))(
        dropout.at(site).keys
    )
    scale = jnp.where(keep > 0, 65536.0 / jnp.maximum(keep, 1.0), 0.0)
    scaled = (x * scale.astype(at_least_fp32(x.dtype))).astype(x.dtype)
    return jnp.where(bits.astype(jnp.int32) < keep.astype(jnp.int32), scaled, jnp.zeros_like(x))


def neftune(
    x: Float[Array, "batch seq embed"],
    dropout: Dropout | None,
    segment_ids: Int[Array, "batch seq"],
) -> Float[Array, "batch seq embed"]:
    """Adds noise from `[-1, 1] alpha / sqrt(length of the text x D)` to embeddings in training.

    Jain et al., 2023, arXiv:2310.05914, algorithm 1.
    """
    if dropout is None or dropout.neftune is None:
        return x
    b, s, d = x.shape
    rows = jnp.arange(b)[:, None]
    # of the text that a token is of
    length = jnp.zeros((b, s + 1), x.dtype).at[rows, segment_ids].add(1)[rows, segment_ids]
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (s, d), x.dtype, -1.0, 1.0))(
        dropout.at(1).keys
    )
    return x + drawn * (dropout.neftune.astype(x.dtype) / jnp.sqrt(length * d))[..., None]
