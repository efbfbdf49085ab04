"""Filters of one series of numbers, `[N]`, at equal steps.

At the ends the series is mirrored (the first value is not repeated).
"""

from __future__ import annotations

import numpy as np

from jaxsft.errors import ConfigError
from jaxsft.extras import need


def windows(x: np.ndarray, window: int) -> np.ndarray:
    """Returns what lies around each place, `[N, window]`; `window` is odd."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(x, window // 2, mode="reflect"), window)


def mean(x: np.ndarray, window: int) -> np.ndarray:
    return windows(x, window).mean(-1)


def median(x: np.ndarray, window: int) -> np.ndarray:
    return np.median(windows(x, window), -1)


def wiener(x: np.ndarray, window: int, noise: float | None) -> np.ndarray:
    """Computes the local mean plus the deviation from it that exceeds the noise.

    `m + max(0, v - noise) / max(v, noise) (x - m)` with the mean m and the variance v of each
    window (Lim 1990, Two-Dimensional Signal and Image Processing, eq. 9.26). Without `noise` it
    is the mean of all v.
    """
    around = windows(x, window)
    m, v = around.mean(-1), around.var(-1)
    noise = float(v.mean()) if noise is None else noise
    gain = np.maximum(v - noise, 0) / np.where(np.maximum(v, noise) > 0, np.maximum(v, noise), 1)
    return m + gain * (x - m)


def wavelet(x: np.ndarray, name: str, level: int | None) -> np.ndarray:
    """Thresholds wavelet coefficients softly at `sigma sqrt(2 ln N)`, and transforms back.

    sigma is the median absolute coefficient of the finest level / 0.6745 (Donoho and Johnstone
    1994). Raises ConfigError (no PyWavelets; no such wavelet; a level too deep for the series).
    """
    pywt = need("pywt", "stages.smooth.method=wavelet", "numeric")
    if name not in pywt.wavelist(kind="discrete"):
        raise ConfigError(
            f"stages.smooth.wavelet={name}: unknown; expected a discrete wavelet such as haar, db4,"
            " sym8 or coif3"
        )
    deepest = pywt.dwt_max_level(len(x), name)
    if deepest < 1 or (level is not None and level > deepest):
        raise ConfigError(
            f"stages.smooth.level={level or 1}: a series of {len(x)} numbers allows {deepest}"
            f" levels of stages.smooth.wavelet={name}"
        )
    rough, *details = pywt.wavedec(x, name, mode="reflect", level=level)
    threshold = np.median(np.abs(details[-1])) / 0.6745 * np.sqrt(2 * np.log(len(x)))
    soft = [np.sign(d) * np.maximum(np.abs(d) - threshold, 0) for d in details]
    return pywt.waverec([rough, *soft], name, mode="reflect")[: len(x)]
