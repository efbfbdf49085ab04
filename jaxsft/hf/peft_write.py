"""Writes adapters in the format of the library PEFT, with the names of a Hugging Face family.

The files are adapter_config.json and adapter_model.safetensors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsft import rundir
from jaxsft.config.adapters import IA3, AdapterConfig, LowRank, Prefix, Prompt
from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.hf import peft_saved
from jaxsft.hf.families.family import Family, Head, Slot, moves
from jaxsft.hf.families.transforms import Transform
from jaxsft.hf.peft_saved import MERGED
from jaxsft.sharding.weight_spec import Flat, WeightSpec

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LABELS = "labels.json"  # beside them: id2label, label2id and problem_type
ROOT = "base_model.model."
PAIRS = "SEQ_2_SEQ_LM"  # of an encoder-decoder model
# by kind of head
TYPES = {"lm": "CAUSAL_LM", "text": "SEQ_CLS", "tag": "TOKEN_CLS", "span": "QUESTION_ANS"}


class Module(NamedTuple):
    """A linear layer or an embedding of PEFT, and the layers of weights that it is here.

    They are several where it is fused there.

    Attributes:
      parts: path of the module, `layers/3/attention/q`, and the spec of one layer, of each.
    """

    theirs: str
    parts: tuple[tuple[str, WeightSpec], ...]
    how: Transform

    @property
    def spec(self) -> WeightSpec:
        return self.parts[0][1]


def modules(
    family: Family, head: Head | None, specs: Mapping[str, WeightSpec]
) -> dict[str, Module]:
    """Returns every module by our path with the layer's number; fused layers share one."""
    base = {
        path: spec for path, spec in specs.items() if not path.startswith(("adapters/", "head/"))
    }
    own = {path: spec for path, spec in specs.items() if path.startswith("head/")}
    found = [
        *moves(family.table, base, family.prefix_of(head)),
        *(moves(head.table, own) if head else ()),
    ]
    out = {}
    for move in found:
        if move.slots[0].path.endswith("/w"):
            parts = tuple((_numbered(slot), slot.spec) for slot in move.slots)
            out |= dict.fromkeys(
                (path for path, _ in parts),
                Module(move.theirs.removesuffix(".weight"), parts, move.how),
            )
    return out


def _numbered(slot: Slot) -> str:
    """Returns the path of a module, with the number of its layer."""
    keys = slot.path.removesuffix("/w").split("/")
    if "layers" in keys:
        at = keys.index("layers") + 1
        keys[at] = str(int(keys[at]) + slot.index[0])
    return "/".join(keys)


