"""EuroBERT (arXiv:2503.05500): Llama that sees the whole text."""

from __future__ import annotations

from typing import Any

from jaxsft.hf.families import llama
from jaxsft.hf.families.family import Family, Head, Keys, both, tag_head

_POOLS = {"first": "bos", "mean": "mean"}


def read(keys: Keys) -> dict[str, Any]:
    return {**llama.read(keys), "causal": False}


FAMILY = Family(
    model_type="eurobert",
    architecture="EuroBert",
    read=read,
    write=llama.write,
    table=llama.FAMILY.table,
    prefix="model.",
    heads={
        "text": Head(
            "ForSequenceClassification",
            (*both("head/dense", "dense"), *both("head/out", "classifier")),
            {"pool": ("first", "mean"), "head": "dense", "activation": "gelu"},
            lambda task: {"classifier_pooling": _POOLS[task.pool]},
        ),
        "tag": tag_head("classifier"),
    },
    # its head over the vocabulary is one layer, and ours has three
    skip=(*llama.FAMILY.skip, r"lm_head\..*"),
)
