"""Finds the keys of config.json that the classes of each family read, in the sources of the
installed transformers.

    python -m tools.config_keys check    compares them with jaxsft/hf/families/reads.py, for a
      new version of transformers
    python -m tools.config_keys write    writes them there

A key is read where the modeling files of a family, or what every model shares, look at an attribute
of a config (`config.name`, `getattr(config, "name")`), where a config class looks at its own, takes
it from its keyword arguments, declares it as a field, or has a setter for it. Other names of a key
(`attribute_map`) are read as the key is. Needs transformers; it imports config classes only, no
torch.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxsft.hf import families

TARGET = Path(families.__file__).with_name("reads.py")
# What code that models share reads of a config and can change numbers by: of every family, of those
# with rotary positions, of those with a causal mask (and, for generation, a cache of keys and
# values). `tools/config_fuzz.py` is what shows that the rest of it changes none.
SHARED = """
architectures model_type dtype torch_dtype attn_implementation output_attentions
output_hidden_states return_dict chunk_size_feed_forward
gradient_checkpointing initializer_range is_encoder_decoder id2label label2id num_labels
problem_type tie_word_embeddings quantization_config
per_layer_config is_causal pad_token_id bos_token_id eos_token_id sep_token_id vocab_size
"""
ROTARY = (
    "rope_parameters rope_scaling rope_theta partial_rotary_factor original_max_position_embeddings"
)
CAUSAL = "attention_chunk_size sliding_window layer_types kv_sharing_modes"

SIMPLE = (int, float, bool, str, type(None))  # defaults that the table keeps
# of classes beside those of text in the same file
OF_IMAGES = {"text_config", "vision_config", "image_token_id", "mm_tokens_per_image"}


def is_config(node: ast.expr) -> bool:
    name = (
        node.id
        if isinstance(node, ast.Name)
        else node.attr
        if isinstance(node, ast.Attribute)
        else ""
    )
    return name.endswith("config") and not name.startswith("vision")


def attributes(tree: ast.AST, own: bool) -> Iterator[str]:
    """Names that a source reads of a config; `own`: it is that of config classes, so that `self` is
    one and fields are declared.
    """
    is_self = lambda node: own and isinstance(node, ast.Name) and node.id == "self"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (is_config(node.value) or is_self(node.value)):
            yield node.attr
        elif isinstance(node, ast.Call):
            yield from _by_call(node, is_self, own)
        elif (
            own
            and isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and "ClassVar" not in ast.dump(node.annotation)
        ):
            yield node.target.id


def _by_call(node: ast.Call, is_self: Any, own: bool) -> Iterator[str]:
    """Of `getattr(config, "name")`, and of `kwargs.pop("name")` in a config class."""
    words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if not words:
        return
    if (
        isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr")
        and (is_config(node.args[0]) or is_self(node.args[0]))
    ):
        yield words[0]
    taken = (
        isinstance(node.func, ast.Attribute)
        and node.func.attr in ("pop", "get")
        and isinstance(node.func.value, ast.Name)
    )
    if own and taken and node.func.value.id == "kwargs":
        yield words[0]


def of_file(path: Path, own: bool, only: str | None = None) -> set[str]:
    """The names of a source; `only`: of the classes whose name contains it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = (
        [tree]
        if only is None
        else [n for n in tree.body if isinstance(n, ast.ClassDef) and only in n.name]
    )
    return {name for part in parts for name in attributes(part, own)}


