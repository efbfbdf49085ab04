"""EXAONE 4 (arXiv:2507.11407): norms behind each part, and of queries and keys.

Where layers have a window, those without one do not rotate.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders, qwen
from jaxsft.hf.families.family import Family, Keys, norm


def read(keys: Keys) -> dict[str, Any]:
    out, kinds, window = decoders.sizes(keys), keys.get("layer_types"), keys.get("sliding_window")
    keys.get("sliding_window_pattern")  # where there are no kinds
    if kinds is None and window is not None:
        kinds = decoders.pattern(keys, out["layers"])
    seen = decoders.windows(keys, out["layers"], window, kinds)
    turning = seen["window_layers"] if seen["window"] else [] if window else None
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        **seen,
        "rope_layers": turning,
        "norm_epsilon": keys.get("rms_norm_eps"),
        "norm_position": "output",
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qk_norm": "head",
    }


def write(m: ModelConfig) -> dict[str, Any]:
    # a window that no layer has still says that none rotates
    window = m.window or (m.context if m.rope_layers is not None else None)
    return {**decoders.write_sizes(m), **decoders.write_windows(m), "sliding_window": window}


FAMILY = Family(
    model_type="exaone4",
    architecture="Exaone4",
    read=read,
    write=write,
    table=(
        decoders.EMBEDDING,
        *decoders.attention(),
        *decoders.gated_mlp(),
        *qwen.QUERY_NORMS,
        *norm("layers/*/attention_post_norm", "layers.*.post_attention_layernorm"),
        *norm("layers/*/mlp_post_norm", "layers.*.post_feedforward_layernorm"),
        *norm("norm", "norm"),
    ),
    prefix="model.",
    heads=decoders.HEADS,
    skip=decoders.SKIP,
)
