"""Tokenizers learned from the training texts: characters, words, WordPiece and unigram pieces.

The same texts give the same tokenizer.

What is not in the vocabulary becomes the unknown token. Byte-level BPE, which knows every text, is
`Tokenizer.train`.
"""

from __future__ import annotations

import collections
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from jaxsft.data import chinese
from jaxsft.data.tokenizers import files, sentencepiece
from jaxsft.data.tokenizers.tokenizer import OURS, SPECIAL, Tokenizer, in_pieces
from jaxsft.errors import ConfigError, DataError
from jaxsft.extras import need

UNKNOWN = "<|unk|>"
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORD = r"\w+|[^\w\s]"
_ROLES = OURS | {"unk_token": UNKNOWN}


def characters(texts: Iterable[str], min_count: int = 1, lowercase: bool = False) -> Tokenizer:
    """Builds a tokenizer with a token per character that occurs at least `min_count` times.

    A character is a code point.
    """
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(text.lower() if lowercase else text)
    raw = _levels(_frequent(counts, min_count, None, "character"))
    raw.normalizer = normalizers.Lowercase() if lowercase else None
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.decoder = decoders.Fuse()
    return _ours(raw)


def words(
    texts: Iterable[str],
    min_count: int = 2,
    vocab_size: int | None = None,
    lowercase: bool = True,
    segment: str = "spaces",
) -> Tokenizer:
    """Builds a tokenizer with a token per word that occurs at least `min_count` times.

    Of these it has the `vocab_size` most frequent (special tokens included).

    Args:
      segment: spaces: runs of letters and digits, and each other sign by itself; jieba: the words
        of Chinese (in the extra `text`).
    """
    counts: collections.Counter[str] = collections.Counter()
    splitter = tokenizers.Tokenizer(models.WordLevel({UNKNOWN: 0}, UNKNOWN))
    splitter.normalizer = normalizers.Lowercase() if lowercase else None
    if segment == "jieba":
        splitter.pre_tokenizer = pre_tokenizers.Split(Regex(rf"[\s{chinese.BORDER}]+"), "removed")
    else:
        splitter.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)
    for text in texts:
        normal = chinese.bordered(text)[0] if segment == "jieba" else text
        normal = splitter.normalizer.normalize_str(normal) if splitter.normalizer else normal
        counts.update(word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(normal))
    raw = _levels(_frequent(counts, min_count, vocab_size, "word"))
    raw.normalizer, raw.pre_tokenizer = splitter.normalizer, splitter.pre_tokenizer
    raw.decoder = decoders.Fuse() if segment == "jieba" else None  # None joins with blanks
    return _ours(raw, {"segment": segment} if segment == "jieba" else {})


def wordpiece(texts: Iterable[str], vocab_size: int, lowercase: bool = True) -> Tokenizer:
    """Learns WordPiece with BERT's cleaning, special tokens and frame.

    Its characters have their ids beforehand: the library would order them by chance.
    """
    texts = list(in_pieces(texts))
    raw = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, inner = set(), set()
    for text in texts:
        for word, _ in raw.pre_tokenizer.pre_tokenize_str(raw.normalizer.normalize_str(text)):
            first.add(word[0])
            inner.update(word[1:])
    given = [*BERT, *sorted(first), *(f"##{char}" for char in sorted(inner))]
    if vocab_size < len(given):
        raise ConfigError(
            f"tokenizer.vocab_size={vocab_size} is too small; expected at least {len(given)}"
            " (characters and special tokens)"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=given,
        limit_alphabet=len(first | inner),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    vocab = json.loads(raw.to_str())["model"]["vocab"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.txt"
        file.write_text(
            "".join(f"{piece}\n" for piece in sorted(vocab, key=vocab.get)),
            encoding="utf-8",
            newline="",
        )
        (file.parent / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
        return Tokenizer(*files.read(file)[:2])


def unigram(texts: Iterable[str], vocab_size: int, lowercase: bool = False) -> Tokenizer:
    """Learns unigram pieces by SentencePiece, over NFKC-normalised text.

    Kudo, 2018, arXiv:1804.10959; in the extra `sentencepiece`.

    Raises:
      ConfigError: the package is missing, or `vocab_size` has no room for the characters of the
        texts.
    """
    library = need("sentencepiece", "tokenizer=unigram", "sentencepiece")
    out = io.BytesIO()
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=out,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            max_sentence_length=2**30,
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
            num_threads=1,
            minloglevel=2,
            **{
                "pad_id": 0,
                "bos_id": 1,
                "eos_id": 2,
                "unk_id": 3,
                "pad_piece": SPECIAL[0],
                "bos_piece": SPECIAL[1],
                "eos_piece": SPECIAL[2],
            },
            unk_piece=UNKNOWN,
            control_symbols=list(SPECIAL[3:]),
        )
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"tokenizer.vocab_size={vocab_size}: sentencepiece learns no such vocabulary"
            f" ({str(error).splitlines()[0]})"
        ) from None
    model = sentencepiece.parse(out.getvalue(), "the model that was learnt")
    return Tokenizer(sentencepiece.document(model), sentencepiece.roles(model))


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Yields the non-empty lines of texts, which SentencePiece takes for sentences."""
    return (line for text in texts for line in text.splitlines() if line.strip())


def _frequent(
    counts: collections.Counter[str], min_count: int, vocab_size: int | None, what: str
) -> list[str]:
    """Returns the most frequent items first, those of one count in code point order.

    Raises ConfigError where `vocab_size` is too small.
    """
    kept = sorted(
        (item for item, count in counts.items() if count >= min_count),
        key=lambda item: (-counts[item], item),
    )
    room = None if vocab_size is None else vocab_size - len(SPECIAL) - 1
    if room is not None and room < 1:
        raise ConfigError(
            f"tokenizer.vocab_size={vocab_size} is too small; expected more than {len(SPECIAL) + 1}"
            " (special tokens)"
        )
    if not kept:
        raise DataError(
            f"no {what} of the training split occurs {min_count} times; set tokenizer.min_count=1"
        )
    return kept[:room]


def _levels(items: list[str]) -> tokenizers.Tokenizer:
    given = [*SPECIAL, UNKNOWN]
    items = [item for item in items if item not in given]
    raw = tokenizers.Tokenizer(
        models.WordLevel({item: i for i, item in enumerate([*given, *items])}, UNKNOWN)
    )
    raw.add_special_tokens(given)
    return raw


def _ours(raw: tokenizers.Tokenizer, config: dict[str, Any] | None = None) -> Tokenizer:
    return Tokenizer(json.loads(raw.to_str()), _ROLES | (config or {}))
