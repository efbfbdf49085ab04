"""Hints for the options of other trainers, and that every option of the config says what it
does."""

import re

import pytest

from jaxsft.config import compose, foreign, overrides, schema
from jaxsft.errors import ConfigError
from tests.docs import pages

ENTRIES = [entry for entries in foreign.TABLE.values() for entry in entries]


def test_what_is_proposed_exists():
    groups = {option: cls for options in compose.GROUPS.values() for option, cls in options.items()}
    known = set(compose.flat(overrides_of_nothing()))
    for group, options in compose.GROUPS.items():
        known |= {
            f"{group}.{name}" for cls in options.values() for name in cls.__dataclass_fields__
        }
    for entry in ENTRIES:
        key, _, value = entry.ours.partition("=")
        assert not key or key in known or value in groups, entry
        assert entry.ours or entry.note


def overrides_of_nothing() -> dict:
    return compose.to_dict(overrides.composed(["task=chat"]))


def test_a_name_stands_for_one_thing_and_is_no_option_of_ours():
    names = [name for entry in ENTRIES for name in entry.names.split()]
    assert len(names) == len(set(names))
    assert not set(names) & set(schema.Config.__dataclass_fields__)


@pytest.mark.parametrize(
    "given, expected",
    [
        ("epochs=3", "epochs: unknown option; did you mean train.duration=3epochs?"),
        ("train.epochs=3", "did you mean train.duration=3epochs?"),
        ("model.gradient_checkpointing=true", "did you mean model.remat=true?"),
        ("adapter.r=8", "did you mean adapter.rank=16? (with adapter=lora)"),
        (
            "adapter.rank=8",
            (
                "unknown option of adapter=none; it has none; adapter=lora and adapter=dora have"
                " this one"
            ),
        ),
        ("load_in_4bit=true", "there is no base in 8 or 4 bits"),
        ("data=all.csv", "a file is data.path=all.csv (split here) or data.train=all.csv"),
        ("model=models/x", "a folder of weights is model.pretrained=models/x"),
        ("trackers=wandb", "a tracker is trackers.use=[wandb]"),
        ("evaluation.every.steps=3", "evaluation.every"),
        (
            "checkpoint=3",
            "checkpoint holds several options; give them by name, such as checkpoint.every=",
        ),
    ],
)
def test_a_name_of_another_trainer_is_answered_with_ours(given, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        overrides.composed([given])


def test_every_option_is_described():
    text = pages.text("config.md").partition("## Presets")[0]
    rows = [
        re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")
    ]
    assert len(rows) > 400
    assert [row[0].strip() for row in rows if not row[-1].strip()] == []


def test_the_page_for_those_who_come_from_elsewhere_has_every_name():
    page = pages.text("coming_from.md")
    assert all(f"`{name}`" in page for entry in ENTRIES for name in entry.names.split())
