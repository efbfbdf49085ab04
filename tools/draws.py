"""Random shapes and options of each family, as keyword arguments of its config class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

VOCABULARY = 61
Options = dict[str, Any]
Rng = np.random.Generator


@dataclasses.dataclass(frozen=True)
class Draw:
    """A class of transformers and what its config is drawn from.

    Attributes:
      cls: name of the class.
      options: draws the keyword arguments of its config class.
      head: that the class has (`lm`, `mlm`); None: states are compared.
      pairs: it is an encoder-decoder.
      config: gives the config class, where it is not the one that the class names.
    """

    cls: str
    options: Callable[[Rng], Options]
    head: str | None = "lm"
    pairs: bool = False
    config: Callable[[Any], Any] | None = None

    @property
    def bare(self) -> bool:
        """Returns whether names in the class are those of the body alone."""
        return self.head is None and not self.pairs

    def width(self, config: Any) -> int:
        """Returns the size of one output."""
        return config.hidden_size if self.head is None and not self.pairs else VOCABULARY


def flip(rng: Rng) -> bool:
    return bool(rng.integers(2))


def ropes(rng: Rng, kinds: tuple[str, ...] = ("default", "linear", "llama3", "yarn")) -> Options:
    kind = str(rng.choice(kinds))
    out = {"rope_type": kind, "rope_theta": float(rng.choice([100.0, 1e4, 5e5]))}
    if kind != "default":
        out["factor"] = float(rng.choice([2.0, 4.0]))
    if kind in ("llama3", "yarn"):
        out["original_max_position_embeddings"] = 16
    if kind == "llama3":
        out |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if kind == "yarn":
        out |= {"beta_fast": 8.0, "beta_slow": 1.0}
    return {"rope_parameters": out}


def decoder(rng: Rng, **options: Any) -> Options:
    """Llama's options, with heads of any size."""
    kv = int(rng.choice([1, 2, 3]))
    heads = kv * int(rng.choice([1, 2, 7]))
    sizes = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "hidden_size": heads * int(rng.integers(3, 9)),
        "intermediate_size": int(rng.integers(9, 50)),
        "num_hidden_layers": int(rng.integers(1, 5)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": 2 * int(rng.integers(2, 7)),
        "tie_word_embeddings": flip(rng),
        "rms_norm_eps": float(rng.choice([1e-5, 1e-3])),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return {**sizes, **options}


def plain(rng: Rng, step: int = 2, **options: Any) -> Options:
    """As `decoder`, where heads are as wide as the states make them, a multiple of `step`."""
    given = decoder(rng, **options)
    given.pop("head_dim")
    return given | {"hidden_size": given["num_attention_heads"] * step * int(rng.integers(2, 7))}


def kinds(rng: Rng, layers: int) -> list[str]:
    """Returns kinds of layers, one of each kind at least where there are two."""
    out = [str(rng.choice(["full_attention", "sliding_attention"])) for _ in range(layers)]
    return [*out[:-2], "sliding_attention", "full_attention"] if layers > 1 else out


def seen(rng: Rng, given: Options) -> Options:
    """Adds a window to some of the layers."""
    window = {"sliding_window": int(rng.integers(1, 12))}
    return {**given, **window, "layer_types": kinds(rng, given["num_hidden_layers"])}


def smollm3(rng: Rng) -> Options:
    given = plain(rng, attention_bias=flip(rng), mlp_bias=flip(rng), **ropes(rng))
    layers = given["num_hidden_layers"]
    if flip(rng):
        given["no_rope_layers"] = [int(i) for i in rng.integers(0, 2, layers)]
    else:
        given["no_rope_layer_interval"] = 2
    if flip(rng):
        given |= {"use_sliding_window": True, "sliding_window": int(rng.integers(2, 12))}
    return given


def olmo3(rng: Rng) -> Options:
    given = plain(rng, attention_bias=flip(rng))
    given = seen(rng, given) if flip(rng) else {**given, "sliding_window": 5}
    local = {"rope_type": "default", "rope_theta": 100.0}
    full = ropes(rng)["rope_parameters"]
    return {**given, "rope_parameters": {"full_attention": full, "sliding_attention": local}}


def granite(rng: Rng) -> Options:
    multipliers = {
        "embedding_multiplier": float(rng.choice([12.0, 0.5])),
        "attention_multiplier": float(rng.choice([0.015625, 0.3])),
        "residual_multiplier": float(rng.choice([0.22, 1.5])),
        "logits_scaling": float(rng.choice([8.0, 0.3])),
    }
    bias = {"attention_bias": flip(rng), "mlp_bias": flip(rng)}
    return plain(rng, **multipliers, **bias, **ropes(rng))


def ministral3(rng: Rng) -> Options:
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 8.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
    window = {"sliding_window": None if flip(rng) else int(rng.integers(1, 12))}
    return decoder(rng, max_position_embeddings=128, rope_parameters=rope, **window)


def glm(rng: Rng) -> Options:
    part = {"partial_rotary_factor": float(rng.choice([0.5, 1.0]))}
    rope = ropes(rng, ("default", "linear"))["rope_parameters"] | part
    given = decoder(rng, attention_bias=flip(rng), rope_parameters=rope)
    return {**given, "head_dim": 4 * int(rng.integers(1, 4))}


def qwen2_moe(rng: Rng) -> Options:
    experts = {
        "num_experts": 5,
        "num_experts_per_tok": int(rng.integers(1, 4)),
        "moe_intermediate_size": 4 * int(rng.integers(1, 6)),  # as its kernel needs it
        "shared_expert_intermediate_size": int(rng.integers(3, 20)),
        "norm_topk_prob": flip(rng),
        "qkv_bias": flip(rng),
    }
    window = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 3}
    return plain(rng, 4, **experts, **(window if flip(rng) else {}), **ropes(rng))


