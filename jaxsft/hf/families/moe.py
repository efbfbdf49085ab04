"""Sparse experts: Mixtral, OLMoE and the mixtures of Qwen 2 and 3; no token is dropped.

arXiv:2401.04088, arXiv:2409.02060, arXiv:2505.09388. The weight of the loss that balances their
routers is that of `loss.balance`, not the one of the file: it is of pretraining, and whoever tunes
chooses it.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders, olmo2, qwen
from jaxsft.hf.families.family import Family, Keys, WeightEntry, span_head
from jaxsft.hf.families.transforms import LINEAR


def _experts(keys: Keys, norm: bool) -> dict[str, Any]:
    """Returns the number of experts and of those per token.

    Raises ConfigError where a token would take more than there are.
    """
    count, taken = keys.get("num_local_experts"), keys.get("num_experts_per_tok")
    if taken > count:
        keys.refuse("num_experts_per_tok", f"is more than num_local_experts={count}")
    return {"experts": count, "experts_per_token": taken, "expert_norm": norm}


def read_mixtral(keys: Keys) -> dict[str, Any]:
    out = decoders.sizes(keys)
    keys.get("router_jitter_noise")  # of training
    return {
        **out,
        **decoders.rope(keys, out["context"], base=("rope_theta", 1e6)),
        **decoders.windows(keys, out["layers"], keys.get("sliding_window"), None),
        **_experts(keys, True),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
    }


def read_qwen3(keys: Keys) -> dict[str, Any]:
    """Reads the mixtures of Qwen 3.

    A window is of every layer here, whatever `max_window_layers` says, and heads are as wide as
    `hidden_size` makes them: not so in Qwen 3.
    """
    keys.only("decoder_sparse_step", 1)
    if keys.get("mlp_only_layers"):
        keys.refuse(
            "mlp_only_layers", "layers without experts beside layers with them are not known here"
        )
    window = keys.get("sliding_window")
    return {
        **qwen.normed(keys),
        **_experts(keys, keys.get("norm_topk_prob")),
        **decoders.windows(
            keys,
            keys.need("num_hidden_layers"),
            window if keys.get("use_sliding_window") else None,
            None,
        ),
        "mlp": keys.need("moe_intermediate_size"),
    }


def read_qwen2(keys: Keys) -> dict[str, Any]:
    """Reads the mixtures of Qwen 1.5 and 2, with an MLP that every token takes beside them.

    A window is of every other layer below `max_window_layers`: not so in Qwen 2.
    """
    keys.only("decoder_sparse_step", 1)
    if keys.get("mlp_only_layers"):
        keys.refuse(
            "mlp_only_layers", "layers without experts beside layers with them are not known here"
        )
    if (found := keys.values.get("sliding_window")) == 0 and type(found) is int:
        keys.values["sliding_window"] = None  # as its class writes it without use_sliding_window
    out, kinds, window = decoders.sizes(keys), keys.get("layer_types"), keys.get("sliding_window")
    full = keys.get("max_window_layers")
    if not keys.get("use_sliding_window"):
        if kinds and "sliding_attention" in kinds:
            keys.refuse("layer_types", "has sliding_attention, but use_sliding_window is false")
        window, kinds = None, None
    elif kinds is None:
        kinds = [
            "full_attention" if i % 2 or i >= full else "sliding_attention"
            for i in range(out["layers"])
        ]
    count, taken = keys.get("num_experts"), keys.get("num_experts_per_tok")
    if taken > count:
        keys.refuse("num_experts_per_tok", f"is more than num_experts={count}")
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        **decoders.windows(keys, out["layers"], window, kinds),
        "experts": count,
        "experts_per_token": taken,
        "expert_norm": keys.get("norm_topk_prob"),
        "expert_shared": keys.need("shared_expert_intermediate_size"),
        "mlp": keys.need("moe_intermediate_size"),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qkv_bias": keys.get("qkv_bias"),
    }


def write_qwen2(m: ModelConfig) -> dict[str, Any]:
    sizes = {key: value for key, value in write_qwen3(m).items() if key != "attention_bias"}
    window = {**decoders.write_windows(m), "use_sliding_window": True} if m.window else {}
    shared = {"shared_expert_intermediate_size": m.expert_shared, "qkv_bias": m.qkv_bias}
    return {**sizes, **window, **shared}


def read_olmoe(keys: Keys) -> dict[str, Any]:
    out, bias = decoders.sizes(keys), keys.get("attention_bias")
    keys.only("clip_qkv", None)
    count, taken = keys.get("num_experts"), keys.get("num_experts_per_tok")
    if taken > count:
        keys.refuse("num_experts_per_tok", f"is more than num_experts={count}")
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        "experts": count,
        "experts_per_token": taken,
        "expert_norm": keys.get("norm_topk_prob"),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qk_norm": "all",
        "qkv_bias": bias,
        "o_bias": bias,
    }


def write_mixtral(m: ModelConfig) -> dict[str, Any]:
    numbers = {
        "num_local_experts": m.experts,
        "num_experts_per_tok": m.experts_per_token,
        "sliding_window": m.window,
    }
    return {**decoders.write_sizes(m), **numbers}


def write_qwen3(m: ModelConfig) -> dict[str, Any]:
    numbers = {
        "num_experts": m.experts,
        "num_experts_per_tok": m.experts_per_token,
        "norm_topk_prob": m.expert_norm,
    }
    window = {"use_sliding_window": True, "sliding_window": m.window} if m.window else {}
    return {
        **decoders.write_sizes(m),
        **numbers,
        **window,
        "moe_intermediate_size": m.mlp,
        "attention_bias": m.qkv_bias,
    }


def write_olmoe(m: ModelConfig) -> dict[str, Any]:
    numbers = {
        "num_experts": m.experts,
        "num_experts_per_tok": m.experts_per_token,
        "norm_topk_prob": m.expert_norm,
    }
    return {
        **{key: value for key, value in decoders.write_sizes(m).items() if key != "head_dim"},
        **numbers,
        "attention_bias": m.qkv_bias,
    }


def _table(layer: str, gate: str, up: str, down: str) -> tuple[WeightEntry, ...]:
    names = {"gate": gate, "up": up, "down": down}
    return (
        decoders.EMBEDDING,
        *decoders.attention(),
        *decoders.NORMS,
        WeightEntry("layers/*/mlp/router/w", f"layers.*.{layer}.gate.weight", LINEAR),
        *(
            WeightEntry(
                f"layers/*/mlp/{ours}/w", f"layers.*.{layer}.experts.#.{theirs}.weight", LINEAR
            )
            for ours, theirs in names.items()
        ),
    )


_OPTIONS: dict[str, Any] = {"prefix": "model.", "skip": decoders.SKIP}

MIXTRAL = Family(
    model_type="mixtral",
    architecture="Mixtral",
    read=read_mixtral,
    write=write_mixtral,
    table=_table("block_sparse_moe", "w1", "w3", "w2"),
    heads={**decoders.TAGGED, "span": span_head()},
    **_OPTIONS,
)
QWEN3_MOE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3Moe",
    read=read_qwen3,
    write=write_qwen3,
    table=(*_table("mlp", "gate_proj", "up_proj", "down_proj"), *qwen.QUERY_NORMS),
    heads=decoders.HEADS,
    **_OPTIONS,
)
QWEN2_MOE = Family(
    model_type="qwen2_moe",
    architecture="Qwen2Moe",
    read=read_qwen2,
    write=write_qwen2,
    table=(
        *_table("mlp", "gate_proj", "up_proj", "down_proj"),
        *(
            WeightEntry(
                f"layers/*/mlp/shared/{name}/w",
                f"layers.*.mlp.shared_expert.{name}_proj.weight",
                LINEAR,
            )
            for name in ("gate", "up", "down")
        ),
        WeightEntry("layers/*/mlp/share/w", "layers.*.mlp.shared_expert_gate.weight", LINEAR),
    ),
    heads={**decoders.TAGGED, "span": span_head()},
    **_OPTIONS,
)
OLMOE = Family(
    model_type="olmoe",
    architecture="Olmoe",
    read=read_olmoe,
    write=write_olmoe,
    table=(*_table("mlp", "gate_proj", "up_proj", "down_proj"), *olmo2.QUERY_NORMS),
    heads={"lm": decoders.GENERIC["lm"]},
    **_OPTIONS,
)
