"""What keeps the weights of one model from being the start of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsft import patterns
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.sharding.weights import flatten
from jaxsft.training import vocab_rows
from jaxsft.training.components import Components


def check_tokenizer(theirs: Tokenizer, parts: Components, what: str) -> None:
    """Raises ConfigError where a tokenizer differs by more than `tokenizer.added`."""
    if theirs.digest != parts.tokenizer.digest and not vocab_rows.extends(parts.tokenizer, theirs):
        source = what.partition("=")[2]
        raise ConfigError(
            f"{what}: its tokenizer is another one; set tokenizer=pretrained"
            f" tokenizer.path={source}"
        )


def check_labels(theirs: Components, parts: Components, fresh: set[str], what: str) -> None:
    """Raises ConfigError where an output of a head that is taken has another label here.

    Heads with another number of outputs are left to the check of shapes.
    """
    for name in ("labels", "intents", "targets", "upos"):
        before, now = (list(p.task.state.get(name) or []) for p in (theirs, parts))
        if (
            before != now
            and len(before) == len(now)
            and not all(path in fresh for path in flatten(parts.specs) if path.startswith("head/"))
        ):
            first = next(
                i for i, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1]
            )
            instead = (
                f"set task.{name}={before}, or "
                if set(before) == set(now) and hasattr(parts.config.task, name)
                else "set "
            )
            raise ConfigError(
                f"{what}: output {first} of its head is {before[first]!r}, here {now[first]!r};"
                f" {instead}train.init_fresh=['head/.*']"
            )


def fresh_weights(
    given: Sequence[str], here: dict[str, Any], there: dict[str, Any]
) -> dict[str, Any]:
    """Returns which weights, or layers of a stack (`[L]`), match the patterns `given`, by path.

    `here` and `there` are the specs of this model and of the other run. Raises ConfigError where a
    pattern matches no weight.
    """
    out, unused = {}, set(given)
    for name, spec in (there | here).items():
        paths = patterns.paths_of(name, spec)
        hits = {
            pattern: [patterns.full(pattern, path, "train.init_fresh") for path in paths]
            for pattern in given
        }
        unused -= {pattern for pattern, hit in hits.items() if any(hit)}
        out[name] = np.any([*hits.values(), [False] * len(paths)], axis=0)
    if unused:
        raise ConfigError(
            f"train.init_fresh or model.init: {sorted(unused)[0]} matches no weight; there are"
            f" {', '.join(sorted(out)[:5])} ..."
        )
    return out


def without(flat: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Returns the weights but for those of some paths."""
    return {k: v for k, v in flat.items() if k not in names}
