"""The stage `outliers`: rows that are far from all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from jaxsft.config.option import option
from jaxsft.data import vectors
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import outlier_scores as scores
from jaxsft.prepare.numbers import at_least, blocks, numbers, required, rounded, there, vector
from jaxsft.prepare.stage import Report, RowSource, Stage, State, choice, text_of, with_fields
from jaxsft.prepare.text_columns import unread

# methods for one column at a time, with their usual thresholds
ONE = {"zscore": 3.0, "iqr": 1.5, "mad": 3.5}
MANY = ("forest", "lof", "mahalanobis", "cosine", "autoencoder")
MEASURES = ("value", "characters", "words", "perplexity", "embedding", "vectors")
TEXT = ("characters", "words", "perplexity", "vectors")
WIDE = ("embedding", "vectors")  # many numbers from one column
WIDEST = 512  # numbers of a vector whose square must be kept in the manifest


@dataclass(frozen=True)
class Outliers(Stage):
    """Finds rows that lie far from the training rows, and drops, clips or marks them. What is far
    is learnt from the training rows only and holds for all splits.

    Columns one at a time, with limits that a reader can check:

    - zscore: a number is out where it is `threshold` (3) standard deviations from the mean; for
      bell-shaped numbers; outliers widen their own limits
    - iqr: a number is out where it is `threshold` (1.5) quartile distances beyond the quartiles
      (Tukey 1977); for skewed numbers, lengths of texts
    - mad: a number is out where its modified z-score exceeds `threshold` (3.5; Iglewicz and Hoaglin
      1993); for many outliers

    Several columns, or an embedding, together; without `threshold`, the `fraction` of training rows
    with the highest scores is out:

    - forest: isolation forest (Liu, Ting and Zhou 2008); its trees are kept as arrays; for many
      columns of any scale
    - lof: local outlier factor (Breunig et al. 2000); its points are kept; for clusters of
      different density
    - mahalanobis: distance from the mean in units of a shrunk covariance (Ledoit and Wolf 2004);
      for correlated numbers, one cluster
    - cosine: 1 - cosine to the mean direction; for embeddings
    - autoencoder: error of a small autoencoder (Hawkins et al. 2002); for relations that are no
      lines

    forest, lof and mahalanobis need `pip install -e ".[numeric]"`.
    """

    learns = True

    fields: list[str] = option([], "the columns; empty: that of the text, for measures of text")
    measure: str = option(
        "value",
        "what is looked at: value (a number) | embedding (a list of them) | characters | words |"
        " perplexity | vectors",
    )
    vectors: Optional[str] = option(
        None, "of vectors: a file of word2vec or GloVe; a text becomes the mean vector of its words"
    )
    method: str = option(
        "iqr", "zscore | iqr | mad | forest | lof | mahalanobis | cosine | autoencoder"
    )
    action: str = option(
        "mark",
        "mark (true or false in `into`) | drop | clip (to the limits; for zscore, iqr and mad of"
        " values)",
    )
    into: str = option("outlier", "of mark: the column that is written")
    threshold: Optional[float] = option(
        None,
        "beyond which a row is out; null: the usual one, or the score that `fraction` of the"
        " training rows exceed",
    )
    fraction: float = option(
        0.01, "of methods for several columns: the part of the training rows that is out"
    )
    missing: str = option("error", "an empty cell: error | keep (it is not out)")
    trees: int = option(100, "of forest")
    sample: int = option(256, "of forest: training rows that each tree is grown from")
    neighbours: int = option(20, "of lof")
    points: int = option(
        5000, "of lof: training rows that are kept, evenly spaced where there are more"
    )
    hidden: Optional[int] = option(None, "of autoencoder: units between; null: half of the columns")
    steps: int = option(1000, "of autoencoder: training steps, 256 rows each")

    @property
    def replayed(self) -> bool:
        """Returns whether `predict` repeats it: it clips as training did.

        It drops no row then, and nothing reads its marks.
        """
        return self.action == "clip"

    @property
    def names(self) -> list[str]:
        return list(self.fields) or ([self.context.text] if self.measure in TEXT else [])

    def check(self) -> None:
        required("outliers", self.names)
        choice("outliers", "measure", self.measure, MEASURES)
        choice("outliers", "method", self.method, (*ONE, *MANY))
        choice("outliers", "action", self.action, ("drop", "clip", "mark"))
        choice("outliers", "missing", self.missing, ("error", "keep"))
        at_least("outliers", 0, threshold=self.threshold)
        at_least(
            "outliers",
            1,
            trees=self.trees,
            neighbours=self.neighbours,
            hidden=self.hidden,
            steps=self.steps,
        )
        at_least("outliers", 2, points=self.points, sample=self.sample)
        self._check_fit()
        for used, *options in (
            (self.action == "mark", "into"),
            (self.method == "forest", "trees", "sample"),
            (self.method == "lof", "neighbours", "points"),
            (self.method == "autoencoder", "hidden", "steps"),
            (self.method in MANY, "fraction"),
        ):
            if not used:
                how = f"with method={self.method} and action={self.action}"
                unread(self, "outliers", how, *options)

    def _check_fit(self) -> None:
        """Raises ConfigError where measure, method and action do not go together."""
        if not 0 < self.fraction < 1:
            raise ConfigError(
                f"stages.outliers.fraction={self.fraction}: expected more than 0 and less than 1"
            )
        if self.action == "clip" and (self.method not in ONE or self.measure != "value"):
            raise ConfigError(
                f"stages.outliers.action=clip: needs limits of numbers: method={', '.join(ONE)} and"
                " measure=value; use drop or mark"
            )
        if (self.vectors is not None) != (self.measure == "vectors"):
            raise ConfigError(
                f"stages.outliers.vectors={self.vectors}: a file of word vectors belongs to"
                " stages.outliers.measure=vectors, and it needs one"
            )
        if self.measure in WIDE and (self.method in ONE or len(self.names) != 1):
            raise ConfigError(
                f"stages.outliers.measure={self.measure}: takes one column and one of"
                f" method={', '.join(MANY)}"
            )
        if self.measure == "perplexity" and self.context.score is None:
            raise ConfigError(
                "stages.outliers.measure=perplexity: no model was given that could score texts"
            )
        if (
            self.method in ("cosine", "autoencoder")
            and self.measure not in WIDE
            and len(self.names) < 2
        ):
            raise ConfigError(
                f"stages.outliers.method={self.method}: needs an embedding, or at least two columns"
            )

    # --- what is looked at
    # ----------------------------------------------------------------------------------------------
    def _table(self, rows: RowSource) -> vectors.Vectors | None:
        """Returns the vectors of the words of these rows; None for other measures."""
        if self.measure != "vectors":
            return None
        words = {
            word
            for row in rows
            for word in vectors.words_of(text_of(row, self.names[0], "stages.outliers.fields"))
        }
        return vectors.read(self.vectors, vocabulary=words, repeated="first")

    def _matrix(self, rows: Sequence[Row], table: vectors.Vectors | None) -> np.ndarray:
        """Returns the numbers `[rows, D]`; NaN where a cell is empty, or no word has a vector."""
        option, names = "stages.outliers.fields", self.names
        if self.measure == "embedding":
            found = [vector(row, names[0], option) for row in rows]
            for row, one in zip(rows, found, strict=True):
                if len(one) != len(found[0]):
                    raise DataError(
                        f"{row.where}: column {names[0]!r} holds {len(one)} numbers, expected"
                        f" {len(found[0])} as in {rows[0].where}"
                    )
            return np.array(found)
        if self.measure == "value":
            return np.array([numbers(row, names, option, self.missing) for row in rows]).reshape(
                len(rows), -1
            )
        if self.measure == "vectors":
            found, count = vectors.pooled(table, [text_of(row, names[0], option) for row in rows])
            if self.missing == "error" and not count.all():
                raise DataError(
                    f"{rows[int(count.argmin())].where}: no word of the text has a vector in"
                    f" {self.vectors}; stages.outliers.missing=keep lets such rows pass"
                )
            return np.where(count[:, None] > 0, found, np.nan).astype(np.float64)
        texts = [[text_of(row, name, option) for row in rows] for name in names]
        if self.measure == "perplexity":
            return np.stack(
                [np.asarray(self.context.score(column), np.float64) for column in texts], 1
            )
        return np.array(
            [
                [len(t) if self.measure == "characters" else len(t.split()) for t in column]
                for column in texts
            ],
            np.float64,
        ).T

    def _score(self, x: np.ndarray, model: State, training: bool) -> np.ndarray:
        if self.method == "lof":
            return scores.lof(x, model, training)
        if self.method == "autoencoder":
            return scores.reconstruction(x, model)
        return getattr(scores, self.method)(x, model)

    # --- learning
    # ----------------------------------------------------------------------------------------------
    def fit(self, rows: RowSource, report: Report) -> dict[str, Any]:
        table = self._table(rows)
        parts = [self._matrix(block, table) for block in blocks(rows)]
        if not parts:
            raise DataError("stages.outliers: there are no training rows to learn from")
        if self.measure == "embedding" and len({part.shape[1] for part in parts}) > 1:
            raise DataError(
                f"stages.outliers: column {self.names[0]!r} holds lists of several lengths"
            )
        x = np.concatenate(parts)
        if self.method in ONE:
            limits = {
                name: self._limits(name, x[~np.isnan(x[:, f]), f])
                for f, name in enumerate(self.names)
            }
            report.facts["limits"] = limits
            return {"limits": limits}
        x = x[~np.isnan(x).any(1)]
        if len(x) < 3:
            raise DataError(
                f"stages.outliers.method={self.method}: {len(x)} complete training rows, expected"
                " at least 3"
            )
        if self.method in ("mahalanobis", "autoencoder") and x.shape[1] > WIDEST:
            raise DataError(
                f"stages.outliers.method={self.method}: vectors of {x.shape[1]} numbers, expected"
                f" {WIDEST} at most; set method=cosine"
            )
        model = self._fit_model(x)
        threshold = (
            rounded(np.quantile(self._score(x, model, True), 1 - self.fraction))
            if self.threshold is None
            else self.threshold
        )
        report.facts["threshold"] = threshold
        return {"model": model, "threshold": threshold}

    def _fit_model(self, x: np.ndarray) -> dict[str, Any]:
        if self.method == "forest":
            return scores.fit_forest(
                x, trees=self.trees, sample=self.sample, seed=self.context.seed
            )
        if self.method == "lof":
            return scores.fit_lof(x, neighbours=self.neighbours, points=self.points)
        if self.method == "autoencoder":
            return scores.fit_reconstruction(
                x,
                hidden=self.hidden or max(1, x.shape[1] // 2),
                steps=self.steps,
                seed=self.context.seed,
            )
        return scores.fit_mahalanobis(x) if self.method == "mahalanobis" else scores.fit_cosine(x)

    def _limits(self, name: str, values: np.ndarray) -> list[float]:
        found = (
            scores.limits(
                values, self.method, ONE[self.method] if self.threshold is None else self.threshold
            )
            if values.size
            else None
        )
        if found is None:
            other = (
                " or set stages.outliers.method=zscore" if values.size and values.std() > 0 else ""
            )
            raise DataError(
                f"stages.outliers.method={self.method}: {self.measure} of column {name!r} has no"
                f" spread in training: all else were out; remove it from fields{other}"
            )
        return [rounded(v) for v in found]

    # --- acting
    # ----------------------------------------------------------------------------------------------
    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterator[Row]:
        table = self._table(rows)
        for block in blocks(rows):
            if self.action == "clip":
                yield from (
                    self._clipped(row, there(row, self.names, split), state["limits"], report)
                    for row in block
                )
                continue
            x = self._matrix(block, table)
            # [rows, reasons]
            out = (
                self._one(x, state["limits"])
                if self.method in ONE
                else self._many(x, state, split == "train")
            )
            for row, reasons in zip(block, out, strict=True):
                if (new := self._treated(row, np.flatnonzero(reasons), report)) is not None:
                    yield new

    def _one(self, x: np.ndarray, limits: State) -> np.ndarray:
        low, high = np.array([limits[name] for name in self.names]).T
        return (x < low) | (x > high)  # never where a cell is NaN

    def _many(self, x: np.ndarray, state: State, training: bool) -> np.ndarray:
        whole, out = ~np.isnan(x).any(1), np.zeros((len(x), 1), bool)
        if whole.any():
            out[whole, 0] = self._score(x[whole], state["model"], training) > state["threshold"] * (
                1 + 1e-9
            )
        return out

    def _treated(self, row: Row, out: np.ndarray, report: Report) -> Row | None:
        of = self.names[out[0]] if len(out) and self.method in ONE else ", ".join(self.names)
        reason = f"outlier: {self.measure} of {of} ({self.method})"
        if len(out) and self.action == "drop":
            report.drop(row, reason)
            return None
        if len(out):
            report.marked[reason] += 1
        return with_fields(row, **{self.into: bool(len(out))}) if self.action == "mark" else row

    def _clipped(self, row: Row, names: Sequence[str], limits: State, report: Report) -> Row:
        new = {}
        for name, value in zip(
            names, numbers(row, names, "stages.outliers.fields", self.missing), strict=True
        ):
            low, high = limits[name]
            if value < low or value > high:
                report.changed[f"{name} clipped"] += 1
                new[name] = low if value < low else high
        return with_fields(row, **new) if new else row
