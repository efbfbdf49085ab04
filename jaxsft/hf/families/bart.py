"""BART (arXiv:1910.13461): an encoder-decoder model with learned positions and norms after each
part, and its encoder alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Head, Keys, WeightEntry, both, norm
from jaxsft.hf.families.transforms import ROW

Reader = Callable[[Keys], dict[str, Any]]
OFFSET = 2  # rows of the tables of positions before that of the first


def read(keys: Keys) -> dict[str, Any]:
    keys.only("is_encoder_decoder", True)
    found = _read(keys)
    keys.only("decoder_attention_heads", found["heads"])
    keys.only("decoder_ffn_dim", found["mlp"])
    return {**found, "decoder_layers": keys.need("decoder_layers")}


def read_alone(keys: Keys) -> dict[str, Any]:
    """Reads the config of the encoder alone, whose files may be those of both halves."""
    keys.only("is_encoder_decoder", True, False)
    for name in ("decoder_layers", "decoder_attention_heads", "decoder_ffn_dim"):
        keys.get(name)
    return _read(keys) | {"head_bias": False}


def _read(keys: Keys) -> dict[str, Any]:
    embed, heads = keys.divided("d_model", "encoder_attention_heads")
    return {
        "layers": keys.need("encoder_layers"),
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // heads,
        "mlp": keys.need("encoder_ffn_dim"),
        "context": keys.get("max_position_embeddings"),
        "vocab_rows": keys.need("vocab_size"),
        "causal": False,
        "norm": "layer",
        "norm_position": "post",
        "norm_epsilon": 1e-5,
        "positions": "learned",
        "position_offset": OFFSET,
        "gated": False,
        "activation": keys.named("activation_function", decoders.ACTIVATIONS),
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "embed_norm": True,
        "embed_scale": float(embed) ** 0.5 if keys.get("scale_embedding") else 1.0,
        "tied": keys.get("tie_word_embeddings"),
        "head_bias": True,
    }


def write(m: ModelConfig) -> dict[str, Any]:
    return {
        "is_encoder_decoder": True,
        "d_model": m.embed,
        "encoder_layers": m.layers,
        "decoder_layers": m.decoder_layers,
        "encoder_attention_heads": m.heads,
        "decoder_attention_heads": m.heads,
        "encoder_ffn_dim": m.mlp,
        "decoder_ffn_dim": m.mlp,
        "max_position_embeddings": m.context,
        "activation_function": decoders.HF_ACTIVATIONS[m.activation],
        "scale_embedding": m.embed_scale != 1,
        "tie_word_embeddings": m.tied,
    }


def write_alone(m: ModelConfig) -> dict[str, Any]:
    return {key: value for key, value in write(m).items() if not key.startswith("decoder_")} | {
        "is_encoder_decoder": False
    }


def _stack(root: str, half: str) -> tuple[WeightEntry, ...]:
    """Returns the table of a half; `root` begins its names here, `half` its names in the files."""
    ours, theirs = f"{root}layers/*", f"{half}layers.*"
    return (
        WeightEntry(f"{root}embed/positions/w", f"{half}embed_positions.weight"),
        *norm(f"{root}embed/norm", f"{half}layernorm_embedding"),
        *(e for x in "qkv" for e in both(f"{ours}/attention/{x}", f"{theirs}.self_attn.{x}_proj")),
        *both(f"{ours}/attention/o", f"{theirs}.self_attn.out_proj"),
        *norm(f"{ours}/attention_norm", f"{theirs}.self_attn_layer_norm"),
        *(e for x in "qkv" for e in both(f"{ours}/cross/{x}", f"{theirs}.encoder_attn.{x}_proj")),
        *both(f"{ours}/cross/o", f"{theirs}.encoder_attn.out_proj"),
        *norm(f"{ours}/cross_norm", f"{theirs}.encoder_attn_layer_norm"),
        *both(f"{ours}/mlp/up", f"{theirs}.fc1"),
        *both(f"{ours}/mlp/down", f"{theirs}.fc2"),
        *norm(f"{ours}/mlp_norm", f"{theirs}.final_layer_norm"),
        *norm(f"{root}norm", f"{half}layer_norm"),
    )


EMBEDDING = "embed/tokens/w"


def family(
    model_type: str,
    architecture: str,
    readers: tuple[Reader, Reader] = (read, read_alone),
    skip: tuple[str, ...] = (),
    biased: bool = True,
) -> Family:
    """Builds a family with BART's names of weights.

    Args:
      readers: of both halves, and of the encoder alone.
      skip: names of tensors without a place, as in `Family`.
      biased: the output over the vocabulary has a bias.
    """
    encoder = Family(
        model_type=model_type,
        architecture=architecture,
        read=readers[1],
        write=write_alone,
        table=(WeightEntry(EMBEDDING, "embed_tokens.weight"), *_stack("", "")),
        prefix="",
        around=("model.encoder.", "encoder."),
        heads={},
        bare="Encoder",
        renamed=(("shared.weight", "encoder.embed_tokens.weight"),),
        skip=(
            *skip,
            r"(model\.)?decoder\..*",
            r"final_logits_bias",
            r"lm_head\.weight",
            r"(classification_head|qa_outputs)\..*",
            r"version",
        ),
    )
    bias = (WeightEntry("head/b", "final_logits_bias", ROW),) if biased else ()
    return Family(
        model_type=model_type,
        architecture=architecture,
        read=readers[0],
        write=write,
        table=(
            WeightEntry(EMBEDDING, "shared.weight"),
            *_stack("encoder/", "encoder."),
            *_stack("decoder/", "decoder."),
        ),
        prefix="model.",
        heads={"lm": Head("ForConditionalGeneration", (*bias, *both("head", "lm_head")[:1]))},
        skip=(*skip, r"(encoder|decoder)\.version"),
        copies=(r"(encoder|decoder)\.embed_tokens\.weight",),
        encoder=encoder,
    )


FAMILY = family("bart", "Bart")
