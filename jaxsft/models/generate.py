"""Generation with a KV cache: rows that finish make room for the next prompts, in programs of fixed shapes.

    refill   writes prompts into free rows; one program for each width of prompts
    decode   draws tokens in all rows, one after another on the device; one program

All rows write to the same slot of the cache, whose slots are a ring: a prompt is laid where it ends at the slot that is written next. Who sees whom
is told by the position that each slot keeps, so that the order of slots does not matter.

Letters: B rows, R prompts of a refill, W their width, T slots, M new tokens at most, V vocab.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int, UInt32

from jaxsft.config.schema import GenerateConfig
from jaxsft.errors import ConfigError
from jaxsft.models import beam, stops
from jaxsft.models.attention import Tokens
from jaxsft.models.encoder_decoder import Sources
from jaxsft.models.kv import KV, cache_dtype, caches_at, empty_kv, empty_sources, encoded, laid_sources, unstacked, width_of
from jaxsft.models.sampling import Sampling, choose
from jaxsft.models.transformer import Params, Transformer
from jaxsft.sharding import mesh as meshes

CHECK = 16  # tokens between two looks for stop strings
REFILL = 8  # rows are filled when a part of `1 / REFILL` of them is free


class State(NamedTuple):
    """Rows of answers on the device.

    Attributes:
      kv: keys and values of each layer, `[B, K, T, N]`.
      where: of the slots.
      slot: the one that is written next.
      token: the last token of each row, which no cache holds yet. position: its position.
      number: of the prompt. new: how many tokens were drawn. done: nothing is drawn any more, or the row is free.
      out: the new tokens. seen: the tokens of prompt and answer.
      sources: of an encoder-decoder model, what its rows write about.
    """

    kv: KV
    where: Tokens
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
    """What a refill writes: all tokens but the last lie at the end of `ids` `[R, W]`, `held` of them; `token` is the last. `source`: `kv.encoded`."""

    ids: Int[Array, "refill width"]
    held: Int[Array, refill]
    token: Int[Array, refill]
    number: UInt32[Array, refill]
    source: tuple[Array, Array] | None = None


class Answer(NamedTuple):
    """Attributes:
    ids: the new tokens, without the stop token; with a stop string, up to the token that completes it.
    stopped: by a stop token or a stop string, not for want of room.
    text: of the ids, cut at the stop string; None where nothing was given to decode them.
    """

    ids: list[int]
    stopped: bool
    text: str | None = None


# --- on the device ---------------------------------------------------------------------------------------------------------------------------
@functools.partial(jax.jit, static_argnames=("model", "rows", "slots", "new", "dtype", "mesh", "width"))
def empty(model: Transformer, rows: int, slots: int, new: int, dtype: Any, mesh: Mesh | None, width: int = 0) -> State:
    """Free rows, and `width` tokens of sources."""
    zeros = lambda *shape: jnp.zeros(shape, jnp.int32)
    where = Tokens(zeros(rows, slots), zeros(rows, slots))
    number, done, seen = jnp.zeros(rows, jnp.uint32), jnp.ones(rows, bool), jnp.zeros((rows, model.vocab), bool)
    kv, sources = empty_kv(model, rows, slots, dtype), empty_sources(model, rows, width, dtype)
    return _spread(State(kv, where, jnp.int32(0), zeros(rows), zeros(rows), number, zeros(rows), done, zeros(rows, new), seen, sources), mesh)


@functools.partial(jax.jit, static_argnames=("model", "mesh"), donate_argnames=("state",))
def refill(model: Transformer, params: Params, state: State, prompts: Prompts, source: Int[Array, batch], mesh: Mesh | None) -> State:
    """Row `b` becomes prompt `source[b]`; -1: it stays."""
    r, width = prompts.ids.shape
    slots = state.where.positions.shape[1]
    index, begin = jnp.arange(width)[None, :], (width - prompts.held)[:, None]
    where = Tokens((index >= begin).astype(jnp.int32), jnp.maximum(index - begin, 0) - model.places)
    dtype = state.kv[0][0].dtype
    sources = encoded(model, params, prompts.source, dtype)
    caches = caches_at(empty_kv(model, r, width, dtype), where, jnp.int32(0), sources)
    _, caches = model.decode(params, prompts.ids, where, caches)
    taken = source >= 0
    source = jnp.maximum(source, 0)

    def put(old: Array, new: Array, axis: int | None = None) -> Array:
        if axis is not None:  # the last slot of the prompt comes before the one that is written next
            new = jnp.pad(new, [(slots - width if i == axis else 0, 0) for i in range(new.ndim)])
            new = jnp.roll(new, state.slot, axis)
        new = jnp.take(new, source, axis=0)
        return jnp.where(taken.reshape(-1, *[1] * (new.ndim - 1)), new.astype(old.dtype), old)

    def put_wide(old: Array, new: Array) -> Array:
        return put(old, jnp.pad(new, [(0, old.shape[1] - new.shape[1] if i == 1 else 0) for i in range(new.ndim)]))

    kv = tuple((put(k, cache.k, 2), put(v, cache.v, 2)) for (k, v), cache in zip(state.kv, caches, strict=True))
    seen = jnp.zeros((r, state.seen.shape[1]), bool).at[jnp.arange(r)[:, None], prompts.ids].max((where.segment_ids > 0) & (where.positions >= 0))
    seen = seen.at[jnp.arange(r), prompts.token].set(True)
    zero = jnp.zeros_like(prompts.held)
    return _spread(
        State(
            kv,
            Tokens(*(put(o, n, 1) for o, n in zip(state.where[:2], where[:2], strict=True))),
            state.slot,
            put(state.token, prompts.token),
            put(state.position, prompts.held - model.places),
            put(state.number, prompts.number),
            put(state.new, zero),
            state.done & ~taken,
            put(state.out, jnp.zeros((r, state.out.shape[1]), jnp.int32)),
            put(state.seen, seen),
            jax.tree.map(put_wide, state.sources, sources),
        ),
        mesh,
    )


@functools.partial(jax.jit, static_argnames=("model", "mesh"), donate_argnames=("state",))
def decode(
    model: Transformer,
    params: Params,
    state: State,
    ended: Bool[Array, batch],
    sampling: Sampling,
    stop_ids: Int[Array, stops],
    steps: Int[Array, ""],
    until: Int[Array, ""],
    mesh: Mesh | None,
) -> State:
    """Draws up to `steps` tokens in every row that is not done, until `until` rows are.

    Args:
      ended: rows to which nothing shall be added.
    """
    b, slots = state.where.positions.shape
    limit = state.out.shape[1]
    context = model.config.context - model.shift if model.config.positions == "learned" else None

    def more(carry):
        step, s = carry
        return (step < steps) & (s.done.sum() < until)

    def one(carry):
        step, s = carry
        write = lambda old, new: lax.dynamic_update_slice_in_dim(old, new[:, None], s.slot, axis=1)
        where = Tokens(write(s.where.segment_ids, jnp.ones(b, jnp.int32)), write(s.where.positions, s.position))
        now = Tokens(jnp.ones((b, 1), jnp.int32), s.position[:, None])
        hidden, caches = model.decode(params, s.token[:, None], now, caches_at(s.kv, where, s.slot, s.sources))
        token = choose(model.logits(params, hidden[:, 0]), s.seen, s.number, s.new, sampling)
        token = jnp.where(s.done, s.token, token)
        out = jnp.where((jnp.arange(limit) == s.new[:, None]) & ~s.done[:, None], token[:, None], s.out)
        new, position = s.new + ~s.done, s.position + 1
        done = s.done | jnp.isin(token, stop_ids) | (new >= limit)
        if context is not None:  # a learned table has no place for more
            done |= position >= context
        seen = s.seen.at[jnp.arange(b), token].set(True)
        kv = tuple((cache.k, cache.v) for cache in caches)
        return step + 1, State(kv, where, (s.slot + 1) % slots, token, position, s.number, new, done, out, seen, s.sources)

    state = state._replace(done=state.done | ended)
    return _spread(lax.while_loop(more, one, (jnp.int32(0), state))[1], mesh)


@functools.partial(jax.jit, static_argnames=("slots", "mesh"))
def grow(state: State, slots: int, mesh: Mesh | None) -> State:
    """The same rows with more slots in the ring: it is cut at the slot that is written next, and free ones come in there."""

    def longer(x: Array, axis: int) -> Array:
        return jnp.pad(jnp.roll(x, -state.slot, axis), [(slots - x.shape[axis] if i == axis else 0, 0) for i in range(x.ndim)])

    kv = jax.tree.map(lambda x: longer(x, 2), state.kv)
    return _spread(state._replace(kv=kv, where=Tokens(*(longer(x, 1) for x in state.where[:2])), slot=jnp.int32(0)), mesh)


def _spread(state: State, mesh: Mesh | None) -> State:
    """Rows over the devices, key heads as their weights; what the host reads is whole on each of its processes."""
    if mesh is None:
        return state
    whole, rows = meshes.replicated(mesh), meshes.rows(mesh)
    heads = meshes.RULES["kv_heads"] if state.kv[0][0].shape[1] % mesh.shape[meshes.RULES["kv_heads"]] == 0 else None
    cache = NamedSharding(mesh, PartitionSpec(*rows.spec, heads))
    kv = ((cache, cache),) * len(state.kv)
    places = State(kv, Tokens(rows, rows), whole, rows, rows, rows, whole, whole, whole, rows, jax.tree.map(lambda _: rows, state.sources))
    return lax.with_sharding_constraint(state, places)


# --- on the host -----------------------------------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Rows:
    """The rows of a batch, and which prompt is in each: None where it is free. `ended`: rows that a stop string has ended."""

    model: Transformer
    params: Params
    prompts: Sequence[Sequence[int]]
    new: int
    size: int
    mesh: Mesh | None
    sources: Sequence[Sequence[int]] | None = None  # of an encoder-decoder model, one for each prompt

    def __post_init__(self) -> None:
        shards = 1 if self.mesh is None else meshes.row_shards(self.mesh)
        up = lambda n: -(-n // shards) * shards  # each device gets as many rows
        self.size, self.together = up(self.size), up(-(-self.size // REFILL))
        self.params = unstacked(self.params)
        self.number: list[int | None] = [None] * self.size
        self.ended = np.zeros(self.size, bool)
        self.state: State | None = None

    @property
    def free(self) -> list[int]:
        return [row for row, number in enumerate(self.number) if number is None]

    def fill(self, waiting: collections.deque[int]) -> None:
        """Moves prompts from `waiting` into free rows, `together` at a time."""
        now = min(len(waiting), len(self.free))
        if not waiting or now < min(self.together, len(waiting)):
            return
        slots = max(self._width(waiting[i]) for i in range(now)) + self.new
        if self.state is None:
            width = width_of(max(map(len, self.sources))) if self.sources else 0
            self.state = empty(self.model, self.size, slots, self.new, cache_dtype(self.model, self.params), self.mesh, width)
        elif slots > self.state.where.positions.shape[1]:
            self.state = grow(self.state, slots, self.mesh)
        while waiting and (len(self.free) >= self.together or len(self.free) >= len(waiting)):
            self._refill([waiting.popleft() for _ in range(min(self.together, len(waiting)))])

    def draw(self, sampling: Sampling, stop_ids: Sequence[int], steps: int, until: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(done, number of new tokens, the new tokens) of each row, after `steps` tokens or when `until` rows are done."""
        stop = np.array(list(stop_ids) or [-1], np.int32)
        numbers = np.int32(steps), np.int32(until)
        self.state = decode(self.model, self.params, self.state, self.ended, sampling, stop, *numbers, self.mesh)
        return jax.device_get((self.state.done, self.state.new, self.state.out))

    def _width(self, number: int) -> int:
        return width_of(len(self.prompts[number]) - 1)

    def _refill(self, numbers: Sequence[int]) -> None:
        width, source = max(map(self._width, numbers)), np.full(self.size, -1, np.int32)
        new = Prompts(np.zeros((self.together, width), np.int32), *(np.zeros(self.together, kind) for kind in (np.int32, np.int32, np.uint32)))
        for i, (row, number) in enumerate(zip(self.free, numbers, strict=False)):
            ids = self.prompts[number]
            new.ids[i, width - len(ids) + 1 :] = ids[:-1]
            new.held[i], new.token[i], new.number[i] = len(ids) - 1, ids[-1], number
            source[row], self.number[row], self.ended[row] = i, number, False
        if self.sources:
            new = new._replace(source=laid_sources([self.sources[number] for number in numbers], self.together))
        if self.mesh is not None:
            here = meshes.rows_here(self.mesh, self.together)
            new = meshes.place_rows(jax.tree.map(lambda x: x[here], new), self.mesh, self.together)
        self.state = refill(self.model, self.params, self.state, new, source, self.mesh)


