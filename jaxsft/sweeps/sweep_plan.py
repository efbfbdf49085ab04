"""`plan.yaml` of a sweep: all trials with their whole configs, fixed before the first one starts.

What changes later in a preset, a study or the code does not change a planned trial. A trial is
known by what it is, `trial_id`, never by its place in a list.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import glob
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import jaxsft
from jaxsft import documents, invocation, rundir
from jaxsft.config import compose, overrides
from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError, DataError, JaxsftError

NAME, CONTRACT, JOBS = "plan.yaml", 1, "jobs"
# What a trial is not known by: where it lies, and how it is looked at.
ASIDE = ("run_dir", "profile", "compilation_cache", "trackers.", "check.")


@dataclasses.dataclass(frozen=True)
class PlannedTrial:
    """One training of a sweep.

    Attributes:
      number: its place in the plan, from 0.
      id: SHA-256 of what it is (`trial_id`).
      overrides: only those that differ between the trials, `option=value`.
      config: the whole config as plain data, without `run_dir`.
      run_dir: where it lies, `SWEEP/jobs/NNN-ID8`.
      asked: options of `overrides.NOTED` that somebody asked for; of a pretrained model the others
        have defaults of their own (`Config.unasked`).
    """

    number: int
    id: str
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    run_dir: Path
    asked: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Returns what tells the trial from the others, for people."""
        return ",".join(self.overrides) or f"trial {self.number}"

    def beside(self, suffix: str) -> Path:
        """Returns a file beside the run directory, such as `NNN-ID8.log`."""
        return self.run_dir.with_name(self.run_dir.name + suffix)

    def typed(self) -> Config:
        """Returns the config with its run directory. Raises ConfigError."""
        config = compose.typed({**self.config, "run_dir": str(self.run_dir)})
        return with_asked(config, self.asked)

    @property
    def finished(self) -> bool:
        """Returns whether evaluation and report exist."""
        return all((self.run_dir / name).is_file() for name in ("result.json", "report.html"))


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """The plan of a sweep.

    Attributes:
      given: the words of the command.
      swept: the options that differ between trials.
      study: name, question, metric, arms, seeds ... of an experiment; None: an ad-hoc sweep.
      code: version and revision that the trials were planned with.
      data: a fingerprint of each file that a config names.
      cwd: the directory that relative paths start from.
      fixed: the overrides that all trials have.
    """

    folder: Path
    given: tuple[str, ...]
    swept: tuple[str, ...]
    study: Mapping[str, Any] | None
    trials: tuple[PlannedTrial, ...]
    code: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cwd: str = ""
    created: str = ""
    fixed: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: str | Path) -> SweepPlan:
        """Reads the plan of a sweep's folder.

        Raises DataError where it is none, or of another version.
        """
        folder = Path(folder)
        path = folder / NAME
        if not path.is_file():
            raise DataError(f"{folder}: holds no sweep (there is no {NAME})")
        values = documents.read_yaml(path, DataError, dict)
        if values.get("contract") != CONTRACT:
            raise DataError(
                f"{path}: is of contract {values.get('contract')}, expected {CONTRACT}; another"
                " version of jaxsft wrote it"
            )
        try:
            return cls(
                folder=folder,
                given=tuple(values["given"]),
                swept=tuple(values["swept"]),
                study=values["study"],
                trials=tuple(_trial(folder, one) for one in values["trials"]),
                code=values["code"],
                data=values.get("data") or {},
                cwd=values.get("cwd") or "",
                created=values["created"],
                fixed=tuple(values.get("fixed") or ()),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: not the plan of a sweep ({type(error).__name__}: {error})"
            ) from error

    def write(self) -> Path:
        """Writes `plan.yaml`, whole or not at all. Raises JaxsftError where it cannot."""
        values = {
            "contract": CONTRACT,
            "created": self.created or moment(),
            "code": dict(self.code),
            "data": dict(self.data),
            "cwd": self.cwd,
            "given": list(self.given),
            "fixed": list(self.fixed),
            "swept": list(self.swept),
            "study": self.study,
            "trials": [
                {
                    "number": one.number,
                    "id": one.id,
                    "overrides": list(one.overrides),
                    "asked": list(one.asked),
                    "config": one.config,
                }
                for one in self.trials
            ],
        }
        text = yaml.dump(values, Dumper=_PlanDumper, sort_keys=False, allow_unicode=True)
        return rundir.write_text(self.folder / NAME, text)

    def by_number(self, number: int) -> PlannedTrial:
        """Returns a trial. Raises ConfigError where there is none of this number."""
        for one in self.trials:
            if one.number == number:
                return one
        raise ConfigError(f"{self.folder}: has no trial {number}; there are {len(self.trials)}")


