"""Options of `generate` that cannot work, or that nothing would read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxsft.errors import ConfigError

# An option by itself: what is good, and how that is said. null is off.
EACH = {
    "top_k": (lambda v: v >= 1, "at least 1, or null"),
    "top_p": (lambda v: 0 < v <= 1, "more than 0 and at most 1, or null"),
    "min_p": (lambda v: 0 < v <= 1, "more than 0 and at most 1, or null"),
    "repetition_penalty": (lambda v: 0 < v < math.inf, "more than 0; 1 is off"),
    "num_beams": (lambda v: v >= 1, "at least 1"),
    "length_penalty": (math.isfinite, "a finite number"),
    "stop": (all, "texts that are not empty"),
}


def check(values: Mapping[str, Any]) -> None:
    """The options of a flat config. Raises ConfigError."""
    g = {
        key.partition(".")[2]: value for key, value in values.items() if key.startswith("generate.")
    }
    for key, (good, expected) in EACH.items():
        if g[key] is not None and not good(g[key]):
            raise ConfigError(f"generate.{key}={g[key]}: expected {expected}")
    beams = g["num_beams"] > 1
    for key, unread, why in (
        *(
            (
                key,
                not g["temperature"],
                "has no effect with generate.temperature=0, which is greedy",
            )
            for key in ("top_k", "top_p", "min_p")
        ),
        ("length_penalty", not beams, "is read with generate.num_beams above 1 only"),
        ("temperature", beams, "beams are not sampled; leave out generate.num_beams or this"),
    ):
        if unread and g[key] and g[key] != STANDARD.get(key):
            raise ConfigError(f"generate.{key}={g[key]}: {why}")
    if g["num_beams"] > g["batch_size"]:
        raise ConfigError(
            f"generate.num_beams={g['num_beams']}: beams are rows of a batch; raise"
            f" generate.batch_size={g['batch_size']}"
        )


STANDARD = {"length_penalty": 1.0}
