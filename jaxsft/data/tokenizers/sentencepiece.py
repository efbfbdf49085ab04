"""SentencePiece models (unigram and BPE) as the document of a tokenizer.json.

Kudo and Richardson, 2018, arXiv:1808.06226.

A `.model` file is a protobuf message: pieces with score and type, the options of training, and the
normalisation. Only the fields that decide about ids are read, by their numbers in
`sentencepiece_model.proto`. What the ids depend on and a tokenizer.json cannot say is an error.

Where two cuts of a unigram model have the same score (`xxxxx` from `xxx`+`xx` or `xx`+`xxx`),
either may come out; measured, 16 of 5,356 odd texts.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, normalizers

from jaxsft.data.tokenizers.tokenizer_json import FLAGS
from jaxsft.errors import ConfigError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2
SPACE = "\u2581"
# field of TrainerSpec, its default
_ROLES = {"unk_token": (40, 0), "bos_token": (41, 1), "eos_token": (42, 2), "pad_token": (43, -1)}


class Piece(NamedTuple):
    text: str
    score: float
    type: int


class SentencePieceModel(NamedTuple):
    """The content of a `.model` file.

    Pieces by id, then the options of TrainerSpec and NormalizerSpec by field number.
    """

    pieces: list[Piece]
    trainer: dict[int, Any]
    normalizer: dict[int, Any]

    @property
    def byte_fallback(self) -> bool:
        return bool(self.trainer.get(35, 0))

    @property
    def dummy_prefix(self) -> bool:
        return bool(self.normalizer.get(3, 1))


def read(file: Path) -> SentencePieceModel:
    """Reads a `.model` file. Raises ConfigError where it is none, or of an unsupported kind."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot read the tokenizer ({error.strerror}); expected a SentencePiece model"
        ) from None
    return parse(data, str(file))


def parse(data: bytes, file: str) -> SentencePieceModel:
    """Parses the content of a `.model` file, called `file` in errors. Raises as `read`."""
    try:
        pieces, trainer, normalizer = [], {}, {}
        for field, value in _fields(data):
            if field == 1:
                found = dict(_fields(value))
                pieces.append(
                    Piece(
                        found[1].decode("utf-8"),
                        _float(found.get(2, b"\0\0\0\0")),
                        found.get(3, NORMAL),
                    )
                )
            elif field in (2, 3):
                (trainer if field == 2 else normalizer).update(_fields(value))
    except (IndexError, KeyError, ValueError, AttributeError, TypeError, struct.error):
        raise ConfigError(f"{file}: not a SentencePiece model, or cut off") from None
    if not pieces:
        raise ConfigError(f"{file}: not a SentencePiece model: it has no pieces")
    model = SentencePieceModel(pieces, trainer, normalizer)
    kind = trainer.get(3, UNIGRAM)
    for wrong, what in (
        (kind not in (UNIGRAM, BPE), f"its model_type is {kind}, expected 1 (unigram) or 2 (BPE)"),
        (trainer.get(24, 0), "it writes spaces at the ends of words (treat_whitespace_as_suffix)"),
        (not normalizer.get(5, 1), "it keeps spaces as they are (escape_whitespaces=false)"),
        (any(p.type == UNUSED for p in pieces), "it has pieces that are marked as unused"),
        (sum(p.type == UNKNOWN for p in pieces) != 1, "it has not exactly one unknown piece"),
    ):
        if wrong:
            raise ConfigError(
                f"{file}: {what}, which is not supported; convert it to a tokenizer.json"
            )
    return model


def document(model: SentencePieceModel, special: Collection[str] = ()) -> dict[str, Any]:
    """Builds the tokenizer.json of a model.

    `special`: user-defined pieces that a text shall not write.
    """
    words = words_of_users(model, special)
    by_name = lambda piece: (
        piece.type == USER_DEFINED and (piece.text in special or is_marker(piece.text))
    )
    added = [
        (i, p) for i, p in enumerate(model.pieces) if p.type in (CONTROL, UNKNOWN) or by_name(p)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": p.text, "special": p.text not in words}
            | dict.fromkeys(FLAGS, False)
            for i, p in added
        ],
        "normalizer": _normalizer(model, words),
        "pre_tokenizer": _cut(words),
        "post_processor": None,
        "decoder": _decoder(model),
        "model": (_unigram if model.trainer.get(3, UNIGRAM) == UNIGRAM else _bpe)(model, words),
    }


