"""Noise: texts that look like no text, by rules of thumb. One pass and no memory.

The rules of Rae et al. 2021 (Gopher) are those of the stage `heuristics`. They were made for web
pages in English, and mathematics, code and lists break them by nature. Those on words are asked of
texts with at least 50 words only, Gopher's own lower bound, and those on lines of texts with at
least four; that a text is short, or has no English function words, is counted but does not make it
noisy. Those marked (ours) are for short texts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from jaxsft.data.scripts import is_unspaced
from jaxsft.prepare.quality.text_measures import NO_SCRIPT
from jaxsft.prepare.stages.heuristics import gopher, gopher_repetition

# rule -> what it says; in the order of the card
RULES = {
    "no_letter": "no letter of any script (ours)",
    "character_run": "ten times the same letter or sign in a row (ours)",
    "word_run": "five times the same word, which is no number, in a row (ours)",
    "symbols": "more than 0.1 hashes or ellipses per word",
    "word_length": (
        "the mean of what stands between spaces has fewer than 3 or more than 10 characters (not"
        " asked of scripts without spaces)"
    ),
    "not_words": (
        "fewer than 80 % of what stands between spaces has a letter (not asked of scripts without"
        " spaces)"
    ),
    "top_ngram": (
        "the most frequent run of 2, 3 or 4 words covers more than 20, 18 or 16 % of the letters"
    ),
    "duplicate_ngrams": (
        "runs of 5 to 10 words that occur again cover more than 15 to 10 % of the letters"
    ),
    "bullets": "more than 90 % of the lines begin with a bullet",
    "ellipsis_lines": "more than 30 % of the lines end with an ellipsis",
    "duplicate_lines": (
        "more than 30 % of the lines, or 20 % of their characters, are lines that were there before"
    ),
    "duplicate_paragraphs": (
        "more than 30 % of the paragraphs, or 20 % of their characters, are paragraphs that were"
        " there before"
    ),
}
INFORMATIVE = {
    "number_of_words": "fewer than 50 or more than 100,000 words",
    "few_function_words": "fewer than two of the, be, to, of, and, that, have, with",
}
LONG, LINES = 50, 4  # words and lines from which on Gopher's rules are asked
# Reasons of the stage, as they begin, and the rules of the card.
SPACED = {
    "mean length of words": "word_length",
    "hashes or ellipses": "symbols",
    "words without a letter": "not_words",
}
REPEATED = {"most frequent": "top_ngram"} | {
    f"repeated {n}-grams": "duplicate_ngrams" for n in range(5, 11)
}
IN_LINES = {
    "lines with a bullet": "bullets",
    "lines that end with": "ellipsis_lines",
    "repeated lines": "duplicate_lines",
}
IN_LINES |= {"characters in repeated lines": "duplicate_lines"}
IN_LINES |= {
    "repeated paragraphs": "duplicate_paragraphs",
    "characters in repeated paragraphs": "duplicate_paragraphs",
}
ALWAYS = {"number of words": "number_of_words", "function words": "few_function_words"}

_run = re.compile(r"([^\W\d_]|[^\w\s])\1{9}")


def rules(text: str, words: Sequence[str], script: str) -> list[str]:
    """Returns the names of the rules that a text breaks; none for an empty one.

    The rules are of `RULES` and `INFORMATIVE`; an empty text is missing, not noise.
    """
    if not text.strip():
        return []
    out = []
    if script == NO_SCRIPT:
        out.append("no_letter")
    if _run.search(text):
        out.append("character_run")
    if any(
        len(set(run)) == 1 and not run[0].isdigit()
        for run in zip(*(words[i:] for i in range(5)), strict=False)
    ):
        out.append("word_run")
    asked, long, lined = (
        dict(ALWAYS),
        len(words) >= LONG,
        sum(bool(line.strip()) for line in text.split("\n")) >= LINES,
    )
    if long and script != NO_SCRIPT and not is_unspaced(text):
        asked |= SPACED
    if long:
        asked |= REPEATED
    if lined:
        asked |= IN_LINES
    reasons = itertools.chain(gopher(text), gopher_repetition(text) if long or lined else ())
    found = (reason.removeprefix("gopher, ") for reason in reasons)
    out += [rule for reason in found for begin, rule in asked.items() if reason.startswith(begin)]
    return list(dict.fromkeys(out))
