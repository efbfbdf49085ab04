"""Runs a function of the composed config as a Hydra application: `-m`, `--cfg job`, `--resolve`,
`experiment=` and completion work.
"""

from __future__ import annotations

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
    for folder, argument in itertools.product(folders, arguments):
        group, _, names = argument.lstrip("+").partition("=")
        for name in names.split(",") if re.fullmatch(r"[\w/]+", group) else ():
            file = Path(folder, group, f"{name.strip().removesuffix('.yaml')}.yaml")
            if name.strip() and os.path.isfile(file):
                documents.read_yaml(file, ConfigError)


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
    """Returns the overrides of a job without the directory of its sweep."""
    return [o for o in overrides if not o.startswith("run_dir=")]
