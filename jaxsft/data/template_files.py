"""Finds the chat templates of a folder, by name.

They stand in tokenizer_config.json, in files of their own, and in a folder of further ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxsft import documents
from jaxsft.errors import ConfigError

TEMPLATES = ("chat_template.jinja", "chat_template.json")
FURTHER = "additional_chat_templates"  # a folder of NAME.jinja


def templates_of(folder: Path, of_config: Any) -> Any:
    """Returns the chat template of a folder, or a list of named ones.

    A template file takes precedence over the config, as in transformers. Raises ConfigError.
    """
    found = of_config
    if (folder / "chat_template.json").exists():
        found = documents.read_json(folder / "chat_template.json", ConfigError, dict).get(
            "chat_template", found
        )
    if (folder / "chat_template.jinja").exists():
        found = _text(folder / "chat_template.jinja")
    further = sorted((folder / FURTHER).glob("*.jinja")) if (folder / FURTHER).is_dir() else []
    if not further:
        return found
    named = named_templates(found) | {file.stem: _text(file) for file in further}
    return [{"name": name, "template": template} for name, template in named.items()]


def named_templates(found: Any) -> dict[str, str]:
    """Returns the chat templates of `chat_template` by name; a single one is `default`.

    Raises ConfigError for a value of another form.
    """
    if found is None:
        return {}
    if isinstance(found, str):
        return {"default": found}
    entries = (
        [{"name": name, "template": text} for name, text in found.items()]
        if isinstance(found, dict)
        else found
    )
    if not isinstance(entries, list) or not all(
        isinstance(one, dict)
        and isinstance(one.get("name"), str)
        and isinstance(one.get("template"), str)
        for one in entries
    ):
        raise ConfigError(
            f"chat_template is a {type(found).__name__}, expected a string or a list of named"
            " templates"
        )
    named = {one["name"]: one["template"] for one in entries}
    if len(named) == 1 and "default" not in named:
        named["default"] = next(iter(named.values()))
    return named


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{file}: cannot be read ({error}); expected a Jinja template in utf-8"
        ) from None
