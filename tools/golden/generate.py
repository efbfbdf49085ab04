"""Writes tests/generation/golden/generate.json: what transformers generates with a small real
model, and what its filters leave of logits.

python -m tools.golden.generate FOLDER      needs torch and transformers; FOLDER holds a small
  Llama: stories260K_hf of the shared data
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

OUT = Path(__file__).parents[2] / "tests" / "generation" / "golden" / "generate.json"
TEXTS = (
    "",
    "Once upon a time",
    "Lily and Ben are friends. They like to play",
    "The dog",
    "Tom was sad because his red ball",
)
CASES = (
    {"max_new_tokens": 48},
    {"max_new_tokens": 24, "repetition_penalty": 1.3},
    {"max_new_tokens": 24, "repetition_penalty": 0.8},
    {"max_new_tokens": 24, "stop": True},
    *(
        {"max_new_tokens": 20, "num_beams": n, "length_penalty": p, "stop": n > 2}
        for n in (2, 4)
        for p in (0.0, 1.0, 2.0, -1.0)
    ),
    {
        "max_new_tokens": 20,
        "num_beams": 3,
        "length_penalty": 1.0,
        "stop": True,
        "repetition_penalty": 1.2,
    },
    *(
        {
            "max_new_tokens": 20,
            "num_beams": 3,
            "length_penalty": p,
            "stop_strings": ["play", "ed a", "er."],
        }
        for p in (0.0, 1.0)
    ),
)
FILTERS = (
    (5, 1.0, 0.0),
    (0, 0.9, 0.0),
    (0, 0.3, 0.0),
    (0, 1.0, 0.2),
    (7, 0.8, 0.0),
    (20, 0.95, 0.05),
    (1, 0.5, 0.5),
    (500, 0.999, 0.001),
)


def main(folder: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    prompts = [
        [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        for text in TEXTS
    ]
    stop = tokenizer(" x.", add_special_tokens=False)["input_ids"][-1]
    cases = []
    for case in CASES:
        options = {k: v for k, v in case.items() if k != "stop"}
        ids = []
        # one by one: there a left-padded prompt's padding would count as repeated tokens
        for prompt in prompts:
            with torch.inference_mode():
                given = torch.tensor([prompt])
                tokenizing = {"tokenizer": tokenizer} if "stop_strings" in options else {}
                config = {
                    "do_sample": False,
                    "eos_token_id": stop if case.get("stop") else 511,
                    "pad_token_id": 0,
                    **options,
                }
                ids.append(
                    model.generate(
                        given, attention_mask=torch.ones_like(given), **config, **tokenizing
                    )[0, len(prompt) :].tolist()
                )
        cases.append(
            {"options": options, "stop": [stop] if case.get("stop") else [511], "ids": ids}
        )
    logits = np.random.default_rng(0).normal(size=(6, 97)).astype(np.float32) * 3
    kept = []
    for k, p, m in FILTERS:
        chain = [
            make(value)
            for make, value in (
                (TopKLogitsWarper, k),
                (TopPLogitsWarper, p % 1),
                (MinPLogitsWarper, m),
            )
            if value
        ]
        scores = LogitsProcessorList(chain)(
            torch.zeros((6, 1), dtype=torch.long), torch.tensor(logits)
        )
        kept.append(
            {
                "top_k": k,
                "top_p": p,
                "min_p": m,
                "kept": [np.flatnonzero(np.isfinite(row)).tolist() for row in scores.numpy()],
            }
        )
    found = {
        "transformers": transformers.__version__,
        "prompts": prompts,
        "cases": cases,
        "logits": logits.tolist(),
        "filters": kept,
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(f"{OUT}: {len(cases)} cases of {len(prompts)} prompts")


if __name__ == "__main__":
    main(*sys.argv[1:])
