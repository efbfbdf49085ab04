"""Explains the predictions of a model on some texts: scores of tokens by one method or several,
whether they are faithful, and how far they agree with rationales and with other runs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxsft.config.explain_options import ExplainOptions
from jaxsft.data.encoded_split import Split
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import attributions, faithfulness, text_scores
from jaxsft.evaluation.text_scores import ScoredTexts, TextScores
from jaxsft.tasks.task import Task


@dataclass(frozen=True)
class Explained:
    """Texts with the scores of their tokens.

    Attributes:
      target: `[N]` int, whose score was divided; of `scores.names`.
      outputs: `[N, outputs]`.
      found: by method, `[N, S]`.
    """

    scores: TextScores
    split: Split
    texts: ScoredTexts
    target: np.ndarray
    outputs: np.ndarray
    found: Mapping[str, np.ndarray]


def explain(
    task: Task, model: Any, params: Any, split: Split, options: ExplainOptions
) -> Explained:
    """Divides the score of each text of a split among its tokens.

    Raises:
      ConfigError: the task, or a method, has no such scores.
    """
    scores = text_scores.scores_of(task, model, params, options.baseline)
    texts = text_scores.texts_of(split, task)
    outputs = scores.predicted(texts)
    target = targets(scores, split, texts, outputs, options.target)
    found = {
        name: attributions.attribute(name, scores, texts, target, effort(options))
        for name in methods(options)
    }
    return Explained(scores, split, texts, target, outputs, found)


def explain_same(
    explained: Explained, task: Task, model: Any, params: Any, split: Split, options: ExplainOptions
) -> Explained:
    """Divides the scores of the same targets by another model, whatever it predicts.

    Its integrated gradients may miss their sum: a rounded model has no exact gradients.

    Raises ConfigError where its outputs have other names.
    """
    scores = text_scores.scores_of(task, model, params, explained.scores.baseline)
    if list(scores.names) != list(explained.scores.names):
        raise ConfigError(
            f"the other run has the outputs {', '.join(scores.names[:5])}, this one"
            f" {', '.join(explained.scores.names[:5])}; only runs with the same ones are compared"
        )
    texts, target = text_scores.texts_of(split, task), explained.target
    if len(texts) != len(target):
        raise ConfigError("the other run divides these texts into other parts")
    work = dataclasses.replace(effort(options), tolerance=np.inf)
    found = {
        name: attributions.attribute(name, scores, texts, target, work) for name in explained.found
    }
    return Explained(scores, split, texts, target, scores.predicted(texts), found)


def methods(options: ExplainOptions) -> list[str]:
    """Returns the methods that are asked for. Raises ConfigError for an unknown one."""
    names = [name for name in options.method.split(",") if name]
    for name in names:
        if name not in attributions.METHODS:
            raise ConfigError(
                f"explain.method={name}: unknown; there are {', '.join(attributions.METHODS)}"
            )
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"explain.method={options.method}: name each method once")
    return names


def effort(options: ExplainOptions) -> attributions.Effort:
    """Returns how much work an estimate takes."""
    fields = [field.name for field in dataclasses.fields(attributions.Effort)]
    return attributions.Effort(**{name: getattr(options, name) for name in fields})


def targets(
    scores: TextScores, split: Split, texts: ScoredTexts, outputs: np.ndarray, asked: str
) -> np.ndarray:
    """Returns the number of the output of each text that is explained. Raises ConfigError."""
    if scores.kind in ("answer", "numbers") and asked == "predicted":
        return np.zeros(len(texts), np.int64)
    if asked == "predicted":
        return outputs.argmax(1)
    if asked in scores.names:
        return np.full(len(texts), list(scores.names).index(asked))
    if asked == "gold" and scores.kind == "label":
        return split.arrays["segment.label"].astype(np.int64)
    raise ConfigError(
        f"explain.target={asked}: expected predicted"
        f"{', gold' if scores.kind == 'label' else ''} or one of {', '.join(scores.names[:10])}"
    )


def summary(
    explained: Explained, options: ExplainOptions, rationale: Bool[np.ndarray, "n s"] | None
) -> list[dict[str, Any]]:
    """Returns a line for each method and number: `value`, `low`, `high`; against random scores too
    the mean `difference`, with `difference_low` and `difference_high`.
    """
    e, texts, out = explained, explained.texts, []
    bounded = functools.partial(
        faithfulness.mean_bounds,
        rows=texts.rows,
        level=options.level,
        replicates=options.replicates,
    )
    random = {}
    if options.faithfulness:
        random = faithfulness.of_random(e.scores, texts, e.target, options.orders, options.seed + 1)
    if rationale is not None:
        drawn = np.random.default_rng(options.seed + 2).standard_normal(texts.explained.shape)
        random |= faithfulness.plausibility(texts, drawn, rationale)
    for method, found in e.found.items():
        each = {}
        if method in attributions.COMPLETE:
            each["completeness_gap"] = attributions.completeness(e.scores, texts, e.target, found)
        if options.faithfulness:
            each |= faithfulness.of_scores(e.scores, texts, e.target, found)
        if rationale is not None:
            each |= faithfulness.plausibility(texts, found, rationale)
        shared = {name: each[name] - random[name] for name in each if name in random}
        differences = bounded(shared)
        for name, entry in bounded(each).items():
            line = {"method": method, "number": name}
            line |= {key: entry[key] for key in ("value", "low", "high", "n")}
            line["largest"] = float(np.nanmax(each[name]))
            if name in differences:
                pair = differences[name]
                line |= {"random": float(np.nanmean(random[name])), "difference": pair["value"]}
                line |= {"difference_low": pair["low"], "difference_high": pair["high"]}
            out.append(line)
    return out


def compared(
    explained: Explained, other: Explained, name: str, options: ExplainOptions
) -> list[dict[str, Any]]:
    """Returns how far the scores of another run agree, for each method, with bounds.

    Raises ConfigError where the runs cut texts into other tokens.
    """
    texts = explained.texts
    if texts.batch.tokens.shape != other.texts.batch.tokens.shape or not np.array_equal(
        texts.batch.tokens, other.texts.batch.tokens
    ):
        raise ConfigError(
            f"{name}: cuts these texts into other tokens; only runs with one tokenizer are compared"
        )
    out = []
    for method, found in explained.found.items():
        each = faithfulness.agreement(texts, found, other.found[method])
        given = faithfulness.mean_bounds(each, texts.rows, options.level, options.replicates)
        for number, entry in given.items():
            line = {"method": method, "number": f"{number}_with_{name}"}
            out.append(line | {key: entry[key] for key in ("value", "low", "high", "n")})
    return out


def rationales(
    split: Split, texts: ScoredTexts, task: Task, given: Sequence[Any], column: str
) -> Bool[np.ndarray, "texts seq"]:
    """Returns which tokens of each text lie in its rationale.

    Args:
      given: `[rows]`, a list of words, each wherever it occurs, or of `[start, end]` characters; or
        a text of words between spaces.

    Raises DataError where a rationale is of neither form, or its text has several parts.
    """
    out = np.zeros(texts.explained.shape, bool)
    if len(np.unique(texts.rows)) < len(texts):
        raise DataError(f"explain.rationale={column}: a row is longer than one window; cut it")
    for i, row in enumerate(texts.rows):
        text, where = getattr(split.records[row], "text", None), split.where[row]
        if text is None:
            raise DataError(f"{where}: explain.rationale={column}: is of texts, not conversations")
        spans = _spans(text, given[row], f"{where}: {column}")
        places = np.flatnonzero(texts.explained[i])
        for place, (start, end) in zip(places, task.tokenizer.offsets(text), strict=False):
            out[i, place] = any(start < stop and begin < end for begin, stop in spans)
    return out


def _spans(text: str, given: Any, where: str) -> list[tuple[int, int]]:
    """Returns the characters of a rationale. Raises DataError."""
    given, out = given.split() if isinstance(given, str) else given, []
    for one in given or []:
        if isinstance(one, str) and one:
            at = text.find(one)
            while at >= 0:
                out.append((at, at + len(one)))
                at = text.find(one, at + 1)
        elif (
            isinstance(one, list | tuple)
            and len(one) == 2
            and all(type(x) is int for x in one)
            and 0 <= one[0] < one[1] <= len(text)
        ):
            out.append((one[0], one[1]))
        else:
            raise DataError(
                f"{where}: expected words, or [start, end] characters of the text; found {one!r}"
            )
    return out


def lines(explained: Explained) -> list[dict[str, Any]]:
    """Returns a line for each text: its tokens, and their scores by method (None: none)."""
    e, out = explained, []
    shares = e.scores.share(np.take_along_axis(e.outputs, e.target[:, None], 1)[:, 0])
    if e.scores.kind == "label":
        odds = np.exp(e.outputs - e.outputs.max(1, keepdims=True))
        chosen = np.take_along_axis(odds, e.target[:, None], 1)[:, 0]
        shares = chosen / odds.sum(1)
    for i, row in enumerate(e.texts.rows):
        real = np.flatnonzero(e.texts.batch.segment_ids[i])
        mine = e.texts.explained[i]
        ids = e.texts.batch.tokens[i, real].tolist()
        record = e.split.records[row]
        line = {"row": int(row), "where": e.split.where[row], "target": _name(e, i)}
        line["value"] = float(shares[i])
        if e.scores.kind == "label":
            line["prediction"] = e.scores.names[int(e.outputs[i].argmax())]
        if isinstance(label := getattr(record, "label", None), str):
            line["label"] = label
        line["tokens"] = [e.scores.task.tokenizer.decode([x], skip_special=False) for x in ids]
        line["scores"] = {
            method: [float(found[i, at]) if mine[at] else None for at in real]
            for method, found in e.found.items()
        }
        out.append(line)
    return out


def _name(e: Explained, i: int) -> str:
    return str(e.scores.names[int(e.target[i])])
