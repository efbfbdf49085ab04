"""What is traced: configs with one key are one program, to the letter."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxsft.config import adapters
from jaxsft.config.optim import AdamW
from jaxsft.config.schema import Linear
from jaxsft.training import hyper
from tests.conftest import bench

BEFORE = {
    "chat": {
        "optim": AdamW(learning_rate=1e-3, weight_decay=0.1, clip_norm=None),
        "schedule": Linear(warmup="1steps", final=0.1),
        "model": {"dropout": 0.1},
        "loss": {"label_smoothing": 0.1, "z_loss": 1e-3},
        "train": {"neftune": 5.0, "ema": 0.9, "unfreeze_every": "1steps"},
        "adapter": adapters.LoRA(rank=2, dropout=0.1, train=[".*"]),
        "seeds": {"dropout": 1},
    },
    "regress": {"task": {"loss": "huber", "huber_delta": 1.0}},
    "pair": {"task": {"margin": 0.5, "temperature": 0.1}},
}
AFTER = {
    "chat": {
        "optim": AdamW(learning_rate=1e-2, weight_decay=0.2, clip_norm=1.0),
        "schedule": Linear(warmup="2steps", final=0.2),
        "model": {"dropout": 0.2},
        "loss": {"label_smoothing": 0.2, "z_loss": 2e-3},
        "train": {"neftune": 6.0, "ema": 0.8, "unfreeze_every": "2steps"},
        "adapter": adapters.LoRA(rank=2, dropout=0.2, train=[".*"]),
        "seeds": {"dropout": 2, "init": 3},
    },
    "regress": {"task": {"loss": "huber", "huber_delta": 2.0}},
    "pair": {"task": {"margin": 0.6, "temperature": 0.2}},
}


def lowered(made) -> str:
    args = (made.state(), made.apart[1], made.batches[0], made.hyper)
    return jax.jit(made.program.step).lower(*args).as_text()


@pytest.mark.parametrize("task", BEFORE)
def test_configs_with_one_key_are_one_program(task):
    before, after = (bench(task, 4, **groups[task]) for groups in (BEFORE, AFTER))
    assert hyper.program_key(before.config) == hyper.program_key(after.config)
    assert before.hyper.keys() == after.hyper.keys() and lowered(before) == lowered(after)


def test_every_traced_value_follows_its_option():
    """Each value of the table changes with its option, and none is left out of the pairs above."""
    same, seen = set(), set()
    for task in BEFORE:
        before, after = (bench(task, 4, **groups[task]).hyper for groups in (BEFORE, AFTER))
        seen |= before.keys()
        same |= {k for k in before if k != "penalties" and _equal(before[k], after[k])}
    names = {traced.name for traced in hyper.TABLE}
    assert names - seen == {"balance", "router_z"}  # of models with experts
    # the clock of a bench is one; what the others' optimizers and models leave alone may stay
    assert names & same <= {"total", "decay", *_of_other_tasks(same)}


def _of_other_tasks(same: set) -> set:
    """Those that the pair of tasks without such options leave as they are."""
    return {"learning_rate", "warmup", "final", "clip_norm", "label_smoothing"} & same


def _equal(a, b) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize(
    "groups",
    [
        {"model": {"dropout": 0.1}},
        {"loss": {"z_loss": 1e-3}},
        {"train": {"accumulate": 2, "batch_size": 4}},
        {"model": {"layers": 3}},
    ],
    ids=["dropout on", "another loss term", "micro-batches", "layers"],
)
def test_what_is_compiled_in_is_in_the_key(groups):
    from tests.conftest import make_config

    assert hyper.program_key(make_config()) != hyper.program_key(make_config(**groups))
