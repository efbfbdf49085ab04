"""Simulates studies of several arms and seeds, and how often a sweep's report tells arms apart.

  python -m tools.study_simulation [studies=2000] [replicates=200]

In a null study no arm is better: a report that calls any two apart is wrong, and should be so in at
most 6 % of studies. In the others one arm is better by a known difference, and is called so as
often as foretold from the true spreads, within 5 points. Rows differ in how hard they are, for all
runs and for an arm (`arm_rows_sd`, which more seeds do not lessen); runs of an arm differ by seed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np

from jaxsft.evaluation import power
from jaxsft.evaluation.compare import Arm, Settings
from jaxsft.evaluation.compared_runs import RunRows, column_metric
from jaxsft.evaluation.statistics_file import RowStatistics
from jaxsft.sweeps import arm_tests

LEVEL = 0.95


@dataclass(frozen=True)
class Simulated:
    """A study: how many arms, seeds and rows, by how much the last arm is better, and the spreads.

    Attributes:
      seed_sd: between the runs of an arm.
      arm_rows_sd: of what an arm does on a row, beyond its mean.
      binary: each row is right or wrong; else it has a number with a noise of 1.
    """

    arms: int = 2
    seeds: int = 3
    rows: int = 400
    effect: float = 0.2
    seed_sd: float = 0.05
    arm_rows_sd: float = 0.5
    binary: bool = False


STUDIES = {
    "two arms, two seeds": Simulated(seeds=2, effect=0.3),
    "two arms, three seeds": Simulated(),
    "two arms, three seeds, noisy seeds": Simulated(seed_sd=0.15, effect=0.5),
    "two arms, three seeds, rows alone": Simulated(seed_sd=0.0, arm_rows_sd=0.0, effect=0.12),
    "two arms, five seeds": Simulated(seeds=5, seed_sd=0.1),
    "two arms, five seeds, right or wrong": Simulated(
        seeds=5, seed_sd=0.02, arm_rows_sd=0.1, binary=True, effect=0.06
    ),
    "four arms, five seeds": Simulated(arms=4, seeds=5, seed_sd=0.1, effect=0.3),
    "two arms, ten seeds": Simulated(seeds=10, seed_sd=0.1, effect=0.17),
}


def drawn(study: Simulated, effect: float, rng: np.random.Generator) -> list[Arm]:
    """Makes the arms of a study; the last is better by `effect`."""
    rows = study.rows
    hard = rng.beta(3, 2, rows) * 0.7 + 0.1 if study.binary else rng.normal(size=rows)
    ids, ones, out = np.arange(rows), np.ones(rows), []
    for arm in range(study.arms):
        of_arm = hard + study.arm_rows_sd * rng.normal(size=rows)
        of_arm = of_arm + effect * (arm == study.arms - 1)
        runs = []
        for seed in range(study.seeds):
            level = of_arm + study.seed_sd * rng.normal()
            x = rng.random(rows) < level if study.binary else level + rng.normal(size=rows)
            table = {"score": np.stack([x.astype(float), ones], -1)}
            content = RowStatistics(table, ids, ids.astype(np.uint64))
            runs.append(RunRows(f"{arm}/{seed}", content, {"score": column_metric("score")}))
        out.append(Arm(f"arm {arm}", tuple(runs)))
    return out


def share_told(
    study: Simulated, effect: float, studies: int, replicates: int, seed: int = 0
) -> float:
    """Returns in which share of studies the report calls arms apart: any two of a null study, the
    better arm and the first one of another.
    """
    pairs = [(i, j) for i in range(study.arms) for j in range(i + 1, study.arms)]
    count = 0
    for number in range(studies):
        arms = drawn(study, effect, np.random.default_rng([seed, number]))
        settings = Settings(level=LEVEL, replicates=replicates, seed=number, numbers=("score",))
        found = arm_tests.tested(arms, "score", pairs, "test", settings)
        found = arm_tests.judged(found, False, LEVEL)
        of_interest = [
            p for p in found if not effect or (p.a, p.b) == (arms[0].name, arms[-1].name)
        ]
        count += any(pair.verdict in ("better", "worse") for pair in of_interest)
    return count / studies


def foretold(study: Simulated, seed: int = 1) -> float:
    """Returns the power that two arms of 300 seeds let expect with the seeds of the study, for one
    comparison of the family's level.
    """
    rng = np.random.default_rng(seed)
    many = drawn(replace(study, arms=2, seeds=300), study.effect, rng)
    settings = Settings(level=LEVEL, replicates=200, numbers=("score",))
    (pair,) = arm_tests.tested(many, "score", [(0, 1)], "test", settings)
    comparisons = study.arms * (study.arms - 1) // 2
    level = 1 - (1 - LEVEL) / comparisons
    return power.power_of_seeds(study.effect, pair.stays, pair.of_runs, study.seeds, level)


def main(arguments: list[str]) -> None:
    given = dict(argument.split("=") for argument in arguments)
    studies, replicates = int(given.get("studies", 2000)), int(given.get("replicates", 200))
    print("| study | rows | null told | difference | told | foretold |")
    print("|---|---|---|---|---|---|")
    for name, study in STUDIES.items():
        null = share_told(study, 0.0, studies, replicates)
        real = share_told(study, study.effect, studies, replicates)
        print(
            f"| {name} | {study.rows} | {null:.3f} | {study.effect} | {real:.3f} |"
            f" {foretold(study):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
