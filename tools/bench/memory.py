"""Peak memory of loading a language model and answering with it, beside that of transformers: one
process each, from the same folder.

python -m tools.bench.memory [python=PATH] [model=SIZES|FOLDER] [dtype=fp32|bf16] [new=16]

python= is an interpreter that has torch and transformers; without it only our number is told.
model= is a folder in the layout of Hugging Face, or sizes as
`layers=16,embed=1024,heads=16,kv_heads=8,head_dim=64,mlp=4096,vocab=32000`, of which a Llama with
random weights is written, in shards.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from jaxsft.data.tokenizers.tokenizer import Tokenizer

SIZES = "layers=16,embed=1024,heads=16,kv_heads=8,head_dim=64,mlp=4096,vocab=32000"  # 284 M
DTYPES = {"fp32": np.float32, "bf16": ml_dtypes.bfloat16}
# Of Linux, and not `ru_maxrss`, which begins with the size of the process that started this one.
PEAK = "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024)"
OURS = f"""
import sys, jaxsft
model = jaxsft.load(sys.argv[1])
model.generate(["one line"], max_new_tokens=int(sys.argv[2]))
{PEAK}
"""
THEIRS = f"""
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    ids = torch.tensor([[5, 6, 7, 8]])
    model.generate(ids, do_sample=False, max_new_tokens=int(sys.argv[2]), pad_token_id=0)
{PEAK}
"""


def tensors(sizes: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor of a Llama."""
    d, mlp = sizes["embed"], sizes["mlp"]
    yield "model.embed_tokens.weight", (sizes["vocab"], d)
    for i in range(sizes["layers"]):
        name = f"model.layers.{i}."
        for key, heads in (("q", "heads"), ("k", "kv_heads"), ("v", "kv_heads")):
            yield f"{name}self_attn.{key}_proj.weight", (sizes[heads] * sizes["head_dim"], d)
        yield f"{name}self_attn.o_proj.weight", (d, sizes["heads"] * sizes["head_dim"])
        yield from ((f"{name}mlp.{key}_proj.weight", (mlp, d)) for key in ("gate", "up"))
        yield f"{name}mlp.down_proj.weight", (d, mlp)
        yield from ((f"{name}{key}_layernorm.weight", (d,)) for key in ("input", "post_attention"))
    yield "model.norm.weight", (d,)


def write(folder: Path, sizes: dict[str, int], dtype: str) -> int:
    """Writes a Llama with random weights and the tokenizer of bytes, a shard for each tensor's file
    of a layer; its bytes come back.
    """
    rng, files, total = np.random.default_rng(0), {}, 0
    shards: dict[str, dict[str, np.ndarray]] = {}
    for name, shape in tensors(sizes):
        file = f"model-{name.split('.')[2] if 'layers' in name else 'rest'}.safetensors"
        value = (
            np.ones(shape, np.float32)
            if len(shape) == 1
            else 0.02 * rng.standard_normal(shape, np.float32)
        )
        shards.setdefault(file, {})[name] = value.astype(DTYPES[dtype])
        files[name], total = file, total + value.size * np.dtype(DTYPES[dtype]).itemsize
        if file != "model-rest.safetensors" and name.endswith("post_attention_layernorm.weight"):
            save_file(shards.pop(file), folder / file, {"format": "pt"})
    for file, values in shards.items():
        save_file(values, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": files})
    )
    about = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": sizes["embed"],
        "intermediate_size": sizes["mlp"],
    }
    about |= {
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
    }
    about |= {
        "head_dim": sizes["head_dim"],
        "vocab_size": sizes["vocab"],
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
    }
    about |= {
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": {"fp32": "float32", "bf16": "bfloat16"}[dtype],
    }
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
    Tokenizer.bytes().save(folder)
    return total


def peak(python: str, code: str, folder: Path, new: int) -> int:
    """Bytes that a process had in memory at most, mapped pages of files among them."""
    found = subprocess.run(
        [python, "-c", code, str(folder), str(new)], stdout=subprocess.PIPE, check=True, text=True
    )
    return int(found.stdout.strip().splitlines()[-1])


def main(
    python: str | None = None, model: str = SIZES, dtype: str = "fp32", new: int = 16
) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(model) if Path(model).is_dir() else Path(made)
        if folder == Path(made):
            write(
                folder,
                {
                    key: int(value)
                    for key, value in (entry.split("=") for entry in model.split(","))
                },
                dtype,
            )
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        peaks = {"weights": size, "jaxsft": peak(sys.executable, OURS, folder, new)}
        if python is not None:
            peaks["transformers"] = peak(python, THEIRS, folder, new)
    for name, value in peaks.items():
        print(f"{name:<13}{value / 2**30:7.2f} GiB   {value / size:5.2f} x the weights", flush=True)
    return peaks


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main(**{key: int(value) if key == "new" else value for key, value in options.items()})
