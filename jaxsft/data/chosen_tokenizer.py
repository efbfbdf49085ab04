"""The tokenizer that a config names: read from a folder, or learnt from the training split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxsft import remote
from jaxsft.config.schema import (
    BpeTokenizer,
    CharTokenizer,
    PretrainedTokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
    WordTokenizer,
)
from jaxsft.config.tokenizers import TokenizerConfig
from jaxsft.data import hub
from jaxsft.data.tokenizers import learn
from jaxsft.data.tokenizers.tokenizer import Tokenizer


def make_tokenizer(t: TokenizerConfig, task: Any, training: Sequence[Any]) -> Tokenizer:
    """Makes the tokenizer of the options `t`; what is learnt is learnt from the training split
    only."""
    texts = (text for record in training for text in task.texts(record))
    match t:
        case PretrainedTokenizer():
            found = tokenizer_at(t.path)
        case BpeTokenizer():
            found = Tokenizer.train(texts, t.vocab_size, t.lowercase)
        case CharTokenizer():
            found = learn.characters(texts, t.min_count, t.lowercase)
        case WordTokenizer():
            found = learn.words(texts, t.min_count, t.vocab_size, t.lowercase, t.segment)
        case WordPieceTokenizer():
            found = learn.wordpiece(texts, t.vocab_size, t.lowercase)
        case UnigramTokenizer():
            found = learn.unigram(texts, t.vocab_size, t.lowercase)
        case _:
            found = Tokenizer.bytes()
    return found.with_added(t.added) if t.added else found


def tokenizer_at(place: str) -> Tokenizer:
    """Reads the tokenizer of a folder, a run directory or a name of the hub. Raises ConfigError."""
    folder = remote.opened(str(hub.tokenizer_dir(place)))
    return Tokenizer.load(
        folder / "tokenizer" if (folder / "tokenizer" / "tokenizer.json").is_file() else folder
    )
