"""Many configs of one command are those that Hydra composes one by one."""

from __future__ import annotations

import pytest

from jaxsft.config import composer, overrides
from jaxsft.errors import ConfigError

WORDS = [
    ["task=classify", "data.path=a.csv"],
    ["task=classify", "data.path=a.csv", "seed=3", "optim.learning_rate=1e-3"],
    ["task=classify", "data.path=a.csv", "seed=3", "optim=muon", "model=base"],
    ["task=chat", "data.train=a.jsonl", "experiment=sft_lora", "adapter.rank=4"],
    ["task=chat", "data.train=a.jsonl", "++task.variables.mood=kind", "debug=fast"],
    ["task=lm", "data.train='it, is.txt'", "model.window_layers=[0,1]", "+data.keep.x=[y]"],
    ["task=classify", "data.path=a.csv", "seed=5"],
]


def test_each_config_is_that_of_its_words_alone():
    with composer.opened() as maker:
        for words in [*WORDS, *reversed(WORDS)]:
            found, expected = maker.config(words), overrides.composed(words)
            assert found == expected and found.unasked == expected.unasked


def test_two_hundred_jobs_load_each_choice_of_groups_once(monkeypatch):
    loads = []
    whole = composer.Composer._load
    monkeypatch.setattr(
        composer.Composer, "_load", lambda self, *a, **k: loads.append(a) or whole(self, *a, **k)
    )
    with composer.opened() as maker:
        for i in range(200):
            rate = f"optim.learning_rate={i + 1}e-4"
            config = maker.config(
                ["task=lm", "data.train=a.txt", f"adapter={('none', 'lora')[i % 2]}", rate]
            )
            assert config.optim.learning_rate == float(f"{i + 1}e-4")
        assert len(loads) == 2 and len(maker._composed) == 2


def test_presets_of_the_user_are_found(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nmodel: {mlp: 48}\n")
    (tmp_path / "own").mkdir()
    with composer.opened([str(tmp_path)]) as maker:
        config = maker.config(["task=lm", "data.train=a.txt", "experiment=mine"])
    assert config.model.mlp == 48 and "model.mlp" not in dict(config.unasked)


@pytest.mark.parametrize(
    "word, told",
    [
        ("sed=3", "sed: unknown option"),
        ("optim.learning_rate=fast", "could not be converted"),
        ("optim=adamq", "adamq"),
        ("seed=[", "not a value"),
    ],
)
def test_what_is_wrong_is_told_as_of_one_run(word, told):
    with composer.opened() as maker:
        for _ in range(2):  # the second time from what is held
            with pytest.raises(ConfigError, match=told):
                maker.config(["task=lm", "data.train=a.txt", word])
        assert maker.config(["task=lm", "data.train=a.txt"]).seed == 0
