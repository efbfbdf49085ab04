"""Checks the configs of all trials of a sweep before the first one starts, without JAX: what a
trial would refuse after an hour is told now, and of every trial.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable

from jaxsft.config import resolve, validate
from jaxsft.config.environment import Device, Facts
from jaxsft.config.schema import Config
from jaxsft.data import config_files
from jaxsft.data import records as typed
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.metrics import text_overlap

SHOWN = 20  # faulty jobs that are told one by one


def checked(jobs: Iterable[tuple[str, Callable[[], Config]]]) -> list[Config]:
    """Returns the config of each job, composed and checked.

    Args:
      jobs: the name of each, and what composes its config.

    Raises:
      ConfigError: some are faulty. Each of them is told on the standard error before.
    """
    found, faults = [], []
    for number, (name, composed) in enumerate(jobs):
        try:
            config = composed()
            check(config)
            found.append(config)
        except JaxsftError as error:
            faults.append((number, name, " ".join(str(error).splitlines())))
    if not faults:
        return found
    for number, name, message in faults[:SHOWN]:
        print(f"jaxsft: job {number}{f' ({name})' if name else ''}: {message}", file=sys.stderr)
    count, rest = len(found) + len(faults), ", ".join(str(n) for n, *_ in faults[SHOWN:])
    raise ConfigError(
        f"{len(faults)} of {count} jobs cannot run{f' (also {rest})' if rest else ''}; none was"
        " started"
    )


def check(config: Config) -> None:
    """Checks what can be known of a trial before it runs.

    Of devices nothing is known here but that there are as many as the mesh asks for. What depends
    on `model.pretrained` is checked when the trial starts.

    Raises:
      ConfigError: an option is wrong, or contradicts another one.
      DataError: a file is not there.
    """
    config_files.check_files(config)
    if (config.hosts.count or 1) > 1:
        raise ConfigError(
            f"hosts.count={config.hosts.count}: a sweep starts one process for each trial; leave"
            " hosts.* out, or start such runs one by one"
        )
    validate.each(config)
    if config.model.pretrained:
        return
    config_files.check_columns(config)
    config = config_files.of_prepared(config, typed.columns_read(config.task.spec.records))
    asked = [getattr(config.mesh, axis) for axis in resolve.AXES]
    count = math.prod(number for number in asked if number != "auto")
    resolve.resolve(config, Facts(Device(count=count), scores=text_overlap.installed()))
