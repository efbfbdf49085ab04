"""The chat template that `task.template` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxsft.data.chat import named_templates
from jaxsft.data.chat.templates import Template
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError


def template_of(name: str, tokenizer: Tokenizer, **options: Any) -> Template:
    """Returns the chat template of a name.

    `auto` is the tokenizer's own template where it has one, else ours. Other names are looked up
    among ours, then among the tokenizer's, then as files.

    Raises:
      ConfigError: there is none of this name, or the tokenizer lacks its tokens.
    """
    if name == "default" or (name == "auto" and not tokenizer.chat_templates):
        return Template.default(tokenizer, **options)
    if name == "auto":
        return Template.of(tokenizer, **options)
    if name in named_templates.NAMED:
        if missing := named_templates.lacking(name, tokenizer.added):
            raise ConfigError(
                f"task.template={name}: the tokenizer has no special token {missing[0]!r}; set"
                f" tokenizer.added={json.dumps(missing)}"
            )
        return Template(named_templates.source(name), tokenizer, name, **options)
    if name in tokenizer.chat_templates:
        return Template(tokenizer.chat_templates[name], tokenizer, name, **options)
    try:
        source = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        own = [own for own in tokenizer.chat_templates if own != "default"]
        known = ", ".join(("auto", "default", *named_templates.NAMED, *own))
        raise ConfigError(
            f"task.template={name}: expected {known}, or a readable file with a Jinja template"
            f" ({error})"
        ) from error
    return Template(source, tokenizer, name, **options)
