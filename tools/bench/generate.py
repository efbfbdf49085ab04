"""New tokens per second of greedy generation against transformers' `generate`: the same weights, prompts and cores, in turns.

python tools/bench/generate.py python=PATH [model=tiny|small|base] [batches=1,8] [prompt=64] [new=64] [repeats=5] [clock=wall|cpu]

python= is an interpreter that has torch and transformers. Both sides run in float32; the first tokens of both must be the same. On a machine that
does other work too, clock=cpu counts the time of the processors instead; give each side one thread then (OMP_NUM_THREADS=1 taskset -c 0 ...).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import yaml
from flax import linen as nn
from safetensors.numpy import save_file

from jaxsft.config.model import ModelConfig
from jaxsft.config.schema import GenerateConfig
from jaxsft.models.generate import generate
from jaxsft.models.transformer import Params, Transformer

VOCAB, AGREE = 4096, 8
CLOCKS = {"wall": "perf_counter", "cpu": "process_time"}

THEIRS = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
print("ready", flush=True)
for line in sys.stdin:
    given = json.loads(line)
    ids = torch.tensor(given["ids"])
    options = dict(do_sample=False, max_new_tokens=given["new"], min_new_tokens=given["new"], attention_mask=torch.ones_like(ids), pad_token_id=0)
    clock = getattr(time, given["clock"])
    began = clock()
    with torch.inference_mode():
        out = model.generate(ids, **options)
    print(json.dumps({"seconds": clock() - began, "ids": out[:, ids.shape[1]:].tolist()}), flush=True)
"""


def save_as_llama(folder: Path, config: ModelConfig, params: Params) -> None:
    """The files that transformers reads."""
    flat = lambda w: np.ascontiguousarray(np.asarray(w, np.float32).reshape(w.shape[0], -1).T)
    tensors = {"model.embed_tokens.weight": np.asarray(params["embed"]["tokens"]["w"]), "model.norm.weight": np.asarray(params["norm"]["scale"])}
    for i in range(config.layers):
        p, name = jax.tree.map(lambda w: w[i], params["layers"]["0"]), f"model.layers.{i}."
        tensors |= {f"{name}self_attn.{k}_proj.weight": flat(p["attention"][k]["w"]) for k in "qkv"}
        o = np.asarray(p["attention"]["o"]["w"])
        tensors[f"{name}self_attn.o_proj.weight"] = np.ascontiguousarray(o.reshape(-1, o.shape[-1]).T)
        tensors |= {f"{name}mlp.{k}_proj.weight": flat(p["mlp"][k]["w"]) for k in ("gate", "up", "down")}
        tensors[f"{name}input_layernorm.weight"] = np.asarray(p["attention_norm"]["scale"])
        tensors[f"{name}post_attention_layernorm.weight"] = np.asarray(p["mlp_norm"]["scale"])
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    about = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.embed,
        "intermediate_size": config.mlp,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": params["embed"]["tokens"]["w"].shape[0],
        "max_position_embeddings": config.context,
        "rms_norm_eps": 1e-6,
        "rope_theta": config.rope_base,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")


def main(python: str, model: str = "small", batches: str = "1,8", prompt: int = 64, new: int = 64, repeats: int = 5, clock: str = "wall") -> None:
    config = ModelConfig(**yaml.safe_load((Path(__file__).parents[2] / "conf" / "model" / f"{model}.yaml").read_text(encoding="utf-8")))
    m = Transformer(config, VOCAB, "fp32")
    params = nn.meta.unbox(jax.jit(m.init)(jax.random.key(0)))
    with tempfile.TemporaryDirectory() as folder:
        save_as_llama(Path(folder), config, params)
        theirs = subprocess.Popen([python, "-c", THEIRS, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if theirs.stdout.readline().strip() != "ready":
            raise SystemExit(f"python={python}: no torch and transformers there")
        for batch in map(int, str(batches).split(",")):
            compare(m, params, theirs, batch, prompt, new, repeats, CLOCKS[clock])
        theirs.stdin.close()
        theirs.wait()


def compare(m: Transformer, params: Params, theirs: subprocess.Popen, batch: int, prompt: int, new: int, repeats: int, clock: str) -> None:
    prompts = np.random.default_rng(0).integers(1, VOCAB, (batch, prompt)).tolist()
    seconds = {"jaxsft": [], "transformers": []}
    for _ in range(repeats + 1):  # the first compiles, and warms both up
        began = getattr(time, clock)()
        ours = [a.ids for a in generate(m, params, prompts, GenerateConfig(batch_size=batch), max_new_tokens=new, stop_ids=())]
        seconds["jaxsft"].append(getattr(time, clock)() - began)
        theirs.stdin.write(json.dumps({"ids": prompts, "new": new, "clock": clock}) + "\n")
        theirs.stdin.flush()
        answer = json.loads(theirs.stdout.readline())
        seconds["transformers"].append(answer["seconds"])
    same = sum(a[:AGREE] == b[:AGREE] for a, b in zip(ours, answer["ids"], strict=True))
    assert same >= 0.9 * batch, f"only {same} of {batch} rows agree in their first {AGREE} tokens"
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for name, value in median.items():
        print(f"batch {batch:<3} {name:<13} {batch * new / value:10,.0f} tokens/s   {median['transformers'] / value:.2f} x transformers", flush=True)


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main(**{k: int(v) if k in ("prompt", "new", "repeats") else v for k, v in options.items()})
