"""Checks the configs of all trials of a sweep before the first one starts, without JAX: what a
trial would refuse after an hour is told now, and of every trial.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

from jaxsft import documents
from jaxsft.config import compose, resolve, validate
from jaxsft.config.environment import Facts
from jaxsft.config.schema import Config
from jaxsft.data import config_files
from jaxsft.data import records as typed
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.metrics import text_overlap
from jaxsft.sweeps import sweep_plan

SHOWN = 20  # faulty jobs that are told one by one


def checked(jobs: Iterable[tuple[str, Callable[[], Config]]]) -> list[Config]:
    """Returns the config of each job, composed and checked.

    Args:
      jobs: the name of each, and what composes its config.

    Raises:
      ConfigError: some are faulty. Each of them is told on the standard error before.
    """
    found: dict[int, tuple[str, Config]] = {}
    faults = []
    for number, (name, composed) in enumerate(jobs):
        try:
            config = composed()
            check(config)
            found[number] = name, config
        except JaxsftError as error:
            faults.append((number, name, " ".join(str(error).splitlines())))
    count = len(found) + len(faults)
    starts = {number: c for number, (_, c) in found.items() if c.model.pretrained}
    told = zip(starts, _of_pretrained(list(starts.values())), strict=True)
    faults += [(number, found[number][0], message) for number, message in told if message]
    if not faults:
        return [config for _, config in found.values()]
    faults.sort()
    for number, name, message in faults[:SHOWN]:
        print(f"jaxsft: job {number}{f' ({name})' if name else ''}: {message}", file=sys.stderr)
    rest = ", ".join(str(number) for number, *_ in faults[SHOWN:])
    raise ConfigError(
        f"{len(faults)} of {count} jobs cannot run{f' (also {rest})' if rest else ''}; none was"
        " started"
    )


def check(config: Config) -> None:
    """Checks what can be known of a trial before it runs.

    Of devices nothing is known here but that there are as many as the mesh asks for. What depends
    on `model.pretrained` is for `pretrained_check.py`.

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
    device = resolve.device_of_mesh(config.mesh)
    text_overlap.check_asked(config)
    resolve.resolve(config, Facts(device, scores=text_overlap.installed()))


def _of_pretrained(configs: Sequence[Config]) -> list[str | None]:
    """Returns what is wrong with each config that starts from `model.pretrained`; None where
    nothing is. The code that decides it imports JAX, and runs in a process of its own.

    Raises JaxsftError where the process cannot be run.
    """
    if not configs:
        return []
    given = [{"config": compose.to_dict(c), "asked": sweep_plan.asked(c)} for c in configs]
    done = subprocess.run(
        [sys.executable, "-m", "jaxsft.sweeps.pretrained_check"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        # no accelerator is taken from what runs there
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise JaxsftError(f"the check of model.pretrained ended with code {done.returncode}: {why}")
    return documents.parse_json(done.stdout.splitlines()[-1], "the check", top=list)
