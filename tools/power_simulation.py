"""Simulates how often `compare` tells two arms apart, beside what `power` foretells.

  python -m tools.power_simulation [trials=400] [replicates=500]

A null difference should be told in 5 % of the trials, one of known size as often as foretold from
one earlier pair of arms. One run an arm is right or wrong on each row (McNemar), or has a number
for each (permutation); three runs an arm differ in their seed as well (Student's t).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np

from jaxsft.evaluation import compare, power
from jaxsft.evaluation.compare import Arm, Settings
from jaxsft.evaluation.compared_runs import RunRows, column_metric
from jaxsft.evaluation.statistics_file import RowStatistics


@dataclass(frozen=True)
class Study:
    """Two arms that are compared.

    Attributes:
      rows: of a trial.
      runs: of each arm.
      effect: the second less the first.
      seed_sd: between the runs of an arm.
      binary: each row is right or wrong; else it has a number.
    """

    rows: int
    effect: float
    runs: int = 1
    seed_sd: float = 0.0
    binary: bool = False


STUDIES = {
    "right or wrong, one run": Study(600, 0.05, binary=True),
    "a number, one run": Study(400, 0.15),
    "a number, three seeds": Study(800, 0.25, runs=3, seed_sd=0.08),
}


def arms(study: Study, effect: float, rows: int, rng: np.random.Generator) -> list[Arm]:
    """Makes two arms on the same rows, of which some are hard for all runs."""
    hard = rng.beta(3, 1, rows) * 0.9 if study.binary else rng.normal(size=rows)
    ids, ones = np.arange(rows), np.ones(rows)
    out = []
    for name, shift in (("a", 0.0), ("b", effect)):
        runs = []
        for i in range(study.runs):
            level = hard + shift + study.seed_sd * rng.normal()
            x = rng.random(rows) < level if study.binary else level + rng.normal(size=rows)
            content = RowStatistics(
                {"score": np.stack([x.astype(float), ones], -1)}, ids, ids.astype(np.uint64)
            )
            runs.append(RunRows(f"{name}{i}", content, {"score": column_metric("score")}))
        out.append(Arm(name, tuple(runs)))
    return out


def told(study: Study, effect: float, trials: int, replicates: int, seed: int = 0) -> float:
    """Returns the share of trials in which the two arms are told apart."""
    found = 0
    for trial in range(trials):
        pair = arms(study, effect, study.rows, np.random.default_rng([seed, trial]))
        settings = Settings(replicates=replicates, seed=trial)
        found += compare.compare(pair, settings).pairs[0]["p"] < 0.05
    return found / trials


def foretold(study: Study, seed: int = 1) -> float:
    """Returns the power that an earlier pair of arms on other rows lets expect."""
    rng = np.random.default_rng(seed)
    of_rows = power.spread(arms(study, study.effect, 4000, rng), "score", Settings())
    row_part = of_rows["row_variance"] / study.rows
    if study.runs == 1:
        return power.power_at(study.effect, row_part, 0.95)
    # three runs know little of the variance between runs
    many = replace(study, runs=300)
    of_seeds = power.spread(arms(many, study.effect, 200, rng), "score", Settings(replicates=200))
    return power.power_of_seeds(study.effect, row_part, of_seeds["seed_variance"], study.runs, 0.95)


def main(arguments: list[str]) -> None:
    given = dict(argument.split("=") for argument in arguments)
    trials, replicates = int(given.get("trials", 400)), int(given.get("replicates", 500))
    print("| arms | rows | runs | null told | difference | told | foretold |")
    print("|---|---|---|---|---|---|---|")
    for name, study in STUDIES.items():
        null = told(study, 0.0, trials, replicates)
        real = told(study, study.effect, trials, replicates)
        print(
            f"| {name} | {study.rows} | {study.runs} | {null:.3f} | {study.effect} | {real:.3f} |"
            f" {foretold(study):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
