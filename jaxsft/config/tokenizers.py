"""The options of tokenizers: learnt from the training split, or read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from jaxsft.config.option import option

# pieces: many times the largest tokenizer that is published; a trainer takes memory for all at once
MOST_TOKENS = 10_000_000


@dataclass(frozen=True)
class TokenizerConfig:
    kind: str = "bytes"
    added: list[str] = option(
        [],
        "further special tokens, with the ids after all others; their rows start at the mean of the"
        " rest",
    )


@dataclass(frozen=True)
class BytesTokenizer(TokenizerConfig):
    kind: str = "bytes"


@dataclass(frozen=True)
class BpeTokenizer(TokenizerConfig):
    kind: str = "bpe"
    vocab_size: int = option(
        4096, "tokens at most, special ones included", at_least=1, at_most=MOST_TOKENS
    )
    lowercase: bool = option(False, "text is lowercased before it is read")


@dataclass(frozen=True)
class CharTokenizer(TokenizerConfig):
    """A token per character of the training split."""

    kind: str = "char"
    min_count: int = option(1, "a character that is rarer is unknown", at_least=1)
    lowercase: bool = option(False, "text is lowercased before it is read")


@dataclass(frozen=True)
class WordTokenizer(TokenizerConfig):
    """A token per word of the training split."""

    kind: str = "word"
    min_count: int = option(2, "a word that is rarer is unknown", at_least=1)
    vocab_size: Optional[int] = option(
        None, "the most frequent words only", at_least=1, at_most=MOST_TOKENS
    )
    lowercase: bool = option(True, "text is lowercased before it is read")
    segment: str = option(
        "spaces",
        "spaces | jieba (Chinese; needs jaxsft[text])",
        choices=("spaces", "jieba"),
    )


@dataclass(frozen=True)
class WordPieceTokenizer(TokenizerConfig):
    """Pieces of words with BERT's cleaning, special tokens and frame."""

    kind: str = "wordpiece"
    vocab_size: int = option(
        8192, "tokens at most, special ones included", at_least=1, at_most=MOST_TOKENS
    )
    lowercase: bool = option(True, "text is lowercased before it is read")


@dataclass(frozen=True)
class UnigramTokenizer(TokenizerConfig):
    """Pieces by SentencePiece; needs jaxsft[sentencepiece]."""

    kind: str = "unigram"
    vocab_size: int = option(
        8192, "tokens at most, special ones included", at_least=1, at_most=MOST_TOKENS
    )
    lowercase: bool = option(False, "text is lowercased before it is read")


@dataclass(frozen=True)
class PretrainedTokenizer(TokenizerConfig):
    kind: str = "pretrained"
    path: str = option(
        "???",
        "a folder with a vocabulary, that file itself, a run directory, or hub:owner/name@revision",
        hub="folder",
    )
