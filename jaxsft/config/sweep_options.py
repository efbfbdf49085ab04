"""The options of a sweep, `sweep.NAME=value` behind `jaxsft train -m` and `jaxsft sweep`: how it is
run, never what is trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from jaxsft import documents
from jaxsft.config import compose, option
from jaxsft.config.option import option as declared
from jaxsft.errors import ConfigError

PREFIX = "sweep."
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_SPAN = r"\d+(\.\d+)?(s|min|h|d)"


@dataclass(frozen=True)
class SweepConfig:
    """The options by which the trials of a sweep are run."""

    slots: Any = declared(
        "auto",
        "trials at a time, which share the cores of the machine; auto: one for each"
        " `sweep.gpus` GPUs, else one",
        words=("auto",),
        at_least=1,
        what="a number of trials",
    )
    gpus: int = declared(
        1, "GPUs of each slot, or chips of a TPU, on a machine that has any", at_least=1
    )
    stack: bool = declared(
        False,
        "trials that can be one compiled program are trained together, in one process;"
        " hydra/launcher=stacked says the same",
    )
    cluster: Optional[str] = declared(
        None,
        "trials are jobs of a cluster: submitit (SLURM) | ray; hydra/launcher=submitit says the"
        " same. `sweep.slots` of them wait or run at a time, auto: 100",
        choices=("submitit", "ray"),
    )
    job: dict[str, Any] = declared(
        {},
        "what a job of a cluster asks for, by the names of its library:"
        " {slurm_partition: gpu, gpus_per_node: 1, cpus_per_task: 8} of submitit,"
        " {num_cpus: 4, num_gpus: 1} of Ray",
    )
    timeout: Optional[str] = declared(
        None,
        "after this time a trial is stopped and has failed, such as 90s, 30min or 2h",
        matches=_SPAN,
        what="a time, such as 90s, 30min, 2h or 1d",
    )
    retries: int = declared(
        2,
        "how often a trial is started again after it was killed, ran out of memory or lost its"
        " machine; an error of the trial itself is final",
        at_least=0,
    )
    on_error: str = declared(
        "continue",
        "whether other trials start after one has failed: continue | stop",
        choices=("continue", "stop"),
    )
    changed: str = declared(
        "refuse",
        "what happens where the sweep directory holds other trials than the command has: refuse |"
        " add (those that are not there yet) | supersede (and those that the command no longer has"
        " count no more) | keep (data or code changed, and the planned trials go on)",
        choices=("refuse", "add", "supersede", "keep"),
    )
    failed: str = declared(
        "keep",
        "whether trials that failed before are run again: keep | retry",
        choices=("keep", "retry"),
    )

    @property
    def seconds(self) -> float | None:
        """Returns `timeout` in seconds."""
        if self.timeout is None:
            return None
        number, unit = re.fullmatch(r"([\d.]+)(\D+)", self.timeout).groups()
        return float(number) * _SECONDS[unit]


def taken(
    words: Sequence[str], kind: type = SweepConfig, prefix: str = PREFIX
) -> tuple[Any, list[str]]:
    """Returns the options with a prefix among the words of a command, and the other words.

    Args:
      kind: the dataclass of these options.

    Raises ConfigError for one that is unknown, or has an impossible value.
    """
    mine = [word for word in words if word.startswith(prefix) and "=" in word]
    given = {}
    for word in mine:
        name, _, text = word.removeprefix(prefix).partition("=")
        if name in given:
            raise ConfigError(f"{word}: {prefix}{name} was given before")
        given[name] = documents.parse_yaml(text, word, ConfigError) if text else ""
        if name == "timeout" and given[name] is not None:
            given[name] = text
    config = compose.filled(kind, given, prefix.removesuffix("."))
    for key, declaration, value in option.walk(config):
        option.check(f"{prefix}{key}", declaration, value)
    return config, [word for word in words if word not in mine]
