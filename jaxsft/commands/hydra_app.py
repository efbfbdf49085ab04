"""Runs a function of the composed config as a Hydra application: `-m`, `--cfg job`, `--resolve`, `experiment=` and completion work.

Hydra's grammar has opinions on quotes, commas, `=` and other characters; where an option is text, the value is taken as it stands.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jaxsft.config import compose
from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError, JaxsftError

WITH_VALUE = ("-c", "--cfg", "-p", "--package", "-cd", "--config-dir", "-i", "--info", "-sc", "--shell-completion", "--experimental-rerun")
FLAGS = ("-m", "--multirun", "--resolve", *WITH_VALUE)  # those of Hydra that make sense here
OPEN = r"task\.variables(\.|$)"  # the user names its keys, so that adding one is no mistake
_PLAIN = re.compile(r"(?=[\w./:@%+\-]*[A-Za-z_/])[\w./:@%+\-]+")  # what Hydra's grammar reads as one unquoted word
_VALUE = re.compile(r"true|false|on|off|yes|no|null|inf|nan|[+-]?[\d_.]*(e[+-]?\d+)?", re.IGNORECASE)  # ... but not as a word


def config_folder() -> str:
    """`conf/`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return str(next(p for p in (package / "conf", package.parent / "conf") if p.is_dir()))


def quote(argument: str, multirun: bool) -> str:
    """An override with its value quoted where the option is text and Hydra would read more into it."""
    match = re.fullmatch(r"(\+{0,2})([\w.]+)=(.*)", argument, re.DOTALL)
    if not match:
        return argument
    plus, key, value = match.groups()
    plus = "" if key in ("experiment", "debug") else plus
    plus = "++" if re.match(OPEN, key) else plus
    word = _PLAIN.fullmatch(value) and not _VALUE.fullmatch(value)
    quoted = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0] and value[0] not in value[1:-1]
    taken_as_is = not value or word or value == "null" or value.startswith("${") or quoted
    if key not in compose.string_keys() or taken_as_is or (multirun and "," in value):
        return f"{plus}{key}={value}"
    # A backslash is special to Hydra only before a quote, and at the end, where one follows.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"{plus}{key}='{escaped}'"


@contextlib.contextmanager
def _as_config_error():
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(compose.one_line(error)) from error


def _refuse_malformed(arguments: list[str]) -> None:
    """Hydra answers these with its usage, or with a traceback. Raises ConfigError."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument.startswith("-"):
            if argument.partition("=")[0] not in FLAGS:
                raise ConfigError(f"{argument}: unknown flag; there are {', '.join(FLAGS)}")
        elif before not in WITH_VALUE and not re.match(r"~|\+{0,2}[\w.@/:]+=", argument):
            raise ConfigError(f"{argument}: expected key=value")


def run(arguments: list[str], function: Callable[[Config], int]) -> int:
    """Composes the config of each job and calls `function`; its exit code, or the worst of a multirun.

    Raises:
      ConfigError: the overrides do not compose, in one line.
    """
    import hydra

    compose.register()
    _refuse_malformed(arguments)
    multirun = any(a in ("-m", "--multirun") for a in arguments)
    codes: list[int] = []

    def job(node) -> None:
        try:
            with _as_config_error():
                OmegaConf.resolve(node)
            codes.append(function(compose.typed(node)))
        except JaxsftError as error:
            # Told at once, not at the end of the sweep; the other jobs go on.
            print(f"jaxsft: {' '.join(str(error).split())}", file=sys.stderr)
            codes.append(1)

    before, os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR"), "1"  # errors come as exceptions, not as text and an exit
    argv, sys.argv = sys.argv, ["jaxsft", *(quote(a, multirun) for a in arguments)]
    try:
        with _as_config_error():
            hydra.main(version_base="1.3", config_path=config_folder(), config_name="config")(job)()
    finally:
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR") if before is None else os.environ.__setitem__("HYDRA_FULL_ERROR", before)
    return max(codes, default=0)
