"""Runs `jaxsft prepare`: files in, a prepared set out, with every row accounted for.

See `jaxsft/data/prepared.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import plugins, rundir
from jaxsft.config import validate
from jaxsft.config.schema import Columns, DataFiles, PrepareConfig
from jaxsft.data import formats, prepared
from jaxsft.data.formats import Bad, Row
from jaxsft.data.ledger import Aside
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import left_rows, stage_runner, stages
from jaxsft.prepare.prepared_set import WRITTEN, mend, standing, write_set
from jaxsft.prepare.spool import Spool
from jaxsft.prepare.stage import Context, Report, Stage
from jaxsft.prepare.stage_runner import StageEntry
from jaxsft.runlock import RunLock

UNREADABLE = "unreadable"  # the reason of rows that no stage has seen


def prepare(
    config: PrepareConfig, models: Mapping[str, Callable] | None = None
) -> tuple[dict[str, Any], bool]:
    """Runs the stages of `config` over its files; returns (manifest, whether anything was done).

    The set is written to the folder `output.dir`.

    The same files, stages and seed give the same bytes. A folder that holds exactly this is left
    alone.

    Args:
      models: `score` and `predict`, for stages that need a model (see `stage.Context`). Functions
        are told apart by their names; with `output.overwrite` they are asked again always.

    Raises:
      ConfigError: an option that does not exist or does not fit, or another set stands in the
        folder.
      DataError: a row that cannot be read, unless it is put aside; a column that is missing or of
        the wrong kind.
    """
    plugins.begin()
    folder = _folder(config)
    if config.data.path and (found := prepared.manifest(config.data.path)):
        config = dataclasses.replace(config, data=_as_written(config.data, found))
    context = Context(config.data.columns, config.seed, **(models or {}))
    entries = [entry(item, context) for item in config.stages]
    inputs = _inputs(config, entries)
    key = _key(config, entries, inputs, _asked(config.run, models or {}))
    # whether functions do what they did cannot be known
    forced = config.output.overwrite and bool(models) and config.run is None
    if not forced and (found := standing(folder, key, config.output.overwrite)):
        return found, False
    work = folder.with_name(f".{folder.name}.work")
    reading = StageEntry("read", Read(), {})
    with _alone(work):
        mend(folder)
        # by another command, a moment ago
        if (found := standing(folder, key, config.output.overwrite)) and not forced:
            shutil.rmtree(work, ignore_errors=True)
            return found, False
        if forced:
            for stale in (path for path in work.iterdir() if path.is_dir()):
                shutil.rmtree(stale)
        rows = {
            name: left_rows.marked(
                functools.partial(_read, config.data, path, name),
                config.data,
                "" if config.data.path else name,
                [e.options for e in entries],
            )
            for name, path in _paths(config.data).items()
        }
        sets = stage_runner.run([reading, *entries], rows, work, key, config.workers)
        _not_too_many(reading, config.data.max_dropped)
        _some_rows([reading, *entries], sets)
        return write_set(config, folder, key, inputs, [reading, *entries], sets, work), True


def _alone(work: Path) -> RunLock:
    """Raises DataError where the folder for rows between stages cannot be made, JaxsftError where
    another command works in it.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{work}: cannot make the folder for rows between stages ({error.strerror or error});"
            " give another output.dir="
        ) from None
    return RunLock(work, "prepares this set already; wait for it, or give another output.dir=")


def _folder(config: PrepareConfig) -> Path:
    """Returns the folder of the prepared set. Raises ConfigError for options that do not fit."""
    validate.each(config)
    if config.output.format not in WRITTEN:
        raise ConfigError(
            f"output.format={config.output.format}: expected one of {', '.join(WRITTEN)}"
        )
    if not config.output.dir:
        raise ConfigError("output.dir is missing: the folder that the prepared set is written to")
    folder = Path(config.output.dir)
    _apart(folder, config.data)
    return folder


def _apart(folder: Path, data: DataFiles) -> None:
    """Raises ConfigError where the set cannot stand in this folder: it has no name, is a file, or
    would be read as data the next time.
    """
    if folder.name in ("", ".."):
        raise ConfigError(f"output.dir={folder}: expected the name of a folder for the set alone")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output.dir={folder}: found a file, expected a folder")
    for path in (data.path, data.train, data.validation, data.test):
        if path and Path(path).is_dir() and Path(path).resolve() in folder.resolve().parents:
            raise ConfigError(
                f"output.dir={folder} lies in {path}, all of which is read as data; give another"
                " output.dir="
            )