class _PlanDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """Writes values that two configs share out in full: an alias would be refused when read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _trial(folder: Path, values: Mapping[str, Any]) -> PlannedTrial:
    number, name = int(values["number"]), str(values["id"])
    return PlannedTrial(
        number,
        name,
        tuple(values["overrides"]),
        values["config"],
        run_dir(folder, number, name),
        tuple(values.get("asked") or ()),
    )


def planned(
    folder: Path, number: int, name: str, swept: Sequence[str], config: Config
) -> PlannedTrial:
    """Returns the trial of a config, whose id is `name`."""
    values = {**compose.to_dict(config), "run_dir": None}
    place = run_dir(folder, number, name)
    return PlannedTrial(number, name, tuple(swept), values, place, asked(config))


def run_dir(folder: Path, number: int, name: str) -> Path:
    """Returns the run directory of a trial: a function of its number and id alone."""
    return folder / JOBS / f"{number:03d}-{name[:8]}"


def moment() -> str:
    """Returns the time now, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- what a trial is
# --------------------------------------------------------------------------------------------------
def trial_id(config: Config, data: Mapping[str, str], code: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what a trial is: its config, its data and the code.

    Args:
      data: fingerprints of files, of which those count that the config names.
    """
    values = {
        key: value
        for key, value in compose.flat(compose.to_dict(config)).items()
        if not key.startswith(ASIDE)
    }
    # of a pretrained model the options that nobody asked for have other defaults
    of_asked = list(asked(config)) if config.model.pretrained else None
    same = {key: value for key, value in code.items() if key != "git"}
    files = {place: data[place] for place in places(config) if place in data}
    return rundir.sha256_json({"config": values, "asked": of_asked, "data": files, "code": same})


# whose sources decide what numbers a trial comes to
ROOMS = (
    "config",
    "data",
    "evaluation",
    "generation",
    "hf",
    "losses",
    "metrics",
    "models",
    "optim",
    "sharding",
    "tasks",
    "training",
)


@functools.cache
def code_now() -> dict[str, Any]:
    """Returns what code this is: the version, a hash of the sources that decide about numbers, and
    the Git revision, which is told but does not make a trial another one.
    """
    package = Path(jaxsft.__file__).parent
    sources = sorted(path for room in ROOMS for path in (package / room).rglob("*.py"))
    found = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    revision = invocation.git_revision()
    return {"jaxsft": jaxsft.__version__, "source": found[:16], "git": revision}


def asked(config: Config) -> tuple[str, ...]:
    """Returns the options of `overrides.NOTED` that somebody asked for."""
    unasked = dict(config.unasked)
    return tuple(key for key in _noted(config) if key not in unasked)


def _noted(config: Config) -> dict[str, Any]:
    parts = {part: compose.to_dict(getattr(config, part)) for part in overrides.NOTED}
    return compose.flat(parts)


def with_asked(config: Config, given: Sequence[str]) -> Config:
    """Returns a config with a note of what nobody asked for, from what somebody did (`asked`)."""
    unasked = tuple(
        (key, overrides.fixed(value)) for key, value in _noted(config).items() if key not in given
    )
    return dataclasses.replace(config, unasked=unasked)


def places(config: Config) -> list[str]:
    """Returns the files and folders that decide what a config trains on, as it names them."""
    d = config.data
    named = [
        d.path,
        d.train,
        d.validation,
        d.test,
        *(source.path for source in d.mixture.sources),
        d.columns.label_names,
        config.model.pretrained,
        config.model.vectors,
        config.train.init_from,
        getattr(config.tokenizer, "path", None),
        getattr(config.task, "template", None),
        getattr(config.adapter, "start_from", None),
        *(name for name in config.plugins if name.endswith(".py")),
    ]
    return list(dict.fromkeys(str(place) for place in named if place))


LARGE = 1 << 26  # bytes of a file from which its size and time stand for its content


def fingerprint(place: str) -> str:
    """Returns what tells the content of a file or folder from another one; "" for what is not on
    this machine (the hub, a store, a name that is no file).

    Raises DataError where a file cannot be read.
    """
    if "://" in place or place.startswith("hub:"):
        return ""
    if not os.path.exists(place):
        files = sorted(path for path in glob.glob(place) if os.path.isfile(path))
        return rundir.sha256_json({path: _of_file(Path(path)) for path in files}) if files else ""
    if os.path.isfile(place):
        return _of_file(Path(place))
    found = {}
    for folder, folders, files in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                found[str(path.relative_to(place))] = _of_file(path)
    return rundir.sha256_json(found)


def _of_file(path: Path) -> str:
    try:
        about = path.stat()
        if about.st_size > LARGE:
            return f"{about.st_size}-{about.st_mtime_ns}"
        return rundir.sha256_file(path)
    except (OSError, JaxsftError) as error:
        raise DataError(f"{path}: cannot read ({getattr(error, 'strerror', error)})") from error
