"""Reads the files of a tokenizer as one tokenizer.json and tokenizer_config.json.

| files | kind |
|---|---|
| tokenizer.json | whatever the `tokenizers` library reads |
| NAME.model | SentencePiece, unigram or BPE |
| vocab.txt | WordPiece, as BERT's |
| vocab.json, merges.txt | byte-level BPE, as GPT-2's, RoBERTa's or Qwen2's |

tokenizer_config.json, special_tokens_map.json, chat_template.jinja and, without a tokenizer.json,
added_tokens.json beside them are read too. The class that the config names decides where the files
leave something open: ids that are shifted, the words that BPE does not cross, the frame of a text.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxsft import documents
from jaxsft.data.template_files import TEMPLATES, templates_of
from jaxsft.data.tokenizers import sentencepiece
from jaxsft.data.tokenizers.tokenizer_json import (
    check_config,
    checked,
    content,
    declare,
    declared_special,
    is_id,
    library_errors,
    token_of,
)
from jaxsft.errors import ConfigError

NAMES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "*.model")
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", *TEMPLATES)
# Radford et al., 2019, encoder.py
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# of its tokenizer.json
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}
_ROBERTA |= {"mask_token": "<mask>"}
_BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# classes of SentencePiece whose ids are understood
_SAME_IDS = ("Llama", "CodeLlama", "Gemma", "T5", "XLMRoberta")

Read = tuple[dict[str, Any], dict[str, Any]]


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Returns the content of tokenizer.json and tokenizer_config.json, and the vocabulary's file.

    Args:
      path: a folder, or the file with the vocabulary.

    Raises:
      ConfigError: there is none, files do not belong together, or a kind is not supported.
    """
    file = _vocabulary(Path(path))
    config = _config(file.parent)
    if file.suffix == ".txt":
        document, config = _wordpiece(file, config)
    elif file.name.endswith("vocab.json"):
        document, config = _byte_bpe(file, config)
    elif file.suffix == ".json":
        document = read_object(file, "a directory with a tokenizer.json, or that file")
        with named(file):
            document = checked(document)
        if "added_tokens_decoder" not in config:
            _check_added(file.with_name("added_tokens.json"), document)
    else:
        return *_sentencepiece(file, config), file
    with named(file):
        declare(document, config)
    return document, config, file


def there(folder: Path) -> bool:
    """Returns whether a folder holds a vocabulary."""
    return os.path.isdir(folder) and bool(_candidates(folder))


def _vocabulary(path: Path) -> Path:
    if os.path.isfile(path):
        return path
    found = _candidates(path) if os.path.isdir(path) else []
    if not found:
        raise ConfigError(
            f"{path}: cannot read the tokenizer; expected a directory with a tokenizer.json,"
            " NAME.model, vocab.txt or vocab.json, or that file"
        )
    if len(found) > 1:
        raise ConfigError(
            f"{path}: found {', '.join(sorted(f.name for f in found))}; name the file that holds"
            " the vocabulary"
        )
    return found[0]


def _candidates(folder: Path) -> list[Path]:
    """Returns the files that hold a vocabulary, of the first kind that is there."""
    for pattern in (
        "tokenizer.json",
        "vocab.txt",
        "vocab.json",
        "*.model",
        "*.vocab.txt",
        "*.model.v[0-9]*",
    ):
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _config(folder: Path) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        parts.append({})
        if os.path.lexists(folder / name):  # a broken link of this name is an error
            parts[-1] = {
                k: v for k, v in read_object(folder / name, "JSON").items() if v is not None
            }
            with named(folder / name):
                check_config(parts[-1])
    # As transformers has it: of two special tokens for one role, that of the map counts in folders
    # from before tokenizer_config.json had all added tokens.
    special, config = parts
    config = special | config if "added_tokens_decoder" in config else config | special
    if (folder / "added_tokens.json").exists() and not (folder / "tokenizer.json").exists():
        config["added_tokens_decoder"] = _added(folder / "added_tokens.json") | config.get(
            "added_tokens_decoder", {}
        )
    if (templates := templates_of(folder, config.get("chat_template"))) is not None:
        config["chat_template"] = templates
    return config


def _added(file: Path) -> dict[str, Any]:
    """Returns the tokens of an added_tokens.json (each with its id) as `added_tokens_decoder`.

    Which of them are special, another file says.
    """
    found = read_object(file, "tokens with their ids")
    if wrong := next((text for text, index in found.items() if not text or not is_id(index)), None):
        raise ConfigError(
            f"{file}: {wrong!r:.60} is {found[wrong]!r:.60}, expected the id of a token"
        )
    return {str(index): token_of(text, str(index), index) for text, index in found.items()}


