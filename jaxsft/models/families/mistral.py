"""Mistral (arXiv:2310.06825): Llama with a sliding window in every layer."""

from __future__ import annotations

from typing import Any

from jaxsft.models.families import decoders
from jaxsft.models.families.base import Family, Keys, span_head


def read(keys: Keys) -> dict[str, Any]:
    out = decoders.sizes(keys)
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        **decoders.windows(keys, out["layers"], keys.get("sliding_window"), keys.get("layer_types")),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
    }


FAMILY = Family(
    model_type="mistral",
    architecture="Mistral",
    read=read,
    write=lambda m: {**decoders.write_sizes(m), "sliding_window": m.window},
    table=(decoders.EMBEDDING, *decoders.attention(), *decoders.gated_mlp(), *decoders.NORMS),
    prefix="model.",
    heads={**decoders.TAGGED, "span": span_head()},
    skip=decoders.SKIP,
)
