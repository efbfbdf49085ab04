"""Generation with a KV cache: one compiled loop for a batch of prompts, padded on the left so that all of them write to the same slot."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt32

from jaxsft.errors import ConfigError
from jaxsft.models.attention import Cache, Tokens
from jaxsft.models.layers import at_least_fp32
from jaxsft.models.transformer import Params, Transformer
from jaxsft.sharding import mesh as meshes


@functools.partial(jax.jit, static_argnames=("model", "max_new_tokens", "stop_ids", "mesh"))
def decode(
    model: Transformer,
    params: Params,
    prompt: Int[Array, "batch width"],
    length: Int[Array, batch],
    seed: UInt32[Array, ""],
    numbers: UInt32[Array, batch],
    temperature: Float[Array, ""],
    *,
    max_new_tokens: int,
    stop_ids: tuple[int, ...],
    mesh: Mesh | None = None,
) -> Int[Array, "batch new"]:
    """Continues prompts until each has written a stop token, or `max_new_tokens`.

    Args:
      prompt: the last `length` ids of each row are the prompt; a row of length 0 is filler and stops at once.
      seed, numbers: of the run and of each prompt; a row's samples depend neither on its place nor on the others.
      temperature: 0 takes the largest logit, otherwise samples from `softmax(logits / temperature)`.
      mesh: where `params` lie; the ids come back whole to each of its processes.

    Returns: the new ids, the stop token included; -1 after it.
    """
    b, width = prompt.shape
    slots = width + max_new_tokens
    _, real, position = laid = layout(length, width, slots, model.places)
    c = model.config
    places = c.context - model.shift + model.places if c.positions == "learned" else slots  # a learned table has no place for more

    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)

    def choose(hidden, step):  # [B, D] -> [B]
        return draw(model.logits(params, hidden), keys, step, temperature)

    caches = caches_at(jnp.int32(0), width, laid, empty_caches(model, position, model.output_matrix(params).dtype))
    hidden, caches = model.decode(params, prompt, Tokens(real[:, :width], position[:, :width]), caches)
    first = choose(hidden[:, -1], 0)
    out = jnp.full((b, max_new_tokens), -1, jnp.int32).at[:, 0].set(jnp.where(length > 0, first, -1))

    def ends(token, step):
        return jnp.isin(token, jnp.array(stop_ids, jnp.int32)) | (length + step >= places)

    def unfinished(carry):
        step, _, done, _, _ = carry
        return (step < max_new_tokens) & ~done.all()

    def one(carry):
        step, token, done, caches, out = carry
        slot = width + step - 1
        where = Tokens(jnp.ones((b, 1), jnp.int32), lax.dynamic_slice_in_dim(position, slot, 1, axis=1))
        hidden, caches = model.decode(params, token[:, None], where, caches_at(slot, slot + 1, laid, caches))
        token = choose(hidden[:, 0], step)
        out = lax.dynamic_update_slice_in_dim(out, jnp.where(done, -1, token)[:, None], step, axis=1)
        return step + 1, token, done | ends(token, step), caches, out

    done = ends(first, 0) | (length == 0)
    out = lax.while_loop(unfinished, one, (jnp.int32(1), first, done, caches, out))[-1]
    return out if mesh is None else lax.with_sharding_constraint(out, meshes.replicated(mesh))


def layout(
    length: Int[Array, batch], width: int, slots: int, before: int = 0
) -> tuple[Int[Array, "1 slots"], Int[Array, "batch slots"], Int[Array, "batch slots"]]:
    """(slot, whether a token lies there, its position) for prompts that end at `width`, and what is written after them. The first
    `before` of each have positions below 0."""
    index = jnp.arange(slots)[None, :]
    begin = (width - length)[:, None]
    return index, (index >= begin).astype(jnp.int32), jnp.maximum(index - begin, 0) - before


def caches_at(slot: Any, end: Any, laid: tuple[Array, Array, Array], caches: tuple[Cache, ...]) -> tuple[Cache, ...]:
    """Caches that are written from `slot` on, and hold what lies before `end` then; `laid` is the `layout`."""
    index, real, position = laid
    written = Tokens(jnp.where(index < end, real, 0), position)
    return tuple(cache._replace(tokens=written, slot=slot) for cache in caches)


def empty_caches(model: Transformer, position: Int[Array, "batch slots"], dtype: Any) -> tuple[Cache, ...]:
    """Of every layer, for weights of `dtype`."""
    c, (b, slots) = model.config, position.shape
    # Half the bytes for a step to read, where products of bfloat16 are fast; on CPU those of one token are not (measured: 42 against 5 ms).
    dtype = jnp.bfloat16 if model.precision == "bf16" and jax.default_backend() != "cpu" else at_least_fp32(dtype)
    empty = jnp.zeros((b, c.kv_heads, slots, c.head_dim), dtype)
    return (Cache(empty, empty, Tokens(jnp.zeros((b, slots), jnp.int32), position), jnp.int32(0)),) * c.layers


def draw(logits: Float[Array, "batch vocab"], keys: Array, step: Int[Array, ""], temperature: Float[Array, ""]) -> Int[Array, batch]:
    """One id a row from `softmax(logits / temperature)`, by the Gumbel-max trick; temperature 0 is greedy."""
    noise = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, step), logits.shape[1:], logits.dtype))(keys)
    return (logits + temperature * noise).argmax(-1).astype(jnp.int32)


def width_of(longest: int) -> int:
    """Prompt widths are powers of two, so that few programs are compiled."""
    return max(16, 1 << (longest - 1).bit_length())


def generate(
    model: Transformer,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> list[tuple[list[int], bool]]:
    """Continuations of prompts, in their order: (new ids without the stop token, whether it stopped by itself).

    Prompts of similar length share a batch. Samples of a prompt are a function of (seed, its number). On a mesh, rows are spread over its devices.

    Raises:
      ConfigError: a prompt is longer than a learned table of positions.
    """
    prompts = [[0] * model.places + list(prompt) for prompt in prompts]  # for virtual tokens, whose ids are not looked at
    longest = max(map(len, prompts), default=0)
    if model.config.positions == "learned" and longest > model.config.context:
        raise ConfigError(f"a prompt has {longest} tokens, but model.positions=learned ends at model.context={model.config.context}")
    results: list[Any] = [None] * len(prompts)
    if mesh is not None:  # each device gets as many rows
        batch_size = -(-batch_size // meshes.row_shards(mesh)) * meshes.row_shards(mesh)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for batch in (order[start : start + batch_size] for start in range(0, len(order), batch_size)):
        width = width_of(max(len(prompts[i]) for i in batch))
        ids = np.zeros((batch_size, width), np.int32)
        length = np.zeros(batch_size, np.int32)
        for row, i in enumerate(batch):
            ids[row, width - len(prompts[i]) :] = prompts[i]
            length[row] = len(prompts[i])
        numbers = np.pad(np.array(batch, np.uint32), (0, batch_size - len(batch)))
        if mesh is not None:
            here = meshes.rows_here(mesh, batch_size)
            ids, length, numbers = meshes.place_rows((ids[here], length[here], numbers[here]), mesh, batch_size)
        scalars, limits = (np.uint32(seed), numbers, np.float32(temperature)), {"max_new_tokens": max_new_tokens, "stop_ids": tuple(stop_ids)}
        new = np.asarray(decode(model, params, ids, length, *scalars, **limits, mesh=mesh))
        for row, i in enumerate(batch):
            written = [int(t) for t in new[row] if t >= 0]
            stopped = bool(written) and written[-1] in stop_ids
            results[i] = (written[:-1] if stopped else written, stopped)
    return results
