"""Predictions as a reader sees them: what was given, what is right, and what was predicted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxsft.reports import facts
from jaxsft.rundir import number

INPUTS = ("prompt", "source", "text", "text_pair")
GOLD = ("reference", "label", "labels", "intent")
WORDS = 80  # of a text in words; the rest is counted
AROUND = 6  # words on either side of the one that an example is about
OUTSIDE = ("O", "_", None)  # tags that say nothing


@dataclass(frozen=True)
class Word:
    """A word with its gold and predicted label.

    "" where that is nothing, None where it is not known.
    """

    text: str
    gold: str | None
    answer: str | None

    @property
    def state(self) -> str:
        """Returns right, wrong, or "" where the word has no label."""
        if self.gold is None or self.answer is None:
            return ""
        return "wrong" if self.gold != self.answer else "right" if self.gold else ""

    def __str__(self) -> str:
        told = self.answer if self.gold is None else self.gold
        return f"{self.text}/{told}" if told else self.text


@dataclass(frozen=True)
class PredictionSample:
    """One line of predictions.

    `texts`, `gold` and `answer` are (name, text); `words` are those of a text whose words carry
    the answer.
    """

    texts: list[tuple[str, str]]
    words: list[Word] = field(default_factory=list)
    more_words: int = 0
    gold: tuple[str, str] | None = None
    answer: tuple[str, str] | None = None
    correct: bool | None = None
    # such as the probability, or the rank among candidates
    facts: list[tuple[str, Any]] = field(default_factory=list)
    nll: float | None = None  # per token, of a text that is only read
    tokens: int | None = None
    where: str = ""


def sample(row: Mapping[str, Any]) -> PredictionSample:
    """Returns what is shown of a line of `predictions/<split>.jsonl`.

    Raises DataError for a likelihood that is no number.
    """
    texts = [(name.replace("_", " "), row[name]) for name in INPUTS if row.get(name) is not None]
    text = lambda value: facts.value_text(value) if isinstance(value, list | dict) else value
    gold = next(((name, text(row[name])) for name in GOLD if row.get(name) is not None), None)
    guess = next(
        (
            (name.replace("_", " "), row[name])
            for name in ("predicted_intent", "prediction")
            if row.get(name) is not None
        ),
        None,
    )
    words = _words(row)
    if words and "predicted_intent" not in row:
        guess = None
    answer = None if guess is None else (guess[0], text(guess[1]))
    likelihood = None
    if not words and answer is None and row.get("tokens") and row.get("nll") is not None:
        likelihood = number(row["nll"]) / number(row["tokens"])
    about = [
        (name, row[name])
        for name in ("probability", "cosine", "rank")
        if row.get(name) is not None and not isinstance(row[name], dict)
    ]
    return PredictionSample(texts, words[:WORDS], max(len(words) - WORDS, 0), gold, answer,
    row.get("correct"), about, likelihood,
                  None if likelihood is None else row["tokens"],
                  Path(str(row.get("where", ""))).name)  # fmt: skip


def _words(row: Mapping[str, Any]) -> list[Word]:
    """Returns the words of a line of tags or of a tree, empty for other lines."""
    tokens, guess = row.get("tokens"), row.get("prediction")
    if not isinstance(tokens, list):
        return []
    if "heads" in row or (isinstance(guess, Mapping) and "head" in guess):
        guess = guess if isinstance(guess, Mapping) else {}
        gold, answer = (
            _arcs(tokens, row.get("heads"), row.get("deprels")),
            _arcs(tokens, guess.get("head"), guess.get("deprel")),
        )
    else:
        gold, answer = _tags(tokens, row.get("tags")), _tags(tokens, guess)
    return [Word(str(word), a, b) for word, a, b in zip(tokens, gold, answer, strict=True)]


def _tags(tokens: Sequence[Any], tags: Any) -> list[str | None]:
    if not isinstance(tags, list):
        return [None] * len(tokens)
    return ["" if tag in OUTSIDE else str(tag) for tag in tags]


def _arcs(tokens: Sequence[Any], heads: Any, relations: Any) -> list[str | None]:
    """Returns `relation of head` for each word.

    A head is the number of a word from 1, or 0 for the root.
    """
    if not isinstance(heads, list) or not isinstance(relations, list):
        return [None] * len(tokens)
    name = lambda head: f" of {tokens[head - 1]}" if 1 <= head <= len(tokens) else ""
    return [f"{relation}{name(head)}" for head, relation in zip(heads, relations, strict=True)]


def by_class(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yields lines of predictions with one label and one prediction each.

    Of tags and relations there is one for each word, between those around it.
    """
    for row in rows:
        guess, tokens = row.get("prediction"), row.get("tokens")
        if not isinstance(tokens, list):
            yield row
            continue
        gold, guess = (
            row.get("deprels", row.get("tags")),
            (guess.get("deprel") if isinstance(guess, Mapping) else guess),
        )
        for i, (a, b) in enumerate(zip(gold or (), guess or (), strict=False)):
            before, behind = (
                " ".join(map(str, part))
                for part in (tokens[max(i - AROUND, 0) : i], tokens[i + 1 : i + 1 + AROUND])
            )
            yield {
                "row": row.get("row"),
                "text": f"{before} «{tokens[i]}» {behind}".strip(),
                "label": a,
                "prediction": b,
            }


def readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a line of predictions for a table.

    Words have their tag or relation, as `Paris/B-LOC`; other lines stay as they are.
    """
    words = _words(row)
    if not words:
        return dict(row)
    shown = " ".join(str(word) for word in words)
    guessed = " ".join(str(Word(word.text, None, word.answer)) for word in words)
    rest = {
        k: v
        for k, v in row.items()
        if k not in ("row", "tokens", "tags", "heads", "deprels", "prediction")
    }
    return {"row": row.get("row"), "words": shown, "prediction": guessed, **rest}


def wrong_first(
    rows: Sequence[Mapping[str, Any]], count: int = facts.SAMPLES
) -> tuple[list[Mapping], list[Mapping]]:
    """Returns (wrong predictions, any predictions), each up to `count`, in their order.

    They are drawn at random with a fixed seed.
    """
    return facts.drawn([row for row in rows if row.get("correct") is False], count), facts.drawn(
        rows, count
    )
