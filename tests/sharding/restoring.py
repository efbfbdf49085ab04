"""A program of several processes that restores checkpoints from the working directory of each, and
says what it finds.
"""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsft import remote
from jaxsft.config import schema
from jaxsft.errors import JaxsftError
from jaxsft.sharding import hosts
from jaxsft.training.checkpoint import Checkpoints


def state(step: int) -> dict:
    return {"w": jnp.arange(8, dtype=jnp.float32) + step, "step": jnp.int32(step)}


def save(folder: Path, steps: tuple[int, ...]) -> None:
    store = Checkpoints(folder)
    store._policy.should_preserve = lambda checkpoints, *, context: [True] * len(checkpoints)
    for step in steps:
        store.save(step, state(step), {}, None)
    store.close()


def main(options: list[str]) -> None:
    given = dict(option.removeprefix("hosts.").split("=") for option in options)
    hosts.start(
        schema.HostsConfig(
            given["coordinator"], int(given["count"]), int(given["index"]), int(given["timeout"])
        )
    )
    mesh = Mesh(jax.devices(), ("data",))
    places = {"w": PartitionSpec("data"), "step": PartitionSpec()}
    like = {
        k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, places[k]))
        for k, x in state(0).items()
    }
    folders = re.compile(rf"{re.escape(str(Path.cwd().parent))}/\d/")
    say = lambda text: print("found:", folders.sub("", str(text)), flush=True)
    store = Checkpoints(".", warn=say)
    found, _ = store.restore_newest(like)
    say(f"restored step {int(found['step'])}")

    def refuse(*_, **__):
        raise PermissionError("no right to " + ("write" if hosts.first() else "read"))

    if not hosts.first():
        store._restore_arrays = refuse
    with mock.patch.object(remote, "move", refuse):
        for call in (lambda: store.restore(2, like), lambda: store.set_aside(2)):
            try:
                call()
            except JaxsftError as error:
                say(f"{type(error).__name__}: {error}")
