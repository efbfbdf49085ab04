"""What is traced: configs with one key are one program, to the letter."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxsft.config import adapters, compose, option, schema
from jaxsft.config.optim import OPTIMIZERS
from jaxsft.data.records import Pair
from jaxsft.losses import LOSSES
from jaxsft.optim.decays.linear import LinearDecay
from jaxsft.optim.rules.adamw import AdamW
from jaxsft.training import hyper
from tests.conftest import bench, make_config, make_records

WHEN = {"begin": "0steps", "every": "1steps"}
BEFORE = {
    "chat": {
        "optim": AdamW(learning_rate=1e-3, weight_decay=0.1, clip_norm=None),
        "schedule": LinearDecay(warmup="1steps", final=0.1),
        "model": {"dropout": 0.1},
        "loss": {"label_smoothing": 0.1, "z_loss": 1e-3},
        "train": {"neftune": 5.0, "ema": 0.9, "unfreeze_every": "1steps"},
        "adapter": adapters.LoRA(rank=2, dropout=0.1, train=[".*"]),
        "seeds": {"dropout": 1},
    },
    "chat, sgd": {"optim": OPTIMIZERS["sgd"](momentum=0.9)},
    "chat, muon": {"optim": OPTIMIZERS["muon"]()},
    "chat, pruned": {"prune": {"kind": "magnitude", "sparsity": 0.5, **dict(WHEN, end="2steps")}},
    "regress": {"task": {"loss": "huber", "huber_delta": 1.0}},
    "pair, margin": {
        "task": {"loss": "cosine_embedding", "encoder": "bi", "positive": "good", "margin": 0.5}
    },
    "pair, temperature": {"task": {"loss": "contrastive", "encoder": "bi", "temperature": 0.1}},
    "classify, beside": {
        "task": {
            "prior_correction": 1.0,
            "supervised_contrastive": 0.5,
            "contrast_temperature": 0.1,
        }
    },
}
AFTER = {
    "chat": {
        "optim": AdamW(
            learning_rate=1e-2, weight_decay=0.2, clip_norm=1.0, b1=0.8, b2=0.9, eps=1e-6
        ),
        "schedule": LinearDecay(warmup="2steps", final=0.2),
        "model": {"dropout": 0.2},
        "loss": {"label_smoothing": 0.2, "z_loss": 2e-3},
        "train": {"neftune": 6.0, "ema": 0.8, "unfreeze_every": "2steps"},
        "adapter": adapters.LoRA(rank=2, dropout=0.2, train=[".*"], alpha=4.0),
        "seeds": {"dropout": 2, "init": 3},
    },
    "chat, sgd": {"optim": OPTIMIZERS["sgd"](momentum=0.8)},
    "chat, muon": {
        "optim": OPTIMIZERS["muon"](
            momentum=0.9, eps=1e-6, adam_b1=0.8, adam_b2=0.99, adam_eps=1e-6
        )
    },
    "chat, pruned": {
        "prune": {"kind": "magnitude", "sparsity": 0.4, "begin": "1steps", "every": "2steps"}
        | {"end": "3steps"}
    },
    "regress": {"task": {"loss": "huber", "huber_delta": 2.0}},
    "pair, margin": {
        "task": {"loss": "cosine_embedding", "encoder": "bi", "positive": "good", "margin": 0.4}
    },
    "pair, temperature": {"task": {"loss": "contrastive", "encoder": "bi", "temperature": 0.2}},
    "classify, beside": {
        "task": {
            "prior_correction": 0.5,
            "supervised_contrastive": 0.2,
            "contrast_temperature": 0.3,
        }
    },
}


for name, loss in LOSSES.items():  # of losses that no case above has
    if loss.own_options and loss.targets in ("labels", "probabilities", "numbers", "normals"):
        task = "regress" if loss.targets in ("numbers", "normals") else "classify"
        own = {key: one.default for key, one in loss.own_options.items()}
        other = lambda value: "1steps" if isinstance(value, str) else value / 2 if value else 0.5
        changed = {key: other(value) for key, value in own.items()}
        BEFORE[f"{task}, {name}"] = {"task": {"loss": name, **own}}
        AFTER[f"{task}, {name}"] = {"task": {"loss": name, **changed}}


def lowered(made) -> str:
    args = (made.state(), made.apart[1], made.batches[0], made.hyper)
    return jax.jit(made.program.step).lower(*args).as_text()


def pairs(*labels):
    return [Pair(f"text {i}", f"other {i}", labels[i % len(labels)]) for i in range(4)]


RECORDS = {"pair, margin": pairs("bad", "good"), "pair, temperature": pairs(None)}


def both(case: str):
    """The runs before and after."""
    task = case.partition(",")[0]
    records, where = make_records(task, 4)
    records = (RECORDS.get(case, records), where)
    return (bench(task, records=records, **groups[case]) for groups in (BEFORE, AFTER))


@pytest.mark.parametrize("case", BEFORE)
def test_configs_with_one_key_are_one_program(case):
    before, after = both(case)
    assert hyper.program_key(before.config) == hyper.program_key(after.config)
    assert before.hyper.keys() == after.hyper.keys() and lowered(before) == lowered(after)


def test_every_traced_value_follows_its_option():
    """Each value of the table changes with its option in one of the pairs above."""
    changed = set()
    for case in BEFORE:
        before, after = (made.hyper for made in both(case))
        equal = lambda name, a=before, b=after: jax.tree.all(
            jax.tree.map(np.array_equal, a[name], b[name])
        )
        changed |= {name for name in before if not equal(name)}
    # the clock of a bench is one, its schedule has no decay, its model no experts, and no other
    # model teaches it
    others = {"total", "decay", "balance", "router_z", "distil_temperature"}
    classes = [schema.Config, *(c for g in compose.GROUPS.values() for c in g.values())]
    traced = {
        hyper.name_of(key, one.accepts.traced)
        for cls in classes
        for key, one in option.names(cls)
        if one.accepts.traced and one.accepts.traced.when != "term"
    }
    assert traced - changed == others


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
    assert hyper.program_key(make_config()) != hyper.program_key(make_config(**groups))
