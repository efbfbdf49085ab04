"""Imports libraries of extras where they are used; a missing one is asked for by name."""

from __future__ import annotations

import importlib
from types import ModuleType

from jaxsft.errors import ConfigError


def need(module: str, asked: str, extra: str | None = "text") -> ModuleType:
    """Imports a library of an extra. Raises ConfigError, which names the option `asked` and what
    to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{asked}: install {f'jaxsft[{extra}]' if extra else module.partition('.')[0]}"
        ) from None
