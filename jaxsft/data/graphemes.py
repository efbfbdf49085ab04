"""The definition of a word in every script.

Combining marks never stand alone, nor do the parts of an emoji.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata

IDEOGRAPHS = "㐀-䶿一-鿿豈-﫿\U00020000-\U0003134f"
# Inside words of Persian and of Indic scripts, between the parts of an emoji, and where a word may
# be broken at the end of a line.
_JOINERS = "\u200c\u200d\u00ad\u2060"
_FLAG = "[\U0001f1e6-\U0001f1ff]{2}"
_SKIN_AND_TAGS = "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"


@functools.cache
def marks() -> str:
    r"""Returns the marks of Unicode (Mn, Mc, Me) as ranges for a class of a regular expression.

    They are accents, vowel signs and points, which Python's `\w` lacks.
    """
    codes = [
        code
        for code in (*range(0x300, 0x1F000), *range(0xE0100, 0xE01F0))
        if unicodedata.category(chr(code))[0] == "M"
    ]
    runs = [
        list(run) for _, run in itertools.groupby(enumerate(codes), lambda pair: pair[1] - pair[0])
    ]
    return "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)


@functools.cache
def word_pattern() -> re.Pattern[str]:
    """Runs of letters, digits and their marks; an ideograph, a flag, an emoji or any other sign by
    itself, each with its marks.
    """
    inside, letter = f"{marks()}{_JOINERS}", f"[^\\W{IDEOGRAPHS}]"
    sign, after = "[^\\w\\s]", f"[{marks()}{_SKIN_AND_TAGS}]*"
    joined = f"(?:\u200d[^\\w\\s\\x00-\\x7f]{after})*"
    return re.compile(
        f"[{IDEOGRAPHS}][{marks()}]*|{letter}+(?:[{inside}]+{letter}*)*|{_FLAG}|{sign}{after}{joined}"
    )


def words(text: str) -> list[tuple[int, int]]:
    """Returns the (start, end) of a text's words, in characters, as `word_pattern` cuts them."""
    return [match.span() for match in word_pattern().finditer(text)]
