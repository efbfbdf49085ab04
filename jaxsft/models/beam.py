"""Beam search: of each prompt the `n` likeliest beginnings of an answer are followed, and the best finished answer is taken.

Scores, the candidates of a step and the rule to stop are those of transformers with `early_stopping=False`: an answer's score is its log-probability
divided by its length to the power `length_penalty`, and a prompt is finished when its best running beam, at its length so far, is worse than its
worst of `n` finished answers (Wu et al., 2016, arXiv:1609.08144, section 7, for the idea of both).

Letters: P prompts, n beams, C candidates, W width of prompts, T slots, M new tokens at most, V vocab.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from jaxsft.models.attention import Tokens
from jaxsft.models.kv import KV, cache_dtype, caches_at, empty_kv, encoded, laid_sources, unstacked, width_of
from jaxsft.models.layers import at_least_fp32
from jaxsft.models.sampling import penalised
from jaxsft.models.transformer import Params, Transformer
from jaxsft.sharding import mesh as meshes

NEVER = -1e9  # the score of what cannot be


class Beams(NamedTuple):
    """Running beams, and the best finished answers.

    Attributes:
      kv: keys and values of each layer, `[P, n, K, T, N]`.
      out: new tokens, `[P, n, M]`. score: their log-probability. token: the last one.
      seen: the tokens of prompt and answer, `[P, n, V]`.
      answers, answer_scores, finished: the same of finished answers, best first; scores with the length penalty.
      improvable: a running beam can still become one of them. Of a prompt that is filler, never.
    """

    kv: KV
    out: Int[Array, "prompts beams new"]
    score: Float[Array, "prompts beams"]
    token: Int[Array, "prompts beams"]
    seen: Bool[Array, "prompts beams vocab"]
    answers: Int[Array, "prompts beams new"]
    answer_scores: Float[Array, "prompts beams"]
    finished: Bool[Array, "prompts beams"]
    improvable: Bool[Array, prompts]


@functools.partial(jax.jit, static_argnames=("model", "beams", "new", "stop_ids", "dtype", "mesh"))
def search(
    model: Transformer,
    params: Params,
    ids: Int[Array, "prompts width"],
    held: Int[Array, prompts],
    token: Int[Array, prompts],
    source: tuple[Array, Array] | None,
    length_penalty: Float[Array, ""],
    penalty: Float[Array, ""],
    *,
    beams: int,
    new: int,
    stop_ids: tuple[int, ...],
    dtype: Any,
    mesh: Mesh | None,
) -> tuple[Int[Array, "prompts new"], Float[Array, prompts]]:
    """The best answer of each prompt, the stop token included and -1 after it, and its score.

    Args:
      ids, held, token, source: as in `generate.Prompts`; `held` of filler is -1.
    """
    p, width = ids.shape
    slots = width + new
    index, begin = jnp.arange(slots)[None, :], (width - jnp.maximum(held, 0))[:, None]
    real, position = (index >= begin).astype(jnp.int32), jnp.maximum(index - begin, 0)
    sources = encoded(model, params, source, dtype)
    state = _begin(model, params, ids, held, token, beams, new, dtype, Tokens(real, position), sources)
    sources = jax.tree.map(lambda x: jnp.repeat(x, beams, 0), sources)
    real, position = jnp.repeat(real, beams, 0), jnp.repeat(position, beams, 0)  # beams of a prompt are neighbours
    context = model.config.context - model.shift if model.config.positions == "learned" else None

    def one(carry):
        step, s = carry
        slot = width + step
        where = Tokens(jnp.where(index <= slot, real, 0), position)
        now = Tokens(jnp.ones((p * beams, 1), jnp.int32), lax.dynamic_slice_in_dim(position, slot, 1, axis=1))
        kv = jax.tree.map(lambda x: x.reshape(p * beams, *x.shape[2:]), s.kv)
        hidden, caches = model.decode(params, s.token.reshape(-1, 1), now, caches_at(kv, where, slot, sources))
        kv = tuple((c.k, c.v) for c in caches)
        s = s._replace(kv=jax.tree.map(lambda x: x.reshape(p, beams, *x.shape[1:]), kv))
        logits = model.logits(params, hidden[:, 0])
        scores = jax.nn.log_softmax(logits.astype(at_least_fp32(logits.dtype)), axis=-1).reshape(p, beams, -1)
        scores = penalised(scores, s.seen, penalty) + s.score[..., None]
        last = step + 1 >= new
        if context is not None:
            last |= held + step + 2 > context  # a learned table has no place for one more
        return step + 1, _advance(s, scores, step, jnp.broadcast_to(last, (p,)), length_penalty, stop_ids)

    _, s = lax.while_loop(lambda carry: (carry[0] < new) & carry[1].improvable.any(), one, (jnp.int32(0), state))
    best = s.answers[:, 0], s.answer_scores[:, 0]
    return best if mesh is None else lax.with_sharding_constraint(best, meshes.replicated(mesh))


def _begin(
    model: Transformer, params: Params, ids: Array, held: Array, token: Array, n: int, new: int, dtype: Any, laid: Tokens, sources: Any
) -> Beams:
    """All beams hold the prompt, and only the first counts, so that the first step takes the likeliest tokens of it."""
    p, width = ids.shape
    where = Tokens(jnp.where(jnp.arange(laid.positions.shape[1]) < width, laid.segment_ids, 0), laid.positions)
    kv = empty_kv(model, p, laid.positions.shape[1], dtype)
    _, caches = model.decode(params, ids, Tokens(*(x[:, :width] for x in laid[:2])), caches_at(kv, where, jnp.int32(0), sources))
    kv = tuple(tuple(jnp.repeat(x[:, None], n, 1) for x in (c.k, c.v)) for c in caches)
    seen = jnp.zeros((p, model.vocab), bool).at[jnp.arange(p)[:, None], ids].max(laid.segment_ids[:, :width] > 0)
    seen = jnp.repeat(seen.at[jnp.arange(p), token].set(True)[:, None], n, 1)
    nothing, never = jnp.full((p, n, new), -1, jnp.int32), jnp.full((p, n), NEVER, at_least_fp32(dtype))
    tokens = jnp.repeat(token[:, None], n, 1)
    return Beams(kv, nothing, never.at[:, 0].set(0), tokens, seen, nothing, never, jnp.zeros((p, n), bool), held >= 0)


def _advance(
    s: Beams,
    scores: Float[Array, "prompts beams vocab"],
    step: Int[Array, ""],
    last: Bool[Array, prompts],
    length_penalty: Float[Array, ""],
    stop_ids: tuple[int, ...],
) -> Beams:
    """One more token: the best candidates run on, those among the best `n` that end are kept as answers.

    Args:
      scores: of each beam with each next token.
      last: no token can follow the next one.
    """
    p, n, vocab = scores.shape
    candidates = min(max(2, 1 + len(stop_ids)) * n, n * vocab)  # so many that n can run on even where all ways to stop are among them
    score, index = lax.top_k(scores.reshape(p, n * vocab), candidates)  # [P, C]
    parent, token = index // vocab, (index % vocab).astype(jnp.int32)
    out = _take(s.out, parent).at[:, :, step].set(token)
    ends = jnp.isin(token, jnp.array(stop_ids, jnp.int32)) | last[:, None]

    running, chosen = lax.top_k(score + jnp.where(ends, NEVER, 0), n)  # [P, n]
    parents, token = _take(parent, chosen), _take(token, chosen)
    kept = (parents == jnp.arange(n)).all()
    kv = lax.cond(kept, lambda kv: kv, lambda kv: jax.tree.map(lambda x: _take(x, parents), kv), s.kv)
    seen = _take(s.seen, parents).at[jnp.arange(p)[:, None], jnp.arange(n)[None, :], token].set(True)

    length = (step + 1).astype(score.dtype)
    power = length ** length_penalty.astype(score.dtype)
    counts = ends & (jnp.arange(candidates) < n) & s.improvable[:, None]
    found = jnp.concatenate([s.answer_scores, jnp.where(counts, score / power, NEVER)], axis=1)
    answer_scores, best = lax.top_k(found, n)
    answers = _take(jnp.concatenate([s.answers, out], axis=1), best)
    finished = _take(jnp.concatenate([s.finished, counts], axis=1), best)

    worst = jnp.where(finished, answer_scores.min(1, keepdims=True), NEVER)
    improvable = s.improvable & ((running[:, :1] / power) > worst).any(1) & ~ends.all(1)
    return Beams(kv, _take(out, chosen), running, token, seen, answers, answer_scores, finished, improvable)


def _take(x: Array, index: Int[Array, "prompts taken"]) -> Array:
    """`x[p, index[p, i]]`."""
    return jax.vmap(lambda row, at: jnp.take(row, at, axis=0))(x, index)


def answers(
    model: Transformer,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int,
    length_penalty: float,
    repetition_penalty: float,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    batch_size: int,
    mesh: Mesh | None,
    start: Sequence[int] = (),
) -> list[tuple[list[int], float]]:
    """(new ids with the stop token, score) of each prompt, in their order. A batch holds `batch_size` beams."""
    params, dtype = unstacked(params), cache_dtype(model, params)
    shards = 1 if mesh is None else meshes.row_shards(mesh)
    size = -(-max(batch_size // beams, 1) // shards) * shards
    results: list[Any] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    prompts, sources = ([start] * len(prompts), prompts) if start else (prompts, None)
    for batch in (order[start : start + size] for start in range(0, len(order), size)):
        width = width_of(max(len(prompts[i]) for i in batch) - 1)
        ids, held, token = np.zeros((size, width), np.int32), np.full(size, -1, np.int32), np.zeros(size, np.int32)
        for row, i in enumerate(batch):
            ids[row, width - len(prompts[i]) + 1 :], token[row], held[row] = prompts[i][:-1], prompts[i][-1], len(prompts[i]) - 1
        given = ids, held, token, laid_sources([sources[i] for i in batch], size) if sources else None
        if mesh is not None:
            here = meshes.rows_here(mesh, size)
            given = meshes.place_rows(jax.tree.map(lambda x: x[here], given), mesh, size)
        scalars = np.float32(length_penalty), np.float32(repetition_penalty)
        static = {"beams": beams, "new": max_new_tokens, "stop_ids": tuple(stop_ids), "dtype": dtype, "mesh": mesh}
        out, score = jax.device_get(search(model, params, *given, *scalars, **static))
        for row, i in enumerate(batch):
            results[i] = [t for t in out[row].tolist() if t >= 0], float(score[row])
    return results
