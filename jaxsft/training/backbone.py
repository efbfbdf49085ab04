"""Feature extraction (`train.backbone=cached`): the backbone is frozen, and run once over the texts
of a run; every epoch trains the head alone.

    before training   tokens [B, S] -> backbone, no dropout -> x, on disk: [tokens, D], or
      [examples, texts, D] where texts are pooled below the head
    each step         x of the batch's texts -> head -> loss -> gradient of the head

Several processes run that pass together, each on its rows of a batch; all are given the whole, for
another epoch deals the texts out anew. Batches, their order, losses and metrics are those of the
same run with the backbone frozen by `train.freeze`, which runs it in every step.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import math
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsft.config import compose
from jaxsft.data import cache, pipeline
from jaxsft.data.encoded_split import Split
from jaxsft.data.pipeline import Batches
from jaxsft.errors import DataError
from jaxsft.models.model_base import Params
from jaxsft.sharding import hosts
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.weights import flatten
from jaxsft.training import callbacks
from jaxsft.training.checksums import digest
from jaxsft.training.components import Components

# tokens, padding included, that are read at once: of no option, so that the same texts always give
# the same numbers
PLACES = 4096
# options that say only where weights come from
IN_WEIGHTS = tuple(f"model.{name}" for name in ("pretrained", "init", "vectors", "vocab_rows"))
KEPT = "what the backbone gives"
READ_BY = ("tokens", "offsets", "types")  # the arrays of a split that the backbone reads


def attach(parts: Components, params: Params, splits: Sequence[Batches]) -> list[str]:
    """Attaches the backbone's outputs, computed or read from the cache, to all splits.

    Does something under `train.backbone=cached` only: each split then has the outputs beside its
    texts, so that neither a training step nor evaluation runs the backbone again.

    Returns:
      The lines that the start of the run prints about it; [] under `train.backbone=trained`.

    Raises:
      DataError: the cache cannot be written, here or by another process.
    """
    if parts.config.train.backbone == "trained":
        return []
    root, names = _root(parts), []
    below, notes = (
        {name: w for name, w in flatten(params).items() if not name.startswith("head/")},
        [],
    )
    for batches in splits:
        names.append(key(parts, below, batches.split))
        states, note = _cached(parts, params, root / names[-1], batches.split)
        batches.split = _with_backbone(batches.split, states)
        notes.append(note)
    notes.append(_kept(root, parts.config.train.backbone_limit, names))
    return [
        *notes,
        (
            f"only the head has a gradient: the backbone, {sum(w.size for w in below.values()):,}"
            " weights, is not run in training"
        ),
    ]


def _with_backbone(split: Split, states: np.ndarray) -> Split:
    """Returns the split with the output of a frozen backbone.

    It is `[tokens, D]`, or for pooled texts `[examples, texts, D]`.
    """
    name = "backbone" if states.ndim == 2 else "segment.backbone"
    return dataclasses.replace(split, arrays={**split.arrays, name: states})


def _root(parts: Components) -> Path:
    return cache.root(parts.config.data.cache_dir) / "backbone"


def _kept(root: Path, limit: float | None, names: Sequence[str]) -> str:
    """Removes the features that were used least recently, and says what the cache holds now.

    `limit` is `train.backbone_limit` in GiB, None for no limit; `names` are the entries that this
    run uses, which are never removed.
    """
    count, size, removed = cache.prune(root, math.inf if limit is None else limit * 2**30, names)
    gone = (
        "nothing is removed (train.backbone_limit=null)"
        if limit is None
        else f"{removed} removed (train.backbone_limit={limit})"
    )
    return f"{root} holds features of {count} splits, {size / 2**20:,.1f} MiB; {gone}"


def _cached(
    parts: Components, params: Params, folder: Path, split: Split
) -> tuple[np.ndarray, str]:
    """Returns what the head reads of every text of a split, and a line that says where it lies.

    Reads it from the cache, or computes it in one pass of the backbone where it is not there.
    """
    since, began = "found in", time.monotonic()
    stored = cache.load(folder)
    # each host may have a cache of its own: all read the texts again for the one that lacks them
    if hosts.max_over_processes(stored is None, "")[0]:
        stored, since = (
            _computed(parts, params, split, folder, stored),
            f"computed in {time.monotonic() - began:.1f} s, now in",
        )
    cache.used(folder)
    states = stored[0]["backbone"]
    what = (
        f"{split.examples:,} texts"
        if parts.task.pooled
        else f"{len(states):,} tokens of {split.examples:,} texts"
    )
    return (
        states,
        (
            f"{split.name}: what the backbone gives of {what}, {states.nbytes / 2**20:,.1f} MiB,"
            f" {since} {folder}"
        ),
    )


def _computed(
    parts: Components,
    params: Params,
    split: Split,
    folder: Path,
    stored: tuple[cache.Arrays, dict] | None,
) -> tuple[cache.Arrays, dict]:
    """Runs the backbone over a split where this process lacks its outputs, writes and reads them.

    Every process takes part in the forward passes; `stored` (what this process has read from its
    cache, or None) comes back unchanged where it is there. Raises DataError on all processes where
    one cannot write or read its cache.
    """
    states, problem, mark = (
        _states(parts, params, split),
        "",
        f".{folder.name}-{hosts.from_first_process(lambda: secrets.token_hex(8))}",
    )
    try:
        if stored is None and (not hosts.many() or _marked(folder.parent / mark)):
            cache.save(folder, functools.partial(_write, parts, states, split), KEPT)
    except DataError as error:
        problem = str(error)
    if hosts.many():
        # the others wait for this process in every batch, whether it writes or not
        collections.deque(states, maxlen=0)
    hosts.sync("what the backbone gives was written")
    with contextlib.suppress(OSError):
        (folder.parent / mark).unlink()
    stored = stored or cache.load(folder)
    problem = problem or (
        ""
        if stored
        else f"{folder}: cannot be read after it was written; set data.cache_dir=<folder>"
    )
    failed, problem = hosts.max_over_processes(bool(problem), problem)
    if failed:
        raise DataError(problem)
    return stored


def _marked(mark: Path) -> bool:
    """Returns whether this process writes: of those that see one disk, the one that makes `mark`.

    Raises DataError where the folder of the mark cannot be written.
    """
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(exist_ok=False)
    except OSError as error:
        if mark.exists():
            return False
        raise DataError(
            f"{mark.parent}: cannot write the cache of {KEPT} ({error.strerror}); set"
            " data.cache_dir=<folder>"
        ) from error
    return True


def key(parts: Components, below: dict[str, jax.Array], split: Split) -> str:
    """Returns the name of a cache entry: a hash of all that the outputs of the backbone depend on.

    That is its weights (`below`, by path), the token arrays, the options of the model, of pooling,
    precision and packing, the code of the models, and the backend. Seeds, labels, and options of
    the head and of the optimizer are not in it.
    """
    c, texts = parts.config, hashlib.sha256()
    for name in (name for name in READ_BY if name in split.arrays):
        texts.update(
            f"{name} {split.arrays[name].dtype} {split.arrays[name].shape}".encode()
            + np.ascontiguousarray(split.arrays[name]).tobytes()
        )
    model = {
        k: v
        for k, v in compose.flat(compose.to_dict(c)).items()
        if k.startswith("model.") and k not in IN_WEIGHTS
    }
    how = {"pool": c.task.pool, "apart": parts.task.apart} if parts.task.pooled else {}
    return cache.key(
        {
            "weights": digest(below),
            "texts": texts.hexdigest(),
            "model": model,
            "pooled": how,
            "precision": c.precision,
            "rows": [c.data.packing, c.data.plan_seed, split.limit],
            "models": _model_code(),
            "backend": jax.default_backend(),
            "dtype": str(jax.numpy.zeros(0).dtype),
        }
    )


@functools.cache
def _model_code() -> str:
    """Returns the SHA-256 of the sources of `models/`; other code is in every cache key."""
    sources = sorted((Path(__file__).parents[1] / "models").rglob("*.py"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()


# --- one pass
# --------------------------------------------------------------------------------------------------
def _write(
    parts: Components, passed: Iterator[tuple[int, np.ndarray]], split: Split, folder: Path
) -> cache.Stored:
    """Writes `backbone.npy` example by example, so that memory holds one batch of it.

    Raises OSError where the disk is full.
    """
    file, path = None, folder / "backbone.npy"
    try:
        for example, states in passed:
            if file is None:
                count = split.examples if parts.task.pooled else int(split.arrays["offsets"][-1])
                shape = (count, *states.shape) if parts.task.pooled else (count, *states.shape[1:])
                size = states.dtype.itemsize * (np.prod(shape[1:], dtype=int))
                file = path.open("wb")
                np.lib.format.write_array_header_1_0(
                    file, {"descr": states.dtype.str, "fortran_order": False, "shape": shape}
                )
                start = file.tell()
            file.seek(
                start
                + int(size)
                * (example if parts.task.pooled else int(split.arrays["offsets"][example]))
            )
            file.write(np.ascontiguousarray(states).tobytes())
    finally:
        if file is not None:
            file.close()
    return {
        "facts": {"split": split.name},
        "crc": {"backbone": cache.crc32(np.load(path, mmap_mode="r", allow_pickle=False))},
    }


def _states(parts: Components, params: Params, split: Split) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (example id, backbone output without dropout) for every example of a split.

    The output is `[texts, D]` where the task pools texts, else `[tokens, D]`. Each batch is read
    from the device while the next one is computed.
    """
    shards = meshes.row_shards(parts.mesh)
    size = max(PLACES // split.limit // shards, 1) * shards
    batches = pipeline.make_batches(
        split, parts.config.data, size, None, meshes.rows_here(parts.mesh, size)
    )
    run = jax.jit(
        lambda params, batch: parts.task.backbone(parts.model, params, batch, None),
        out_shardings=meshes.replicated(parts.mesh),
    )
    late = None
    told = f"{split.name}: the frozen backbone reads {split.examples:,} texts, once for all epochs"
    steps = pipeline.stream(batches, 0, len(batches))
    for step, batch in enumerate(
        callbacks.followed(steps, len(batches), told) if hosts.first() else steps
    ):
        result = run(params, parts.put(batch, batches))
        if late is not None:
            yield from _apart(parts, batches, *late)
        late = (step, result)
    yield from _apart(parts, batches, *late)


def _apart(
    parts: Components, batches: Batches, step: int, x: Any
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (example id, its rows) of the backbone output `x` of one batch, without padding."""
    x, ids = np.asarray(x), batches.example_ids(step)
    for row, examples in zip(x, ids, strict=True):
        at, texts = 0, len(row) // len(examples)
        for i, example in enumerate(examples[examples >= 0]):
            if parts.task.pooled:
                yield int(example), row[i * texts : (i + 1) * texts]
            else:
                yield int(example), row[at : (at := at + int(batches.split.lengths[example]))]
