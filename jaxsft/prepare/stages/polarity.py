"""The stage `polarity`: how positive and subjective a text sounds, against its label."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, Optional

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.extras import need
from jaxsft.prepare.stage import Report, Stage, State, choice, value_of
from jaxsft.prepare.text_columns import add_columns, judge, text_in, unread

METHODS = ("vader", "textblob")


@dataclasses.dataclass(frozen=True)
class Polarity(Stage):
    """Adds the column `polarity` (-1 to 1; with textblob also `subjectivity`, 0 to 1), and points
    at rows whose label says the opposite, or that are too subjective: a cheap look for wrong labels
    in sentiment data, and a filter for factual text. English only.

    method=vader is the compound score of VADER (Hutto & Gilbert 2014), made for short informal
    text; textblob is the mean over TextBlob's lexicon of adjectives. Both are rules over a lexicon:
    they miss irony and whatever stands between the lines, so that mark is the default. Both are in
    the extra `text`.
    """

    slow: ClassVar[bool] = True

    field: str = option("", "the column that is looked at; empty: the text column")
    method: str = option("vader", "vader | textblob")
    labels: dict[str, Any] = option(
        {},
        "the polarity of each label: {positive: 1, negative: -1}; others say nothing",
    )
    margin: float = option(
        0.5,
        "a text contradicts its label where its polarity has the other sign and is at least so"
        " strong",
    )
    max_subjectivity: Optional[float] = option(
        None, "the most subjective text that is no outlier (textblob); null: any"
    )
    action: str = option("mark", "mark (the column `marks` says why) | drop")
    replace: bool = option(
        False, "the new columns may take the place of old ones that hold something"
    )

    def check(self) -> None:
        choice("polarity", "method", self.method, METHODS)
        choice("polarity", "action", self.action, ("mark", "drop"))
        for label, sign in self.labels.items():
            if isinstance(sign, bool) or not isinstance(sign, int | float) or sign == 0:
                raise ConfigError(
                    f"stages.polarity.labels.{label}={sign}: expected a positive or a negative"
                    " number"
                )
        if not 0 < self.margin <= 1:
            raise ConfigError(
                f"stages.polarity.margin={self.margin}: expected a number above 0, up to 1"
            )
        if self.max_subjectivity is not None and self.method != "textblob":
            raise ConfigError(
                "stages.polarity.max_subjectivity: vader does not tell it; set method=textblob"
            )
        if not self.labels:
            unread(self, "polarity", "without labels nothing can be contradicted", "margin")
        _scorer(self.method)

    def row(self, row: Row, state: State, report: Report) -> Row | None:
        scores = _scorer(self.method)(
            text_in(row, self.field or self.context.text, "stages.polarity.field")
        )
        new, reasons = (
            add_columns(
                row, scores, self.replace, "rename it, or set stages.polarity.replace=true"
            ),
            [],
        )
        if self.labels:
            label = value_of(row, self.context.label, "data.columns.label")
            if isinstance(label, list | dict):
                raise DataError(
                    f"{row.where}: column {self.context.label!r} holds a {type(label).__name__},"
                    " expected one label"
                )
            sign = self.labels.get(str(label), 0)
            if sign * scores["polarity"] < 0 and abs(scores["polarity"]) >= self.margin:
                reasons.append("polarity against the label")
        if self.max_subjectivity is not None and scores["subjectivity"] > self.max_subjectivity:
            reasons.append("too subjective")
        return judge(self, "polarity", new, reasons, report, self.action)


@functools.cache
def _scorer(method: str) -> Any:
    """Returns a function from a text to the new columns."""
    asked = f"stages.polarity.method={method}"
    if method == "vader":
        vader = need("vaderSentiment.vaderSentiment", asked).SentimentIntensityAnalyzer()
        return lambda text: {"polarity": round(float(vader.polarity_scores(text)["compound"]), 4)}
    blob = need("textblob", asked).TextBlob

    def score(text: str) -> dict[str, float]:
        found = blob(text).sentiment
        return {
            "polarity": round(float(found.polarity), 4),
            "subjectivity": round(float(found.subjectivity), 4),
        }

    return score
