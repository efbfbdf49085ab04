"""Runs a function of the composed config as a Hydra application: `-m`, `--cfg job`, `--resolve`,
`experiment=` and completion work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jaxsft import documents
from jaxsft.commands import shown_config
from jaxsft.config import hydra_schema
from jaxsft.config.overrides import OVERRIDE, ROOTS, as_config_error, config_folder, quote, typed
from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError, JaxsftError

WITH_VALUE = (
    "-c",
    "--cfg",
    "-p",
    "--package",
    "-cd",
    "--config-dir",
    "-i",
    "--info",
)
# those of Hydra that make sense here
FLAGS = ("-m", "--multirun", "--resolve", "-sc", "--shell-completion", *WITH_VALUE)
ALONE = (  # each of them asks for something else
    ("-m", "--multirun"),
    ("-c", "--cfg"),
    ("-i", "--info"),
    ("-sc", "--shell-completion"),
)
KNOWN = {  # the values of flags
    shown_config.CFG: ("job", "hydra", "all"),
    ("-i", "--info"): ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
ASKING = ("-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")  # nothing is run
OF_SWEEPS = ("sweep.", "search.", "hydra/launcher=")


def _refuse_malformed(arguments: list[str]) -> None:
    """Raises ConfigError for arguments that Hydra answers with its usage, or with a traceback."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument.startswith("-"):
            if argument.partition("=")[0] not in FLAGS:
                raise ConfigError(f"{argument}: unknown flag; there are {', '.join(FLAGS)}")
        elif before not in WITH_VALUE and not re.match(OVERRIDE, argument):
            file = argument.endswith((".yaml", ".yml"))
            how = (
                "; a file of options is read as --config-dir FOLDER"
                f" experiment={Path(argument).stem}, where it lies in FOLDER/experiment/"
            )
            raise ConfigError(f"{argument}: expected key=value{how if file else ''}")
    _refuse_flags([a.partition("=")[0] for a in arguments if a.startswith("-")], arguments)


def _refuse_flags(flags: Sequence[str], arguments: Sequence[str]) -> None:
    """Raises ConfigError for flags that exclude each other, or whose value is missing or wrong."""
    asked = [names[-1] for names in ALONE if any(name in flags for name in names)]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)}: expected one of them")
    if "--resolve" in flags and "--cfg" not in asked:
        raise ConfigError("--resolve: is read with --cfg job only")
    for argument, after in zip(arguments, [*arguments[1:], "-"], strict=False):
        lacks = after.startswith("-") or re.match(OVERRIDE, after) is not None
        if argument in WITH_VALUE and argument not in ("-i", "--info") and lacks:
            raise ConfigError(f"{argument}: expected a value behind it")
    for names, known in KNOWN.items():
        for value in shown_config.values_of(arguments, names):
            if value not in known and not re.match(f"{OVERRIDE}|-", value):
                raise ConfigError(f"{names[-1]} {value}: expected one of {', '.join(known)}")


def _check_presets(arguments: Sequence[str]) -> None:
    """Checks the presets chosen from `--config-dir` against the bounds of every YAML file.

    Hydra has no such bounds. Raises ConfigError.
    """
    for folder, argument in itertools.product(shown_config.folders(arguments), arguments):
        group, _, names = argument.lstrip("+").partition("=")
        if re.fullmatch(r"[\w/]+(?:@[\w.]+)?", group):
            for name in names.split(","):
                _read_preset(folder, group.partition("@")[0], name, set())


def _read_preset(folder: str, group: str, name: str, seen: set[str]) -> None:
    """Reads a preset and those that it names in `defaults`, where they lie in this folder."""
    name = name.strip().removesuffix(".yaml")
    file = os.path.normpath(os.path.join(folder, group.strip("/"), f"{name}.yaml"))
    if not name or file in seen or not os.path.isfile(file):
        return
    seen.add(file)
    found = documents.read_yaml(file, ConfigError)
    defaults = found.get("defaults") if isinstance(found, dict) else None
    here = os.path.dirname(os.path.join(group, name))
    for entry in defaults if isinstance(defaults, list) else ():
        for key, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
            path = str(key).split(" ")[-1].partition("@")[0]
            inner = path if path.startswith("/") else os.path.join(here, path)
            for one in value if isinstance(value, list) else [value]:
                for preset in _presets(folder, inner, str(one)):
                    _read_preset(folder, inner, preset, seen)


def _presets(folder: str, group: str, name: str) -> list[str]:
    """Returns the presets that a name in `defaults` may stand for.

    They are all of the group where the name is taken from the config.
    """
    if "${" not in name:
        return [name.partition("@")[0]]
    with contextlib.suppress(OSError):
        return sorted(n for n in os.listdir(Path(folder, group.strip("/"))) if n.endswith(".yaml"))
    return []


