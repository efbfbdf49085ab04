"""Beam search: the `n` most likely partial answers of each prompt, and the best finished one.

Scores, the candidates of a step and the rule to stop are those of transformers with
`early_stopping=False`: an answer's score is its log-probability divided by its length to the power
`length_penalty`, and a prompt is finished when its best running beam, at its length so far, is
worse than its worst of `n` finished answers (Wu et al., 2016, arXiv:1609.08144, section 7, for the
idea of both).

Each beam is one of the `rows` that share a cache, the beams of a prompt are neighbours; a prompt
that is finished makes room for the next one.

Letters: P prompts, n beams, B = P n rows, C candidates, M new tokens at most, V vocab.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from jaxsft.config.schema import GenerateConfig
from jaxsft.generation import stops
from jaxsft.generation.decode_slots import DecodeSlots, DecodeState, forward, is_last, spread
from jaxsft.generation.kv_cache import cache_dtype
from jaxsft.generation.sampling import penalised
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.products import at_least_fp32
from jaxsft.sharding import mesh as meshes

NEVER = -1e9  # the score of what cannot be


class Search(NamedTuple):
    """The beam scores and finished answers of each prompt.

    Attributes:
      score: the log-probability of running beams.
      answers, answer_scores, finished: the best finished answers, best first, -1 after their end;
        scores with the length penalty.
    """

    score: Float[Array, "prompts beams"]
    answers: Int[Array, "prompts beams new"]
    answer_scores: Float[Array, "prompts beams"]
    finished: Bool[Array, "prompts beams"]


class Found(NamedTuple):
    """The candidates of a step, best first.

    Which beam is extended by which token, its answer so far, and whether it ends there.
    """

    score: Float[Array, "prompts candidates"]
    parent: Int[Array, "prompts candidates"]
    token: Int[Array, "prompts candidates"]
    out: Int[Array, "prompts candidates new"]
    ends: Bool[Array, "prompts candidates"]


class Rule(NamedTuple):
    """The options of beam search as traced arrays, so that another value needs no other program.

    `stop_ids` is padded with -1.
    """

    length_penalty: Float[Array, ""]
    repetition_penalty: Float[Array, ""]
    stop_ids: Int[Array, stops]


# --- on the device
# --------------------------------------------------------------------------------------------------
@functools.partial(jax.jit, static_argnames=("prompts", "beams", "new", "dtype", "mesh"))
def begun(
    old: Search | None,
    taken: Bool[Array, prompts],
    *,
    prompts: int,
    beams: int,
    new: int,
    dtype: Any,
    mesh: Mesh | None,
) -> Search:
    """Starts the search of the prompts that are `taken`, from one beam each."""
    never = jnp.full((prompts, beams), NEVER, at_least_fp32(dtype))
    fresh = Search(
        never.at[:, 0].set(0),
        jnp.full((prompts, beams, new), -1, jnp.int32),
        never,
        jnp.zeros((prompts, beams), bool),
    )
    if old is None:
        return _whole(fresh, mesh)
    return _whole(
        jax.tree.map(
            lambda new, old: jnp.where(taken.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            fresh,
            old,
        ),
        mesh,
    )


@functools.partial(jax.jit, static_argnames=("model", "mesh"), donate_argnames=("state", "search"))
def decode(
    model: Transformer,
    params: Params,
    state: DecodeState,
    search: Search,
    rule: Rule,
    until: Int[Array, ""],
    mesh: Mesh | None,
) -> tuple[DecodeState, Search]:
    """Steps until `until` prompts are done."""
    n = search.score.shape[1]

    def one(carry):
        state, found = _candidates(model, params, *carry, rule)
        return _advance(state, carry[1], found, rule)

    state, search = lax.while_loop(
        lambda carry: carry[0].done.sum() < until * n, one, (state, search)
    )
    return spread(state, mesh), _whole(search, mesh)


@functools.partial(jax.jit, static_argnames=("model", "mesh"), donate_argnames=("state", "search"))
def propose(
    model: Transformer,
    params: Params,
    state: DecodeState,
    search: Search,
    rule: Rule,
    last: Bool[Array, vocab],
    until: Int[Array, ""],
    mesh: Mesh | None,
) -> tuple[DecodeState, Search, Found, Bool[Array, ""]]:
    """Steps until `until` prompts are done, or until the host is to say which candidates end: then
    the first half of that step, and true.

    Args:
      last: the tokens that a stop string may end with.
    """
    n = search.score.shape[1]
    asked = lambda state, found: (
        last[found.token] & (found.score > NEVER / 2) & ~state.done[::n, None]
    ).any()

    def one(carry):
        state, found = _candidates(model, params, *carry[:2], rule)
        ask = asked(state, found)
        state, search = lax.cond(
            ask,
            lambda s, search, _: (s, search),
            lambda *given: _advance(*given, rule),
            state,
            carry[1],
            found,
        )
        return state, search, found, ask

    none = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(lambda *given: _candidates(model, params, *given, rule)[1], state, search),
    )
    more = lambda carry: ~carry[3] & (carry[0].done.sum() < until * n)
    state, search, found, ask = lax.while_loop(
        more, one, (state, search, none, jnp.zeros((), bool))
    )
    return spread(state, mesh), _whole(search, mesh), _whole(found, mesh), _whole(ask, mesh)


@functools.partial(jax.jit, static_argnames=("mesh",), donate_argnames=("state", "search"))
def advance(
    state: DecodeState,
    search: Search,
    found: Found,
    ended: Bool[Array, "prompts candidates"],
    rule: Rule,
    mesh: Mesh | None,
) -> tuple[DecodeState, Search]:
    """Completes a step, after the host found which candidates `ended` with a stop string."""
    state, search = _advance(state, search, found._replace(ends=found.ends | ended), rule)
    return spread(state, mesh), _whole(search, mesh)


def _candidates(
    model: Transformer, params: Params, state: DecodeState, search: Search, rule: Rule
) -> tuple[DecodeState, Found]:
    p, n = search.score.shape
    logits, s = forward(model, params, state)
    scores = penalised(
        jax.nn.log_softmax(logits.astype(search.score.dtype), axis=-1),
        s.seen,
        rule.repetition_penalty,
    )
    scores = scores.reshape(p, n, -1) + search.score[..., None]
    # so many that n can run on even where all ways to stop are among them
    vocab, ways = scores.shape[-1], max(2, 1 + rule.stop_ids.size)
    score, index = lax.top_k(scores.reshape(p, n * vocab), min(ways * n, n * vocab))  # [P, C]
    parent, token = index // vocab, (index % vocab).astype(jnp.int32)
    at, new = jnp.arange(s.out.shape[1]), s.new.reshape(p, n)[:, :1, None]
    out = jnp.where(
        at < new, _take(s.out.reshape(p, n, -1), parent), jnp.where(at == new, token[..., None], -1)
    )
    return s, Found(
        score,
        parent,
        token,
        out,
        jnp.isin(token, rule.stop_ids) | is_last(model, s).reshape(p, n)[:, :1],
    )


def _advance(
    s: DecodeState, search: Search, found: Found, rule: Rule
) -> tuple[DecodeState, Search]:
    """Extends the beams by one token.

    The best candidates that do not end run on; those among the best `n` that end are kept as
    answers.
    """
    p, n = search.score.shape
    done = s.done.reshape(p, n)[:, :1]
    running, chosen = lax.top_k(found.score + jnp.where(found.ends, NEVER, 0), n)  # [P, n]
    parents = jnp.where(done, jnp.arange(n), _take(found.parent, chosen))
    by_prompt = lambda x: x.reshape(p, n, *x.shape[1:])
    moved = lambda x: _take(by_prompt(x), parents).reshape(x.shape)
    kv = lax.cond(
        (parents == jnp.arange(n)).all(), lambda kv: kv, lambda kv: jax.tree.map(moved, kv), s.kv
    )
    token = _take(found.token, chosen).reshape(-1)
    seen = moved(s.seen).at[jnp.arange(p * n), token].set(True)

    # [P, 1]
    power = (by_prompt(s.new)[:, :1] + 1).astype(running.dtype) ** rule.length_penalty.astype(
        running.dtype
    )
    counts = found.ends & (jnp.arange(found.ends.shape[1]) < n) & ~done
    scores = jnp.concatenate(
        [search.answer_scores, jnp.where(counts, found.score / power, NEVER)], axis=1
    )
    answer_scores, best = lax.top_k(scores, n)
    answers = _take(jnp.concatenate([search.answers, found.out], axis=1), best)
    finished = _take(jnp.concatenate([search.finished, counts], axis=1), best)

    worst = jnp.where(finished, answer_scores.min(1, keepdims=True), NEVER)
    improvable = (
        ~done
        & ((running[:, :1] / power) > worst).any(1, keepdims=True)
        & ~found.ends.all(1, keepdims=True)
    )
    out = jnp.maximum(_take(found.out, chosen), 0).reshape(s.out.shape)
    s = s._replace(
        kv=kv,
        token=token,
        position=s.position + 1,
        new=s.new + ~s.done,
        done=jnp.repeat(~improvable[:, 0], n),
        out=out,
        seen=seen,
    )
    return s, Search(running, answers, answer_scores, finished)


def _take(x: Array, index: Int[Array, "prompts taken"]) -> Array:
    """Returns `x[p, index[p, i]]`, `[P, taken, ...]`."""
    return jax.vmap(lambda row, at: jnp.take(row, at, axis=0))(x, index)


def _whole(tree: Any, mesh: Mesh | None) -> Any:
    """Replicates a tree on all devices of the mesh."""
    return tree if mesh is None else lax.with_sharding_constraint(tree, meshes.replicated(mesh))


# --- on the host
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Beams(DecodeSlots):
    """The rows of beams; the search of a prompt begins when it is filled into its rows."""

    search: Search | None = None

    def refill(self, numbers: Sequence[int]) -> list[int]:
        taken = super().refill(numbers)
        sizes = {
            "prompts": self.size,
            "beams": self.beams,
            "new": self.new,
            "dtype": cache_dtype(self.model, self.params),
        }
        self.search = begun(
            self.search, np.isin(np.arange(self.size), taken), **sizes, mesh=self.mesh
        )
        return taken

    def draw(
        self, rule: Rule, ends: Callable[[Sequence[int]], bool] | None, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (done, best answer padded with -1, its score) per prompt, once enough are done.

        Args:
          ends: whether an answer ends with its last token, beside what the stop tokens say; None:
            the device needs no host.
          last: the tokens with which it may.
        """
        until = np.int32(self.until)
        if ends is None:
            self.state, self.search = decode(
                self.model, self.params, self.state, self.search, rule, until, self.mesh
            )
        while ends is not None:
            self.state, self.search, found, asked = propose(
                self.model, self.params, self.state, self.search, rule, last, until, self.mesh
            )
            if not asked:
                break
            out, token, score, done = jax.device_get(
                (found.out, found.token, found.score, self.state.done[:: self.beams])
            )
            ended = np.zeros(score.shape, bool)
            for at in np.argwhere(last[token] & (score > NEVER / 2) & ~done[:, None]):
                ids = out[tuple(at)]
                ended[tuple(at)] = ends(ids[ids >= 0].tolist())
            self.state, self.search = advance(
                self.state, self.search, found, ended, rule, self.mesh
            )
        return jax.device_get(
            (
                self.state.done[:: self.beams],
                self.search.answers[:, 0],
                self.search.answer_scores[:, 0],
            )
        )


