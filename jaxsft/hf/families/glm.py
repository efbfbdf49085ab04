"""GLM-4 (arXiv:2406.12793) and GLM-4-0414: half of each head rotates, by neighbouring dimensions.

The second of them has norms before and behind each part.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, both, norm
from jaxsft.hf.families.transforms import FUSED


def read(keys: Keys) -> dict[str, Any]:
    if keys.values.get("partial_rotary_factor", 0.5) is None:
        raise ConfigError(
            f"{keys.place}: partial_rotary_factor=None: expected a number; without the key it is"
            " 0.5, and what null is differs between classes"
        )
    out = decoders.sizes(keys)
    return {
        **out,
        **decoders.rope(keys, out["context"], part=("partial_rotary_factor", 0.5)),
        "rope_pairs": "neighbours",
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qkv_bias": keys.get("attention_bias"),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    own = {"attention_bias": m.qkv_bias, "partial_rotary_factor": m.rope_fraction}
    return {**decoders.write_sizes(m), **own}


_TABLE = (
    decoders.EMBEDDING,
    *decoders.attention(),
    *both("layers/*/mlp/gate layers/*/mlp/up", "layers.*.mlp.gate_up_proj", FUSED),
    *both("layers/*/mlp/down", "layers.*.mlp.down_proj"),
    *decoders.NORMS,
)
_OPTIONS: dict[str, Any] = {"prefix": "model.", "heads": decoders.TAGGED, "skip": decoders.SKIP}

GLM = Family(model_type="glm", architecture="Glm", read=read, write=write, table=_TABLE, **_OPTIONS)
GLM4 = Family(
    model_type="glm4",
    architecture="Glm4",
    read=lambda keys: {**read(keys), "norm_position": "sandwich"},
    write=write,
    table=(
        *_TABLE,
        *norm("layers/*/attention_post_norm", "layers.*.post_self_attn_layernorm"),
        *norm("layers/*/mlp_post_norm", "layers.*.post_mlp_layernorm"),
    ),
    **_OPTIONS,
)
