"""Whether scores of tokens are true of the model, agree with people, and stay the same.

What a text loses without its highest tokens, and what they keep alone: comprehensiveness and
sufficiency (DeYoung et al., 2020) and the areas under the curves of deletion and insertion (Petsiuk
et al., 2018), in the probability of the target; numbers and answers in their own units. Each is one
number a text, so that the bounds of its mean, and of the paired difference to random scores, are
those of every other metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from jaxsft.evaluation import bounds
from jaxsft.evaluation.text_scores import ScoredTexts, TextScores
from jaxsft.metrics.base import Metric, ratio

SHARES = np.linspace(0, 1, 11)  # of the explained tokens of a text
FEW_TOKENS = (1, 2, 3, 4, 5)  # places in SHARES: at most half of the tokens
Rows = dict[str, Float[np.ndarray, " texts"]]


def curves(
    scores: TextScores,
    texts: ScoredTexts,
    target: np.ndarray,
    found: Float[np.ndarray, "texts seq"],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what is left of each text without, and with nothing but, the highest tokens.

    Both are `[N, shares]`, by the share of the tokens. A share that is no whole number of tokens is
    rounded up.
    """
    counts = texts.explained.sum(1, keepdims=True)
    ranked = np.where(texts.explained, found, -np.inf)
    rank = np.argsort(np.argsort(-ranked, axis=1, kind="stable"), axis=1)
    top = rank[None] < np.ceil(SHARES[:, None, None] * counts - 1e-9)  # [shares, N, S]
    keep = np.concatenate([~top, top]) & texts.explained
    many = np.tile(np.arange(len(texts)), len(keep))
    values = scores.values(_at(texts, many), keep.reshape(len(many), -1), target[many])
    out = scores.share(values).reshape(2, len(SHARES), len(texts))
    return out[0].T, out[1].T


def _at(texts: ScoredTexts, places: np.ndarray) -> ScoredTexts:
    cut = lambda a: None if a is None else a[places]
    fields = {name: cut(getattr(texts.batch, name)) for name in ("tokens", "targets", "types")}
    fields |= {n: cut(getattr(texts.batch, n)) for n in ("loss_weight", "segment_ids", "positions")}
    batch = texts.batch._replace(
        **fields,
        example_ids=cut(texts.batch.example_ids),
        segment={name: cut(x) for name, x in texts.batch.segment.items()},
    )
    return ScoredTexts(batch, cut(texts.explained), cut(texts.rows))


def measures(without: np.ndarray, alone: np.ndarray) -> Rows:
    """Returns the numbers of each text from its two curves `[N, shares]`."""
    whole = without[:, :1]
    return {
        "comprehensiveness": (whole - without[:, FEW_TOKENS]).mean(1),
        "sufficiency": (whole - alone[:, FEW_TOKENS]).mean(1),
        "deletion_auc": np.trapezoid(without, SHARES, axis=1),
        "insertion_auc": np.trapezoid(alone, SHARES, axis=1),
    }


def of_scores(
    scores: TextScores,
    texts: ScoredTexts,
    target: np.ndarray,
    found: Float[np.ndarray, "texts seq"],
) -> Rows:
    """Returns the measures of faithfulness of each text, `[N]`."""
    return measures(*curves(scores, texts, target, found))


def of_random(
    scores: TextScores, texts: ScoredTexts, target: np.ndarray, orders: int, seed: int
) -> Rows:
    """Returns the same of random scores, the mean of several orders of each text."""
    draw = np.random.default_rng(seed)
    drawn = [
        of_scores(scores, texts, target, draw.standard_normal(texts.explained.shape))
        for _ in range(orders)
    ]
    return {name: np.mean([one[name] for one in drawn], axis=0) for name in drawn[0]}


def plausibility(
    texts: ScoredTexts,
    found: Float[np.ndarray, "texts seq"],
    rationale: Bool[np.ndarray, "texts seq"],
) -> Rows:
    """Compares scores with the tokens that people gave as the reason, `[N]` each.

    `token_f1` is of the highest tokens, as many as the rationales have on average (by their share
    of the text); `auprc` the average precision, which needs no such number. A text without a
    rationale, or of nothing else, has NaN.
    """
    out = {name: np.full(len(texts), np.nan) for name in ("token_f1", "auprc")}
    gold = rationale & texts.explained
    sizes, counts = gold.sum(1), texts.explained.sum(1)
    there = (sizes > 0) & (sizes < counts)
    share = (sizes[there] / counts[there]).mean() if there.any() else 0
    for i in np.flatnonzero(there):
        mine = texts.explained[i]
        hits = gold[i, mine][np.argsort(-found[i, mine], kind="stable")]
        taken = max(1, round(share * len(hits)))
        out["token_f1"][i] = 2 * hits[:taken].sum() / (taken + sizes[i])
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        out["auprc"][i] = precision[hits].mean()
    return out


def agreement(
    texts: ScoredTexts,
    first: Float[np.ndarray, "texts seq"],
    second: Float[np.ndarray, "texts seq"],
) -> Rows:
    """Compares two sets of scores of the same tokens, `[N]` each: Spearman's rank correlation, and
    the share of the highest fifth that both have. NaN where a text has fewer than three tokens.
    """
    out = {name: np.full(len(texts), np.nan) for name in ("rank_correlation", "top_overlap")}
    for i, mine in enumerate(texts.explained):
        a, b, count = first[i, mine], second[i, mine], int(mine.sum())
        if count < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
            continue
        top = max(1, round(count / 5))
        shared = np.intersect1d(np.argsort(-a)[:top], np.argsort(-b)[:top])
        out["rank_correlation"][i] = stats.spearmanr(a, b).statistic
        out["top_overlap"][i] = len(shared) / top
    return out


def mean_bounds(
    values: Mapping[str, np.ndarray], rows: np.ndarray, level: float, replicates: int
) -> dict[str, dict[str, Any]]:
    """Returns the mean of each number over texts, with bounds; parts of a row are drawn together.

    A text whose number is NaN does not count. A number that no text has is left out.
    """
    out = {}
    for name, each in values.items():
        there = np.isfinite(each)
        if not there.any():
            continue
        metric = Metric(
            (name,),
            (),
            lambda outputs: outputs,
            lambda state, name=name: {name: ratio(state["sum"], state["count"])},
        )
        mine = rows[there]
        clusters = mine if len(np.unique(mine)) < len(mine) else None
        statistics = {"sum": each[there], "count": np.ones(int(there.sum()))}
        ids = np.flatnonzero(there) if clusters is not None else mine
        out |= bounds.intervals(
            metric, statistics, ids, clusters=clusters, level=level, replicates=replicates
        )
    return out
