"""Published configs load as their makers wrote them; whatever a key holds, the answer is a model or
one sentence.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jaxsft.errors import ConfigError
from jaxsft.hf import families
from jaxsft.hf.families import keys
from jaxsft.hf.families.key_types import SCHEMA
from jaxsft.hf.families.reads import ALIASES, READS
from tools.config_fuzz import shrink

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
FIRST = {values["model_type"]: values for values in reversed(PUBLISHED.values())}
STRANGE = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3.5,
    10**400,
    2**31,
    1e300,
    float("nan"),
    float("inf"),
    "x",
    "",
    [],
    ["x"],
    [[1]],
    {},
    {"a": 1},
    {"type": []},
)


def model(values):
    return families.of(values, "config.json").model(values)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_config_loads(name):  # guards G9
    values = PUBLISHED[name]
    whole, small = model(values), model(shrink(values))
    sizes = [values[key] for key in ("hidden_size", "d_model", "n_embd", "dim") if key in values]
    assert [whole.embed] == sizes
    assert whole.context >= small.context
    same = (
        "tied",
        "positions",
        "activation",
        "norm",
        "norm_position",
        "gated",
        "causal",
        "qkv_bias",
        "qk_norm",
        "rope_fraction",
    )
    # these follow from sizes
    if values["model_type"] not in ("m2m_100", "hunyuan_v1_dense"):
        same += ("rope_base",)
    assert {key: getattr(whole, key) for key in same} == {key: getattr(small, key) for key in same}


def test_there_is_one_of_every_family_that_was_published():
    assert set(families.FAMILIES) == set(FIRST) == set(READS)


@pytest.mark.parametrize("family", FIRST)
def test_a_key_without_a_reader_changes_nothing(family):  # guards G9
    """The keys of other families, and names that nobody has: what the class never reads is passed
    over, whatever it holds.
    """
    values = FIRST[family]
    unread = (
        frozenset().union(*map(keys.names_read, READS))
        - keys.names_read(family)
        - set(ALIASES.get(family, {}))
    )
    more = {key: i for i, key in enumerate(sorted(unread))} | {
        "use_mrope": True,
        "is_llama_config": 3,
        "a": None,
        "_private": [],
        "transformers.js": {},
    }
    assert model({**more, **values}) == model(values)


@pytest.mark.parametrize("family", FIRST)
def test_whatever_a_key_holds_the_answer_is_a_sentence(family):  # guards F2
    values = shrink(FIRST[family])
    for key in sorted(keys.names_read(family) | set(values)):
        for value in STRANGE:
            try:
                model(values | {key: value})
            except ConfigError as error:
                assert (
                    key in str(error)
                    or key in ALIASES.get(family, {})
                    or key in ("head_dim", "encoder_ffn_dim", "encoder_attention_heads")
                ), error
                assert len(str(error)) < 700 and "\n" not in str(error)


@pytest.mark.parametrize("family", FIRST)
def test_what_is_read_is_what_its_class_reads(family):
    """No reader looks at a key that the class does not, so that none has an effect here alone; and
    each has a type.
    """
    values, of_family = FIRST[family], families.of(FIRST[family], "x")
    for reader in filter(None, (of_family, of_family.encoder)):
        found = keys.Keys(values, "x", family)
        reader.read(found)
        assert found.read_so_far <= keys.names_read(family) | set(ALIASES.get(family, {}).values())
        assert found.read_so_far <= set(SCHEMA)


@pytest.mark.parametrize(
    "key, meant",
    [
        ("rope_thetaa", "rope_theta"),
        ("rms_norm_esp", "rms_norm_eps"),
        ("Sliding-Window", "sliding_window"),
        ("tie_word_embedings", "tie_word_embeddings"),
    ],
)
def test_a_slip_of_the_pen_is_an_error(key, meant):
    values = {name: value for name, value in FIRST["mistral"].items() if name != meant}
    with pytest.raises(
        ConfigError,
        match=re.escape(f"config.json: {key}=7: nothing reads it; {meant} is what the class reads"),
    ):
        model(values | {key: 7})
    model(values | {f"_{meant}": 7, "vocab_sizes_of_others": 7, "n_head": 7})


@pytest.mark.parametrize(
    "family, changes, message",
    [
        ("llama", {"rms_norm_eps": -1}, "rms_norm_eps=-1: expected a number above 0"),
        ("llama", {"rms_norm_eps": 0}, "rms_norm_eps=0: expected"),
        ("llama", {"rope_theta": 0}, "rope_theta=0: expected a number of at least 1"),
        ("llama", {"rope_theta": "x"}, "rope_theta='x': expected a number"),
        ("llama", {"rope_scaling": []}, r"rope_scaling=\[\]: expected an object"),
        (
            "llama",
            {"rope_scaling": {"type": "linear", "factor": "2"}},
            "factor='2': expected a number",
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": "yarn", "factor": float("inf")}},
            "factor=inf: expected a number",
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": "linear", "factor": 0.5}},
            "factor=0.5: expected a number of at least 1",
        ),
        (
            "llama",
            {
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 2.0,
                    "low_freq_factor": 4.0,
                    "high_freq_factor": 4.0,
                }
            },
            "low_freq_factor below",
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 1, "beta_slow": 2}},
            "beta_fast of at least beta_slow",
        ),
        (
            "llama",
            {"rope_scaling": {"rope_type": ["yarn"]}},
            r"the scaling \['yarn'\] is not known here",
        ),
        # half of local_attention: a property of its config class with a setter
        ("modernbert", {"sliding_window": 3}, "sliding_window=3: nothing here reads it, but"),
        (
            "deberta-v2",
            {"max_relative_positions": 4},
            "position_buckets=6: expected less than 6, for the longest distance is 4",
        ),
        ("llama", {"head_dim": 3}, "3 of the 3 dimensions of a head would turn"),
        ("llama", {"num_attention_heads": 7}, "num_attention_heads=7: does not divide hidden_size"),
        (
            "llama",
            {"num_key_value_heads": 3},
            "num_key_value_heads=3: num_attention_heads=4 is no multiple",
        ),
        (
            "llama",
            {"num_hidden_layers": 10**9},
            "num_hidden_layers=1000000000: expected a whole number from 1 to 4096",
        ),
        ("llama", {"vocab_size": 0}, "vocab_size=0: expected"),
        ("llama", {"hidden_size": 32.0}, "hidden_size=32.0: expected a whole number"),
        (
            "llama",
            {"is_causal": False},
            "is_causal=False: nothing here reads it, but the class of llama does",
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}},
            "have 1 numbers, expected 4",
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "longrope", "long_factor": [0.0], "short_factor": [1.0]}},
            "expected a list of numbers above 0",
        ),
        (
            "bart",
            {"encoder_attention_heads": 4, "num_attention_heads": 2},
            "num_attention_heads=2: is another name of encoder_attention_heads",
        ),
        (
            "mixtral",
            {"num_experts_per_tok": 9},
            "num_experts_per_tok=9: is more than num_local_experts=6",
        ),
        ("roberta", {"max_position_embeddings": 2}, "has no row behind the 2 of padding"),
    ],
)
def test_what_cannot_be_is_an_error(family, changes, message):  # guards F2
    with pytest.raises(ConfigError, match=message):
        model(shrink(FIRST[family]) | changes)


def test_a_name_that_the_class_prefers_is_the_one_that_counts():
    assert model(FIRST["bart"] | {"num_hidden_layers": 5}).layers == 5
    assert (
        model(
            {key: value for key, value in FIRST["gpt2"].items() if key != "n_embd"}
            | {"hidden_size": 96}
        ).embed
        == 96
    )
