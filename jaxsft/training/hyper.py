"""Which options of a config are traced: the step is given their values, so that runs that differ in
nothing else are one compiled program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsft import rundir, tasks
from jaxsft.config import compose, condition, durations, validate
from jaxsft.config.option import Accepts, Trace, walk
from jaxsft.config.schema import Config
from jaxsft.models.adapters import low_rank

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
    "plan.",
    "checkpoint.",
    "compilation_cache",
    "profile",
    "train.duration",
    "train.until",
    "train.log_every",
    "evaluation.every",
    "evaluation.patience",
)


# --- by what a declaration says (`config.option.Trace`)
# --------------------------------------------------------------------------------------------------
KINDS: Mapping[str, Callable[[Any, durations.Clock, str], Any]] = {
    # infinity stands for none
    "number": lambda value, clock, option: np.float32(np.inf if value is None else value),
    # [value, 1 - value]: in float32 the difference would lose digits (`optim/coefficient.py`)
    "coefficient": lambda value, clock, option: np.array([value, 1 - value], np.float64),
    "steps": lambda value, clock, option: np.float32(durations.steps(value, clock, option)),
    "whole_steps": lambda value, clock, option: np.int32(durations.steps(value, clock, option)),
    "total_steps": lambda value, clock, option: np.float32(clock.total),
    "seed": lambda value, clock, option: np.uint32(value),
    # made of several options (`make_hyper`)
    "adapter_scale": lambda value, clock, option: np.float64(value),
}


def _is_random(config: Config) -> bool:
    """Returns whether anything in the forward pass is random."""
    return (
        config.model.dropout > 0
        or getattr(config.adapter, "dropout", 0.0) > 0
        or config.train.neftune is not None
    )


def _present(config: Config, one: Accepts, value: Any, facts: Mapping[str, Any]) -> bool:
    """Returns whether the program of a config has a traced value."""
    assert one.traced is not None
    return {
        "always": lambda: True,
        "set": lambda: value is not None,
        "above 0": lambda: value > 0,
        "read": lambda: condition.holds(one.read_if, facts),
        "random": lambda: _is_random(config),
        "term": lambda: False,  # it is in `terms`
    }[one.traced.when]()


def traced(config: Config) -> dict[str, tuple[Trace, Any]]:
    """Returns the traced options of a config, with their values, by the name of the option.

    They are those that the program has. Weights of loss terms and penalties are not among them.
    """
    facts = validate.flat(config)
    return {
        key: (one.accepts.traced, value)
        for key, one, value in walk(config)
        if one.accepts.traced and _present(config, one.accepts, value, facts)
    }


def free(config: Config) -> frozenset[str]:
    """Returns the options of a config whose values no program depends on.

    Weights that a task has of its own make another key, which costs a compilation.
    """
    return frozenset(key for key, one, _ in walk(config) if one.accepts.traced)


def name_of(option: str, trace: Trace) -> str:
    """Returns the name of a traced option in the step."""
    return trace.name or option.rpartition(".")[2]


def make_hyper(config: Config, clock: durations.Clock) -> dict[str, Any]:
    """Returns the traced values of a run, from its config.

    They are those of `traced`, and the weights of loss terms and penalties. Which names there are
    is part of the compiled program; their values are not.
    """
    if hasattr(config.adapter, "alpha"):
        scale = dataclasses.replace(config.adapter, alpha=low_rank.scale_of(config.adapter))
        config = dataclasses.replace(config, adapter=scale)
    if config.seeds.dropout is None:
        seeds = dataclasses.replace(config.seeds, dropout=config.seed)
        config = dataclasses.replace(config, seeds=seeds)
    weights = tasks.get(config.task.name).term_weights(config)
    return {
        **{
            name_of(option, trace): KINDS[trace.kind](value, clock, option)
            for option, (trace, value) in traced(config).items()
        },
        "terms": {name: np.float32(weight) for name, weight in weights.items()},
        "penalties": [np.float32(penalty.weight) for penalty in config.loss.penalties],
    }


def program_key(config: Config) -> str:
    """Returns a hash of the options that the compiled program depends on.

    Values that are traced are left out. Two configs with one key are one compiled program, on the
    same data.
    """
    own = free(config)
    fixed = {
        option: value
        for option, value in compose.flat(compose.to_dict(config)).items()
        if option not in own and not option.startswith(OF_NO_PROGRAM)
    }
    names = sorted(name_of(option, trace) for option, (trace, _) in traced(config).items())
    terms = sorted(tasks.get(config.task.name).term_weights(config))
    return rundir.sha256_json({"options": fixed, "traced": names, "terms": terms})
