"""T5 with its version 1.1 (arXiv:1910.10683), Flan-T5 (arXiv:2210.11416) and mT5 (arXiv:2010.11934): encoder-decoders with relative positions."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.models.families import decoders
from jaxsft.models.families.base import Entry, Family, Head, Keys
from jaxsft.models.families.transforms import LINEAR

ACTIVATIONS = {"relu": ("relu", False), "gated-gelu": ("gelu_tanh", True), "gated-silu": ("silu", True), "gated-relu": ("relu", True)}
WORDS = {value: key for key, value in ACTIVATIONS.items()}


def _reader(tied: bool, activation: str, scaled: bool):
    """The families differ in what a key that is not there means; `scaled`: a tied output is that of states times `d_model ** -0.5`."""

    def read(keys: Keys) -> dict[str, Any]:
        keys.only("is_encoder_decoder", True)
        for name in ("n_positions", "output_past", "is_decoder"):  # follow from others, or limit nothing
            keys.get(name)
        embed, heads, layers = keys.need("d_model"), keys.need("num_heads"), keys.need("num_layers")
        words = keys.named("feed_forward_proj", ACTIVATIONS, activation)
        for name, value in (("dense_act_fn", words[0]), ("is_gated_act", words[1])):  # what is written of them wins there
            if name in keys.values and decoders.ACTIVATIONS.get(str(found := keys.get(name)), found) != value:
                keys.refuse(name, f"does not agree with feed_forward_proj={keys.get('feed_forward_proj', activation)}")
        is_tied = tied if (found := keys.get("tie_word_embeddings")) is None else found
        return {
            "layers": layers,
            "decoder_layers": keys.get("num_decoder_layers") or layers,
            "embed": embed,
            "heads": heads,
            "kv_heads": heads,
            "head_dim": keys.need("d_kv"),
            "mlp": keys.need("d_ff"),
            "vocab_rows": keys.need("vocab_size"),
            "causal": False,
            "norm_epsilon": keys.get("layer_norm_epsilon", 1e-6),
            "positions": "relative",
            "relative_buckets": keys.get("relative_attention_num_buckets", 32),
            "relative_distance": keys.get("relative_attention_max_distance", 128),
            "query_scale": 1.0,
            "activation": words[0],
            "gated": words[1],
            "tied": is_tied,
            "output_scale": embed**-0.5 if scaled and keys.get("scale_decoder_outputs", is_tied) else 1.0,
        } | ({} if keys.context is None else {"context": keys.context})

    return read


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
        "feed_forward_proj": WORDS.get((m.activation, m.gated), "relu"),
        "tie_word_embeddings": m.tied,
    }


def write_t5(m: ModelConfig) -> dict[str, Any]:
    return {**write(m), "scale_decoder_outputs": m.output_scale != 1}


def _stack(half: str, mlp: int) -> tuple[Entry, ...]:
    """A half, whose MLP is the layer of this number in each of its blocks."""
    ours, theirs = f"{half}/layers/*", f"{half}.block.*.layer"
    dense, gate = f"{theirs}.{mlp}.DenseReluDense", f"{ours}/mlp/gate/w"
    return (
        *(Entry(f"{ours}/attention/{x}/w", f"{theirs}.0.SelfAttention.{x}.weight", LINEAR) for x in "qkvo"),
        Entry(f"{ours}/attention_norm/scale", f"{theirs}.0.layer_norm.weight"),
        *(Entry(f"{ours}/cross/{x}/w", f"{theirs}.1.EncDecAttention.{x}.weight", LINEAR) for x in "qkvo"),
        Entry(f"{ours}/cross_norm/scale", f"{theirs}.1.layer_norm.weight"),
        Entry(gate, f"{dense}.wi_0.weight", LINEAR),
        Entry(f"{ours}/mlp/up/w", f"{dense}.wi_1.weight", LINEAR, beside=gate),
        Entry(f"{ours}/mlp/up/w", f"{dense}.wi.weight", LINEAR, unless=gate),
        Entry(f"{ours}/mlp/down/w", f"{dense}.wo.weight", LINEAR),
        Entry(f"{ours}/mlp_norm/scale", f"{theirs}.{mlp}.layer_norm.weight"),
        Entry(f"{half}/relative/w", f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        Entry(f"{half}/norm/scale", f"{half}.final_layer_norm.weight"),
    )


_FAMILY: dict[str, Any] = {
    "table": (Entry("embed/tokens/w", "shared.weight"), *_stack("encoder", 1), *_stack("decoder", 2)),
    "prefix": "",
    "heads": {"lm": Head("ForConditionalGeneration", (Entry("head/w", "lm_head.weight", LINEAR),))},
    "skip": (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),  # of old files; no version reads it
    "copies": (r"(encoder|decoder)\.embed_tokens\.weight",),
}
T5 = Family(model_type="t5", architecture="T5", read=_reader(True, "relu", True), write=write_t5, **_FAMILY)
MT5 = Family(model_type="mt5", architecture="MT5", read=_reader(False, "gated-gelu", False), write=write, **_FAMILY)
