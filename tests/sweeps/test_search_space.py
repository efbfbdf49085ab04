"""What the options of a search may be, and what is told where they are wrong."""

from __future__ import annotations

import pytest

from jaxsft.config import search_options
from jaxsft.errors import ConfigError
from jaxsft.sweeps import search_space

AT = "study.yaml: search"


def test_axes_of_a_space():
    given = {
        "optim": {"learning_rate": {"low": "1e-5", "high": 1e-3, "log": True}},
        "train.batch_size": {"low": 8, "high": 32, "step": 8},
        "task.dropout": [0, 0.1],
    }
    rate, size, dropout = search_space.read(search_options.number(given), AT)
    assert (rate.option, rate.low, rate.log, rate.whole) == (
        "optim.learning_rate",
        1e-5,
        True,
        False,
    )
    assert size.whole and size.grid(AT) == [8, 16, 24, 32] and dropout.ends() == [0, 0.1]
    again = {axis.option: axis.plain() for axis in (rate, size, dropout)}
    assert search_space.read(again, AT) == (rate, size, dropout)


def test_a_grid_has_the_points_of_each_axis():
    axes = search_space.read(
        {"a": {"low": 1e-4, "high": 1e-2, "log": True, "count": 3}, "b": [1]}, AT
    )
    assert search_space.grid(axes, AT) == [
        {"a": 1e-4, "b": 1},
        {"a": 1e-3, "b": 1},
        {"a": 1e-2, "b": 1},
    ]
    assert search_space.edges(axes) == [{"a": 1e-4, "b": 1}, {"a": 1e-2, "b": 1}]
    free = search_space.read({"a": {"low": 0.0, "high": 1.0}}, AT)
    with pytest.raises(ConfigError, match=r"search\.a: a grid needs a list, a step or a count"):
        search_space.grid(free, AT)


def test_words_of_hydra_are_a_space():
    words = [
        "task=lm",
        "optim.learning_rate=tag(log,interval(1e-5,1e-3))",
        "train.batch_size=int(interval(1,8))",
        "task.dropout=0,0.1",
        "data.train=choice(a,b)",
        "seq=range(0,10,5)",
    ]
    space, rest = search_space.of_words(words)
    assert rest == ["task=lm"] and space == {
        "optim.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        "train.batch_size": {"low": 1, "high": 8},
        "task.dropout": [0, 0.1],
        "data.train": ["a", "b"],
        "seq": {"low": 0, "high": 5, "step": 5},
    }


@pytest.mark.parametrize(
    "space, told",
    [
        ({}, "search.space: found {}, expected values of options by name"),
        ({"a": 3}, "search.space.a: found 3, expected a list of values, or low and high"),
        ({"a": []}, "search.space.a: found an empty list, expected values"),
        ({"a": [[1]]}, r"search.space.a: found \[1\], expected texts, numbers, true, false"),
        ({"a": [1, 1]}, "search.space.a: has a value twice"),
        ({"a": {"low": 1}}, "search.space.a: has no high"),
        ({"a": {"low": 1, "high": "x"}}, "search.space.a.high: found 'x', expected a number"),
        ({"a": {"low": 2, "high": 1}}, "search.space.a: low is 2 and high is 1, expected more"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "search.space.a.low: found 0, expected more"),
        ({"a": {"low": 0, "high": 1, "steps": 1}}, "search.space.a.steps: unknown; there are low"),
        ({"seed": [1, 2]}, "search.space.seed: a seed is nothing to search for"),
        ({"evaluation.metric": ["a"]}, "search.space.evaluation.metric: cannot differ"),
    ],
)
def test_a_wrong_space_is_a_sentence_with_file_and_key(space, told):
    with pytest.raises(ConfigError, match=f"study.yaml: {told}"):
        search_space.read(space, f"{AT}.space")


@pytest.mark.parametrize(
    "given, told",
    [
        ({"metric": "test/accuracy"}, "search.metric: found 'test/accuracy'; the test split is"),
        ({"constraints": {"test/loss": {"at_most": 1}}}, "search.constraints: found 'test/loss'"),
        ({"metric": "accuracy"}, "search.metric: found 'accuracy', expected one as validation/"),
        ({"sampler": "tpa"}, "search.sampler=tpa: "),
        ({"trials": 0}, "search.trials=0: "),
        ({"trails": 3}, "search.trails: unknown option; did you mean trials"),
        ({"direction": "up"}, "search.direction: found 'up', expected auto, minimize, maximize"),
        ({"metric": ["seconds", "parameters"], "prune": "median"}, "search.prune: trials are"),
        ({"metric": ["seconds", "parameters"], "sampler": "cmaes"}, "search.sampler: cmaes"),
        ({"metric": "seconds", "prune": "median"}, "search.prune: seconds is known at the end"),
        ({"constraints": {"seconds": 3}}, "search.constraints.seconds: found 3, expected at_most"),
        ({"constraints": {"seconds": {"at_most": "x"}}}, "seconds.at_most: found 'x', expected a"),
        ({"storage": "postgresql://me:secret@db/x"}, "search.storage: holds a password"),
    ],
)
def test_a_wrong_option_is_a_sentence_with_file_and_key(given, told):
    with pytest.raises(ConfigError, match=f"study.yaml: .*{told}|study.yaml: {told}"):
        search_options.read(given, AT)
