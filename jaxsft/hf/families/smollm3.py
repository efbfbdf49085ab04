"""SmolLM3 (Hugging Face, 2025): Llama, but every fourth layer does not rotate.

That is of arXiv:2501.18795.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders, llama
from jaxsft.hf.families.family import Family, Keys


def read(keys: Keys) -> dict[str, Any]:
    out, bias = decoders.sizes(keys), keys.get("attention_bias")
    layers, turns, kinds = out["layers"], keys.get("no_rope_layers"), keys.get("layer_types")
    every, window = keys.get("no_rope_layer_interval"), keys.get("sliding_window")
    if turns is None:
        turns = [(i + 1) % every != 0 for i in range(layers)]
    elif len(turns) < layers:
        keys.refuse("no_rope_layers", f"expected {layers} of them, as num_hidden_layers says")
    turning = [i for i in range(layers) if turns[i]]  # a 1 is of a layer that rotates
    if not keys.get("use_sliding_window"):
        if kinds and "sliding_attention" in kinds:
            keys.refuse("layer_types", "has sliding_attention, but use_sliding_window is false")
        window = None
    elif kinds is None and window is not None:
        kinds = ["full_attention" if i in turning else "sliding_attention" for i in range(layers)]
    return {
        **out,
        **decoders.rope(keys, out["context"], base=("rope_theta", 2e6)),
        **decoders.windows(keys, layers, window, kinds),
        "rope_layers": None if len(turning) == layers else turning,
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": keys.get("mlp_bias"),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    turning = range(m.layers) if m.rope_layers is None else m.rope_layers
    return {
        **llama.write(m),
        **decoders.write_windows(m),
        "use_sliding_window": m.window is not None,
        "no_rope_layers": [int(i in turning) for i in range(m.layers)],
    }


FAMILY = Family(
    model_type="smollm3",
    architecture="SmolLM3",
    read=read,
    write=write,
    table=llama.FAMILY.table,
    prefix="model.",
    heads=decoders.HEADS,
    skip=decoders.SKIP,
)
