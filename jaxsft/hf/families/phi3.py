"""Phi-3, 3.5 and 4 (arXiv:2404.14219): Llama with fused matrices, and longrope.

One matrix is for queries, keys and values, one for gate and up; longrope: arXiv:2402.13753.
"""

from __future__ import annotations

from typing import Any

from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, both
from jaxsft.hf.families.transforms import FUSED


def read(keys: Keys) -> dict[str, Any]:
    out = decoders.sizes(keys)
    turned = decoders.rope(keys, out["context"], part=("partial_rotary_factor", 1.0))
    if (kind := turned["rope_scaling"].kind) not in ("none", "longrope"):
        keys.refuse(
            "rope_parameters" if keys.values.get("rope_parameters") else "rope_scaling",
            f"{kind}: this family has longrope alone",
        )
    return {
        **out,
        **decoders.windows(keys, out["layers"], keys.get("sliding_window"), None),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        **turned,
    }


FAMILY = Family(
    model_type="phi3",
    architecture="Phi3",
    read=read,
    write=lambda m: {
        **decoders.write_sizes(m),
        "sliding_window": m.window,
        "partial_rotary_factor": m.rope_fraction,
    },
    table=(
        decoders.EMBEDDING,
        *both(
            "layers/*/attention/q layers/*/attention/k layers/*/attention/v",
            "layers.*.self_attn.qkv_proj",
            FUSED,
        ),
        *both("layers/*/attention/o", "layers.*.self_attn.o_proj"),
        *both("layers/*/mlp/gate layers/*/mlp/up", "layers.*.mlp.gate_up_proj", FUSED),
        *both("layers/*/mlp/down", "layers.*.mlp.down_proj"),
        *decoders.NORMS,
    ),
    prefix="model.",
    heads=decoders.TAGGED,
    skip=decoders.SKIP,
)
