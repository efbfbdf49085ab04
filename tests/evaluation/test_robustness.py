"""Numbers under perturbations, paired by row, of runs made by hand."""

import numpy as np
import pytest

from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import robustness
from jaxsft.evaluation.compare import Settings
from jaxsft.evaluation.measured import measure
from jaxsft.evaluation.perturbed_runs import Condition, RobustnessOptions, ScoredRows
from jaxsft.metrics.base import Outputs
from jaxsft.reports import robustness_page
from tests.evaluation.two_runs import LABELS

SETTINGS = Settings(replicates=400)
WEAK, STRONG = Condition("keyboard", 0.1), Condition("keyboard", 0.3)
ROWS = 300
GOLD = np.arange(ROWS) % 3


def scored(wrong: np.ndarray, where: str = "a.csv", clusters=None) -> ScoredRows:
    """Returns rows of which some are wrong."""
    predicted = np.where(wrong, (GOLD + 1) % 3, GOLD)
    outputs = Outputs(np.arange(ROWS), {"label": GOLD, "predicted": predicted}, LABELS)
    return ScoredRows(
        [f"{where}:{i}" for i in range(ROWS)],
        [{"text": str(i)} for i in range(ROWS)],
        measure(["label_scores"], [], outputs, "classify"),
        dict(enumerate(predicted.tolist())),
        clusters,
        {"first": np.arange(ROWS) < 50, "rest": np.arange(ROWS) >= 50},
    )


NONE = np.zeros(ROWS, bool)
TEN = np.arange(ROWS) < 10  # all in the first slice
MORE = (np.arange(ROWS) % 5) == 0


@pytest.fixture(scope="module")
def report():
    models = {
        "weak": {None: scored(NONE), WEAK: scored(TEN), STRONG: scored(TEN | MORE)},
        "firm": {None: scored(NONE), WEAK: scored(NONE), STRONG: scored(TEN)},
    }
    return robustness.report(models, ["accuracy"], SETTINGS)


def test_drops_flips_and_slices(report):
    of = report["models"]["weak"]["numbers"]["accuracy"]
    weak, strong = of["conditions"]
    wrong = [TEN.mean(), (TEN | MORE).mean()]
    assert [weak["value"], strong["value"]] == pytest.approx([1 - w for w in wrong])
    assert [weak["drop"]["value"], strong["drop"]["value"]] == pytest.approx(wrong)
    for entry, w in zip((weak, strong), wrong, strict=True):
        assert entry["drop"]["low"] < w < entry["drop"]["high"]
        assert entry["drop"]["p_holm"] >= entry["drop"]["p"] and entry["drop"]["p"] < 0.01
    flips = report["models"]["weak"]["flips"]
    assert [entry["value"] for entry in flips] == pytest.approx(wrong)
    assert all(entry["low"] < entry["value"] < entry["high"] for entry in flips)
    assert weak["worst_slice"]["slice"] == "first" and weak["worst_slice"]["value"] == 0.8
    # for all slices together: wider than for this one alone
    assert weak["worst_slice"]["level"] == pytest.approx(0.975)
    assert of["mean_drop"]["all"]["value"] == pytest.approx(np.mean(wrong))
    assert of["worst_case"]["value"] == pytest.approx(1 - (TEN | MORE).mean())


def test_pairing_makes_bounds_of_a_drop_narrow():
    """The drop of rows that are wrong anyway is exactly 0, whatever the score is."""
    hard = np.arange(ROWS) % 2 == 0
    models = {"m": {None: scored(hard), WEAK: scored(hard)}}
    entry = robustness.report(models, ["accuracy"], SETTINGS)["models"]["m"]["numbers"]["accuracy"]
    drop = entry["conditions"][0]["drop"]
    assert (drop["value"], drop["low"], drop["high"], drop["p"]) == (0, 0, 0, 1)
    assert entry["conditions"][0]["high"] - entry["conditions"][0]["low"] > 0.1


def test_models_side_by_side(report):
    found = {entry["perturbation"]: entry for entry in report["differences"]}
    assert set(found) == {"all", "keyboard"}
    means = [
        report["models"][m]["numbers"]["accuracy"]["mean_drop"]["all"]["value"]
        for m in ("weak", "firm")
    ]
    assert found["all"]["value"] == pytest.approx(means[1] - means[0])
    assert found["all"]["high"] < 0  # the second one loses less


def test_less_is_better():
    """A drop is a loss, whichever way the number points."""
    values = lambda x: Outputs(
        np.arange(ROWS), {"targets": np.zeros((ROWS, 1)), "predictions": x[:, None]}, ("",)
    )
    of = lambda x: ScoredRows(
        [str(i) for i in range(ROWS)],
        list(range(ROWS)),
        measure(["number_scores"], [], values(x), "regress"),
        None,
        None,
        {},
    )
    rng = np.random.default_rng(0)
    models = {"m": {None: of(rng.normal(0, 1, ROWS)), WEAK: of(rng.normal(0, 2, ROWS))}}
    found = robustness.report(models, ["mae"], SETTINGS)["models"]["m"]
    entry = found["numbers"]["mae"]
    assert entry["lower_is_better"] and entry["conditions"][0]["drop"]["value"] > 0
    assert entry["conditions"][0]["drop"]["low"] > 0
    assert found["flips"] == [] and entry["conditions"][0]["worst_slice"] is None
    assert "worst_case" not in entry


def test_other_rows_are_an_error():
    models = {"a": {None: scored(NONE), WEAK: scored(NONE, where="b.csv")}}
    with pytest.raises(DataError, match="records of the same rows"):
        robustness.report(models, ["accuracy"], SETTINGS)
    with pytest.raises(ConfigError, match="metrics=f7: is no number"):
        robustness.report({"a": {None: scored(NONE), WEAK: scored(NONE)}}, ["f7"], SETTINGS)


def test_clusters_are_drawn_together():
    clusters = np.array([f"c{i // 30}" for i in range(ROWS)])
    alone = {"m": {None: scored(NONE), WEAK: scored(TEN)}}
    together = {"m": {None: scored(NONE, clusters=clusters), WEAK: scored(TEN, clusters=clusters)}}
    widths = []
    for models in (alone, together):
        found = robustness.report(models, ["accuracy"], SETTINGS)["models"]["m"]
        drop = found["numbers"]["accuracy"]["conditions"][0]["drop"]
        widths.append(drop["high"] - drop["low"])
    assert widths[1] > 1.5 * widths[0]


def test_page_and_curves(report):
    page = robustness_page.markdown(report)
    assert "## weak: accuracy" in page and "| keyboard " in page and "side by side" in page
    curves = robustness_page.curves(report)["curves"]
    assert [point["strength"] for point in curves[0]["points"]] == [0.0, 0.1, 0.3]
    assert curves[0]["points"][0]["value"] == 1.0 and len(curves) == 2


@pytest.mark.parametrize("strengths", [(), (0.0,), (0.2, 0.1), (0.1, 0.1), (1.5,)])
def test_strengths_are_checked(strengths):
    with pytest.raises(ConfigError, match=r"robustness\.strengths"):
        RobustnessOptions(strengths=strengths).check()
