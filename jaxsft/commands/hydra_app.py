"""Runs a function of the composed config as a Hydra application: `-m`, `--cfg job`, `--resolve`,
`experiment=` and completion work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jaxsft import documents, invocation
from jaxsft.commands import shown_config
from jaxsft.commands.outcomes import Outcome, Outcomes, exit_code, summary
from jaxsft.commands.sweep import Sweep
from jaxsft.config import compose
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
    """One job of an application: the composed config goes to `function`.

    A launcher may run it in another process; what must come back from there is in `outcomes`.

    Attributes:
      raised: what ended all jobs, or the only one: it is raised again behind Hydra, which would
        tell of it in lines of its own.
    """

    function: Callable[[Any], int]
    root: Any
    sweep: Sweep | None
    outcomes: Outcomes | None  # of a multirun
    code: int = 0
    raised: Exception | None = None

    def __call__(self, node: Any) -> float | int | None:
        """Runs the job.

        Returns: its exit code; in a sweep that trains, the number by which Hydra's sweeper judges
          it, NaN where it failed.
        """
        if self.outcomes is None:
            try:
                self.code = self.function(self._config(node))
            except Exception as error:
                self.raised = error
            return self.code
        return self._of_many(node, self.outcomes)

    def _of_many(self, node: Any, outcomes: Outcomes) -> float | int | None:
        """Runs a job of several: it fails by itself, and the others go on."""
        if self.raised is not None:
            return None
        from hydra.core.hydra_config import HydraConfig

        now, config = HydraConfig.get(), None
        outcome = Outcome(int(now.job.num), _swept(now.overrides.task, self.sweep))
        outcomes.note(outcome)
        try:
            config = self._config(node)
            code = self.function(config)
        except JaxsftError as error:
            print(f"jaxsft: {' '.join(str(error).splitlines())}", file=sys.stderr)
            code = 1
        except BrokenPipeError as error:  # nobody reads what the jobs say
            self.raised, code = error, 1
        except Exception:
            traceback.print_exc()
            code = 1
        run_dir = None if self.sweep is None or config is None else self.sweep.run_dir(config)
        outcomes.note(dataclasses.replace(outcome, code=code, run_dir=run_dir))
        if self.sweep is None:
            return code
        return math.nan if config is None else self.sweep.result(config)

    def _config(self, node: Any) -> Any:
        """Returns the typed config of a job. Raises ConfigError."""
        from hydra.core.hydra_config import HydraConfig

        with as_config_error(self.root):
            OmegaConf.resolve(node)
        now = HydraConfig.get()
        folders = [
            Path(source.path) for source in now.runtime.config_sources if source.schema == "file"
        ]
        config = typed(node, self.root, now.overrides.task, folders)
        if self.sweep is not None:
            config = self.sweep.placed(config, now.overrides.task)
            words = [*_pasteable(now.overrides.task), f"run_dir={config.run_dir}"]
            invocation.remember(["jaxsft", "train", *words])
        return config


def run(
    arguments: list[str], function: Callable[[Any], int], name: str = "config", trains: bool = False
) -> int:
    """Composes the config of each job and calls `function` with it.

    Returns its exit code, or the worst of a multirun, whose failed jobs are named.

    Args:
      name: the file of `conf/` to start from, of `overrides.ROOTS`.
      trains: each job leaves a run directory; those of a multirun get names and are compared, and
        their numbers go to Hydra's sweeper.

    Raises:
      ConfigError: the overrides do not compose, in one line.
    """
    compose.register()
    root = ROOTS[name]
    _refuse_malformed(arguments)
    _check_presets(arguments)
    if root is Config and shown_config.is_asked(arguments):
        return shown_config.show(arguments)
    multirun = any(a in ("-m", "--multirun") for a in arguments)
    words = [quote(a, multirun, root) for a in arguments]
    sweep = Sweep(words) if multirun and trains else None
    job = _Job(function, root, sweep, Outcomes() if multirun else None)
    if job.outcomes is None:
        _through_hydra(words, job, name)
        if job.raised is not None:
            raise job.raised
        return job.code
    try:
        _through_hydra(words, job, name)
        if job.raised is not None:
            raise job.raised
        jobs = job.outcomes.all()
    finally:
        job.outcomes.remove()
    if sweep is not None:
        sweep.tell([Path(one.run_dir) for one in jobs if one.run_dir is not None])
    if told := summary(jobs):
        print(told, file=sys.stderr)
    return exit_code(jobs)


def _through_hydra(words: Sequence[str], job: _Job, name: str) -> None:
    """Calls `job` with each config that Hydra composes from the command line.

    Raises ConfigError.
    """
    import hydra

    def task(node: Any) -> float | int | None:  # a function, of which Hydra asks for its file
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


def _swept(overrides: Sequence[str], sweep: Sweep | None) -> str:
    """Returns the overrides that tell a job from the others of its multirun."""
    return ",".join(overrides if sweep is None else sweep.swept(overrides))


def _pasteable(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides of a job without the directory of its sweep."""
    return [o for o in overrides if not o.startswith("run_dir=")]
