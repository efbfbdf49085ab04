"""The embeddings of tokens, positions and types."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxsft import halves, quantised
from jaxsft.config.model import ModelConfig
from jaxsft.models.attention import TokenInfo
from jaxsft.models.layers import Linear, Norm
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.weights import declare, weight_of


class Embed(nn.Module):
    """The embeddings of tokens, positions and types. [B, S] -> [B, S, D].

    Positions and types are added where the model has tables of them.
    """

    vocab: int
    config: ModelConfig
    precision: str
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "batch seq"], where: TokenInfo
    ) -> Float[Array, "batch seq embed"]:
        c = self.config
        size = c.embed_inner or c.embed
        x = Table(self.vocab, size, "vocab", self.mesh, name="tokens")(tokens)
        if self.has_variable("adapters", "adapter"):
            x = self.get_variable("adapters", "adapter").embed(x, where.positions)
        x = x * c.embed_scale
        if c.positions == "sinusoidal":
            x = x + sinusoids(where.positions + c.position_offset, size, c.rope_base, x.dtype)
        if c.positions in LEARNED:
            rows = c.context + c.position_offset
            x = x + Table(rows, size, "positions", name="positions")(
                where.positions + c.position_offset
            )
        if c.types:
            types = jnp.zeros_like(tokens) if where.types is None else where.types
            x = x + Table(c.types, size, "positions", name="types")(types)
        if c.embed_norm:
            x = Norm.of(c, name="norm")(x)
        if c.embed_inner:  # Lan et al., 2019, arXiv:1909.11942, section 3.1
            x = Linear(
                "bse,ed->bsd",
                (size, c.embed),
                ("positions", "embed"),
                self.precision,
                bias=True,
                name="project",
            )(x)
        return x


LEARNED = ("learned", "learned_relative")  # positions that have a table of embeddings


def sinusoids(
    positions: Int[Array, "batch seq"], size: int, base: float, dtype: Any
) -> Float[Array, "batch seq size"]:
    """Computes the sines, then the cosines, of each position times `base ** (-2 i / size)`.

    Vaswani et al., 2017, arXiv:1706.03762, section 3.5, but for the order of dimensions.
    """
    each = [np.arange(n) for n in (size - size // 2, size // 2)]
    turn = [np.power(base, -2.0 * i / size).astype(np.dtype(dtype)) for i in each]
    sine, cosine = (positions[..., None].astype(dtype) * frequency for frequency in turn)
    return jnp.concatenate([jnp.sin(sine), jnp.cos(cosine)], axis=-1)


class Table(nn.Module):
    """A row of `w` `[rows, D]` for each id.

    Rows have unit length at the start, so that the logits of a tied head have unit variance.
    """

    rows: int
    embed: int
    axis: str
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, ids: Int[Array, "batch seq"]) -> Float[Array, "batch seq embed"]:
        w = weight_of(
            self,
            declare(nn.initializers.normal(self.embed**-0.5), (self.axis, "embed")),
            (self.rows, self.embed),
        )
        if quantised.are(w):
            x = w.rows(ids)
        else:
            x = _spread_rows(w, ids, self.axis, self.mesh)
            x = halves.widen(jnp.take(w, ids, axis=0)) if x is None else x
        return (
            self.get_variable("adapters", "adapter").rows(ids, x, w)
            if self.has_variable("adapters", "adapter")
            else x
        )


def _spread_rows(
    w: Float[Array, "rows embed"], ids: Int[Array, "batch seq"], axis: str, mesh: Mesh | None
) -> Float[Array, "batch seq embed"] | None:
    """Returns the rows of ids of a table that is spread over a mesh; None where it is not.

    Each device looks up the tokens of all in its part of the table and sends what it found to where
    they are, so that neither the table nor its gradient is ever whole.
    """
    rules = meshes.RULES
    of_rows, of_embed = rules[axis], rules["embed"]
    if mesh is None or mesh.shape[of_embed] == 1 or w.shape[1] % mesh.shape[of_embed]:
        return None
    if ids.shape[0] % meshes.row_shards(mesh):  # an evaluation of fewer rows than devices
        return None
    spread = of_rows is not None and mesh.shape[of_rows] > 1
    of_rows = of_rows if spread and w.shape[0] % mesh.shape[of_rows] == 0 else None

    def of_device(w, ids):
        shape, ids = ids.shape, lax.all_gather(ids.reshape(-1), of_embed, tiled=True)
        at = ids if of_rows is None else ids - lax.axis_index(of_rows) * w.shape[0]
        x = jnp.take(w, at, axis=0, mode="fill", fill_value=0)  # [tokens of all, D / devices]
        if of_rows is not None:
            x = lax.psum(jnp.where((at >= 0)[..., None], x, 0), of_rows)
        x = lax.all_to_all(x, of_embed, split_axis=0, concat_axis=1, tiled=True)
        return x.reshape(*shape, -1)

    rows = meshes.sequences(mesh, ids.shape[1]).spec
    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(PartitionSpec(of_rows, of_embed), rows),
        out_specs=rows,
        check_vma=False,
    )(w, ids)