def _check_added(file: Path, document: Mapping[str, Any]) -> None:
    """Raises ConfigError where an added_tokens.json contradicts the tokenizer.json beside it."""
    if not file.exists():
        return
    vocab = document["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, Mapping) else {}
    ids |= {token["content"]: token["id"] for token in document["added_tokens"]}
    for token in _added(file).values():
        found = ids.get(token["content"])
        if found != token["id"] and (found is not None or isinstance(vocab, Mapping)):
            what = "does not have it" if found is None else f"has it as {found}"
            raise ConfigError(
                f"{file}: {token['content']!r:.60} has the id {token['id']}, but tokenizer.json"
                f" {what}; take both from the model, or remove this file"
            )


@contextlib.contextmanager
def named(file: Path) -> Iterator[None]:
    """Raises the ConfigErrors of the block with the file in front."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _class(config: dict[str, Any]) -> str:
    """Returns `Llama` of LlamaTokenizer and LlamaTokenizerFast; "" where no class is named."""
    return str(config.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")


# --- WordPiece
# --------------------------------------------------------------------------------------------------
def _wordpiece(file: Path, config: dict[str, Any]) -> Read:
    """Builds WordPiece with BERT's cleaning, words and pieces.

    Devlin et al., 2019, arXiv:1810.04805.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{file}: cannot read the vocabulary ({error}); expected a piece a line in utf-8"
        ) from None
    pieces = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    vocab: dict[str, int] = {}
    for number, piece in enumerate(pieces, 1):
        if piece in vocab:
            raise ConfigError(
                f"{file}:{number}: the piece {piece!r} again, after line {vocab[piece] + 1}"
            )
        vocab[piece] = number - 1
    config = {role: token for role, token in _BERT.items() if token in vocab} | config
    unknown = content(config.get("unk_token"))
    if unknown not in vocab:
        raise ConfigError(
            f"{file}: the unknown token {unknown or '[UNK]'!r} is not among its {len(vocab)}"
            " pieces; is it a vocabulary of BERT?"
        )
    lower = config.get("do_lower_case")
    # a vocabulary of lower-cased text has (almost) no capitals but in its special tokens
    if lower is None:
        lower = sum(piece != piece.lower() and piece[:1] != "[" for piece in pieces) < 0.01 * len(
            pieces
        )
        config["do_lower_case"] = lower
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
        "strip_accents": config.get("strip_accents"),
        "lowercase": lower,
    }
    model = {
        "type": "WordPiece",
        "unk_token": unknown,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": vocab,
    }
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    document = _document(
        model, normalizer=normalizer, pre_tokenizer={"type": "BertPreTokenizer"}, decoder=decoder
    )
    begin, end = content(config.get("cls_token")), content(config.get("sep_token"))
    if begin in vocab and end in vocab:
        document["post_processor"] = template(
            [begin, "A", end], [begin, "A", end, "B:1", f"{end}:1"], vocab
        )
    return document, config


# --- byte-level BPE
# --------------------------------------------------------------------------------------------------
def _merges(file: Path, vocab: dict[str, int]) -> list[list[str]]:
    """Reads the merges that lie beside a vocabulary. Raises ConfigError where they do not fit."""
    merges_file = file.with_name(file.name.replace("vocab.json", "merges.txt"))
    try:
        lines = merges_file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeError):
        raise ConfigError(
            f"{merges_file}: cannot read the merges that belong to {file.name}"
        ) from None
    merges = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#version") or not line.strip():
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2 or any(part not in vocab for part in (*parts, "".join(parts))):
            raise ConfigError(
                f"{merges_file}:{number}: found {line!r:.60}, expected two pieces that are in"
                f" {file.name}, as their union is"
            )
        merges.append(parts)
    return merges


def _byte_bpe(file: Path, config: dict[str, Any]) -> Read:
    vocab = read_object(file, "a vocabulary of pieces and ids")
    merges = _merges(file, vocab)
    kind = _class(config) or (
        "Roberta"
        if {"<s>", "</s>", "<mask>"} <= vocab.keys()
        else "GPT2"
        if "<|endoftext|>" in vocab
        else ""
    )
    roles = {
        "Roberta": _ROBERTA,
        "GPT2": dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
    }
    roles["Qwen2"] = dict.fromkeys(("eos_token", "pad_token"), "<|endoftext|>")
    if kind not in roles:
        raise ConfigError(
            f"{file}: tokenizer_class={kind or 'null'}; expected GPT2Tokenizer, RobertaTokenizer or"
            " Qwen2Tokenizer, or a tokenizer.json"
        )
    config = roles[kind] | config
    pattern = _QWEN2 if kind == "Qwen2" else _GPT2
    steps = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
    ]
    space = bool(config.get("add_prefix_space")) and kind != "Qwen2"
    whole = {
        "type": "ByteLevel",
        "add_prefix_space": space,
        "trim_offsets": False,
        "use_regex": True,
    }
    document = _document(
        _bpe(vocab, merges),
        normalizer={"type": "NFC"} if kind == "Qwen2" else None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": steps} if kind == "Qwen2" else whole,
        decoder={
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": False,
            "use_regex": True,
        },
    )
    if kind == "Roberta":
        begin, end = str(content(config["cls_token"])), str(content(config["sep_token"]))
        document["post_processor"] = template(
            [begin, "A", end], [begin, "A", end, end, "B", end], vocab
        )
    return document, config


