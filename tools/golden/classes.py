"""Writes what the tensors of classes of transformers are called, and their shapes, for models as
small as the golden ones.

  python -m tools.golden.classes      needs jaxsft[torch]; rewrites
    tests/training/golden_classes.json

By "CASE CLASS": the name of the class and {name: shape} of what its files hold, tied matrices once.
Sizes are those of `folder` in tests/training/test_pretrained.py.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "training" / "golden_classes.json"
ENCODERS = ("bert", "roberta", "distilbert", "electra", "deberta", "modernbert")
CASES = [
    (name, kind)
    for name in ENCODERS
    for kind in ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM")
]
CASES += [
    ("llama", kind)
    for kind in ("SequenceClassification", "TokenClassification", "QuestionAnswering")
]
CASES += [
    ("gpt2", "TokenClassification"),
    ("gemma3", "SequenceClassification"),
    ("gpt_neox", "QuestionAnswering"),
    ("mistral", "QuestionAnswering"),
]


def tensors(name: str, kind: str) -> dict:
    import torch
    import transformers

    values = json.loads(
        (ROOT / "tests" / "hf" / "families" / "golden" / f"{name}.json").read_text(encoding="utf-8")
    )["config"]
    room = {
        "n_positions" if name == "gpt2" else "max_position_embeddings": (
            130 if name == "roberta" else 128
        )
    }
    # what an export writes where the layer has a bias
    own = {"classifier_bias": True} if name == "modernbert" else {}
    config = transformers.AutoConfig.for_model(
        **{
            **values,
            **room,
            **own,
            "vocab_size": 272,
            "num_labels": 2,
            "pad_token_id": values.get("pad_token_id"),
        }
    )
    with torch.device("meta"):
        model = getattr(transformers, f"AutoModelFor{kind}").from_config(config)
    tied = set(model.all_tied_weights_keys)
    return {
        "class": type(model).__name__,
        "tensors": {key: list(x.shape) for key, x in model.state_dict().items() if key not in tied},
    }


if __name__ == "__main__":
    found = {f"{name} {kind}": tensors(name, kind) for name, kind in CASES}
    lines = ",\n".join(
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in found.items()
    )
    FILE.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
