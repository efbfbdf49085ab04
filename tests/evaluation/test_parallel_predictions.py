"""Whether a model says the same of the same sentence in several languages."""

import pytest

from jaxsft.errors import ConfigError
from jaxsft.evaluation.compare import Settings
from jaxsft.evaluation.parallel_predictions import consistency, overlap

SETTINGS = Settings(replicates=100)


def lines(values):
    return {str(i): {"prediction": value} for i, value in enumerate(values)}


def one_pair(a, b):
    found = consistency({"de": lines(a), "en": lines(b)}, SETTINGS)
    return found["measure"], found["pairs"][0]


def test_labels():
    measure, pair = one_pair("xxyyx" * 10, "xxyxx" * 10)
    assert (measure, pair["value"], pair["n"], pair["left_out"]) == ("same", 0.8, 50, 0)
    assert pair["method"] == "wilson" and pair["low"] < 0.8 < pair["high"]
    assert pair["by_chance"] == pytest.approx(0.6 * 0.8 + 0.4 * 0.2)


def test_sentences_without_a_prediction_are_left_out():
    _, pair = one_pair(["x", None, "y", "y"], ["x", "y", None, "x"])
    assert (pair["value"], pair["n"], pair["left_out"]) == (0.5, 2, 2)


def test_tags_trees_numbers_and_intents():
    assert one_pair([["N", "V", "N"]] * 3, [["V", "N"]] * 3)[1]["value"] == pytest.approx(0.8)
    tree = {"head": [0, 1], "upos": ["N", "V"], "deprel": ["root", "obj"]}
    other = {"head": [0], "upos": ["N"], "deprel": ["root"]}
    measure, pair = one_pair([tree] * 2, [other] * 2)
    assert (measure, pair["value"]) == ("overlap", pytest.approx(2 / 3))
    measure, pair = one_pair([1.0, 2.0], [1.5, 1.0])
    assert (measure, pair["value"]) == ("difference", 0.75)
    joint = {"0": {"prediction": ["O"], "predicted_intent": "alarm"}}
    assert consistency({"a": joint, "b": joint}, SETTINGS)["measure"] == "same"


def test_what_cannot_be_compared_is_told():
    with pytest.raises(ConfigError, match="found the prediction"):
        one_pair([{"valence": 1.0}], [{"valence": 1.0}])
    with pytest.raises(ConfigError, match="nothing was predicted"):
        one_pair([None], [None])


def test_overlap_of_bags():
    assert overlap(["a", "a", "b"], ["a", "b", "b"]) == pytest.approx(2 / 3)
    assert overlap([], []) == 1 and overlap(["a"], []) == 0
