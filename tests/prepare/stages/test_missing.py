import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import impute
from jaxsft.prepare.stage import Context, Report
from jaxsft.prepare.stages.missing import Missing, judge
from tests.prepare.numeric_harness import column, make, run
from tests.realdata import real

HOLES = {
    "a": ["1", "", "3", "8", "NA"],
    "b": [2.0, 4.0, None, 8.0, 6.0],
    "g": ["x", "x", "x", "y", "y"],
    "t": ["one", "", "three", "four", " "],
}


def filled(strategy, field="a", **options):
    out, reports, state = run(
        Missing(fields=[field], strategy=strategy, **options),
        train=make(HOLES),
        test=make({k: v[1:2] for k, v in HOLES.items()}),
    )
    return column(out["train"], field), reports["train"], column(out["test"], field), state


def test_each_simple_strategy_fills_what_its_name_says():
    for strategy, value in (("mean", 4.0), ("median", 3.0), ("min", 1.0), ("max", 8.0)):
        train, report, test, _ = filled(strategy)
        assert train == [1.0, value, 3.0, 8.0, value] and test == [value]
        assert report.changed == {f"a filled ({strategy})": 2}
    assert filled("constant", value=0)[0] == ["1", 0, "3", "8", 0]
    assert filled("group", statistic="mean", group="g")[0] == [1.0, 2.0, 3.0, 8.0, 8.0]
    new = make({"a": [None], "g": ["z"]})
    out, reports, _ = run(
        Missing(fields=["a"], strategy="group", statistic="max", group="g"),
        train=make(HOLES),
        test=new,
    )
    assert (
        column(out["test"], "a") == [8.0]
        and reports["test"].changed["a filled by all groups, its own being new"] == 1
    )
    assert filled("mask", field="t")[0] == ["one", "[MASK]", "three", "four", "[MASK]"]


def test_drop_accounts_for_every_row_and_is_not_repeated_on_new_data():
    _, report, test, _ = filled("drop")
    assert report.dropped == [("rows.csv:3", "empty a"), ("rows.csv:6", "empty a")] and test == []
    assert not Missing(fields=["a"]).replayed and Missing(fields=["a"], strategy="mean").replayed


def test_none_may_be_the_name_of_a_class_but_is_no_number():
    rows = make({"label": ["none", "joy", None, "none"], "v": ["none", "1", "2", None]})
    out, reports, _ = run(Missing(fields=["label"]), train=rows)
    assert (
        column(out["train"], "label") == ["none", "joy", "none"]
        and len(reports["train"].dropped) == 1
    )
    assert column(
        run(Missing(fields=["label"], strategy="mode"), train=rows)[0]["train"], "label"
    ) == ["none", "joy", "none", "none"]
    assert column(run(Missing(fields=["v"]), train=rows)[0]["train"], "v") == ["1", "2"]


def test_an_indicator_says_where_the_gap_was():
    out, _, _ = run(Missing(fields=["a", "t"], strategy="indicator"), train=make(HOLES))
    assert (
        column(out["train"], "a_missing")
        == [False, True, False, False, True]
        == column(out["train"], "t_missing")
    )
    assert (
        column(out["train"], "a") == [1.0, 4.0, 3.0, 8.0, 4.0]
        and column(out["train"], "t")[1] == "[MASK]"
    )


def test_test_rows_are_filled_from_training_rows_only():
    for strategy in ("mean", "knn", "iterative", "autoencoder"):
        stage = Missing(
            fields=["a", "b"],
            strategy=strategy,
            **({"steps": 20} if strategy == "autoencoder" else {}),
        )
        train = make({"a": [1.0, 2.0, 3.0, None], "b": [2.0, 4.0, 6.0, 8.0]})
        alone, _, _ = run(stage, train=train, test=make({"a": [None], "b": [5.0]}))
        crowd, _, _ = run(stage, train=train, test=make({"a": [None, 1e6], "b": [5.0, -1e6]}))
        assert column(alone["test"], "a") == column(crowd["test"], "a")[:1]


