"""The stage `balance`: classes of very different size."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from jaxsft.config.option import option
from jaxsft.data import shares
from jaxsft.data.formats import Row
from jaxsft.data.records.fields import label_of
from jaxsft.data.records.whole_texts import multilabel_record
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import minority
from jaxsft.prepare.numbers import at_least, rounded, row_weights
from jaxsft.prepare.stage import (
    Report,
    RowSource,
    Stage,
    State,
    choice,
    rng,
    text_of,
    value_of,
    with_fields,
)
from jaxsft.prepare.text_columns import filled_in, unread, written

METHODS = ("oversample", "undersample", "resample", "weight")
TOWARD = ("equal", "sqrt", "temperature", "effective", "ratio")
NO_LABEL = "(no label)"
FILL = ("copy", "mix", "ngram", "model")


@dataclass(frozen=True)
class Balance(Stage):
    """Brings the classes of the training rows nearer to each other. Other splits stay as they are:
    what is measured must be what comes.

    - oversample: adds rows to the smaller classes (`fill`); for few rows; watch for overfitting to
      copies
    - undersample: drops rows of the larger classes; for more rows than can be trained on
    - resample: as many rows as before, some repeated, some dropped; for a fixed budget
    - weight: writes a weight per row, 1 on average; train with `data.columns.weight`; for keeping
      every row once

    How far is said by `toward`: equal (all classes alike), sqrt and temperature (`n^(1/T)`; Mahajan
    et al. 2018, Conneau et al. 2020), effective (the effective number of samples, Cui et al. 2019),
    or ratio (no class less than `ratio` of the largest). Which rows are taken depends on the seed
    and on their own place in their file, not on the rows around them.

    A row with several labels (`multilabel`) weighs the mean of its labels' weights; to be sampled
    it counts as its rarest label (after Charte et al. 2015), so that the other labels move with it
    and the targets are met only roughly: the report counts every label before and after. Rows
    without any label are a class of their own.

    `fill` says what is added: copies; mix, the head of one text and the tail of another of the same
    class (mix-up across classes would need labels that are shared between classes, which
    `task=classify` does not have); ngram, texts drawn from an n-gram model of the class; model,
    what the model that was given (a chat run that was trained on such prompts, or a function)
    answers to `prompt`, in which the label and a text of the class stand. New texts are none of the
    training rows, and their other fields (which told of another text) are null; generated ones are
    kept only where a naive Bayes classifier of the training rows gives the class a probability of
    at least `sure`, and where the perplexity by the model given is at most `perplexity`.
    """

    on = "train"

    method: str = option("oversample", "oversample | undersample | resample | weight")
    toward: str = option("equal", "equal | sqrt | temperature | effective | ratio")
    temperature: float = option(
        2.0, "of temperature: T of n^(1/T); 1 changes nothing, large is nearly equal"
    )
    beta: float = option(0.999, "of effective: 0 changes nothing, nearly 1 is nearly equal")
    ratio: float = option(
        0.5, "of ratio: the size of the smallest class to that of the largest, at least"
    )
    column: Optional[str] = option(None, "the column of the class; null: that of the label")
    multilabel: bool = option(
        False,
        "a row has several labels: a list, parts between data.columns.separator, or the one-hot"
        " columns of data.columns.labels",
    )
    copies: Optional[int] = option(
        None, "of oversample: a class becomes at most so many times as large; null: no bound"
    )
    into: str = option(
        "weight",
        "of weight: the column that is written; a weight that is there already is multiplied in",
    )
    fill: str = option("copy", "of oversample: copy | mix | ngram | model")
    order: int = option(2, "of ngram: words that the next one depends on")
    sure: float = option(0.9, "of ngram and model: the least probability of the class")
    perplexity: Optional[float] = option(
        None, "of ngram and model: the most that the model given may find; null: not asked"
    )
    prompt: str = option(
        "{label}: {text}",
        "of model: what it is asked; {label} is the class, {text} one of its texts",
    )
    input: str = option(
        "prompt", "of model: the column of its input, as in the data that it was trained on"
    )
    answer: str = option("prediction", "of model: the field of its record that holds what it wrote")
    tries: int = option(
        20, "of ngram and model: texts that are written for each one that is kept, at most"
    )

    def check(self) -> None:
        choice("balance", "method", self.method, METHODS)
        choice("balance", "toward", self.toward, TOWARD)
        choice("balance", "fill", self.fill, FILL)
        at_least(
            "balance",
            1,
            temperature=self.temperature,
            copies=self.copies,
            order=self.order,
            tries=self.tries,
        )
        for name, value, good, expected in (
            ("beta", self.beta, 0 <= self.beta < 1, "at least 0 and less than 1"),
            ("ratio", self.ratio, 0 < self.ratio <= 1, "more than 0 and at most 1"),
            ("sure", self.sure, 0 <= self.sure <= 1, "a probability"),
        ):
            if not good:
                raise ConfigError(f"stages.balance.{name}={value}: expected {expected}")
        if self.method != "oversample" and (self.fill != "copy" or self.copies is not None):
            raise ConfigError(
                "stages.balance.fill and copies are read with stages.balance.method=oversample only"
            )
        if self.fill != "copy" and self.context.columns.text_pair:
            raise ConfigError(
                f"stages.balance.fill={self.fill}: makes single texts, but"
                f" data.columns.text_pair={self.context.columns.text_pair}; set fill=copy"
            )
        if self.fill == "model" and self.context.predict is None:
            raise ConfigError(
                "stages.balance.fill=model: no model was given that could write texts"
            )
        if self.perplexity is not None and (
            self.context.score is None or self.fill not in ("ngram", "model")
        ):
            raise ConfigError(
                "stages.balance.perplexity: needs a model that scores texts, and"
                " stages.balance.fill=ngram or model"
            )

        for used, *options in (
            (self.toward == "temperature", "temperature"),
            (self.toward == "effective", "beta"),
            (self.toward == "ratio", "ratio"),
            (self.fill == "ngram", "order"),
            (self.fill in ("ngram", "model"), "sure"),
            (self.fill != "copy", "tries"),
            (self.fill == "model", "prompt", "input", "answer"),
        ):
            if not used:
                unread(
                    self,
                    "balance",
                    f"with method={self.method}, toward={self.toward} and fill={self.fill}",
                    *options,
                )

    @property
    def name(self) -> str:
        return self.column or self.context.label

    def labels(self, row: Row) -> list[str]:
        """Returns the classes of a row, as training reads them.

        Raises DataError where there is none, or a cell holds something else.
        """
        columns = self.context.columns
        if self.multilabel:
            given = (
                columns
                if self.column is None
                else dataclasses.replace(columns, label=self.column, labels=[])
            )
            # not read, and perhaps not there
            text = {name: "" for name in (self.context.text, columns.text_pair) if name}
            return sorted(multilabel_record(with_fields(row, **text), given).labels) or [NO_LABEL]
        return [
            label_of(
                value_of(row, self.name, "stages.balance.column"),
                f"{row.where}: column {self.name!r}",
                columns,
            )
        ]

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterator[Row]:
        labels = [self.labels(row) for row in rows]
        count = Counter(label for each in labels for label in each)
        if len(count) < 2:
            raise DataError(
                f"stages.balance: the training rows have {len(count)} classes in column"
                f" {self.name!r}, so there is nothing to balance"
            )
        if max(count.values()) == 1:
            raise DataError(
                f"stages.balance: every value of column {self.name!r} occurs once, so it holds no"
                " classes; set stages.balance.column"
            )
        report.facts["before"] = dict(sorted(count.items()))
        if self.method == "weight":
            yield from self._weighted(rows, labels, count, report)
            return
        chosen = [min(each, key=lambda label: (count[label], label)) for each in labels]
        after: Counter[str] = Counter()
        for row, each in self._sampled(rows, labels, chosen, report):
            after.update(each)
            yield row
        report.facts["after"] = dict(sorted(after.items()))

    def _mass(self, counts: np.ndarray) -> np.ndarray:
        options = {"temperature": self.temperature, "beta": self.beta, "ratio": self.ratio}
        return shares.mass(counts, self.toward, **options, shrink=self.method == "undersample")

    # --- weights
    # ----------------------------------------------------------------------------------------------
    def _weighted(
        self, rows: RowSource, labels: Sequence[list[str]], count: Counter, report: Report
    ) -> Iterator[Row]:
        names = sorted(count)
        counts = np.array([count[name] for name in names])
        of = dict(zip(names, self._mass(counts) / counts, strict=True))
        weights = np.array([np.mean([of[label] for label in each]) for each in labels])
        report.facts["weights"] = {name: rounded(of[name] / weights.mean()) for name in names}
        for row, weight in zip(
            rows, row_weights(rows, weights, self.into, "stages.balance.into"), strict=True
        ):
            report.changed["weighted"] += 1
            yield with_fields(row, **{self.into: weight})

    # --- sampling
    # ----------------------------------------------------------------------------------------------
    def _sampled(
        self, rows: RowSource, labels: Sequence[list[str]], chosen: Sequence[str], report: Report
    ) -> Iterator[tuple[Row, list[str]]]:
        """Yields the sampled rows and their labels."""
        names = sorted(set(chosen))
        count = Counter(chosen)
        counts = np.array([count[name] for name in names])
        mass = self._mass(counts)
        sizes = (
            shares.grown(counts, mass, self.copies)
            if self.method == "oversample"
            else shares.shrunk(counts, mass)
        )
        sizes = dict(
            zip(
                names,
                shares.shared(len(chosen), mass) if self.method == "resample" else sizes,
                strict=True,
            )
        )
        times = self._times(rows, chosen, count if self.fill != "copy" else sizes)
        for row, each, n in zip(rows, labels, times, strict=True):
            if n == 0:
                report.drop(row, f"{self.method}d")
            for copy in range(n):
                if copy:
                    report.add("copy")
                yield row, each
        if self.fill != "copy":
            for row, label in self._new(
                rows, labels, {name: int(sizes[name] - count[name]) for name in names}
            ):
                report.add({"mix": "mixed"}.get(self.fill, "generated"))
                yield row, [label]

    def _times(self, rows: RowSource, chosen: Sequence[str], sizes: dict[str, int]) -> list[int]:
        """Returns how often each row comes.

        All of a class alike, and once more those whose random number is smallest.
        """
        members, keys = defaultdict(list), [self.rng(row).random() for row in rows]
        for i, name in enumerate(chosen):
            members[name].append(i)
        times = [0] * len(chosen)
        for name, indices in members.items():
            every, more = divmod(int(sizes[name]), len(indices))
            once_more = set(sorted(indices, key=lambda i: (keys[i], i))[:more])
            for i in indices:
                times[i] = every + (i in once_more)
        return times

    # --- new rows
    # ----------------------------------------------------------------------------------------------
    def _new(
        self, rows: RowSource, labels: Sequence[list[str]], missing: dict[str, int]
    ) -> Iterator[tuple[Row, str]]:
        option, name = "data.columns.text", self.context.text
        for row, each in zip(rows, labels, strict=True):
            if len(each) > 1:
                raise DataError(
                    f"{row.where}: {len(each)} labels; stages.balance.fill={self.fill} makes rows"
                    " of one label, set stages.balance.fill=copy"
                )
        by_class: dict[str, list[Row]] = defaultdict(list)
        for row, (label,) in zip(rows, labels, strict=True):
            by_class[label].append(row)
        texts = [text_of(row, name, option) for row in rows]
        judge = (
            None
            if self.fill == "mix"
            else minority.NgramClassifier(texts, [each[0] for each in labels])
        )
        known = set(texts)
        for label in sorted(label for label, n in missing.items() if n > 0):
            made = 0
            for row, text in self._written(by_class[label], label, missing[label]):
                if text.strip() and text not in known and self._good(text, label, judge):
                    known.add(text)
                    made += 1
                    kept = {
                        field: row.fields[field]
                        for field in (self.name, self.into)
                        if field in row.fields
                    }
                    yield with_fields(row, **dict.fromkeys(row.fields) | kept | {name: text}), label
                if made == missing[label]:
                    break
            if made < missing[label]:
                wanted = missing[label]
                raise DataError(
                    f"stages.balance.fill={self.fill}: {made} of {wanted} new texts of class"
                    f" {label!r} are good after {wanted * self.tries} tries; raise"
                    " stages.balance.tries, lower stages.balance.sure, ask for fewer by"
                    " stages.balance.toward or copies, or set fill=copy"
                )

    def _good(self, text: str, label: str, judge: minority.NgramClassifier | None) -> bool:
        if judge is not None and judge.probability(text, label) < self.sure:
            return False
        return (
            self.perplexity is None
            or float(np.asarray(self.context.score([text]))[0]) <= self.perplexity
        )

    def _written(self, rows: Sequence[Row], label: str, wanted: int) -> Iterator[tuple[Row, str]]:
        """Yields (row of the other fields, new text) as often as may be tried."""
        name = self.context.text
        texts = [str(row.fields[name]) for row in rows]
        model = minority.NgramModel(texts, self.order) if self.fill == "ngram" else None
        longest = max(len(minority.pieces(text)[0]) for text in texts)
        for i in range(wanted * self.tries):
            draw = rng(self.context.seed, "Balance", self.fill, label, i)
            a, b = draw.integers(len(rows), size=2)
            if model is not None:
                yield rows[a], model.sample(draw, longest)
            elif self.fill == "mix":
                yield rows[a], minority.spliced(texts[a], texts[b], draw.uniform(0.3, 0.7))
            else:
                prompt = filled_in(self.prompt, label=label, text=texts[a])
                (answer,) = written(self, "balance", [rows[a]], [prompt], self.input, self.answer)
                yield rows[a], answer or ""
