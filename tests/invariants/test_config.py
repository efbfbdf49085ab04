"""Every option does something: change it, and the start, the examples, the plan, the traced values
or the lowered step change.

An option without an entry here fails; what acts outside the step is listed with the test that shows
its effect.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxsft import rundir, tasks
from jaxsft.config import adapters, compose, schema
from jaxsft.config import optim as optims
from jaxsft.config.model import RopeScaling
from jaxsft.data.splits import read_splits
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.sharding import mesh as meshes
from jaxsft.training import loop, partition, runs
from jaxsft.training.checkpoint import flatten
from jaxsft.training.components import build_components
from tests import conftest, tiny

BASE = {
    "model": {"dropout": 0.1},
    "train": {"ema": 0.9},
    "optim": optims.OPTIMIZERS["adamw"](learning_rate=0.01, weight_decay=0.1),
    "schedule": schema.SCHEDULES["cosine"](warmup="2steps", final=0.1),
}
LLAMA3, YARN = RopeScaling("llama3", 2.0, original=16), RopeScaling("yarn", 2.0, original=512)
LONG = RopeScaling("longrope", 2.0, original=32, factors=(1.0,) * 8)
STEP = {  # option -> another value
    "data.max_length": 50,
    "data.too_long": "truncate_left",
    "data.packing": False,
    "data.plan_seed": 1,
    "model.layers": 3,
    "model.embed": 32,
    "model.heads": 2,
    "model.kv_heads": 4,
    "model.head_dim": 8,
    "model.mlp": 32,
    "model.context": 48,
    "model.norm": "layer",
    "model.norm_position": "post",
    "model.positions": "learned",
    "model.rope_base": 500.0,
    "model.gated": False,
    "model.activation": "gelu",
    "model.tied": False,
    "model.vocab_rows": 1000,
    "model.norm_epsilon": 1e-3,
    "model.norm_bias": False,
    "model.norm_plus_one": True,
    "model.parallel": True,
    "model.shared_norm": True,
    "model.residual_scale": 0.5,
    "model.first_norm": False,
    "model.position_offset": 2,
    "model.rope_fraction": 0.5,
    "model.rope_pairs": "neighbours",
    "model.rope_layers": (1,),
    "model.rope_local_base": 500.0,
    "model.rope_scaling.kind": "linear",
    "model.rope_scaling.factor": 4.0,
    "model.rope_scaling.original": 32,
    "model.rope_scaling.low": 2.0,
    "model.rope_scaling.high": 8.0,
    "model.rope_scaling.fast": 16.0,
    "model.rope_scaling.slow": 4.0,
    "model.rope_scaling.truncate": False,
    "model.rope_scaling.attention": 2.0,
    "model.rope_scaling.factors": (2.0,) * 8,
    "model.window": 4,
    "model.window_layers": (1,),
    "model.qkv_bias": True,
    "model.o_bias": True,
    "model.qk_norm": "head",
    "model.qk_norm_last": True,
    "model.query_scale": 0.1,
    "model.attention_softcap": 1.0,
    "model.mlp_bias": True,
    "model.experts": 2,
    "model.experts_per_token": 1,
    "model.expert_norm": False,
    "model.expert_shared": 8,
    "model.head_bias": True,
    "model.logit_softcap": 1.0,
    "model.logit_scale": 0.5,
    "model.embed_scale": 2.0,
    "model.embed_norm": True,
    "model.embed_inner": 8,
    "model.types": 2,
    "model.dropout": 0.2,
    "model.attention": "blocked",
    "model.activations": "bf16",
    "model.remat": True,
    "model.remat_saves": ("q", "context"),
    "model.unroll": "none",
    "loss.label_smoothing": 0.1,
    "loss.z_loss": 0.1,
    "loss.unlikelihood": 0.1,
    "loss.balance": 0.1,
    "loss.router_z": 0.1,
    "loss.chunk": 8,
    "loss.penalties": [schema.Penalty("l2", ".*", 0.1)],
    "optim.learning_rate": 0.02,
    "optim.clip_norm": 0.5,
    "optim.lr_groups": [optims.Group(pattern="embed/.*", factor=0.5)],
    "optim.b1": 0.8,
    "optim.b2": 0.9,
    "optim.eps": 1e-3,
    "optim.weight_decay": 0.2,
    "optim.decay_groups": [optims.Group(pattern="embed/.*", factor=0.5)],
    "schedule.warmup": "3steps",
    "schedule.final": 0.2,
    "train.batch_size": 4,
    "train.accumulate": 2,
    "train.ema": 0.8,
    "train.neftune": 5.0,
    "train.freeze": ["embed/.*"],
    "train.unfreeze_every": "1steps",
    "mesh.data": 2,
    "mesh.fsdp": 2,
    "mesh.context": 2,
    "mesh.tensor": 2,
    "precision": "bf16",
    "seed": 1,
    "seeds.init": 1,
    "seeds.data": 1,
    "seeds.dropout": 1,
}
BESIDE = {  # option -> what must stand beside it to be read
    "model.experts_per_token": {"model.experts": 3},
    "model.expert_norm": {"model.experts": 3},
    "model.expert_shared": {"model.experts": 3},
    "model.shared_norm": {"model.parallel": True},
    "model.qk_norm_last": {"model.qk_norm": "head"},
    "loss.balance": {"model.experts": 3},
    "loss.router_z": {"model.experts": 3},
    "model.norm_bias": {"model.norm": "layer"},
    "model.position_offset": {"model.positions": "learned"},
    "model.window_layers": {"model.window": 4},
    "model.remat_saves": {"model.remat": True},
    "model.rope_local_base": {"model.window": 4, "model.rope_local_base": 100.0},
    "model.embed_inner": {"model.tied": False},
    "model.rope_scaling.kind": {"model.rope_scaling.factor": 2.0},
    "model.rope_scaling.factor": {"model.rope_scaling.kind": "linear"},
    **{
        f"model.rope_scaling.{name}": {"model.head_dim": 16, "model.rope_scaling": LLAMA3}
        for name in ("original", "low", "high")
    },
    **{
        f"model.rope_scaling.{name}": {"model.head_dim": 16, "model.rope_scaling": YARN}
        for name in ("fast", "slow", "truncate", "attention")
    },
    "model.rope_scaling.factors": {"model.head_dim": 16, "model.rope_scaling": LONG},
}
GROUPS = (
    "task.name",
    "tokenizer.kind",
    "optim.name",
    "schedule.name",
    "model.causal",
    "adapter.name",
)  # chosen by their group, compared in the tests of each

TRAIN = {"train": (("norm/.*",), "trained")}
LOW_RANK = TRAIN | {
    "rank": (3, "trained"),
    "alpha": (8.0, "hyper"),
    "scaling": ("sqrt", "hyper"),
    "dropout": (0.2, "hyper"),
    "lr_ratio": (4.0, "step"),
    "target": (("layers/1/attention/(q|v)",), "trained"),
}
ADAPTERS = {  # adapter -> option -> another value, and what of the run must change
    "none": {},
    "lora": LOW_RANK | {"init": ("pissa", "start")},
    "dora": LOW_RANK,
    "ia3": (
        TRAIN
        | {
            "target": (("layers/.*/attention/k",), "trained"),
            "target_inputs": (("layers/0/mlp/down",), "trained"),
        }
    ),
    "prefix": TRAIN | {"tokens": (3, "trained"), "target": (("layers/1/attention",), "trained")},
    "prompt": TRAIN | {"tokens": (3, "plan")},
    "bitfit": TRAIN,
}


def columns(*names: str) -> tuple[str, ...]:
    return tuple(f"data.columns.{name}" for name in names)


ELSEWHERE = {
    "tests/data/formats/test_common.py": (
        "data.format",
        "data.header",
        "data.encoding",
        "data.unit",
    ),
    "tests/data/records/test_conversations.py": columns(
        "form", "prompt", "completion", "messages", "input", "history", "system", "tools", "allow"
    ),
    "tests/data/records/test_whole_texts.py": columns(
        *(
            "text",
            "text_pair",
            "label",
            "labels",
            "targets",
            "score",
            "label_names",
            "no_label",
            "separator",
            "missing",
        )
    ),
    "tests/tasks/test_span.py": columns("answers"),
    "tests/data/test_mixture.py": (
        "data.mixture.sources",
        "data.mixture.temperature",
        "data.mixture.exhausted",
    ),
    "tests/data/records/test_features.py": columns("features", "categories"),
    "tests/data/records/test_sequences.py": columns(
        "tokens", "tags", "heads", "deprels", "spans", "scheme"
    ),
    "tests/data/records/test_source_target.py": columns(
        "source", "target", "references", "group_references"
    ),
    "tests/data/tokenizers/test_learn.py": ("tokenizer.added",),
    "tests/models/test_recurrent.py": ("model.kind",),
    "tests/models/test_surgery.py": tuple(
        f"model.{n}"
        for n in (
            "keep_layers",
            "keep_decoder_layers",
            "repeat_layers",
            "resize_mlp",
            "resize_heads",
            "bidirectional",
        )
    ),
    "tests/training/test_frozen_weights.py": ("model.frozen_dtype",),
    "tests/training/test_teacher.py": tuple(
        f"distil.{n}" for n in ("teacher", "weight", "temperature", "direction")
    ),
    "tests/training/test_pruning.py": tuple(
        f"prune.{n}" for n in ("kind", "sparsity", "scope", "weights", "begin", "end", "every")
    ),
    "tests/training/test_vocab_rows.py": ("model.vectors", "model.train_rows"),
    "tests/training/test_part.py": ("model.part",),
    "tests/data/test_quarantine.py": ("data.on_bad_row",),
    "tests/data/test_windows.py": ("data.stride",),
    "tests/data/test_two_streams.py": ("data.max_source_length",),
    "tests/data/test_row_weights.py": ("data.columns.weight",),
    "tests/data/test_encode.py": ("data.max_dropped", "data.require_stop"),
    "tests/data/test_split_rule.py": ("data.fractions",),
    "tests/check/test_label_findings.py": ("check.near", "data.unseen_labels"),
    "tests/data/chat/test_templates.py": ("task.template", "task.allow_unwritten"),
    "tests/tasks/test_chat.py": ("task.train_turns",),
    "tests/test_cli.py": (
        "data.train",
        "data.test",
        "data.path",
        "run_dir",
        "evaluation.batch_size",
        "train.duration",
    ),
    "tests/invariants/test_resume.py": (
        *("train.init_from", "train.log_every", "checkpoint.every", "checkpoint.include_base"),
        *("evaluation.every", "evaluation.patience", "evaluation.generate"),
    ),
    "tests/invariants/test_stack.py": ("train.until",),
    "tests/check/test_check.py": (
        "check.output",
        "check.json",
        "check.accept",
        "check.places",
    ),
    "tests/check/test_encoding.py": ("check.samples",),
    "tests/training/test_cross_validation.py": (
        "crossval.folds",
        "crossval.repeats",
        "crossval.groups",
        "crossval.choose",
        "crossval.nested",
        "crossval.fractions",
        "crossval.level",
        "crossval.replicates",
    ),
    "tests/planning/test_plan.py": (
        *("plan.topology", "plan.devices", "plan.search", "plan.output", "plan.slices"),
        *("plan.tokens", "plan.dollars", "plan.decode"),
    ),
    "tests/training/test_loop.py": ("train.on_nan",),
    "tests/invariants/test_backbone.py": ("train.backbone", "train.backbone_limit"),
    "tests/training/test_pretrained.py": ("model.init",),
    "tests/invariants/test_eval.py": ("generate.allow_cut",),
    "tests/sharding/test_hosts.py": (
        "hosts.coordinator",
        "hosts.count",
        "hosts.index",
        "hosts.timeout",
        "hosts.wait",
    ),
    "tests/training/test_device.py": ("profile", "compilation_cache"),
    "tests/sharding/test_mesh.py": ("mesh.show", "mesh.allow_replicated"),
    "tests/test_plugins.py": ("plugins", "evaluation.metrics"),
    "tests/evaluation/test_explain.py": ("evaluation.dynamics",),
    "tests/evaluation/test_results.py": (
        "data.columns.cluster",
        "evaluation.slices",
        "evaluation.probabilities",
        "evaluation.level",
        "evaluation.replicates",
    ),
    "tests/evaluation/test_every_number.py": ("data.columns.schema",),
    "tests/training/test_trackers.py": ("trackers.use", "trackers.project", "trackers.name"),
    "tests/models/test_encoder_decoder.py": (
        "model.decoder_layers",
        "model.relative_buckets",
        "model.relative_distance",
        "model.relative_shared",
        "model.output_scale",
    ),
    "tests/generation/test_decoding.py": (
        "generate.max_new_tokens",
        "generate.temperature",
        "generate.batch_size",
        "generate.stop",
        "generate.allow_long",
    ),
    "tests/generation/test_sampling.py": (
        "generate.top_k",
        "generate.top_p",
        "generate.min_p",
        "generate.repetition_penalty",
    ),
    "tests/generation/test_beam.py": ("generate.num_beams", "generate.length_penalty"),
}
RUN = (
    "data.validation",
    "data.limit",
    "data.cache_dir",
    "data.split_seed",
    "evaluation.metric",
    "evaluation.on_train",
    "evaluation.generate_rows",
)
RUN += ("model.pretrained", "train.init_fresh")  # shown at the end of this file


MAKE = conftest.make_config


def with_value(config: schema.Config, key: str, value) -> schema.Config:
    head, _, rest = key.partition(".")
    return dataclasses.replace(
        config, **{head: with_value(getattr(config, head), rest, value) if rest else value}
    )


class Fingerprint:
    """What a run computes, without running it: each part is made when it is asked for, the cheap
    ones first.
    """

    PARTS = ("places", "hyper", "plan", "step", "start")

    def __init__(self, change=lambda config: config):
        self.bench = conftest.bench("chat", 24, longest=45, config=change(MAKE("chat", **BASE)))

    def __eq__(self, other) -> bool:
        return all(getattr(self, part) == getattr(other, part) for part in self.PARTS)

    __hash__ = None

    @functools.cached_property
    def places(self) -> list:
        """Shape and sharding of every weight, and which of them is trained."""
        shardings = jax.tree.leaves(meshes.shardings(self.bench.parts.specs, self.bench.parts.mesh))
        shapes = [(path, x.shape, str(x.dtype)) for path, x in flatten(self.apart[0]).items()]
        return [
            shapes,
            [s.shape for s in jax.tree.leaves(self.bench.parts.specs)],
            [str(s) for s in shardings],
        ]

    @property
    def apart(self) -> tuple:
        """(trainable, frozen) as shapes."""
        parts, config = self.bench.parts, self.bench.config
        shape = lambda spec: jax.ShapeDtypeStruct(spec.shape, np.float32)
        return jax.tree.map(
            shape,
            partition.partition(parts.specs, parts.specs, config.train.freeze, config.adapter),
        )

    @functools.cached_property
    def hyper(self) -> str:
        return repr(self.bench.hyper)

    @functools.cached_property
    def plan(self) -> list:
        batches = self.bench.batches
        return [
            [np.asarray(x).tobytes() for x in jax.tree.leaves(batches[k])]
            for k in range(2 * len(batches))
        ]

    @functools.cached_property
    def step(self) -> str:
        trainable, frozen = self.apart
        state = jax.eval_shape(self.bench.program.init_state, trainable)
        return (
            jax.jit(self.bench.program.step)
            .lower(state, frozen, self.bench.batches[0], self.bench.hyper)
            .as_text()
        )

    @functools.cached_property
    def start(self) -> list:
        return [
            np.asarray(x).tobytes()
            for x in jax.tree.leaves(conftest.fresh_params(self.bench.parts))
        ]


@functools.cache
def fingerprint_of(*values: tuple) -> Fingerprint:
    """Returns that of the run with these options, which must stand beside one that is changed."""
    return Fingerprint(
        lambda config: functools.reduce(lambda c, item: with_value(c, *item), values, config)
    )


def base(key: str = "") -> Fingerprint:
    return fingerprint_of(*BESIDE.get(key, {}).items())


def beside(config: schema.Config, key: str) -> schema.Config:
    return functools.reduce(
        lambda c, item: with_value(c, *item), BESIDE.get(key, {}).items(), config
    )


def value_of(config: schema.Config, key: str):
    return functools.reduce(getattr, key.split("."), config)


# of what changes the lowered step, the options that a user sets first, and some of each group
OFTEN = [key for key in STEP if not key.startswith("model.")]
OFTEN += ["model.layers", "model.norm", "model.positions", "model.window", "model.experts"]
OFTEN += ["model.rope_scaling.factor", "model.dropout", "model.attention", "model.remat"]


@pytest.mark.parametrize("key", conftest.short(list(STEP), *OFTEN))
def test_an_option_changes_what_is_computed(key):  # guards H5
    config = conftest.make_config("chat", **BASE)
    assert STEP[key] != value_of(beside(config, key), key)
    if key == "data.too_long":  # read where a row is too long only
        shorter = lambda config: with_value(
            with_value(config, "data.max_length", 30), "data.max_dropped", 1.0
        )
        one, two = (
            Fingerprint(lambda c, v=v: with_value(shorter(c), key, v))
            for v in ("truncate_right", "truncate_left")
        )
        assert one.plan != two.plan
    elif key == "seed":  # the others follow it where they are not given
        assert Fingerprint(lambda _: MAKE("chat", seed=1, **BASE)) != base()
    else:
        cut = lambda c: (
            with_value(c, "data.too_long", "truncate_right")
            if key in ("model.context", "data.max_length")
            else c
        )
        assert Fingerprint(lambda c: with_value(cut(beside(c, key)), key, STEP[key])) != base(key)


def test_the_same_config_is_the_same_run():  # guards H7
    assert Fingerprint() == base()


def test_every_traced_value_is_read():  # guards H5, G6
    """A program reads what it is given: another value of each gives other weights after three
    steps.
    """
    options = {"layers": 1, "experts": 2, "experts_per_token": 1, "dropout": 0.1}
    loss = {
        "label_smoothing": 0.1,
        "z_loss": 0.1,
        "balance": 0.1,
        "router_z": 0.1,
        "penalties": [schema.Penalty("l2", ".*", 0.1)],
    }
    b = conftest.bench(
        *("chat", 12),
        longest=24,
        model=options,
        loss=loss,
        train={"batch_size": 4, "ema": 0.9, "neftune": 5.0, "unfreeze_every": "1steps"},
        optim=optims.OPTIMIZERS["adamw"](learning_rate=0.01, weight_decay=0.1, clip_norm=0.5),
        schedule=schema.SCHEDULES["wsd"](warmup="1steps", decay="3steps", final=0.5),
    )
    given = b.hyper | {"total": np.float32(4)}  # so that the rate falls within these steps
    weights = lambda **hyper: [
        np.asarray(x)
        for x in jax.tree.leaves((lambda state: (state.trainable, state.ema))(b.run(3, **hyper)[0]))
    ]
    expected, again = weights(**given), weights(**given)
    same = lambda found: all(np.array_equal(x, y) for x, y in zip(found, expected, strict=True))
    assert same(again)
    # Averages begin with (1 + t) / (10 + t), so that a smaller decay acts at once; what is clipped
    # to a tenth is clipped more.
    others = {
        "ema": 0.05,
        "clip_norm": 0.05,
        "decay": 2.0,
        "unfreeze_every": 2,
        "dropout_seed": 9,
        "warmup": 2.0,
        "total": 5.0,
        **{name: np.array([x, 1 - x]) for name, x in (("b1", 0.5), ("b2", 0.5), ("eps", 1e-3))},
    }
    leaves, tree = jax.tree_util.tree_flatten_with_path(given)
    unread = []
    for i, (path, value) in enumerate(leaves):
        name = path[0].key
        changed = [x for _, x in leaves]
        other = others[name] if name in others else value * 2 if value else 1
        changed[i] = np.asarray(other, value.dtype)[()]
        if same(weights(**jax.tree.unflatten(tree, changed))):
            unread.append(jax.tree_util.keystr(path))
    assert not unread and {"terms", "penalties", "neftune", "balance", "label_smoothing"} <= set(
        b.hyper
    )


@functools.cache
def adapted(name: str, part: str, *options: tuple):
    """One thing that a run with this adapter computes, over a small model with biases."""
    adapter = adapters.ADAPTERS[name](**dict(options))
    b = conftest.bench(
        "chat", 6, longest=45, adapter=adapter, model={"qkv_bias": True}, optim=BASE["optim"]
    )
    if part == "trained":
        return {path: x.shape for path, x in flatten(b.apart[0]).items()}
    if part == "start":
        return [np.asarray(x).tobytes() for x in jax.tree.leaves(b.params["adapters"])]
    if part == "plan":
        return [np.asarray(x).tobytes() for x in jax.tree.leaves(b.batches[0])]
    return (
        repr(b.hyper)
        if part == "hyper"
        else jax.jit(b.program.step).lower(b.state(), b.apart[1], b.batches[0], b.hyper).as_text()
    )


OF_ADAPTERS = [(name, key) for name, keys in ADAPTERS.items() for key in keys]


@pytest.mark.parametrize(
    "name, key",
    conftest.short(OF_ADAPTERS, ("lora", "rank"), ("lora", "dropout"), ("lora", "target")),
)
def test_an_option_of_an_adapter_changes_what_is_computed(name, key):  # guards H5
    value, part = ADAPTERS[name][key]
    assert value != getattr(adapters.ADAPTERS[name](), key)
    assert adapted(name, part, (key, value)) != adapted(name, part)


def test_every_option_of_an_adapter_has_a_test():
    """`start_from` is shown in tests/training/test_adapters.py, for all adapters that have it; the
    name is the group's.
    """
    for name, kind in adapters.ADAPTERS.items():
        there = {field.name for field in dataclasses.fields(kind)} - {"name", "start_from"}
        assert there == set(ADAPTERS[name]), name


def test_every_option_has_a_test():
    listed = {*STEP, *GROUPS, *RUN, *(key for keys in ELSEWHERE.values() for key in keys)}
    there = set(compose.flat(compose.to_dict(schema.Config(task=schema.ChatTask()))))
    assert there - listed == set(), "options without a test"
    assert listed - there == set(), "tests of options that are no more"
    root = Path(__file__).parents[2]
    for file, keys in ELSEWHERE.items():
        source = (root / file).read_text(encoding="utf-8")
        assert not (missing := [key for key in keys if key.rsplit(".", 1)[-1] not in source]), (
            f"{file}: {missing}"
        )


# --- what acts on a whole run
# --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


def test_options_of_data_and_evaluation_act(files, tmp_path):  # guards H5
    data = {
        "train": str(files / "chat.jsonl"),
        "validation": str(files / "chat_held.jsonl"),
        "limit": 8,
        "cache_dir": str(tmp_path / "cache"),
    }
    evaluation = {
        "metric": "validation/token_accuracy",
        "on_train": True,
        "generate_rows": 3,
        "generate": "end",
        "every": "2steps",
    }
    result = loop.train(
        tiny.config(
            files,
            tmp_path / "run",
            data=data,
            evaluation=evaluation,
            train={"duration": "6steps", "batch_size": 4},
        )
    )
    ledger, lines = (
        rundir.read_json(tmp_path / "run" / "ledger.json"),
        rundir.read_jsonl(tmp_path / "run" / "metrics.jsonl"),
    )
    assert ledger["train"]["rows"]["read"] == 8 and ledger["validation"]["rows"]["read"] == 12
    assert list((tmp_path / "cache").rglob("facts.json"))
    assert result.numbers["validation/generated_rows"] == 3 and "train/loss" in result.numbers
    accuracy = {x["step"]: x["token_accuracy"] for x in lines if x["kind"] == "validation"}
    assert result.numbers["train/best_step"] == max(
        accuracy, key=lambda step: (accuracy[step], -step)
    )


def test_the_variables_of_a_template_act(tmp_path):  # guards C10
    """They reach training and generation, and are kept with what the task learnt."""
    path = tmp_path / "template.jinja"
    path.write_text(
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ mood }}{{ m.content"
        " }}<|assistant|>{% else %}{% generation %}{{ m.content }}<|end|>{% endgeneration %}{%"
        " endif %}{% endfor %}"
    )
    records, where = conftest.make_records("chat", 3)

    def made(**variables):
        config = MAKE("chat", task={"template": str(path), "variables": variables})
        parts = build_components(
            config,
            Tokenizer.bytes(),
            tasks.get("chat").fit(config, Tokenizer.bytes(), records, where),
        )
        return (
            parts.task,
            parts.task.encode_all(records, where)[0].ids.tolist(),
            parts.task.prompt(records[0], where[0]),
        )

    task, ids, prompt = made(mood="be kind ")
    assert (
        len(ids) == len(made(mood="")[1]) + len(records[0].messages) // 2 * 8
        and ids[: len(prompt)] == prompt
    )
    assert (
        task.state["template"]["variables"] == {"mood": "be kind "}
        and task.digest != made(mood="")[0].digest
    )


def test_the_seed_of_the_split_acts(files):
    def parts(seed):
        config = MAKE(
            "classify",
            data={
                "train": None,
                "validation": None,
                "path": str(files / "labels.jsonl"),
                "split_seed": seed,
            },
        )
        return read_splits(config, tasks.get("classify"))["train"][1]

    assert parts(0) == parts(0) != parts(1)


@pytest.mark.slow  # the first half is test_resume.py's, which runs often
def test_pretrained_weights_are_taken_and_fresh_ones_are_not(files, tmp_path):
    still = {"optim": optims.OPTIMIZERS["adamw"](learning_rate=0.0, weight_decay=0.0)}
    train = {"duration": "1steps", "batch_size": 4}
    model = {
        "layers": 2,
        "embed": 16,
        "heads": 2,
        "kv_heads": 2,
        "head_dim": 8,
        "mlp": 32,
        "context": 128,
    }
    loop.train(
        tiny.config(files, tmp_path / "a", task="lm", train={"duration": "3steps", "batch_size": 4})
    )
    loop.train(
        tiny.config(
            files,
            tmp_path / "b",
            train=train | {"init_fresh": ["norm/.*", "embed/.*"]},
            seed=3,
            model=model | {"pretrained": str(tmp_path / "a")},
            **still,
        )
    )
    a, b = (flatten(runs.open_run(tmp_path / name).params) for name in "ab")
    same = {name: np.array_equal(a[name], b[name]) for name in a}
    assert not same["embed/tokens/w"] and all(
        same[name] for name in same if name.startswith("layers/")
    )
    fresh = train | {"init_fresh": ["layers/1/.*"]}
    loop.train(
        tiny.config(
            files,
            tmp_path / "c",
            train=fresh,
            seed=3,
            model=model | {"pretrained": str(tmp_path / "a")},
            **still,
        )
    )
    c = flatten(runs.open_run(tmp_path / "c").params)
    for name in (n for n in a if n.startswith("layers/") and n.endswith("/w")):  # layer by layer
        assert np.array_equal(a[name][0], c[name][0]) and not np.array_equal(a[name][1], c[name][1])