def continuations(
    model: Transformer,
    params: Params,
    prompts: Sequence[Sequence[int]],
    options: GenerateConfig,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    seed: int = 0,
    mesh: Mesh | None = None,
    read: stops.Decode | None = None,
    start: Sequence[int] = (),
    every: int | None = None,
) -> Iterator[tuple[int, Answer, bool]]:
    """(number of a prompt, its answer so far, whether it is complete) after `every` tokens; None: complete answers only. Raises as `generate`."""
    check(model, prompts, options, read)
    prompts = [[0] * model.places + list(prompt) for prompt in prompts] if model.places else prompts  # virtual tokens, whose ids no one reads
    sampling, known = Sampling.of(options, seed), collections.Counter()
    prompts, sources = ([start] * len(prompts), prompts) if start else (prompts, None)
    waiting = collections.deque(sorted(range(len(prompts)), key=lambda i: (len((sources or prompts)[i]), i)))
    rows = Rows(model, params, prompts, max_new_tokens, options.batch_size, mesh, sources)
    steps = every or (CHECK if options.stop else max_new_tokens)
    while waiting or len(rows.free) < rows.size:
        rows.fill(waiting)
        done, new, out = rows.draw(sampling, stop_ids, steps, min(rows.together, len(waiting)) if waiting else rows.size)
        for row, number in enumerate(rows.number):
            if number is None:
                continue
            ids, old = out[row, : new[row]].tolist(), known[number]
            stopped = bool(done[row]) and ids[-1] in stop_ids
            ids, known[number] = ids[: len(ids) - stopped], len(ids)
            found = stops.ended(ids, old, read, options.stop) if options.stop else None
            complete = bool(done[row]) or found is not None
            if complete:
                rows.number[row], rows.ended[row] = None, True
            if complete or every:
                yield number, Answer(ids, stopped, read and read(ids)) if found is None else Answer(found[0], True, found[1]), complete