def words_of_users(model: SentencePieceModel, special: Collection[str] = ()) -> list[str]:
    """Returns the user-defined pieces that are not special: text is cut at them first."""
    return [p.text for p in model.pieces if p.type == USER_DEFINED and p.text not in special]


def is_marker(text: str) -> bool:
    """Returns whether a piece is in brackets, such as [MASK] or <|im_end|>.

    A chat template may write it as a token, so that it is known as an added one.
    """
    return bool(re.fullmatch(r"<.*>|\[.*\]", text, re.DOTALL))


def roles(model: SentencePieceModel) -> dict[str, str]:
    """Returns unk, bos, eos and pad as the model names them, where it has them."""
    out = {}
    for role, (field, default) in _ROLES.items():
        index = _signed(model.trainer.get(field, default))
        if 0 <= index < len(model.pieces) and model.pieces[index].type in (CONTROL, UNKNOWN):
            out[role] = model.pieces[index].text
    return out


def _normalizer(model: SentencePieceModel, words: list[str]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if chars := model.normalizer.get(2):
        steps.append(
            {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(chars).decode("ascii")}
        )
        raw = normalizers.Precompiled(chars)
        if changed := [text for text in words if raw.normalize_str(text) != text]:
            raise ConfigError(
                f"the user-defined piece {changed[0]!r} is changed by the model's own"
                " normalisation, so that it cannot be found in a text"
            )
    if model.normalizer.get(4, 1):  # remove_extra_whitespaces
        steps += [_replace({"Regex": r"\A +|[ \u2581]+\z"}, ""), _replace({"Regex": " {2,}"}, " ")]
    if model.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append(_replace({"String": " "}, SPACE))
    return {"type": "Sequence", "normalizers": steps}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _cut(words: list[str]) -> dict[str, Any] | None:
    """Builds a pre-tokenizer that isolates user-defined pieces, the longest first."""
    if not words:
        return None
    pattern = "|".join(re.escape(text) for text in sorted(words, key=len, reverse=True))
    Regex(pattern)  # raises where the library cannot read it
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _decoder(model: SentencePieceModel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [_replace({"String": SPACE}, " ")]
    if model.byte_fallback:
        steps.append({"type": "ByteFallback"})
    steps.append({"type": "Fuse"})
    if model.dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _unigram(model: SentencePieceModel, words: list[str]) -> dict[str, Any]:
    unknown = next(i for i, p in enumerate(model.pieces) if p.type == UNKNOWN)
    vocab = [[p.text, 0.0 if p.text in words else p.score] for p in model.pieces]
    return {
        "type": "Unigram",
        "unk_id": unknown,
        "vocab": vocab,
        "byte_fallback": model.byte_fallback,
    }


def _bpe(model: SentencePieceModel, words: list[str]) -> dict[str, Any]:
    ids = {p.text: i for i, p in enumerate(model.pieces)}
    normal = {p.text: p.score for p in model.pieces if p.type == NORMAL}
    merges = []
    for text, score in normal.items():
        cuts = [
            (text[:i], text[i:])
            for i in range(1, len(text))
            if text[:i] in normal and text[i:] in normal
        ]
        merges += [
            (-score, ids[text], n, cut)
            for n, cut in enumerate(sorted(cuts, key=lambda cut: (ids[cut[0]], ids[cut[1]])))
        ]
    unknown = next(p.text for p in model.pieces if p.type == UNKNOWN)
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": model.byte_fallback,
        # what was cut out as user-defined is one piece; no merges lead there
        "ignore_merges": bool(words),
        "vocab": ids,
        "merges": [list(cut) for *_, cut in sorted(merges)],
    }


# --- protobuf
# --------------------------------------------------------------------------------------------------
def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (number, value) of a message: ints, or bytes for what has a length or is a float.

    Raises IndexError or ValueError where it is no message.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire}")
        if at > len(data):
            raise IndexError("cut off")
        yield field, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return value, at


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _float(data: bytes) -> float:
    return struct.unpack("<f", data)[0]
