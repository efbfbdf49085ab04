"""The tokenizer, the chat template and the stop tokens of a run, as transformers reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.data.chat.template_variables import pinned
from jaxsft.data.template_files import FURTHER
from jaxsft.data.tokenizers.special_tokens import A, B, Frames
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.tasks.task import Task

UNSAID = (
    "a tokenizer.json cannot say how such words are found; train on texts with blanks between"
    " words, and tokenizer.segment=spaces"
)


def declared_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Returns the declared ids of bos, eos and padding, as in `{"bos_token_id": 1}`."""
    declared = tokenizer.role_strings()
    out = {}
    for role in ("bos_token", "eos_token", "pad_token"):
        if declared.get(role) in tokenizer.added:
            out[f"{role}_id"] = tokenizer.added[declared[role]]["id"]
    return out


def padding_of(tokenizer: Tokenizer) -> str | None:
    """Returns the special token that may pad whole texts; None where there is none.

    Classes that pool the last token take it for the last that is no padding, so that the padding
    token must be none of a text or of the special tokens around it. Where the declared one is, or
    there is none, another special token is chosen, which no text holds.
    """
    frame = {part for half in tokenizer.frames for part, _ in half}
    roles = tokenizer.role_strings()
    taken = {
        text
        for role, text in roles.items()
        if role in ("unk_token", "mask_token", "bos_token", "eos_token")
    }
    free = [
        name
        for name, token in tokenizer.added.items()
        if token.get("special") and token["id"] not in frame and name not in taken
    ]
    declared = roles.get("pad_token")
    return (
        declared
        if declared in free
        else next((name for name in sorted(free, key=lambda name: "pad" not in name.lower())), None)
    )


def start_ids(task: Task) -> dict[str, int]:
    """Returns the ids that the decoder of an encoder-decoder model starts from, for config.json."""
    return dict(
        zip(
            ("decoder_start_token_id", "forced_bos_token_id"),
            map(int, task.start_ids),
            strict=False,
        )
    )


def write(
    folder: Path,
    tokenizer: Tokenizer,
    task: Task,
    kind: str | None,
    before: dict[str, Any] | None,
) -> None:
    """Writes the tokenizer, with the chat template, and generation_config.json.

    `before` is what the run keeps of the folder that it started from; None: it started from none.
    Raises ConfigError.
    """
    _write_tokenizer(folder, tokenizer, task, kind, before is None)
    _write_generation(folder, before, tokenizer, task)


def _write_tokenizer(
    folder: Path, tokenizer: Tokenizer, task: Task, kind: str | None, scratch: bool
) -> None:
    """Writes the tokenizer with a post processor that frames a text as the task's prompts are.

    A prompt of `lm` starts with bos and has no eos, so that it goes on; those of `chat` are framed
    by the template. A language model that came from a folder keeps what its files say. Raises
    ConfigError under `tokenizer.segment`, which the files cannot express.
    """
    frames = None if kind == "lm" else tokenizer.frames
    if tokenizer.segment:
        raise ConfigError(f"tokenizer.segment={tokenizer.segment}: {UNSAID}")
    if task.spec.output == "continuation" and scratch:
        begin = [] if tokenizer.bos_id is None else [(tokenizer.bos_id, 0)]
        frames = Frames((*begin, (A, 0)), (*begin, (A, 0), (B, 0)))
    if task.source_frame is not None:
        begin, end = ([(int(token), 0) for token in part] for part in task.source_frame)
        one = (*begin, (A, 0), *end)
        own = tokenizer.frames
        frames = own if own.single == one else Frames(one, (*one, (B, 0), *end))
    tokenizer.save(folder, frames)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    config.pop("extends", None)  # our own note
    if kind == "text" and (padding := padding_of(tokenizer)):
        config["pad_token"] = padding
    if template := task.state.get("template"):
        config.pop("chat_template", None)
        write_template(folder, template)
    rundir.write_json(path, config)


def write_template(folder: Path, stored: Mapping[str, Any]) -> None:
    """Writes the chat template, and that of conversations with tools where there is one.

    Each has the variables of the run at its head. Raises ConfigError.
    """
    rundir.write_text(folder / "chat_template.jinja", pinned(stored["source"], stored["variables"]))
    if stored.get("tool_use") is not None:
        (folder / FURTHER).mkdir()
        rundir.write_text(
            folder / FURTHER / "tool_use.jinja", pinned(stored["tool_use"], stored["variables"])
        )


def _write_generation(
    folder: Path, before: dict[str, Any] | None, tokenizer: Tokenizer, task: Task
) -> None:
    """Writes generation_config.json for a task that generates.

    Its stop tokens are those of training.
    """
    if not task.can_generate:
        return
    values = {
        **((before or {}).get("generation") or {}),
        **declared_ids(tokenizer),
        **start_ids(task),
    }
    if stops := list(task.stop_ids):
        values["eos_token_id"] = stops if len(stops) > 1 else stops[0]
    rundir.write_json(folder / "generation_config.json", values)
