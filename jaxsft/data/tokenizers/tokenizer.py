"""Text to token ids and back, over the `tokenizers` library.

Two encoders share one vocabulary. The full one knows all added tokens and decodes. The plain one
(`PlainReader`) knows those that are not flagged special (`<think>`, runs of spaces) and reads them
in text as the library does; text that looks like a special token (`<|end|>`) is spelled out.
`encode` is the plain one, always; special tokens enter only by id, through a template.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from jaxsft.data import chinese
from jaxsft.data.template_files import TEMPLATES, named_templates
from jaxsft.data.tokenizers import files as tokenizer_files
from jaxsft.data.tokenizers.plain_vocabulary import PlainReader
from jaxsft.data.tokenizers.special_tokens import Frames, Wrapped, frames, own_frames, processor
from jaxsft.data.tokenizers.tokenizer_json import (
    FLAGS,
    ROLES,
    checked,
    declare_roles,
    library_errors,
)
from jaxsft.data.tokenizers.tokenizer_json import content as _content
from jaxsft.errors import ConfigError
from jaxsft.rundir import write_json, write_text

SPECIAL = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
TOGETHER = 4096  # texts that are encoded by one call
OURS = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|end|>"}


class Tokenizer:
    """A vocabulary with its special tokens and, perhaps, a chat template.

    Immutable; make one with `bytes`, `train` or `load`.

    Attributes:
      vocab_size: the largest id + 1; an embedding needs as many rows.
      special_strings: the added tokens that are flagged special, or that have a role. Text that
        looks like one is still plain text for `encode`.
      control_strings: those, and the others that `encode` reads wherever they stand: what a
        template may write as a token by itself.
      pad_id: an id inside the vocabulary (0 if there is no pad token): padding is told by segment,
        never by id.
      bos_id, eos_id, mask_id, unk_id: None where the tokenizer declares none.
      chat_template: its default Jinja template, or None.
      chat_templates: all of them by name, where it has several.
      extends: of a tokenizer with further tokens (`with_added`) the `digest` and the `rows` of the
        one without them, else None.
      segment: `jieba` where a dictionary finds the words of a text, else None.
      prefix: where a space is put before text that has none: `none`, before the `first` text only,
        or `always`, behind each special token too.
      digest: sha256 (hex) of everything that decides about ids or templates; the same after save
        and load.
    """

    def __init__(self, document: dict[str, Any], config: dict[str, Any]):
        """Takes the content of tokenizer.json and tokenizer_config.json.

        Raises ConfigError where they do not fit together.
        """
        self._config = {name: value for name, value in config.items() if value is not None}
        self._document = checked(document) | {"truncation": None, "padding": None}
        declare_roles(self._document, self._config)
        with library_errors(
            "the tokenizer cannot be read ({error}); expected the content of a Hugging Face"
            " tokenizer.json"
        ):
            self._full = tokenizers.Tokenizer.from_str(json.dumps(self._document))
            self._plain = PlainReader(self._document)
            self.prefix = self._plain.prefix
            self._inner = (
                PlainReader(self._document, inside=True) if self.prefix != "none" else self._plain
            )
        vocabulary = self._full.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(vocabulary.values(), default=-1) + 1
        self._read_added()
        self.chat_templates = named_templates(self._config.get("chat_template"))
        self.chat_template = self.chat_templates.get("default")
        self.bos_id, self.eos_id, self.mask_id, self.unk_id = (
            self._role(f"{role}_token") for role in ("bos", "eos", "mask", "unk")
        )
        pad = self._role("pad_token")
        self.pad_id: int = 0 if pad is None else pad
        self._frames: Frames = frames(self._document, self.bos_id, self.eos_id)
        roles = {role: _content(self._config.get(role)) for role in ROLES}
        matter = {
            "tokenizer": self._document,
            "roles": roles,
            "chat_template": self._config.get("chat_template"),
        }
        self.segment = self._config.get("segment")
        if self.segment not in (None, "jieba"):
            raise ConfigError(
                f"tokenizer_config.json: segment={self.segment}, expected jieba or none"
            )
        matter |= {"segment": self.segment} if self.segment else {}
        self.extends: dict[str, Any] | None = self._config.get("extends")
        self.digest = hashlib.sha256(json.dumps(matter, sort_keys=True).encode("ascii")).hexdigest()

    def _read_added(self) -> None:
        """Sets what the added tokens decide: which strings and ids are special, and of bytes.

        Raises ConfigError where the library numbers them otherwise than the file.
        """
        vocabulary = self._full.get_vocab(with_added_tokens=True)
        self.added: dict[str, Any] = {
            token["content"]: token for token in self._document["added_tokens"]
        }
        for token in self.added.values():
            if (number := self._full.token_to_id(token["content"])) != token["id"]:
                raise ConfigError(
                    f"the added token {token['content']!r} has the id {token['id']}, but the"
                    f" library reads the file so that it is {number}: added tokens that the"
                    " vocabulary does not hold are numbered in their order from its size on;"
                    " correct the ids"
                )
        self.special_strings: tuple[str, ...] = tuple(
            text for text, token in self.added.items() if token["special"]
        )
        others = [
            text
            for text, token in self.added.items()
            if not token["special"] and text.strip() and not token["single_word"]
        ]
        self.control_strings = (
            *self.special_strings,
            *(text for text in others if self.added[text]["id"] in self._inner.encode(f"a{text}a")),
        )
        model = self._document["model"]
        unknown = {model.get("unk_id"), self.added.get(model.get("unk_token"), {}).get("id")}
        # The special tokens that the model itself could make of plain text.
        spelt = set(self._plain.vocabulary.values())
        self._special_ids = (
            frozenset(
                token["id"]
                for token in self.added.values()
                if token["special"] and token["id"] in spelt
            )
            - unknown
        )
        self._byte_ids = (
            frozenset(vocabulary[p] for b in range(256) if (p := f"<0x{b:02X}>") in vocabulary)
            if model.get("type") == "Unigram"
            else ()
        )

    @classmethod
    def bytes(cls) -> Tokenizer:
        """Builds a tokenizer with one token per byte of UTF-8 (id = byte) and special tokens.

        Decoding gives back any string exactly.
        """
        letters = _byte_letters()
        raw = tokenizers.Tokenizer(
            models.BPE(vocab={letter: byte for byte, letter in enumerate(letters)}, merges=[])
        )
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        raw.decoder = decoders.ByteLevel()
        raw.add_special_tokens(list(SPECIAL))
        return cls(json.loads(raw.to_str()), dict(OURS))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, lowercase: bool = False) -> Tokenizer:
        """Learns a byte-level BPE from texts, the same for the same texts.

        It has fewer tokens than `vocab_size` if the texts hold no more pairs.

        Raises ConfigError if `vocab_size` has no room for the 256 bytes and the special tokens.
        """
        if vocab_size < 256 + len(SPECIAL):
            raise ConfigError(
                f"tokenizer.vocab_size={vocab_size} is too small; expected at least"
                f" {256 + len(SPECIAL)} (bytes and special tokens)"
            )
        raw = tokenizers.Tokenizer(models.BPE())
        raw.normalizer = normalizers.Lowercase() if lowercase else None
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=alphabet,
            show_progress=False,
        )
        raw.train_from_iterator(in_pieces(texts), trainer)
        return cls(json.loads(raw.to_str()), dict(OURS))

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Loads a tokenizer from a folder or the file with its vocabulary.

        It may be of any kind that `tokenizer_files` reads, with the configs beside it. Runs
        no code.

        Raises:
          ConfigError: a file is missing or not what it should be.
        """
        document, config, file = tokenizer_files.read(path)
        try:
            return cls(document, config)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None

    @property
    def frames(self) -> Frames:
        """Returns the special tokens that `wrap` puts around one text, and around two."""
        return self._frames

    def save(self, directory: str | Path, frames: Frames | None = None) -> None:
        """Writes tokenizer.json and tokenizer_config.json; `load` gives the same tokenizer.

        Each is written aside and then renamed.

        Args:
          frames: how other libraries shall frame a text, where the tokenizer's own post processor
            does not so; None: as that does.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        document = self._document
        if frames is not None and own_frames(document) != frames:
            document = document | {"post_processor": processor(frames, self._full.id_to_token)}
        write_text(folder / "tokenizer.json", json.dumps(document, ensure_ascii=False, indent=1))
        write_json(folder / "tokenizer_config.json", self._config)
        # Hugging Face lets these files win over the config; an old one must not outlive its
        # tokenizer.
        for name in TEMPLATES:
            (folder / name).unlink(missing_ok=True)

    def with_added(self, tokens: Sequence[str]) -> Tokenizer:
        """Returns the tokenizer with further added tokens, which have the ids after all others.

        Raises ConfigError where one is there already.
        """
        known = self._full.get_vocab(with_added_tokens=True)
        for i, token in enumerate(tokens):
            if not token or token in known or token in tokens[:i]:
                twice = "named twice" if token not in known else "in the vocabulary"
                raise ConfigError(f"tokenizer.added: {token!r} is {twice if token else 'empty'}")
        new = [
            {"id": self.vocab_size + i, "content": token, "special": True}
            | dict.fromkeys(FLAGS, False)
            for i, token in enumerate(tokens)
        ]
        document = self._document | {"added_tokens": [*self._document["added_tokens"], *new]}
        return Tokenizer(
            document, self._config | {"extends": {"digest": self.digest, "rows": self.vocab_size}}
        )

    def encode(self, text: str, inside: bool = False) -> list[int]:
        """Returns the ids of plain text; what looks like a special token is spelled out.

        Nothing is added.

        Args:
          inside: the text goes on with what stands before it, so that no space is put there
            (`prefix`).
        """
        return self._checked(
            (self._inner if inside else self._plain).encode(self._segmented(text)), text
        )

    def offsets(self, text: str, inside: bool = False) -> list[tuple[int, int]]:
        """Returns the characters, (start, end), that each id of `encode` stands for.

        Ids of one character's bytes have that character in common.
        """
        if not self.segment:
            return (self._inner if inside else self._plain).read(text).offsets
        segmented, places = chinese.bordered(text)
        return [(places[start], places[end]) for start, end in self._plain.read(segmented).offsets]

    def encode_batch(self, texts: Sequence[str], inside: bool = False) -> list[list[int]]:
        """Encodes many texts, on all cores."""
        found = (self._inner if inside else self._plain).encode_batch(
            [*map(self._segmented, texts)]
        )
        return [self._checked(ids, text) for ids, text in zip(found, texts, strict=True)]

    def encode_stream(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yields the ids of each text; the next texts are encoded while the caller works."""
        parts = [list(texts[start : start + TOGETHER]) for start in range(0, len(texts), TOGETHER)]
        encode = lambda part: self._plain.encode_batch([*map(self._segmented, part)])
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            for part, found in zip(parts, pool.map(encode, parts), strict=True):
                for ids, text in zip(found, part, strict=True):
                    yield self._checked(ids, text)

    def wrap(self, ids: Sequence[int], pair_ids: Sequence[int] | None = None) -> Wrapped:
        """Returns one text or two with special tokens, as the model was pretrained to read them.

        `[CLS] a [SEP] b [SEP]`, `<s> a </s></s> b </s>`, or `bos a eos b eos`.
        """
        return self._frames.wrap(ids, pair_ids)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Returns the text of ids, without special tokens if `skip_special`."""
        return self._full.decode([int(token) for token in ids], skip_special_tokens=skip_special)

    def continued(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Returns the text of ids that follow other text.

        A decoder that drops the space before a whole text keeps it here.
        """
        before = self.encode("a")[-1:]
        start, text = self.decode(before), self.decode([*before, *ids], skip_special)
        return text[len(start) :] if text.startswith(start) else self.decode(ids, skip_special)

    def pieces(self) -> list[bytes] | None:
        """Returns the bytes that each id adds to a text, `[vocab_size]`, of byte-level decoders.

        None for other decoders, where a text is not the bytes of its ids one after another.
        """
        if (self._document.get("decoder") or {}).get("type") != "ByteLevel":
            return None
        letters, out = (
            {letter: byte for byte, letter in enumerate(_byte_letters())},
            [b""] * self.vocab_size,
        )
        for piece, index in self._full.get_vocab(with_added_tokens=True).items():
            out[index] = (
                bytes(map(letters.get, piece)) if letters.keys() >= set(piece) else piece.encode()
            )
        return out

    def special_id(self, token: str) -> int:
        """Returns the id of an added token. Raises ConfigError if there is none of this name."""
        if token not in self.added:
            known = ", ".join([*self.added][:20]) or "none"
            raise ConfigError(
                f"the tokenizer has no special token {token!r}; found"
                f" {known}{' ...' if len(self.added) > 20 else ''}"
            )
        return self.added[token]["id"]

    def words(self) -> list[str | None]:
        """Returns the word that each id stands for, in the order of ids.

        It is the text of a piece without blanks; None for added tokens and inner pieces.
        """
        prefix = self._document["model"].get("continuing_subword_prefix") or "\0"
        pieces = {index: piece for piece, index in self._plain.vocabulary.items()}
        out: list[str | None] = [None] * self.vocab_size
        for index, piece in pieces.items():
            if (
                index not in self._special_ids
                and index != self.unk_id
                and not piece.startswith(prefix)
            ):
                out[index] = self._full.decode([index], skip_special_tokens=False).strip() or None
        return out

    def ordinary(self) -> np.ndarray:
        """Returns the ids of the vocabulary that are no added tokens, in order."""
        return np.array(
            sorted(
                set(self._full.get_vocab(with_added_tokens=True).values())
                - {t["id"] for t in self.added.values()}
            ),
            np.int32,
        )

    def inner(self) -> np.ndarray | None:
        """Returns which ids, `[vocab_size]` bool, continue the word of the id before.

        None where pieces do not tell.
        """
        model, pieces = self._document["model"], self._plain.vocabulary
        prefix = model.get("continuing_subword_prefix")
        begins = next(
            (
                mark
                for mark in ("\u2581", "\u0120")
                if any(piece.startswith(mark) and len(piece) > 1 for piece in pieces)
            ),
            None,
        )
        if model.get("type") == "WordLevel" or not (prefix or begins):
            return None
        out = np.zeros(self.vocab_size, bool)
        for piece, index in pieces.items():
            out[index] = piece.startswith(prefix) if prefix else not piece.startswith(begins)
        out[[token["id"] for token in self.added.values()]] = False
        return out

    def role_strings(self) -> dict[str, str]:
        """Returns the declared bos_token, eos_token, pad_token ... by role.

        A chat template may name them.
        """
        return {role: text for role in ROLES if (text := _content(self._config.get(role)))}

    def _segmented(self, text: str) -> str:
        return chinese.bordered(text)[0] if self.segment else text

    def _checked(self, ids: list[int], text: str) -> list[int]:
        # A model whose own vocabulary can spell a special token (from merges or whole words) would
        # let data write control tokens.
        if (
            self._special_ids
            and not self._special_ids.isdisjoint(ids)
            and any(token in text for token in ("\0", *self.special_strings))
        ):
            raise ConfigError(
                "the tokenizer's model spells a special token from plain text, so data could write"
                " control tokens; use another one"
            )
        if (
            self._byte_ids
            and "<0x" in text
            and _BYTE.search(text)
            and not self._byte_ids.isdisjoint(ids)
        ):
            raise ConfigError(
                f"the tokenizer's model takes {_BYTE.search(text).group()!r} in a text for the byte"
                " itself; drop the text"
            )
        return ids

    def role_id(self, role: str) -> int | None:
        """Returns the id of a declared role, such as unk_token or cls_token; None without one."""
        return self._role(role)

    def _role(self, role: str) -> int | None:
        content = _content(self._config.get(role))
        return self.added[content]["id"] if content in self.added else None


_BYTE = re.compile("<0x[0-9A-F]{2}>")


def _byte_letters() -> list[str]:
    """Returns the printable stand-in of each byte in byte-level BPE, in byte order.

    Printable Latin-1 stands for itself, the others are from U+0100 on.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


LONGEST_WORD = 4096  # characters of a word that merges are learnt from
_LONG = re.compile(rf"(?:\S{{{LONGEST_WORD}}}|\s{{{LONGEST_WORD}}})")


def in_pieces(texts: Iterable[str]) -> Iterator[str]:
    """Yields texts, and those with a longer word or a longer space in pieces.

    What the library takes to learn from a word grows with the square of its length.
    """
    for text in texts:
        start = 0
        for match in _LONG.finditer(text):
            yield text[start : match.end()]
            start = match.end()
        if start < len(text) or not text:
            yield text[start:]