@pytest.mark.parametrize(
    "strategy", ["mean", "median", "knn", "iterative", "autoencoder", "linear", "polynomial"]
)
def test_an_average_of_text_or_labels_names_what_fits(strategy):
    context = Context(columns=Columns(text="t", label="g"))
    options = {"using": ["b"]} if strategy in ("knn", "iterative", "autoencoder") else {}
    options |= {"order": "b"} if strategy in ("linear", "polynomial") else {}
    for field, fits in (
        ("t", "drop, constant, indicator, mask"),
        ("g", "mode, group (with statistic=mode)"),
    ):
        with pytest.raises(DataError, match=f"rows.csv:2: .*column '{field}' holds") as error:
            run(
                Missing(fields=[field], strategy=strategy, context=context, **options),
                train=make(HOLES),
            )
        assert fits in str(error.value)
    # class numbers are labels too
    numbered = make({"label": [0, 1, None, 1], "b": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(DataError, match=r"labels; what fits it: drop"):
        run(Missing(fields=["label"], strategy=strategy, **options), train=numbered)
    assert column(
        run(Missing(fields=["label"], strategy="mode"), train=numbered)[0]["train"], "label"
    ) == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"neighbours": 5},
        {"strategy": "knn", "using": ["x"], "ridge": 2.0},
        {"strategy": "mean", "mask": "?"},
    ],
)
def test_an_option_without_effect_is_refused(options):
    with pytest.raises(
        ConfigError, match=r"stages.missing.\w+=.*: it has no effect, with strategy="
    ):
        Missing(fields=["a"], **options).check()


def test_what_cannot_work_is_refused():
    for options, message in (
        ({"strategy": "avg"}, "expected one of drop"),
        ({"strategy": "constant"}, "needs stages.missing.value"),
        ({"strategy": "linear"}, "needs stages.missing.order"),
        ({"strategy": "knn"}, "at least two columns"),
        ({"strategy": "autoencoder", "using": ["b"], "corrupt": 1.0}, "corrupt=1.0"),
        ({"strategy": "knn", "using": ["b"], "neighbours": 0}, "neighbours=0"),
    ):
        with pytest.raises(ConfigError, match=message):
            Missing(fields=["a"], **options).check()
    with pytest.raises(ConfigError, match=r"fields"):
        Missing().check()
    with pytest.raises(DataError, match=r"missing column 'z'.*absent=true"):
        run(Missing(fields=["z"], strategy="mean"), train=make(HOLES))
    with pytest.raises(DataError, match=r"empty in all training rows"):
        run(Missing(fields=["a"], strategy="mean"), train=make({"a": [None, ""]}))
    assert column(
        run(
            Missing(fields=["z"], strategy="constant", value=1, absent=True),
            train=make({"z": [None, 3]}),
        )[0]["train"],
        "z",
    ) == [1, 3]
    assert column(
        run(Missing(fields=["a"], strategy="mean", markers=["?"]), train=make({"a": ["?", "2"]}))[
            0
        ]["train"],
        "a",
    ) == [2.0, 2.0]


