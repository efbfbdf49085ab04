"""Makes some hundred edits of the folder of a model, and tells what each of them comes to.

    python -m tools.fuzz_folder FOLDER [PROMPT]

Edits are those that people and programs make: values of another type or size in config.json, JSON
that is cut, marked or in UTF-16, tokens that clash, tensors of other shapes and dtypes, an index
whose shards are missing, templates in several places, links to themselves, folders in place of
files. Each is made in a copy of FOLDER (of one model.safetensors and a tokenizer.json), which then
answers PROMPT. Good is one sentence with exit code 1, or the same answer; other answers are listed,
for some edits make another model. Exit code 1 with a traceback or another exit code.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from jaxsft import cli

Edit = Callable[[Path], object]
TEMPLATE = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
HALVES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SETTINGS: dict[str, Any] = {  # of config.json
    "hidden_size": ("64", 64.0, 65, 10**9, None),
    "num_hidden_layers": (True, [5], 0, 10**7),
    "num_attention_heads": (7, -8),
    "num_key_value_heads": (3, 0),
    "vocab_size": (511, 600),
    "rms_norm_eps": (float("nan"), float("inf"), -1e-5, "1e-5"),
    "rope_theta": (0, -1.0),
    "hidden_act": ("sillu", None),
    "tie_word_embeddings": (False, "true"),
    "attention_bias": (True,),
    "model_type": ("lama", None, 3),
    "architectures": (["LlamaForSequenceClassification"], "LlamaForCausalLM"),
    "quantization_config": ({"quant_method": "gptq", "bits": 4},),
    "rope_scaling": ({"rope_type": "yarnn", "factor": 2}, {"rope_type": "linear", "factor": 0}),
    "max_position_embeddings": (0,),
    "eos_token_id": (9999, -1, [2, "x"]),
}


def write(name: str, content: str | bytes) -> Edit:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def half(name: str) -> Edit:
    return lambda folder: (folder / name).write_bytes(
        (content := (folder / name).read_bytes())[: len(content) // 2]
    )


def encoded(name: str, encoding: str) -> Edit:
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_text(encoding="utf-8").encode(encoding)
    )


def removed(name: str) -> Edit:
    return lambda folder: (folder / name).unlink()


def made_folder(name: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return edit


def linked(name: str) -> Edit:
    """A link to itself."""

    def edit(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(folder / name)

    return edit


def changed(name: str, change: Callable[[dict], object]) -> Edit:
    """A JSON file whose object `change` changes."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return edit


def with_tensor(change: Callable[[dict, str], object]) -> Edit:
    """Weights that `change` changes, given the name of a matrix."""

    def edit(folder: Path) -> None:
        tensors = dict(load_file(folder / WEIGHTS))
        change(tensors, max(k for k, v in tensors.items() if v.ndim == 2 and "embed" not in k))
        save_file(tensors, folder / WEIGHTS)

    return edit


