"""Says what a folder or a file of other tools is, where a run directory or a model in the layout of
Hugging Face was expected.
"""

from __future__ import annotations

from pathlib import Path


def what_is(path: Path) -> str | None:
    """Returns a clause that says what the path holds instead and what to do with it.

    It follows "it has no such file"; None where the content is unknown. Raises nothing: a
    folder that cannot be listed is unknown.

    Raises nothing: a folder that cannot be listed is nothing known.
    """
    try:
        names = {path.name} if path.is_file() else {file.name for file in path.iterdir()}
    except (OSError, ValueError):
        return None
    if {"adapter_config.json", "adapter_model.safetensors"} & names:
        return (
            "it holds an adapter of PEFT: give its base model as model.pretrained= and this folder"
            " as adapter.start_from="
        )
    if found := _ending(names, ".gguf", ".ggml"):
        return (
            f"{found} is GGUF, which cannot be read: take the folder with config.json and"
            " safetensors that it was made from, or convert it"
        )
    if found := _ending(names, ".onnx", ".tflite", ".mlpackage", ".engine"):
        return (
            f"{found} is a compiled model, which cannot be trained: take the folder with"
            " config.json and safetensors that it was made from"
        )
    if found := _ending(names, ".msgpack", ".h5", ".ckpt.index", ".pth", ".pt", ".bin"):
        return (
            f"{found} holds weights in another format: save the model with transformers'"
            " save_pretrained, which writes config.json and safetensors"
        )
    if "config.json" not in names and (found := _ending(names, ".safetensors")):
        return (
            f"{found} holds weights alone: put the config.json and the tokenizer of its model"
            " beside it"
        )
    return None


def _ending(names: set[str], *ends: str) -> str | None:
    return next((name for name in sorted(names) if name.lower().endswith(ends)), None)
