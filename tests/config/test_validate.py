"""What cannot work is refused before any data is read, by the name of its option."""

import dataclasses

import pytest

from jaxsft.config import schema, validate
from jaxsft.errors import ConfigError

TASKS = {"chat": schema.ChatTask(), "classify": schema.ClassifyTask(), "lm": schema.LMTask()}


def check(name="chat", /, **groups):
    groups = {
        "data": {"train": "a.jsonl", "validation": "b.jsonl"},
        "model": {"causal": name != "classify"},
        "mesh": {"data": 1},
    } | groups
    config = schema.Config(task=TASKS[name])
    for group, values in groups.items():
        value = (
            dataclasses.replace(getattr(config, group), **values)
            if isinstance(values, dict)
            else values
        )
        config = dataclasses.replace(config, **{group: value})
    validate.validate(config)


def test_the_defaults_are_good():
    for task in TASKS:
        check(task)


@pytest.mark.parametrize(
    "option, groups",
    [
        ("precision", {"precision": "fp16"}),
        ("model.norm", {"model": {"norm": "batch"}}),
        ("train.batch_size", {"train": {"batch_size": 0}}),
        ("train.batch_size", {"train": {"batch_size": 6, "accumulate": 4}}),
        ("train.batch_size", {"train": {"batch_size": 6}, "mesh": {"data": 4}}),
        ("evaluation.batch_size", {"evaluation": {"batch_size": 3}, "mesh": {"data": 2}}),
        ("model.dropout", {"model": {"dropout": 1.0}}),
        ("model.layers", {"model": {"layers": 2**31 - 1}}),
        ("tokenizer.vocab_size", {"tokenizer": schema.BpeTokenizer(vocab_size=2**31 - 1)}),
        ("train.ema", {"train": {"ema": -0.1}}),
        ("seed", {"seed": 2**32}),
        ("data.max_dropped", {"data": {"train": "a", "max_dropped": 1.1}}),
        ("data.on_bad_row", {"data": {"train": "a", "on_bad_row": "drop"}}),
        ("data.columns.form", {"data": {"train": "a", "columns": schema.Columns(form="chatml")}}),
        ("data.columns.scheme", {"data": {"train": "a", "columns": schema.Columns(scheme="bio")}}),
        ("data.columns.missing", {"data": {"train": "a", "columns": schema.Columns(missing="0")}}),
        (
            "data.columns.allow",
            {"data": {"train": "a", "columns": schema.Columns(allow=("anything",))}},
        ),
        (
            "data.columns.label",
            {"data": {"train": "a", "columns": schema.Columns(label="x", labels=("y",))}},
        ),
        (
            "data.columns.target",
            {"data": {"train": "a", "columns": schema.Columns(target="x", references="y")}},
        ),
        (
            "data.columns.separator",
            {"data": {"train": "a", "columns": schema.Columns(separator="")}},
        ),
        ("data.max_length", {"data": {"train": "a", "max_length": "long"}}),
        ("data.max_length", {"data": {"train": "a", "max_length": 4096}}),
        ("generate.max_new_tokens", {"generate": {"max_new_tokens": 0}}),
        ("generate.max_new_tokens", {"generate": {"max_new_tokens": True}}),
        ("generate.allow_cut", {"generate": {"allow_cut": True}}),
        ("loss.chunk", {"loss": {"chunk": 0}}),
        ("model.causal", {"model": {"causal": False}}),
        ("model.kv_heads", {"model": {"heads": 4, "kv_heads": 3}}),
        ("model.head_dim", {"model": {"head_dim": 5}}),
        ("model.rope_base", {"model": {"positions": "learned", "rope_base": 5.0}}),
        ("model.pretrained", {"model": {"pretrained": "a"}, "train": {"init_from": "b"}}),
        ("train.init_from=runs/a/", {"train": {"init_from": "runs/a/"}, "run_dir": "runs/a"}),
        (
            "model.pretrained=gs://b/a: is the run directory itself",
            {"model": {"pretrained": "gs://b/a"}, "run_dir": "gs://b/a/"},
        ),
        ("train.init_fresh", {"train": {"init_fresh": ("head/.*",)}}),
        ("data.path", {"data": {"train": "a", "path": "b"}}),
        ("data.split_seed", {"data": {"train": "a", "split_seed": 3}}),
        ("data.train", {"data": {}}),
        ("train.duration", {"train": {"duration": "50%"}}),
        ("train.log_every", {"train": {"log_every": "0steps"}}),
        ("schedule.warmup", {"schedule": schema.SCHEDULES["cosine"](warmup="10")}),
        ("evaluation.metric", {"evaluation": {"metric": "test/loss"}}),
        ("evaluation.metric", {"evaluation": {"metric": "validation/bleu"}}),
        ("evaluation.metric", {"evaluation": {"metric": "validation/exact_match"}}),
        ("evaluation.metric", {"evaluation": {"metric": "validation/generated_rows"}}),
        (
            "evaluation.metric",
            {"evaluation": {"metric": "validation/loss"}, "data": {"train": "a"}},
        ),
        ("evaluation.patience", {"evaluation": {"patience": 2}, "data": {"train": "a"}}),
        *(
            ("train.until", {"train": {"until": until}})
            for until in (
                *("validation/bleu>=1", "validation/exact_match>=0.5", "validation/rows>1"),
                *("test/loss<1", "validation/loss=1", "validation/loss<one"),
            )
        ),
        ("train.until", {"train": {"until": "validation/loss<1"}, "data": {"train": "a"}}),
        ("run_dir", {"run_dir": ""}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_one_line_names_the_option(option, groups):  # guards H5
    with pytest.raises(ConfigError) as error:
        check(**groups)
    assert option in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "option, groups",
    [
        ("model.tied", {"model": {"tied": False, "causal": False}}),
        ("loss.z_loss", {"loss": {"z_loss": 0.1}}),
        ("task.pool", {"task": schema.ClassifyTask(pool="first"), "model": {"causal": True}}),
        ("task.pool", {"task": schema.ClassifyTask(pool="min")}),
        ("task.huber_delta", {"task": schema.ClassifyTask(huber_delta=2.0)}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_of_a_task(option, groups):  # guards H5
    with pytest.raises(ConfigError) as error:
        check("classify", **groups)
    assert option in str(error.value)


def test_answers_are_generated_where_the_task_has_some():  # guards H5
    for name in ("lm", "classify"):
        with pytest.raises(
            ConfigError, match=rf"^evaluation\.generate=always: task={name} has no answers"
        ):
            check(name, evaluation={"generate": "always"})
        # as debug=fast says of every task
        check(name, evaluation={"generate": "never"}, generate={"max_new_tokens": 4})
    for option in ({"temperature": 0.5}, {"batch_size": 2}):
        with pytest.raises(
            ConfigError, match=r"^generate\.\w+=[\d.]+: task=classify generates nothing"
        ):
            check("classify", generate=option)
        check("lm", generate=option)  # `jaxsft generate` reads it
    check("chat", evaluation={"generate": "always"}, generate={"temperature": 0.5})