def _as_written(data: DataFiles, found: Mapping[str, Any]) -> DataFiles:
    """Returns `data` with exact reading options for the files of a prepared set."""
    how = {"header": "true"} if found["format"] in ("csv", "tsv") else {}
    how |= {"format": found["format"]} if found["format"] != prepared.ARRAY_RECORD else {}
    return dataclasses.replace(
        data, columns=prepared.columns(found, data.columns), encoding="utf-8", **how
    )


class Read(Stage):
    """The rows of a reader, and what stands for those that cannot be read or are not to be used."""

    def row(self, row: Row | Bad | Aside, state: Any, report: Report) -> Row | None:
        if isinstance(row, Aside):
            report.dropped.append((f"{row.file}:{row.line}", row.reason))
            return None
        if isinstance(row, Bad):
            report.dropped.append((row.where, f"{UNREADABLE}: {row.reason}"))
            return None
        return row


def entry(item: Any, context: Context) -> StageEntry:
    """Builds a stage of the list from its name or `{name: {option: value}}`. Raises ConfigError."""
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ConfigError(
            f"stages: found {item!r}, expected a name, or one name with its options, such as"
            " {dedup: {threshold: 0.8}}"
        )
    ((name, options),) = item.items()
    stage = stages.build(name, options or {}, context)
    return StageEntry(name, stage, stages.options(stage))


def replay(
    found: Mapping[str, Any], rows: Iterable[Row], models: Mapping[str, Callable] | None = None
) -> list[Row]:
    """Applies the stages that `predict` repeats to new rows.

    They are what cleans, fills and scales, with what was learned then.

    Args:
      models: as in `prepare`; stages that asked a model ask it again.

    Raises:
      DataError: a row lacks a column, or would be dropped.
      ConfigError: a stage needs a model, and there is none.
    """
    context = Context(Columns(**found["columns"]), found["seed"], **(models or {}))
    current = list(rows)
    for told in found["stages"]:
        if told["stage"] == "read" or not stages.get(told["stage"]).replayed:
            continue
        stage, report = stages.build(told["stage"], told["options"], context), Report()
        if not stage.replayed:  # where it hangs on the options
            continue
        current = list(stage.rows("predict", current, told["state"], report))
        if report.dropped:
            where, reason = report.dropped[0]
            raise DataError(
                f"{where}: the stage {told['stage']} of the training data drops this row"
                f" ({reason}); mend the row"
            )
    return current


# --- what goes in
# --------------------------------------------------------------------------------------------------
def _paths(data: DataFiles) -> dict[str, str]:
    validate.options_of_splits(data)
    given = {split: getattr(data, split) for split in prepared.SPLITS if getattr(data, split)}
    if bool(given) == bool(data.path):
        raise ConfigError(
            "give data.path=FILE (one set), or data.train=FILE with data.validation= and data.test="
            " (split already)"
        )
    if data.path and (found := prepared.manifest(data.path)):  # its rows, not its account
        return {split: prepared.located(data.path, found, split) for split in found["splits"]}
    return given or {stage_runner.UNSPLIT: data.path}


def _read(data: DataFiles, path: str, split: str) -> Iterator[Row | Bad]:
    how = {name: getattr(data, name) for name in ("format", "header", "encoding", "unit")}
    how["options"] = formats.options_of(data.options, "" if data.path else split)
    bad: list[Bad] = []
    for row in formats.stream(
        path,
        **how,
        columns=data.columns.named(),
        quarantine=bad.append if data.on_bad_row == "quarantine" else None,
    ):
        yield from bad
        bad.clear()
        yield row
    yield from bad


def _not_too_many(reading: StageEntry, most: float) -> None:
    for split, report in reading.reports.items():
        bad = [one for one in report.dropped if one[1].startswith(UNREADABLE)]
        if len(bad) > most * reading.read[split]:
            where, reason = bad[0]
            raise DataError(
                f"{len(bad)} of {reading.read[split]} rows of {split} cannot be read,"
                f" more than data.max_dropped={most:g}; the first is {where}:"
                f" {reason.partition(': ')[2]}"
            )


