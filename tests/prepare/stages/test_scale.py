import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stages.scale import METHODS, Scale, inverse
from tests.prepare.numeric_harness import column, make, run

numbers = st.lists(st.floats(-1e6, 1e6, width=32), min_size=5, max_size=40).filter(
    lambda v: np.quantile(v, 0.75) - np.quantile(v, 0.25) > 1e-3
)


@settings(max_examples=40, deadline=None)
@given(numbers, st.sampled_from(METHODS))
def test_the_inverse_takes_every_number_back(values, method):
    options = {"low": -1.0, "high": 3.0} if method == "minmax" else {}
    out, _, state = run(Scale(fields=["v"], method=method, **options), train=make({"v": values}))
    np.testing.assert_allclose(
        inverse(state, "v", column(out["train"], "v")),
        values,
        rtol=1e-9,
        atol=1e-9 * (1 + max(map(abs, values))),
    )


@pytest.mark.parametrize("method", METHODS)
def test_scales_agree_with_scikit_learn(method):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = np.random.default_rng(0).lognormal(size=(50, 2))
    new = x[:7] * 1.5
    oracle = {
        "standard": preprocessing.StandardScaler,
        "robust": preprocessing.RobustScaler,
        "minmax": preprocessing.MinMaxScaler,
    }[method]().fit(x)
    rows = lambda a: make({"a": a[:, 0].tolist(), "b": [str(v) for v in a[:, 1]]})
    out, _, _ = run(Scale(fields=["a", "b"], method=method), train=rows(x), test=rows(new))
    for name, raw in (("train", x), ("test", new)):
        np.testing.assert_allclose(
            [[r.fields["a"], r.fields["b"]] for r in out[name]], oracle.transform(raw), rtol=1e-12
        )


def test_new_data_is_clipped_where_asked():
    data = {"train": make({"v": [0.0, 10.0]}), "test": make({"v": [-5.0, 5.0, 20.0]})}
    out, reports, _ = run(Scale(fields=["v"], method="minmax", clip=True), **data)
    assert column(out["test"], "v") == [0.0, 0.5, 1.0] and reports["test"].changed["clipped"] == 2
    assert column(run(Scale(fields=["v"], method="minmax"), **data)[0]["test"], "v") == [
        -0.5,
        0.5,
        2.0,
    ]


def test_what_has_no_scale_is_refused():
    for method, values, message in (
        ("standard", [2, 2], "is 2 in all"),
        ("robust", [1, 1, 1, 1, 9], "half of"),
        ("minmax", [None, None], "is empty in all"),
    ):
        with pytest.raises(DataError, match=message):
            run(Scale(fields=["v"], method=method, missing="keep"), train=make({"v": values}))
    with pytest.raises(DataError, match=r"rows.csv:3: .*missing before this one"):
        run(Scale(fields=["v"]), train=make({"v": [1, None, 2]}))
    out, _, _ = run(Scale(fields=["v"], missing="keep"), train=make({"v": [1, None, 3]}))
    assert column(out["train"], "v") == [-1.0, None, 1.0]
    with pytest.raises(DataError, match=r"expected a number"):
        run(Scale(fields=["v"]), train=make({"v": ["good", "bad"]}))
    for options in (
        {},
        {"fields": ["v", "v"]},
        {"fields": ["v"], "method": "log"},
        {"fields": ["v"], "clip": True},
    ):
        with pytest.raises(ConfigError, match=r"stages.scale"):
            Scale(**options).check()
    with pytest.raises(ConfigError, match=r"was not scaled"):
        inverse({"v": {}}, "w", [1])
