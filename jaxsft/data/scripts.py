"""Words in any script, for counting and comparing texts.

They have no punctuation, and are one character each in scripts without spaces.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from jaxsft.data.formats import Bad, Source
from jaxsft.errors import ConfigError, DataError

# Scripts that are written without spaces: Thai, Lao, Myanmar, Khmer, kana, Han and their
# extensions.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_unspaced = re.compile(f"[{UNSPACED}]")
# Signs that combine with the letter before (accents of NFD, vowels of Indic scripts): Python's \\w
# does not hold them.
COMBINING = "".join(
    c
    for c in map(chr, range(0x300, 0x1EA00))
    if unicodedata.category(c)[0] == "M" and not _unspaced.match(c)
)
_word = f"[^\\W{UNSPACED}]+(?:[{COMBINING}]+[^\\W{UNSPACED}]*)*"
_words = re.compile(f"[{UNSPACED}]|{_word}(?:['’\u200c\u200d-]{_word})*")


def words(text: str) -> list[str]:
    """Returns the words of a text, without punctuation.

    Each character is one in scripts that are written without spaces (Han, kana, Thai ...).
    """
    return _words.findall(text)


def is_unspaced(text: str) -> bool:
    """Returns whether more than a third of the letters are of a script without spaces."""
    return 3 * len(_unspaced.findall(text)) > sum(map(str.isalpha, text))


def lines_of(path: str, option: str) -> list[str]:
    """Returns the stripped, non-empty lines of a file.

    Raises ConfigError where there are none, DataError where it cannot be read.
    """
    found = []
    for line in Source(path, Path(path)).lines("utf-8"):
        if isinstance(line, Bad):
            raise DataError(f"{line.where}: {line.reason}")
        if text := line[1].strip():
            found.append(text)
    if not found:
        raise ConfigError(f"{option}={path}: the file is empty")
    return found
