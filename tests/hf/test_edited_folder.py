"""A folder of a model that was edited is opened with the same numbers, or refused in a sentence."""

import pytest

from tests.realdata import real
from tools import fuzz_folder

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
