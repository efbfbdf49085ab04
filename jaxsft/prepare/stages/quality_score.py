"""The stage `quality_score`: one number for how good a row is, and what becomes of the worst."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Optional

import numpy as np

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.data.scripts import lines_of, words
from jaxsft.errors import ConfigError, DataError
from jaxsft.extras import need
from jaxsft.prepare.stage import Report, RowSource, Stage, State, choice, number_of, with_fields
from jaxsft.prepare.text_columns import add_columns, batches, judge, text_in, unread

METHODS = ("classifier", "bleu", "rouge", "model")
BATCH = 256
WEIGHT = "weight"


@dataclasses.dataclass(frozen=True)
class QualityScore(Stage):
    """Scores each row, adds the column `quality`, and drops, marks or down-weights the rows beyond
    a bound.

    - method=classifier: the probability that a text belongs to the good examples, by logistic
      regression over hashed words and pairs of words, as in the filter of GPT-3 (Brown et al. 2020,
      appendix A). `good` is a file with a text a line; `bad` too, or the training rows themselves
      (Brown et al.: the crawl that is filtered). What is learnt is kept: every split and process
      scores alike.
    - method=bleu: sentence BLEU with exponential smoothing (Papineni et al. 2002; sacrebleu), 0 to
      100, of the text against `reference`.
    - method=rouge: ROUGE-L, F1 (Lin 2004; rouge-score), 0 to 1, of the text against `reference`:
      also a cheap overlap of an answer and its prompt.
    - method=model: the number that the engine's model gives to each text, such as its perplexity;
      lower is better unless `better=higher`.

    The bound is `threshold`, or `quantile` of the scores of the training rows: 0.1 is beyond the
    worst tenth of them. A score at the bound is good enough. BLEU and ROUGE need the extra `text`.
    """

    learns: ClassVar[bool] = True

    field: str = option("", "the column that is scored; empty: the text column")
    method: str = option("classifier", "classifier | bleu | rouge | model")
    reference: Optional[str] = option(
        None, "the column with the reference of method=bleu and rouge"
    )
    good: Optional[str] = option(None, "a file with good texts, one a line (method=classifier)")
    bad: Optional[str] = option(
        None, "a file with bad texts, one a line; null: the training rows are the bad ones"
    )
    bits: int = option(12, "the classifier has 2**bits weights")
    better: Optional[str] = option(
        None, "higher | lower; null: lower for method=model, higher for the others"
    )
    threshold: Optional[float] = option(None, "the worst score that is good enough")
    quantile: Optional[float] = option(None, "or the share of training rows that is not")
    action: str = option(
        "drop",
        "drop | mark (the column `marks` says why) | weight (the column `weight` is multiplied by"
        " low_weight)",
    )
    low_weight: float = option(0.5, "the factor of action=weight")
    replace: bool = option(
        False, "the column `quality` may take the place of one that holds something"
    )

    def check(self) -> None:
        choice("quality_score", "method", self.method, METHODS)
        choice("quality_score", "action", self.action, ("drop", "mark", "weight"))
        if self.better is not None:
            choice("quality_score", "better", self.better, ("higher", "lower"))
        if self.threshold is not None and self.quantile is not None:
            raise ConfigError("stages.quality_score: threshold and quantile exclude each other")
        if self.threshold is None and self.quantile is None:
            raise ConfigError(
                "stages.quality_score: no bound is set; set threshold, or quantile=0.1 for the"
                " worst tenth"
            )
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise ConfigError(
                f"stages.quality_score.quantile={self.quantile}: expected a number between 0 and 1"
            )
        if (self.method in ("bleu", "rouge")) != (self.reference is not None):
            raise ConfigError(
                "stages.quality_score: reference=<column> belongs to method=bleu and method=rouge,"
                " and they need it"
            )
        if (self.method == "classifier") != (self.good is not None) or (
            self.bad is not None and self.good is None
        ):
            raise ConfigError(
                "stages.quality_score: good=<file> (and bad=<file>) belong to method=classifier,"
                " which needs it"
            )
        if not 4 <= self.bits <= 16:
            raise ConfigError(f"stages.quality_score.bits={self.bits}: expected 4 to 16")
        if self.method != "classifier":
            unread(self, "quality_score", "it belongs to method=classifier", "bits")
        if self.action != "weight":
            unread(self, "quality_score", "it belongs to action=weight", "low_weight")
        if not 0 <= self.low_weight <= 1:
            raise ConfigError(
                f"stages.quality_score.low_weight={self.low_weight}: expected a number from 0 to 1"
            )
        if self.method == "model" and self.context.score is None:
            raise ConfigError(
                "stages.quality_score.method=model: it asks a model for scores, and none was given"
            )
        if self.method in ("bleu", "rouge"):
            _overlap(self.method)

    @property
    def _higher(self) -> bool:
        return self.better == "higher" or (self.better is None and self.method != "model")

    def fit(self, rows: RowSource, report: Report) -> dict[str, Any]:
        state: dict[str, Any] = {}
        if self.method == "classifier":
            good = lines_of(str(self.good), "stages.quality_score.good")
            bad: Iterable[str] = (
                lines_of(self.bad, "stages.quality_score.bad")
                if self.bad is not None
                else map(self._text, rows)
            )
            state = learn(good, list(bad), self.bits)
            report.facts["accuracy on the examples"] = state.pop("accuracy")
        if self.quantile is None:
            return state | {"bound": self.threshold}
        scores = (
            np.concatenate([self._scores(batch, state) for batch in batches(rows, BATCH)])
            if len(rows)
            else np.empty(0)
        )
        if not scores.size:
            raise DataError(
                "stages.quality_score.quantile: there are no training rows to learn it from"
            )
        share = self.quantile if self._higher else 1 - self.quantile
        # A score that some row has, so that a bound is never lost in rounding, and at most the
        # share asked for is beyond it.
        bound = float(np.quantile(scores, share, method="lower" if self._higher else "higher"))
        report.facts["bound"] = bound
        return state | {"bound": bound}

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterable[Row]:
        for batch in batches(rows, BATCH):
            for row, score in zip(batch, self._scores(batch, state).tolist(), strict=True):
                poor = score < state["bound"] if self._higher else score > state["bound"]
                new = add_columns(
                    row,
                    {"quality": score},
                    self.replace,
                    "rename it, or set stages.quality_score.replace=true",
                )
                if self.action == "weight":
                    if poor:
                        report.changed["lower weight"] += 1
                    weight = (
                        1.0
                        if (
                            found := (
                                number_of(row, WEIGHT, "the weights")
                                if WEIGHT in row.fields
                                else None
                            )
                        )
                        is None
                        else found
                    )
                    yield with_fields(new, **{WEIGHT: weight * (self.low_weight if poor else 1.0)})
                elif (
                    kept := judge(
                        self,
                        "quality_score",
                        new,
                        ["poor quality"] if poor else [],
                        report,
                        self.action,
                    )
                ) is not None:
                    yield kept

    def _text(self, row: Row) -> str:
        return text_in(row, self.field or self.context.text, "stages.quality_score.field")

    def _scores(self, rows: Sequence[Row], state: State) -> np.ndarray:
        """Computes the scores, float64 [N].

        Raises DataError where the model gives another number of them, or one that is not
        finite.
        """
        found = [self._text(row) for row in rows]
        if self.method == "classifier":
            scores = probability(state, found)
        elif self.method == "model":
            scores = (
                np.asarray(self.context.score(found), np.float64)
                if self.context.score
                else np.empty(0)
            )
            if scores.shape != (len(rows),):
                raise DataError(
                    f"{rows[0].where}: stages.quality_score: the model gave scores of shape"
                    f" {scores.shape} for {len(rows)} texts"
                )
        else:
            references = [
                text_in(row, str(self.reference), "stages.quality_score.reference") for row in rows
            ]
            scores = np.array(
                [_overlap(self.method)(a, b) for a, b in zip(found, references, strict=True)],
                np.float64,
            )
        if not np.isfinite(scores).all():
            i = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise DataError(
                f"{rows[i].where}: stages.quality_score: the score is {scores[i]}, expected a"
                " finite number; drop such rows before"
            )
        return scores


@functools.cache
def _overlap(method: str) -> Callable[[str, str], float]:
    """Returns a function (text, reference) -> score."""
    asked = f"stages.quality_score.method={method}"
    if method == "bleu":
        bleu = need("sacrebleu", asked).BLEU(effective_order=True)
        return lambda text, reference: round(bleu.sentence_score(text, [reference]).score, 4)
    scorer = need("rouge_score.rouge_scorer", asked).RougeScorer(
        ["rougeL"], tokenizer=_WordTokenizer()
    )
    return lambda text, reference: round(scorer.score(reference, text)["rougeL"].fmeasure, 6)


class _WordTokenizer:
    """The tokenizer of rouge-score for all scripts; its own knows ASCII words only."""

    def tokenize(self, text: str) -> list[str]:
        return [word.lower() for word in words(text)]


# --- the classifier
# --------------------------------------------------------------------------------------------------
def features(texts: Sequence[str], bits: int) -> Any:
    """Computes hashed words and pairs of words, 0 or 1: a sparse matrix [N, 2**bits].

    Each row is scaled to length 1.
    """
    from scipy.sparse import csr_matrix

    indices, ends = [], [0]
    for text in texts:
        found = [word.lower() for word in words(text)]
        terms = {*found, *(f"{a} {b}" for a, b in itertools.pairwise(found))}
        indices.append(
            np.unique(
                np.array(
                    [
                        zlib.crc32(term.encode("utf-8", "surrogatepass")) & (2**bits - 1)
                        for term in terms
                    ],
                    np.int64,
                )
            )
        )
        ends.append(ends[-1] + indices[-1].size)
    data = (
        np.concatenate([np.full(i.size, max(i.size, 1) ** -0.5) for i in indices])
        if texts
        else np.empty(0)
    )
    return csr_matrix(
        (data, np.concatenate(indices) if texts else np.empty(0, np.int64), ends),
        shape=(len(texts), 2**bits),
    )


def learn(
    good: Sequence[str], bad: Sequence[str], bits: int, penalty: float = 1.0
) -> dict[str, Any]:
    """Fits a logistic regression by L-BFGS, both classes weighted alike; returns JSON.

    The penalty is |w|**2 / 2 (as scikit-learn's C=1).
    """
    from scipy.optimize import minimize

    if not good or not bad:
        raise DataError(
            f"stages.quality_score: {len(good)} good and {len(bad)} bad examples; expected some of"
            " each"
        )
    x = features([*good, *bad], bits)
    sign = np.concatenate([np.ones(len(good)), -np.ones(len(bad))])
    weight = np.where(sign > 0, len(sign) / (2 * len(good)), len(sign) / (2 * len(bad)))

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[:-1] + w[-1])
        slope = -weight * sign * np.exp(-np.logaddexp(0, margin))
        value = weight @ np.logaddexp(0, -margin) + penalty / 2 * w[:-1] @ w[:-1]
        return value, np.append(x.T @ slope + penalty * w[:-1], slope.sum())

    w = minimize(
        loss, np.zeros(2**bits + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}
    ).x
    right = sign * (x @ w[:-1] + w[-1]) > 0
    # Six digits are kept: what is learnt is then the same on every machine, but for a last digit.
    return {
        "bits": bits,
        "weights": [round(v, 6) for v in w.tolist()],
        "accuracy": round(float(weight @ right / weight.sum()), 4),
    }


def probability(state: State, texts: Sequence[str]) -> np.ndarray:
    """Computes the probability of each text that it is good, float64 [N]."""
    w = np.asarray(state["weights"], np.float64)
    return np.round(1 / (1 + np.exp(-(features(texts, state["bits"]) @ w[:-1] + w[-1]))), 6)