def starcoder2(rng: Rng) -> Options:
    window = None if flip(rng) else int(rng.integers(1, 12))
    given = plain(rng, sliding_window=window, use_bias=flip(rng), **ropes(rng))
    act = {"hidden_act": str(rng.choice(["gelu_pytorch_tanh", "gelu", "relu"]))}
    return {**given, "norm_epsilon": given.pop("rms_norm_eps"), **act}


def phi(rng: Rng) -> Options:
    part = {"partial_rotary_factor": float(rng.choice([0.5, 1.0]))}
    rope = ropes(rng, ("default", "linear"))["rope_parameters"] | part
    given = plain(rng, 4, rope_parameters=rope, qk_layernorm=flip(rng))
    return {**given, "layer_norm_eps": given.pop("rms_norm_eps"), "tie_word_embeddings": False}


def cohere(rng: Rng) -> Options:
    given = plain(rng, attention_bias=flip(rng), **ropes(rng, ("default", "linear", "yarn")))
    scale = {"logit_scale": float(rng.choice([0.0625, 2.0]))}
    return {**given, "layer_norm_eps": given.pop("rms_norm_eps"), **scale}


def cohere2(rng: Rng) -> Options:
    given = cohere(rng)
    return seen(rng, given) if flip(rng) else {**given, "sliding_window": 4}


def exaone4(rng: Rng) -> Options:
    given = plain(rng, **ropes(rng, ("default", "llama3")))
    if flip(rng):
        return seen(rng, given)
    full = {"sliding_window": None, "layer_types": ["full_attention"] * given["num_hidden_layers"]}
    return {**given, **full}


def hunyuan(rng: Rng) -> Options:
    rope = ropes(rng, ("default", "linear", "yarn"))["rope_parameters"]
    if flip(rng):
        rope = {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 1000.0, "factor": 1.0}
    return decoder(rng, attention_bias=flip(rng), rope_parameters=rope)


