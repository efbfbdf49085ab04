"""New tokens per second of greedy generation against transformers' `generate`: the same weights,
prompts and cores, in turns.

python tools/bench/generate.py python=PATH [model=tiny|small|base|FOLDER] [batches=1,8] [prompt=64]
[new=64] [repeats=5]

python= is an interpreter that has torch and transformers. model= is a size of conf/model/ with
random weights, or a folder in the layout of Hugging Face. Both sides run in float32; the first
tokens of both must be the same. Both clocks are told: on a machine that does other work too the
time of the processors says more, if each side has one thread (OMP_NUM_THREADS=1 taskset -c 0 ...).
"""

from __future__ import annotations

import json
import os
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

import jaxsft
from jaxsft.config.model import ModelConfig
from jaxsft.config.schema import GenerateConfig
from jaxsft.generation.decoding import generate
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer

VOCAB, AGREE, SPECIAL = 4096, 8, 3
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

THEIRS = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
print("ready", flush=True)
for line in sys.stdin:
    given = json.loads(line)
    ids = torch.tensor(given["ids"])
    new = dict(max_new_tokens=given["new"], min_new_tokens=given["new"])
    options = dict(do_sample=False, **new, attention_mask=torch.ones_like(ids), pad_token_id=0)
    began = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        out = model.generate(ids, **options)
    seconds = {"wall": time.perf_counter() - began[0], "cpu": time.process_time() - began[1]}
    print(json.dumps({"seconds": seconds, "ids": out[:, ids.shape[1]:].tolist()}), flush=True)
"""


def save_as_llama(folder: Path, config: ModelConfig, params: Params) -> None:
    """The files that transformers reads."""
    flat = lambda w: np.ascontiguousarray(np.asarray(w, np.float32).reshape(w.shape[0], -1).T)
    tensors = {
        "model.embed_tokens.weight": np.asarray(params["embed"]["tokens"]["w"]),
        "model.norm.weight": np.asarray(params["norm"]["scale"]),
    }
    for i in range(config.layers):
        p, name = jax.tree.map(lambda w: w[i], params["layers"]["0"]), f"model.layers.{i}."
        tensors |= {f"{name}self_attn.{k}_proj.weight": flat(p["attention"][k]["w"]) for k in "qkv"}
        o = np.asarray(p["attention"]["o"]["w"])
        tensors[f"{name}self_attn.o_proj.weight"] = np.ascontiguousarray(
            o.reshape(-1, o.shape[-1]).T
        )
        tensors |= {
            f"{name}mlp.{k}_proj.weight": flat(p["mlp"][k]["w"]) for k in ("gate", "up", "down")
        }
        tensors[f"{name}input_layernorm.weight"] = np.asarray(p["attention_norm"]["scale"])
        tensors[f"{name}post_attention_layernorm.weight"] = np.asarray(p["mlp_norm"]["scale"])
    save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
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


def opened(model: str, folder: Path) -> tuple[Path, Transformer, Params]:
    """(folder for transformers, model, weights): those of a folder, or random ones, which are
    written to `folder`.
    """
    sizes = Path(__file__).parents[2] / "conf" / "model" / f"{model}.yaml"
    if not sizes.is_file():
        run = jaxsft.load(model, "precision=fp32")
        return Path(model), run.run.parts.model, run.params
    config = ModelConfig(**yaml.safe_load(sizes.read_text(encoding="utf-8")))
    m = Transformer(config, VOCAB, "fp32")
    params = nn.meta.unbox(jax.jit(m.init)(jax.random.key(0)))
    save_as_llama(folder, config, params)
    return folder, m, params


def main(
    python: str = sys.executable,
    model: str = "small",
    batches: str = "1,8",
    prompt: int = 64,
    new: int = 64,
    repeats: int = 5,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place, m, params = opened(model, Path(folder))
        command = [python, "-c", THEIRS, str(place)]
        theirs = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if theirs.stdout.readline().strip() != "ready":
            raise SystemExit(f"python={python}: no torch and transformers there")
        for batch in map(int, str(batches).split(",")):
            print(
                f"{Path(model).name}, batch {batch}, load {os.getloadavg()[0]:.1f} on"
                f" {len(os.sched_getaffinity(0))} cores",
                flush=True,
            )
            compare(m, params, theirs, batch, prompt, new, repeats)
        theirs.stdin.close()
        theirs.wait()


def compare(
    m: Transformer,
    params: Params,
    theirs: subprocess.Popen,
    batch: int,
    prompt: int,
    new: int,
    repeats: int,
) -> None:
    prompts = np.random.default_rng(0).integers(SPECIAL, m.vocab, (batch, prompt)).tolist()
    seconds = {"jaxsft": [], "transformers": []}
    for _ in range(repeats + 1):  # the first compiles, and warms both up
        began = {name: clock() for name, clock in CLOCKS.items()}
        ours = [
            a.ids
            for a in generate(
                m,
                params,
                prompts,
                GenerateConfig(batch_size=batch),
                max_new_tokens=new,
                stop_ids=(),
            )
        ]
        seconds["jaxsft"].append({name: clock() - began[name] for name, clock in CLOCKS.items()})
        theirs.stdin.write(json.dumps({"ids": prompts, "new": new}) + "\n")
        theirs.stdin.flush()
        answer = json.loads(theirs.stdout.readline())
        seconds["transformers"].append(answer["seconds"])
    same = sum(a[:AGREE] == b[:AGREE] for a, b in zip(ours, answer["ids"], strict=True))
    assert same >= 0.9 * batch, f"only {same} of {batch} rows agree in their first {AGREE} tokens"
    for clock in CLOCKS:
        median = {
            name: statistics.median(one[clock] for one in values[1:])
            for name, values in seconds.items()
        }
        for name, value in median.items():
            ratio = median["transformers"] / value
            print(
                f"  {clock:<4} {name:<13} {batch * new / value:10,.0f} tokens/s   {ratio:.2f} x"
                " transformers",
                flush=True,
            )


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main(**{k: int(v) if k in ("prompt", "new", "repeats") else v for k, v in options.items()})
