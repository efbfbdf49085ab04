"""The stage `heuristics`: rules of thumb about the form of texts.

Length, repetition, symbols, bad words, and the length of a target against its source.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Optional

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.data.graphemes import marks
from jaxsft.data.scripts import is_unspaced, lines_of, words
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.prepare.stage import Report, Stage, State, choice
from jaxsft.prepare.text_columns import judge, text_in, unread

RULES = ("gopher", "gopher_repetition", "c4")
# Rae et al. 2021 (arXiv:2112.11446), appendix A.1.1: at least two of these in a document.
FUNCTION_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
# The same, table A1: the largest share of the characters that lie in the most frequent n-gram, and
# in n-grams that are repeated.
TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED_NGRAM = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
BULLETS = ("•", "-", "*", "‣", "◦")
_sentence_end = re.compile(r"[.!?。！？][\"'”’)\]]*(?=\s|$)|[。！？]")
_paragraph = re.compile(r"\n\s*\n")


@dataclasses.dataclass(frozen=True)
class Heuristics(Stage):
    """Drops rows whose form says that they are no good text: too short or long, mostly symbols,
    full of repetition, with words of a list.

    Every bound is inclusive: `min_words=5` keeps five words. Words are counted without punctuation;
    in scripts that are written without spaces each character is one. The first rule that a row
    breaks is its reason, and with action=mark all of them are told.

    Sets of rules, with the numbers of their papers, made for web pages in English, not for
    instructions or dialogues:
    - gopher: Rae et al. 2021, appendix A.1.1: 50 to 100,000 words, of 3 to 10 characters on
      average; at most one `#` or ellipsis in ten words; at most 90 % of lines with a bullet, 30 %
      with an ellipsis at the end; 80 % of words with a letter; two English function words.
    - gopher_repetition: the same, table A1: shares of repeated lines, paragraphs and n-grams.
    - c4: Raffel et al. 2020, section 2.2, as a filter of rows: no `lorem ipsum`, no `{`, at least
      three sentences. (Its filter of lines is `clean.boilerplate`, its list of bad words
      `bad_words`.)
    """

    slow: ClassVar[bool] = True
    folders: ClassVar[tuple[str, ...]] = ("tokenizer",)

    field: str = option("", "the column that is looked at; empty: the text column")
    rules: list[str] = option([], "gopher | gopher_repetition | c4")
    min_chars: Optional[int] = option(None, "the least number of characters")
    max_chars: Optional[int] = option(None, "the largest number of characters")
    min_words: Optional[int] = option(None, "the least number of words")
    max_words: Optional[int] = option(None, "the largest number of words")
    min_tokens: Optional[int] = option(None, "the least number of tokens")
    max_tokens: Optional[int] = option(None, "the largest number of tokens")
    tokenizer: Optional[str] = option(
        None, "what counts tokens: a folder with tokenizer.json, or a run directory"
    )
    max_symbols: Optional[float] = option(
        None,
        "the largest share of characters (without white space) that are neither letter, digit nor"
        " accent",
    )
    max_digits: Optional[float] = option(
        None, "the largest share of digits among the characters (without white space)"
    )
    max_upper: Optional[float] = option(None, "the largest share of upper case among the letters")
    max_repeated_lines: Optional[float] = option(
        None, "the largest share of lines that stood there before"
    )
    max_repeated_ngrams: Optional[float] = option(
        None, "the largest share of n-grams of words that stood there before"
    )
    ngram: int = option(3, "words in an n-gram of max_repeated_ngrams")
    bad_words: Optional[str] = option(
        None, "a file with a bad word, or several words, a line; case does not matter"
    )
    max_bad_words: int = option(0, "so many of them may occur")
    pair: list[str] = option(
        [],
        "two columns, such as source and target, whose lengths in characters are compared",
    )
    min_ratio: Optional[float] = option(
        None, "the least length of the second column of `pair`, divided by that of the first"
    )
    max_ratio: Optional[float] = option(
        None, "the largest length of the second column of `pair`, divided by that of the first"
    )
    action: str = option("drop", "drop | mark (the column `marks` says why)")

    def check(self) -> None:
        choice("heuristics", "action", self.action, ("drop", "mark"))
        for rule in self.rules:
            choice("heuristics", "rules", rule, RULES)
        for unit in ("chars", "words", "tokens", "ratio"):
            low, high = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if low is not None and high is not None and low > high:
                raise ConfigError(f"stages.heuristics: min_{unit}={low} is above max_{unit}={high}")
        for name in ("symbols", "digits", "upper", "repeated_lines", "repeated_ngrams"):
            value = getattr(self, f"max_{name}")
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(
                    f"stages.heuristics.max_{name}={value}: expected a share from 0 to 1"
                )
        if self.ngram < 1:
            raise ConfigError(f"stages.heuristics.ngram={self.ngram}: expected at least 1")
        if ((self.min_tokens, self.max_tokens) == (None, None)) != (self.tokenizer is None):
            raise ConfigError(
                "stages.heuristics: tokenizer=<folder> and min_tokens or max_tokens belong together"
            )
        if ((self.min_ratio, self.max_ratio) == (None, None)) != (not self.pair) or len(
            self.pair
        ) not in (0, 2):
            raise ConfigError(
                "stages.heuristics: pair=[source, target] and min_ratio or max_ratio belong"
                " together"
            )
        if self.bad_words is None:
            unread(
                self,
                "heuristics",
                "it counts words of a list; set bad_words=<file>",
                "max_bad_words",
            )
        if self.max_repeated_ngrams is None:
            unread(self, "heuristics", "it belongs to max_repeated_ngrams", "ngram")
        if self.bad_words is not None:
            _listed(self.bad_words)
        if self.tokenizer is not None:
            _tokenizer(self.tokenizer)
        if not self._rules:
            raise ConfigError(
                "stages.heuristics: no rule is set, and nothing would be dropped; set rules, or a"
                " bound such as min_words"
            )

    def row(self, row: Row, state: State, report: Report) -> Row | None:
        reasons = (reason for rule in self._rules for reason in rule(self, row))
        found = (
            list(reasons)
            if self.action == "mark"
            else [first]
            if (first := next(reasons, None))
            else []
        )
        return judge(self, "heuristics", row, found, report, self.action)

    @property
    def _rules(self) -> list[Callable[[Heuristics, Row], Iterator[str]]]:
        """Returns the rules that are asked for, the cheap ones first."""
        asked = lambda *names: any(getattr(self, name) is not None for name in names)
        table = (
            (asked("min_chars", "max_chars"), Heuristics._chars),
            (asked("min_ratio", "max_ratio"), Heuristics._ratio),
            (asked("min_words", "max_words"), Heuristics._words),
            (asked("max_symbols", "max_digits", "max_upper"), Heuristics._shares),
            (asked("max_repeated_lines", "max_repeated_ngrams"), Heuristics._repetition),
            (asked("bad_words"), Heuristics._bad_words),
            ("c4" in self.rules, lambda self, row: c4(self._text(row))),
            ("gopher" in self.rules, lambda self, row: gopher(self._text(row))),
            (
                "gopher_repetition" in self.rules,
                lambda self, row: gopher_repetition(self._text(row)),
            ),
            (asked("min_tokens", "max_tokens"), Heuristics._tokens),
        )
        return [rule for on, rule in table if on]

    def _text(self, row: Row) -> str:
        return text_in(row, self.field or self.context.text, "stages.heuristics.field")

    def _chars(self, row: Row) -> Iterator[str]:
        yield from _bounds(len(self._text(row)), self.min_chars, self.max_chars, "characters")

    def _words(self, row: Row) -> Iterator[str]:
        yield from _bounds(len(words(self._text(row))), self.min_words, self.max_words, "words")

    def _tokens(self, row: Row) -> Iterator[str]:
        yield from _bounds(
            len(_tokenizer(str(self.tokenizer)).encode(self._text(row))),
            self.min_tokens,
            self.max_tokens,
            "tokens",
        )

    def _shares(self, row: Row) -> Iterator[str]:
        text = "".join(self._text(row).split())
        letters = sum(map(str.isalpha, text))
        digits = sum(map(str.isdigit, text))
        upper = sum(map(str.isupper, text))
        accents = 0 if text.isascii() else sum(unicodedata.category(c)[0] == "M" for c in text)
        for value, total, most, name in (
            (
                len(text) - sum(map(str.isalnum, text)) - accents,
                len(text),
                self.max_symbols,
                "symbols",
            ),
            (digits, len(text), self.max_digits, "digits"),
            (upper, letters, self.max_upper, "upper case"),
        ):
            if most is not None and total and value / total > most:
                yield f"too many {name}" if name != "upper case" else "too much upper case"

    def _repetition(self, row: Row) -> Iterator[str]:
        text = self._text(row)
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if self.max_repeated_lines is not None and _repeated(lines) > self.max_repeated_lines:
            yield "repeated lines"
        found = [word.lower() for word in words(text)]
        if (
            self.max_repeated_ngrams is not None
            and _repeated(list(_ngrams(found, self.ngram))) > self.max_repeated_ngrams
        ):
            yield "repeated n-grams"

    def _bad_words(self, row: Row) -> Iterator[str]:
        if (
            sum(1 for _ in _listed(str(self.bad_words)).finditer(self._text(row)))
            > self.max_bad_words
        ):
            yield "bad words"

    def _ratio(self, row: Row) -> Iterator[str]:
        source, target = (len(text_in(row, name, "stages.heuristics.pair")) for name in self.pair)
        if source == 0:
            yield f"nothing in {self.pair[0]}"
            return
        if self.min_ratio is not None and target < self.min_ratio * source:
            yield f"{self.pair[1]} too short for {self.pair[0]}"
        if self.max_ratio is not None and target > self.max_ratio * source:
            yield f"{self.pair[1]} too long for {self.pair[0]}"


# --- the rules of the papers
# --------------------------------------------------------------------------------------------------
def gopher(text: str) -> Iterator[str]:
    """Yields the reasons why a text breaks the quality rules of Gopher.

    Rae et al. 2021, appendix A.1.1.
    """
    found = text.split()
    if not 50 <= len(found) <= 100_000:
        yield "gopher, number of words"
    if found and not 3 <= sum(map(len, found)) / len(found) <= 10:
        yield "gopher, mean length of words"
    if max(text.count("#"), text.count("...") + text.count("…")) > 0.1 * len(found):
        yield "gopher, hashes or ellipses"
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if sum(line.startswith(BULLETS) for line in lines) > 0.9 * len(lines):
        yield "gopher, lines with a bullet"
    if sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
        yield "gopher, lines that end with an ellipsis"
    if sum(any(map(str.isalpha, word)) for word in found) < 0.8 * len(found):
        yield "gopher, words without a letter"
    if len(FUNCTION_WORDS & {word.lower() for word in words(text)}) < 2:
        yield "gopher, function words"


def gopher_repetition(text: str) -> Iterator[str]:
    """Yields the reasons why a text breaks Gopher's rules of repetition.

    Rae et al. 2021, table A1.
    """
    for parts, name in ((text.split("\n"), "lines"), (_paragraph.split(text), "paragraphs")):
        parts = [part.strip() for part in parts if part.strip()]
        if _repeated(parts) > 0.30:
            yield f"gopher, repeated {name}"
        if _repeated(parts, len) > 0.20:
            yield f"gopher, characters in repeated {name}"
    found = words(text) if is_unspaced(text) else text.split()
    total = sum(map(len, found))
    for n, most in TOP_NGRAM.items():
        counts = Counter(_ngrams(found, n))
        if counts and total:
            top = max(counts.values())
            # Of equally frequent ones the longest; once is no repetition.
            length = max(sum(map(len, ngram)) for ngram, count in counts.items() if count == top)
            if top > 1 and top * length > most * total:
                yield f"gopher, most frequent {n}-gram"
    for n, most in REPEATED_NGRAM.items():
        if _covered(found, n) > most * total:
            yield f"gopher, repeated {n}-grams"


def c4(text: str) -> Iterator[str]:
    """Yields the reasons why a text breaks the rules of C4 for pages.

    Raffel et al. 2020, section 2.2.
    """
    if "lorem ipsum" in text.lower():
        yield "c4, lorem ipsum"
    if "{" in text:
        yield "c4, curly bracket"
    if len(_sentence_end.findall(text)) < 3:
        yield "c4, fewer than three sentences"


def _covered(found: list[str], n: int) -> int:
    """Counts the characters of words in repeated n-grams; each word counts once."""
    seen: set[tuple[str, ...]] = set()
    covered, end = 0, 0
    for i, ngram in enumerate(_ngrams(found, n)):
        if ngram in seen:
            covered += sum(len(word) for word in found[max(i, end) : i + n])
            end = i + n
        seen.add(ngram)
    return covered


def _repeated(parts: list[Any], weight: Callable[[Any], int] = lambda _: 1) -> float:
    """Computes the share of parts, by weight, that occurred before."""
    total = sum(map(weight, parts))
    return 1 - sum(map(weight, set(parts))) / total if total else 0.0


def _ngrams(found: list[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(found[i:] for i in range(n)), strict=False)


def _bounds(value: int, low: int | None, high: int | None, unit: str) -> Iterator[str]:
    if low is not None and value < low:
        yield f"too few {unit}"
    if high is not None and value > high:
        yield f"too many {unit}"


@functools.cache
def _listed(path: str) -> re.Pattern[str]:
    """Compiles the words of a list, longer entries first.

    They match whole words where letters with spaces around them would be one.
    """
    entries = sorted(
        {line.lower() for line in lines_of(path, "stages.heuristics.bad_words")},
        key=lambda entry: (-len(entry), entry),
    )
    whole = "|".join(re.escape(entry) for entry in entries if not is_unspaced(entry))
    inside = "|".join(re.escape(entry) for entry in entries if is_unspaced(entry))
    return re.compile(
        "|".join(
            part
            for part in (rf"(?<!\w)(?:{whole})(?![\w{marks()}])" if whole else "", inside)
            if part
        ),
        re.I,
    )


@functools.cache
def _tokenizer(path: str) -> Tokenizer:
    folder = Path(path)
    return Tokenizer.load(folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder)