def encoder(rng: Rng, **options: Any) -> Options:
    """BERT's options."""
    heads = int(rng.integers(1, 5))
    sizes = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "num_attention_heads": heads,
        "hidden_size": heads * int(rng.integers(3, 9)),
        "intermediate_size": int(rng.integers(9, 50)),
        "num_hidden_layers": int(rng.integers(1, 5)),
        "hidden_act": str(rng.choice(["gelu", "relu", "gelu_new"])),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-5])),
    }
    return {**sizes, **options}


def eurobert(rng: Rng) -> Options:
    bias = {"attention_bias": flip(rng), "mlp_bias": flip(rng)}
    return plain(rng, mask_token_id=4, **bias, **ropes(rng))


def nomic_bert(rng: Rng) -> Options:
    given = encoder(rng, type_vocab_size=int(rng.integers(1, 4)), **ropes(rng, ("default",)))
    return {**given, "hidden_size": given["num_attention_heads"] * 2 * int(rng.integers(2, 7))}


def bart(rng: Rng, **options: Any) -> Options:
    """BART's options."""
    heads, units = int(rng.integers(1, 4)), int(rng.integers(9, 40))
    sizes = {
        "vocab_size": VOCABULARY,
        "d_model": heads * 2 * int(rng.integers(2, 6)),
        "encoder_layers": int(rng.integers(1, 4)),
        "decoder_layers": int(rng.integers(1, 4)),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": units,
        "decoder_ffn_dim": units,
        "max_position_embeddings": 40,
        "scale_embedding": flip(rng),
        "activation_function": str(rng.choice(["gelu", "relu", "gelu_new"])),
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    }
    return {**sizes, **options}


def umt5(rng: Rng) -> Options:
    return {
        "vocab_size": VOCABULARY,
        "d_model": int(rng.integers(8, 30)),
        "d_kv": int(rng.integers(3, 9)),
        "d_ff": int(rng.integers(9, 40)),
        "num_heads": int(rng.integers(1, 5)),
        "num_layers": int(rng.integers(1, 4)),
        "num_decoder_layers": int(rng.integers(1, 4)),
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 16,
        "feed_forward_proj": str(rng.choice(["gated-gelu", "relu", "gated-silu"])),
        "tie_word_embeddings": flip(rng),
    }


def neox(rng: Rng) -> Options:
    drop = ("num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_size", "num_attention_heads")
    given = {key: value for key, value in decoder(rng).items() if key not in drop}
    part = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": float(rng.choice([0.25, 0.5, 1.0])),
    }
    options = {
        "use_parallel_residual": flip(rng),
        "attention_bias": flip(rng),
        "rope_parameters": part,
    }
    return {
        **given,
        **options,
        "hidden_size": 32,
        "num_attention_heads": int(rng.choice([1, 2, 4])),
    }


def gpt2(rng: Rng) -> Options:
    heads = int(rng.integers(1, 5))
    sizes = {
        "n_embd": heads * int(rng.integers(3, 9)),
        "n_head": heads,
        "n_layer": int(rng.integers(1, 5)),
        "n_positions": 64,
    }
    inner = {
        "n_inner": None if rng.integers(2) else int(rng.integers(9, 50)),
        "tie_word_embeddings": flip(rng),
    }
    return {
        "vocab_size": VOCABULARY,
        **sizes,
        **inner,
        "activation_function": str(rng.choice(["gelu_new", "relu", "gelu"])),
    }


def llama(rng: Rng) -> Options:
    return decoder(rng, attention_bias=flip(rng), mlp_bias=flip(rng), **ropes(rng))


def window(rng: Rng) -> int | None:
    return None if rng.integers(3) == 0 else int(rng.integers(1, 12))


def qwen2(rng: Rng) -> Options:
    windowed = {"sliding_window": 4, "max_window_layers": int(rng.integers(0, 3))}
    return plain(rng, use_sliding_window=flip(rng), **windowed, **ropes(rng))


