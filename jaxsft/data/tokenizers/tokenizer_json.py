"""The checked content of tokenizer.json, its added tokens completed from tokenizer_config.json.

Every message names the key, what was found there and what was expected; the file is put before it
by whoever read it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from jaxsft.errors import ConfigError

ROLES = ("pad_token", "bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token")
LISTS = ("additional_special_tokens", "extra_special_tokens")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
# ids: an embedding of so many rows is larger than any that was published, by a factor of ten
MOST = 1 << 24
SHOWN = 300  # characters of an error of the library: it may quote the file
_SWITCHES = (
    "add_prefix_space",
    "do_lower_case",
    "tokenize_chinese_chars",
    "strip_accents",
    "add_bos_token",
    "add_eos_token",
)
_STEPS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}


@contextlib.contextmanager
def library_errors(message: str) -> Iterator[None]:
    """Raises ConfigError for what the `tokenizers` library raises in the block.

    Its panics are no Exception. `message` has a place `{error}`.
    """
    try:
        yield
    except (ConfigError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        why = " ".join(str(error).split())
        why = why if len(why) <= SHOWN else f"{why[:SHOWN]}..."
        raise ConfigError(message.replace("{error}", why)) from None


def content(token: Any) -> str | None:
    """Returns a token as text, where it may be written as an object."""
    return token.get("content") if isinstance(token, dict) else token


# --- tokenizer.json
# --------------------------------------------------------------------------------------------------
def checked(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a tokenizer.json, whose added tokens have all their flags.

    Raises ConfigError where something is of another type.
    """
    for key, inner in _STEPS.items():
        _check_step(document.get(key), key, inner)
    model = document.get("model")
    if not isinstance(model, dict):
        _wrong("model", model, "an object with a vocab")
    ids = set(vocabulary(model).values())
    if model.get("dropout"):
        _wrong("model.dropout", model["dropout"], "null or 0, for ids that are the same every time")
    merges = model.get("merges")
    if merges is not None and not isinstance(merges, list):
        _wrong("model.merges", merges, "a list of pairs")
    for i, merge in enumerate(merges or []):
        parts = merge.split(" ", 1) if isinstance(merge, str) else merge
        if not (
            isinstance(parts, list)
            and len(parts) == 2
            and all(isinstance(part, str) for part in parts)
        ):
            _wrong(f"model.merges[{i}]", merge, "two pieces")
    added = document.get("added_tokens")
    if added is not None and not isinstance(added, list):
        _wrong("added_tokens", added, "a list of tokens")
    tokens, seen = (
        [token_of(token, f"added_tokens[{i}]") for i, token in enumerate(added or [])],
        dict[Any, int](),
    )
    for i, token in enumerate(tokens):
        for part in (token["content"], token["id"]):
            if seen.setdefault(part, i) != i:
                _wrong(
                    f"added_tokens[{i}]",
                    part,
                    f"another one than that of added_tokens[{seen[part]}]",
                )
    most = 2 * (len(ids) + len(tokens)) + 100_000
    if (largest := max([*ids, *(token["id"] for token in tokens)], default=0)) > most:
        _wrong("model.vocab", largest, f"ids up to {most:,} for {len(ids) + len(tokens):,} tokens")
    return {**document, "added_tokens": tokens}


def vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    """Returns the pieces of a model by name. Raises ConfigError."""
    found = model.get("vocab")
    if isinstance(found, dict):
        if wrong := next((piece for piece, index in found.items() if not is_id(index)), None):
            _wrong(f"model.vocab[{wrong!r:.60}]", found[wrong], f"a number from 0 to {MOST:,}")
        if len(set(found.values())) < len(found):
            names: dict[int, str] = {}
            twice = next(
                piece for piece, index in found.items() if names.setdefault(index, piece) != piece
            )
            _wrong(
                f"model.vocab[{twice!r:.60}]",
                found[twice],
                f"another id than that of {names[found[twice]]!r:.60}",
            )
        return found
    if isinstance(found, list):
        for i, one in enumerate(found):
            if not (
                isinstance(one, list | tuple)
                and len(one) == 2
                and isinstance(one[0], str)
                and is_number(one[1])
            ):
                _wrong(f"model.vocab[{i}]", one, "a piece and its score")
        return {piece: i for i, (piece, _) in enumerate(found)}
    _wrong("model.vocab", found, "pieces with their ids, or a list of pieces with their scores")


def token_of(
    found: Any, key: str, index: int | None = None, special: bool = False
) -> dict[str, Any]:
    """Returns an added token with all its flags.

    Args:
      key: where it stands, for errors.
      index: its id, where it does not say so itself.
      special: what it is where it does not say so.
    """
    found = {"content": found} if isinstance(found, str) else found
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("content"), str)
        or not found["content"]
    ):
        _wrong(key, found, "a token with its content")
    index = found.get("id") if index is None else index
    if not is_id(index):
        _wrong(f"{key}.id", index, f"a number from 0 to {MOST:,}")
    for flag in ("special", *FLAGS):
        if not isinstance(found.get(flag, False), bool):
            _wrong(f"{key}.{flag}", found[flag], "true or false")
    special = found.get("special", special)
    # as the library fills them up
    flags = {flag: found.get(flag, flag == "normalized" and not special) for flag in FLAGS}
    return {"id": index, "content": found["content"], **flags, "special": special}


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_step(step: Any, key: str, inner: str) -> None:
    if step is None:
        return
    if not isinstance(step, dict) or not isinstance(step.get("type"), str):
        _wrong(key, step, "an object with a type, or null")
    if step["type"] == "Sequence":
        if not isinstance(step.get(inner), list):
            _wrong(f"{key}.{inner}", step.get(inner), "a list of steps")
        for i, part in enumerate(step[inner]):
            _check_step(part, f"{key}.{inner}[{i}]", inner)


