"""From YAML to frozen objects and back, strict overrides of a finished run, and messages that name
the option.
"""

import dataclasses

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from jaxsft.config import compose, model, optim, overrides, schema
from jaxsft.errors import ConfigError

_parser = OverridesParser.create()
CONFIG = schema.Config(
    task=schema.ChatTask(variables={"enable_thinking": False, "names": ["a", "b"]}),
    data=schema.DataConfig(train="it's a=b, 中文.jsonl", columns=schema.Columns(prompt="0")),
    tokenizer=schema.BpeTokenizer(vocab_size=300),
    optim=optim.OPTIMIZERS["muon"](lr_groups=(optim.Group(pattern="embed/.*", factor=0.5),)),
    schedule=schema.SCHEDULES["wsd"](warmup="2%"),
    loss=schema.LossConfig(penalties=(schema.Penalty("l1", ".*", 0.1),)),
)


def test_a_config_survives_its_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(compose.to_yaml(CONFIG), encoding="utf-8")
    found = compose.read(path)
    assert compose.to_dict(found) == compose.to_dict(CONFIG)
    assert (
        type(found.optim) is optim.OPTIMIZERS["muon"]
        and type(found.schedule) is schema.SCHEDULES["wsd"]
        and found.data.fractions == (0.7, 0.15, 0.15)
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.seed = 1


@pytest.mark.parametrize("name", compose.GROUPS["optim"])
def test_every_optimizer_survives(name):
    config = dataclasses.replace(CONFIG, optim=compose.GROUPS["optim"][name]())
    again = compose.typed(yaml.safe_load(compose.to_yaml(config)))
    assert type(again.optim) is type(config.optim) and compose.to_dict(again) == compose.to_dict(
        config
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sead": 1}, r"sead: unknown option; did you mean seed"),
        ({"tokenizer": {"kind": "pretrained"}}, r"tokenizer\.path: must be given"),
        (
            {"train": {"batch_sise": 1}},
            r"train\.batch_sise: unknown option; did you mean train\.batch_size",
        ),
        (
            {"optim": {"name": "sgd", "b1": 0.9}},
            r"optim\.b1: unknown option of optim=sgd; it has optim\.learning_rate",
        ),
        (
            {"schedule": {"name": "constant", "final": 0.1}},
            r"schedule\.final: unknown option of schedule=constant; it has schedule\.warmup",
        ),
        ({"optim": {"name": "adamv"}}, r"optim=adamv: unknown; there are .*adamw"),
        ({"seed": "many"}, r"seed: .*many"),
        ({"task": {}}, r"task=None: unknown; there are chat"),
    ],
)
def test_what_is_not_there_is_named(change, message):  # guards H5
    values = compose.to_dict(schema.Config(task=schema.LMTask())) | change
    with pytest.raises(ConfigError, match=message) as error:
        compose.typed(values)
    assert "\n" not in str(error.value)


def test_overrides_take_text_as_text_and_numbers_as_numbers():
    text = ["data.path=true", "data.columns.text=1", "run_dir=null", "precision=fp32"]
    numbers = [
        "generate.max_new_tokens=64",
        "data.max_length=10",
        "generate.temperature=1e-3",
        "evaluation.generate_rows=null",
        "data.fractions=[0.5,0.5,0]",
    ]
    found = compose.override(CONFIG, [*text, *numbers])
    assert (found.data.path, found.data.columns.text, found.run_dir, found.precision) == (
        "true",
        "1",
        None,
        "fp32",
    )
    assert (found.generate.max_new_tokens, found.data.max_length, found.generate.temperature) == (
        64,
        10,
        1e-3,
    )
    assert found.evaluation.generate_rows is None and found.data.fractions == (0.5, 0.5, 0.0)
    assert CONFIG.generate.max_new_tokens == "auto"  # the original stays


@pytest.mark.parametrize(
    "text, message",
    [
        ("seed", "expected key=value"),
        ("generate.temprature=1", "did you mean generate.temperature"),
        ("seed=x", "seed: "),
    ],
)
def test_overrides_are_strict(text, message):  # guards H5
    with pytest.raises(ConfigError, match=message):
        compose.override(CONFIG, [text])


