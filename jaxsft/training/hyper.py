"""Which options of a config are traced: the step is given their values, so that runs that differ in
nothing else are one compiled program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsft import rundir, tasks
from jaxsft.config import compose, durations
from jaxsft.config.schema import Config

Hyper = Mapping[str, Any]

# Options that no program and no shape of a batch depends on. An option that is missing here makes
# two keys of one program, which costs a compilation; one too many would be a wrong result.
OF_NO_PROGRAM = (
    "seed",
    "seeds.",
    "run_dir",
    "hosts.",
    "trackers.",
    "check.",
    "crossval.",
    "checkpoint.",
    "compilation_cache",
    "profile",
    "train.duration",
    "train.log_every",
    "evaluation.every",
    "evaluation.patience",
)
_MISSING = object()


def number(value: Any, clock: durations.Clock, option: str) -> np.generic:
    """Returns the value of an option in float32; infinity stands for none."""
    return np.float32(np.inf if value is None else value)


def steps(value: Any, clock: durations.Clock, option: str) -> np.generic:
    """Returns a duration in steps, in float32."""
    return np.float32(durations.steps(value, clock, option))


def whole_steps(value: Any, clock: durations.Clock, option: str) -> np.generic:
    """Returns a duration in steps, in int32."""
    return np.int32(durations.steps(value, clock, option))


def total_steps(value: Any, clock: durations.Clock, option: str) -> np.generic:
    """Returns the steps of the whole training, in float32."""
    return np.float32(clock.total)


def seed(value: Any, clock: durations.Clock, option: str) -> np.generic:
    """Returns a seed in uint32."""
    return np.uint32(value)


def always(config: Config, value: Any) -> bool:
    """Returns true: every program has the value."""
    return True


def where_there(config: Config, value: Any) -> bool:
    """Tells whether the option exists in the dataclass that was chosen for its group."""
    return value is not _MISSING


def where_given(config: Config, value: Any) -> bool:
    """Tells whether the option is set."""
    return value is not None


def where_positive(config: Config, value: Any) -> bool:
    """Tells whether the option is there and above 0: what it stands for is compiled in."""
    return value is not _MISSING and value > 0


def with_random_keys(config: Config, value: Any) -> bool:
    """Tells whether anything in the forward pass is random."""
    return (
        config.model.dropout > 0
        or getattr(config.adapter, "dropout", 0.0) > 0
        or config.train.neftune is not None
    )


@dataclasses.dataclass(frozen=True)
class Traced:
    """A traced value of the step: its name there, and the option that it comes from.

    Attributes:
      convert: makes the value of (value of the option, clock, option).
      present: whether the program has it, from (config, value of the option).
      missing: stands for an option that the group lacks, where the program has the value always.
    """

    name: str
    option: str
    convert: Callable[[Any, durations.Clock, str], np.generic] = number
    present: Callable[[Config, Any], bool] = always
    missing: Any = _MISSING

    def asked(self, config: Config) -> Any:
        """Returns the value of the option, or `missing` where its group has no such option."""
        group, _, name = self.option.rpartition(".")
        return getattr(getattr(config, group), name, self.missing)


TABLE = (
    Traced("learning_rate", "optim.learning_rate"),
    Traced("warmup", "schedule.warmup", steps),
    Traced("total", "train.duration", total_steps),
    Traced("final", "schedule.final", missing=0.0),
    Traced("decay", "schedule.decay", steps, missing="0steps"),
    Traced("clip_norm", "optim.clip_norm"),
    Traced("weight_decay", "optim.weight_decay", present=where_there),
    Traced("label_smoothing", "loss.label_smoothing"),
    Traced("dropout", "model.dropout", present=with_random_keys),
    Traced("dropout_seed", "seeds.dropout", seed, present=with_random_keys),
    Traced("adapter_dropout", "adapter.dropout", present=where_positive),
    Traced("neftune", "train.neftune", present=where_given),
    Traced("unfreeze_every", "train.unfreeze_every", whole_steps, present=where_given),
    Traced("ema", "train.ema", present=where_given),
    Traced("balance", "loss.balance", present=where_positive),
    Traced("router_z", "loss.router_z", present=where_positive),
    Traced("huber_delta", "task.huber_delta", present=where_there),
    Traced("margin", "task.margin", present=where_there),
    Traced("temperature", "task.temperature", present=where_there),
)

# The options whose values no program depends on: those of the table, and a weight of a loss term.
# Weights that a task has of its own make another key, which costs a compilation.
TRACED = frozenset({*(traced.option for traced in TABLE), "loss.z_loss"})


def make_hyper(config: Config, clock: durations.Clock) -> dict[str, Any]:
    """Returns the traced values of a run, from its config.

    They are those of `TABLE` that the program has, and the weights of loss terms and penalties.
    Which names there are is part of the compiled program; their values are not.
    """
    if config.seeds.dropout is None:
        seeds = dataclasses.replace(config.seeds, dropout=config.seed)
        config = dataclasses.replace(config, seeds=seeds)
    weights = tasks.get(config.task.name).term_weights(config)
    return {
        **{
            traced.name: traced.convert(value, clock, traced.option)
            for traced in TABLE
            if traced.present(config, value := traced.asked(config))
        },
        "terms": {name: np.float32(weight) for name, weight in weights.items()},
        "penalties": [np.float32(penalty.weight) for penalty in config.loss.penalties],
    }


def program_key(config: Config) -> str:
    """Returns a hash of the options that the compiled program depends on.

    Values that are traced are left out. Two configs with one key are one compiled program, on the
    same data.
    """
    fixed = {
        option: value
        for option, value in compose.flat(compose.to_dict(config)).items()
        if option not in TRACED and not option.startswith(OF_NO_PROGRAM)
    }
    names = [one.name for one in TABLE if one.present(config, one.asked(config))]
    terms = sorted(tasks.get(config.task.name).term_weights(config))
    return rundir.sha256_json({"options": fixed, "traced": names, "terms": terms})