# --- independent oracles
# --------------------------------------------------------------------------------------------------
def holed(n=200, f=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, f)) @ rng.normal(size=(f, f)) + rng.normal(size=f)
    holes = rng.random(x.shape) < 0.2
    # a row with one number converges too slowly to be compared
    holes[holes.sum(1) > f // 2] = False
    return x, np.where(holes, np.nan, x)


def test_nearest_neighbours_agree_with_scikit_learn():
    neighbors = pytest.importorskip("sklearn.impute")
    _, x = holed()
    state = impute.fit_knn(x, 10_000)
    z = impute.standardised(x, state)
    expected = impute.restored(neighbors.KNNImputer(n_neighbors=5).fit_transform(z), state)
    np.testing.assert_allclose(impute.knn(x, state, 5), expected, rtol=1e-9)


def test_chained_regressions_agree_with_scikit_learn():
    pytest.importorskip("sklearn.experimental.enable_iterative_imputer")
    from sklearn.impute import IterativeImputer
    from sklearn.linear_model import Ridge

    _, x = holed()
    state = impute.fit_chained(x, 1.0, 200)
    oracle = IterativeImputer(Ridge(alpha=1.0), max_iter=500, tol=1e-6)
    expected = impute.restored(oracle.fit_transform(impute.standardised(x, state)), state)
    np.testing.assert_allclose(impute.chained(x, state), expected, atol=1e-3)


@given(st.integers(1, 5), st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.floats(0, 1))
def test_interpolation_reproduces_a_polynomial(degree, coefficients, part):
    xs = np.array([0.0, 1.0, 1.5, 3.0, 4.0, 5.5])[: degree + 1]
    at = 0.1 + part * (xs[-1] - 0.2)
    ys = np.polyval(coefficients[: degree + 1], xs)
    places, values = np.append(xs, at), np.append(ys, np.nan)
    order = np.argsort(places, kind="stable")
    found = impute.interpolate(places[order], values[order], degree)[order == len(xs)]
    assert found == pytest.approx(
        np.polyval(coefficients[: degree + 1], at), abs=1e-6 * (1 + max(map(abs, ys)))
    )


def test_a_polynomial_fills_a_cubic_series_exactly_and_a_line_does_not():
    places = [0, 1, 2, 4, 5, 7, 8]
    cubic = [float(p**3 - 4 * p) for p in places]
    # the order is the column's, not the file's
    rows = make({"day": [*places, 20], "v": [*cubic[:3], None, *cubic[4:], None]})[::-1]
    out, reports, _ = run(
        Missing(fields=["v"], strategy="polynomial", order="day", degree=3), train=rows
    )
    assert column(out["train"], "v")[::-1] == [*cubic, cubic[-1]]
    assert reports["train"].changed == {
        "v filled (polynomial)": 2,
        "v held beyond the last known value": 1,
    }
    line, _, _ = run(Missing(fields=["v"], strategy="linear", order="day"), train=rows)
    assert column(line["train"], "v")[::-1][3] == pytest.approx(
        cubic[2] + (cubic[4] - cubic[2]) * 2 / 3
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_a_fill_depends_on_its_row_alone_and_known_cells_stay(seed):
    _, x = holed(30, 3, seed)
    for fit, fill in (
        (lambda: impute.fit_knn(x, 100), lambda x, s: impute.knn(x, s, 5)),
        (lambda: impute.fit_chained(x, 1.0, 20), impute.chained),
    ):
        state = json.loads(json.dumps(fit()))
        whole = fill(x, state)
        np.testing.assert_allclose(
            np.concatenate([fill(row[None], state) for row in x]), whole, rtol=1e-9
        )
        assert not np.isnan(whole).any() and (whole == x)[~np.isnan(x)].all()


def test_the_autoencoder_learns_a_relation_and_is_the_same_each_time():
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    rows = make({"a": a.tolist(), "b": (a**2).tolist()})
    assert judge(rows, ["a", "b"], "autoencoder", steps=300) < 0.97 * judge(
        rows, ["a", "b"], "mean"
    )
    stage = Missing(fields=["a", "b"], strategy="autoencoder", steps=20)
    assert run(stage, train=rows)[2] == run(stage, train=rows)[2]


def test_hidden_ratings_of_emobank_are_found_better_than_by_their_mean():
    rows = formats.read(real("emobank/emobank.csv.gz"))[:2000]
    error = {s: judge(rows, ["V", "A", "D"], s) for s in ("mean", "knn", "iterative")}
    assert (
        0.2 < error["iterative"] < 0.985 * error["mean"] < 0.3
        and error["knn"] < 0.985 * error["mean"]
    ), error


def test_judge_refuses_what_fills_nothing():
    for strategy in ("drop", "mask"):
        with pytest.raises(ConfigError, match=r"fills in no number"):
            judge(make({"a": [1.0, 2.0]}), ["a"], strategy)


@pytest.mark.parametrize("strategy", ["mean", "max", "mode", "indicator"])
@pytest.mark.parametrize("large", [float("inf"), "-Infinity", 10**400])
def test_infinite_numbers_are_an_error_and_never_the_text_infinity(strategy, large):
    rows = [Row({"n": value}, "a.csv", i) for i, value in enumerate([1, None, large, 3], start=1)]
    with pytest.raises(
        DataError,
        match=r"a.csv:3: column 'n' holds .*, expected a finite number; set stages.missing.fields",
    ):
        Missing(fields=["n"], strategy=strategy).fit(rows, Report())


def test_a_class_may_be_called_inf():
    rows = [
        Row({"n": value}, "a.csv", i) for i, value in enumerate(["inf", "", "word", "inf"], start=1)
    ]
    assert Missing(fields=["n"], strategy="mode").fit(rows, Report())["fill"] == {"n": "inf"}
