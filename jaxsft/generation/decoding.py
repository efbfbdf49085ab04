"""Generation with a KV cache, greedy or sampled; beam search is in `beam`.

    rows.refill   writes prompts into free rows; one program for each width of prompts
    decode        draws tokens in all rows, one after another on the device; one program

Letters: B rows, M new tokens at most, V vocab.
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
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from jaxsft.config.schema import GenerateConfig
from jaxsft.errors import ConfigError
from jaxsft.generation import beam, stops
from jaxsft.generation.decode_slots import DecodeSlots, DecodeState, forward, is_last, spread
from jaxsft.generation.sampling import Sampling, choose
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer

CHECK = 16  # tokens between two looks for stop strings


class Answer(NamedTuple):
    """One generated answer.

    Attributes: ids: the new tokens, without the stop token; with a stop string, up to the token
    that completes it. stopped: by a stop token or a stop string, not for want of room. text: of
    the ids, cut at the stop string; None without a decoder.
    """

    ids: list[int]
    stopped: bool
    text: str | None = None


@functools.partial(jax.jit, static_argnames=("model", "mesh"), donate_argnames=("state",))
def decode(
    model: Transformer,
    params: Params,
    state: DecodeState,
    ended: Bool[Array, batch],
    sampling: Sampling,
    stop_ids: Int[Array, stops],
    steps: Int[Array, ""],
    until: Int[Array, ""],
    mesh: Mesh | None,
) -> DecodeState:
    """Draws up to `steps` tokens in every row that is not done, until `until` rows are.

    Args:
      ended: rows to which nothing shall be added.
    """

    def more(carry):
        step, s = carry
        return (step < steps) & (s.done.sum() < until)

    def one(carry):
        step, s = carry
        logits, s = forward(model, params, s)
        token = jnp.where(s.done, s.token, choose(logits, s.seen, s.number, s.new, sampling))
        out = jnp.where(
            (jnp.arange(s.out.shape[1]) == s.new[:, None]) & ~s.done[:, None], token[:, None], s.out
        )
        done = s.done | jnp.isin(token, stop_ids) | is_last(model, s)
        seen = s.seen.at[jnp.arange(token.size), token].set(True)
        return step + 1, s._replace(
            token=token, position=s.position + 1, new=s.new + ~s.done, done=done, out=out, seen=seen
        )

    state = state._replace(done=state.done | ended)
    return spread(lax.while_loop(more, one, (jnp.int32(0), state))[1], mesh)


# --- on the host
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Drawing(DecodeSlots):
    """The rows whose tokens are drawn one by one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ended = np.zeros(self.size, bool)  # by a stop string

    def refill(self, numbers: Sequence[int]) -> list[int]:
        taken = super().refill(numbers)
        self.ended[taken] = False
        return taken

    def draw(
        self, sampling: Sampling, stop_ids: Sequence[int], steps: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (done, number of new tokens, new tokens) of each row.

        It stops after `steps` tokens or when enough rows are done.
        """
        stop = np.array(list(stop_ids) or [-1], np.int32)
        numbers = np.int32(steps), np.int32(self.until)
        self.state = decode(
            self.model, self.params, self.state, self.ended, sampling, stop, *numbers, self.mesh
        )
        return jax.device_get((self.state.done, self.state.new, self.state.out))


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
    """Yields (prompt number, answer so far, whether it is complete) every `every` tokens.

    None: complete answers only. Raises as `generate`.
    """
    check(model, prompts, options, read)
    sampling, known = Sampling.of(options, seed), collections.Counter()
    rows = Drawing(model, params, prompts, max_new_tokens, options.batch_size, mesh, start)
    steps = every or (CHECK if options.stop else max_new_tokens)
    while rows.busy:
        rows.fill()
        done, new, out = rows.draw(sampling, stop_ids, steps)
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
                yield (
                    number,
                    (
                        Answer(ids, stopped, read and read(ids))
                        if found is None
                        else Answer(found[0], True, found[1])
                    ),
                    complete,
                )


def check(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    options: GenerateConfig,
    read: stops.Decode | None,
) -> None:
    """Raises ConfigError for what cannot be generated from."""
    longest = max(map(len, prompts), default=0)
    if longest > model.config.context - model.position_offset:
        if model.config.positions == "learned":
            raise ConfigError(
                f"a prompt has {longest} tokens, but model.positions=learned ends at"
                f" model.context={model.config.context}"
            )
        if model.config.positions == "rope" and not options.allow_long:
            raise ConfigError(
                f"a prompt has {longest} tokens, more than model.context={model.config.context}:"
                " training saw no such position; shorten it, or set generate.allow_long=true"
            )
    if empties := [i for i, prompt in enumerate(prompts, start=1) if not len(prompt)]:
        raise ConfigError(
            f"prompt {empties[0]} has no token to continue from; give a text, or a tokenizer with a"
            " bos token"
        )
    if options.stop and read is None:
        raise ConfigError(
            "generate.stop: texts end answers that are decoded only; give what decodes them"
        )


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
    pieces: stops.Pieces | None = None,
) -> list[Answer]:
    """Generates continuations of prompts, in their order.

    A greedy answer does not depend on the other prompts, the size of the batch or the padding; a
    sample is a function of (seed, its prompt's number).

    Args:
      options: batch_size and how tokens are chosen; `max_new_tokens` there is not read.
      mesh: where `params` lie; rows are spread over its devices.
      read: decodes ids; the answers then have texts.
      pieces: the bytes that each id adds to what `read` makes of ids, where that is so; beams with
        stop strings are then read only where one may end.
      start: of an encoder-decoder model: the prompts are what it reads, and this is what its
        answers begin with.

    Raises:
      ConfigError: a prompt is empty or longer than a learned table of positions, or stop strings
        without `read`.
    """
    results: list[Any] = [None] * len(prompts)
    given = {
        "max_new_tokens": max_new_tokens,
        "stop_ids": stop_ids,
        "mesh": mesh,
        "read": read,
        "start": start,
    }
    if options.num_beams == 1:
        for number, answer, _ in continuations(model, params, prompts, options, seed=seed, **given):
            results[number] = answer
        return results
    check(model, prompts, options, read)
    for number, (ids, _) in enumerate(
        beam.answers(model, params, prompts, options, pieces=pieces, **given)
    ):
        stopped = bool(ids) and ids[-1] in stop_ids
        ids = ids[:-1] if stopped else ids
        text = None if read is None else read(ids)
        at = stops.find(text, options.stop) if options.stop else None
        results[number] = Answer(ids, stopped, text) if at is None else Answer(ids, True, text[:at])
    return results
