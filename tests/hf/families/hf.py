"""Small models in the layout of Hugging Face, for tests: the golden ones of
tools/golden/families.py, written out.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from jaxsft.config.schema import MeshConfig
from jaxsft.hf import pretrained_folder, read
from jaxsft.models.attention import TokenInfo
from jaxsft.models.heads import VocabHead
from jaxsft.models.heads_mlm import MaskedHead
from jaxsft.models.transformer import Transformer
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.weights import flatten, specs
from tools.golden.families import weights

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def golden(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(config, shapes, seed and context; token ids and outputs) of a case."""
    about = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return about, dict(np.load(GOLDEN / f"{name}.npz"))


def kind(about: dict[str, Any]) -> str | None:
    """Of the head that the class of a case has."""
    if about["class"].endswith("ForMaskedLM"):
        return "mlm"
    return "lm" if about["class"].endswith(("ForCausalLM", "LMHeadModel")) else None


def one_text(length: int) -> TokenInfo:
    return TokenInfo(jnp.ones((1, length), jnp.int32), jnp.arange(length, dtype=jnp.int32)[None])


def write(
    name: str, folder: Path, dtype: str = "F32", drop: tuple[str, ...] = (), **changes: Any
) -> Path:
    """The folder of a case; `changes` of its config (None: the key is left out)."""
    about, _ = golden(name)
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        key: value
        for key, value in (about["config"] | changes).items()
        if value is not None or key not in changes
    }
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    tensors = {
        key: value.astype(DTYPES[dtype])
        for key, value in weights(about["shapes"], about["seed"]).items()
        if key not in drop
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(
    folder: Path,
    head_kind: str | None = None,
    context: int | None = None,
    mesh: MeshConfig | None = None,
) -> tuple[Transformer, Any]:
    """The model of a folder, and its weights."""
    source = pretrained_folder.open_source(folder)
    config = source.model(context)
    head = None
    if head_kind == "lm" and (config.head_bias or not config.tied):
        head = VocabHead(
            config.embed, config.vocab_rows, "fp32", matrix=not config.tied, bias=config.head_bias
        )
    if head_kind == "mlm":
        config = dataclasses.replace(config, head_bias=True)
        head = MaskedHead(config, config.vocab_rows, "fp32", "gelu")
    placed = None if mesh is None else meshes.make_mesh(mesh)
    model = Transformer(config, config.vocab_rows, "fp32", head, placed)
    declared = specs(jax.eval_shape(model.init, jax.random.key(0)))
    place = None if placed is None else flatten(meshes.shardings(declared, placed))
    empty = {
        path: jnp.zeros(spec.shape, spec.dtype, device=place and place[path])
        for path, spec in flatten(declared).items()
    }
    todo = read.plan(source, flatten(declared), head_kind)
    assert not todo.fresh
    values = read.load(source, todo, empty)
    return model, jax.tree.unflatten(jax.tree.structure(declared), [values[path] for path in empty])
