"""Plain text encoding: special tokens in a text are spelled out as any other text.

Added tokens that are not special are read as the `tokenizers` library reads them.
"""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import tokenizers

from jaxsft.data.tokenizers.tokenizer_json import FLAGS, library_errors
from jaxsft.errors import ConfigError

_UNKNOWN = "\0"


class Reading(NamedTuple):
    """The ids of a text and the characters, (start, end), that each stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class PlainReader:
    """The encoder of a tokenizer.json without its special tokens.

    The library numbers the added tokens of a tokenizer by itself, behind its vocabulary, so that
    they are numbered anew here.

    Attributes:
      prefix: where a space is put before a text that has none: `none`, before the `first` text
        only, or `always`, behind each added token too.
      vocabulary: the pieces of the model by name; the place of a special one is held by a name that
        no text spells.
    """

    def __init__(self, document: dict[str, Any], *, inside: bool = False) -> None:
        """Builds the encoder from the content of tokenizer.json.

        `inside`: for text that goes on with what stands before it, so that no space is put
        there. Raises what the library raises.
        """
        plain = _without_special(document)
        inner, self.prefix = _without_prefix(plain)
        self._raw = tokenizers.Tokenizer.from_str(json.dumps(inner if inside else plain))
        self.vocabulary: dict[str, int] = self._raw.get_vocab()
        self._number: dict[int, int] = {}
        by_normalizer, normalizer = (
            _prepends(plain.get("normalizer")),
            tokenizers.Tokenizer.from_str(json.dumps(plain)).normalizer,
        )
        # by what the normaliser writes: of two that are alike the library takes either, each time
        # that it reads the file
        written: dict[str, dict[str, Any]] = {}
        # tokens behind which a prefix is put again
        breaks: list[tuple[tokenizers.AddedToken, int]] = []
        for token in _read_as_tokens(document):
            text = token["content"]
            # A normalized token is looked for as the normaliser writes it, its prefix included.
            said = (
                normalizer.normalize_str(text)
                if normalizer is not None and token["normalized"]
                else text
            )
            if not said:
                raise ConfigError(
                    f"added token {text!r}: normalized, nothing is left of it, so that no text"
                    " holds it; set normalized to false"
                )
            text = said if inside and by_normalizer and said not in self.vocabulary else text
            if token["normalized"] and written.setdefault(said, token) is not token:
                raise ConfigError(
                    f"added tokens {written[said]['content']!r} and {token['content']!r}:"
                    f" normalized, both are {said!r}, and which of them a text gives would be"
                    " chance; set normalized to false for one of them, or remove it"
                )
            added = tokenizers.AddedToken(
                text, special=False, **{flag: token[flag] for flag in FLAGS}
            )
            self._raw.add_tokens([added])
            self._number[self._raw.token_to_id(text)] = token["id"]
            breaks += [] if token["normalized"] and by_normalizer else [(added, token["id"])]
        self._renumbers = any(number != index for number, index in self._number.items())
        self._between = self._finder = None
        if inside and self.prefix == "always" and breaks:
            self._find_breaks(document, breaks)

    def _find_breaks(
        self, document: dict[str, Any], breaks: list[tuple[tokenizers.AddedToken, int]]
    ) -> None:
        """Makes what finds the tokens behind which a prefix stands, and what reads between them."""
        ids = {index for _, index in breaks}
        others = [token for token in document["added_tokens"] if token["id"] not in ids]
        self._between = PlainReader(document | {"added_tokens": others})
        self._finder = tokenizers.Tokenizer(tokenizers.models.WordLevel({_UNKNOWN: 0}, _UNKNOWN))
        self._finder.normalizer = self._raw.normalizer
        self._finder.add_tokens([added for added, _ in breaks])
        self._breaks = {self._finder.token_to_id(added.content): index for added, index in breaks}

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text. Raises ConfigError where the library fails on it."""
        if self._finder:
            return self.read(text).ids
        with _readable(text):
            return self._numbered(self._raw.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes many texts, on all cores."""
        if self._finder:
            return [self.encode(text) for text in texts]
        with _readable(texts[0] if texts else ""):  # fast: without the places of tokens in the text
            return [
                self._numbered(one.ids)
                for one in self._raw.encode_batch_fast(list(texts), add_special_tokens=False)
            ]

    def read(self, text: str) -> Reading:
        """Returns the ids of a text with their places. Raises as `encode`."""
        with _readable(text):
            raw = self._raw.encode(text, add_special_tokens=False)
            found = Reading(self._numbered(raw.ids), raw.offsets)
            return self._with_prefixes(found, text) if self._finder else found

    def _with_prefixes(self, found: Reading, text: str) -> Reading:
        """Adds the prefix after each added token.

        What follows an added token is the beginning of a text for the library.
        """
        tokens = self._finder.encode(text)
        places = [
            (number, *place)
            for number, place in zip(tokens.ids, tokens.offsets, strict=True)
            if number
        ]
        if not places:
            return found
        kept = sum(start < places[0][1] for start, _ in found.offsets)
        ids, offsets = found.ids[:kept], found.offsets[:kept]
        for (number, start, end), (_, following, _) in zip(
            places, [*places[1:], (0, len(text), 0)], strict=True
        ):
            # composed with the letter before by the normaliser
            while end < following and unicodedata.combining(text[end]):
                end += 1
            rest = self._between.read(text[end:following])
            ids = [*ids, self._breaks[number], *rest.ids]
            offsets = [*offsets, (start, end), *((a + end, b + end) for a, b in rest.offsets)]
        return Reading(ids, offsets)

    def _numbered(self, ids: list[int]) -> list[int]:
        return [self._number.get(number, number) for number in ids] if self._renumbers else ids


def _readable(text: str) -> contextlib.AbstractContextManager[None]:
    """Raises ConfigError where the library fails on a text.

    Some tokenizers with added tokens that overlap make it fail.
    """
    return library_errors(
        "the tokenizer fails on a text ({error}); take another one, or mend its added tokens."
        f" The text: {text!r:.80}"
    )


def _read_as_tokens(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the added tokens that text is searched for.

    Those that the model's own pre-tokenizer cuts out (`sentencepiece`) are not among them.
    """
    split = document.get("pre_tokenizer") or {}
    pattern = (
        split["pattern"].get("Regex", "")
        if split.get("type") == "Split" and split.get("behavior") == "Isolated"
        else ""
    )
    by_itself = lambda text: f"|{re.escape(text)}|" in f"|{pattern}|"
    return [
        token
        for token in document["added_tokens"]
        if not token["special"] and not by_itself(token["content"])
    ]


def _without_special(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the same model without added tokens.

    Its vocabulary keeps the places of the special ones, but nothing is merged into them or from
    them.
    """
    model = dict(document["model"])
    vocabulary, special = (
        model.get("vocab"),
        {token["content"] for token in document["added_tokens"] if token["special"]},
    )
    # the pieces that a character without one of its own is made of
    fallback = {f"<0x{byte:02X}>" for byte in range(256)} if model.get("byte_fallback") else set()
    if isinstance(vocabulary, dict):
        needed = {model.get("unk_token")} | (special & fallback)
        for merge in model.get("merges") or []:
            left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
            needed |= special & {left, right, left + right}
        # Their places are held, for the library counts the pieces to number what is added to them.
        model["vocab"] = {
            (f"\0{index}\0" if piece in special and piece not in needed else piece): index
            for piece, index in vocabulary.items()
        }
    elif isinstance(vocabulary, list):
        model["vocab"] = [
            [f"\0{index}\0" if piece in special - fallback else piece, score]
            for index, (piece, score) in enumerate(vocabulary)
        ]
    return document | {"model": model, "added_tokens": [], "post_processor": None}


def _prepends(step: dict[str, Any] | None) -> bool:
    """Returns whether a normaliser puts a prefix before a text."""
    kind = step and step["type"]
    return any(map(_prepends, step["normalizers"])) if kind == "Sequence" else kind == "Prepend"


def _without_prefix(document: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Returns the same model for text that goes on, and `prefix`.

    It lacks the space that its normaliser or its pre-tokenizer puts before a text.
    """
    found = ["none"]

    def kept(step: dict[str, Any] | None) -> dict[str, Any] | None:
        kind = step and step["type"]
        if kind == "Sequence":
            name = "normalizers" if "normalizers" in step else "pretokenizers"
            return step | {name: [part for part in map(kept, step[name]) if part is not None]}
        if kind == "Prepend":
            found.append("always")
            return None
        if kind == "Metaspace":
            found.append(step.get("prepend_scheme", "always").replace("never", "none"))
            return step | {"prepend_scheme": "never", "add_prefix_space": False}
        if kind == "ByteLevel":
            found.append("always" if step.get("add_prefix_space", True) else "none")
            return step | {"add_prefix_space": False}
        return step

    inner = document | {name: kept(document.get(name)) for name in ("normalizer", "pre_tokenizer")}
    return inner, next((where for where in ("always", "first") if where in found), "none")
