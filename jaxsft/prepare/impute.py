"""Imputation of numbers: arrays `[N, F]` with NaN for missing cells go in, filled ones come out.

What is learnt is plain JSON. Every filled row depends on itself and on what was learnt alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsft.prepare import autoencoder
from jaxsft.prepare.numbers import array, plain

AT_ONCE = 2_000_000  # numbers of a distance table that are held at once


# --- what all share
# --------------------------------------------------------------------------------------------------
def moments(x: np.ndarray) -> dict[str, Any]:
    """Returns mean and standard deviation (divided by N) of each column, over present cells.

    A constant column has the deviation 1.
    """
    deviation = np.nanstd(x, axis=0)
    return {
        "mean": plain(np.nanmean(x, axis=0)),
        "deviation": plain(np.where(deviation > 0, deviation, 1.0)),
    }


def standardised(x: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    return (x - array(state["mean"])) / array(state["deviation"])


def restored(z: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    return z * array(state["deviation"]) + array(state["mean"])


# --- k nearest neighbours
# --------------------------------------------------------------------------------------------------
def fit_knn(x: np.ndarray, donors: int) -> dict[str, Any]:
    """Returns the donor rows: all, or `donors` evenly spaced ones."""
    kept = x if len(x) <= donors else x[np.arange(donors) * len(x) // donors]
    return {**moments(x), "donors": plain(kept)}


def knn(x: np.ndarray, state: Mapping[str, Any], neighbours: int) -> np.ndarray:
    """Fills each missing cell with the mean of the nearest donors that have it.

    Those as near as the last one all count, so that no order decides.

    Distances are Euclidean over the standardised cells that both have, scaled up by `F / shared`
    (Troyanskaya et al. 2001; the missing cells as in Dixon 1979). Without any shared cell the cell
    becomes the mean.
    """
    donors = array(state["donors"])
    z, given = standardised(x, state), standardised(donors, state)
    there, known = ~np.isnan(z), ~np.isnan(given)
    out, step = np.where(there, x, array(state["mean"])), max(1, AT_ONCE // max(given.size, 1))
    holes = np.flatnonzero(~there.all(1))
    for rows in np.split(holes, range(step, len(holes), step)):
        shared = there[rows, None] & known[None]  # [R, M, F]
        count = shared.sum(-1)
        squares = np.where(
            shared, (np.nan_to_num(z[rows, None]) - np.nan_to_num(given)[None]) ** 2, 0
        ).sum(-1)
        # [R, M]
        distance = np.where(count > 0, squares * x.shape[1] / np.maximum(count, 1), np.inf)
        for f in range(x.shape[1]):
            fill, candidates = rows[~there[rows, f]], known[:, f]
            near = distance[~there[rows, f]][:, candidates]
            if not near.size:
                continue
            last = np.partition(near, min(neighbours, near.shape[1]) - 1, axis=1)[
                :, min(neighbours, near.shape[1]) - 1
            ]
            # fewer than asked share a cell
            last = np.where(np.isfinite(last), last, np.where(np.isfinite(near), near, -1).max(1))
            chosen = near <= last[:, None] * (1 + 1e-9)
            found = chosen.any(1)
            means = (chosen * donors[candidates, f]).sum(1) / np.maximum(chosen.sum(1), 1)
            out[fill[found], f] = means[found]
    return out


# --- chained regressions
# --------------------------------------------------------------------------------------------------
def fit_chained(x: np.ndarray, ridge: float, rounds: int) -> dict[str, Any]:
    """Fits one ridge regression per column on all others, in turns, until the filled cells stay.

    Filled cells are fed back (van Buuren and Groothuis-Oudshoorn 2011, without the random
    draws: one value per cell, not several).
    """
    state = moments(x)
    z = standardised(x, state)
    missing = np.isnan(z)
    z = np.where(missing, 0.0, z)
    turns = [int(f) for f in np.argsort(missing.sum(0), kind="stable")]
    weights, shifts = np.zeros((x.shape[1],) * 2), np.zeros(x.shape[1])
    for _ in range(rounds):
        before = z.copy()
        for f in turns:
            others, seen = np.arange(x.shape[1]) != f, ~missing[:, f]
            a, b = z[seen][:, others], z[seen, f]
            centre, middle = a.mean(0), b.mean()
            a = a - centre
            weights[f, others] = np.linalg.solve(
                a.T @ a + ridge * np.eye(a.shape[1]), a.T @ (b - middle)
            )
            shifts[f] = middle - weights[f, others] @ centre
            z[missing[:, f], f] = (z @ weights[f] + shifts[f])[missing[:, f]]
        if np.abs(z - before).max() < 1e-7:
            break
    return {**state, "weights": plain(weights), "shifts": plain(shifts), "turns": turns}


def chained(x: np.ndarray, state: Mapping[str, Any], rounds: int = 100) -> np.ndarray:
    """Fills cells so that they agree with every regression at once, in at most `rounds` turns."""
    z, weights, shifts = standardised(x, state), array(state["weights"]), array(state["shifts"])
    missing = np.isnan(z)
    z = np.where(missing, 0.0, z)
    for _ in range(rounds):
        before = z.copy()
        for f in state["turns"]:
            z[missing[:, f], f] = np.einsum("nf,f->n", z[missing[:, f]], weights[f]) + shifts[f]
        if np.abs(z - before).max(initial=0) < 1e-12:
            break
    return np.where(missing, restored(z, state), x)


# --- denoising autoencoder
# --------------------------------------------------------------------------------------------------
def fit_denoising(
    x: np.ndarray, hidden: int, steps: int, corrupt: float, seed: int
) -> dict[str, Any]:
    state = moments(x)
    return {
        **state,
        **autoencoder.train(
            standardised(x, state), hidden=hidden, steps=steps, corrupt=corrupt, seed=seed
        ),
    }


def denoised(x: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    return np.where(
        np.isnan(x), restored(autoencoder.reconstruct(standardised(x, state), state), state), x
    )


# --- along an order
# --------------------------------------------------------------------------------------------------
def interpolate(places: np.ndarray, values: np.ndarray, degree: int) -> np.ndarray:
    """Fills NaN between known values of a series by the polynomial through the `degree + 1` nearest
    known points; beyond the ends the last known value is held, for a polynomial leaves all bounds
    there. Degree 1 joins the neighbours of both sides by a line.
    """
    from scipy.interpolate import krogh_interpolate  # Newton's divided differences

    known, out = np.flatnonzero(~np.isnan(values)), values.copy()
    xs, ys = places[known], values[known]
    if degree == 1:
        holes = np.isnan(values)
        out[holes] = np.interp(places[holes], xs, ys)
        return out
    for i in np.flatnonzero(np.isnan(values)):
        if not xs[0] < places[i] < xs[-1]:
            out[i] = ys[0] if places[i] < xs[0] else ys[-1]
            continue
        near = np.sort(np.argsort(np.abs(xs - places[i]), kind="stable")[: degree + 1])
        out[i] = krogh_interpolate(xs[near], ys[near], places[i])
    return out
