"""How a folder of sentence-transformers makes one vector of a text: its `modules.json`, and the
folders of the modules that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft import documents
from jaxsft.errors import ConfigError

MODULES = "modules.json"
TEXTS = "config_sentence_transformers.json"
POOLS = {  # of theirs: our `task.pool`
    "cls_token": "first",
    "cls": "first",
    "mean_tokens": "mean",
    "mean": "mean",
    "max_tokens": "max",
    "max": "max",
    "lasttoken": "last",
}
_MODE = "pooling_mode"
# behind the states of the model; a vector of length one has the same cosines
_KNOWN = ("Transformer", "Pooling", "Normalize", "Dense")


def is_one(folder: Path) -> bool:
    """Returns whether a folder has the layout of sentence-transformers."""
    return (folder / MODULES).is_file()


def options_of(folder: Path, given: Mapping[str, bool]) -> dict[str, str]:
    """Returns the options of a task by which its vectors are those of the folder.

    Args:
      given: of `pool` and `head`, whether somebody gave the option, which then counts.

    Raises:
      ConfigError: a file is none of theirs, a module has no counterpart here, or the vectors are of
        texts with a prompt.
    """
    if not given["pool"]:
        _check_prompt(folder / TEXTS)
    found: dict[str, str] = {}
    for kind, place in _modules(folder):
        if kind == "Pooling" and not given["pool"]:
            found["pool"] = _pool(place / "config.json")
        elif kind == "Dense" and not given["head"]:
            raise ConfigError(
                f"{place}: a layer behind the pooling, which is not read; task.head=linear or"
                " task.head=dense trains a head of its own"
            )
        elif kind not in _KNOWN and not given["pool"]:
            raise ConfigError(
                f"{folder / MODULES}: the module {kind} has no counterpart here; task.pool=mean, or"
                " another one, makes the vector without it"
            )
    return found


def _check_prompt(file: Path) -> None:
    """Raises ConfigError where a prompt stands before each text that nobody gave another one."""
    values = documents.read_json(file, ConfigError, dict) if file.is_file() else {}
    if (name := values.get("default_prompt_name")) is None:
        return
    prompts = values.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) else None
    if prompt != "":
        raise ConfigError(
            f"{file}: default_prompt_name={name!r} puts {prompt!r:.80} before each text, which is"
            " not done here; write it into the texts, and give task.pool="
        )


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Returns the name of the class and the folder of each module. Raises ConfigError."""
    file, out = folder / MODULES, []
    for one in documents.read_json(file, ConfigError, list):
        kind = one.get("type") if isinstance(one, dict) else None
        path = one.get("path", "") if isinstance(one, dict) else None
        inside = isinstance(path, str) and ".." not in Path(path).parts
        if not isinstance(kind, str) or not inside or Path(path).is_absolute():
            raise ConfigError(
                f"{file}: expected objects with a type and a path in this folder, found {one!r:.80}"
            )
        out.append((kind.rpartition(".")[2], folder / path))
    return out


def _pool(file: Path) -> str:
    """Returns our name of the one way of pooling that a file has. Raises ConfigError."""
    values: dict[str, Any] = documents.read_json(file, ConfigError, dict)
    modes = [
        key.removeprefix(f"{_MODE}_")
        for key, value in values.items()
        if value is True and _MODE in key
    ]
    if isinstance(named := values.get(_MODE), str):
        modes.append(named)
    if len(modes) != 1 or modes[0] not in POOLS:
        raise ConfigError(
            f"{file}: pools by {' and '.join(modes) or 'nothing'}, which is not one of"
            f" {', '.join(POOLS)}; task.pool= says how a text becomes a vector here"
        )
    return POOLS[modes[0]]
