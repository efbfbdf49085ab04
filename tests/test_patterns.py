"""Patterns over virtual paths."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsft import patterns
from jaxsft.errors import ConfigError
from jaxsft.sharding.weight_spec import WeightSpec


def spec(*axes: str, n: int = 3, inputs: int = 0) -> WeightSpec:
    return WeightSpec(tuple(n if a == "layers" else 4 for a in axes), np.float32, axes, inputs)


SPECS = {
    "embedding": {"w": spec("vocab", "embed")},
    "layers": {
        "0": {
            "attention": {"q": {"w": spec("layers", "embed", "heads", n=4, inputs=1)}},
            "norm": {"scale": spec("layers", "embed", n=4)},
        },
        "4": {
            "attention": {"q": {"w": spec("layers", "embed", "heads", n=8, inputs=1)}},
            "norm": {"scale": spec("layers", "embed", n=8)},
        },
    },
}


def test_virtual_paths_number_layers_across_segments():
    paths = patterns.virtual_paths(SPECS)
    assert len(paths) == len(set(paths)) == 1 + 2 * 12
    assert [p for p in paths if p.endswith("q/w")] == [
        f"layers/{i}/attention/q/w" for i in range(12)
    ]
    assert "embedding/w" in paths


def test_stacks_below_a_prefix_and_of_adapters():
    specs = {"decoder": {"layers": {"2": {"q": {"w": {"a": spec("layers", "embed", n=2)}}}}}}
    assert patterns.virtual_paths(specs) == ["decoder/layers/2/q/w/a", "decoder/layers/3/q/w/a"]


def test_a_stack_elsewhere_is_a_bug():
    with pytest.raises(ValueError, match="must lie at"):
        patterns.virtual_paths({"blocks": {"w": spec("layers", "embed")}})


def test_path_string():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Node:
        x: int

    assert (
        patterns.path_string(jax.tree_util.tree_flatten_with_path({"a": [Node(1)]})[0][0][0])
        == "a/0/x"
    )


def test_first_match_wins_and_partial_matches_become_vectors():
    rules = [(r"layers/[5-9]/attention/.*", 0.5), (r"layers/1\d/.*", 2.0), (r"layers/.*/q/w", 3.0)]
    found = patterns.resolve(rules, SPECS, 1.0, option="optim.lr_groups")
    assert jax.tree.structure(found) == jax.tree.structure(SPECS)
    assert found["embedding"]["w"] == 1.0
    assert found["layers"]["0"]["attention"]["q"]["w"] == 3.0
    assert found["layers"]["0"]["norm"]["scale"] == 1.0
    np.testing.assert_array_equal(
        found["layers"]["4"]["attention"]["q"]["w"], [3, 0.5, 0.5, 0.5, 0.5, 0.5, 2, 2]
    )
    np.testing.assert_array_equal(found["layers"]["4"]["norm"]["scale"], [1, 1, 1, 1, 1, 1, 2, 2])
    assert found["layers"]["4"]["norm"]["scale"].dtype == np.float64


def test_values_that_are_no_numbers():
    found = patterns.resolve([("layers/0/.*", True)], SPECS, False, option="train.freeze")
    assert found["layers"]["0"]["norm"]["scale"] == [True, False, False, False]
    assert found["embedding"]["w"] is False
    counts = jax.tree.map(lambda s, v: sum(v) if isinstance(v, list) else int(v), SPECS, found)
    assert counts["layers"]["0"]["norm"]["scale"] == 1
    named = patterns.resolve([("embedding/.*", "fp32")], SPECS, None, option="dtype")
    assert named["embedding"]["w"] == "fp32" and named["layers"]["4"]["norm"]["scale"] is None


def test_no_rules():
    assert patterns.resolve([], SPECS, 1.0, option="x")["embedding"]["w"] == 1.0
    assert patterns.resolve([], {}, 1.0, option="x") == {}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            [("layers/./atention/.*", 0.0)],
            [
                "train.freeze",
                "'layers/./atention/.*'",
                "matches no parameter",
                "attention/q/w",
                "embedding/w",
            ],
        ),
        # a search would have matched
        ([("attention", 0.0)], ["matches no parameter", "'.*attention.*'"]),
        ([("layers/12/.*", 0.0)], ["matches no parameter"]),  # one layer too many
        (
            [("layers/.*", 0.0), ("layers/3/.*", 1.0)],
            ["'layers/3/.*' has no effect", "'layers/.*'", "first match wins"],
        ),
        ([("embedding/w", 0.0), ("embedding/w", 1.0)], ["has no effect"]),
        ([("layers/(", 0.0)], ["train.freeze", "'layers/('", "not a regular expression"]),
    ],
)
def test_a_pattern_without_effect_is_an_error(rules, said):
    with pytest.raises(ConfigError) as error:
        patterns.resolve(rules, SPECS, 1.0, option="train.freeze")
    for words in said:
        assert words in str(error.value)


def test_close_paths_of_many_layers_do_not_crowd_out_others():
    specs = {
        "layers": {
            "0": {name: {"w": spec("layers", "embed", n=48)} for name in ("gate", "up", "down")}
        }
    }
    with pytest.raises(ConfigError) as error:
        patterns.resolve([("layers/7/gatee/w", 0.0)], specs, 1.0, option="o")
    for name in ("gate", "up", "down"):
        assert f"layers/0/{name}/w" in str(error.value)
