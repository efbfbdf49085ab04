"""Gradual unfreezing that a run is too short for."""

import pytest

from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.sharding.weight_spec import WeightSpec
from jaxsft.training.unfreezing import Movable

SPEC = WeightSpec((4, 4), "float32", ("rows", "columns"))


def test_a_run_that_ends_before_all_is_unfrozen_is_refused():
    """The head moves at once, two layers and the embedding at steps 3, 6 and 9."""
    specs = {"embed": {"tokens": {"w": SPEC}}, "head": {"out": {"w": SPEC}}}
    movable = Movable(ModelConfig(layers=2), specs, None)
    movable.check({"unfreeze_every": 3}, 10, "1epochs")
    with pytest.raises(ConfigError, match=r"unfreeze_every=1epochs: the last of 3 turns .* step 9"):
        movable.check({"unfreeze_every": 3}, 9, "1epochs")
    movable.check({}, 1, None)