def answers(
    model: Transformer,
    params: Params,
    prompts: Sequence[Sequence[int]],
    options: GenerateConfig,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    mesh: Mesh | None = None,
    read: stops.Decode | None = None,
    start: Sequence[int] = (),
    pieces: stops.Pieces | None = None,
) -> list[tuple[list[int], float]]:
    """Returns (new ids, score) of each prompt, in order.

    The ids end with the stop token or the token that completes a stop string. A batch holds
    `options.batch_size` beams.
    """
    rows = Beams(
        model,
        params,
        prompts,
        max_new_tokens,
        max(options.batch_size // options.num_beams, 1),
        mesh,
        start,
        options.num_beams,
    )
    rule = Rule(
        np.float32(options.length_penalty),
        np.float32(options.repetition_penalty),
        np.array(list(stop_ids) or [-1], np.int32),
    )
    ends = (lambda ids: stops.find(read(ids), options.stop) is not None) if options.stop else None
    last = stops.completing(
        pieces() if pieces and options.stop else None, options.stop, model.vocab
    )
    results: list[Any] = [None] * len(prompts)
    while rows.busy:
        rows.fill()
        done, out, score = rows.draw(rule, ends, last)
        for row, number in enumerate(rows.number):
            if number is not None and done[row]:
                results[number] = [t for t in out[row].tolist() if t >= 0], float(score[row])
                rows.number[row] = None
    return results
