"""Distribution: classes, lengths and scripts, and how they differ from split to split.

One pass; memory: 8 bytes per row and measure of length, for exact quantiles and Kolmogorov-Smirnov,
the rest grows with the number of classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.prepare.quality.embeddings import evenness

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MANY = 20  # different numbers, one of them with a fraction, make a label a quantity and not a class
BINS = 10  # of PSI, at the deciles of the reference
SMOOTHING = 0.5  # count added to each cell of PSI, so that an empty one has a logarithm
BARS = 24  # of a histogram
# a convention of credit scoring: Siddiqi 2006, "Credit Risk Scorecards"
PSI = ((0.1, "small"), (0.25, "moderate"), (math.inf, "large"))
# of V and of KS: after Cohen 1988, "Statistical Power Analysis"
EFFECT = ((0.1, "small"), (0.3, "moderate"), (math.inf, "large"))


@dataclasses.dataclass
class Distribution:
    """The counts of one split."""

    characters: array = dataclasses.field(default_factory=lambda: array("q"))
    words: array = dataclasses.field(default_factory=lambda: array("q"))
    # the labels that are one number
    numbers: array = dataclasses.field(default_factory=lambda: array("d"))
    scripts: Counter[str] = dataclasses.field(default_factory=Counter)
    classes: Counter[str] = dataclasses.field(default_factory=Counter)
    labelled: int = 0

    def add(self, text: str, words: int, script: str, labels: tuple[str, ...]) -> None:
        self.characters.append(len(text))
        self.words.append(words)
        self.scripts[script] += 1
        self.classes.update(labels)
        self.labelled += bool(labels)
        if len(labels) == 1:
            with contextlib.suppress(ValueError):
                if math.isfinite(number := float(labels[0])):
                    self.numbers.append(number)

    def summary(self, quantity: bool) -> dict[str, Any]:
        out = {
            f"{name}_{key}": value
            for name in ("characters", "words")
            for key, value in lengths(getattr(self, name)).items()
        }
        out["scripts"] = len(self.scripts)
        if quantity:
            return out | {f"label_{key}": value for key, value in lengths(self.numbers).items()}
        return out | (class_numbers(self.classes, self.labelled) if self.classes else {})


def is_quantity(parts: Sequence[Distribution]) -> bool:
    """Returns whether the labels are quantities and not classes.

    All are numbers, more than 20 of them differ, and some have a fraction (a convention).
    """
    values = {value for part in parts for value in part.numbers}
    whole = all(len(part.numbers) == part.labelled for part in parts)  # infinity is no quantity
    return whole and len(values) > MANY and any(not value.is_integer() for value in values)


def lengths(values: Sequence[float]) -> dict[str, float]:
    """Computes mean and quantiles (linear interpolation, as numpy's)."""
    if not len(values):
        return {}
    found = np.asarray(values, float)
    names = {0.5: "median"}
    quantiles = {
        names.get(q, f"p{round(100 * q)}"): float(v)
        for q, v in zip(QUANTILES, np.quantile(found, QUANTILES), strict=True)
    }
    return {
        "min": float(found.min()),
        **quantiles,
        "max": float(found.max()),
        "mean": float(found.mean()),
    }


def class_numbers(classes: Mapping[str, int], rows: int) -> dict[str, float]:
    """Computes the number of classes, their evenness, and the largest one's share and ratio.

    The ratio is the largest divided by the smallest class.

    Evenness: Pielou 1966. Imbalance ratio: Japkowicz and Stephen 2002, "The class imbalance
    problem: A systematic study".
    """
    counts = list(classes.values())
    even, effective = evenness(counts)
    largest = max(counts)
    return {
        "classes": len(counts),
        "class_evenness": even,
        "classes_effective": effective,
        "majority_share": largest / rows,
        "imbalance": largest / min(counts),
        "labels_per_row": sum(counts) / rows,
    }


def histogram(parts: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Computes histograms over edges that all splits share, up to the 99 % quantile of all.

    The last bar holds what is longer.
    """
    every = np.concatenate([np.asarray(values, float) for values in parts.values()])
    if not len(every):
        return {}
    low, high = float(every.min()), float(np.quantile(every, 0.99))
    whole = bool((every == np.round(every)).all())
    step = max((high - low) / BARS, 1e-9)
    step = math.ceil(step) if whole else step
    count = max(1, min(BARS, math.floor((high - low) / step) + 1))
    edges = [low + step * i for i in range(count + 1)]
    of = lambda values: np.bincount(
        np.clip(((np.asarray(values, float) - low) // step).astype(int), 0, count - 1),
        minlength=count,
    )
    return {
        "edges": edges,
        "longest": float(every.max()),
        "counts": {name: of(values).tolist() for name, values in parts.items()},
    }


# --- drift
# --------------------------------------------------------------------------------------------------
def ks(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Computes (D, p) of the two-sample Kolmogorov-Smirnov test.

    D is the largest distance between the two distribution functions, p its asymptotic p-value.

    Smirnov 1939. With many rows p says only that they are many: look at D.
    """
    x, y = np.sort(np.asarray(a, float)), np.sort(np.asarray(b, float))
    both = np.concatenate([x, y])
    d = float(
        np.abs(
            np.searchsorted(x, both, side="right") / len(x)
            - np.searchsorted(y, both, side="right") / len(y)
        ).max()
    )
    from scipy.stats import kstwobign  # slow to import

    return d, float(kstwobign.sf(d * math.sqrt(len(x) * len(y) / (len(x) + len(y)))))


def psi(expected: Sequence[float], found: Sequence[float]) -> float:
    """Computes the population stability index of two lists of counts.

    It is the sum of (q - p) log(q / p) over the cells; 0.5 is added to each count.

    The symmetric divergence of Jeffreys 1946; its name and thresholds (below 0.1 small, from 0.25
    on large) are a convention: Siddiqi 2006.
    """
    p, q = np.asarray(expected, float) + SMOOTHING, np.asarray(found, float) + SMOOTHING
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def psi_of_numbers(expected: Sequence[float], found: Sequence[float]) -> float:
    """Computes PSI over the cells between the deciles of `expected`; equal deciles are one."""
    edges = np.unique(np.quantile(np.asarray(expected, float), np.arange(1, BINS) / BINS))
    cells = lambda values: np.bincount(
        np.searchsorted(edges, np.asarray(values, float), side="left"), minlength=len(edges) + 1
    )
    return psi(cells(expected), cells(found))


def chi_square(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, Any]:
    """Computes chi-square of homogeneity of two counts, its degrees of freedom, p and Cramér's V.

    It is over the categories of either; p is scipy's.

    Pearson 1900; Cramér 1946, "Mathematical Methods of Statistics": V = sqrt(chi² / n) for two
    splits, 0 where the shares are equal, 1 where no category is in both. p is None where there is
    one category only.
    """
    names = sorted({*a, *b})
    table = np.array([[part.get(name, 0) for name in names] for part in (a, b)], float)
    n = table.sum()
    wanted = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / n
    value = float((((table - wanted) ** 2) / wanted).sum())
    from scipy.stats import chi2  # slow to import

    freedom = len(names) - 1
    p = float(chi2.sf(value, freedom)) if freedom else None
    low = float((wanted < 5).mean())
    return {
        "chi_square": value,
        "freedom": freedom,
        "p": p,
        "cramers_v": math.sqrt(value / n),
        "cells_below_5": low,
    }


def js(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    """Computes the Jensen-Shannon divergence of two counts in bits.

    0 where the shares are equal, 1 where nothing is in both.

    Lin 1991, "Divergence Measures Based on the Shannon Entropy".
    """
    names = sorted({*a, *b})
    p, q = (np.array([part.get(name, 0) for name in names], float) for part in (a, b))
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2
    part = lambda x: float((x[x > 0] * np.log2(x[x > 0] / m[x > 0])).sum())
    return max((part(p) + part(q)) / 2, 0.0)


def word_for(value: float, steps: Sequence[tuple[float, str]]) -> str:
    return next(name for limit, name in steps if value < limit)


def drift(reference: Distribution, other: Distribution, quantity: bool) -> dict[str, Any]:
    """Computes how one split differs from the reference.

    Lengths by KS and PSI, classes and scripts by chi-square, V and PSI, numeric labels by KS
    and PSI.
    """
    out: dict[str, Any] = {}
    numeric = [
        ("characters", reference.characters, other.characters),
        ("words", reference.words, other.words),
    ]
    if quantity:
        numeric.append(("label", reference.numbers, other.numbers))
    for name, a, b in numeric:
        if len(a) and len(b):
            d, p = ks(a, b)
            stability = psi_of_numbers(a, b)
            out |= {f"{name}_ks": d, f"{name}_ks_p": p, f"{name}_psi": stability}
            out[f"{name}_drift"] = max(
                word_for(stability, PSI),
                word_for(d, EFFECT),
                key=("small", "moderate", "large").index,
            )
    counted = [("script", reference.scripts, other.scripts)]
    if not quantity and reference.classes and other.classes:
        counted.append(("class", reference.classes, other.classes))
    for name, a, b in counted:
        out |= counted_drift(name, a, b)
    return out


def counted_drift(name: str, a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, Any]:
    """Computes how the counts `b` differ from `a`, under names that begin with `name`."""
    found, names = chi_square(a, b), sorted({*a, *b})
    stability = psi([a.get(key, 0) for key in names], [b.get(key, 0) for key in names])
    worse = max(
        word_for(stability, PSI),
        word_for(found["cramers_v"], EFFECT),
        key=("small", "moderate", "large").index,
    )
    out = {
        "cramers_v": found["cramers_v"],
        "chi_square": found["chi_square"],
        "freedom": found["freedom"],
        "p": found["p"],
    }
    out |= {"cells_below_5": found["cells_below_5"], "psi": stability, "drift": worse}
    return {f"{name}_{key}": value for key, value in out.items()}


CLASSES = 200  # classes and scripts that are counted one by one; the rest is summed up


def counted(parts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """Returns category -> count per split, the most frequent first.

    Behind the first 200 all others stand together.
    """
    total = sum(parts.values(), Counter())
    order = sorted(total, key=lambda name: (-total[name], name))
    out = {
        name: {split: counts[name] for split, counts in parts.items()} for name in order[:CLASSES]
    }
    if len(order) > CLASSES:
        rest = order[CLASSES:]
        out[f"({len(order) - CLASSES} others)"] = {
            split: sum(counts[name] for name in rest) for split, counts in parts.items()
        }
    return out
