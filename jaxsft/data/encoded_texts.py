"""Texts that are read and not predicted token by token: those of encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.data.encode import Encoded
from jaxsft.data.tokenizers.special_tokens import Wrapped


def framed(text: Wrapped, segment: Mapping[str, Any]) -> Encoded:
    """Returns a text with its special tokens, in which no token is predicted."""
    kinds = np.array(text.types, np.int32) if any(text.types) else None
    return Encoded(
        np.array(text.ids, np.int32),
        segment=segment,
        types=kinds,
        special_tokens=(text.head, text.tail),
    )


def no_text(text: str, ids: Sequence[int]) -> str | None:
    """Returns why a text gives no example: `empty` (white space), `text_lost` (the tokenizer keeps
    nothing of it); None where it has ids.
    """
    return "empty" if not text.strip() else None if len(ids) else "text_lost"