# --- tokenizer_config.json
# --------------------------------------------------------------------------------------------------
def check_config(config: Mapping[str, Any]) -> None:
    """Raises ConfigError where a key that is read has a value of another type."""
    for role in ROLES:
        found = config.get(role)
        if not isinstance(found, str | None) and not (
            isinstance(found, dict) and isinstance(found.get("content"), str)
        ):
            _wrong(role, found, "a token, an object with its content, or null")
    for name in LISTS:
        found = config.get(name)
        values = found.values() if isinstance(found, dict) else found
        if found is not None and (
            not isinstance(found, list | dict)
            or not all(isinstance(content(token), str) for token in values)
        ):
            _wrong(name, found, "a list of tokens")
    for name in _SWITCHES:
        if not isinstance(config.get(name), bool | None):
            _wrong(name, config[name], "true or false")
    for name in ("tokenizer_class", "segment"):
        if not isinstance(config.get(name), str | None):
            _wrong(name, config[name], "a name")
    extra = config.get("extra_ids")
    if extra is not None and not (is_id(extra) and extra < 1 << 16):
        _wrong("extra_ids", extra, f"a number from 0 to {1 << 16:,}")
    extends = config.get("extends")
    if extends is not None and not (
        isinstance(extends, dict)
        and isinstance(extends.get("digest"), str)
        and is_id(extends.get("rows"))
    ):
        _wrong("extends", extends, "an object with a digest and the number of rows")
    declared = config.get("added_tokens_decoder")
    if declared is not None and not isinstance(declared, dict):
        _wrong("added_tokens_decoder", declared, "tokens by their ids")
    for key, token in (declared or {}).items():
        if not (key.isascii() and key.isdigit()) or len(key) > 10:
            _wrong("added_tokens_decoder", key, "ids")
        token_of(token, f"added_tokens_decoder[{key}]", int(key))


def declare(
    document: dict[str, Any], config: Mapping[str, Any], words: frozenset[str] = frozenset()
) -> None:
    """Completes the added tokens of a document in place from `added_tokens_decoder` of its config.

    The config's flags take precedence, as in transformers; older files declare some there only.

    Args:
      words: tokens that are none of them, for the model itself cuts them out of a text.

    Raises:
      ConfigError: both call one id otherwise.
    """
    added = {token["id"]: token for token in document["added_tokens"]}
    for key, found in (config.get("added_tokens_decoder") or {}).items():
        token = token_of(found, f"added_tokens_decoder[{key}]", int(key), special=True)
        known = added.get(token["id"])
        if known and known["content"] != token["content"]:
            raise ConfigError(
                f"tokenizer_config.json: added_tokens_decoder calls id {token['id']}"
                f" {token['content']!r}, the vocabulary {known['content']!r}"
            )
        if token["content"] not in words:
            added[token["id"]] = token | {
                "special": token["special"] or bool(known and known["special"])
            }
    if config.get("added_tokens_decoder"):
        document["added_tokens"] = [added[index] for index in sorted(added)]


def declare_roles(document: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Makes the tokens that the config names as special into special added tokens, in place.

    It names them as bos, eos, ... or in a list; old files leave some in the vocabulary only, or
    without the flag.

    Raises:
      ConfigError: bos or eos is in no vocabulary.
    """
    added = {token["content"]: token for token in document["added_tokens"]}
    ids = vocabulary(document["model"])
    for role, found in _named(config):
        text = content(found)
        if text in added:
            added[text] = added[text] | {"special": True}
        elif text in ids:
            added[text] = token_of(found, role, ids[text], special=True) | {"special": True}
        elif role in ("bos_token", "eos_token"):
            raise ConfigError(
                f"{role} {text!r} is not in the vocabulary, so no embedding belongs to it; correct"
                " tokenizer_config.json"
            )
    tokens = list(added.values())
    document["added_tokens"] = (
        sorted(tokens, key=lambda token: token["id"])
        if config.get("added_tokens_decoder")
        else tokens
    )


def declared_special(config: Mapping[str, Any]) -> frozenset[str]:
    """Returns the tokens that a config names as special.

    By a role, in a list, or in `added_tokens_decoder`.
    """
    flagged = [
        token["content"]
        for token in (config.get("added_tokens_decoder") or {}).values()
        if token.get("special")
    ]
    return frozenset([*flagged, *(str(content(token)) for _, token in _named(config))])


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields (role, token) of all that the config names as special."""
    yield from ((role, config[role]) for role in ROLES if content(config.get(role)))
    for name in LISTS:
        found = config.get(name) or []
        yield from (
            (name, token)
            for token in (found.values() if isinstance(found, dict) else found)
            if content(token)
        )


def _wrong(key: str, found: Any, expected: str) -> NoReturn:
    raise ConfigError(f"{key} is {found!r:.80}, expected {expected}")
