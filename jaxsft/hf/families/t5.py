"""T5 1.0 and 1.1 (arXiv:1910.10683), Flan-T5 (arXiv:2210.11416), mT5 (arXiv:2010.11934) and UMT5.

UMT5: arXiv:2304.09151. They are encoder-decoders with relative positions; their encoders alone are
read too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Head, Keys, WeightEntry, tag_head
from jaxsft.hf.families.transforms import LINEAR

ACTIVATIONS = {name: (ours, False) for name, ours in decoders.ACTIVATIONS.items()}
ACTIVATIONS |= {f"gated-{name}": (ours, True) for name, ours in decoders.ACTIVATIONS.items()} | {
    "gated-gelu": ("gelu_tanh", True)
}
WORDS = {
    (ours, gated): f"gated-{name}" if gated else name
    for ours, name in decoders.HF_ACTIVATIONS.items()
    for gated in (False, True)
}
WORDS |= {("gelu_tanh", True): "gated-gelu", ("gelu", True): "gated-gelu_python"}


def _reader(scaled: bool):
    """Returns a reader; `scaled`: a tied output reads states times `d_model ** -0.5`."""

    def read(keys: Keys, halves: tuple[bool, ...] = (True,)) -> dict[str, Any]:
        keys.only("is_encoder_decoder", *halves)
        embed, heads, layers = keys.need("d_model"), keys.need("num_heads"), keys.need("num_layers")
        words = keys.named("feed_forward_proj", ACTIVATIONS)
        # what is written of them wins there
        for name, value in (("dense_act_fn", words[0]), ("is_gated_act", words[1])):
            if (
                name in keys.values
                and decoders.ACTIVATIONS.get(str(found := keys.get(name)), found) != value
            ):
                keys.refuse(
                    name, f"does not agree with feed_forward_proj={keys.get('feed_forward_proj')}"
                )
        if keys.values.get("tie_word_embeddings", True) is None:
            keys.values["tie_word_embeddings"] = True  # what is not false
        is_tied, decoder_layers = (
            keys.get("tie_word_embeddings", True),
            keys.get("num_decoder_layers"),
        )
        return {
            "layers": layers,
            "decoder_layers": layers if decoder_layers is None else decoder_layers,
            "embed": embed,
            "heads": heads,
            "kv_heads": heads,
            "head_dim": keys.need("d_kv"),
            "mlp": keys.need("d_ff"),
            "vocab_rows": keys.need("vocab_size"),
            "causal": False,
            "norm_epsilon": keys.get("layer_norm_epsilon"),
            "positions": "relative",
            "relative_buckets": keys.get("relative_attention_num_buckets"),
            "relative_distance": keys.get("relative_attention_max_distance"),
            "query_scale": 1.0,
            "activation": words[0],
            "gated": words[1],
            "tied": is_tied,
            "output_scale": (
                embed**-0.5 if scaled and keys.get("scale_decoder_outputs", is_tied) else 1.0
            ),
        } | ({} if keys.context is None else {"context": keys.context})

    return read


def read_umt5(keys: Keys, halves: tuple[bool, ...] = (True,)) -> dict[str, Any]:
    """Reads UMT5: every layer has biases of its own, and the output is tied whatever the file says.

    There that key says whether states are scaled before the output, where no other one does.
    """
    out = _reader(True)(keys, halves)
    return {**out, "tied": True, "relative_shared": False}


def _alone(read: Callable[..., dict[str, Any]]):
    """Returns a reader of the encoder alone, whose files may be those of both halves."""
    return lambda keys: {**read(keys, (True, False)), "decoder_layers": 0, "output_scale": 1.0}


def write(m: ModelConfig) -> dict[str, Any]:
    return {
        "is_encoder_decoder": True,
        "num_layers": m.layers,
        "num_decoder_layers": m.decoder_layers,
        "d_model": m.embed,
        "num_heads": m.heads,
        "d_kv": m.head_dim,
        "d_ff": m.mlp,
        "layer_norm_epsilon": m.norm_epsilon,
        "relative_attention_num_buckets": m.relative_buckets,
        "relative_attention_max_distance": m.relative_distance,
        "feed_forward_proj": WORDS[m.activation, m.gated],
        "tie_word_embeddings": m.tied,
    }


def write_t5(m: ModelConfig) -> dict[str, Any]:
    return {**write(m), "scale_decoder_outputs": m.output_scale != 1}


def write_alone(m: ModelConfig) -> dict[str, Any]:
    return {key: value for key, value in write(m).items() if key != "num_decoder_layers"} | {
        "is_encoder_decoder": False
    }


def _stack(half: str, mlp: int, root: str) -> tuple[WeightEntry, ...]:
    """Returns the table of a half; `mlp` is the number of the MLP in each block.

    `root` is where the half lies in our weights.
    """
    ours, theirs = f"{root}layers/*", f"{half}.block.*.layer"
    dense, gate = f"{theirs}.{mlp}.DenseReluDense", f"{ours}/mlp/gate/w"
    return (
        *(
            WeightEntry(f"{ours}/attention/{x}/w", f"{theirs}.0.SelfAttention.{x}.weight", LINEAR)
            for x in "qkvo"
        ),
        WeightEntry(f"{ours}/attention_norm/scale", f"{theirs}.0.layer_norm.weight"),
        *(
            WeightEntry(f"{ours}/cross/{x}/w", f"{theirs}.1.EncDecAttention.{x}.weight", LINEAR)
            for x in "qkvo"
        ),
        WeightEntry(f"{ours}/cross_norm/scale", f"{theirs}.1.layer_norm.weight"),
        WeightEntry(gate, f"{dense}.wi_0.weight", LINEAR),
        WeightEntry(f"{ours}/mlp/up/w", f"{dense}.wi_1.weight", LINEAR, beside=gate),
        WeightEntry(f"{ours}/mlp/up/w", f"{dense}.wi.weight", LINEAR, unless=gate),
        WeightEntry(f"{ours}/mlp/down/w", f"{dense}.wo.weight", LINEAR),
        WeightEntry(f"{ours}/mlp_norm/scale", f"{theirs}.{mlp}.layer_norm.weight"),
        WeightEntry(
            f"{root}relative/w",
            f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        ),
        WeightEntry(
            f"{ours}/attention/relative/w",
            f"{theirs}.0.SelfAttention.relative_attention_bias.weight",
        ),
        WeightEntry(f"{root}norm/scale", f"{half}.final_layer_norm.weight"),
    )


EMBEDDING = WeightEntry("embed/tokens/w", "shared.weight")
_FAMILY: dict[str, Any] = {
    "table": (EMBEDDING, *_stack("encoder", 1, "encoder/"), *_stack("decoder", 2, "decoder/")),
    "prefix": "",
    "ties": True,
    "heads": {
        "lm": Head("ForConditionalGeneration", (WeightEntry("head/w", "lm_head.weight", LINEAR),))
    },
    # of old files; no version reads it
    "skip": (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    "copies": (r"(encoder|decoder)\.embed_tokens\.weight",),
}
_ENCODER: dict[str, Any] = {
    "table": (EMBEDDING, *_stack("encoder", 1, "")),
    "prefix": "",
    "bare": "EncoderModel",
    "heads": {"tag": dataclasses.replace(tag_head("classifier"), prefix="transformer.")},
    "write": write_alone,
    "copies": (r"encoder\.embed_tokens\.weight",),
    "skip": (r"decoder\..*", r"lm_head\.weight", r"(classification_head|qa_outputs)\..*"),
}


def _family(
    model_type: str,
    architecture: str,
    read: Callable[..., dict[str, Any]],
    write: Callable[[ModelConfig], dict[str, Any]],
) -> Family:
    encoder = Family(
        model_type=model_type, architecture=architecture, read=_alone(read), **_ENCODER
    )
    return Family(
        model_type=model_type,
        architecture=architecture,
        read=read,
        write=write,
        encoder=encoder,
        **_FAMILY,
    )


T5 = _family("t5", "T5", _reader(True), write_t5)
MT5 = _family("mt5", "MT5", _reader(False), write)
UMT5 = _family("umt5", "UMT5", read_umt5, write_t5)
