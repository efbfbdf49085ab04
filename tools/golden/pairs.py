"""Writes the golden files of the encoder-decoder families, as `tools.golden.families` does for the
others.

  python -m tools.golden.pairs [name ...]      needs jaxsft[torch]; rewrites the files of these
    cases, or of all

A case is NAME.json (config.json, the tensors with their shapes, the seed) and NAME.npz (ids of two
sources and targets, and the logits).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tools.golden import families
from tools.golden.families import weights

FOLDER = families.FOLDER.parent / "golden_pairs"
SOURCES, TARGETS = (19, 8), (6, 11)  # lengths of the two pairs of a case

T5: dict[str, Any] = {
    "vocab_size": 61, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 2, "num_decoder_layers":
    3, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}  # fmt: skip
BART: dict[str, Any] = {
    "vocab_size": 61, "d_model": 24, "encoder_layers": 2, "decoder_layers": 3,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 40,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", T5),
    "t5_tied_plain": (
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "t5_v1_1": (
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "t5_far": (
        "T5ForConditionalGeneration",
        {**T5, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    ),
    "mt5": (
        "MT5ForConditionalGeneration",
        {
            **T5,
            "num_decoder_layers": None,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
    ),
    "bart": ("BartForConditionalGeneration", BART),
    "bart_scaled": (
        "BartForConditionalGeneration",
        {**BART, "scale_embedding": True, "activation_function": "relu"},
    ),
    "mbart": ("MBartForConditionalGeneration", BART),
    "m2m_100": ("M2M100ForConditionalGeneration", BART),
    "pegasus": ("PegasusForConditionalGeneration", BART),
    "umt5": ("UMT5ForConditionalGeneration", T5),
}


def make(name: str, folder: Path = FOLDER) -> None:
    import torch
    import transformers

    kind, options = CASES[name]
    config_class = getattr(transformers, kind).config_class
    model = getattr(transformers, kind)(config_class(**options, attn_implementation="eager")).eval()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    # sinusoids, which are no weights
    fixed = {name for name, value in model.named_parameters() if not value.requires_grad}
    shapes = {
        key: list(value.shape)
        for key, value in model.state_dict().items()
        if key not in tied | fixed
    }
    # as the published files have it, which transformers tells from the tensors
    if untied := name in ("t5_v1_1", "mt5"):
        model.config.tie_word_embeddings, tied = (
            False,
            {key for key in tied if key != "lm_head.weight"},
        )
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        shapes["lm_head.weight"] = list(model.lm_head.weight.shape)
    seed = sum(name.encode())
    drawn = weights(shapes, seed)
    missing = model.load_state_dict(
        {key: torch.from_numpy(value) for key, value in drawn.items()}, strict=False
    )
    assert set(missing.missing_keys) <= tied | fixed and not missing.unexpected_keys, missing
    if not untied:
        model.tie_weights()
    else:  # of an untied head, the embeddings of the two halves are still one
        model.encoder.embed_tokens.weight = model.decoder.embed_tokens.weight = model.shared.weight
    rng, longest = np.random.default_rng(seed + 1), (70 if name == "t5_far" else SOURCES[0])
    sources = (longest, SOURCES[1])
    ids = rng.integers(2, options["vocab_size"], (2, longest))
    mask = np.arange(longest) < np.array(sources)[:, None]
    target = rng.integers(2, options["vocab_size"], (2, max(TARGETS)))
    tensors = {
        "input_ids": ids,
        "attention_mask": mask.astype(np.int64),
        "decoder_input_ids": target,
    }
    with torch.no_grad():
        logits = model(**{key: torch.from_numpy(value) for key, value in tensors.items()}).logits
    arrays = {
        "source": ids.astype(np.int16),
        "target": target.astype(np.int16),
        "sources": np.array(sources),
        "targets": np.array(TARGETS),
    }
    arrays |= {f"out{i}": logits[i, :length].numpy() for i, length in enumerate(TARGETS)}
    config = {
        key: value
        for key, value in families.config_of(model).items()
        if not (untied and key == "scale_decoder_outputs")
    }
    families.save(
        folder / name, {"class": kind, "seed": seed, "config": config, "shapes": shapes}, arrays
    )


if __name__ == "__main__":
    for case_name in sys.argv[1:] or CASES:
        make(case_name)
        print(case_name)
