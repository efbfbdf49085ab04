"""An option beside `model.pretrained` that its architecture would override is an error, whoever
gave it; what nobody asked for is none.
"""

import dataclasses

import pytest

import jaxsft
from jaxsft.config import compose, schema
from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.training import setup
from tests import tiny
from tests.training.test_pretrained import FAST, folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """3 layers, 4 heads, 128 tokens, causal."""
    return folder(tmp_path_factory.mktemp("model") / "in")


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    """What a run that started from it, with two of its layers, says of itself."""
    place = tmp_path_factory.mktemp("run")
    (place / "config.yaml").write_text(compose.to_yaml(resolved(source, "model.keep_layers=[0,2]")))
    return place


def resolved(source, *given: str, task: str = "lm") -> schema.Config:
    return setup.resolve(
        jaxsft.compose(
            f"task={task}", "data.train=rows.txt", *FAST, f"model.pretrained={source}", *given
        )
    )


@pytest.mark.parametrize(
    "given, message",
    [
        (
            "model.layers=12",
            (
                r"model\.layers=12: model\.pretrained=\S+ decides it, and has 3; leave the option"
                r" out.*model\.keep_layers"
            ),
        ),
        ("model.layers=4", r"model\.layers=4: "),  # our default
        (
            "model.context=64",
            r"model\.context=64: .* has 128; .*data\.max_length.*model\.rope_scaling",
        ),
        ("model.rope_scaling={kind:linear,factor:2}|model.context=64", r"model\.context=64: "),
        ("model.heads=8", r"model\.heads=8: .*model\.resize_heads"),
        ("model.causal=false", r"model\.causal=False: .*model\.bidirectional=true"),
        ("model.rope_base=500", r"model\.rope_base=500\.0: "),
        ("model.norm=layer", r"model\.norm=layer: .* has rms"),
        ("model=tiny", r"model\.layers=4: .*or the preset that gives it"),
        ("model=base", r"model\.layers=12: "),
        ("model.layers=4|model=small", r"model\.layers=4: "),
        ("experiment=demo", r"model\.layers=4: "),
        # its six layers are two by the preset of the task
        ("model=small|task=classify", r"model\.embed=384: "),
        ("tokenizer=bpe", r"tokenizer=bpe: .*brings its own"),
        ("tokenizer.vocab_size=300", r"tokenizer=\w+: .*brings its own"),
    ],
)
def test_what_the_source_decides_is_told(source, given, message):  # guards H5
    task = "classify" if given.startswith(("model.causal", "tokenizer.")) else "lm"
    with pytest.raises(ConfigError, match=message):
        resolved(source, *given.split("|"), task=task)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "model.layers=3",
        "model.context=128 model.causal=true",
        "model.dropout=0.2 debug=overfit",
        "model.keep_layers=[0]",
    ],
)
def test_what_is_alike_or_the_users_is_none(source, given):
    for task in ("lm", "classify"):  # whose preset has two layers, and is not causal
        assert resolved(source, *given.split(), task=task).model.layers == (
            1 if "keep" in given else 3
        )
    same = f"tokenizer=pretrained tokenizer.path={source} tokenizer.added=['<x>']".split()
    assert resolved(source, *same).tokenizer.added == ("<x>",)


def test_the_command_line_knows_its_own_presets(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a sweep leaves a file where it starts
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nmodel:\n  mlp: 384\n"
    )
    given = [
        "train",
        "task=lm",
        "data.train=rows.txt",
        f"run_dir={tmp_path / 'run'}",
        f"model.pretrained={source}",
        *FAST,
    ]
    code, _, err = tiny.jaxsft(*given, "experiment=mine", f"--config-dir={tmp_path / 'conf'}")
    assert (
        code == 1
        and "model.mlp=384: " in err
        and "model.resize_mlp" in err
        and err.count("\n") == 1
    )
    (tmp_path / "rows.txt").write_text("a line\n" * 9)
    given[2] = f"data.train={tmp_path / 'rows.txt'}"
    code, _, err = tiny.jaxsft(*given, "model.layers=3,5", "-m")
    assert code == 1 and "job 1 (model.layers=5): model.layers=5: " in err and "job 0" not in err
    assert err.splitlines()[-1] == "jaxsft: 1 of 2 jobs cannot run; none was started"


def test_a_config_that_was_made_by_hand(source):
    """Of what nobody knows whether it was asked for, a default was not."""
    make = lambda **model: schema.Config(
        task=schema.LMTask(),
        data=schema.DataConfig(train="rows.txt"),
        model=ModelConfig(pretrained=str(source), **model),
    )
    assert setup.resolve(make(layers=4, heads=4)).model.layers == 3
    with pytest.raises(ConfigError, match=r"model\.layers=5: "):
        setup.resolve(make(layers=5))
    composed = jaxsft.compose("task=classify", "data.train=rows.txt")
    changed = lambda **model: dataclasses.replace(
        composed, model=dataclasses.replace(composed.model, pretrained=str(source), **model)
    )
    assert composed.model.layers == 2 and setup.resolve(changed()).model.layers == 3
    with pytest.raises(ConfigError, match=r"model\.layers=5: "):
        setup.resolve(changed(layers=5))


def test_a_run_as_the_source(run):
    with pytest.raises(ConfigError, match=r"model\.layers=3: .* has 2; "):
        resolved(run, "model.layers=3")
    assert resolved(run, task="classify").model.causal is False  # a run's weights serve both ways
    assert resolved(run, "model.repeat_layers=2").model.layers == 4


def test_a_config_that_ran_runs_again(run, source):
    """What a run wrote down is resolved to itself, though its layers are not those of its
    source."""
    before = compose.read(run / "config.yaml")
    assert before.model.layers == 2 and setup.like_pretrained(before) == before
    assert "unasked" not in (run / "config.yaml").read_text()
