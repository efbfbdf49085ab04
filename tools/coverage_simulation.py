"""Simulates how often the bounds of `evaluation.bounds` hold the true number.

  python -m tools.coverage_simulation [trials=400] [rows=200,2000] [replicates=1000]

A population of rows is made once, so that its numbers are known exactly. Each trial draws rows
from it, or whole clusters, and asks for 95 % bounds; printed is the share of trials that hold the
truth, with the standard error of that share. For clusters the bounds that ignore them are beside.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsft.evaluation import bounds
from jaxsft.evaluation.replicates import mapped, tables
from jaxsft.evaluation.unit_counts import Units
from jaxsft.metrics.base import Cells, Metric, Outputs, namespace, ratio
from jaxsft.metrics.by_name import METRICS

POPULATION = 20_000


def _auroc(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    xp = namespace(weights)
    order = xp.argsort(statistics["score"], stable=True)
    positive = weights[..., order] * statistics["gold"][order]
    negative = weights[..., order] - positive
    below = xp.cumulative_sum(negative, axis=-1) - negative / 2
    return {"pairs": (positive * below).sum(-1), "p": positive.sum(-1), "n": negative.sum(-1)}


# of scores without ties
AUROC = Metric(
    ("auroc",),
    ("score", "gold"),
    lambda outputs: {"score": outputs["score"], "gold": outputs["gold"]},
    lambda state: {"auroc": ratio(state["pairs"], state["p"] * state["n"])},
    reduce=_auroc,
)


@dataclass(frozen=True)
class Population:
    """Rows whose numbers are the truth.

    Attributes:
      statistics: arrays `[rows, ...]`, or a dict of them.
      number: the one that is looked at.
      cluster: `[rows]`, numbers; None: rows are independent.
    """

    metric: Metric
    statistics: Any
    number: str
    cluster: np.ndarray | None = None


def dense(statistics: Any, rows: int) -> Any:
    """Returns statistics as arrays, of which rows can be taken."""
    if isinstance(statistics, dict):
        return {name: dense(one, rows) for name, one in statistics.items()}
    if not isinstance(statistics, Cells):
        return np.asarray(statistics)
    table = tables(statistics, Units(np.zeros(rows, np.uint32), None, rows))
    return table.matrix.toarray().reshape(rows, *statistics.shape)


def labels(rng: np.random.Generator, number: str, shares: tuple[float, ...]) -> Population:
    """Makes rows of classes with these shares, of which about four fifths are right."""
    gold = rng.choice(len(shares), POPULATION, p=shares)
    right = rng.random(POPULATION) < np.linspace(0.9, 0.65, len(shares))[gold]
    predicted = np.where(right, gold, rng.choice(len(shares), POPULATION, p=shares))
    metric = METRICS.take("label_scores")
    outputs = Outputs(
        np.arange(POPULATION), {"label": gold, "predicted": predicted}, [str(i) for i in shares]
    )
    return Population(metric, dense(metric.observe(outputs), POPULATION), number)


def ranking(rng: np.random.Generator) -> Population:
    """Makes rows of two classes, a quarter of them positive, with normal scores."""
    gold = (rng.random(POPULATION) < 0.25).astype(float)
    score = rng.normal(size=POPULATION) + 1.2 * gold
    return Population(AUROC, {"score": score, "gold": gold}, "auroc")


def bleu(rng: np.random.Generator) -> Population:
    """Makes references of 6 to 24 tokens, and answers with some of them replaced or left out."""
    lengths, words = rng.integers(6, 25, POPULATION), [f"w{i}" for i in range(300)]
    noise, answers, references = rng.beta(2, 5, POPULATION), [], []
    for length, share in zip(lengths, noise, strict=True):
        tokens = rng.choice(words, length)
        other = np.where(rng.random(length) < share, rng.choice(words, length), tokens)
        references.append([" ".join(tokens)])
        answers.append(" ".join(other[rng.random(length) > share / 4]))
    metric = METRICS.take("bleu")
    outputs = Outputs(
        np.arange(POPULATION), {}, texts={"answer": answers, "references": references}
    )
    return Population(metric, metric.observe(outputs), "bleu")


def chunks(rng: np.random.Generator) -> Population:
    """Makes rows of up to five chunks of three types, of which some are missed or made up."""
    gold = rng.multinomial(1, [0.6, 0.3, 0.1], (POPULATION, 5))
    gold = (gold * (rng.random((POPULATION, 5, 1)) < 0.4)).sum(1)
    skill = rng.beta(6, 2, (POPULATION, 1))
    hit = rng.binomial(gold, skill)
    predicted = hit + rng.poisson(0.3, (POPULATION, 3))
    statistics = {"hit": hit, "predicted": predicted, "gold": gold}
    return Population(METRICS.take("chunk_scores"), statistics, "f1_micro")


def clustered(rng: np.random.Generator) -> Population:
    """Makes clusters of 1 to 9 rows that share how hard they are."""
    sizes = rng.integers(1, 10, POPULATION // 5)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    share = rng.beta(2, 1, len(sizes))[cluster]
    right = (rng.random(len(cluster)) < share).astype(float)
    statistics = np.stack([right, np.ones(len(right))], -1)
    metric = Metric(
        ("mean",), (), lambda outputs: None, lambda s: {"mean": ratio(s[..., 0], s[..., 1])}
    )
    return Population(metric, statistics, "mean", cluster)


POPULATIONS: dict[str, Callable[[np.random.Generator], Population]] = {
    "accuracy": lambda rng: labels(rng, "accuracy", (0.5, 0.3, 0.15, 0.05)),
    "macro-F1": lambda rng: labels(rng, "f1_macro", (0.5, 0.3, 0.15, 0.05)),
    "AUROC": ranking,
    "BLEU": bleu,
    "chunk F1": chunks,
    "clusters": clustered,
}


def taken(population: Population, rng: np.random.Generator, rows: int) -> tuple[Any, Any]:
    """Returns statistics of rows drawn from a population, and their clusters."""
    if population.cluster is None:
        place, cluster = rng.integers(0, POPULATION, rows), None
    else:
        # whole clusters, about so many rows; one that is drawn twice is two
        sizes = np.bincount(population.cluster)
        drawn = rng.integers(0, len(sizes), max(2, round(rows / sizes.mean())))
        starts = np.cumsum(sizes) - sizes
        place = np.concatenate([np.arange(starts[c], starts[c] + sizes[c]) for c in drawn])
        cluster = np.repeat(np.arange(len(drawn)), sizes[drawn])
    return mapped(lambda x: x[place], population.statistics), cluster


def coverage(
    population: Population, rows: int, trials: int, replicates: int, seed: int = 0
) -> dict[str, float]:
    """Returns the share of trials whose 95 % bounds hold the truth, and the share of each side.

    With clusters `naive` is the share of bounds that take rows as independent.
    """
    metric, name = population.metric, population.number
    first = (
        next(iter(population.statistics.values()))
        if isinstance(population.statistics, dict)
        else population.statistics
    )
    truth = bounds.point(metric, population.statistics, len(first))[name]
    out = {"covered": 0.0, "below": 0.0, "above": 0.0, "naive": 0.0}
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial, rows])
        statistics, cluster = taken(population, rng, rows)
        n = rows if cluster is None else len(cluster)
        ask = lambda clusters: bounds.intervals(
            metric, statistics, np.arange(n), clusters=clusters, replicates=replicates, seed=trial
        )[name]
        bound = ask(cluster)
        out["covered"] += bound["low"] <= truth <= bound["high"]
        out["below"] += truth < bound["low"]
        out["above"] += truth > bound["high"]
        if cluster is not None:
            plain = ask(None)
            out["naive"] += plain["low"] <= truth <= plain["high"]
    return {key: value / trials for key, value in out.items()}


def main(arguments: list[str]) -> None:
    given = dict(argument.split("=") for argument in arguments)
    trials, replicates = int(given.get("trials", 400)), int(given.get("replicates", 1000))
    sizes = [int(n) for n in given.get("rows", "200,2000").split(",")]
    print("| number | rows | trials | covered | ± | truth below | above | naive | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in given.get("of", ",".join(POPULATIONS)).split(","):
        population = POPULATIONS[name](np.random.default_rng(0))
        for rows in sizes:
            start = time.perf_counter()
            found = coverage(population, rows, trials, replicates)
            share = found["covered"]
            error = (share * (1 - share) / trials) ** 0.5
            naive = f"{found['naive']:.3f}" if population.cluster is not None else ""
            print(
                f"| {name} | {rows} | {trials} | {share:.3f} | {error:.3f} | {found['below']:.3f}"
                f" | {found['above']:.3f} | {naive} | {time.perf_counter() - start:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
