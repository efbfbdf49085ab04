"""Guesses the encoding of bytes that are no UTF-8, for advice; nothing is decoded by a guess."""

from __future__ import annotations

import re
from collections.abc import Callable

ENOUGH = 0.85  # share of the characters that a guess must explain
_SYLLABLES, _KANA_SHARE = 0.9, 0.2  # Korean text is nearly all syllables, Japanese part kana

_GB = re.compile(rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]")  # punctuation, the common characters
_BIG5 = re.compile(rb"[\xa1-\xc6][\x40-\x7e\xa1-\xfe]")
# the syllables of KS X 1001, which nearly all of Korean is; cp949 reads kana of Shift JIS as others
_KS = re.compile(rb"[\xb0-\xc8][\xa1-\xfe]")
_HAN = re.compile("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
_KANA = re.compile("[\u3041-\u30fe]")
_HIGH = re.compile(rb"[\x80-\xff]")
_RUNS = re.compile(rb"(?<![A-Za-z])[\x80-\xff]{2,}(?![A-Za-z])")  # words, not "\u00f6\u00df" in one
_NULS = 0.1  # share of zero bytes from which on a text has two bytes per character


def likely_encodings(sample: bytes) -> str:
    """Returns the encodings that a text may be in, the likeliest first: names with commas.

    Encodings of two bytes are told by their commonest characters (the first levels of GB 2312 and
    of Big5, kana, Korean syllables), which are most of any text; those of one byte by where
    their letters lie.

    >>> likely_encodings("你好，这是中文。".encode("gb18030"))
    'gb18030'
    >>> likely_encodings("für Müller".encode("latin-1"))
    'latin-1'
    """
    wide = b"\n\0" in sample or b"\0\n" in sample  # of Chinese, the ends of lines alone
    if wide or sample.count(0) > _NULS * len(sample):
        return "utf-16-be" if sample[::2].count(0) > sample[1::2].count(0) else "utf-16-le"
    fits: dict[str, Callable[[str, bytes], bool]] = {
        "euc-kr": lambda text, packed: _pairs(_KS, packed, text) >= _SYLLABLES,
        "shift_jis": lambda text, _: _share(_KANA, text) >= _KANA_SHARE,
        "euc-jp": lambda text, _: _share(_KANA, text) >= _KANA_SHARE,
        "gb18030": lambda text, packed: _pairs(_GB, packed, text) >= ENOUGH,
        "big5": lambda text, packed: _pairs(_BIG5, packed, text) >= ENOUGH,
    }
    for name, fit in fits.items():
        try:
            text = sample.decode({"shift_jis": "cp932", "euc-kr": "cp949"}.get(name, name))
        except UnicodeDecodeError:
            continue
        if fit(text, sample):
            return name
    high = _HIGH.findall(sample)
    if sum(map(len, _RUNS.findall(sample))) * 2 > len(high):  # words of such letters alone
        lower = sum(letter >= b"\xe0" for letter in high)
        one = "cp1251, cp1253, koi8-r" if lower * 2 > len(high) else "koi8-r, cp1251, cp1256"
        return f"gb18030, {one}" if _rare_chinese(sample) else one
    return "cp1252, latin-1" if any(letter < b"\xa0" for letter in high) else "latin-1"


def _rare_chinese(sample: bytes) -> bool:
    try:
        return _share(_HAN, sample.decode("gb18030")) >= _SYLLABLES
    except UnicodeDecodeError:
        return False


def _share(kind: re.Pattern[str], text: str) -> float:
    """Returns the share of the characters beyond ASCII that are of a kind."""
    beyond = sum(not letter.isascii() for letter in text)
    return len(kind.findall(text)) / max(beyond, 1)


def _pairs(kind: re.Pattern[bytes], packed: bytes, text: str) -> float:
    beyond = sum(not letter.isascii() for letter in text)
    return len(kind.findall(packed)) / max(beyond, 1)
