"""The backends of attention, and which one runs where.

A backend computes what `reference.run` computes. One that cannot keep the texts of a row apart, or
lacks a feature of the model, says so (`refuses`) and is not chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from jaxsft.errors import ConfigError
from jaxsft.models.attention import blocked, reference, splash
from jaxsft.models.attention.needs import AttentionNeeds
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.device_table import kind_of


@dataclasses.dataclass(frozen=True)
class Backend:
    """A way to compute attention.

    Attributes:
      run: with the arguments and the result of `reference.run`, but for the bias.
      refuses: returns why it cannot do what is asked on a platform (`cpu`, `gpu`, `tpu`); None: it
        can.
      by_shard: it does not know that rows and heads are spread over devices, so that each device is
        given its own.
      static_window: it must know the window when it is compiled.
    """

    run: Callable[..., Array]
    refuses: Callable[[AttentionNeeds, str], str | None]
    by_shard: bool = True
    static_window: bool = False


def _never(needs: AttentionNeeds, platform: str) -> None:
    """Returns None: nothing is refused."""


BACKENDS = {
    "reference": Backend(reference.run, _never, by_shard=False),
    "blocked": Backend(blocked.run, _never),
    "splash": Backend(splash.run, splash.refuses, static_window=True),
}


def choose(name: str, needs: AttentionNeeds, platform: str) -> str:
    """Returns the backend of `model.attention`.

    `auto` is the reference where scores are few, else the first backend of the platform that does
    not refuse. So is what a named one cannot do in decoding, which has a cache.

    Raises:
      ConfigError: the named backend refuses rows that attend to themselves, those of training.
    """
    why = None if name == "auto" else BACKENDS[name].refuses(needs, platform)
    if why and needs.own and needs.queries > 1:
        raise ConfigError(f"model.attention={name}: {why}; leave the option at auto")
    if name != "auto" and not why:
        return name
    kind = kind_of(platform)
    if needs.queries * needs.keys < kind.few_scores:
        return "reference"
    return next(one for one in kind.attention if BACKENDS[one].refuses(needs, platform) is None)


def attend(name: str, needs: AttentionNeeds, mesh: Mesh | None) -> Callable[..., Array]:
    """Returns the function that computes attention, with the arguments of `reference.run`.

    Raises ConfigError where the backend that was named refuses.
    """
    backend = BACKENDS[choose(name, needs, meshes.platform_of(mesh))]
    run = backend.run
    if backend.static_window:
        run = lambda *arrays_and_how: backend.run(*arrays_and_how[:7], needs.static_window)
    if mesh is None or mesh.size == 1 or not backend.by_shard:
        return run
    return _by_shard(run, mesh, needs.kv_heads)


def _by_shard(run: Callable[..., Array], mesh: Mesh, kv_heads: int) -> Callable[..., Array]:
    """Returns a backend that computes the rows and heads of each device on that device.

    Left to itself, a loop over rows makes every device compute the rows of all.
    """
    shards = meshes.row_shards(mesh)
    axis, rows = meshes.RULES["kv_heads"], meshes.ACTIVATIONS["rows"]
    heads = axis if kv_heads % mesh.shape[axis] == 0 else None
    of_heads, of_tokens = PartitionSpec(rows, None, heads), PartitionSpec(rows)

    def whole(q, k, v, query, key, how, precision, window=None):
        if q.shape[0] % shards:  # an evaluation of fewer rows than devices
            return run(q, k, v, query, key, how, precision, window)
        return jax.shard_map(
            lambda q, k, v, query, key, window: run(q, k, v, query, key, how, precision, window),
            mesh=mesh,
            in_specs=(of_heads, of_heads, of_heads, of_tokens, of_tokens, PartitionSpec()),
            out_specs=of_heads,
            check_vma=False,  # kernels and gradients of our own say nothing of it
        )(q, k, v, query, key, window)

    return whole
