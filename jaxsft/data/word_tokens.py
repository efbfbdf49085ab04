"""Encodes texts that are given as words: each as it stands in its text, and none is lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsft.data.encode import Encoded
from jaxsft.data.encoded_words import EncodedWords
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import DataError


def frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Returns the special ids at the beginning and at the end of a text."""
    whole = tokenizer.wrap([])
    return list(whole.ids[: whole.head]), list(whole.ids[len(whole.ids) - whole.tail :])


def spelled_with_space(tokenizer: Tokenizer) -> bool:
    """Returns whether a word after a space is encoded with the space, as in byte-level BPE.

    It is decided by how the tokenizer encodes two words, which covers those that mark word
    beginnings.
    """
    one, behind, both = (tokenizer.encode(text) for text in ("a", " b", "a b"))
    return one + behind == both


def encode_words(
    tokenizer: Tokenizer,
    texts: Sequence[Sequence[str]],
    glued: Sequence[Sequence[int]],
    where: Sequence[str],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns for each text its ids `[n]` with special tokens, and word offsets `[words + 1]`.

    Every word has at least one id.

    Args:
      texts: per text, its words.
      glued: per text, the words (from 0) that no space stands before.

    Raises:
      DataError: a word gives no token, and the tokenizer has no unknown token to stand for it.
    """
    space = " " if spelled_with_space(tokenizer) else ""
    spelled = []
    for words, close in zip(texts, glued, strict=True):
        near = {0, *close}
        spelled.append([word if i in near else space + word for i, word in enumerate(words)])
    forms = list(dict.fromkeys(form for words in spelled for form in words))
    pieces = dict(zip(forms, tokenizer.encode_stream(forms), strict=True))
    (begin, end), unknown, out = frame(tokenizer), tokenizer.role_id("unk_token"), []
    for words, place in zip(spelled, where, strict=True):
        found = [pieces[word] for word in words]
        if not all(found):
            if unknown is None:
                at = next(i for i, ids in enumerate(found) if not ids)
                raise DataError(
                    f"{place}: word {at + 1}, {words[at].strip()!r}, gives no token, and the"
                    " tokenizer has no unk_token; remove the word, or take another tokenizer"
                )
            found = [ids or [unknown] for ids in found]
        offsets = len(begin) + np.concatenate([[0], np.cumsum([len(ids) for ids in found])])
        out.append(
            (
                np.array([*begin, *(i for ids in found for i in ids), *end], np.int32),
                offsets.astype(np.int32),
            )
        )
    return out


def encoded(
    ids: np.ndarray,
    offsets: np.ndarray,
    values: dict[str, np.ndarray],
    segment: dict[str, float] | None = None,
) -> Encoded:
    """Builds an `Encoded` from a text of `encode_words`, with `values` `[words]` by name.

    Without a `weight` among them the loss of each word has the weight 1.
    """
    words = EncodedWords(offsets, {"weight": np.ones(len(offsets) - 1, np.float32), **values})
    return Encoded(
        ids,
        segment=segment or {},
        special_tokens=(int(offsets[0]), len(ids) - int(offsets[-1])),
        words=words,
    )
