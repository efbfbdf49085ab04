"""Chat templates by name (`task.template`), for models that have none.

Each brings the special tokens that it writes.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

# of the template `default`
OURS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")
_CHATML = ("<|im_start|>", "<|im_end|>")
NAMED: dict[str, tuple[str, ...]] = {
    "chatml": _CHATML,
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "mistral": ("[INST]", "[/INST]"),
    "phi3": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "qwen3": (*_CHATML, "<think>", "</think>", "<tool_call>", "</tool_call>"),
}


def source(name: str) -> str:
    """Returns the Jinja text of one of NAMED."""
    return (Path(__file__).parent / f"{name}.jinja").read_text(encoding="utf-8")


def lacking(template: str, known: Collection[str]) -> list[str]:
    """Returns the tokens of a named template, or of `default`, that are not in `known`.

    Empty for any other template.
    """
    needed = OURS if template == "default" else NAMED.get(template, ())
    return [token for token in needed if token not in known]