def check(model: Transformer, prompts: Sequence[Sequence[int]], options: GenerateConfig, read: stops.Decode | None) -> None:
    """Raises ConfigError for what cannot be generated from."""
    longest = max(map(len, prompts), default=0)
    if model.config.positions == "learned" and longest > model.config.context - model.shift:
        raise ConfigError(f"a prompt has {longest} tokens, but model.positions=learned ends at model.context={model.config.context}")
    if empties := [i for i, prompt in enumerate(prompts, start=1) if not len(prompt)]:
        raise ConfigError(f"prompt {empties[0]} has no token to continue from; give a text, or a tokenizer with a bos token")
    if options.num_beams > 1 and model.places:
        raise ConfigError(f"generate.num_beams={options.num_beams}: beams have no place for the tokens of adapter=prompt; set generate.num_beams=1")
    if options.stop and read is None:
        raise ConfigError("generate.stop: texts end answers that are decoded only; give what decodes them")


def generate(
    model: Transformer,
    params: Params,
    prompts: Sequence[Sequence[int]],
    options: GenerateConfig,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    seed: int = 0,
    mesh: Mesh | None = None,
    read: stops.Decode | None = None,
    start: Sequence[int] = (),
) -> list[Answer]:
    """Continuations of prompts, in their order.

    A greedy answer does not depend on the other prompts, the size of the batch or the padding; a sample is a function of (seed, its prompt's number).

    Args:
      options: batch_size and how tokens are chosen; `max_new_tokens` there is not read.
      mesh: where `params` lie; rows are spread over its devices.
      read: decodes ids; the answers then have texts.
      start: of an encoder-decoder model: the prompts are what it reads, and this is what its answers begin with.

    Raises:
      ConfigError: a prompt is empty or longer than a learned table of positions, or stop strings without `read`.
    """
    results: list[Any] = [None] * len(prompts)
    if options.num_beams > 1:
        check(model, prompts, options, read)
        return _beams(model, params, prompts, options, max_new_tokens, stop_ids, mesh, read, start)
    given = {"max_new_tokens": max_new_tokens, "stop_ids": stop_ids, "seed": seed, "mesh": mesh, "read": read, "start": start}
    for number, answer, _ in continuations(model, params, prompts, options, **given):
        results[number] = answer
    return results


def _beams(
    model: Transformer,
    params: Params,
    prompts: Sequence[Sequence[int]],
    options: GenerateConfig,
    new: int,
    stop_ids: Sequence[int],
    mesh: Mesh | None,
    read: stops.Decode | None,
    start: Sequence[int],
) -> list[Answer]:
    found = beam.answers(
        model,
        params,
        prompts,
        beams=options.num_beams,
        length_penalty=options.length_penalty,
        repetition_penalty=options.repetition_penalty,
        max_new_tokens=new,
        stop_ids=stop_ids,
        batch_size=options.batch_size,
        mesh=mesh,
        start=start,
    )
    out = []
    for ids, _ in found:
        stopped = bool(ids) and ids[-1] in stop_ids
        ids = ids[:-1] if stopped else ids
        out.append(Answer(ids, stopped, None if read is None else read(ids)))
    return out
