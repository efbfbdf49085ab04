"""What people and a classifier think of the labels: agreement of annotators, and labels that a classifier holds for wrong.

Both use a module of its own, `jaxsft.prepare.agreement` and `jaxsft.prepare.label_noise`; where it is not there, the card says so. Memory grows with
the ratings, and with the texts that the classifier sees.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from jaxsft.config.schema import RatingsConfig
from jaxsft.data.formats import Row
from jaxsft.errors import DataError
from jaxsft.prepare.quality import texts
from jaxsft.prepare.stage import value_of


def module(name: str) -> ModuleType | None:
    """A module of `jaxsft.prepare`; None where this installation does not have it."""
    try:
        return importlib.import_module(f"jaxsft.prepare.{name}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("jaxsft."):
            return None
        raise


# --- agreement --------------------------------------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Ratings:
    """Ratings of one question: rows are annotators (or places, where annotators cannot be told apart), columns are items."""

    level: str
    annotators: tuple[str, ...] | None
    by_item: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def table(self) -> np.ndarray:
        """[annotators, items]: numbers, or for level nominal the place of the label among all, sorted; NaN where nobody rated.

        Raises:
          DataError: a rating that is no number, where the level asks for one.
        """
        names = self.annotators or tuple(dict.fromkeys(name for item in self.by_item for name in item))
        code = {label: float(at) for at, label in enumerate(sorted({label for item in self.by_item for label in item.values()}))}
        out = np.full((len(names), len(self.by_item)), np.nan)
        place = {name: at for at, name in enumerate(names)}
        for at, item in enumerate(self.by_item):
            for name, label in item.items():
                out[place[name], at] = code[label] if self.level == "nominal" else _number(label)
        return out


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        raise DataError(f"ratings: found {label!r:.60}, expected a number; ratings.level=nominal compares labels that are text") from None


def of_columns(columns: Sequence[str], level: str) -> Ratings:
    return Ratings(level, tuple(columns))


def add_row(ratings: Ratings, row: Row) -> None:
    """The ratings of one row in wide form, one column per annotator. Raises DataError where a column is missing."""
    found = {name: texts.label_text(value_of(row, name, "ratings.columns")) for name in ratings.annotators or ()}
    ratings.by_item.append({name: label for name, label in found.items() if label.strip().lower() not in texts.MISSING})


def of_file(rows: Iterable[Row], options: RatingsConfig) -> dict[str, Ratings]:
    """The ratings of a file in long form, a row per item and annotator, for each of `ratings.values`.

    Without `ratings.annotator` the k-th rating of an item takes the k-th place: who gave it is not known, and alpha does not ask.

    Raises:
      DataError: a column is missing, or an annotator rated an item twice.
    """
    items: dict[str, dict[str, dict[str, str]]] = {name: defaultdict(dict) for name in options.values}
    times: dict[str, int] = defaultdict(int)
    for row in rows:
        item = texts.label_text(value_of(row, options.item, "ratings.item"))
        by = str(times[item])
        times[item] += 1
        if options.annotator is not None:
            by = texts.label_text(value_of(row, options.annotator, "ratings.annotator"))
        for name in options.values:
            label = texts.label_text(value_of(row, name, "ratings.values"))
            if by in items[name][item]:
                raise DataError(f"{row.where}: annotator {by!r} rated item {item!r} before; set ratings.item to the column that names the item")
            items[name][item][by] = label
    out = {}
    for name, by_item in items.items():
        kept = [{by: label for by, label in item.items() if label.strip().lower() not in texts.MISSING} for item in by_item.values()]
        names = tuple(sorted({by for item in kept for by in item})) if options.annotator is not None else None
        out[name] = Ratings(options.level, names, kept)
    return out


def agreement(ratings: Ratings) -> dict[str, Any] | None:
    """Krippendorff's alpha of all ratings and, for annotators with names, the mean of Cohen's kappa over pairs with at least two items in common.

    Krippendorff 2004, "Content Analysis"; Cohen 1960, "A coefficient of agreement for nominal scales". None without `jaxsft.prepare.agreement`.
    """
    known = module("agreement")
    if known is None:
        return None
    table = ratings.table()
    rated = (~np.isnan(table)).sum(axis=0)
    out: dict[str, Any] = {
        "rated_items": int((rated > 0).sum()),
        "items_rated_twice": int((rated > 1).sum()),
        "ratings": int(rated.sum()),
        "alpha": _finite(known.krippendorff_alpha(table, ratings.level)),
    }
    if ratings.annotators is not None and ratings.level == "nominal":
        kappas = []
        for a, b in itertools.combinations(table, 2):
            both = ~np.isnan(a) & ~np.isnan(b)
            if both.sum() > 1 and (kappa := _finite(known.cohen_kappa(a[both].astype(int), b[both].astype(int)))) is not None:
                kappas.append(kappa)
        out |= {"kappa_mean": float(np.mean(kappas)) if kappas else None, "kappa_pairs": len(kappas)}
    return out


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


# --- wrong labels -----------------------------------------------------------------------------------------------------------------------------
def issues(sample: Sequence[str], labels: Sequence[str], folds: int, seed: int) -> list[int] | None:
    """The places of labels that confident learning holds for wrong, from probabilities that a classifier gives out of fold; None without the module.

    Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels".
    """
    known = module("label_noise")
    if known is None:
        return None
    probabilities = known.cross_val_probabilities(list(sample), list(labels), folds, seed)
    return [int(getattr(issue, "index", issue)) for issue in known.find_issues(list(labels), probabilities)]
