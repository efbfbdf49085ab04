"""Chinese word segmentation by jieba (github.com/fxsjy/jieba), in the extra `text`.

jieba uses a dictionary and a hidden Markov model.
"""

from __future__ import annotations

import functools
from typing import Any

from jaxsft.extras import need

BORDER = "\x1f"  # between words; ASCII's separator of units


@functools.cache
def segmenter(asked: str) -> Any:
    """Returns a jieba segmenter; the words of `lcut(text)` join to the text.

    Raises ConfigError, which names the option `asked`.

    Its dictionary is read here: jieba's own start keeps a marshalled copy among temporary files,
    and trusts what it finds there.
    """
    tokenizer = need("jieba", asked).Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


def bordered(text: str) -> tuple[str, list[int]]:
    """Returns the text with borders between its words, and the original index of each character.

    There are `len + 1` indices.
    """
    out, places, at = [], [], 0
    for word in segmenter("tokenizer.segment=jieba").lcut(text):
        if out:
            out.append(BORDER)
            places.append(at)
        out.append(word)
        places += range(at, at + len(word))
        at += len(word)
    return "".join(out), [*places, at]