def phi3(rng: Rng) -> Options:
    part = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": float(rng.choice([0.5, 1.0])),
    }
    given = decoder(rng, sliding_window=window(rng), rope_parameters=part, pad_token_id=0)
    given.pop("head_dim")
    return given | {"hidden_size": given["num_attention_heads"] * 4 * int(rng.integers(1, 5))}


def gemma(rng: Rng, **options: Any) -> Options:
    caps = {
        "attn_logit_softcapping": float(rng.choice([2.0, 50.0])),
        "final_logit_softcapping": float(rng.choice([3.0, 30.0])),
    }
    return decoder(
        rng,
        query_pre_attn_scalar=int(rng.integers(4, 20)),
        sliding_window=int(rng.integers(1, 12)),
        **caps,
        **options,
    )


def gemma3(rng: Rng) -> Options:
    local = {"rope_type": "default", "rope_theta": 100.0}
    return gemma(
        rng,
        rope_parameters={
            "full_attention": ropes(rng)["rope_parameters"],
            "sliding_attention": local,
        },
    ) | {
        "num_hidden_layers": int(rng.integers(1, 9)),
        "attn_logit_softcapping": None,
    }


DRAWS = {
    "llama": Draw("LlamaForCausalLM", llama),
    "mistral": Draw(
        "MistralForCausalLM", lambda rng: decoder(rng, sliding_window=window(rng), **ropes(rng))
    ),
    "qwen2": Draw("Qwen2ForCausalLM", qwen2),
    "qwen3": Draw(
        "Qwen3ForCausalLM", lambda rng: decoder(rng, attention_bias=flip(rng), **ropes(rng))
    ),
    "phi3": Draw("Phi3ForCausalLM", phi3),
    "olmo2": Draw(
        "Olmo2ForCausalLM", lambda rng: plain(rng, attention_bias=flip(rng), **ropes(rng))
    ),
    "gemma2": Draw("Gemma2ForCausalLM", gemma),
    "gemma3_text": Draw("Gemma3ForCausalLM", gemma3, config=lambda lib: lib.Gemma3TextConfig),
    "gpt2": Draw("GPT2LMHeadModel", gpt2),
    "gpt_neox": Draw("GPTNeoXForCausalLM", neox),
    "bert": Draw(
        "BertModel", lambda rng: encoder(rng, type_vocab_size=int(rng.integers(1, 4))), None
    ),
    "roberta": Draw(
        "RobertaModel",
        lambda rng: encoder(rng, type_vocab_size=1, pad_token_id=int(rng.integers(0, 3))),
        None,
    ),
    "ministral3": Draw("Ministral3ForCausalLM", ministral3),
    "olmo3": Draw("Olmo3ForCausalLM", olmo3),
    "smollm3": Draw("SmolLM3ForCausalLM", smollm3),
    "granite": Draw("GraniteForCausalLM", granite),
    "glm": Draw("GlmForCausalLM", glm),
    "glm4": Draw("Glm4ForCausalLM", glm),
    "cohere": Draw("CohereForCausalLM", cohere),
    "cohere2": Draw("Cohere2ForCausalLM", cohere2),
    "exaone4": Draw("Exaone4ForCausalLM", exaone4),
    "hunyuan_v1_dense": Draw("HunYuanDenseV1ForCausalLM", hunyuan),
    "starcoder2": Draw("Starcoder2ForCausalLM", starcoder2),
    "phi": Draw("PhiForCausalLM", phi),
    "qwen2_moe": Draw("Qwen2MoeForCausalLM", qwen2_moe),
    "eurobert": Draw("EuroBertModel", eurobert, None),
    "nomic_bert": Draw("NomicBertModel", nomic_bert, None),
    "mpnet": Draw("MPNetModel", encoder, None),
    "mbart": Draw("MBartForConditionalGeneration", bart, pairs=True),
    "m2m_100": Draw("M2M100ForConditionalGeneration", bart, pairs=True),
    "pegasus": Draw("PegasusForConditionalGeneration", bart, pairs=True),
    "umt5": Draw("UMT5ForConditionalGeneration", umt5, pairs=True),
}
