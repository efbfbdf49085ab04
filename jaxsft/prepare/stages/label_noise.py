"""The stage `label_noise`: labels that are probably wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxsft import rundir
from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.data.records.fields import label_of
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.numbers import at_least, rounded, row_weights, vector
from jaxsft.prepare.stage import (
    Report,
    RowSource,
    Stage,
    State,
    choice,
    text_of,
    value_of,
    with_fields,
)
from jaxsft.prepare.text_classifier import cross_val_probabilities
from jaxsft.prepare.text_columns import unread

ACTIONS = ("report", "drop", "weight", "relabel")
SHOWN = 20  # of the worst rows, in the report


@dataclass(frozen=True)
class LabelNoise(Stage):
    """Finds training rows whose label a classifier that has not seen them does not believe
    (confident learning, Northcutt et al. 2021), and reports, drops, weighs down or relabels them.
    Other splits stay as they are: a test set that is cleaned by a model favours that model.

    The probabilities of the classes must be out of sample: a classifier that was trained on a row
    believes its label. By default one is trained on all parts but one of the training rows, in turn
    (`crossval`, with the extra `quality`). Look at what `action=report` lists before anything else
    is done.
    """

    on = "train"

    action: str = option(
        "report",
        "report (the rows are marked in the report) | drop | weight (their weight becomes the"
        " probability of the label) | relabel",
    )
    probabilities: str = option(
        "crossval",
        "crossval | a column with a list of numbers per row | a .npy file, [rows, classes] in the"
        " order of the rows",
    )
    classes: list[str] = option(
        [], "the order of the classes in the probabilities; empty: the labels, sorted as texts"
    )
    filter_by: str = option(
        "prune_by_noise_rate",
        "how issues are told: one of the filters of `jaxsft.prepare.confident_learning`",
    )
    folds: int = option(5, "of crossval")
    least: float = option(
        0.05, "of weight: the least weight of a row that is found, to that of a row that is not"
    )
    into: str = option(
        "weight",
        "of weight: the column that is written; a weight that is there already is multiplied in",
    )

    transition: str = option(
        "",
        "a .json file that it writes: how often each label is given in place of each, as"
        " task.transition of task.loss=forward_correction reads it",
    )

    def check(self) -> None:
        choice("label_noise", "action", self.action, ACTIONS)
        at_least("label_noise", 2, folds=self.folds)
        if not 0 < self.least <= 1:
            raise ConfigError(
                f"stages.label_noise.least={self.least}: expected more than 0 and at most 1"
            )
        if self.transition and not self.transition.endswith(".json"):
            raise ConfigError(
                f"stages.label_noise.transition={self.transition}: expected a name that ends in"
                " .json"
            )
        if len(set(self.classes)) != len(self.classes):
            raise ConfigError(
                f"stages.label_noise.classes={list(self.classes)}: expected each class once"
            )
        if self.probabilities != "crossval":
            unread(self, "label_noise", f"with probabilities={self.probabilities}", "folds")
        if self.action != "weight":
            unread(self, "label_noise", f"with action={self.action}", "least", "into")

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterator[Row]:
        names = [self._label(row) for row in rows]
        classes = list(self.classes) or sorted(set(names))
        if len(classes) < 2:
            raise DataError(
                f"stages.label_noise: the training rows have {len(classes)} classes in column"
                f" {self.context.label!r}, expected two at least"
            )
        index = {name: i for i, name in enumerate(classes)}
        for row, name in zip(rows, names, strict=True):
            if name not in index:
                raise DataError(
                    f"{row.where}: label {name!r} is none of stages.label_noise.classes={classes}"
                )
        labels = np.array([index[name] for name in names])
        p = self._probabilities(rows, labels, len(classes))
        from jaxsft.prepare import confident_learning  # with jax

        found = confident_learning.find_issues(labels, p, self.filter_by)
        if self.transition:
            matrix = confident_learning.transition(labels, p).tolist()
            rundir.write_json(self.transition, {"labels": classes, "matrix": matrix})
        quality, best = p[np.arange(len(p)), labels], p.argmax(1)
        # as the file writes each class
        given = {
            name: row.fields[self.context.label] for name, row in zip(names, rows, strict=True)
        }
        self._tell(rows, labels, found, quality, best, classes, report)
        weights = self._weights(rows, found, quality) if self.action == "weight" else None
        for i, row in enumerate(rows):
            if found[i] and self.action == "drop":
                report.drop(row, "label issue")
                continue
            if found[i]:
                report.marked["label issue"] += 1
            if found[i] and self.action == "relabel" and best[i] != labels[i]:
                name = classes[best[i]]
                report.changed[f"{classes[labels[i]]} -> {name}"] += 1
                row = with_fields(
                    row,
                    **{
                        self.context.label: given.get(name, name),
                        f"{self.context.label}_given": row.fields[self.context.label],
                    },
                )
            elif weights is not None:
                if found[i]:
                    report.changed["weighed down"] += 1
                row = with_fields(row, **{self.into: weights[i]})
            yield row

    def _label(self, row: Row) -> str:
        value = value_of(row, self.context.label, "data.columns.label")
        return label_of(value, f"{row.where}: column {self.context.label!r}", self.context.columns)

    def _probabilities(self, rows: RowSource, labels: np.ndarray, classes: int) -> np.ndarray:
        """Returns the class probabilities `[N, C]`. Raises DataError where they are none."""
        option = "stages.label_noise.probabilities"
        if self.probabilities == "crossval":
            texts = [text_of(row, self.context.text, "data.columns.text") for row in rows]
            small = np.bincount(labels, minlength=classes)
            if small.min() < self.folds:
                at = int(small.argmin())
                raise DataError(
                    f"stages.label_noise.folds={self.folds}: class number {at} of {classes} has"
                    f" {small[at]} rows, fewer than folds; lower stages.label_noise.folds, or drop"
                    " or join rare classes"
                )
            p = cross_val_probabilities(
                texts, labels, self.folds, self.context.seed, f"{option}=crossval"
            )
            where = option
        elif self.probabilities.endswith(".npy"):
            p, where = self._file(), self.probabilities
        else:
            found = [(row.where, vector(row, self.probabilities, option)) for row in rows]
            for where, one in found:
                if len(one) != classes:
                    raise DataError(
                        f"{where}: column {self.probabilities!r} holds {len(one)} numbers, expected"
                        f" {classes}, one per class"
                    )
            p, where = np.array([one for _, one in found]), f"column {self.probabilities!r}"
        if p.shape != (len(labels), classes):
            raise DataError(
                f"{where}: found the shape {list(p.shape)}, expected [{len(labels)}, {classes}]: a"
                " row per training row, a column per class"
            )
        if not (np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(1), 1, atol=1e-3)):
            raise DataError(
                f"{where}: found numbers that are no probabilities, expected each row to be at"
                " least 0 and to sum to 1"
            )
        return p

    def _file(self) -> np.ndarray:
        path = Path(self.probabilities)
        try:
            return np.asarray(np.load(path, allow_pickle=False), np.float64)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}: cannot be read as an array of numbers ({error}); write it by numpy.save"
            ) from None

    def _weights(self, rows: RowSource, found: np.ndarray, quality: np.ndarray) -> list[float]:
        return row_weights(
            rows,
            np.where(found, np.maximum(quality, self.least), 1.0),
            self.into,
            "stages.label_noise.into",
        )

    @staticmethod
    def _tell(
        rows: RowSource,
        labels: np.ndarray,
        found: np.ndarray,
        quality: np.ndarray,
        best: np.ndarray,
        classes: Sequence[str],
        report: Report,
    ) -> None:
        """Reports how many issues there are, and the worst of them.

        Each is `[where, label, what the classifier says, probability of the label]`.
        """
        order = {int(i): place for place, i in enumerate(np.argsort(quality, kind="stable"))}
        worst = sorted((order[i], row.where, i) for i, row in enumerate(rows) if found[i])[:SHOWN]
        report.facts["issues"] = int(found.sum())
        report.facts["worst"] = [
            [where, classes[labels[i]], classes[best[i]], rounded(quality[i])]
            for _, where, i in worst
        ]
