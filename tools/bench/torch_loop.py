"""A worker of train_step.py: a plain PyTorch loop over a Llama of transformers with the weights of
jaxsft. Arguments: folder, variant (`packed fp32 compiled`). Needs no jaxsft.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def llama(work: dict, weights: dict[str, np.ndarray]) -> LlamaForCausalLM:
    m = work["model"]
    config = LlamaConfig(
        vocab_size=work["vocab"],
        hidden_size=m["embed"],
        intermediate_size=m["mlp"],
        num_hidden_layers=m["layers"],
        num_attention_heads=m["heads"],
        num_key_value_heads=m["kv_heads"],
        head_dim=m["head_dim"],
        max_position_embeddings=m["context"],
        rope_theta=m["rope_base"],
        rms_norm_eps=1e-6,
        tie_word_embeddings=m["tied"],
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": m["rope_base"]}
    into = lambda name, i: torch.from_numpy(weights[f"layers/0/{name}"][i].copy())
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.from_numpy(weights["embed/tokens/w"]))
        model.model.norm.weight.copy_(torch.from_numpy(weights["norm/scale"]))
        if not m["tied"] and "head/w" in weights:
            model.lm_head.weight.copy_(torch.from_numpy(weights["head/w"].T.copy()))
        for i, layer in enumerate(model.model.layers):
            for ours, theirs in (
                ("q", layer.self_attn.q_proj),
                ("k", layer.self_attn.k_proj),
                ("v", layer.self_attn.v_proj),
            ):
                theirs.weight.copy_(into(f"attention/{ours}/w", i).flatten(1).T)
            layer.self_attn.o_proj.weight.copy_(into("attention/o/w", i).flatten(0, 1).T)
            for ours, theirs in (
                ("gate", layer.mlp.gate_proj),
                ("up", layer.mlp.up_proj),
                ("down", layer.mlp.down_proj),
            ):
                theirs.weight.copy_(into(f"mlp/{ours}/w", i).T)
            layer.input_layernorm.weight.copy_(into("attention_norm/scale", i))
            layer.post_attention_layernorm.weight.copy_(into("mlp_norm/scale", i))
    return model.to(DEVICE)


class Loss(torch.nn.Module):
    """Weighted token cross-entropy, or cross-entropy of mean-pooled texts, divided once."""

    def __init__(self, work: dict, weights: dict[str, np.ndarray]):
        super().__init__()
        self.model, self.causal = llama(work, weights), work["model"]["causal"]
        if work["classes"]:
            self.head = torch.nn.Linear(work["model"]["embed"], work["classes"]).to(DEVICE)
            with torch.no_grad():
                self.head.weight.copy_(torch.from_numpy(weights["head/out/w"].T.copy()))
                self.head.bias.copy_(torch.from_numpy(weights["head/out/b"]))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        segments = batch["segments"]
        mask = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] > 0)
        if self.causal:
            mask = mask & torch.ones(mask.shape[1:], dtype=torch.bool, device=mask.device).tril()
        # a padding query needs a key
        mask = mask | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        hidden = self.model.model(
            batch["tokens"],
            attention_mask=mask[:, None],
            position_ids=batch["positions"],
            use_cache=False,
        ).last_hidden_state
        if "targets" in batch:
            loss = F.cross_entropy(
                self.model.lm_head(hidden).flatten(0, 1).float(),
                batch["targets"].flatten(),
                reduction="none",
            )
            return (loss * batch["weights"].flatten()).sum() / batch["weights"].sum()
        member = (
            segments[:, None, :]
            == torch.arange(1, batch["examples"].shape[1] + 1, device=segments.device)[
                None, :, None
            ]
        ).float()
        texts = member @ hidden.float() / member.sum(-1, keepdim=True).clamp(min=1)
        present = batch["examples"] >= 0
        loss = (
            F.cross_entropy(
                self.head(texts).flatten(0, 1).float(), batch["labels"].flatten(), reduction="none"
            )
            * present.flatten()
        )
        return loss.sum() / present.sum()


def load(path: Path) -> dict[str, torch.Tensor]:
    stored = np.load(path)
    whole = lambda x: torch.from_numpy(x.astype(np.int64) if x.dtype.kind in "iu" else x).to(DEVICE)
    return {name: whole(stored[name]) for name in stored.files}


def main(folder: str, variant: str) -> None:
    layout, precision, how = variant.split()
    place = Path(folder)
    work = json.loads((place / "work.json").read_text(encoding="utf-8"))
    weights = dict(np.load(place / "weights.npz"))
    loss_of = Loss(work, weights)
    run = torch.compile(loss_of, dynamic=False) if how == "compiled" else loss_of
    batches = [load(place / f"{layout}-{k}.npz") for k in range(work["batches"])]
    optimizer = torch.optim.AdamW(loss_of.parameters(), lr=work["train"]["learning_rate"])
    cast = (
        (lambda: torch.autocast(DEVICE, dtype=torch.bfloat16))
        if precision == "bf16"
        else contextlib.nullcontext
    )
    order = itertools.cycle(range(len(batches)))
    prompts = torch.tensor(work["prompts"], device=DEVICE)
    first = None

    def train(batch):
        with cast():
            loss = run(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    def evaluate(batch):
        with torch.no_grad(), cast():
            return run(batch)

    for line in sys.stdin:
        asked = json.loads(line)
        done = {"real": 0, "supervised": 0, "texts": 0}
        began = time.perf_counter()
        for _ in range(asked["steps"]):
            if asked["mode"] == "generate":
                options = {"cache_implementation": "static"} if how == "compiled" else {}
                with torch.no_grad(), cast():
                    out = loss_of.model.generate(
                        prompts,
                        attention_mask=torch.ones_like(prompts),
                        max_new_tokens=work["new"],
                        min_new_tokens=work["new"],
                        do_sample=False,
                        **options,
                    )
                done["real"] += (out.shape[1] - prompts.shape[1]) * len(prompts)
                continue
            batch = batches[next(order)]
            loss = (train if asked["mode"] == "train" else evaluate)(batch)
            first = first if first is not None else float(loss.detach())
            texts = int((batch["examples"] >= 0).sum())
            done["real"] += int((batch["segments"] > 0).sum())
            done["supervised"] += int((batch["weights"] > 0).sum()) if "targets" in batch else texts
            done["texts"] += texts
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        print(
            json.dumps({**done, "seconds": time.perf_counter() - began, "first_loss": first}),
            flush=True,
        )


if __name__ == "__main__":
    torch.manual_seed(0)
    main(*sys.argv[1:])