def config_class(model_type: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def setters(cls: type) -> set[str]:
    """Returns the names that a config class gives a setter of its own: a key of that name changes
    another one (`sliding_window` of ModernBERT, which is half of `local_attention`). Those of the
    base class are in SHARED and ROTARY.
    """
    base = importlib.import_module("transformers").PretrainedConfig
    classes = [one for one in cls.__mro__ if issubclass(one, base) and one is not base]
    return {
        name
        for one in classes
        for name, value in vars(one).items()
        if isinstance(value, property) and value.fset is not None
    }


def keys_of(model_type: str) -> tuple[set[str], dict[str, str]]:
    """(what the classes of a family read, each `key` or `key=default`, other names of keys)."""
    cls = config_class(model_type)
    source = Path(importlib.import_module(cls.__module__).__file__)
    models = list(source.parent.glob("modeling_*.py"))
    fields = {field.name for field in dataclasses.fields(cls)}
    own = set().union(*(of_file(path, False) for path in models)) | of_file(
        source, True, cls.__name__
    )
    set_by_code = setters(cls)
    # methods, and properties that no key of a file can set
    code = {name for name in own - fields - set_by_code if hasattr(cls, name)}
    own = {
        name
        for name in (own - code) | fields | set_by_code
        if not name.startswith("_") and name == name.lower()
    } - OF_IMAGES
    shared = f"{SHARED} {ROTARY if 'rope_parameters' in fields else ''} "
    shared += (
        CAUSAL
        if any("create_causal_mask" in path.read_text(encoding="utf-8") for path in models)
        else ""
    )
    default = {
        f.name: f"{f.name}={json.dumps(f.default)}"
        for f in dataclasses.fields(cls)
        if isinstance(f.default, SIMPLE)
    }
    return {
        default.get(key, key)
        for key in (
            own | set(shared.split()) | set(cls.attribute_map) | set(cls.attribute_map.values())
        )
    }, dict(cls.attribute_map)


def found() -> tuple[str, dict[str, set[str]], dict[str, dict[str, str]]]:
    """(version, keys by family, other names of keys by family)."""
    import transformers

    both = {name: keys_of(name) for name in families.FAMILIES}
    return (
        transformers.__version__,
        {n: reads for n, (reads, _) in both.items()},
        {n: other for n, (_, other) in both.items() if other},
    )


def text(version: str, reads: dict[str, set[str]], aliases: dict[str, dict[str, str]]) -> str:
    """The source of reads.py."""
    wrap = lambda words: "\n".join(
        textwrap.wrap(" ".join(sorted(words)), 98, break_on_hyphens=False, break_long_words=False)
    )
    shared = set.intersection(*reads.values())
    decoders = [
        name for name, words in reads.items() if {"rope_theta", "kv_sharing_modes"} <= words
    ]
    common = set.intersection(*(reads[name] for name in decoders)) - shared
    own = {
        name: words - shared - (common if name in decoders else set())
        for name, words in reads.items()
    }
    lines = [
        '"""The keys of config.json that the classes of transformers read, by family.',
        "",
        "Made by `python -m tools.config_keys write`.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        f'VERSION = "{version}"  # of transformers',
        f'SHARED = """\n{wrap(shared)}\n"""',
        f'ROTARY_DECODERS = """\n{wrap(common)}\n"""  # which say so by `+`',
        "_OWN = {",
        *(
            f'    "{name}": """{"+" * (name in decoders)}\n{wrap(words)}\n""",'
            for name, words in own.items()
        ),
        "}",
        "READS: dict[str, frozenset[str]] = {  # key or key=default",
        '    name: frozenset(f"{SHARED} {words}".replace("+", ROTARY_DECODERS).split())',
        "    for name, words in _OWN.items()",
        "}",
        "ALIASES: dict[str, dict[str, str]] = {  # other names of keys",
        *(
            f'    "{name}": {{\n'
            + "".join(f'        "{a}": "{b}",\n' for a, b in other.items())
            + "    },"
            for name, other in aliases.items()
        ),
        "}",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    version, reads, aliases = found()
    if list(arguments) == ["write"]:
        TARGET.write_text(text(version, reads, aliases), encoding="utf-8")
        print(f"{TARGET}: keys of {len(reads)} families, transformers {version}")
        return 0
    known = importlib.import_module("jaxsft.hf.families.reads")
    differs = 0
    for name, now in reads.items():
        before = known.READS.get(name, frozenset())
        for what, names in (("is new", now - before), ("is gone", before - now)):
            differs += len(names)
            print("".join(f"{name}: {key} {what}\n" for key in sorted(names)), end="")
    differs += aliases != known.ALIASES
    print(f"transformers {version}, table of {known.VERSION}: {differs} differences")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
