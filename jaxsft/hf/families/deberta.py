"""DeBERTa-v3 (arXiv:2111.09543): disentangled attention, in the class that transformers calls v2.

Attention to contents and relative positions apart is of arXiv:2006.03654.
"""

from __future__ import annotations

import math
from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import bert, decoders
from jaxsft.hf.families.family import RENAMED_NORMS, Entry, Family, Head, Keys, both, norm


def read(keys: Keys) -> dict[str, Any]:
    keys.only("relative_attention", False, True) or keys.refuse(
        "relative_attention", "only True is known here"
    )
    keys.only("share_att_key", False, True) or keys.refuse(
        "share_att_key", "only True, as in version 3, is known here"
    )
    keys.only("position_biased_input", True, False) and keys.refuse(
        "position_biased_input", "only False, as in version 3, is known here"
    )
    keys.only("conv_kernel_size", 0)
    kinds = keys.get("pos_att_type")
    if (
        sorted(x.strip() for x in kinds.lower().split("|")) if isinstance(kinds, str) else kinds
    ) not in (["c2p", "p2c"], ["p2c", "c2p"]):
        keys.refuse("pos_att_type", "only c2p and p2c together are known here")
    if keys.get("norm_rel_ebd", "none") != "layer_norm":
        keys.refuse("norm_rel_ebd", "only layer_norm is known here")
    out, longest = bert.read(keys), keys.get("max_relative_positions")
    for key, size in (("embedding_size", out["embed"]), ("attention_head_size", out["head_dim"])):
        if keys.get(key, size) != size:
            keys.refuse(key, f"only {size}, which follows from hidden_size, is known here")
    buckets, longest = keys.need("position_buckets"), longest if longest > 0 else out["context"]
    # buckets grow by the logarithm of distance from half of them to `longest - 1`
    if longest <= buckets // 2 + 1:
        keys.refuse(
            "position_buckets",
            f"expected less than {2 * (longest - 1)}, for the longest distance is {longest}"
            " (max_relative_positions, or else max_position_embeddings)",
        )
    return {
        **out,
        "positions": "disentangled",
        "relative_buckets": buckets,
        "relative_distance": longest,
        "query_scale": 1 / math.sqrt(3 * out["head_dim"]),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    kinds = {
        "relative_attention": True,
        "share_att_key": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
    }
    sizes = {
        "position_buckets": m.relative_buckets,
        "max_relative_positions": m.relative_distance,
        "norm_rel_ebd": "layer_norm",
    }
    return {**bert.write(m), **kinds, **sizes}


_TEXT = Head(
    "ForSequenceClassification",
    (*both("head/dense", "pooler.dense"), *both("head/out", "classifier")),
    {"pool": "first", "head": "dense"},
    lambda task: {"pooler_hidden_act": decoders.HF_ACTIVATIONS[task.activation]},
)

FAMILY = Family(
    model_type="deberta-v2",
    architecture="DebertaV2",
    read=read,
    write=write,
    table=(
        Entry("embed/tokens/w", "embeddings.word_embeddings.weight"),
        Entry("embed/types/w", "embeddings.token_type_embeddings.weight"),
        *norm("embed/norm", "embeddings.LayerNorm"),
        Entry("relative/w", "encoder.rel_embeddings.weight"),
        *norm("relative/norm", "encoder.LayerNorm"),
        *both("layers/*/attention/q", "encoder.layer.*.attention.self.query_proj"),
        *both("layers/*/attention/k", "encoder.layer.*.attention.self.key_proj"),
        *both("layers/*/attention/v", "encoder.layer.*.attention.self.value_proj"),
        *bert.BLOCK,
    ),
    prefix="deberta.",
    heads={**bert.heads("pooler.dense", "classifier", "gelu", bert.PREDICTIONS), "text": _TEXT},
    skip=(
        r"embeddings\.position_(ids|embeddings\.weight)",
        r"(lm|mask)_predictions\..*",
        r"cls\..*",
        r"pooler\..*",
    ),
    renamed=RENAMED_NORMS,
)
