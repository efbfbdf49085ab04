"""Checkpoints: Orbax, asynchronous, best and latest kept, checksums of every array, verified on
restore.

Orbax restores a flipped byte without a word and stops at a damaged step. So the meta of each step
has checksums that were computed from the arrays on the device, its number, the name of its run, and
a checksum of itself. `steps.json` beside them says which complete step was the newest, and which
the best. Where training goes on, a damaged step is named and moved to `damaged/`, and the newest
good one is taken; who reads a run gets an error.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from jaxsft import documents, remote, rundir, seal
from jaxsft.errors import CheckpointError, first_line
from jaxsft.sharding import hosts
from jaxsft.sharding.weight_spec import Flat
from jaxsft.sharding.weights import flatten
from jaxsft.training.checksums import digest

RECORD = "steps.json"


# --- checksums
# --------------------------------------------------------------------------------------------------


# --- trees as flat dicts
# --------------------------------------------------------------------------------------------------
def unflatten(flat: Flat, like: Any) -> Any:
    return jax.tree.unflatten(jax.tree.structure(like), [flat[name] for name in flatten(like)])


def describe(arrays: Flat) -> dict[str, list]:
    return {name: [list(x.shape), str(x.dtype)] for name, x in arrays.items()}


def check_same_leaves(found: dict[str, list], wanted: dict[str, list], what: str) -> None:
    """Raises CheckpointError for the first missing, additional or differently shaped leaf."""
    for name in wanted:
        if name not in found:
            raise CheckpointError(
                f"{what}: has no {name}, which this model needs ({len(wanted)} arrays here,"
                f" {len(found)} there)"
            )
        if found[name] != wanted[name]:
            raise CheckpointError(
                f"{what}: {name} is {found[name][1]}{found[name][0]}, but this model needs"
                f" {wanted[name][1]}{wanted[name][0]}"
            )
    if extra := [name for name in found if name not in wanted]:
        raise CheckpointError(f"{what}: has {extra[0]}, for which this model has no place")


class _KeepBestAndLatest:
    """The best, the newest, and the one before it: what is left where the newest turns out to be
    damaged.
    """

    def __init__(self) -> None:
        self.best: int | None = None

    def should_preserve(self, checkpoints: Iterable[Any], *, context: Any) -> list[bool]:
        steps = [c.step for c in checkpoints]
        return [s in (*sorted(steps)[-2:], self.best) for s in steps]


class Checkpoints:
    """The folder `checkpoints/` of a run, here or at an object store."""

    def __init__(
        self, run_dir: str | Path, warn: Callable[[str], None] = print, run: str | None = None
    ):
        """Opens the checkpoints of a run directory, of this machine or of an object store.

        `run` is the name that the steps of the run carry (`seal`); None where they have none.
        `warn` is called with each message about a damaged or missing step.
        """
        _silence_late_reports()
        # Orbax narrates every save there; its failures come as exceptions too
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self.run_dir, self.warn, self.run = (
            remote.path(run_dir if remote.is_remote(run_dir) else Path(run_dir).absolute()),
            warn,
            run,
        )
        # the step that is being written, and the best one
        self._unrecorded: tuple[int, int | None] | None = None
        self.folder = self.run_dir / "checkpoints"
        self._policy = _KeepBestAndLatest()
        self._manager: ocp.CheckpointManager | None = None

    @property
    def manager(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._policy, enable_async_checkpointing=True, create=True
            )
            self._manager = ocp.CheckpointManager(
                self.folder, item_names=("state", "meta", "base"), options=options
            )
        return self._manager

    def steps(self) -> list[int]:
        """Returns the complete steps, oldest first, as the first process sees them."""
        return json.loads(hosts.from_first_process(lambda: json.dumps(self._complete())))

    def save(self, step: int, state: Any, meta: dict, best: int | None, base: Any = None) -> None:
        """Starts to write a step, and returns when the arrays are copied.

        `best` is the step that must survive beside the newest. Raises CheckpointError.
        """
        arrays = flatten(state)
        self._policy.best = best
        items = {"state": arrays, "base": flatten(base or {})}
        meta = {
            **meta,
            "leaves": {k: describe(v) for k, v in items.items()},
            "checksums": {k: digest(v) for k, v in items.items()},
        }
        meta = _summed({**meta, "step": step, "run": self.run})
        args = {"state": ocp.args.StandardSave(arrays), "meta": ocp.args.JsonSave(meta)}
        if items["base"]:
            args["base"] = ocp.args.StandardSave(items["base"])
        with self._loud(f"{self.folder}: cannot write the checkpoint of step {step}"):
            self.manager.save(step, args=ocp.args.Composite(**args))  # waits for the one before
            self._record()
            self._unrecorded = (step, best)

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises CheckpointError where it failed (a full disk).
        """
        with self._loud(f"{self.folder}: a checkpoint could not be written"):
            if self._manager is not None:
                self._manager.wait_until_finished()
                self._record()

    def _record(self) -> None:
        """Notes the last step, now that it is complete."""
        if self._unrecorded is not None:
            self._write_record(*self._unrecorded)
            self._unrecorded = None

    def _write_record(self, newest: int | None, best: int | None) -> None:
        """Writes `steps.json` on process 0: the steps that must exist when the run is opened."""
        if hosts.first():
            text = rundir.json_text(_summed({"newest": newest, "best": best, "run": self.run}))
            if remote.is_remote(self.run_dir):
                (self.run_dir / RECORD).write_bytes(text.encode())
            else:
                rundir.write_text(self.run_dir / RECORD, text + "\n")

    def forget_best(self, newest: int) -> None:
        """Records that the best step is damaged: evaluation uses the step `newest` from now on."""
        self._write_record(newest, None)

    def record(self) -> dict | None:
        """Reads `{newest, best, run, sum}` of `steps.json` on process 0 and returns it on all.

        Returns None where there is no such file. Raises CheckpointError where its checksum differs
        or it is of another run.
        """
        path = self.run_dir / RECORD

        def read() -> str:
            if not path.exists():
                return "null"
            with remote.friendly(path, "read"):
                content = path.read_bytes()
            found = documents.parse_json(content, path, CheckpointError, dict)
            if not _intact(found):
                raise CheckpointError(
                    f"{path}: is not as it was written (its checksum differs); remove it, or take"
                    " it from a copy of the run"
                )
            if found.get("run") != self.run:
                raise CheckpointError(f"{path}: {self._foreign}")
            return json.dumps(found)

        return json.loads(hosts.from_first_process(read))

    def chosen(self) -> int:
        """Returns the step that evaluation uses: the best, or the newest where there is no best.

        Raises:
          CheckpointError: there is no step, the recorded one is missing, or the record is damaged.
        """
        steps, record = self.steps(), self.record()
        if (
            record is not None
            and record["newest"] not in (None, *steps)
            and record["newest"] > max(steps, default=0)
        ):
            raise Damaged(
                f"{self.folder}/{record['newest']}: is missing, the newest step of this run (there"
                f" are {steps})"
            )
        if not steps:
            raise CheckpointError(f"{self.folder.parent}: has no checkpoint yet")
        meta = _together(
            f"{self.folder}/{steps[-1]}", lambda: self.meta(steps[-1]), "meta cannot be read: "
        )
        best = (
            record["best"]
            if record is not None and record["newest"] == steps[-1]
            else (meta.get("best") or {}).get("step")
        )
        if best is not None and best not in steps:
            raise Damaged(
                f"{self.folder}/{best}: is missing, the best step of this run (there are {steps})"
            )
        return steps[-1] if best is None else best

    def close(self) -> None:
        if self._manager is not None:
            self.wait()
            self._manager.close()
            self._manager = None

    # What is read goes through Orbax's handlers: its managers wait for all processes after a read,
    # for ever where one of them could not read.
    def meta(self, step: int) -> dict:
        """Reads the meta of a step.

        Raises ValueError where it is damaged or that of another step, and CheckpointError where it
        is of another run.
        """
        meta = ocp.JsonCheckpointHandler().restore(
            self._item(step, "meta"), args=ocp.args.JsonRestore()
        )
        if not isinstance(meta, dict) or not (_intact(meta) if self.run or "sum" in meta else True):
            raise ValueError("it is not as it was written")
        if meta.get("step", step) != step:
            raise ValueError(f"it is that of step {meta['step']}")
        if meta.get("run") != self.run:
            raise CheckpointError(f"{self.folder}/{step}: {self._foreign}")
        return meta

    @property
    def _foreign(self) -> str:
        return (
            f"belongs to another run than {self.run_dir / seal.MANIFEST} names, or that file was"
            " changed"
        )

    def _item(self, step: int, item: str) -> epath.Path:
        return epath.Path(self.folder) / str(step) / item

    def restore(
        self,
        step: int,
        like: Any,
        item: str = "state",
        select: Callable[[str], bool] = lambda name: True,
    ) -> tuple[Any, dict]:
        """Restores the tree and the meta of one step, placed like `like`, and verifies every array.

        `like` holds shapes with shardings. What one process cannot read, all of them refuse, with
        the same error.

        Args:
          select: which of the stored names must be there and are read; those of `like` must be
            exactly these.

        Raises:
          CheckpointError: the structure differs, or a file is damaged.
        """
        what, wanted = f"{self.folder}/{step}", flatten(like)

        def leaves() -> tuple[dict, dict, dict]:
            meta = self.meta(step)
            return meta, meta["leaves"][item], meta["checksums"][item]

        meta, there, sums = _together(what, leaves, "meta cannot be read: ")
        stored = {k: v for k, v in there.items() if select(k)}
        check_same_leaves(stored, describe(wanted), what)
        # Orbax restores whole items; names that are not wanted are left out by a partial restore.
        arrays = _together(
            what, lambda: self._restore_arrays(step, item, wanted, partial=len(stored) < len(there))
        )
        try:
            found = digest(arrays)
        except jax.errors.JaxRuntimeError as error:
            raise CheckpointError(_unreadable(what, error)) from error
        if bad := [name for name, value in found.items() if value != sums[name]]:
            raise Damaged(
                f"{what}: damaged ({bad[0]}{f' and {len(bad) - 1} more' if len(bad) > 1 else ''}"
                " does not match its checksum)"
            )
        return unflatten(arrays, like), meta

    def _restore_arrays(self, step: int, item: str, wanted: Flat, partial: bool) -> Flat:
        args = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=partial,
        )
        return dict(ocp.PyTreeCheckpointHandler().restore(self._item(step, item), args=args))

    def restore_newest(self, like: Any, before: int | None = None) -> tuple[Any, dict] | None:
        """Restores the newest undamaged step as (tree, meta).

        Returns None where there is no step at all. Warns of damaged steps by name and moves them to
        `damaged/`.

        Raises:
          CheckpointError: there are steps, but none of them is good; or the structure differs.
        """
        steps, record = self.steps(), self.record()
        if (
            record is not None
            and record["newest"] is not None
            and record["newest"] > max(steps, default=0)
        ):
            self.warn(
                f"{self.folder}/{record['newest']}: is missing, the newest step of this run; going"
                " back to an older step"
            )
        for step in reversed(steps):
            try:
                found, meta = self.restore(step, like)
                if record is not None and record["newest"] != step:
                    self._write_record(step, (meta.get("best") or {}).get("step"))
                return found, meta
            except Damaged as error:
                self.warn(f"{error}; moved to {self.set_aside(step)}, going back to an older step")
        if steps:
            raise CheckpointError(
                f"{self.folder}: none of the steps {steps} can be read; start anew with another"
                " run_dir="
            )
        return None

    def set_aside(self, step: int) -> Path | None:
        """Moves a damaged step to `damaged/` and returns its new place.

        Returns None where it does not exist.
        """
        if self._manager is not None:
            self._manager.close()
            self._manager = None

        def move() -> str:
            target = self.run_dir / "damaged" / f"step-{step}"
            with remote.friendly(self.folder, "move"):
                if not (self.folder / str(step)).exists():
                    return ""
                while target.exists():
                    target = target.with_name(target.name + "-again")
                target.parent.mkdir(exist_ok=True)
                # what is left of it, should this be cut off, is found damaged again
                remote.move(self.folder / str(step), target)
            return target.name

        name = hosts.from_first_process(move)
        return self.run_dir / "damaged" / name if name else None

    @contextlib.contextmanager
    def _loud(self, what: str):
        try:
            yield
        except Exception as error:
            raise CheckpointError(
                f"{what} ({first_line(error)}); the steps {self._complete()} are intact"
            ) from error

    def _complete(self) -> list[int]:
        """Lists the complete steps of the folder, in ascending order.

        Orbax renames a folder when it is complete, and in an object store, which has no renaming,
        puts a mark into it.
        """
        with remote.friendly(self.folder, "read"):
            there = (
                [p for p in self.folder.iterdir() if p.name.isascii() and p.name.isdecimal()]
                if self.folder.is_dir()
                else []
            )
            return sorted(
                int(p.name)
                for p in there
                if (p / "commit_success.txt" if remote.is_remote(p) else p / ".").exists()
            )


