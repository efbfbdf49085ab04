"""Studies: what a file stands for, and what is wrong with one, in a sentence with file and key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jaxsft.errors import ConfigError
from jaxsft.sweeps import command_grid, study_file
from jaxsft.sweeps.command_grid import SweepCommand


def read(tmp_path, **values):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return study_file.read(tmp_path)


FORMS = [
    ({"product": {"a": [1, 2], "b": [3, 4]}}, ["a1 b3", "a1 b4", "a2 b3", "a2 b4"]),
    ({"zip": {"a": [1, 2], "b": [3, 4]}}, ["a1 b3", "a2 b4"]),
    ({"chain": [{"product": {"a": [1]}}, {"zip": {"b": [2, 3]}}]}, ["a1", "b2", "b3"]),
    (
        {"product": [{"zip": {"a": [1, 2], "b": [1, 2]}}, {"product": {"c": [5, 6]}}]},
        ["a1 b1 c5", "a1 b1 c6", "a2 b2 c5", "a2 b2 c6"],
    ),
    (
        {
            "product": [
                {"product": {"a": [0, 1]}},
                {"when": {"a": 1}, "then": {"product": {"b": [7, 8]}}},
            ]
        },
        ["a0", "a1 b7", "a1 b8"],
    ),
    (
        {"ablation": {"base": {"a": 1}, "changes": {"x": {"b": 2}, "y": {"a": 3}}}},
        ["a1", "a1 b2", "a3"],
    ),
    (
        {"ablation": {"changes": {"x": {"a": 1}, "y": {"b": 2}}, "form": "leave_one_out"}},
        ["a1 b2", "b2", "a1"],
    ),
    ({"chain": [{"product": {"a": [1, 2]}}, {"product": {"a": [2, 3]}}]}, ["a1", "a2", "a3"]),
]


@pytest.mark.parametrize("form, expected", FORMS, ids=range(len(FORMS)))
def test_forms(form, expected, tmp_path):
    study = read(tmp_path, trials=form)
    told = lambda one: " ".join(f"{k}{v}" for k, v in one.items())
    assert [told(one) for one in study.settings] == expected


def test_arms_seeds_and_options(tmp_path):
    study = read(
        tmp_path,
        question="why?",
        metric="validation/accuracy",
        baseline="full",
        options={"task": "classify", "model": {"layers": 2}, "data.keep": {"x": ["y"]}},
        seeds=[0, 1],
        arms={"full": {"adapter": "none"}, "lora": {"adapter": "lora", "adapter.rank": 8}},
    )
    assert study.options == {"task": "classify", "model.layers": 2, "data.keep": {"x": ["y"]}}
    assert study.settings == (
        {"adapter": "none", "seed": 0},
        {"adapter": "none", "seed": 1},
        {"adapter": "lora", "adapter.rank": 8, "seed": 0},
        {"adapter": "lora", "adapter.rank": 8, "seed": 1},
    )
    assert study.swept == ["adapter", "seed", "adapter.rank"]
    about = study.about
    assert about["name"] == tmp_path.name and about["seeds"] == ["seed"]
    assert about["arms"]["lora"] == {"adapter": "lora", "adapter.rank": 8}


def test_an_exponent_is_a_number_in_a_study_too(tmp_path):  # guards H8
    (tmp_path / "study.yaml").write_text("trials: {product: {optim.learning_rate: [1e-3, 2.E-4]}}")
    assert [*study_file.read(tmp_path).settings] == [
        {"optim.learning_rate": 0.001},
        {"optim.learning_rate": 0.0002},
    ]


WRONG = [
    ({"trials": {"produkt": {"a": [1]}}}, r"trials: expected one of product, zip"),
    ({"trial": {}}, r"trial: unknown; there are name"),
    ({"name": "x"}, r"expected either arms or trials"),
    ({"trials": {"product": {"a": 3}}}, r"trials\.product\.a: found 3, expected a list"),
    ({"trials": {"product": {"a": []}}}, r"trials\.product\.a: found \[\], expected a list"),
    ({"trials": {"zip": {"a": [1, 2], "b": [1]}}}, r"trials\.zip: .*a has 2, b has 1"),
    ({"trials": {"chain": {"a": 1}}}, r"trials\.chain: found .* expected a list"),
    ({"trials": {"product": {1: [2]}}}, r"trials\.product: the key 1 is no text"),
    (
        {"trials": {"product": [{"product": {"a": [1]}}, {"product": {"a": [2]}}]}},
        r"trials\.product\[1\]: a is set twice",
    ),
    (
        {"trials": {"product": [{"when": {"a": 1}, "then": {"product": {"b": [1]}}}]}},
        r"trials\.product\[0\]\.when: no form before it sets a",
    ),
    ({"trials": {"when": {"a": 1}, "then": {}}}, r"trials\.when: stands in a list of a product"),
    (
        {"trials": {"ablation": {"changes": {"x": {"a": 1}}, "form": "some"}}},
        r"trials\.ablation\.form: found 'some', expected one_at_a_time",
    ),
    ({"trials": {"ablation": {"base": {}}}}, r"trials\.ablation\.changes: found None"),
    (
        {"trials": {"product": {"a": list(range(200)), "b": list(range(200))}}, "seeds": [1]},
        "10,000",
    ),
    ({"arms": {"x": {"a": 1}}, "baseline": "y"}, r"baseline: there is no arm 'y'; there are x"),
    ({"arms": {"x": {"a": 1}}, "metric": "test/f1"}, r"metric: the test split"),
    ({"arms": {"x": {"a": 1}}, "metric": "accuracy"}, r"metric: found 'accuracy'"),
    ({"arms": {"x": {"seed": 1}}, "seeds": [1]}, r"seed is set twice"),
]


@pytest.mark.parametrize("values, told", WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_a_sentence_with_file_and_key(values, told, tmp_path):
    with pytest.raises(ConfigError, match=told) as caught:
        read(tmp_path, **values)
    assert str(caught.value).startswith(f"{tmp_path / 'study.yaml'}: ")


def test_a_study_that_is_no_file_or_no_yaml(tmp_path):
    with pytest.raises(ConfigError, match=r"study\.yaml: cannot read"):
        study_file.read(tmp_path / "absent")
    (tmp_path / "study.yaml").write_text("a: &a [1]\nb: *a")
    with pytest.raises(ConfigError, match="alias"):
        study_file.read(tmp_path)


def test_words_of_the_command_take_the_place_of_options(place):
    Path("rows.txt").write_text("a line\n" * 9)
    values = {
        "options": {"task": "lm", "data.train": "rows.txt", "train.duration": "5steps"},
        "trials": {"product": {"model.norm": ["rms", "layer"], "optim": ["adamw", "lion"]}},
    }
    study = read(place, **values)
    command = SweepCommand.of_arguments(["train.duration=2steps", "run_dir=there"])
    found = command_grid.of_study(command, study)
    assert found.place == "there" and len(found.configs) == 4
    assert {one.train.duration for one in found.configs} == {"2steps"}
    assert [(one.model.norm, one.optim.name) for one in found.configs] == [
        ("rms", "adamw"), ("rms", "lion"), ("layer", "adamw"), ("layer", "lion")
    ]  # fmt: skip
    # as the analysis reads them: without quotes
    assert found.jobs[0].swept == ("model.norm=rms", "optim=adamw")
    for word, told in {
        "model.norm=rms": r"^model\.norm: the study has values of its own",
        "--fast": r"^--fast: unknown flag",
        "seed": "^seed: expected key=value",
    }.items():
        with pytest.raises(ConfigError, match=told):
            command_grid.of_study(SweepCommand.of_arguments([word]), study)
    with pytest.raises(ConfigError, match="a study says itself"):
        command_grid.of_study(SweepCommand.of_arguments(["seed=1,2"]), study)


def test_the_examples_are_studies():
    root = Path(study_file.__file__).parents[2] / "experiments"
    found = [study_file.read(path.parent) for path in sorted(root.glob("*/study.yaml"))]
    assert found and all(study.about["question"] for study in found)
