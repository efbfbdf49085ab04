"""Penalties on the weights that a pattern names."""

import jax
import numpy as np
import pytest

from jaxsft.config.schema import Penalty
from jaxsft.errors import ConfigError
from jaxsft.losses.terms import penalties
from tests.conftest import bench


def sums(*rules):
    b = bench("lm", 3)
    return b.params, [
        float(penalties.penalty(r.kind, b.params, m))
        for r, m in zip(rules, penalties.masks(rules, b.parts.specs), strict=True)
    ]


def test_by_pattern():
    """Everything, one weight, one layer of a stack, two kinds of the same."""
    rules = (
        Penalty("l1", "embed/tokens/w"),
        Penalty("l2", "embed/tokens/w"),
        Penalty("l2", "layers/1/.*"),
        Penalty("l1", "layers/[01]/mlp/up/w"),
        Penalty("l2"),
    )
    params, found = sums(*rules)
    w, stack = np.asarray(params["embed"]["tokens"]["w"], np.float64), params["layers"]["0"]
    expected = [
        np.abs(w).sum(),
        (w**2).sum(),
        sum((np.asarray(x[1], np.float64) ** 2).sum() for x in jax.tree.leaves(stack)),
    ]
    expected += [
        np.abs(np.asarray(stack["mlp"]["up"]["w"])).sum(),
        sum((np.asarray(x, np.float64) ** 2).sum() for x in jax.tree.leaves(params)),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_pattern_or_kind_that_is_wrong_is_refused():
    with pytest.raises(ConfigError, match=r"loss\.penalties: .*layer/1"):
        sums(Penalty("l2", "layer/1/.*"))
    with pytest.raises(ConfigError, match=r"loss\.penalties: unknown kind l3; there are l1 and l2"):
        sums(Penalty("l3"))
