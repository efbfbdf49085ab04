"""A folder of a model that was edited is opened with the same numbers, or refused in a sentence."""

import json

import pytest

from jaxsft.errors import ConfigError
from jaxsft.hf import families
from tests.realdata import real
from tools import fuzz_folder
from tools.config_fuzz import PUBLISHED, shrink

EDITS = [
    "hidden_size='64'",
    "half config.json",
    "utf-16 tokenizer.json",
    "linked tokenizer_config.json",
    "made_folder generation_config.json",
    "two tokens of a name",
    "added otherwise",
    "tensor missing",
    "shard missing",
    "tensor in two shards",
]


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_a_folder_is_named_in_one_sentence(name):
    """`python -m tools.fuzz_folder` makes all of them."""
    edit = fuzz_folder.edits()[name]
    kind, said = fuzz_folder.outcome(real("stories260K_hf"), edit, "Once", "")
    assert kind == "named", said


@pytest.mark.parametrize("family", ["glm", "glm4"])
def test_null_for_a_part_of_the_head_is_refused(family):
    """The class of transformers computes otherwise with null than without the key."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    values = shrink(next(v for v in published.values() if v["model_type"] == family))
    assert families.of(values, "a").model(values)
    values["partial_rotary_factor"] = None
    with pytest.raises(ConfigError, match="partial_rotary_factor=None: expected a number"):
        families.of(values, "a").model(values)
