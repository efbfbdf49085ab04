"""An attack on text classification that substitutes tokens by the gradient, in few queries.

After HotFlip (Ebrahimi et al., 2018): putting token v for token x at position i changes the loss,
to first order, by (E[v] - E[x_i]) . dL/de_i, so that one gradient ranks every substitution. The
best ones are tried, and the one with the highest loss is kept, until the prediction is wrong or the
budget is used up. A gradient counts as one query, a trial as one. The whole search over a batch is
one compiled program.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import bounds
from jaxsft.evaluation.compare import Settings
from jaxsft.models.adapters import NAME as ADAPTERS

MULTIPLE = 16  # the length of a batch is one of these
NEVER = -1e30


@dataclasses.dataclass(frozen=True)
class AttackOptions:
    """The options `attack.*`: how far an attack goes."""

    queries: int = option(100, "passes of the model that each row may cost", at_least=2)
    edits: int = option(3, "tokens that are substituted at most", at_least=1)
    candidates: int = option(8, "substitutions that each gradient proposes", at_least=1, at_most=64)
    similarity: float = option(
        0.0,
        "the least cosine between the embeddings of a token and of what replaces it",
        at_least=-1,
        at_most=1,
    )
    rows: int = option(100, "the first rows only", at_least=1)
    batch_size: int = option(8, "rows that are attacked together", at_least=1)


class Vocabulary(NamedTuple):
    """The tokens that may be substituted.

    Attributes:
      words: `[V]` bool, tokens that are a word of letters.
      inner: `[V]` bool, tokens that continue the word before.
    """

    words: np.ndarray
    inner: np.ndarray


class AttackState(NamedTuple):
    """The state of the search over a batch."""

    tokens: Int[Array, "batch seq"]
    changed: Bool[Array, "batch seq"]
    queries: Int[Array, " batch"]
    done: Bool[Array, " batch"]
    predicted: Int[Array, " batch"]


def vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """Returns what may be substituted, for an embedding of `size` rows."""
    words, inner = np.zeros(size, bool), np.zeros(size, bool)
    for i, word in enumerate(tokenizer.words()[:size]):
        words[i] = word is not None and word.isalpha()
    found = tokenizer.inner()
    if found is not None:
        inner[: len(found)] = found[:size]
    return Vocabulary(words & ~inner, inner)


def attacked(
    model: Any,
    task: Any,
    options: AttackOptions,
    params: Any,
    allowed: Bool[Array, " vocab"],
    tokens: Int[Array, "batch seq"],
    lengths: Int[Array, " batch"],
    open_places: Bool[Array, "batch seq"],
    types: Int[Array, "batch seq"] | None,
    labels: Int[Array, " batch"],
) -> AttackState:
    """Searches for substitutions that make a batch of texts wrong; to be compiled.

    Args:
      allowed: `[V]`, tokens that may be put in. open_places: where they may be.
      labels: what is right; a row whose prediction is wrong already is left as it is.
    """
    batch, length = tokens.shape
    table = params["embed"]["tokens"]["w"]
    read = functools.partial(_logits, task, params=params, lengths=lengths, types=types)
    gradient = jax.grad(functools.partial(_loss_of_vectors, model, read, labels))
    directions = table / jnp.maximum(jnp.linalg.norm(table, axis=-1, keepdims=True), 1e-12)

    def step(state: AttackState) -> AttackState:
        e = table[state.tokens]  # [B, S, D]
        g = gradient(e)
        gain = jnp.einsum("bsd,vd->bsv", g, table) - jnp.einsum("bsd,bsd->bs", g, e)[..., None]
        near = jnp.einsum("bsd,vd->bsv", directions[state.tokens], directions)
        good = (open_places & ~state.changed)[..., None] & allowed & (near >= options.similarity)
        good &= jnp.arange(len(table)) != state.tokens[..., None]
        gain = jnp.where(good, gain, NEVER).reshape(batch, -1)
        best, index = jax.lax.top_k(gain, options.candidates)
        place, token = index // len(table), index % len(table)  # [B, K]
        at = jax.nn.one_hot(place, length, dtype=bool)  # [B, K, S]
        tried = jnp.where(at, token[..., None], state.tokens[:, None])
        logits = jax.lax.map(lambda t: read(model, tokens=t), tried.swapaxes(0, 1))  # [K, B, C]
        chosen = jnp.where(best > NEVER / 2, _losses(logits, labels).T, NEVER).argmax(-1)  # [B]
        at_chosen = lambda x: chosen.reshape(-1, *(1 for _ in x.shape[1:]))
        took = lambda x: jnp.take_along_axis(x, at_chosen(x), axis=1)[:, 0]
        predicted = took(logits.swapaxes(0, 1)).argmax(-1)
        going = ~state.done & (took(best) > NEVER / 2)
        queries = state.queries + jnp.where(state.done, 0, 1 + options.candidates)
        changed = state.changed | (took(at) & going[:, None])
        spent = queries + 1 + options.candidates > options.queries
        done = state.done | ~going | (predicted != labels)
        done |= (changed.sum(-1) >= options.edits) | spent
        return AttackState(
            jnp.where(going[:, None], took(tried), state.tokens),
            changed,
            queries,
            done,
            jnp.where(going, predicted, state.predicted),
        )

    first = read(model, tokens=tokens).argmax(-1)
    cost = jnp.ones(batch, jnp.int32)  # to see what is predicted
    short = options.queries < 2 + options.candidates
    start = AttackState(tokens, jnp.zeros_like(open_places), cost, (first != labels) | short, first)
    return jax.lax.while_loop(lambda state: ~state.done.all(), step, start)


def _loss_of_vectors(
    model: Any, read: Any, labels: Int[Array, " batch"], vectors: Float[Array, "batch seq embed"]
) -> Float[Array, ""]:
    """Returns the sum of the losses of texts whose tokens have these embeddings.

    The vectors are put behind the table of embeddings, one row for each position, so that the model
    reads them as tokens.
    """
    batch, length, size = vectors.shape
    params = read.keywords["params"]
    table = params["embed"]["tokens"]["w"]
    longer = jnp.concatenate([table, vectors.reshape(-1, size).astype(table.dtype)])
    embed = {**params["embed"], "tokens": {**params["embed"]["tokens"], "w": longer}}
    own = len(table) + jnp.arange(batch * length, dtype=jnp.int32).reshape(batch, length)
    wider = dataclasses.replace(model, vocab=len(longer))
    logits = read(wider, tokens=own, params={**params, "embed": embed})
    return _losses(logits, labels).sum()


def _losses(logits: Float[Array, "... labels"], labels: Int[Array, " batch"]) -> Array:
    """Returns the cross-entropy `[..., batch]`."""
    log = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -(log * jax.nn.one_hot(labels, log.shape[-1])).sum(-1)


def _logits(
    task: Any,
    model: Any,
    *,
    params: Any,
    tokens: Int[Array, "batch seq"],
    lengths: Int[Array, " batch"],
    types: Any,
) -> Float[Array, "batch labels"]:
    """Computes the logits of texts, one in each row."""
    size, length = tokens.shape
    place = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (size, length))
    there = place < lengths[:, None]
    batch = Batch(
        tokens=tokens,
        targets=None,
        loss_weight=None,
        segment_ids=there.astype(jnp.int32),
        positions=jnp.where(there, place, 0),
        example_ids=jnp.zeros((size, 1), jnp.int32),
        segment={},
        types=types,
    )
    return task.read(model, params, batch, None)[:, 0]


# --- a file
# --------------------------------------------------------------------------------------------------
def run(
    model: Any, rows: Sequence[Row], options: AttackOptions, settings: Settings
) -> dict[str, Any]:
    """Attacks the first rows of a file.

    Returns the accuracy as it is, under the attack, and of the changed texts read anew, each with
    bounds (Wilson); the share of right rows that became wrong; and what it took.

    Raises ConfigError for a model that it cannot attack, DataError for rows.
    """
    task, config = model.task, model.config
    params = model.params
    _check(task, config, params)
    rows = list(rows[: options.rows])
    columns = task.infer_columns(rows[0], config.data.columns)
    records = [task.record(row, columns) for row in rows]
    if paired := next((r for r in records if r.text_pair is not None), None):
        raise ConfigError(
            f"attack: is of one text, found a second one ({paired.text_pair[:30]!r}); leave"
            " attack.* out"
        )
    encoded = task.encode_all(records, [row.where for row in rows])
    room = config.model.context
    for row, one in zip(rows, encoded, strict=True):
        if isinstance(one, str) or len(one.ids) > room:
            why = one if isinstance(one, str) else f"{len(one.ids)} tokens, more than {room}"
            raise DataError(f"{row.where}: cannot be attacked ({why}); remove the row")
    words = vocabulary(model.tokenizer, params["embed"]["tokens"]["w"].shape[0])
    found = _searched(model, params, encoded, words, options)
    return _told(model, rows, records, columns, encoded, found, options, settings)


def _check(task: Any, config: Any, params: Mapping[str, Any]) -> None:
    """Raises ConfigError for a task or a model that the attack does not fit."""
    if task.spec.output != "label" or task.spec.about != "text":
        raise ConfigError(f"attack: is of text classification, and not of task={task.name}")
    if "tokens" not in params.get("embed", {}):
        raise ConfigError("attack: needs a Transformer with one stream, whose tokens are embedded")
    if config.data.columns.features:
        raise ConfigError("attack: does not know data.columns.features; use a run without them")
    if params.get(ADAPTERS, {}).get("embed"):
        raise ConfigError("attack: the embedding has an adapter; use a run without one there")


def _searched(
    model: Any, params: Any, encoded: Sequence[Any], words: Vocabulary, options: AttackOptions
) -> AttackState:
    """Returns the end of the search, of all rows, on the host."""
    longest = -(-max(len(one.ids) for one in encoded) // MULTIPLE) * MULTIPLE
    longest = min(longest, model.config.model.context)
    program = jax.jit(functools.partial(attacked, model.parts.model, model.task, options))
    parts = []
    for start in range(0, len(encoded), options.batch_size):
        some = encoded[start : start + options.batch_size]
        tokens = np.zeros((options.batch_size, longest), np.int32)
        places, types = np.zeros(tokens.shape, bool), np.zeros(tokens.shape, np.int32)
        lengths = np.ones(len(tokens), np.int32)
        labels = np.full(len(tokens), -1, np.int32)  # never predicted: what only fills is done
        for i, one in enumerate(some):
            count = len(one.ids)
            tokens[i, :count], lengths[i] = one.ids, count
            types[i, :count] = 0 if one.types is None else one.types
            places[i, :count] = open_places(np.asarray(one.ids), one.special_tokens, words)
            labels[i] = one.segment["label"]
        typed = types if any(one.types is not None for one in encoded) else None
        state = jax.device_get(program(params, words.words, tokens, lengths, places, typed, labels))
        parts.append(AttackState(*(x[: len(some)] for x in state)))
    return AttackState(*map(np.concatenate, zip(*parts, strict=True)))


def open_places(ids: np.ndarray, special: tuple[int, int], words: Vocabulary) -> np.ndarray:
    """Returns where a token may be substituted: a whole word of letters in the text itself."""
    out = words.words[ids] & ~np.append(words.inner[ids[1:]], False)
    out[: special[0]] = False
    out[len(ids) - special[1] :] = False
    return out


def changed_text(model: Any, text: str, one: Any, tokens: np.ndarray, changed: np.ndarray) -> str:
    """Returns a text with the words of substituted tokens."""
    names, out = model.tokenizer.words(), text
    offsets = model.tokenizer.offsets(text)
    head = one.special_tokens[0]
    for at in reversed(np.flatnonzero(changed).tolist()):
        start, end = offsets[at - head]
        # some pieces have the space before their word
        start += len(out[start:end]) - len(out[start:end].lstrip())
        out = out[:start] + names[int(tokens[at])] + out[end:]
    return out


def _told(
    model: Any,
    rows: Sequence[Row],
    records: Sequence[Any],
    columns: Any,
    encoded: Sequence[Any],
    found: AttackState,
    options: AttackOptions,
    settings: Settings,
) -> dict[str, Any]:
    gold = np.array([one.segment["label"] for one in encoded])
    edits = found.changed.sum(-1)
    right, held = (edits > 0) | (found.predicted == gold), found.predicted == gold
    texts = [
        changed_text(model, record.text, one, tokens, changed)
        for record, one, tokens, changed in zip(
            records, encoded, found.tokens, found.changed, strict=True
        )
    ]
    name = columns.text or "text"
    new = [
        dataclasses.replace(row, fields={**row.fields, name: text})
        for row, text in zip(rows, texts, strict=True)
    ]
    split, result, _ = model.scored(new, "attacked")
    lines = list(model.task.predictions(split, result.columns, None))
    read = np.zeros(len(rows), bool)
    for line in lines:
        read[line["row"]] = line["correct"]
    labels, won = model.task.labels, np.flatnonzero(right & ~held)
    return {
        "rows": len(rows),
        "queries": options.queries,
        "edits": options.edits,
        "candidates": options.candidates,
        "similarity": options.similarity,
        "accuracy": proportion(int(right.sum()), len(rows), settings.level),
        "accuracy_under_attack": proportion(int(held.sum()), len(rows), settings.level),
        "accuracy_of_texts": proportion(int(read.sum()), len(rows), settings.level),
        "success_rate": proportion(len(won), int(right.sum()), settings.level),
        "mean_queries": float(found.queries[right].mean()) if right.any() else 0.0,
        "mean_edits": float(edits[won].mean()) if len(won) else 0.0,
        "examples": [
            {
                "where": rows[i].where,
                "label": labels[gold[i]],
                "prediction": labels[found.predicted[i]],
                "text": records[i].text,
                "changed": texts[i],
                "queries": int(found.queries[i]),
            }
            for i in won[:10].tolist()
        ],
    }


def proportion(hits: int, n: int, level: float) -> dict[str, Any]:
    """Returns a share with the bounds of Wilson; without bounds where nothing was tried."""
    if not n:
        return {"value": float("nan"), "low": None, "high": None, "n": 0}
    low, high = bounds.wilson(hits, n, level)
    return {"value": hits / n, "low": low, "high": high, "n": n, "method": "wilson"}
