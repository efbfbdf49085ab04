"""Noise: texts that look like no text, by rules of thumb, and labels that look wrong, by a classifier. The rules need one pass and no memory.

The rules from the filter of MassiveText are those of Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
appendix A.1 and table A1. They were made for web pages in English, and mathematics, code and lists break them by nature. Those on words are asked of
texts with at least 50 words only, Gopher's own lower bound, and those on lines of texts with at least four; that a text is short, or has no English
stop words, is counted but does not make it noisy. The rules marked (ours) are for short texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from jaxsft.prepare.quality import texts

# rule -> what it says; in the order of the card
RULES = {
    "no_letter": "no letter of any script (ours)",
    "character_run": "ten times the same letter or sign in a row (ours)",
    "word_run": "five times the same word, which is no number, in a row (ours)",
    "symbols": "more than 0.1 symbols (# or an ellipsis) per word",
    "word_length": "the mean word has fewer than 3 or more than 10 letters (not asked of scripts without spaces)",
    "not_words": "fewer than 80 % of what stands between spaces has a letter (not asked of scripts without spaces)",
    "top_ngram": "the most frequent run of 2, 3 or 4 words covers more than 20, 18 or 16 % of the letters",
    "duplicate_ngrams": "runs of 5 to 10 words that occur again cover more than 15 to 10 % of the letters",
    "bullets": "more than 90 % of the lines begin with a bullet",
    "ellipsis_lines": "more than 30 % of the lines end with an ellipsis",
    "duplicate_lines": "more than 30 % of the lines, or 20 % of their characters, are lines that were there before",
    "duplicate_paragraphs": "more than 30 % of the paragraphs, or 20 % of their characters, are paragraphs that were there before",
}
INFORMATIVE = {
    "few_words": "fewer than 50 words",
    "many_words": "more than 100,000 words",
    "few_stop_words": "fewer than two of the, be, to, of, and, that, have, with",
}
STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
LONG, LINES = 50, 4  # words and lines from which on Gopher's rules are asked
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

_symbol = re.compile(r"#|\.\.\.|…")
_bullet = re.compile(r"\s*[•‣⁃*\-–·●▪]\s")
_run = re.compile(r"([^\W\d_]|[^\w\s])\1{9}")


def rules(text: str, words: Sequence[str], script: str) -> list[str]:
    """The names of the rules (of `RULES` and `INFORMATIVE`) that a text breaks; none for an empty one, which is missing, not noise."""
    if not text.strip():
        return []
    out = []
    if script == "none":
        out.append("no_letter")
    if _run.search(text):
        out.append("character_run")
    if any(len(set(run)) == 1 and not run[0].isdigit() for run in zip(*(words[i:] for i in range(5)), strict=False)):
        out.append("word_run")
    if len(words) >= LONG:
        out += _words(text, words, script) + _ngrams(words)
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) >= LINES:
        out += _lines(text, lines)
    if len(words) < LONG:
        out.append("few_words")
    if len(words) > 100_000:
        out.append("many_words")
    if len(STOP_WORDS & set(words)) < 2:
        out.append("few_stop_words")
    return out


def _words(text: str, words: Sequence[str], script: str) -> list[str]:
    out = []
    spaced = script.upper() not in (*texts.UNSPACED, "HAN", "JAPANESE", "NONE")
    if len(_symbol.findall(text)) > 0.1 * len(words):
        out.append("symbols")
    if spaced and not 3 <= sum(map(len, words)) / len(words) <= 10:
        out.append("word_length")
    pieces = text.split()
    if spaced and sum(any(map(str.isalpha, piece)) for piece in pieces) < 0.8 * len(pieces):
        out.append("not_words")
    return out


def _lines(text: str, lines: Sequence[str]) -> list[str]:
    out = []
    if sum(bool(_bullet.match(line)) for line in lines) > 0.9 * len(lines):
        out.append("bullets")
    if sum(line.rstrip().endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
        out.append("ellipsis_lines")
    if _repeated([line.strip() for line in lines]):
        out.append("duplicate_lines")
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if len(paragraphs) > 1 and _repeated(paragraphs):
        out.append("duplicate_paragraphs")
    return out


def _repeated(parts: Sequence[str]) -> bool:
    """Whether more than 30 % of the parts, or 20 % of their characters, were there before."""
    seen: set[str] = set()
    count = letters = 0
    for part in parts:
        if part in seen:
            count, letters = count + 1, letters + len(part)
        seen.add(part)
    return count > 0.3 * len(parts) or letters > 0.2 * sum(map(len, parts))


def _ngrams(words: Sequence[str]) -> list[str]:
    out, total = [], sum(map(len, words))
    for n in range(2, 11):
        grams = list(zip(*(words[i:] for i in range(n)), strict=False))
        counts = Counter(grams)
        if len(counts) == len(grams):
            break  # no run of n words occurs twice, so none that is longer does
        if n in TOP:
            most, times = max(counts.items(), key=lambda item: (item[1], sum(map(len, item[0]))))
            if times > 1 and times * sum(map(len, most)) > TOP[n] * total and "top_ngram" not in out:
                out.append("top_ngram")
        elif _covered(words, grams) > DUPLICATE[n] * total:
            out.append("duplicate_ngrams")
            break
    return out


def _covered(words: Sequence[str], grams: Sequence[tuple[str, ...]]) -> int:
    """The characters of words inside runs that were there before; each character counts once, however many runs lie over it."""
    seen, until, covered = set(), 0, 0
    for at, gram in enumerate(grams):
        if gram in seen:
            covered += sum(map(len, words[max(at, until) : at + len(gram)]))
            until = at + len(gram)
        seen.add(gram)
    return covered
