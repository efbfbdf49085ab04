"""Effects of swept options: of each, of pairs, and their importance."""

import sys

import numpy as np
import pytest

from jaxsft.errors import ConfigError
from jaxsft.extras import need
from jaxsft.sweeps import analysis
from jaxsft.sweeps.option_effects import effects
from tests.sweeps.fake_sweep import Made, make

pytestmark = pytest.mark.heart
GRID = {"optim.learning_rate": [0.0001, 0.001, 0.01], "model.dropout": [0.1, 0.3]}


def searched(count):
    """Returns settings as a search draws them."""
    rng = np.random.default_rng(0)
    return [
        {
            "optim.learning_rate": float(10 ** rng.uniform(-5, -2)),
            "model.dropout": float(rng.uniform(0, 0.5)),
            "optim": str(rng.choice(["adamw", "lion"])),
        }
        for _ in range(count)
    ]


def of(folder, how):
    return effects(analysis.read_sweep(make(folder, how)))


def test_shares_of_a_grid_are_those_of_an_analysis_of_variance(tmp_path):
    """The sums of squares of a balanced grid, by hand."""
    results = analysis.read_sweep(
        make(tmp_path, Made(GRID, quality=lambda o: 0.6 + 20 * o["optim.learning_rate"], rows=500))
    )
    found = effects(results)
    y = np.array([t.value for t in results.trials]).reshape(3, 2, 3)  # rates, dropouts, seeds
    whole = ((y - y.mean()) ** 2).sum()
    of_rates = 6 * ((y.mean((1, 2)) - y.mean()) ** 2).sum()
    of_dropout = 9 * ((y.mean((0, 2)) - y.mean()) ** 2).sum()
    cells = y.mean(2)
    rest = cells - cells.mean(1, keepdims=True) - cells.mean(0, keepdims=True) + y.mean()
    shares = {one.name: one.share for one in found.options}
    assert shares["optim.learning_rate"] == pytest.approx(of_rates / whole)
    assert shares["model.dropout"] == pytest.approx(of_dropout / whole)
    (pair,) = found.pairs
    assert pair.share == pytest.approx(3 * (rest**2).sum() / whole)
    # the options of a pair stand as they were given, and their levels in order
    by_rate = cells if pair.a == "optim.learning_rate" else cells.T
    np.testing.assert_allclose(np.array(pair.cells, float), by_rate)
    assert not any("balanced" in note for note in found.notes)


def test_what_matters_is_found_and_what_does_not_is_not(tmp_path):
    quality = lambda o: 0.6 + 20 * o["optim.learning_rate"]
    found = of(tmp_path, Made(GRID, quality=quality, rows=500, seeds=(0, 1, 2, 3)))
    first, second = sorted(found.options, key=lambda one: -one.share)
    assert first.name == "optim.learning_rate" and first.p < 1e-3 and first.rank > 0.5
    assert second.p > 0.01 and second.rank is None
    assert [level.level for level in first.levels] == ["0.0001", "0.001", "0.01"]
    assert all(level.low < level.mean < level.high and level.n == 8 for level in first.levels)


def test_two_options_that_work_together_are_an_interaction(tmp_path):
    both = lambda o: 0.6 + 0.25 * ((o["optim.learning_rate"] > 0.005) == (o["model.dropout"] > 0.2))
    found = of(tmp_path, Made(GRID, quality=both, rows=500))
    assert found.pairs[0].share > 0.6 and found.pairs[0].p < 1e-4


def test_many_values_of_an_option_are_cut_into_parts(tmp_path):
    arms = searched(24)
    found = of(
        tmp_path, Made(arms=arms, seeds=(0,), quality=lambda o: 0.6 + 20 * o["optim.learning_rate"])
    )
    rates = next(one for one in found.options if one.name == "optim.learning_rate")
    assert [level.n for level in rates.levels] == [6, 6, 6, 6] and rates.rank > 0.4
    assert any("not balanced" in note for note in found.notes)


@pytest.mark.parametrize(
    "how",
    [
        Made({"model.dropout": [0.1]}, seeds=(0, 1, 2)),
        Made({"model.dropout": [0.1, 0.2]}, seeds=(0,)),
        Made(GRID, broken=dict.fromkeys(range(18), "planned")),
    ],
)
def test_too_little_for_effects_is_a_sentence(tmp_path, how):
    found = of(tmp_path, how)
    assert not found.options and len(found.notes) == 1


def test_without_optuna_there_are_effects_and_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError):
        need("optuna", "x", "search")
    found = of(tmp_path, Made(GRID))
    assert len(found.options) == 2 and all(one.importance is None for one in found.options)
    assert any("jaxsft[search]" in note for note in found.notes)


def test_importance_is_that_of_optuna(tmp_path):
    optuna = pytest.importorskip("optuna")
    arms = searched(30)
    how = Made(
        arms=arms,
        seeds=(0,),
        quality=lambda o: 0.85 - 0.15 * abs(np.log10(o["optim.learning_rate"]) + 3),
    )
    before = optuna.logging.get_verbosity()
    found = of(tmp_path, how)
    weights = {one.name: one.importance for one in found.options}
    assert max(weights, key=weights.get) == "optim.learning_rate"
    assert sum(weights.values()) == pytest.approx(1)
    assert found.options[0].name == "optim.learning_rate"
    assert optuna.logging.get_verbosity() == before
