"""Writes the golden files of classes with a trained head, as `tools.golden.families` does for
models without one.

  python -m tools.golden.heads [name ...]      needs jaxsft[torch]; rewrites the files of these
    cases, or of all

A case is NAME.json (config.json, the tensors with their shapes, the seed) and NAME.npz (the logits
of each of `TEXTS`, for the bytes of the text between two special tokens).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tools.golden import families

FOLDER = families.FOLDER.parent / "golden_heads"
TEXTS = ("red cat", "a dog saw it", "no")
FIRST, LAST, ROWS = 257, 258, 272  # the special tokens around a text, and rows of the embedding
LABELS = {
    "id2label": {0: "mixed", 1: "bad", 2: "good"},
    "label2id": {"mixed": 0, "bad": 1, "good": 2},
}
TAGS = {"id2label": {0: "O", 1: "I-X", 2: "B-X"}, "label2id": {"O": 0, "I-X": 1, "B-X": 2}}
DECODER = {**families.DECODER, "num_hidden_layers": 1, "vocab_size": ROWS, "pad_token_id": None}
ENCODER = {**families.ENCODER, "num_hidden_layers": 1, "vocab_size": ROWS}
DISTIL = {
    "vocab_size": ROWS,
    "dim": 24,
    "hidden_dim": 40,
    "n_layers": 1,
    "n_heads": 4,
    "max_position_embeddings": 40,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": (
        "BertForSequenceClassification",
        {**ENCODER, **LABELS, "problem_type": "single_label_classification"},
    ),
    "bert_number": (
        "BertForSequenceClassification",
        {**ENCODER, "num_labels": 1, "problem_type": "regression"},
    ),
    "llama": ("LlamaForSequenceClassification", {**DECODER, **LABELS}),
    "llama_many": (
        "LlamaForSequenceClassification",
        {**DECODER, **LABELS, "problem_type": "multi_label_classification"},
    ),
    "bert_span": ("BertForQuestionAnswering", ENCODER),
    "llama_span": ("LlamaForQuestionAnswering", DECODER),
    "modernbert_mean": (
        "ModernBertForSequenceClassification",
        {**ENCODER, **families.MODERN, **LABELS, "classifier_pooling": "mean"},
    ),
    "deberta_tanh": (
        "DebertaV2ForSequenceClassification",
        {**ENCODER, **families.DEBERTA, **LABELS, "pooler_hidden_act": "tanh"},
    ),
    "distilbert_tags": ("DistilBertForTokenClassification", {**DISTIL, **TAGS}),
    "t5_tags": ("T5ForTokenClassification", {**families.T5, **TAGS, "vocab_size": ROWS}),
}


def make(name: str, folder: Path = FOLDER) -> None:
    import torch
    import transformers

    kind, options = CASES[name]
    model = getattr(transformers, kind)
    model, seed = (
        model(model.config_class(**options, attn_implementation="eager")).eval(),
        sum(name.encode()),
    )
    model, shapes = families.drawn(model, seed)
    arrays = {}
    for i, text in enumerate(TEXTS):
        with torch.no_grad():
            out = model(input_ids=torch.tensor([[FIRST, *text.encode(), LAST]]))
        value = (
            torch.stack([out.start_logits, out.end_logits], -1)
            if hasattr(out, "start_logits")
            else out.logits
        )
        arrays[f"out{i}"] = value[0].numpy()
    config = families.config_of(model) | {"architectures": [kind]}
    families.save(
        folder / name, {"class": kind, "seed": seed, "config": config, "shapes": shapes}, arrays
    )


if __name__ == "__main__":
    for case_name in sys.argv[1:] or CASES:
        make(case_name)
        print(case_name)