def test_flat():
    assert compose.flat({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {
        "a.b": 1,
        "a.c.d": 2,
        "e": [3],
    }


@pytest.mark.parametrize(
    "argument",
    ["stages=[{clean:{fields:[é]}}]", "stages=[clean", "stages=[{clean:{fields:[a=b]}}]"],
)
def test_a_value_that_is_none_is_told_in_one_sentence(argument):
    with pytest.raises(ConfigError) as caught:
        overrides.composed([argument], "prepare")
    assert (
        str(caught.value).startswith(f"{argument}: not a value; ")
        and "quotes" in str(caught.value)
        and "\n" not in str(caught.value)
    )
    assert "hydra" not in str(caught.value).lower()


def test_text_in_quotes_is_any_text():
    assert overrides.composed(["stages=[{clean:{fields:['é b']}}]"], "prepare").stages[0] == {
        "clean": {"fields": ["é b"]}
    }


def test_a_text_may_begin_with_a_place():
    """`{labels}` is a text, `{a: 1}` options by name."""
    rows = [
        "data.path=x",
        "data.options.prompt={labels}: which of {places}?",
        "data.options.digits=2",
        "data.options.test={split: val}",
    ]
    found = overrides.composed(["task=multilabel", *rows]).data.options
    assert found == {
        "prompt": "{labels}: which of {places}?",
        "digits": 2,
        "test": {"split": "val"},
    }


def test_a_config_from_before_a_group_was_there_is_read():
    values = compose.to_dict(schema.Config(task=schema.ChatTask()))
    assert (
        compose.typed({key: value for key, value in values.items() if key != "adapter"}).adapter
        == schema.NoAdapter()
    )


@pytest.mark.parametrize(
    "text", ["", "words", "[1, 2]", "[[task, x]]", "model: 3", "{task: {name: lm}, model: [1]}"]
)
def test_a_config_that_is_none_is_one_sentence(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        compose.read(tmp_path / "config.yaml")


def test_configs_share_nothing_that_can_be_changed():
    """Equal parts are checked once, and each config has its own."""
    given = compose.to_dict(schema.Config(task=schema.LMTask()))
    one, other = (
        compose.typed({**given, "data": {"options": {"train": {"split": "a"}}}}) for _ in range(2)
    )
    one.data.options["train"]["split"] = "b"
    assert other.data.options == {"train": {"split": "a"}}
    assert [compose.typed({**given, "seed": seed}).seed for seed in (1, 0, 1)] == [1, 0, 1]


def test_variables_of_a_template_are_named_by_the_template():
    chat = schema.Config(task=schema.ChatTask())
    given = compose.override(
        chat, ["task.variables={date: 2026-01-31, deep: false}", "task.variables.mood=kind"]
    )
    assert given.task.variables == {"date": "2026-01-31", "deep": False, "mood": "kind"}
    with pytest.raises(ConfigError, match="unknown option of task=lm"):
        compose.override(
            dataclasses.replace(chat, task=schema.LMTask()), ["task.variables.mood=kind"]
        )


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\n\0$"),
        min_size=1,
        max_size=12,
    )
)
@example("données.jsonl")
@example("数据.jsonl")
@example("runs/läufe")
@example("[data]/{a},b='c\\\\'.jsonl")
@example("१.csv")
def test_any_name_of_a_file_is_the_value_of_a_text_option(name):
    """But for what Hydra means otherwise: null, and what stands in quotes of its own."""
    assume(name != "null" and not (name[0] in "'\"" and name[-1] == name[0]))
    for option in ("data.path", "run_dir"):
        (override,) = _parser.parse_overrides([overrides.quote(f"{option}={name}", False)])
        assert override.key_or_group == option and override.value() == name


def test_the_parts_of_a_model_are_one_group():
    """Architecture, computation and starting point share no option, and stand in that order."""
    parts = (model.Architecture, model.Computation, model.StartingPoint)
    names = [f.name for part in parts for f in dataclasses.fields(part)]
    assert names == [f.name for f in dataclasses.fields(model.ModelConfig)]
    assert len(names) == len(set(names))


def test_the_config_of_an_older_run_still_opens(tmp_path):
    """In whatever order its options stand, and without those that came later."""
    values = compose.to_dict(schema.Config(task=schema.LMTask()))
    expected = compose.typed(values)
    older = {
        name: dict(sorted(part.items(), reverse=True)) if isinstance(part, dict) else part
        for name, part in sorted(values.items(), reverse=True)
    }
    del older["model"]["part"], older["model"]["unroll"], older["adapter"], older["trackers"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(older, sort_keys=False))
    assert compose.read(tmp_path / "config.yaml") == expected
