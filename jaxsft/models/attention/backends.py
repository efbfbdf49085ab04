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
from jaxsft.models.attention import blocked, context, reference, splash
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
      of_parts: for rows whose tokens are spread over devices: the same, of the part of a device,
        with the name of the mesh axis. None: it is given the keys of the whole row.
    """

    run: Callable[..., Array]
    refuses: Callable[[AttentionNeeds, str], str | None]
    by_shard: bool = True
    static_window: bool = False
    of_parts: Callable[..., Array] | None = None


def _never(needs: AttentionNeeds, platform: str) -> None:
    """Returns None: nothing is refused."""


BACKENDS = {
    "reference": Backend(reference.run, _never, by_shard=False),
    "blocked": Backend(blocked.run, _never),
    # where rows are whole, a ring of one device
    "ring": Backend(blocked.run, _never, of_parts=context.ring),
    "splash": Backend(splash.run, splash.refuses, True, True, splash.of_parts),
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
    axis = meshes.sequence_axis(mesh, needs.queries)
    needs = needs._replace(context=1 if axis is None else mesh.shape[axis])
    backend = BACKENDS[choose(name, needs, meshes.platform_of(mesh))]
    run = backend.run
    if backend.static_window:
        run = lambda *arrays_and_how: backend.run(*arrays_and_how[:7], needs.static_window)
    if mesh is None or mesh.size == 1 or not (backend.by_shard or needs.context > 1):
        return run
    # those of a cache or behind a prefix may be no multiple: each device is given them whole
    keys, of_device = meshes.sequence_axis(mesh, needs.keys), run
    if needs.context == 1:
        keys = axis
    elif keys is not None:
        of_part, static = backend.of_parts or context.gathered(run), backend.static_window
        of_device = lambda *arrays_and_how: of_part(
            keys, *arrays_and_how[:7], needs.static_window if static else arrays_and_how[7]
        )
    return _by_shard(run, of_device, mesh, needs.kv_heads, axis, keys)


def _by_shard(
    run: Callable[..., Array],
    of_device: Callable[..., Array],
    mesh: Mesh,
    kv_heads: int,
    queries: str | None,
    keys: str | None,
) -> Callable[..., Array]:
    """Returns a backend that computes the rows, heads and queries of each device on that device.

    Left to itself, a loop over rows makes every device compute the rows of all.

    Args:
      run: of whole arrays. of_device: of those that a device has.
      queries, keys: the mesh axes that these are spread over; None: a device has all of a row.
    """
    shards = meshes.row_shards(mesh)
    axis, rows = meshes.RULES["kv_heads"], meshes.ACTIVATIONS["rows"]
    heads = axis if kv_heads % mesh.shape[axis] == 0 else None
    of_queries, of_keys = PartitionSpec(rows, queries, heads), PartitionSpec(rows, keys, heads)

    def whole(q, k, v, query, key, how, precision, window=None):
        if q.shape[0] % shards:  # an evaluation of fewer rows than devices
            return run(q, k, v, query, key, how, precision, window)
        return jax.shard_map(
            lambda *arrays: of_device(*arrays[:5], how, precision, arrays[5]),
            mesh=mesh,
            in_specs=(
                *(of_queries, of_keys, of_keys),
                *(PartitionSpec(rows, queries), PartitionSpec(rows, keys), PartitionSpec()),
            ),
            out_specs=of_queries,
            check_vma=False,  # kernels and gradients of our own say nothing of it
        )(q, k, v, query, key, window)

    return whole
