"""Changes the JSON files of model folders and of adapters, and tells where opening them does not do
what it promises.

python -m tools.fuzz_models [cases=1000] [seed=0]

A config.json of a published family (shrunk), a generation_config.json, a
model.safetensors.index.json or an adapter_config.json is changed in one to three places: values of
other types, names, depth, or damage to the text. Reading it ends in a model or in one sentence of
ConfigError or CheckpointError that names the file. A case follows from seed and number.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from jaxsft.config.adapters import LoRA
from jaxsft.errors import JaxsftError
from jaxsft.hf import generation_config, peft_config, peft_read, pretrained_folder
from jaxsft.hf.peft_write import CONFIG, WEIGHTS
from tools.config_fuzz import PUBLISHED, shrink
from tools.fuzz import cut, flip, insert, repeat

SECONDS, LONGEST = 10, 2000
STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    1.5,
    -0.5,
    1e308,
    10**40,
    2**31,
    2**63,
    "",
    "x",
    "0",
    "null",
    "é\u2028",
    "a" * 9999,
)
STRANGE += (
    [],
    {},
    [[]],
    [None],
    [1, "a"],
    {"a": 1},
    {"": None},
    {"rope_type": "linear"},
    {"type": "yarn", "factor": "2"},
    ["full_attention"],
)
STRANGE += ({"full_attention": 3}, ["LlamaForCausalLM"])
ADDED = (
    "quantization_config",
    "is_causal",
    "rope_parameters",
    "id2label",
    "layer_types",
    "x",
    "per_layer_config",
)
GENERATION = {
    "eos_token_id": [2, 3],
    "bos_token_id": 1,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.95,
    "max_length": 99,
}
ADAPTER = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
}
ADAPTER |= {
    "base_model_name_or_path": "a",
    "task_type": "CAUSAL_LM",
    "init_lora_weights": True,
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"layers.1.*": 3.5},
    "modules_to_save": ["score", "norm"],
}
ADAPTER |= {"use_rslora": False, "fan_in_fan_out": False}


class Hang(BaseException):
    """A reader that does not end."""


def _ring(*_: Any) -> None:
    raise Hang


def changed(rng: random.Random, values: dict[str, Any]) -> dict[str, Any]:
    """The values with one thing otherwise: dropped, replaced, renamed, added or buried."""
    out, key = dict(values), rng.choice(list(values) or ["a"])
    how = rng.choice(("drop", "value", "value", "value", "name", "add", "inside", "deep"))
    if how == "drop":
        out.pop(key, None)
    elif how == "value":
        out[key] = rng.choice(STRANGE)
    elif how == "name":
        out[key[: rng.randint(0, len(key))] + rng.choice("_aZ é") + key] = out.pop(key, None)
    elif how == "add":
        out[
            rng.choice(
                (
                    "quantization_config",
                    "is_causal",
                    "rope_parameters",
                    "id2label",
                    "layer_types",
                    "x",
                    "per_layer_config",
                )
            )
        ] = rng.choice(STRANGE)
    elif how == "inside" and isinstance(out.get(key), dict) and out[key]:
        out[key] = changed(rng, out[key])
    else:
        for _ in range(rng.choice((3, 99, 101, 3000)) if how == "deep" else 0):
            out[key] = [out.get(key)]
    return out


def text(rng: random.Random, values: dict[str, Any]) -> bytes:
    """A file of such values; one in five is damaged as a text too."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        values = changed(rng, values)
    try:
        content = json.dumps(values).encode("utf-8", "surrogatepass")
    except RecursionError:
        content = b'{"a":' * 5000 + b"1" + b"}" * 5000
    return rng.choice((flip, cut, insert, repeat))(rng, content) if rng.random() < 0.2 else content


def reader(kind: str, folder: Path) -> Callable[[], Any]:
    """What opens a file of this kind."""
    if kind == "config.json":
        return lambda: pretrained_folder.open_source(folder).model()
    if kind == generation_config.NAME:
        return lambda: generation_config.stop_ids(folder)
    if kind == pretrained_folder.INDEX:
        return lambda: pretrained_folder.Tensors(folder)
    return lambda: peft_config.check(
        folder / CONFIG, peft_read._opened(folder).values, LoRA(rank=4, alpha=8.0)
    )


def check(kind: str, folder: Path) -> str:
    """What went wrong with a file; "" if nothing."""
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        reader(kind, folder)()
    except JaxsftError as error:
        message = str(error)
        if "\n" in message or len(message) > LONGEST:
            return (
                f"an error that is no sentence of one line: {len(message)} characters:"
                f" {message[:300]!r}"
            )
        return "" if str(folder) in message else f"an error without a file: {message[:300]}"
    except Hang:
        return f"no end after {SECONDS} s"
    except Exception:
        return traceback.format_exc(limit=-3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def main(arguments: Sequence[str]) -> int:
    given = dict(argument.split("=", 1) for argument in arguments)
    cases, seed, begin, failed = (
        int(given.get("cases", 1000)),
        int(given.get("seed", 0)),
        time.monotonic(),
        0,
    )
    configs = [
        shrink(values) for values in json.loads(PUBLISHED.read_text(encoding="utf-8")).values()
    ]
    folder = Path(tempfile.mkdtemp(prefix="fuzz_models_"))
    for name in ("a.safetensors", WEIGHTS):
        save_file({"a": np.zeros(1, np.float32)}, folder / name)
    index = {"metadata": {"total_size": 4}, "weight_map": {"a": "a.safetensors"}}
    for number in range(cases):
        rng = random.Random(f"{seed}/{number}")
        kind = rng.choice(
            ("config.json",) * 5 + (generation_config.NAME, pretrained_folder.INDEX, CONFIG)
        )
        others = {
            generation_config.NAME: GENERATION,
            pretrained_folder.INDEX: index,
            CONFIG: ADAPTER,
        }
        values = others[kind] if kind in others else rng.choice(configs)
        for name in (*others, "config.json"):
            (folder / name).unlink(missing_ok=True)
        (folder / kind).write_bytes(text(rng, values))
        if wrong := check(kind, folder):
            failed += 1
            print(
                f"seed={seed} case {number}: {kind}: {(folder / kind).read_bytes()[:300]!r}\n   "
                f" {wrong.strip()}\n",
                flush=True,
            )
    print(f"{cases} cases, {failed} failures, {time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