# --- writing
# --------------------------------------------------------------------------------------------------
def write(
    folder: str | Path,
    options: AdapterConfig,
    weights: Flat,
    specs: Mapping[str, WeightSpec],
    model: ModelConfig,
    family: Family,
    head: Head | None = None,
    kind: str | None = None,
    base: str | None = None,
    frozen: Mapping[str, Any] | None = None,
) -> int:
    """Writes the two files; the number of tensors comes back.

    Args:
      weights, specs: of the whole model, flat; what is written are `adapters/`, the head of the
        task, and modules of the base that were trained themselves.
      family, head, kind: as of the base: which names its weights have.
      base: the name or folder of the base, as `base_model_name_or_path`.
      frozen: which weights were not trained, as of `peft_saved.written`; None: all of the base.

    Raises:
      ConfigError: PEFT has no adapter that computes this.
    """
    known = modules(family, head, specs)
    if isinstance(options, LowRank):
        values, tensors = _low_rank(options, weights, known, tied(model, head), family)
    elif isinstance(options, IA3):
        values, tensors = _ia3(weights, known)
    elif isinstance(options, Prefix | Prompt):
        values, tensors = _virtual(options, weights, model)
    else:
        raise ConfigError(
            f"adapter={options.name}: PEFT has no such adapter; export the merged weights"
        )
    common = {
        "base_model_name_or_path": base,
        "inference_mode": True,
        "task_type": PAIRS if model.decoder_layers else TYPES.get(kind or ""),
    }
    saved = _heads(head, weights, specs, kind) | peft_saved.written(
        peft_saved.of_base(family, head, specs),
        weights,
        frozen or {},
        values.get("target_modules", ()),
        tied(model, head),
        family,
    )
    if saved:
        common["modules_to_save"] = sorted({name.rsplit(".", 1)[0] for name in saved})
        tensors |= {ROOT + name: value for name, value in saved.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    from jaxsft.hf import write as exported

    exported.save(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / WEIGHTS
    )
    rundir.write_json(folder / CONFIG, {**values, **common})
    return len(tensors)


def sites(weights: Flat) -> dict[str, dict[str, np.ndarray]]:
    """Returns the leaves of each site by the path of its module, layer by layer."""
    out: dict[str, dict[str, np.ndarray]] = {}
    for path, value in weights.items():
        if path.startswith("adapters/"):
            keys = path.split("/")[1:]
            if "layers" in keys:
                at = keys.index("layers") + 1
                for i in range(value.shape[0]):
                    module = "/".join([*keys[:at], str(int(keys[at]) + i), *keys[at + 1 : -1]])
                    out.setdefault(module, {})[keys[-1]] = np.asarray(value[i])
            else:
                out.setdefault("/".join(keys[:-1]), {})[keys[-1]] = np.asarray(value)
    return out


def module_of(known: Mapping[str, Module], path: str) -> Module:
    if path not in known:
        raise ConfigError(
            f"adapters/{path}: this family has no module of its own for it, so PEFT cannot adapt"
            f" it; {MERGED}"
        )
    return known[path]


def by_module(
    weights: Flat, known: Mapping[str, Module]
) -> dict[str, tuple[Module, dict[str, dict[str, np.ndarray]]]]:
    """Returns each module that has adapters, by its PEFT name, with its parts' leaves by path."""
    out: dict[str, tuple[Module, dict[str, dict[str, np.ndarray]]]] = {}
    for path, leaves in sites(weights).items():
        module = module_of(known, path)
        out.setdefault(module.theirs, (module, {}))[1][path] = leaves
    return out


def _of_outputs(
    module: Module, values: Mapping[str, np.ndarray], other: Callable[[str], Any]
) -> np.ndarray:
    """Returns one value for each output of a module, from those of its parts.

    `other(path)` gives the values of a part without an adapter.
    """
    if len(module.parts) == 1:
        return values[module.parts[0][0]].reshape(-1)
    outputs = [
        WeightSpec(spec.shape[spec.inputs :], spec.dtype, spec.axes[spec.inputs :])
        for _, spec in module.parts
    ]
    given = [values[path] if path in values else other(path) for path, _ in module.parts]
    full = [
        np.broadcast_to(np.ravel(x), math.prod(spec.shape)).reshape(spec.shape)
        for x, spec in zip(given, outputs, strict=True)
    ]
    return module.how.of_bias.to_theirs(full, outputs)


def _stacked(
    module: Module, factors: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `a` [I, R] and `b` [R, O] of a fused module.

    The columns of a lie side by side, and b has a block for each part.
    """
    if len(module.parts) == 1:
        return factors[module.parts[0][0]]
    a = np.concatenate([factors[path][0] for path, _ in module.parts if path in factors], axis=1)
    blocks, specs, start = [], [], 0
    for path, spec in module.parts:
        outputs = spec.shape[spec.inputs :]
        block = np.zeros((a.shape[1], *outputs), np.float32)
        if path in factors:
            rank = factors[path][1].shape[0]
            block[start : start + rank] = factors[path][1].reshape(rank, *outputs)
            start += rank
        blocks.append(block)
        specs.append(WeightSpec(block.shape, block.dtype, ("rank", *spec.axes[spec.inputs :]), 1))
    b = module.how.to_theirs(blocks, specs)
    return a, b.T if module.how.turned else b


def _low_rank(
    options: LowRank,
    weights: Flat,
    known: Mapping[str, Module],
    output: str | None,
    family: Family,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns config and tensors of low-rank adapters.

    A fused layer has the ranks of all of its parts, and the scale of each: `rank_pattern` and
    `alpha_pattern` say so.
    """
    tensors, targets, twice, conv = {}, [], getattr(options, "init", "zero") == "pissa", set()
    rank, ranks, grow = (
        options.rank * (2 if twice else 1),
        {},
        (lambda n: n) if options.scaling == "rank" else math.sqrt,
    )
    for theirs, (module, parts) in by_module(weights, known).items():
        a, b = _stacked(
            module, {path: _factors(leaves, options.rank, twice) for path, leaves in parts.items()}
        )
        name = f"{ROOT}{theirs}"
        if module.spec.inputs:
            conv.add(not module.how.turned)
            tensors |= {f"{name}.lora_A.weight": a.T, f"{name}.lora_B.weight": b.T}
        else:
            peft_saved.check_copies(theirs, family, MERGED)
            tensors |= {f"{name}.lora_embedding_A": a.T, f"{name}.lora_embedding_B": b.T}
            if output:  # the same product, the other way round
                if any("magnitude" in leaves for leaves in parts.values()):
                    raise tied_lengths(theirs, output)
                tensors |= {f"{ROOT}{output}.lora_A.weight": b, f"{ROOT}{output}.lora_B.weight": a}
                targets.append(output)
        if any("magnitude" in leaves for leaves in parts.values()):
            magnitude = {path: np.asarray(leaves["magnitude"]) for path, leaves in parts.items()}
            tensors[f"{name}.lora_magnitude_vector"] = _of_outputs(
                module, magnitude, functools.partial(lengths, weights)
            )
        if a.shape[1] != rank:
            ranks[theirs] = a.shape[1]
        targets.append(theirs)
    alpha = options.alpha * (grow(2) if twice else 1)
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": ranks,
        "alpha_pattern": {name: alpha * grow(more / rank) for name, more in ranks.items()},
        "use_rslora": options.scaling == "sqrt",
        "use_dora": options.name == "dora",
        "lora_dropout": options.dropout,
        "bias": "none",
        "fan_in_fan_out": conv == {True},
        "target_modules": targets,
    }, tensors


def tied_lengths(theirs: str, output: str) -> ConfigError:
    """Returns the error that DoRA of a tied embedding has no form in PEFT."""
    return ConfigError(
        f"adapters/{theirs}: is tied to {output}: DoRA has one length here for each dimension of"
        f" the vectors, on both sides, and PEFT has one for each word in {output}, so no adapter of"
        f" PEFT computes this; {MERGED} (export.adapter=merge), or train adapter=lora, or leave"
        " embed/tokens out of adapter.target"
    )


def _factors(
    leaves: Mapping[str, np.ndarray], rank: int, twice: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `a` [I, R] and `b` [R, O] of a site.

    `twice`: `a b - a0 b0` is a product of twice the rank.
    """
    a, b = (
        np.asarray(leaves["a"], np.float32).reshape(-1, rank),
        np.asarray(leaves["b"], np.float32).reshape(rank, -1),
    )
    if not twice:
        return a, b
    return np.concatenate([a, leaves["a0"].reshape(a.shape)], axis=1), np.concatenate(
        [b, -leaves["b0"].reshape(b.shape)], axis=0
    )


def tied(model: ModelConfig, head: Head | None) -> str | None:
    """Returns the name of the output matrix that an embedding is tied to; None without one."""
    names = [
        entry.theirs.removesuffix(".weight")
        for entry in (head.table if head else ())
        if entry.ours == "head/w"
    ]
    return names[0] if model.tied and names else None


def lengths(weights: Flat, path: str) -> np.ndarray:
    """Computes the column lengths of a base weight: DoRA's magnitude where there is no adapter."""
    keys = path.split("/")
    layer = int(keys[keys.index("layers") + 1])
    stack = "/".join(
        [*keys[: keys.index("layers") + 1], "{}", *keys[keys.index("layers") + 2 :], "w"]
    )
    start = max(n for n in range(layer + 1) if stack.format(n) in weights)
    w = np.asarray(weights[stack.format(start)][layer - start], np.float32)
    return np.sqrt((w.reshape(w.shape[0], -1) ** 2).sum(0))


def _ia3(
    weights: Flat, known: Mapping[str, Module]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    tensors, targets, inner, conv = {}, [], [], set()
    for theirs, (module, parts) in by_module(weights, known).items():
        conv.add(not module.how.turned)
        inputs = all("inputs" in leaves for leaves in parts.values())
        if len(module.parts) > 1:
            _check_inputs(module, parts)
        values = {
            path: np.asarray(leaves["inputs" if inputs else "outputs"], np.float32)
            for path, leaves in parts.items()
        }
        value = (
            next(iter(values.values()))
            if inputs
            else _of_outputs(module, values, lambda path: np.float32(1))
        )
        tensors[f"{ROOT}{theirs}.ia3_l"] = value.reshape(1, -1) if inputs else value.reshape(-1, 1)
        targets.append(theirs)
        inner += [theirs] if inputs else []
    return {
        "peft_type": "IA3",
        "target_modules": targets,
        "feedforward_modules": inner,
        "fan_in_fan_out": conv == {True},
    }, tensors


def _check_inputs(module: Module, parts: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Raises ConfigError: a fused layer has its inputs once, so that factors of them must be those
    of all its parts.
    """
    given = [leaves["inputs"] for leaves in parts.values() if "inputs" in leaves]
    if given and (
        len(given) < len(module.parts) or any(not np.array_equal(x, given[0]) for x in given)
    ):
        raise ConfigError(
            f"adapters/{min(parts)}: is a part of {module.theirs}, which has one input there, and"
            f" its parts have other factors of their inputs; {MERGED}, or leave them out of"
            " adapter.target_inputs"
        )


def _virtual(
    options: Prefix | Prompt, weights: Flat, model: ModelConfig
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    found = sites(weights)
    values = {
        "num_virtual_tokens": options.tokens,
        "num_layers": model.layers,
        "num_attention_heads": model.heads,
        "token_dim": model.embed,
    }
    values["num_transformer_submodules"] = 1
    if isinstance(options, Prompt):
        return {"peft_type": "PROMPT_TUNING", **values}, {
            "prompt_embeddings": (
                np.asarray(found["embed"]["prompt"]) * np.float32(model.embed_scale)
            )
        }
    names, table = prefixes(model)
    if more := sorted(set(found) - set(names)):
        raise ConfigError(
            f"adapters/{more[0]}: in PEFT only {PREFIXED} has a prefix; export is not possible,"
            f" train with adapter.target={ONLY}"
        )
    if missing := [name for name in names if name not in found]:
        raise ConfigError(
            f"adapter.target: {missing[0]} has no prefix, but in PEFT all layers have one; export"
            " is not possible"
        )
    flat = np.zeros((options.tokens, 2 * len(names), model.kv_heads * model.head_dim), np.float32)
    for name, at in zip(names, table, strict=True):
        flat[:, at], flat[:, at + 1] = (
            found[name][leaf].reshape(options.tokens, -1) for leaf in ("prefix_k", "prefix_v")
        )
    for name, at in zip(names, table, strict=True):
        own = [
            np.asarray(found[name][leaf], np.float32).reshape(options.tokens, -1)
            for leaf in ("prefix_k", "prefix_v")
        ]
        if not all(map(np.array_equal, own, (flat[:, at], flat[:, at + 1]))):
            raise ConfigError(
                f"adapters/{name}: in a decoder of {len(names)} layers, an even number, PEFT gives"
                " it the prefix of another layer, and here they differ; export is not possible"
            )
    values |= {
        "num_layers": len(names),
        "num_attention_heads": model.kv_heads,
        "token_dim": model.kv_heads * model.head_dim,
        "num_transformer_submodules": 2 if model.decoder_layers else 1,
        "prefix_projection": False,
        "encoder_hidden_size": None,
    }
    return {"peft_type": "PREFIX_TUNING", **values}, {
        "prompt_embeddings": flat.reshape(options.tokens, -1)
    }


PREFIXED, ONLY = "the decoder's attention to itself", """'["decoder/layers/.*/attention"]'"""


def prefixes(model: ModelConfig) -> tuple[list[str], list[int]]:
    """Returns the modules that have a prefix in PEFT, and the index of each one's keys.

    A token has `2 L` vectors; the values follow the keys.

    In an encoder-decoder model PEFT 0.21 lays the vectors down twice and gives each of L layers
    four, of which the first two are read (`PeftModel.get_prompt`): layer i has number `4 i mod 2
    L`, so with an even L two layers share theirs.
    """
    if not model.decoder_layers:
        return [f"layers/{i}/attention" for i in range(model.layers)], [
            2 * i for i in range(model.layers)
        ]
    n = model.decoder_layers
    return [f"decoder/layers/{i}/attention" for i in range(n)], [4 * i % (2 * n) for i in range(n)]


def _heads(
    head: Head | None, weights: Flat, specs: Mapping[str, WeightSpec], kind: str | None
) -> dict[str, np.ndarray]:
    """Returns the trained head of a task, by the names of its class.

    An output matrix over the vocabulary belongs to the base.
    """
    own = {
        path: spec
        for path, spec in specs.items()
        if path.startswith("head/") and "vocab" not in spec.axes
    }
    if not own:
        return {}
    found = moves(head.table, own) if head else []
    if {slot.path for move in found for slot in move.slots} != set(own):
        raise ConfigError(
            f"task head {', '.join(own)}: the class of transformers for {kind or 'this task'} has"
            " no such head; export is not possible"
        )
    return {
        move.theirs: move.to_theirs(
            [np.asarray(weights[slot.path], np.float32) for slot in move.slots]
        )
        for move in found
    }
