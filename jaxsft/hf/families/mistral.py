"""Mistral (arXiv:2310.06825): Llama with a sliding window in every layer.

Ministral has it in those layers that the config names.
"""

from __future__ import annotations

from typing import Any

from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, span_head


def read(keys: Keys) -> dict[str, Any]:
    """Reads Mistral and Ministral; only Ministral has `layer_types`."""
    out, kinds = decoders.sizes(keys), keys.get("layer_types")
    if kinds is not None and keys.family == "mistral":
        keys.refuse(
            "layer_types",
            "kinds of layers are those of ministral; every layer of this family is alike",
        )
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        **decoders.windows(keys, out["layers"], keys.get("sliding_window"), kinds),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
    }


_MISTRAL: dict[str, Any] = {
    "table": (decoders.EMBEDDING, *decoders.attention(), *decoders.gated_mlp(), *decoders.NORMS),
    "prefix": "model.",
    "heads": {**decoders.TAGGED, "span": span_head()},
    "skip": decoders.SKIP,
}
FAMILY = Family(
    model_type="mistral",
    architecture="Mistral",
    read=read,
    write=lambda m: {**decoders.write_sizes(m), "sliding_window": m.window},
    **_MISTRAL,
)
MINISTRAL = Family(
    model_type="ministral",
    architecture="Ministral",
    read=read,
    write=lambda m: {
        **decoders.write_sizes(m),
        "sliding_window": None,
        **decoders.write_windows(m),
    },
    **_MISTRAL,
)
