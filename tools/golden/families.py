"""Writes the golden files of tests/hf/families: what transformers computes with small random
models of each family.

  python -m tools.golden.families [name ...]      needs jaxsft[torch]; rewrites the files of these
    cases, or of all

A case is NAME.json (config.json, the tensors with their shapes, the seed) and NAME.npz (token ids
and what comes out). The weights are drawn from the seed by `weights` here, with numpy, so that the
files stay small: tests draw them again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[2] / "tests" / "hf" / "families" / "golden"
LENGTHS = (11, 7)  # of the two texts of a case

DECODER: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
ENCODER: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 40,
}  # fmt: skip
NEOX = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"} | {
    "hidden_size": 32
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
}
LONG = {"long_factor": [1.5, 2.5, 4.0], "short_factor": [1.0, 1.1, 1.2]}

IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

QWEN_MOE = {"head_dim": 8, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
MODERN = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
T5 = {"vocab_size": 61, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 2, "num_heads": 4,
      "relative_attention_num_buckets": 8,
      "relative_attention_max_distance": 12}  # fmt: skip
BART = {
    "vocab_size": 61,
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "max_position_embeddings": 40,
}

# name: (class, options of its config, options of the case: lengths, head)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", DECODER, {}),
    "llama_tied_biases": ("LlamaForCausalLM", {**DECODER, "tie_word_embeddings": True,
    "attention_bias": True, "mlp_bias": True}, {}),
    "llama_7_to_1": ("LlamaForCausalLM", {**DECODER, "hidden_size": 28, "num_attention_heads": 7,
    "num_key_value_heads": 1, "head_dim": 10}, {}),
    "llama_llama3": ("LlamaForCausalLM", {**DECODER, "rope_parameters": LLAMA3}, {"lengths": (48,
    9)}),
    "llama_linear": ("LlamaForCausalLM", {**DECODER, "rope_parameters": LINEAR}, {"lengths": (40,
    9)}),
    "llama_yarn": ("LlamaForCausalLM", {**DECODER, "rope_parameters": YARN}, {"lengths": (48, 9)}),
    "mistral": ("MistralForCausalLM", {**DECODER, "sliding_window": 5}, {"lengths": (19, 8)}),
    "mistral_full": ("MistralForCausalLM", {**DECODER, "sliding_window": None,
    "hidden_act": "gelu"}, {}),
    "qwen2": ("Qwen2ForCausalLM", {**DECODER, "tie_word_embeddings": True}, {}),
    "qwen2_window": ("Qwen2ForCausalLM", {**DECODER, "use_sliding_window": True,
    "sliding_window": 4, "max_window_layers": 1}, {"lengths": (15, 9)}),
    "qwen3": ("Qwen3ForCausalLM", {**DECODER, "head_dim": 8}, {}),
    "qwen3_biases": ("Qwen3ForCausalLM", {**DECODER, "head_dim": 6, "attention_bias": True,
    "tie_word_embeddings": True}, {}),
    "phi3": ("Phi3ForCausalLM", {**DECODER, "pad_token_id": 0}, {}),
    "phi3_partial": ("Phi3ForCausalLM",
    {**DECODER, "pad_token_id": 0, "num_attention_heads": 2, "num_key_value_heads": 1,
                                         "rope_parameters": {"rope_type": "default",
                                         "rope_theta": 1e4, "partial_rotary_factor": 0.5}}, {}),
    "phi3_short": ("Phi3ForCausalLM",
    {**DECODER, "pad_token_id": 0, "original_max_position_embeddings": 20,
                                       "rope_parameters": {"rope_type": "longrope",
                                       "rope_theta": 1e4, **LONG}}, {}),
    "phi3_long": ("Phi3ForCausalLM",
    {**DECODER, "pad_token_id": 0, "original_max_position_embeddings": 20,
                                      "rope_parameters": {"rope_type": "longrope",
                                      "rope_theta": 1e4, **LONG}}, {"lengths": (44, 31),
                                      "context": 64}),
    "olmo2": ("Olmo2ForCausalLM", DECODER, {}),
    "gemma2": ("Gemma2ForCausalLM",
    {**DECODER, "head_dim": 8, "query_pre_attn_scalar": 12, "sliding_window": 5,
    "attn_logit_softcapping": 5.0,
                                     "final_logit_softcapping": 3.0}, {"lengths": (17, 9)}),
    "gemma3": ("Gemma3ForCausalLM",
    {**DECODER, "num_hidden_layers": 7, "head_dim": 8, "query_pre_attn_scalar": 12,
    "sliding_window": 5,
                                     "rope_parameters": {"full_attention": {"rope_type": "linear",
                                     "rope_theta": 1e5, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}}, {"lengths": (17, 9)}),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 61, "n_embd": 24, "n_layer": 3, "n_head": 4,
    "n_positions": 40}, {}),
    "gpt2_untied": ("GPT2LMHeadModel",
    {"vocab_size": 61, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 40, "n_inner": 30,
                                        "activation_function": "relu",
                                        "tie_word_embeddings": False}, {}),
    "gpt_neox": ("GPTNeoXForCausalLM", {**NEOX, "num_attention_heads": 2}, {}),
    "gpt_neox_serial": ("GPTNeoXForCausalLM",
    {**NEOX, "use_parallel_residual": False, "attention_bias": False, "hidden_act": "gelu_new",
                                               "rope_parameters": {"rope_type": "default",
                                               "rope_theta": 1e4, "partial_rotary_factor": 1.0}},
                                               {}),
    "bert": ("BertModel", {**ENCODER, "type_vocab_size": 2}, {"types": True}),
    "bert_mlm": ("BertForMaskedLM", {**ENCODER, "type_vocab_size": 2, "num_hidden_layers": 1},
    {"types": True}),
    "roberta_mlm": ("RobertaForMaskedLM", {**ENCODER, "type_vocab_size": 1, "pad_token_id": 1,
    "num_hidden_layers": 1}, {}),
    "distilbert_mlm": ("DistilBertForMaskedLM",
                       {"vocab_size": 61, "dim": 24, "hidden_dim": 40, "n_layers": 1, "n_heads": 4,
                       "max_position_embeddings": 40}, {}),
    "bert_relu": ("BertModel", {**ENCODER, "type_vocab_size": 3, "hidden_act": "relu",
    "layer_norm_eps": 1e-3}, {"types": True}),
    "roberta": ("RobertaModel", {**ENCODER, "type_vocab_size": 1, "pad_token_id": 1}, {}),
    "xlm_roberta": ("XLMRobertaModel", {**ENCODER, "type_vocab_size": 1, "pad_token_id": 1}, {}),
    "distilbert": ("DistilBertModel",
                   {"vocab_size": 61, "dim": 24, "hidden_dim": 40, "n_layers": 3, "n_heads": 4,
                   "max_position_embeddings": 40}, {}),
    "mixtral": ("MixtralForCausalLM", {**DECODER, "num_local_experts": 4}, {"disk": True}),
    "mixtral_window": ("MixtralForCausalLM", {**DECODER, "num_local_experts": 3,
    "num_experts_per_tok": 1, "sliding_window": 5}, {"disk": True}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**DECODER, **QWEN_MOE}, {"disk": True}),
    "qwen3_moe_norm": ("Qwen3MoeForCausalLM", {**DECODER, **QWEN_MOE, "norm_topk_prob": True,
    "num_experts_per_tok": 3}, {"disk": True}),
    "electra": ("ElectraModel", {**ENCODER, "embedding_size": 16, "type_vocab_size": 2},
    {"types": True}),
    "electra_base": ("ElectraModel", {**ENCODER, "embedding_size": 24, "type_vocab_size": 2},
    {"types": True}),
    "modernbert": ("ModernBertModel", {**ENCODER, **MODERN, "num_hidden_layers": 5,
    "local_attention": 6}, {"lengths": (19, 8)}),
    "modernbert_biases": ("ModernBertModel", {**ENCODER, **MODERN, "attention_bias": True,
    "mlp_bias": True, "norm_bias": True}, {}),
    "deberta": ("DebertaV2Model", {**ENCODER, **DEBERTA}, {"lengths": (37, 8)}),
    "deberta_types": ("DebertaV2Model",
    {**ENCODER, **DEBERTA, "type_vocab_size": 2, "max_relative_positions": 20},
                      {"types": True, "lengths": (33, 8)}),
    "t5_encoder": ("T5EncoderModel", T5, {"lengths": (29, 8)}),
    "mt5_encoder": ("MT5EncoderModel", {**T5, "feed_forward_proj": "gated-gelu"}, {"lengths": (29,
    8)}),
    "bart_encoder": ("BartEncoder", BART, {}),
    "ministral3": ("Ministral3ForCausalLM", {**DECODER, "head_dim": 8,
    "max_position_embeddings": 128, "sliding_window": 5, "rope_parameters": {**YARN,
    "original_max_position_embeddings": 32, "llama_4_scaling_beta": 0.1}}, {"lengths": (19, 8)}),
    "olmo3": ("Olmo3ForCausalLM", {**DECODER, "num_hidden_layers": 4, "sliding_window": 5,
    "rope_parameters": {"full_attention": YARN,
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}}, {"lengths": (19, 8)}),
    "smollm3": ("SmolLM3ForCausalLM", {**DECODER, **IDS, "no_rope_layers": [1, 0, 1]}, {}),
    "granite": ("GraniteForCausalLM", {**DECODER, "embedding_multiplier": 12.0,
    "attention_multiplier": 0.3, "residual_multiplier": 0.22, "logits_scaling": 8.0}, {}),
    "glm": ("GlmForCausalLM", {**DECODER, **IDS, "head_dim": 8}, {}),
    "glm4": ("Glm4ForCausalLM", {**DECODER, **IDS, "head_dim": 8}, {}),
    "cohere": ("CohereForCausalLM", {**DECODER, **IDS}, {}),
    "cohere2": ("Cohere2ForCausalLM", {**DECODER, **IDS, "sliding_window": 5, "layer_types":
    ["sliding_attention", "full_attention", "sliding_attention"]}, {"lengths": (19, 8)}),
    "exaone4": ("Exaone4ForCausalLM", {**DECODER, "sliding_window": 5, "layer_types":
    ["sliding_attention", "full_attention", "sliding_attention"]}, {"lengths": (19, 8)}),
    "hunyuan": ("HunYuanDenseV1ForCausalLM", {**DECODER, "head_dim": 8, "rope_parameters":
    {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 1000.0, "factor": 1.0}}, {}),
    "starcoder2": ("Starcoder2ForCausalLM", {**DECODER, "sliding_window": 5}, {"lengths": (19, 8)}),
    "phi": ("PhiForCausalLM", {**DECODER, "hidden_size": 32, "qk_layernorm": True}, {}),
    "qwen2_moe": ("Qwen2MoeForCausalLM", {**DECODER, "num_experts": 5, "num_experts_per_tok": 2,
    "moe_intermediate_size": 20, "shared_expert_intermediate_size": 10}, {"disk": True}),
    "eurobert": ("EuroBertModel", {**DECODER, **IDS, "mask_token_id": 4}, {}),
    "nomic_bert": ("NomicBertModel", {**ENCODER, "type_vocab_size": 2}, {"types": True, "disk":
    True}),
    "mpnet": ("MPNetModel", {**ENCODER, "max_position_embeddings": 80}, {"lengths": (70, 8)}),
}  # fmt: skip


def weights(shapes: dict[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """float32 tensors by name, drawn in order of their names: normal, wide enough that every path
    of the model shows in what comes out.
    """
    rng = np.random.default_rng(seed)
    return {
        name: (0.3 * rng.standard_normal(shapes[name])).astype(np.float32)
        for name in sorted(shapes)
    }


def drawn(model: Any, seed: int) -> tuple[Any, dict[str, list[int]]]:
    """The model with weights from the seed, and their shapes."""
    import torch

    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    shapes = {
        key: list(value.shape) for key, value in model.state_dict().items() if key not in tied
    }
    drawn = weights(shapes, seed)
    missing = model.load_state_dict(
        {key: torch.from_numpy(value) for key, value in drawn.items()}, strict=False
    )
    assert set(missing.missing_keys) <= tied and not missing.unexpected_keys, missing
    model.tie_weights()
    return model, shapes


def drawn_on_disk(model: Any, seed: int) -> tuple[Any, dict[str, list[int]]]:
    """As `_drawn`, where the names in files are not those in memory (experts)."""
    import safetensors.numpy

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = Path(folder) / "model.safetensors"
        shapes = {
            key: list(value.shape) for key, value in safetensors.numpy.load_file(file).items()
        }
        safetensors.numpy.save_file(weights(shapes, seed), file, metadata={"format": "pt"})
        return type(model).from_pretrained(folder, attn_implementation="eager").eval(), shapes


def make(name: str, folder: Path = FOLDER) -> None:
    import torch
    import transformers

    kind, options, case = CASES[name]
    # which has no name for it
    library = transformers.models.bart.modeling_bart if kind == "BartEncoder" else transformers
    config_class = getattr(library, kind).config_class
    if kind.startswith("Gemma3"):
        config_class = transformers.Gemma3TextConfig
    model = getattr(library, kind)(config_class(**options, attn_implementation="eager")).eval()
    seed = sum(name.encode())
    model, shapes = drawn_on_disk(model, seed) if case.get("disk") else drawn(model, seed)
    lengths, rng = case.get("lengths", LENGTHS), np.random.default_rng(seed + 1)
    ids = rng.integers(2, options["vocab_size"], (2, max(lengths)))
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.where(mask, ids, 1)  # RoBERTa numbers the tokens that are no padding
    arrays = {"ids": ids.astype(np.int16), "lengths": np.array(lengths, np.int16)}
    given = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
    }
    if case.get("types"):
        types = (rng.integers(0, options["type_vocab_size"], ids.shape) * mask).astype(np.int64)
        arrays["types"], given["token_type_ids"] = types.astype(np.int8), torch.from_numpy(types)
    with torch.no_grad():
        out = model(**given)
    value = out.logits if hasattr(out, "logits") else out.last_hidden_state
    for i, length in enumerate(lengths):  # of long texts every fourth position, and the last
        where = np.unique(np.r_[0 : length : (1 if length < 24 else 4), length - 1])
        arrays[f"where{i}"], arrays[f"out{i}"] = (
            where.astype(np.int16),
            value[i, torch.from_numpy(where)].numpy(),
        )
    # a config.json says by its class that there is no decoder
    config = config_of(model) | ({"architectures": [kind]} if "Encoder" in kind else {})
    save(
        folder / name,
        {
            "class": kind,
            "seed": seed,
            "context": case.get("context"),
            "config": config,
            "shapes": shapes,
        },
        arrays,
    )


def config_of(model: Any) -> dict[str, Any]:
    """Its config.json, but for how attention is computed."""
    return {
        key: value
        for key, value in model.config.to_diff_dict().items()
        if not key.startswith("_attn")
    }


def save(path: Path, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """A case: PATH.json and PATH.npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.json").write_text(
        json.dumps(about, indent=None, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    np.savez_compressed(path.with_name(f"{path.name}.npz"), **arrays)


if __name__ == "__main__":
    for case_name in sys.argv[1:] or CASES:
        make(case_name)
        print(case_name)
