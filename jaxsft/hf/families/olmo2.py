"""OLMo 2 (arXiv:2501.00656) and OLMo 3 (arXiv:2512.13961): norms behind attention and MLP.

Queries and keys are normed too. In OLMo 3 three layers of four have a window, and a scaling of rope
is of the others alone.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, WeightEntry, norm
from jaxsft.hf.families.transforms import FLAT


def read(keys: Keys) -> dict[str, Any]:
    out = _read(keys)
    return {**out, **decoders.rope(keys, out["context"])}


def read3(keys: Keys) -> dict[str, Any]:
    out, kinds = _read(keys), keys.get("layer_types")
    if kinds is None:
        kinds = [
            "sliding_attention" if (i + 1) % 4 else "full_attention" for i in range(out["layers"])
        ]
    seen = decoders.windows(keys, out["layers"], keys.get("sliding_window"), kinds)
    kind, base = "sliding_attention", ("rope_theta", _BASE)
    full = decoders.rope(keys, out["context"], "full_attention", base=base)
    local = decoders.rope(keys, out["context"], kind, base=base, beside=False)
    if local["rope_scaling"].kind != "none":
        keys.refuse("rope_parameters", "a scaling of the layers with a window is not known here")
    written = (keys.get("rope_parameters") or {}).get(kind) or {}
    if local["rope_base"] != _BASE and "rope_theta" not in written:
        keys.refuse(
            "rope_theta",
            f"the class turns layers with a window by {_BASE} whatever it says; give both bases in"
            " rope_parameters",
        )
    return {
        **out,
        **seen,
        **full,
        "rope_local_base": local["rope_base"] if seen["window"] else None,
    }


_BASE = 5e5


def _read(keys: Keys) -> dict[str, Any]:
    out, bias = decoders.sizes(keys), keys.get("attention_bias")
    return {
        **out,
        "norm_epsilon": keys.get("rms_norm_eps"),
        "norm_position": "output",
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qk_norm": "all",
        "qkv_bias": bias,
        "o_bias": bias,
    }


QUERY_NORMS = (
    WeightEntry("layers/*/attention/q_norm/scale", "layers.*.self_attn.q_norm.weight", FLAT),
    WeightEntry("layers/*/attention/k_norm/scale", "layers.*.self_attn.k_norm.weight", FLAT),
)


def write(m: ModelConfig) -> dict[str, Any]:
    return {**decoders.write_sizes(m), "attention_bias": m.qkv_bias}


def write3(m: ModelConfig) -> dict[str, Any]:
    own = {key: value for key, value in write(m).items() if key not in ("rope_theta",)}
    own |= {"rope_parameters": {"full_attention": {}}, **decoders.write_windows(m)}
    return decoders.with_rope(own, m)


_OPTIONS: dict[str, Any] = {
    "table": (
        decoders.EMBEDDING,
        *decoders.attention(),
        *decoders.gated_mlp(),
        *QUERY_NORMS,
        *norm("layers/*/attention_post_norm", "layers.*.post_attention_layernorm"),
        *norm("layers/*/mlp_post_norm", "layers.*.post_feedforward_layernorm"),
        *norm("norm", "norm"),
    ),
    "prefix": "model.",
    "heads": decoders.GENERIC,
    "skip": decoders.SKIP,
}
FAMILY = Family(model_type="olmo2", architecture="Olmo2", read=read, write=write, **_OPTIONS)
OLMO3 = Family(model_type="olmo3", architecture="Olmo3", read=read3, write=write3, **_OPTIONS)
