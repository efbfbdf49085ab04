"""What `eval`, `predict` and `generate` share: arguments of their own, and the overrides that go to the run."""

from __future__ import annotations

from collections.abc import Sequence

from jaxsft.errors import ConfigError


def arguments(given: Sequence[str], own: Sequence[str], needed: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(own arguments, overrides) of a command line of `key=value`. Raises ConfigError for a missing one."""
    mine = {k: v for k, s, v in (a.partition("=") for a in given) if s and k in own}
    if missing := [k for k in needed if not mine.get(k)]:
        raise ConfigError(f"missing {missing[0]}=; give {' '.join(f'{k}=...' for k in needed)}")
    return mine, [a for a in given if a.partition("=")[0] not in own]
