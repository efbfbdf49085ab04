"""Times the bounds of numbers beside a bootstrap by hand around scikit-learn's functions.

  python -m tools.bench.bounds [rows=1000000] [classes=100] [replicates=1000] [by_hand=5]

By hand means: draw rows with replacement, index gold and predicted, call scikit-learn; a few
replicates are run and their time is multiplied, which flatters nothing: each takes the same. Times
are seconds of CPU, of all threads, so that what else a machine does is left out. Ours runs once
untimed, for it may compile; `first` is the time of a first call in a process of its own. The peak
memory is that of such a process, for a tenth of the replicates and for all.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsft.evaluation import bounds
from jaxsft.metrics.base import Metric, Outputs, ratio
from jaxsft.metrics.by_name import METRICS


@dataclass(frozen=True)
class Case:
    """A metric with its statistics, the number that is looked at, and one replicate by hand."""

    metric: Metric
    statistics: Any
    number: str
    by_hand: Callable[[np.ndarray], float]


def labels(rows: int, classes: int, rng: np.random.Generator) -> Case:
    from sklearn import metrics

    gold = rng.integers(0, classes, rows)
    predicted = np.where(rng.random(rows) < 0.8, gold, rng.integers(0, classes, rows))
    outputs = Outputs(
        np.arange(rows), {"label": gold, "predicted": predicted}, list(map(str, range(classes)))
    )
    metric = METRICS.take("label_scores")

    def by_hand(drawn: np.ndarray) -> float:
        a, b = gold[drawn], predicted[drawn]
        # what label_scores gives: accuracy, and three scores by three averages
        metrics.accuracy_score(a, b)
        for average in ("micro", "weighted"):
            metrics.precision_recall_fscore_support(a, b, average=average, zero_division=0)
        return metrics.precision_recall_fscore_support(a, b, average="macro", zero_division=0)[2]

    return Case(metric, metric.observe(outputs), "f1_macro", by_hand)


def one_number(rows: int, classes: int, rng: np.random.Generator) -> Case:
    from sklearn import metrics

    gold = rng.integers(0, classes, rows)
    predicted = np.where(rng.random(rows) < 0.8, gold, rng.integers(0, classes, rows))
    outputs = Outputs(
        np.arange(rows), {"label": gold, "predicted": predicted}, list(map(str, range(classes)))
    )
    metric = METRICS.take("label_scores")
    by_hand = lambda drawn: metrics.f1_score(
        gold[drawn], predicted[drawn], average="macro", zero_division=0
    )
    return Case(metric, metric.observe(outputs), "f1_macro", by_hand)


def sums(rows: int, classes: int, rng: np.random.Generator) -> Case:
    from sklearn import metrics

    gold = rng.normal(size=rows)
    predicted = gold + rng.normal(size=rows)
    metric = Metric(
        ("mae",), (), lambda outputs: None, lambda s: {"mae": ratio(s[..., 0], s[..., 1])}
    )
    statistics = np.stack([abs(gold - predicted), np.ones(rows)], -1)
    by_hand = lambda drawn: metrics.mean_absolute_error(gold[drawn], predicted[drawn])
    return Case(metric, statistics, "mae", by_hand)


def ranks(rows: int, classes: int, rng: np.random.Generator) -> Case:
    from sklearn import metrics

    gold = rng.integers(0, 2, rows)
    score = rng.normal(size=rows) + gold
    logits = np.stack([np.zeros(rows), score], -1)
    outputs = Outputs(
        np.arange(rows),
        {"label": gold, "logits": logits, "predicted": logits.argmax(-1)},
        ["no", "yes"],
    )
    metric = METRICS.take("binary_areas")
    number = next(name for name in metric.names if name.startswith("auroc"))
    by_hand = lambda drawn: metrics.roc_auc_score(gold[drawn], score[drawn])
    return Case(metric, metric.observe(outputs), number, by_hand)


CASES = {
    "label_scores, all ten numbers": labels,
    "label_scores, macro-F1 by hand": one_number,
    "a mean": sums,
    "AUROC": ranks,
}


def of_ours(case: Case, rows: int, replicates: int) -> dict[str, Any]:
    return bounds.intervals(case.metric, case.statistics, np.arange(rows), replicates=replicates)


def child(name: str, rows: int, classes: int, replicates: int) -> None:
    """Prints the seconds of a first call, and the peak memory of this process before and after."""
    case = CASES[name](rows, classes, np.random.default_rng(0))
    before, start = _peak(), time.process_time()
    of_ours(case, rows, replicates)
    print(time.process_time() - start, before, _peak())


def _peak() -> float:
    """Returns the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(name: str, rows: int, classes: int, replicates: int) -> list[float]:
    """Returns what `child` prints, of a process of its own."""
    words = ["child", name, str(rows), str(classes), str(replicates)]
    out = subprocess.run(
        [sys.executable, "-m", "tools.bench.bounds", *words],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [float(x) for x in out.split()]


def main(arguments: list[str]) -> None:
    given = dict(argument.split("=") for argument in arguments)
    rows, classes = int(given.get("rows", 1_000_000)), int(given.get("classes", 100))
    replicates, few = int(given.get("replicates", 1000)), int(given.get("by_hand", 5))
    wanted = [name for name in CASES if given.get("only", "") in name]
    print(f"{rows:,} rows, {classes} classes, {replicates:,} replicates; by hand: {few}, times")
    print("| metric | ours, s | first, s | by hand, s | ratio | se | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for name in wanted:
        case = CASES[name](rows, classes, np.random.default_rng(0))
        of_ours(case, rows, replicates)
        start = time.process_time()
        found = of_ours(case, rows, replicates)[case.number]
        ours = time.process_time() - start
        rng, start = np.random.default_rng(1), time.process_time()
        for _ in range(few):
            case.by_hand(rng.integers(0, rows, rows))
        by_hand = (time.process_time() - start) / few * replicates
        part, whole = (
            measured(name, rows, classes, n) for n in (max(replicates // 10, 100), replicates)
        )
        print(
            f"| {name} | {ours:.2f} | {whole[0]:.2f} | {by_hand:.0f} | {by_hand / ours:.0f}x |"
            f" {found['se']:.2g} | {part[1]:.0f} before,"
            f" {part[2]:.0f}, {whole[2]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main(sys.argv[1:])