def _bpe(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    none = dict.fromkeys(
        ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    )
    return {
        "type": "BPE",
        **none,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
    }


# --- SentencePiece
# --------------------------------------------------------------------------------------------------
def _sentencepiece(file: Path, config: dict[str, Any]) -> Read:
    model, kind = sentencepiece.read(file), _class(config)
    if kind and kind not in _SAME_IDS and kind != "PreTrained":
        raise ConfigError(
            f"{file}: tokenizer_class={config['tokenizer_class']}: how its ids follow from a"
            " SentencePiece model is not known; give a tokenizer.json"
        )
    if kind == "XLMRoberta":
        model = _fairseq(model)
    # sentinels of span corruption, numbered downwards from the last id (Raffel et al., 2020,
    # arXiv:1910.10683)
    if kind == "T5":
        extra = [
            sentencepiece.Piece(f"<extra_id_{i}>", 0.0, sentencepiece.CONTROL)
            for i in reversed(range(int(config.get("extra_ids", 100))))
        ]
        model = model._replace(pieces=[*model.pieces, *extra])
    own = {"pad_token": "<pad>"} if kind == "T5" else _ROBERTA if kind == "XLMRoberta" else {}
    config = sentencepiece.roles(model) | own | config
    special = declared_special(config)
    with named(file):
        with library_errors("not a SentencePiece model, or damaged ({error})"):
            document = sentencepiece.document(model, special)
        declare(
            document,
            config,
            frozenset(
                word
                for word in sentencepiece.words_of_users(model, special)
                if not sentencepiece.is_marker(word)
            ),
        )
    vocab = {piece.text: i for i, piece in enumerate(model.pieces)}
    begin, end = content(config.get("bos_token")), content(config.get("eos_token"))
    if kind == "XLMRoberta":
        document["post_processor"] = template(
            [begin, "A", end], [begin, "A", end, end, "B", end], vocab
        )
    elif kind == "T5":
        document["post_processor"] = template(["A", end], ["A", end, "B", end], vocab)
    return document, config


def _fairseq(model: sentencepiece.SentencePieceModel) -> sentencepiece.SentencePieceModel:
    """Renumbers the pieces as fairseq does.

    It has four special tokens before all other pieces, and the mask after them (as XLM-R has,
    arXiv:1911.02116).
    """
    control = lambda text: sentencepiece.Piece(text, 0.0, sentencepiece.CONTROL)
    unknown = sentencepiece.Piece("<unk>", 0.0, sentencepiece.UNKNOWN)
    return model._replace(
        pieces=[
            control("<s>"),
            control("<pad>"),
            control("</s>"),
            unknown,
            *model.pieces[3:],
            control("<mask>"),
        ]
    )


# --- parts of a tokenizer.json
# --------------------------------------------------------------------------------------------------
def _document(model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "post_processor": None,
        **parts,
        "model": model,
    }


def template(single: list[str], pair: list[str], ids: dict[str, int]) -> dict[str, Any]:
    """Builds the post processor of a frame.

    A frame is special tokens, `A` and `B`, each with `:1` where it is of the second type.
    """

    def part(text: str) -> dict[str, Any]:
        name, kind = (text[:-2], 1) if text.endswith(":1") else (text, 0)
        return {"Sequence" if name in "AB" else "SpecialToken": {"id": name, "type_id": kind}}

    special = sorted(
        {name for text in (*single, *pair) if (name := text.removesuffix(":1")) not in "AB"}
    )
    tokens = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in special}
    return {
        "type": "TemplateProcessing",
        "single": [part(t) for t in single],
        "pair": [part(t) for t in pair],
        "special_tokens": tokens,
    }


def read_object(file: Path, expected: str) -> dict[str, Any]:
    """Returns a JSON object of a file. Raises ConfigError."""
    try:
        return documents.read_json(file, ConfigError, dict)
    except ConfigError as error:
        raise ConfigError(f"{error}; expected {expected}") from None
