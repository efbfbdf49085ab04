"""Which trials can train as one program: their keys, which one child process computes for all.

The parent of a sweep imports no JAX and holds no device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from jaxsft.config import compose
from jaxsft.config.schema import Config
from jaxsft.errors import JaxsftError
from jaxsft.sweeps.sweep_plan import PlannedTrial

CHILD = "jaxsft.training.stack_keys"


def as_stacks(trials: Sequence[PlannedTrial]) -> list[tuple[PlannedTrial, ...]]:
    """Returns the trials that train together, group by group, and says how many those are.

    One that no other is like has a process of its own.
    """
    if len(trials) < 2:
        return [tuple(trials)] if trials else []
    places = groups([trial.typed() for trial in trials])
    alone = sum(len(group) == 1 for group in places)
    print(
        f"stacks: {len(trials)} trials are {len(places)} compiled"
        f" program{'s' if len(places) > 1 else ''}"
        + (f", {alone} of them of one trial" if alone else ""),
        file=sys.stderr,
        flush=True,
    )
    return [tuple(trials[place] for place in group) for group in places]


def groups(configs: Sequence[Config]) -> list[list[int]]:
    """Returns the places of configs that can train as one program, group by group.

    They come in the order of their first config. One whose config is wrong is a group by itself:
    its own process will tell what is wrong.

    Raises:
      JaxsftError: the child process did not end well.
    """
    found: dict[str, list[int]] = {}
    for place, key in enumerate(keys(configs)):
        found.setdefault(key or f"place {place}", []).append(place)
    return list(found.values())


def keys(configs: Sequence[Config]) -> list[str | None]:
    """Returns the `stack_key` of each config, of one process; None where its config is wrong.

    Raises:
      JaxsftError: the child process did not end well.
    """
    if not configs:
        return []
    plain = [{"config": compose.to_dict(c), "unasked": list(c.unasked)} for c in configs]
    # it only looks at devices: their memory is for the trials
    env = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    ended = subprocess.run(
        [sys.executable, "-m", CHILD],
        input=json.dumps(plain),
        capture_output=True,
        text=True,
        env=env,
    )
    try:
        if ended.returncode == 0:
            return [one if isinstance(one, str) else None for one in json.loads(ended.stdout)]
    except ValueError:
        pass
    said = (ended.stderr.strip() or "nothing was said").splitlines()[-1]
    raise JaxsftError(
        f"the process that tells which trials are one program ended with {ended.returncode}:"
        f" {said}; a sweep with one process for each trial does not need it"
    )