def _some_rows(entries: Sequence[StageEntry], sets: Mapping[str, Spool]) -> None:
    """Raises DataError where nothing is left to train on: a limit that no row keeps is a slip, and
    an empty file could not be read.
    """
    for split, rows in sets.items():
        if not len(rows) and (split in ("train", stage_runner.UNSPLIT) or split.endswith("_train")):
            last = next(e for e in entries if e.written.get(split) == 0)
            reasons = last.reports[split].dropped.counts if split in last.reports else {}
            why = (
                f" ({', '.join(f'{n} {reason}' for reason, n in reasons.most_common(3))})"
                if reasons
                else ""
            )
            raise DataError(
                f"stage {last.name} dropped the last rows of {split}{why}, expected some to be"
                " left; set its options, or take it out"
            )


def _inputs(config: PrepareConfig, entries: Sequence[StageEntry]) -> list[dict[str, Any]]:
    """Returns every file that is read, with its hash.

    They are those of the data, and those that options of stages name.
    """
    out = []
    for split, path in _paths(config.data).items():
        for source in formats.files(path):
            out.append({"set": split, "file": source.name, "sha256": _digest(source)})
    named = [
        v
        for item in config.stages
        if isinstance(item, Mapping)
        for options in item.values()
        for v in _texts(options)
    ]
    out += [
        {"set": None, "file": v, "sha256": rundir.sha256_file(v)}
        for v in dict.fromkeys(named)
        if _is_file(v)
    ]
    folders = dict.fromkeys(
        str(path)
        for e in entries
        for name in e.stage.folders
        if (path := e.options[name]) is not None
    )
    return out + [
        {"set": None, "file": str(p), "sha256": rundir.sha256_file(p)}
        for f in folders
        for p in sorted(_under(Path(f)))
    ]


def _under(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder; of a run's those of its tokenizer.

    Its checkpoints do not change the tokenizer. None for what is no folder: a name.
    """
    inner = folder / "tokenizer"
    return (
        (path for path in (inner if inner.is_dir() else folder).rglob("*") if path.is_file())
        if folder.is_dir()
        else iter(())
    )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a text that is no name: too long, or with a NUL
        return False


def _digest(source: formats.Source) -> str:
    hashed = hashlib.sha256()
    with source.open() as file:
        while part := file.read(2**20):
            hashed.update(part)
    return hashed.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | Sequence):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def _asked(run: str | None, models: Mapping[str, Callable]) -> dict[str, Any]:
    """Returns what identifies the models that stages ask.

    The weights of a run, and functions by their names (their code cannot be seen).
    """
    out: dict[str, Any] = {
        "functions": {
            name: f"{f.__module__}.{getattr(f, '__qualname__', type(f).__name__)}"
            for name, f in models.items()
        }
    }
    if run is None:
        return out
    folder = Path(run)
    weights = sorted(
        p for p in [folder / "config.yaml", *(folder / "checkpoints").rglob("*")] if p.is_file()
    )
    return out | {
        "run": run,
        "weights": {p.relative_to(folder).as_posix(): rundir.sha256_file(p) for p in weights},
    }


def _key(
    config: PrepareConfig,
    entries: Sequence[StageEntry],
    inputs: list[dict[str, Any]],
    asked: dict[str, Any],
) -> str:
    """Hashes everything that the rows depend on.

    Not among it are how many processes made them, and where they lie.
    """
    data = {
        k: v
        for k, v in dataclasses.asdict(config.data).items()
        if k not in prepared.SPLITS and k != "path"
    }
    output = {
        k: v for k, v in dataclasses.asdict(config.output).items() if k not in ("dir", "overwrite")
    }
    listed = [[e.name, e.options] for e in entries]
    told = {
        "inputs": inputs,
        "data": data,
        "stages": listed,
        "seed": config.seed,
        "output": output,
        "models": asked,
        "code": _code(),
        **({"plugins": theirs} if (theirs := plugins.used()) else {}),
    }
    return rundir.sha256_json(told)[:32]


@functools.cache
def _code() -> str:
    """Returns the hash of the sources that rows depend on."""
    package = Path(__file__).parent
    paths = sorted([*package.rglob("*.py"), *(package.parent / "data").rglob("*.py")])
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()
