"""What generation_config.json asks for is followed or told; its stop tokens are read."""

import json

import pytest

from jaxsft.config.schema import GenerateConfig
from jaxsft.errors import ConfigError
from jaxsft.hf import generation_config

GREEDY = GenerateConfig()


@pytest.mark.parametrize(
    "values, told",
    [
        ({}, None),
        (
            {
                "eos_token_id": [1, 2],
                "bos_token_id": 0,
                "transformers_version": "5.0",
                "max_length": 20,
                "use_cache": True,
            },
            None,
        ),
        # not read there either
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9, "top_k": 20}, None),
        (
            {
                "repetition_penalty": 1.0,
                "num_beams": 1,
                "no_repeat_ngram_size": 0,
                "bad_words_ids": None,
                "suppress_tokens": [],
            },
            None,
        ),
        (
            {"do_sample": True, "temperature": 0.7, "top_p": 0.9},
            "follow it by generate.temperature=0.7 generate.top_k=50 generate.top_p=0.9",
        ),
        ({"do_sample": True}, "follow it by generate.temperature=1.0 generate.top_k=50"),
        ({"repetition_penalty": 1.2}, "follow it by generate.repetition_penalty=1.2"),
        (
            {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
            "follow it by generate.num_beams=4 generate.length_penalty=2.0",
        ),
        (
            {"no_repeat_ngram_size": 3, "min_length": 10, "forced_bos_token_id": 7},
            "no_repeat_ngram_size=3, min_length=10, forced_bos_token_id=7",
        ),
        ({"some_later_option": 1}, "nothing here does some_later_option=1"),
    ],
)
def test_what_is_not_followed_is_told(values, told):
    found = generation_config.note(values, GREEDY)
    assert found is None if told is None else found.endswith(told)


def test_what_the_user_decided_is_not_told():
    drawn = GenerateConfig(temperature=0.5, top_k=10, top_p=0.8)
    assert (
        generation_config.note(
            {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9}, drawn
        )
        is None
    )


def test_a_first_token_that_a_decoder_starts_with_is_followed():
    assert generation_config.note({"forced_bos_token_id": 0}, GREEDY, (2, 0)) is None


def test_older_folders_say_it_in_their_config(tmp_path):
    model = {"vocab_size": 9, "num_beams": 4, "no_repeat_ngram_size": 3, "d_model": 4}
    assert generation_config.read(tmp_path, model) == {"num_beams": 4, "no_repeat_ngram_size": 3}
    (tmp_path / "generation_config.json").write_text("{}")
    assert generation_config.read(tmp_path, model) == {}


@pytest.mark.parametrize("value", ["x", [1, "y"], -1, True, {"a": 1}, 1.5])
def test_a_stop_token_that_is_no_id_is_one_sentence(value, tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(
        ConfigError,
        match=r"eos_token_id=.*: expected a whole number from 0 to .*, a list of such, or null",
    ):
        generation_config.stop_ids(tmp_path, 61)


@pytest.mark.parametrize(
    "values, why",
    [
        ({"temperature": "x"}, "temperature='x': expected a number of at least 0"),
        ({"top_k": -3}, "top_k=-3: expected a whole number from 0"),
        ({"top_p": 1.5}, "top_p=1.5: expected a number from 0 to 1"),
        ({"num_beams": 0}, "num_beams=0: expected a whole number from 1"),
        ({"do_sample": "yes"}, "do_sample='yes': expected true or false"),
        ({"eos_token_id": -5}, "eos_token_id=-5: expected a whole number from 0"),
        ({"eos_token_id": [1, "a"]}, "eos_token_id=.*: expected a whole number from 0"),
        ({"eos_token_id": [1, 61]}, "eos_token_id=61: expected ids below 61"),
        ({"bos_token_id": [1]}, r"bos_token_id=\[1\]: expected a whole number"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(values, why, tmp_path):
    (tmp_path / generation_config.NAME).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"generation_config\.json: {why}"):
        generation_config.stop_ids(tmp_path, 61)
