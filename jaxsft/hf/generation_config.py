"""generation_config.json of a folder: its stop tokens are read, its other options are reported.

An answer is greedy unless an option says otherwise; what the file asks for beyond that is told with
the options that follow it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import documents
from jaxsft.config.schema import GenerateConfig
from jaxsft.errors import ConfigError
from jaxsft.hf.families.key_types import (
    ID,
    IDS,
    PADDING,
    SCALE,
    SHARE,
    SWITCH,
    ids_of,
    number,
    shown,
    whole,
)

NAME = "generation_config.json"
# What transformers does where nothing is said: a value that is this, or null, asks for nothing.
# read where do_sample is true
SAMPLING = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None}
OPTIONS = {"repetition_penalty": 1.0, "num_beams": 1}
BEAMS = {"length_penalty": 1.0}  # read where num_beams is above 1
OTHERS = {  # for which there is no option
    **{
        "min_length": 0,
        "min_new_tokens": 0,
        "no_repeat_ngram_size": 0,
        "encoder_no_repeat_ngram_size": 0,
        "num_beam_groups": 1,
    },
    **{
        "diversity_penalty": 0.0,
        "encoder_repetition_penalty": 1.0,
        "typical_p": 1.0,
        "epsilon_cutoff": 0.0,
        "eta_cutoff": 0.0,
        "penalty_alpha": 0,
    },
    **dict.fromkeys(
        (
            "bad_words_ids",
            "force_words_ids",
            "suppress_tokens",
            "begin_suppress_tokens",
            "forced_decoder_ids",
            "sequence_bias",
        )
    ),
    **dict.fromkeys(
        (
            "exponential_decay_length_penalty",
            "guidance_scale",
            "constraints",
            "stop_strings",
            "top_h",
            "watermarking_config",
        )
    ),
    **{"forced_bos_token_id": None, "num_return_sequences": 1},
}
# Names, ids that the tokenizer knows, lengths (generate.max_new_tokens has a standard of its own),
# and how it is computed or returned.
_INERT = """
_from_model_config transformers_version early_stopping forced_eos_token_id
eos_token_id bos_token_id pad_token_id decoder_start_token_id max_length max_new_tokens max_time
use_cache
do_sample return_dict_in_generate output_attentions output_hidden_states output_scores output_logits
cache_implementation cache_config low_memory
renormalize_logits remove_invalid_values token_healing return_legacy_cache is_assistant
prefill_chunk_size compile_config disable_compile
num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold
prompt_lookup_num_tokens max_matching_ngram_size
assistant_early_exit assistant_lookbehind target_lookbehind generation_kwargs trust_remote_code
"""
INERT = frozenset(_INERT.split())


def read(folder: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a folder's generation config; without the file, its keys in config.json (`model`).

    Older folders have them there. Raises ConfigError.
    """
    file = folder / NAME
    if there := os.path.lexists(file):  # a folder or a broken link of this name is an error
        values = documents.read_json(file, ConfigError, dict)
    else:
        read = {*SAMPLING, *OPTIONS, *BEAMS, *OTHERS, "do_sample"}
        values = {key: value for key, value in model.items() if key in read}
    for key, kind in TYPES.items():
        value = values.get(key)
        if value is not None and not (kind.fits(value) and all(map(ID.fits, _ids(key, value)))):
            place = file if there else folder / "config.json"
            raise ConfigError(f"{place}: {key}={shown(value)}: expected {kind.said}, or null")
    return values


def _ids(key: str, value: Any) -> list[Any]:
    return ids_of(key, value) if TYPES[key] is IDS else []


COUNTS = whole(0, 2**31 - 1)
TYPES = {  # of what is read here, and of what the note tells
    **dict.fromkeys(("temperature", "typical_p", "top_h"), number("a number of at least 0", 0)),
    **dict.fromkeys(("top_p", "min_p", "epsilon_cutoff", "eta_cutoff"), SHARE),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), SCALE),
    **dict.fromkeys(("length_penalty", "diversity_penalty", "penalty_alpha"), number("a number")),
    **dict.fromkeys(("num_beams", "num_return_sequences", "num_beam_groups"), whole(1, 2**16)),
    **dict.fromkeys(("max_length", "max_new_tokens", "min_length", "min_new_tokens"), COUNTS),
    **dict.fromkeys(("top_k", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), COUNTS),
    **dict.fromkeys(("do_sample", "use_cache"), SWITCH),
    **dict.fromkeys(("bos_token_id", "decoder_start_token_id", "forced_bos_token_id"), ID),
    **dict.fromkeys(("eos_token_id", "forced_eos_token_id"), IDS),
    "pad_token_id": PADDING,
}


def stop_ids(folder: Path, rows: int) -> Sequence[int]:
    """Returns the stop tokens of generation_config.json.

    Args:
      rows: of the vocabulary.

    Raises:
      ConfigError: it names what is no id of it.
    """
    found = ids_of("eos_token_id", read(folder, {}).get("eos_token_id"))
    if beyond := [one for one in found if one >= rows]:
        raise ConfigError(
            f"{folder / NAME}: eos_token_id={beyond[0]}: expected ids below {rows}, as many rows as"
            " the embedding has"
        )
    return found


def note(
    values: Mapping[str, Any], options: GenerateConfig, start: Sequence[int] = ()
) -> str | None:
    """Returns one line on what is asked for and not followed; None if nothing is.

    Args:
      values: of `read`.
      options: of the user; what one of them decides is not told.
      start: the tokens that a decoder begins with, among which a first token may be that is forced.
    """
    follow, there = _to_follow(values, options), _others(values, start)
    told = []
    if follow:
        told += ["follow it by " + " ".join(f"generate.{n}={value}" for n, value in follow.items())]
    if there:
        told += ["nothing here does " + ", ".join(f"{n}={v!r:.40}" for n, v in there.items())]
    return (
        f"{NAME} asks for other answers than the greedy ones of the standard: {'; '.join(told)}"
        if told
        else None
    )


def _to_follow(values: Mapping[str, Any], options: GenerateConfig) -> dict[str, Any]:
    """Returns the options of `generate`, with their values, that would do what is asked for.

    Those that the user set are not among them.
    """
    beams, drawn = values.get("num_beams") or 1, values.get("do_sample") is True
    asked = (
        (SAMPLING if drawn else {})
        | OPTIONS
        | (BEAMS if isinstance(beams, int) and beams > 1 else {})
    )
    given = {
        field.name
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != getattr(GenerateConfig(), field.name)
    }
    follow = {
        name: values.get(name, asked[name])
        for name in asked
        if name in values and values[name] not in (None, asked[name])
    }
    if drawn and "temperature" not in given:
        standard = {"temperature": 1.0, "top_k": 50}
        follow = {name: values.get(name, value) for name, value in standard.items()} | follow
    return {
        name: value for name, value in follow.items() if name not in given and value is not None
    }


def _others(values: Mapping[str, Any], start: Sequence[int]) -> dict[str, Any]:
    """Returns what is asked for and no option does."""
    there = {
        name: value
        for name, value in values.items()
        if name in OTHERS and value not in (None, OTHERS[name], [], {})
    }
    if there.get("forced_bos_token_id") in tuple(start)[1:]:
        del there["forced_bos_token_id"]
    known = {*SAMPLING, *OPTIONS, *BEAMS, *OTHERS, *INERT}
    return there | {
        name: value for name, value in values.items() if name not in known and value is not None
    }
