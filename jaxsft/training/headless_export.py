"""What `jaxsft export` writes of a model whose head no class of transformers has: the body for
`AutoModel`, the head beside it in a file of its own, and, where a text becomes one vector, the
layout of sentence-transformers.

    config.json  model.safetensors        the body
    head.json  [head.safetensors]         task, options, what was learnt of the data, and the
      weights of the head by our names
    modules.json  sentence_bert_config.json  1_Pooling/  [2_Dense/]  [2_Normalize/ or 3_Normalize/]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxsft import rundir
from jaxsft.hf import write
from jaxsft.sharding.weight_spec import Flat, WeightSpec
from jaxsft.tasks.task import Task
from jaxsft.tasks.whole_text import TextTask

HEAD, WEIGHTS = "head.json", "head.safetensors"
# of ours, in the words of sentence-transformers
POOLS = {"mean": "mean_tokens", "max": "max_tokens", "first": "cls_token", "last": "lasttoken"}
# the ends of the names of the classes that sentence-transformers makes of a config.json
LOADED = ("Model", "TextModel", "EncoderModel")
MODES = (
    "cls_token",
    "mean_tokens",
    "max_tokens",
    "mean_sqrt_len_tokens",
    "weightedmean_tokens",
    "lasttoken",
)
ACTIVATIONS = {
    "tanh": "Tanh",
    "gelu": "GELU",
    "relu": "ReLU",
    "silu": "SiLU",
    "sigmoid": "Sigmoid",
    "relu6": "ReLU6",
    "leaky_relu": "LeakyReLU",
}
ACTIVATIONS |= {"mish": "Mish", "hardswish": "Hardswish"}


def write_beside(
    folder: Path,
    task: Task,
    weights: Flat,
    specs: Mapping[str, WeightSpec],
    context: int | None,
) -> None:
    """Writes the head and, where `context` (the longest text in tokens) is given and the layout can
    express the head, that of sentence-transformers.
    """
    _write_head(folder, task, weights, specs)
    if context is not None:
        _write_vectors(folder, task, weights, context)


def _write_head(folder: Path, task: Task, weights: Flat, specs: Mapping[str, WeightSpec]) -> None:
    """Writes the head of the task, in float32.

    A weight is `[inputs..., outputs...]`: `y = x @ w + b`.
    """
    own = {
        path.removeprefix("head/"): spec for path, spec in specs.items() if path.startswith("head/")
    }
    about = {
        "task": task.name,
        "options": dataclasses.asdict(task.config.task),
        "learnt": dict(task.state),
        "weights": {
            name: {"shape": list(spec.shape), "inputs": spec.inputs} for name, spec in own.items()
        },
    }
    rundir.write_json(folder / HEAD, about)
    if own:
        write.save(
            {
                name: np.ascontiguousarray(np.asarray(weights[f"head/{name}"], np.float32))
                for name in own
            },
            folder / WEIGHTS,
        )


def _write_vectors(folder: Path, task: Task, weights: Flat, context: int) -> None:
    """Writes the layout of sentence-transformers, where it can express the head.

    It can where the task reads one pooled vector of a text, through nothing or one dense layer with
    a known activation. `context` is the longest text in tokens.
    """
    options = task.config.task
    if (
        not isinstance(task, TextTask)
        or options.pool not in POOLS
        or options.head == "normed"
        or any(p.startswith("head/features") for p in weights)
    ):
        return
    if options.head == "dense" and options.activation not in ACTIVATIONS:
        return
    size = task.config.model.embed
    steps = ["Transformer", "Pooling"]
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{mode}": mode == POOLS[options.pool] for mode in MODES}
    rundir.write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size, **modes}
    )
    if options.head == "dense":
        steps.append("Dense")
        _write_dense(folder / "2_Dense", weights, size, ACTIVATIONS[options.activation])
    if task.apart and not task.width:  # what was trained are cosines
        steps.append("Normalize")
        (folder / f"{len(steps) - 1}_Normalize").mkdir()
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(steps) if i)]
    kinds = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{steps[i]}"}
        for i, path in enumerate(paths)
    ]
    rundir.write_json(folder / "modules.json", kinds)
    rundir.write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": context, "do_lower_case": False}
    )


def _write_dense(folder: Path, weights: Flat, size: int, activation: str) -> None:
    folder.mkdir()
    bias = "head/dense/b" in weights
    about = {
        "in_features": size,
        "out_features": size,
        "bias": bias,
        "activation_function": f"torch.nn.modules.activation.{activation}",
    }
    rundir.write_json(folder / "config.json", about)
    tensors = {
        "linear.weight": np.ascontiguousarray(np.asarray(weights["head/dense/w"], np.float32).T)
    }
    tensors |= {"linear.bias": np.asarray(weights["head/dense/b"], np.float32)} if bias else {}
    write.save(tensors, folder / "model.safetensors")