def in_shards(change: Callable[[dict], object], drop: str = "", twice: bool = False) -> Edit:
    """Weights in two shards with an index, whose map from tensors to files `change` changes."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        removed(WEIGHTS)(folder)
        names = sorted(tensors)
        files = dict(zip(HALVES, (names[::2], names[1::2]), strict=True))
        for file, own in files.items():
            more = names[1:2] if twice and file == HALVES[0] else []
            save_file({name: tensors[name] for name in [*own, *more]}, folder / file)
        places = {name: file for file, own in files.items() for name in own}
        change(places)
        index = {"metadata": {}, "weight_map": places}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
        if drop:
            removed(drop)(folder)

    return edit


def added(**token: Any) -> Callable[[dict], object]:
    return lambda content: content["added_tokens"].append(content["added_tokens"][-1] | token)


def edits() -> dict[str, Edit]:
    """Returns the edits by name."""
    out: dict[str, Edit] = {
        f"{key}={value!r}": changed(CONFIG, lambda c, k=key, v=value: c.update({k: v}))
        for key, values in SETTINGS.items()
        for value in values
    }
    for name in (CONFIG, TOKENIZER, "tokenizer_config.json", "generation_config.json", WEIGHTS):
        for change in (half, removed, made_folder, linked):
            out[f"{change.__name__} {name}"] = change(name)
        out |= {f"empty {name}": write(name, ""), f"list {name}": write(name, "[]")}
        if name != WEIGHTS:
            out |= {f"{e} {name}": encoded(name, e) for e in ("utf-16", "utf-8-sig")}
    out |= {
        "key twice": lambda f: (f / CONFIG).write_text(
            '{"vocab_size": 3, ' + (f / CONFIG).read_text().lstrip(" {\n")
        ),
        "two tokens of a name": changed(TOKENIZER, added(id=300)),
        "two tokens of an id": changed(TOKENIZER, added(content="<new>")),
        "a token far away": changed(TOKENIZER, added(content="<new>", id=99999)),
        "id below 0": changed(TOKENIZER, lambda c: c["model"]["vocab"].update(zz=-1)),
        "unknown eos": changed("tokenizer_config.json", lambda c: c.update(eos_token="<end>")),
        "broken template": changed(
            "tokenizer_config.json", lambda c: c.update(chat_template="{% for %}")
        ),
        "template in a file": write("chat_template.jinja", TEMPLATE),
        "empty template": write("chat_template.jinja", ""),
        "template folder": made_folder("chat_template.jinja"),
        "map as a list": write("special_tokens_map.json", "[1]"),
        "map of an unknown token": write("special_tokens_map.json", '{"eos_token": "<nope>"}'),
        "added otherwise": write("added_tokens.json", '{"<x>": 2}'),
        "eos without a row": write("generation_config.json", '{"eos_token_id": 999999}'),
        "tensor missing": with_tensor(lambda t, name: t.pop(name)),
        "tensor more": with_tensor(lambda t, name: t.update({"model.layers.99.x": t[name] + 1})),
        "tensor flat": with_tensor(lambda t, name: t.update({name: t[name].ravel()})),
        "whole numbers": with_tensor(lambda t, name: t.update({name: t[name].astype(np.int32)})),
        "float64": with_tensor(lambda t, name: t.update({name: t[name].astype(np.float64)})),
        "not a number": with_tensor(lambda t, name: t.update({name: t[name] * np.nan})),
        "shards": in_shards(lambda m: None),
        "shard missing": in_shards(lambda m: None, drop=HALVES[1]),
        "tensor in two shards": in_shards(lambda m: None, twice=True),
        "shard elsewhere": in_shards(lambda m: m.update({min(m): "../../etc/passwd"})),
        "shard by number": in_shards(lambda m: m.update({min(m): 3})),
        "tensor of no shard": in_shards(lambda m: m.update({"model.x": HALVES[0]})),
    }
    return out


def opened(source: Path, edit: Edit | None, prompt: str) -> tuple[int, str]:
    """Returns the exit code and all output of an answer of the edited copy of a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "model", io.StringIO()
        folder.mkdir()
        for file in source.iterdir():
            shutil.copyfile(file, folder / file.name)
        if edit is not None:
            edit(folder)
        words = [f"run={folder}", f"prompt={prompt}", "generate.max_new_tokens=8"]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code = cli.main(["generate", *words])
            except Exception:
                return 70, traceback.format_exc()[-400:]
    return code, out.getvalue().replace(str(folder), "FOLDER")


def outcome(source: Path, edit: Edit, prompt: str, reference: str) -> tuple[str, str]:
    """Returns (named | same | another | failed, what was said)."""
    code, said = opened(source, edit, prompt)
    told = [line for line in said.splitlines() if line.startswith("jaxsft: ")]
    if code == 1 and len(told) == 1 and "Traceback" not in said:
        return "named", told[0]
    return ("failed" if code else "same" if said == reference else "another"), said


def main() -> int:
    source, prompt = Path(sys.argv[1]), (sys.argv[2:] or ["Once upon a time"])[0]
    code, reference = opened(source, None, prompt)
    assert code == 0, reference
    counts: dict[str, int] = {}
    for name, edit in edits().items():
        kind, said = outcome(source, edit, prompt, reference)
        counts[kind] = counts.get(kind, 0) + 1
        print(f"{kind:8}{name}: {said if kind != 'same' else ''}".rstrip()[:600], flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    return 1 if "failed" in counts else 0


if __name__ == "__main__":
    sys.exit(main())
