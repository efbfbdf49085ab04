"""Writes the golden files of tests/models/adapters: what the library PEFT computes with adapters on
the small models of tools/golden/families.py.

  python -m tools.golden.peft [name ...]      needs torch, transformers and peft; rewrites the files
    of these cases, or of all

A case is NAME.json (the base's case, adapter_config.json, the tensors of the adapter with their
shapes, the seed) and NAME.npz (ids and logits). The weights of base and adapter are drawn from
seeds, so that the files stay small.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tools.golden.families import FOLDER as BASES
from tools.golden.families import weights

FOLDER = Path(__file__).parents[2] / "tests" / "hf" / "golden"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# name: (case of the base, class of the config in peft, its options)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lora": ("llama", "LoraConfig", {"r": 3, "lora_alpha": 5, "target_modules": LINEAR}),
    "rslora_biases": (
        "llama_tied_biases",
        "LoraConfig",
        {"r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]},
    ),
    "lora_gpt2": (
        "gpt2",
        "LoraConfig",
        {
            "r": 2,
            "lora_alpha": 4,
            "fan_in_fan_out": True,
            "target_modules": ["attn.c_proj", "c_fc"],
        },
    ),
    "lora_head": (
        "llama",
        "LoraConfig",
        {"r": 2, "lora_alpha": 4, "target_modules": ["lm_head", "embed_tokens"]},
    ),
    "dora": (
        "qwen2",
        "LoraConfig",
        {"r": 3, "lora_alpha": 5, "use_dora": True, "target_modules": LINEAR},
    ),
    "ia3": (
        "qwen2",
        "IA3Config",
        {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    ),
    "prefix": ("llama", "PrefixTuningConfig", {"num_virtual_tokens": 3}),
    "prompt": ("llama", "PromptTuningConfig", {"num_virtual_tokens": 3}),
}


def tensors(shapes: dict[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """Of the adapter: small, and near one where they multiply."""
    drawn = weights(shapes, seed)
    near_one = lambda name: name.endswith(("ia3_l", "lora_magnitude_vector"))
    return {
        name: (1 + 0.3 * np.tanh(x) if near_one(name) else x).astype(np.float32)
        for name, x in drawn.items()
    }


def make(name: str, folder: Path = FOLDER) -> None:
    import peft
    import torch
    import transformers

    case, kind, options = CASES[name]
    about = json.loads((BASES / f"{case}.json").read_text(encoding="utf-8"))
    config_class = transformers.CONFIG_MAPPING[about["config"]["model_type"]]
    base = getattr(transformers, about["class"])(
        config_class(**about["config"], attn_implementation="eager")
    ).eval()
    base.load_state_dict(
        {
            key: torch.from_numpy(value)
            for key, value in weights(about["shapes"], about["seed"]).items()
        },
        strict=False,
    )
    base.tie_weights()
    model = peft.get_peft_model(base, getattr(peft, kind)(task_type="CAUSAL_LM", **options)).eval()
    known = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    seed = sum(name.encode()) + 7
    shapes = {key: list(value.shape) for key, value in known.items()}
    peft.set_peft_model_state_dict(
        model, {key: torch.from_numpy(value) for key, value in tensors(shapes, seed).items()}
    )
    ids = np.random.default_rng(seed).integers(2, about["config"]["vocab_size"], (1, 9))
    with torch.no_grad():
        # without those of a prompt
        logits = model(input_ids=torch.from_numpy(ids)).logits[:, -9:].numpy()
    values = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in model.peft_config["default"].to_dict().items()
    }
    kept = {
        key: getattr(value, "value", value)
        for key, value in values.items()
        if value not in (None, {}, [], False)
    }
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "base": case,
        "seed": seed,
        "config": {k: v for k, v in kept.items() if isinstance(v, str | int | float | list)},
        "shapes": shapes,
    }
    (folder / f"{name}.json").write_text(
        json.dumps(told, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    np.savez_compressed(folder / f"{name}.npz", ids=ids.astype(np.int16), logits=logits)


if __name__ == "__main__":
    for case_name in sys.argv[1:] or CASES:
        make(case_name)
        print(case_name)
