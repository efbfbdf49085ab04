"""The config that runs, from the one that was asked for: checked, and every `auto` that does not
depend on the data replaced by what it stands for.

One function without JAX, so that the parent of a sweep can call it: what must be known of the
devices and of a pretrained model is given to it as plain data.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jaxsft.config import pretrained_defaults
from jaxsft.config.environment import Device, Facts
from jaxsft.config.model import of_kind
from jaxsft.config.optim import Group
from jaxsft.config.schema import AXES, FROZEN, Config, MeshConfig
from jaxsft.config.validate import of_run, validate
from jaxsft.errors import ConfigError

BF16_CPU = "a CPU with instructions for bfloat16"
FP32_CPU = "a CPU without instructions for bfloat16"


def resolve(asked: Config, facts: Facts) -> Config:
    """Returns the config that runs. Raises ConfigError.

    Args:
      asked: with the architecture of `model.pretrained`, where there is one.
      facts: of the devices, and of the source of a pretrained model; where the devices are not
        known, `mesh` and `precision` stay as they were asked for.
    """
    config = asked
    if facts.pretrained is not None and config.model.init != "scratch":
        config = pretrained_defaults.apply(config, facts.pretrained)
    if getattr(config.task, "scores", ()) is None:
        config = _changed(config, task={"scores": facts.scores})
    of_run(config)
    rows = config.train.batch_size // config.train.accumulate
    if facts.device is None:
        one = {axis: 1 for axis in AXES if getattr(config.mesh, axis) == "auto"}
        validate(_changed(config, mesh=one), runs=False)
    else:
        config = dataclasses.replace(config, mesh=mesh(config.mesh, facts.device, rows))
        validate(config)
    config = dataclasses.replace(config, model=of_kind(config.model))
    config = _with_ratio(_with_frozen(config))
    config = config if facts.device is None else with_precision(config, facts.device)
    metric = config.evaluation.metric
    if metric == "auto" and config.task.spec.metric is not None:
        metric = f"validation/{config.task.spec.metric}"
    size = config.evaluation.batch_size or config.train.batch_size
    seeds = {name: config.seed for name, seed in vars(config.seeds).items() if seed is None}
    return _changed(config, evaluation={"metric": metric, "batch_size": size}, seeds=seeds)


def _changed(config: Config, **groups: dict[str, Any]) -> Config:
    return dataclasses.replace(
        config,
        **{name: dataclasses.replace(getattr(config, name), **v) for name, v in groups.items()},
    )


def mesh(config: MeshConfig, device: Device, rows: int | None = None) -> MeshConfig:
    """Returns the mesh with `auto` as a number: all devices that the other axes leave.

    Args:
      rows: of a micro-batch. In one process, `data=auto` takes only as many devices as can share
        them.

    Raises:
      ConfigError: the other axes do not divide the devices.
    """
    given = {axis: getattr(config, axis) for axis in AXES}
    if "auto" not in given.values():
        return config
    (free,) = (axis for axis, n in given.items() if n == "auto")
    others = math.prod(n for n in given.values() if n != "auto")
    if device.count % others:
        wanted = " ".join(f"mesh.{axis}={n}" for axis, n in given.items())
        raise ConfigError(
            f"{wanted}: {others} does not divide the {device.count} devices; give"
            f" mesh.{free}= as a number"
        )
    left = device.count // others
    if free == "data" and rows and device.processes == 1:
        left = math.gcd(left, max(rows // config.fsdp, 1))
    return dataclasses.replace(config, **{free: left})


def device_of_mesh(config: MeshConfig) -> Device:
    """Returns as many devices as a mesh asks for, for a check on another machine."""
    asked = (getattr(config, axis) for axis in AXES)
    return Device(count=math.prod(number for number in asked if number != "auto"))


def with_precision(config: Config, device: Device) -> Config:
    """Returns the config with `precision=auto` as what is fast on the device.

    That is bfloat16 on GPU and TPU, and on a CPU that multiplies it in hardware, else float32. The
    reason is added to `Config.origins`.
    """
    if config.precision != "auto":
        return config
    if device.kind != "cpu":
        chosen, why = "bf16", f"a {device.kind.upper()}"
    else:
        chosen, why = ("bf16", BF16_CPU) if device.bf16 else ("fp32", FP32_CPU)
    origins = (*config.origins, ("precision", why))
    return dataclasses.replace(config, precision=chosen, origins=origins)


def _with_ratio(config: Config) -> Config:
    """Returns the config with the learning-rate group that `adapter.lr_ratio` stands for.

    Groups that were given come first.
    """
    ratio, groups = getattr(config.adapter, "lr_ratio", 1.0), tuple(config.optim.lr_groups)
    group = Group("adapters/.*/b", ratio)
    if ratio == 1 or group in groups:
        return config
    return _changed(config, optim={"lr_groups": (*groups, group)})


def _with_frozen(config: Config) -> Config:
    """Returns the config with a cached backbone frozen, for all that opens the run later."""
    if config.train.backbone == "trained" or FROZEN in config.train.freeze:
        return config
    return _changed(config, train={"freeze": (*config.train.freeze, FROZEN)})
