"""Runs a function of the composed config as a Hydra application: `-m`, `--cfg job`, `--resolve`,
`experiment=` and completion work.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from jaxsft import documents, invocation
from jaxsft.commands.sweep import Sweep
from jaxsft.config import compose
from jaxsft.config.overrides import OVERRIDE, ROOTS, as_config_error, config_folder, quote, typed
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
    "-sc",
    "--shell-completion",
    "--experimental-rerun",
)
FLAGS = ("-m", "--multirun", "--resolve", *WITH_VALUE)  # those of Hydra that make sense here


def _refuse_malformed(arguments: list[str]) -> None:
    """Hydra answers these with its usage, or with a traceback. Raises ConfigError."""
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


def _check_presets(arguments: Sequence[str]) -> None:
    """Reads the presets chosen from `--config-dir` within the bounds of every YAML file, which
    Hydra does not have. Raises ConfigError.
    """
    folders = [
        after for flag, after in itertools.pairwise(arguments) if flag in ("-cd", "--config-dir")
    ]
    folders += [
        argument.partition("=")[2]
        for argument in arguments
        if argument.startswith(("-cd=", "--config-dir="))
    ]
    for argument in arguments:
        if argument.lstrip("+").startswith("hydra.searchpath="):
            listed = argument.partition("=")[2].replace("file://", "")
            folders += [one for one in re.split(r"[\[\],'\"\s]+", listed) if one]
    for folder, argument in itertools.product(folders, arguments):
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
    """The presets that a name in `defaults` may stand for: all of the group where it is taken from
    the config.
    """
    if "${" not in name:
        return [name.partition("@")[0]]
    with contextlib.suppress(OSError):
        return sorted(n for n in os.listdir(Path(folder, group.strip("/"))) if n.endswith(".yaml"))
    return []


def run(
    arguments: list[str], function: Callable[[Any], int], name: str = "config", trains: bool = False
) -> int:
    """Composes the config of each job and calls `function`; its exit code, or the worst of a
    multirun.

    Args:
      name: the file of `conf/` to start from, of `overrides.ROOTS`.
      trains: each job leaves a run directory; those of a multirun get names and are compared, and
        their numbers go to Hydra's sweeper.

    Raises:
      ConfigError: the overrides do not compose, in one line.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    compose.register()
    root = ROOTS[name]
    _refuse_malformed(arguments)
    _check_presets(arguments)
    multirun = any(a in ("-m", "--multirun") for a in arguments)
    codes: list[int] = []
    # raised behind Hydra, which would tell of it in lines of its own
    failed: list[BaseException] = []
    words = [quote(a, multirun, root) for a in arguments]
    sweep = Sweep(words) if multirun and trains else None

    def job(node) -> float | None:
        if failed:
            return None
        config = None
        try:
            with as_config_error(root):
                OmegaConf.resolve(node)
            hydra_config = HydraConfig.get()
            folders = [
                Path(source.path)
                for source in hydra_config.runtime.config_sources
                if source.schema == "file"
            ]
            config = typed(node, root, hydra_config.overrides.task, folders)
            if sweep is not None:
                config = sweep.placed(config, hydra_config.overrides.task)
                invocation.remember(
                    [
                        "jaxsft",
                        "train",
                        *_pasteable(hydra_config.overrides.task),
                        f"run_dir={config.run_dir}",
                    ]
                )
            codes.append(function(config))
        except JaxsftError as error:
            if not multirun:
                failed.append(error)
                return None
            # Told at once, not at the end of the sweep; the other jobs go on.
            print(f"jaxsft: {' '.join(str(error).splitlines())}", file=sys.stderr)
            codes.append(1)
        except Exception as error:
            failed.append(error)
            return None
        return None if sweep is None or config is None else sweep.result(config)

    # errors come as exceptions, not as text and an exit
    before, os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR"), "1"
    argv, sys.argv = sys.argv, ["jaxsft", *words]
    try:
        with as_config_error(root):
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=name)(
                job
            )()
    finally:
        sys.argv = argv
        (
            os.environ.pop("HYDRA_FULL_ERROR")
            if before is None
            else os.environ.__setitem__("HYDRA_FULL_ERROR", before)
        )
    if failed:
        raise failed[0]
    if sweep is not None:
        sweep.tell()
    return max(codes, default=0)


def _pasteable(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a job without the directory of its sweep."""
    return [o for o in overrides if not o.startswith("run_dir=")]
