"""Measures of labels: agreement of annotators, and labels that a classifier holds for wrong.

Memory grows with the ratings, and with the texts that the classifier sees: the sample of the
reference split.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxsft.config.schema import RatingsConfig
from jaxsft.data.formats import Row
from jaxsft.errors import DataError
from jaxsft.prepare.agreement import coded, cohen_kappa, fleiss_kappa, krippendorff_alpha
from jaxsft.prepare.quality import text_measures
from jaxsft.prepare.stage import value_of
from jaxsft.prepare.text_classifier import cross_val_probabilities


# --- agreement
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Ratings:
    """The ratings of one question.

    Rows are annotators (or places, where annotators cannot be told apart), columns are items.
    """

    level: str
    annotators: tuple[str, ...] | None
    by_item: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def table(self) -> np.ndarray:
        """Returns ratings [annotators, items]; NaN where nobody rated.

        They are numbers, or for level nominal the place of the label among all, sorted.

        Raises:
          DataError: a rating that is no number, where the level asks for one.
        """
        names = self.annotators or tuple(
            dict.fromkeys(name for item in self.by_item for name in item)
        )
        lines = [[item.get(name) for item in self.by_item] for name in names]
        if self.level == "nominal":
            return coded(lines)[0]
        return np.array(
            [[math.nan if label is None else _number(label) for label in line] for line in lines]
        )


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        raise DataError(
            f"ratings: found {label!r:.60}, expected a number; ratings.level=nominal compares"
            " labels that are text"
        ) from None


def of_columns(columns: Sequence[str], level: str) -> Ratings:
    return Ratings(level, tuple(columns))


def add_row(ratings: Ratings, row: Row) -> None:
    """Adds the ratings of one row in wide form, one column per annotator.

    Raises DataError where a column is missing.
    """
    found = {
        name: text_measures.label_text(value_of(row, name, "ratings.columns"))
        for name in ratings.annotators or ()
    }
    ratings.by_item.append(
        {
            name: label
            for name, label in found.items()
            if label.strip().lower() not in text_measures.MISSING
        }
    )


def of_file(rows: Iterable[Row], options: RatingsConfig) -> dict[str, Ratings]:
    """Reads ratings in long form, a row per item and annotator, for each of `ratings.values`.

    Without `ratings.annotator` the k-th rating of an item takes the k-th place: who gave it is not
    known, and alpha does not ask.

    Raises:
      DataError: a column is missing, or an annotator rated an item twice.
    """
    items: dict[str, dict[str, dict[str, str]]] = {
        name: defaultdict(dict) for name in options.values
    }
    times: dict[str, int] = defaultdict(int)
    for row in rows:
        item = text_measures.label_text(value_of(row, options.item, "ratings.item"))
        by = str(times[item])
        times[item] += 1
        if options.annotator is not None:
            by = text_measures.label_text(value_of(row, options.annotator, "ratings.annotator"))
        for name in options.values:
            label = text_measures.label_text(value_of(row, name, "ratings.values"))
            if by in items[name][item]:
                raise DataError(
                    f"{row.where}: annotator {by!r} rated item {item!r} before; set ratings.item to"
                    " the column that names the item"
                )
            items[name][item][by] = label
    out = {}
    for name, by_item in items.items():
        kept = [
            {
                by: label
                for by, label in item.items()
                if label.strip().lower() not in text_measures.MISSING
            }
            for item in by_item.values()
        ]
        names = (
            tuple(sorted({by for item in kept for by in item}))
            if options.annotator is not None
            else None
        )
        out[name] = Ratings(options.level, names, kept)
    return out


def agreement(ratings: Ratings) -> dict[str, Any]:
    """Computes the agreement of annotators.

    Krippendorff's alpha of all ratings; Fleiss' kappa where all items have as many ratings; for
    annotators with names the mean of Cohen's kappa over the pairs that rated an item in common.
    The kappas are of level nominal. None where chance alone would agree everywhere.

    Raises:
      DataError: no item has two ratings.
    """
    table = ratings.table()
    rated = (~np.isnan(table)).sum(axis=0)
    out: dict[str, Any] = {
        "rated_items": int((rated > 0).sum()),
        "items_rated_twice": int((rated > 1).sum()),
        "ratings": int(rated.sum()),
        "alpha": _finite(krippendorff_alpha(table, ratings.level)),
    }
    if ratings.level != "nominal":
        return out
    if rated.min() == rated.max():
        out["fleiss_kappa"] = _finite(fleiss_kappa(table))
    if ratings.annotators is not None:
        pairs = [(a, b) for a, b in itertools.combinations(table, 2) if not np.isnan(a + b).all()]
        kappas = [kappa for a, b in pairs if (kappa := _finite(cohen_kappa(a, b))) is not None]
        out |= {
            "kappa_mean": float(np.mean(kappas)) if kappas else None,
            "kappa_pairs": len(kappas),
        }
    return out


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# --- wrong labels
# --------------------------------------------------------------------------------------------------
def issues(
    sample: Sequence[str], labels: Sequence[str], folds: int, seed: int
) -> tuple[list[tuple[int, str, float]], int]:
    """Returns labels that seem wrong, the least likely first, and the number of rows looked at.

    Each is (place, likelier label, probability of the given one).

    Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", on
    probabilities that a small classifier of words gives to rows that it has not seen. Classes with
    fewer rows than folds are left out. Nothing is looked at with fewer than two classes.
    """
    from jaxsft.prepare import confident_learning  # with jax, which nothing else here needs

    counts = Counter(labels)
    kept = [at for at, label in enumerate(labels) if counts[label] >= folds]
    names = sorted({labels[at] for at in kept})
    if len(names) < 2:
        return [], 0
    given = np.array([names.index(labels[at]) for at in kept])
    probabilities = cross_val_probabilities(
        [sample[at] for at in kept], given, folds, seed, f"folds={folds}"
    )
    wrong = confident_learning.find_issues(given, probabilities)
    order = confident_learning.ranked(
        wrong, confident_learning.quality_scores(given, probabilities)
    )
    return [
        (kept[at], names[int(probabilities[at].argmax())], float(probabilities[at, given[at]]))
        for at in order
    ], len(kept)
