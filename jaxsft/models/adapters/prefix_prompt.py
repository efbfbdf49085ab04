"""Prefix tuning and prompt tuning: learned virtual tokens before every text.

A prefix is keys and values of each layer, a prompt is vectors of the first.

Virtual tokens have positions 0 to P - 1, and every text begins at P, as if they had been read
before it (Li and Liang 2021, section 4.1): where positions are relative or disentangled, a token
sees them at these distances; keys of a prefix are learned as they are rotated. A prefix belongs to
all texts of a row (segment `EVERYONE`), and takes no place in it; a prompt takes P places of each
text, which the packer keeps free, so that an encoder's prompt sees its own text only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from jaxsft.config.adapters import Prefix, Prompt
from jaxsft.models.adapters.targets import Leaf, Site

EVERYONE = -1  # the segment of keys that the tokens of every text see


def declare_prefix(site: Site, options: Prefix) -> dict[str, Leaf]:
    """Declares keys and values of every virtual token, [P, K, N].

    They are trained directly, without Li and Liang's network in front.
    """
    w = site.spec  # of the keys: [D, K, N]
    leaf = Leaf(
        (options.tokens, *w.shape[1:]), ("virtual", *w.axes[1:]), nn.initializers.normal(0.02)
    )
    return {"prefix_k": leaf, "prefix_v": leaf}


class PrefixNode(struct.PyTreeNode):
    """The learned keys and values of one attention."""

    prefix_k: Float[Array, "virtual kv_heads head_dim"]
    prefix_v: Float[Array, "virtual kv_heads head_dim"]

    def keys_values(self, k: Array, v: Array, where: Any) -> tuple[Array, Array, Any]:
        """Puts the prefix in front of keys and values [B, T, K, N] and their positions: [B, P
        + T, ...].

        Its keys are not rotated.
        """
        b, p = k.shape[0], self.prefix_k.shape[0]
        before = lambda learned, x: jnp.concatenate(
            [jnp.broadcast_to(learned.astype(x.dtype), (b, *learned.shape)), x], axis=1
        )
        ids = jnp.concatenate(
            [
                jnp.full((b, p), EVERYONE, where.segment_ids.dtype),
                jnp.broadcast_to(where.segment_ids, k.shape[:2]),
            ],
            axis=1,
        )
        at = jnp.concatenate(
            [
                jnp.zeros((b, p), where.positions.dtype),
                jnp.broadcast_to(where.positions, k.shape[:2]),
            ],
            axis=1,
        )
        return (
            before(self.prefix_k, k),
            before(self.prefix_v, v),
            where._replace(segment_ids=ids, positions=at),
        )


def declare_prompt(site: Site, options: Prompt) -> dict[str, Leaf]:
    """Declares the prompt's vectors, [P, D]."""
    w = site.spec
    return {
        "prompt": Leaf(
            (options.tokens, w.shape[1]),
            ("virtual", w.axes[1]),
            nn.initializers.normal(w.shape[1] ** -0.5),
        )
    }


def start_prompt(
    leaves: Mapping[str, Array], w: Float[Array, "vocab embed"], options: Prompt, key: Array
) -> dict[str, Array]:
    """Returns prompt vectors copied from random rows of the embedding.

    They train better than noise (Lester et al. 2021, section 3.2).
    """
    ids = jax.random.choice(
        key,
        w.shape[0],
        (leaves["prompt"].shape[0],),
        replace=w.shape[0] < leaves["prompt"].shape[0],
    )
    return {"prompt": jnp.take(w, ids, axis=0).astype(leaves["prompt"].dtype)}


class PromptNode(struct.PyTreeNode):
    """The learned vectors of a prompt, inputs of the first layer."""

    prompt: Float[Array, "virtual embed"]

    def embed(
        self, x: Float[Array, "batch seq embed"], positions: Int[Array, "batch seq"]
    ) -> Float[Array, "batch seq embed"]:
        """Puts the prompt at the first P positions of each text."""
        p = self.prompt.shape[0]
        learned = jnp.take(self.prompt, jnp.clip(positions, 0, p - 1), axis=0)
        return jnp.where((positions < p)[..., None], learned.astype(x.dtype), x)
