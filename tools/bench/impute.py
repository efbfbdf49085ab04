"""How far each imputer misses numbers that were hidden from it, and how long it takes.

    python -m tools.bench.impute shared/data/emobank/emobank.csv.gz

A fifth of the cells is hidden at random, several times; the error is the root of the mean squared
error over them, in the units of the file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.prepare.stages.missing import judge

IMPUTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {}),
    "median": ("median", {}),
    "knn, 5": ("knn", {"neighbours": 5}),
    "knn, 20": ("knn", {}),
    "knn, 200": ("knn", {"neighbours": 200}),
    "iterative": ("iterative", {}),
    "autoencoder": ("autoencoder", {}),
}


def measure(
    rows: Sequence[Row], fields: Sequence[str], hidden: float, seeds: int
) -> list[tuple[str, float, float, float]]:
    """(imputer, mean error, its standard deviation over what was hidden, seconds of one run)."""
    out = []
    for name, (strategy, options) in IMPUTERS.items():
        errors, start = [], time.perf_counter()
        for seed in range(seeds):
            errors.append(judge(rows, fields, strategy, hidden, seed, **options))
        out.append(
            (
                name,
                float(np.mean(errors)),
                float(np.std(errors)),
                (time.perf_counter() - start) / seeds,
            )
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="a data file")
    parser.add_argument(
        "--fields", default="V,A,D", help="columns of numbers (default: %(default)s)"
    )
    parser.add_argument(
        "--hidden",
        type=float,
        default=0.2,
        help="the fraction of cells that is hidden (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="how often cells are drawn (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, default=None, help="rows that are used")
    given = parser.parse_args()
    rows = formats.read(given.path)[: given.limit]
    print(
        f"{given.path}: {len(rows)} rows, {given.fields}, {given.hidden:.0%} of the cells hidden,"
        f" {given.seeds} draws\n"
    )
    print("| imputer | RMSE | std | seconds |\n|---|---|---|---|")
    for name, error, spread, seconds in measure(
        rows, given.fields.split(","), given.hidden, given.seeds
    ):
        print(f"| {name} | {error:.4f} | {spread:.4f} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