def _summed(values: dict) -> dict:
    """Returns the values with `sum`, the SHA-256 of their JSON."""
    return {**values, "sum": rundir.sha256_json(values)}


def _intact(values: dict) -> bool:
    return values.get("sum") == rundir.sha256_json({k: v for k, v in values.items() if k != "sum"})


class Damaged(CheckpointError):
    """A step that cannot be trusted."""


# What TensorStore and XLA say where memory, rights or a network failed.
_ELSEWHERE = re.compile(
    r"RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|CANCELLED"
)


def _together(what: str, read: Callable[[], Any], prefix: str = "") -> Any:
    """Calls `read` on every process and returns its result, if all of them can read.

    Raises (the same on all of them):
      Damaged: a file is damaged.
      CheckpointError: something else failed than a file: a good step must not be set aside for
        that.
    """
    out, rank, text, cause = None, 0, "", None
    try:
        out = read()
    except Exception as error:  # whatever a damaged file makes Orbax raise
        other = isinstance(error, CheckpointError) and not isinstance(error, Damaged)
        elsewhere = isinstance(
            error, PermissionError | TimeoutError | ConnectionError | jax.errors.JaxRuntimeError
        ) or _ELSEWHERE.search(str(error))
        rank, text = (
            (2, _unreadable(what, error))
            if elsewhere
            else (1, f"{what}: damaged ({prefix}{first_line(_own_words(error))})")
        )
        rank, text = (2, str(error)) if other else (rank, text)
        if hosts.many():
            text = f"process {jax.process_index()}: {text}"
        else:
            cause = error
    rank, text = hosts.max_over_processes(rank, text)
    if rank:
        raise (Damaged if rank == 1 else CheckpointError)(text) from cause
    return out


def _own_words(error: BaseException) -> BaseException:
    """Returns the error of TensorStore that names the array and the file.

    Orbax puts another before it that quotes a specification of many lines.
    """
    quotes = "See full TensorStore details"
    return error.__cause__ if error.__cause__ is not None and quotes in str(error) else error


@functools.cache
def _silence_late_reports() -> None:
    """Hides the "Event loop is closed" reports that TensorStore makes after a failed save.

    The failure itself has been raised as an exception already.
    """
    told = sys.unraisablehook

    def quiet(what: Any) -> None:
        if not (
            isinstance(what.exc_value, RuntimeError)
            and "Event loop is closed" in str(what.exc_value)
        ):
            told(what)

    sys.unraisablehook = quiet


def _unreadable(what: str, error: Exception) -> str:
    return f"{what}: cannot be read now ({first_line(_own_words(error))}); it was left as it is"
