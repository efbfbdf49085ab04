"""Checkpoints: Orbax, asynchronous, best and latest kept, checksums of every array, verified on restore.

Orbax restores a flipped byte without a word and stops at a damaged step. So each step carries checksums that were computed from the arrays on the
device; a step that does not match is moved to `damaged/`, and the newest good one is taken.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxsft import remote
from jaxsft.errors import CheckpointError, first_line
from jaxsft.sharding import hosts
from jaxsft.sharding.weights import Flat, flatten


# --- checksums -------------------------------------------------------------------------------------------------------------------------------
def checksums(arrays: Flat) -> dict[str, Array]:
    """Two position-weighted sums (modulo 2^32) of the bits of each array, `[2]` uint32: on the device, and alike on every mesh.

    The weights are odd, hence invertible modulo 2^32, so that no single changed word goes unnoticed.
    """
    return {name: _checksum(x) for name, x in arrays.items()}


def _checksum(x: Array) -> Array:
    words = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    bits = (x.astype(jnp.uint8) if x.dtype == jnp.bool_ else jax.lax.bitcast_convert_type(x, words)).astype(jnp.uint32)
    # The place of each word, without a reshape: that would gather a sharded array on every device.
    strides = [math.prod(bits.shape[axis + 1 :]) for axis in range(bits.ndim)]
    place = sum((jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(s % 2**32) for axis, s in enumerate(strides)), jnp.uint32(0))
    odd = 2 * place + 1
    mixed = (odd * jnp.uint32(2654435761)) ^ (odd >> 15) | jnp.uint32(1)  # Knuth's multiplicative hash
    return jnp.stack([(bits * odd).sum(dtype=jnp.uint32), (bits * mixed).sum(dtype=jnp.uint32)])


def digest(arrays: Flat) -> dict[str, list[int]]:
    if not arrays:
        return {}
    place = next(iter(arrays.values())).sharding
    whole = NamedSharding(place.mesh, PartitionSpec()) if isinstance(place, NamedSharding) else None
    return {name: np.asarray(v).tolist() for name, v in _compiled(whole)(arrays).items()}


@functools.cache
def _compiled(place: Any) -> Callable[[Flat], dict[str, Array]]:
    return jax.jit(checksums, out_shardings=place)


# --- trees as flat dicts ---------------------------------------------------------------------------------------------------------------------
def unflatten(flat: Flat, like: Any) -> Any:
    return jax.tree.unflatten(jax.tree.structure(like), [flat[name] for name in flatten(like)])


def describe(arrays: Flat) -> dict[str, list]:
    return {name: [list(x.shape), str(x.dtype)] for name, x in arrays.items()}


def check_same_leaves(found: dict[str, list], wanted: dict[str, list], what: str) -> None:
    """Raises CheckpointError that names the first missing, additional or differently shaped leaf."""
    for name in wanted:
        if name not in found:
            raise CheckpointError(f"{what}: has no {name}, which this model needs ({len(wanted)} arrays here, {len(found)} there)")
        if found[name] != wanted[name]:
            raise CheckpointError(f"{what}: {name} is {found[name][1]}{found[name][0]}, but this model needs {wanted[name][1]}{wanted[name][0]}")
    if extra := [name for name in found if name not in wanted]:
        raise CheckpointError(f"{what}: has {extra[0]}, for which this model has no place")


class _KeepBestAndLatest:
    """The best, the newest, and the one before it: what is left where the newest turns out to be damaged."""

    def __init__(self) -> None:
        self.best: int | None = None

    def should_preserve(self, checkpoints: Iterable[Any], *, context: Any) -> list[bool]:
        steps = [c.step for c in checkpoints]
        return [s in (*sorted(steps)[-2:], self.best) for s in steps]


class Checkpoints:
    """The folder `checkpoints/` of a run, here or at an object store."""

    def __init__(self, run_dir: str | Path, warn: Callable[[str], None] = print):
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax narrates every save there; its failures come as exceptions too
        self.run_dir, self.warn = remote.path(run_dir if remote.is_remote(run_dir) else Path(run_dir).absolute()), warn
        self.folder = self.run_dir / "checkpoints"
        self._policy = _KeepBestAndLatest()
        self._manager: ocp.CheckpointManager | None = None

    @property
    def manager(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(preservation_policy=self._policy, enable_async_checkpointing=True, create=True)
            self._manager = ocp.CheckpointManager(self.folder, item_names=("state", "meta", "base"), options=options)
        return self._manager

    def steps(self) -> list[int]:
        """Complete steps, oldest first."""
        return sorted(self.manager.all_steps()) if self.folder.is_dir() else []

    def save(self, step: int, state: Any, meta: dict, best: int | None, base: Any = None) -> None:
        """Starts to write a step; returns when the arrays are copied. `best` is the step that must survive. Raises CheckpointError."""
        arrays = flatten(state)
        self._policy.best = best
        items = {"state": arrays, "base": flatten(base or {})}
        meta = {**meta, "leaves": {k: describe(v) for k, v in items.items()}, "checksums": {k: digest(v) for k, v in items.items()}}
        args = {"state": ocp.args.StandardSave(arrays), "meta": ocp.args.JsonSave(meta)}
        if items["base"]:
            args["base"] = ocp.args.StandardSave(items["base"])
        with self._loud(f"{self.folder}: cannot write the checkpoint of step {step}"):
            self.manager.save(step, args=ocp.args.Composite(**args))

    def wait(self) -> None:
        """Until the last save is on disk. Raises CheckpointError where it failed (a full disk)."""
        with self._loud(f"{self.folder}: a checkpoint could not be written"):
            if self._manager is not None:
                self._manager.wait_until_finished()

    def close(self) -> None:
        if self._manager is not None:
            self.wait()
            self._manager.close()
            self._manager = None

    def meta(self, step: int) -> dict:
        return self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

    def restore(self, step: int, like: Any, item: str = "state", select: Callable[[str], bool] = lambda name: True) -> tuple[Any, dict]:
        """The tree and the meta of one step, placed like `like` (shapes with shardings), every array verified.

        Args:
          select: which of the stored names must be there and are read; those of `like` must be exactly these.

        Raises:
          CheckpointError: the structure differs, or a file is damaged.
        """
        what, wanted = f"{self.folder}/{step}", flatten(like)
        try:
            meta = self.meta(step)
            stored = {k: v for k, v in meta["leaves"][item].items() if select(k)}
        except Exception as error:  # whatever a damaged file makes Orbax raise
            _not_our_files(what, error)
            raise Damaged(f"{what}: damaged (meta cannot be read: {first_line(error)})") from error
        check_same_leaves(stored, describe(wanted), what)
        try:
            # Orbax restores whole items; names that are not wanted are left out by a partial restore.
            arrays = self._restore_arrays(step, item, wanted, partial=len(stored) < len(meta["leaves"][item]))
            found = digest(arrays)
        except Exception as error:
            _not_our_files(what, error)
            raise Damaged(f"{what}: damaged ({first_line(error)})") from error
        if bad := [name for name, value in found.items() if value != meta["checksums"][item][name]]:
            raise Damaged(f"{what}: damaged ({bad[0]}{f' and {len(bad) - 1} more' if len(bad) > 1 else ''} does not match its checksum)")
        return unflatten(arrays, like), meta

    def _restore_arrays(self, step: int, item: str, wanted: Flat, partial: bool) -> Flat:
        if not partial:
            return dict(self.manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(wanted)}))[item])
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            args = ocp.args.PyTreeRestore(item=wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True)
            return dict(reader.restore(self.folder / str(step) / item, args=args))

    def restore_newest(self, like: Any, before: int | None = None) -> tuple[Any, dict] | None:
        """The newest good step, or None where there is no step at all. Damaged ones are named and moved to `damaged/`.

        Raises:
          CheckpointError: there are steps, but none of them is good; or the structure differs.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, like)
            except Damaged as error:
                self.warn(f"{error}; moved to {self.set_aside(step)}, going back to an older step")
        if steps:
            raise CheckpointError(f"{self.folder}: none of the steps {steps} can be read; start anew with another run_dir=")
        return None

    def set_aside(self, step: int) -> Path:
        if self._manager is not None:
            self._manager.close()
            self._manager = None
        target = self.run_dir / "damaged" / f"step-{step}"
        while target.exists():
            target = target.with_name(target.name + "-again")
        hosts.sync("damaged step found")  # all have chosen the same name
        if hosts.first():
            target.parent.mkdir(exist_ok=True)
            with remote.friendly(self.folder, "move"):
                remote.move(self.folder / str(step), target)  # what is left of it, should this be cut off, is found damaged again
        hosts.sync("damaged step moved")
        return target

    @contextlib.contextmanager
    def _loud(self, what: str):
        try:
            yield
        except Exception as error:
            raise CheckpointError(f"{what} ({first_line(error)}); the steps {self._complete()} are intact") from error

    def _complete(self) -> list[int]:
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(int(p.name) for p in there if p.name.isdigit() and (not remote.is_remote(p) or (p / "commit_success.txt").exists()))


class Damaged(CheckpointError):
    """A step that cannot be trusted."""


# What TensorStore and XLA say where memory, rights or a network failed.
_ELSEWHERE = re.compile(r"RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|CANCELLED")


def _not_our_files(what: str, error: Exception) -> None:
    """Raises CheckpointError where something else failed than a file: a good step must not be set aside for that."""
    if isinstance(error, PermissionError | TimeoutError | ConnectionError | jax.errors.JaxRuntimeError) or _ELSEWHERE.search(str(error)):
        raise CheckpointError(f"{what}: cannot be read now ({first_line(error)}); it was left as it is") from error
