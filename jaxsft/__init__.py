"""jaxsft: supervised fine-tuning of Transformers in JAX.

    import jaxsft
    result = jaxsft.train("task=chat", "data.train=train.jsonl", seed=1)
    print(jaxsft.load(result).generate("translate: red cat"))

`compose`, `batches`, `check`, `quality`, `train`, `load`, `export`, `Model` and `Result` are those
of jaxsft/api.py; JAX is imported when one is asked for. `from_pandas` and `to_pandas` are those of
jaxsft/data/frames.py.
"""

import importlib
import sys
import types
from typing import Any

from jaxsft.errors import CheckpointError, ConfigError, DataError, JaxsftError

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "JaxsftError",
    "Model",
    "Result",
    "batches",
    "check",
    "compose",
    "export",
    "from_pandas",
    "load",
    "quality",
    "to_pandas",
    "train",
]
_LAZY = {
    **dict.fromkeys(
        ("Model", "Result", "batches", "check", "compose", "export", "load", "quality", "train"),
        "jaxsft.api",
    ),
    **dict.fromkeys(("from_pandas", "to_pandas"), "jaxsft.data.frames"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jaxsft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


class _Package(types.ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # importing the package jaxsft/check would put it in the place of the function `check`
        if not (name in _LAZY and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
