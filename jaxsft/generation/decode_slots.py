"""Decoding slots: rows of answers on the device; finished ones make room for new prompts.

The programs have fixed shapes.

All rows write to the same slot of the cache, whose slots are a ring: a prompt is laid where it ends
at the slot that is written next. Who sees whom is told by the position that each slot keeps, so
that the order of slots does not matter.

Letters: B rows, R prompts of a refill, W their width, T slots, M new tokens at most, V vocab.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxsft.generation.kv_cache import (
    KV,
    cache_dtype,
    caches_at,
    empty_kv,
    empty_sources,
    encoded,
    laid_sources,
    unstacked,
    width_of,
)
from jaxsft.models.attention import TokenInfo
from jaxsft.models.encoder_decoder import Sources
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.sharding import mesh as meshes

REFILL = 8  # rows are filled when a part of `1 / REFILL` of them is free


class DecodeState(NamedTuple):
    """The answers that grow on the device, one per row.

    Attributes:
      kv: keys and values of each layer, `[B, K, T, N]`.
      where: of the slots.
      slot: the one that is written next.
      token: the last token of each row, which no cache holds yet. position: its position.
      number: of the prompt. new: how many tokens were drawn. done: nothing is drawn any more, or
        the row is free.
      out: the new tokens. seen: the tokens of prompt and answer.
      sources: of an encoder-decoder model, what its rows write about.
    """

    kv: KV
    where: TokenInfo
    slot: Int[Array, ""]
    token: Int[Array, batch]
    position: Int[Array, batch]
    number: UInt32[Array, batch]
    new: Int[Array, batch]
    done: Bool[Array, batch]
    out: Int[Array, "batch new"]
    seen: Bool[Array, "batch vocab"]
    sources: Sources | None = None


class Prompts(NamedTuple):
    """The prompts of a refill.

    All tokens but the last lie at the end of `ids` `[R, W]`, `held` of them; `token` is the
    last. `source`: `kv.encoded`.
    """

    ids: Int[Array, "refill width"]
    held: Int[Array, refill]
    token: Int[Array, refill]
    number: UInt32[Array, refill]
    source: tuple[Array, Array] | None = None


# --- on the device
# --------------------------------------------------------------------------------------------------
@functools.partial(
    jax.jit, static_argnames=("model", "rows", "slots", "new", "dtype", "mesh", "width")
)
def empty(
    model: Transformer,
    rows: int,
    slots: int,
    new: int,
    dtype: Any,
    mesh: Mesh | None,
    width: int = 0,
) -> DecodeState:
    """Returns rows that are all free, with room for `width` source tokens."""
    zeros = lambda *shape: jnp.zeros(shape, jnp.int32)
    where = TokenInfo(zeros(rows, slots), zeros(rows, slots))
    number, done, seen = (
        jnp.zeros(rows, jnp.uint32),
        jnp.ones(rows, bool),
        jnp.zeros((rows, model.vocab), bool),
    )
    kv, sources = empty_kv(model, rows, slots, dtype), empty_sources(model, rows, width, dtype)
    return spread(
        DecodeState(
            kv,
            where,
            jnp.int32(0),
            zeros(rows),
            zeros(rows),
            number,
            zeros(rows),
            done,
            zeros(rows, new),
            seen,
            sources,
        ),
        mesh,
    )


@functools.partial(jax.jit, static_argnames=("model", "mesh"), donate_argnames=("state",))
def refill(
    model: Transformer,
    params: Params,
    state: DecodeState,
    prompts: Prompts,
    source: Int[Array, batch],
    mesh: Mesh | None,
) -> DecodeState:
    """Fills row `b` with prompt `source[b]`; -1 leaves it as it is."""
    r, width = prompts.ids.shape
    slots = state.where.positions.shape[1]
    index, begin = jnp.arange(width)[None, :], (width - prompts.held)[:, None]
    where = TokenInfo(
        (index >= begin).astype(jnp.int32), jnp.maximum(index - begin, 0) - model.prompt_length
    )
    dtype = state.kv[0][0].dtype
    sources = encoded(model, params, prompts.source, dtype)
    caches = caches_at(empty_kv(model, r, width, dtype), where, jnp.int32(0), sources)
    _, caches = model.decode(params, prompts.ids, where, caches)
    taken = source >= 0
    source = jnp.maximum(source, 0)

    def put(old: Array, new: Array, axis: int | None = None) -> Array:
        # the last slot of the prompt comes before the one that is written next
        if axis is not None:
            new = jnp.pad(new, [(slots - width if i == axis else 0, 0) for i in range(new.ndim)])
            new = jnp.roll(new, state.slot, axis)
        new = jnp.take(new, source, axis=0)
        return jnp.where(taken.reshape(-1, *[1] * (new.ndim - 1)), new.astype(old.dtype), old)

    def put_wide(old: Array, new: Array) -> Array:
        wider = old.shape[1] - new.shape[1]
        return put(old, jnp.pad(new, [(0, wider if i == 1 else 0) for i in range(new.ndim)]))

    kv = tuple(
        (put(k, cache.k, 2), put(v, cache.v, 2))
        for (k, v), cache in zip(state.kv, caches, strict=True)
    )
    seen, row = jnp.zeros((r, state.seen.shape[1]), bool), jnp.arange(r)
    in_text = (where.segment_ids > 0) & (where.positions >= 0)
    seen = seen.at[row[:, None], prompts.ids].max(in_text).at[row, prompts.token].set(True)
    zero = jnp.zeros_like(prompts.held)
    return spread(
        DecodeState(
            kv,
            TokenInfo(*(put(o, n, 1) for o, n in zip(state.where[:2], where[:2], strict=True))),
            state.slot,
            put(state.token, prompts.token),
            put(state.position, prompts.held - model.prompt_length),
            put(state.number, prompts.number),
            put(state.new, zero),
            state.done & ~taken,
            put(state.out, jnp.zeros((r, state.out.shape[1]), jnp.int32)),
            put(state.seen, seen),
            jax.tree.map(put_wide, state.sources, sources),
        ),
        mesh,
    )


def forward(
    model: Transformer, params: Params, state: DecodeState
) -> tuple[Float[Array, "batch vocab"], DecodeState]:
    """Computes the logits after the last token of each row, and caches that token."""
    b, slots = state.where.positions.shape
    write = lambda old, new: lax.dynamic_update_slice_in_dim(old, new[:, None], state.slot, axis=1)
    where = TokenInfo(
        write(state.where.segment_ids, jnp.ones(b, jnp.int32)),
        write(state.where.positions, state.position),
    )
    now = TokenInfo(jnp.ones((b, 1), jnp.int32), state.position[:, None])
    hidden, caches = model.decode(
        params, state.token[:, None], now, caches_at(state.kv, where, state.slot, state.sources)
    )
    kv = tuple((cache.k, cache.v) for cache in caches)
    return model.logits(params, hidden[:, 0]), state._replace(
        kv=kv, where=where, slot=(state.slot + 1) % slots
    )


def is_last(model: Transformer, state: DecodeState) -> Bool[Array, batch]:
    """Returns whether the next token of a row must be the last.

    The answer is as long as it may be, or a learned position table ends.
    """
    last = state.new + 1 >= state.out.shape[1]
    if model.config.positions == "learned":
        last |= state.position + 1 >= model.config.context - model.position_offset
    return last


@functools.partial(jax.jit, static_argnames=("slots", "mesh"))
def grow(state: DecodeState, slots: int, mesh: Mesh | None) -> DecodeState:
    """Adds slots to the ring of the cache: it is cut at the slot that is written next."""

    def longer(x: Array, axis: int) -> Array:
        return jnp.pad(
            jnp.roll(x, -state.slot, axis),
            [(slots - x.shape[axis] if i == axis else 0, 0) for i in range(x.ndim)],
        )

    kv = jax.tree.map(lambda x: longer(x, 2), state.kv)
    return spread(
        state._replace(
            kv=kv, where=TokenInfo(*(longer(x, 1) for x in state.where[:2])), slot=jnp.int32(0)
        ),
        mesh,
    )


def spread(state: DecodeState, mesh: Mesh | None) -> DecodeState:
    """Shards rows over the devices, and key heads as their weights."""
    return state if mesh is None else lax.with_sharding_constraint(state, places_of(state, mesh))


def places_of(state: DecodeState, mesh: Mesh) -> DecodeState:
    """Returns the sharding of each array; what the host reads is on each of its processes."""
    whole, rows = meshes.replicated(mesh), meshes.rows(mesh)
    heads = (
        meshes.RULES["kv_heads"]
        if state.kv[0][0].shape[1] % mesh.shape[meshes.RULES["kv_heads"]] == 0
        else None
    )
    cache = NamedSharding(mesh, PartitionSpec(*rows.spec, heads))
    kv = ((cache, cache),) * len(state.kv)
    return DecodeState(
        kv,
        TokenInfo(rows, rows),
        whole,
        rows,
        rows,
        rows,
        whole,
        whole,
        whole,
        rows,
        jax.tree.map(lambda _: rows, state.sources),
    )


# --- on the host
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class DecodeSlots:
    """The rows of a batch and the prompt in each; None where a row is free.

    Attributes:
      prompts: what answers go on from; with `start`, what an encoder-decoder model reads, whose
        answers begin with `start`.
      size: how many prompts there are at once; each has `beams` rows, which are neighbours.
    """

    model: Transformer
    params: Params
    prompts: Sequence[Sequence[int]]
    new: int
    size: int
    mesh: Mesh | None
    start: Sequence[int] = ()
    beams: int = 1

    def __post_init__(self) -> None:
        shards = 1 if self.mesh is None else meshes.row_shards(self.mesh)
        up = lambda n: -(-n // shards) * shards  # each device gets as many rows
        self.size, self.together = up(self.size), up(-(-self.size // REFILL))
        self.params = unstacked(self.params)
        self.waiting = collections.deque(
            sorted(range(len(self.prompts)), key=lambda i: (len(self.prompts[i]), i))
        )
        self.sources: Sequence[Sequence[int]] | None = None
        if self.start:
            self.prompts, self.sources = [self.start] * len(self.prompts), self.prompts
        elif self.model.prompt_length:
            # virtual tokens, whose ids no one reads
            self.prompts = [
                [0] * self.model.prompt_length + list(prompt) for prompt in self.prompts
            ]
        self.number: list[int | None] = [None] * self.size
        self.state: DecodeState | None = None

    @property
    def free(self) -> list[int]:
        return [row for row, number in enumerate(self.number) if number is None]

    @property
    def busy(self) -> bool:
        """Returns whether an answer is still unfinished."""
        return bool(self.waiting) or len(self.free) < self.size

    @property
    def until(self) -> int:
        """Returns how many prompts shall be done before the next are filled in."""
        return min(self.together, len(self.waiting)) if self.waiting else self.size

    def fill(self) -> None:
        """Moves prompts that wait into free rows, `together` at a time."""
        now = min(len(self.waiting), len(self.free))
        if not self.waiting or now < min(self.together, len(self.waiting)):
            return
        slots = max(self._width(self.waiting[i]) for i in range(now)) + self.new
        if self.state is None:
            width, dtype = (
                (width_of(max(map(len, self.sources))) if self.sources else 0),
                cache_dtype(self.model, self.params),
            )
            self.state = empty(
                self.model, self.size * self.beams, slots, self.new, dtype, self.mesh, width
            )
        elif slots > self.state.where.positions.shape[1]:
            self.state = grow(self.state, slots, self.mesh)
        while self.waiting and (
            len(self.free) >= self.together or len(self.free) >= len(self.waiting)
        ):
            self.refill(
                [self.waiting.popleft() for _ in range(min(self.together, len(self.waiting)))]
            )

    def refill(self, numbers: Sequence[int]) -> list[int]:
        """Writes these prompts into free rows, and gives which."""
        width, source = max(map(self._width, numbers)), np.full(self.size, -1, np.int32)
        new = Prompts(
            np.zeros((self.together, width), np.int32),
            *(np.zeros(self.together, kind) for kind in (np.int32, np.int32, np.uint32)),
        )
        taken = self.free[: len(numbers)]
        for i, (row, number) in enumerate(zip(taken, numbers, strict=True)):
            ids = self.prompts[number]
            new.ids[i, width - len(ids) + 1 :] = ids[:-1]
            new.held[i], new.token[i], new.number[i] = len(ids) - 1, ids[-1], number
            source[row], self.number[row] = i, number
        if self.sources:
            new = new._replace(
                source=laid_sources([self.sources[number] for number in numbers], self.together)
            )
        if self.mesh is not None:
            here = meshes.rows_here(self.mesh, self.together)
            new = meshes.place_rows(jax.tree.map(lambda x: x[here], new), self.mesh, self.together)
        self.state = refill(
            self.model, self.params, self.state, new, np.repeat(source, self.beams), self.mesh
        )
        return taken

    def _width(self, number: int) -> int:
        return width_of(len(self.prompts[number]) - 1)
