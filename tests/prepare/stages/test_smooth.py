import numpy as np
import pytest

from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import filters
from jaxsft.prepare.stages.smooth import METHODS, Smooth
from tests.prepare.numeric_harness import column, make, run


def noisy(n=256, seed=0):
    clean = np.where(np.arange(n) < n // 2, 0.0, 4.0) + np.sin(np.arange(n) / 20)
    return clean, clean + np.random.default_rng(seed).normal(scale=0.4, size=n)


@pytest.mark.parametrize("method", METHODS)
def test_a_filter_brings_a_noisy_signal_nearer_to_the_clean_one(method):
    if method == "wavelet":
        pytest.importorskip("pywt")
    clean, given = noisy()
    out, reports, _ = run(Smooth(fields=["v"], method=method), train=make({"v": given.tolist()}))
    error = lambda x: float(np.mean((np.array(x) - clean) ** 2))
    assert error(column(out["train"], "v")) < 0.6 * error(given)
    assert reports["train"].changed == {f"smoothed ({method})": 256}


def test_the_wiener_filter_agrees_with_scipy_inside():
    signal = pytest.importorskip("scipy.signal")
    _, x = noisy()
    np.testing.assert_allclose(
        filters.wiener(x, 7, 0.2)[3:-3], signal.wiener(x, 7, 0.2)[3:-3], rtol=1e-9
    )
    assert np.isfinite(filters.wiener(np.zeros(9), 3, None)).all()


def test_the_wavelet_filter_is_the_universal_soft_threshold():
    pywt = pytest.importorskip("pywt")
    _, x = noisy()
    parts = pywt.wavedec(x, "sym8", mode="reflect")
    threshold = np.median(np.abs(parts[-1])) / 0.6745 * np.sqrt(2 * np.log(len(x)))
    expected = pywt.waverec(
        [parts[0], *(pywt.threshold(d, threshold, "soft") for d in parts[1:])],
        "sym8",
        mode="reflect",
    )
    np.testing.assert_allclose(filters.wavelet(x, "sym8", None), expected, atol=1e-12)
    line = np.linspace(0, 1, 64)  # nothing is taken from what has no detail
    np.testing.assert_allclose(filters.wavelet(np.ones(64), "haar", 3), 1)
    assert len(filters.wavelet(line[:-1], "db4", None)) == 63


def test_order_and_group_decide_what_is_next_to_what():
    rows = make(
        {
            "day": [3, 1, 2, 3, 2, 1],
            "who": ["a", "a", "a", "b", "b", "b"],
            "v": [3.0, 1.0, 50.0, 30.0, 20.0, 10.0],
        }
    )
    out, _, _ = run(
        Smooth(fields=["v"], method="median", window=3, order="day", group="who", suffix="_smooth"),
        train=rows,
    )
    assert column(out["train"], "v") == column(rows, "v")
    assert (
        column(out["train"], "v_smooth")[2] == 3.0 and column(out["train"], "v_smooth")[4] == 20.0
    )


def test_what_is_no_even_series_of_numbers_is_refused():
    with pytest.raises(DataError, match=r"stages clean and denoise"):
        run(Smooth(fields=["text"]), train=make({"text": ["some words"] * 6}))
    with pytest.raises(DataError, match=r"rows.csv:3: .*no place for gaps"):
        run(Smooth(fields=["v"]), train=make({"v": [1.0, None, 2.0]}))
    with pytest.raises(DataError, match=r"too few for stages.smooth.window=5"):
        run(Smooth(fields=["v"]), train=make({"v": [1.0, 2.0]}))
    uneven = make({"t": [1, 2, 4, 5], "v": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(DataError, match=r"1 to 2.*uneven=true"):
        run(Smooth(fields=["v"], order="t", window=3), train=uneven)
    assert (
        len(run(Smooth(fields=["v"], order="t", window=3, uneven=True), train=uneven)[0]["train"])
        == 4
    )
    with pytest.raises(DataError, match=r"t=1 again, after rows.csv:2; set stages.smooth.group"):
        run(
            Smooth(fields=["v"], order="t", window=3),
            train=make({"t": [1, 1, 2], "v": [1.0, 2.0, 3.0]}),
        )
    for options in ({"window": 4}, {"method": "fourier"}, {"noise": -1.0}, {"level": 0}):
        with pytest.raises(ConfigError, match=r"stages.smooth"):
            Smooth(fields=["v"], **options).check()
    pytest.importorskip("pywt")
    for options, message in (
        ({"wavelet": "mexh"}, "mexh: unknown"),
        ({"level": 9}, "allows 5 levels"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(
                Smooth(fields=["v"], method="wavelet", **options),
                train=make({"v": noisy()[1].tolist()}),
            )