@dataclasses.dataclass
class _Job:
    """The job of an application, or its jobs one after the other: each composed config goes to
    `function`.

    Attributes:
      multirun: a job fails by itself, and the others go on.
      codes: the exit code of each job, with the overrides that it was given.
      raised: what ended all jobs, or the only one: it is raised again behind Hydra, which would
        tell of it in lines of its own.
    """

    function: Callable[[Any], int]
    root: Any
    multirun: bool
    codes: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    raised: Exception | None = None

    def __call__(self, node: Any) -> int | None:
        """Runs a job; returns its exit code."""
        from hydra.core.hydra_config import HydraConfig

        if self.raised is not None:
            return None
        name = ",".join(HydraConfig.get().overrides.task)
        try:
            code = self.function(self._config(node))
        except Exception as error:
            # nobody reads what the jobs say
            if not self.multirun or isinstance(error, BrokenPipeError):
                self.raised = error
                return None
            if isinstance(error, JaxsftError):
                print(f"jaxsft: {' '.join(str(error).splitlines())}", file=sys.stderr)
            else:
                traceback.print_exc()
            code = 1
        self.codes.append((name, code))
        return code

    def _config(self, node: Any) -> Any:
        """Returns the typed config of a job. Raises ConfigError."""
        from hydra.core.hydra_config import HydraConfig

        with as_config_error(self.root):
            OmegaConf.resolve(node)
        now = HydraConfig.get()
        folders = [
            Path(source.path) for source in now.runtime.config_sources if source.schema == "file"
        ]
        return typed(node, self.root, now.overrides.task, folders)


def run(
    arguments: list[str], function: Callable[[Any], int], name: str = "config", trains: bool = False
) -> int:
    """Composes the config of each job and calls `function` with it.

    Returns its exit code, or the worst of a multirun, whose failed jobs are named.

    Args:
      name: the file of `conf/` to start from, of `overrides.ROOTS`.
      trains: each job leaves a run directory; a multirun is a sweep (`jaxsft.sweeps`).

    Raises:
      ConfigError: the overrides do not compose, in one line.
    """
    hydra_schema.register()
    root = ROOTS[name]
    _refuse_malformed(arguments)
    _check_presets(arguments)
    if root is Config and shown_config.is_asked(arguments):
        return shown_config.show(arguments)
    multirun = any(a in ("-m", "--multirun") for a in arguments)
    asks = any(a.partition("=")[0] in ASKING for a in arguments)
    if multirun and trains and not asks:
        from jaxsft.sweeps import launchers

        return launchers.run(arguments)
    _refuse_of_sweeps(arguments, trains)
    arguments = [a for a in arguments if not a.startswith(OF_SWEEPS)]
    words = [quote(a, multirun, root) for a in arguments]
    job = _Job(function, root, multirun)
    _through_hydra(words, job, name)
    if job.raised is not None:
        raise job.raised
    failed = [told for told, code in job.codes if code != 0]
    if multirun and failed:
        told = f"{len(failed)} of {len(job.codes)} jobs failed: {'; '.join(failed)}"
        print(told, file=sys.stderr)
    return max((code for _, code in job.codes), default=0)


def _refuse_of_sweeps(arguments: Sequence[str], trains: bool) -> None:
    """Raises ConfigError for words that only a sweep of trainings reads."""
    for argument in arguments:
        if argument.startswith(("sweep.", "search.")):
            why = "is read with -m" if trains else "is read by jaxsft train -m"
            if not trains or not any(a.partition("=")[0] in ASKING for a in arguments):
                raise ConfigError(f"{argument}: {why}")
        elif argument.startswith("hydra/launcher=") and not trains:
            raise ConfigError(
                f"{argument}: the jobs of this command run one after the other; leave it out"
            )


def _through_hydra(words: Sequence[str], job: _Job, name: str) -> None:
    """Calls `job` with each config that Hydra composes from the command line.

    Raises ConfigError.
    """
    import hydra

    def task(node: Any) -> int | None:  # a function, of which Hydra asks for its file
        return job(node)

    # errors come as exceptions, not as text and an exit
    before, os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR"), "1"
    argv, sys.argv = sys.argv, ["jaxsft", *words]
    try:
        with as_config_error(job.root):
            folder = str(config_folder())
            hydra.main(version_base="1.3", config_path=folder, config_name=name)(task)()
    finally:
        sys.argv = argv
        if before is None:
            os.environ.pop("HYDRA_FULL_ERROR")
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
