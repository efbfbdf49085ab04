"""Runs that start from a folder in the layout of Hugging Face: its architecture, its weights, and
what a run keeps of it for `jaxsft export`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxsft import halves, patterns, remote, rundir
from jaxsft.config.model import Computation, StartingPoint
from jaxsft.config.schema import Config, ModelConfig, PretrainedTokenizer
from jaxsft.data import hub
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import read as pretrained
from jaxsft.hf import trained_heads, write
from jaxsft.hf.families.family import Head
from jaxsft.models.model_base import Params
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.weights import Flat, flatten
from jaxsft.training.components import Components

MODULES = "modules.json"  # in a folder of sentence-transformers
NAME = "pretrained.json"  # in a run directory: what it started from
# stay the user's
USERS = tuple(f.name for part in (Computation, StartingPoint) for f in dataclasses.fields(part))
# read where logits over the vocabulary are made
OF_VOCABULARY = ("tied", "head_bias", "logit_softcap")


def like(config: Config, folder: Path, reader: Tokenizer) -> Config:
    """Returns the config with the architecture and the tokenizer of a folder.

    Raises ConfigError: an option changes nothing there, or the tokenizer is of another model.
    """
    source = pretrained.open_source(folder, config.model.part)
    config = with_head_of_class(config, source)
    task = config.task
    found = longer(config.model, architecture(config, source))
    if config.model.bidirectional and not found.causal and not found.decoder_layers:
        raise ConfigError(
            f"model.bidirectional=True: a token of model.pretrained={config.model.pretrained} sees"
            " the whole text already; leave it out"
        )
    # Added tokens may lie beyond the rows: a padding token that only the tokenizer has. What texts
    # are made of may not.
    if (
        config.model.init != "scratch"
        and (tokens := int(reader.ordinary().max(initial=-1)) + 1) > found.vocab_rows
    ):
        raise ConfigError(
            f"model.pretrained={config.model.pretrained}: the tokenizer makes texts of {tokens}"
            f" tokens, the embedding of the model has {found.vocab_rows} rows, so they belong to"
            " different models; put the model's own tokenizer there"
        )
    found = dataclasses.replace(
        found, vocab_rows=max(found.vocab_rows, reader.vocab_size + len(config.tokenizer.added))
    )
    tokenizer = PretrainedTokenizer(path=config.model.pretrained, added=config.tokenizer.added)
    if found.decoder_layers and getattr(task, "start", ()) is None:
        config = dataclasses.replace(config, task=dataclasses.replace(task, start=_start(source)))
    return dataclasses.replace(config, model=found, tokenizer=tokenizer)


def with_head_of_class(config: Config, source: pretrained.PretrainedFolder) -> Config:
    """Returns the config with the head of the folder's class, where no option of a head was given.

    So what is trained can be exported, and a trained head or a pooler is taken. A folder of
    sentence-transformers keeps the default, a mean, for that is how its vectors were made.
    """
    task, kind = config.task, config.task.spec.head
    head = source.family.heads.get(kind)
    if (
        head is None
        or kind == "lm"
        or getattr(task, "encoder", "cross") != "cross"
        or (kind == "text" and (source.folder / MODULES).is_file())
    ):
        return config
    own = (
        trained_heads.of_masked(source.family, source.values, task)
        if kind == "mlm"
        else trained_heads.options_of(head, source.values, type(task))
    )
    # an option against it is an error later, which names it
    trained = (trained_heads.head_of(source.family, source.values) or (None,))[0] == kind
    return _unless_given(
        config, head, own, f"{source.family.architecture}{head.suffix}", always=trained
    )


def with_head_of_family(config: Config) -> Config:
    """Returns the config of a model from scratch with the head that its family has in transformers.

    Applies to models that read in both directions, where a family has all options of the model and
    no option of a head was given; otherwise the config comes back unchanged.
    """
    task, kind = config.task, config.task.spec.head
    if (
        not config.unasked
        or config.model.causal
        or config.model.decoder_layers
        or config.model.kind != "transformer"
    ):
        return config
    head = (
        write.class_of(config.model, kind)
        if kind in ("text", "tag", "span") and getattr(task, "encoder", "cross") == "cross"
        else None
    )
    return (
        config
        if head is None
        else _unless_given(
            config, head, trained_heads.nearest_options(head, task), f"...{head.suffix}"
        )
    )


def _unless_given(
    config: Config, head: Head, own: Mapping[str, Any], name: str, always: bool = False
) -> Config:
    """Returns the config with these options of the task, where nobody gave them.

    If an option was given that the class does not compute with, the others would not make that
    class either, and the task stays as it is (but for `always`). `Config.origins` says that they
    are those of the class `name`.
    """
    task, unasked = config.task, dict(config.unasked)
    standard = type(task)()
    nobody = lambda name: (
        f"task.{name}" in unasked if unasked else getattr(task, name) == getattr(standard, name)
    )
    other = lambda key, value: (
        key in head.options
        and key != "bias"
        and getattr(task, key) not in (head.options[key], value, *_several(head, key))
    )
    if not always and any(not nobody(key) and other(key, value) for key, value in own.items()):
        return config
    chosen = {key: value for key, value in own.items() if nobody(key)}
    told = tuple(
        (f"task.{key}", f"as {name}")
        for key, value in chosen.items()
        if value != getattr(task, key)
    )
    return dataclasses.replace(
        config, task=dataclasses.replace(task, **chosen), origins=(*config.origins, *told)
    )


def _several(head: Head, key: str) -> tuple[Any, ...]:
    return head.options[key] if isinstance(head.options[key], tuple) else ()


def _start(source: pretrained.PretrainedFolder) -> list[str] | None:
    """Returns the tokens that the decoder was trained to start from; None where none are named.

    They are the `decoder_start_token_id`, and bos where the tokenizer has another one, for a target
    is framed as a source is. Raises ConfigError where the id is no special token.
    """
    first, tokenizer = source.values.get("decoder_start_token_id"), Tokenizer.load(source.folder)
    if first is None:
        return None
    names = {token["id"]: content for content, token in tokenizer.added.items()}
    if first not in names:
        raise ConfigError(
            f"{source.folder / 'config.json'}: decoder_start_token_id={first} is no special token"
            " of the tokenizer"
        )
    return [
        names[first],
        *([names[tokenizer.bos_id]] if tokenizer.bos_id not in (None, first) else []),
    ]


def architecture(config: Config, source: pretrained.PretrainedFolder) -> ModelConfig:
    """Returns the model of a folder as the task uses it.

    It has no output over the vocabulary where the task has none.
    """
    found, own = source.model(config.model.context), own_options(config)
    if config.task.spec.head == "mlm":
        own |= {"head_bias": True}  # of BERT's head; no config.json speaks of it
    return dataclasses.replace(found, **own)


def own_options(config: Config) -> dict[str, Any]:
    """Returns the options that a run does not take from its source.

    They are those of the user (`USERS`), and the defaults of an output over the vocabulary where
    the task has none.
    """
    own = {name: getattr(config.model, name) for name in USERS}
    if config.task.spec.head not in ("lm", "mlm"):
        standard = ModelConfig()
        own |= {name: getattr(standard, name) for name in OF_VOCABULARY}
    return own


def longer(asked: ModelConfig, found: ModelConfig) -> ModelConfig:
    """Returns a pretrained architecture with the RoPE scaling that is asked for, and its context.

    Raises ConfigError where positions are not rotary.
    """
    if asked.rope_scaling.kind == "none" or asked.rope_scaling == found.rope_scaling:
        return found
    if found.positions != "rope":
        raise ConfigError(
            f"model.rope_scaling.kind={asked.rope_scaling.kind}: the model of model.pretrained has"
            " no rotary positions"
        )
    return dataclasses.replace(
        found, rope_scaling=asked.rope_scaling, context=max(asked.context, found.context)
    )


def differs(a: ModelConfig, b: ModelConfig) -> tuple[str, Any, Any] | None:
    """Returns (name, value in a, value in b) of the first option that differs.

    Returns None where none does. The rows of the vocabulary are not compared; lists and tuples of
    the same numbers are equal.
    """
    one, other = (json.loads(rundir.json_text(dataclasses.asdict(model))) for model in (a, b))
    return next(
        (
            (name, one[name], other[name])
            for name in one
            if name != "vocab_rows" and one[name] != other[name]
        ),
        None,
    )


def folder_of(config: Config) -> Path | None:
    """Returns the folder that `model.pretrained` names; None where it is none in this layout."""
    if not config.model.pretrained:
        return None
    folder = remote.opened(str(hub.run_dir(config.model.pretrained)))
    return folder if pretrained.is_source(folder) else None


def starting(
    parts: Components, folder: Path, fresh: Mapping[str, Any], rounded: bool = False
) -> Params:
    """Initialises parameters on the mesh and fills them from the files, tensor by tensor.

    Args:
      fresh: by path, whether its weight (or, of a stack, which layers) keeps its initial values.
      rounded: the weights of linear layers are rounded to bfloat16 (`products.ROUNDED`), for a
        model that is not trained; of a large one that writes, on one device, they are held so
        (`halves`).

    Raises:
      CheckpointError: a tensor is missing, additional or of another shape; or config.json is
        another one than the run was started with.
    """
    source = pretrained.open_source(folder, parts.config.model.part)
    if other := differs(
        longer(parts.config.model, architecture(parts.config, source)), parts.config.model
    ):
        name, now, before = other
        raise CheckpointError(
            f"{folder / 'config.json'}: says model.{name}={now!r}, the run was started with"
            f" model.{name}={before!r}"
        )
    todo = plan(parts, source)
    keep = {path: value for path, value in fresh.items() if np.any(value)}
    specs = flatten(parts.specs)
    rounds = narrow(parts, source, todo) if rounded else set()
    large = sum(math.prod(specs[path].shape) for path in rounds) >= halves.LARGE
    # one that only reads texts has many states a product, whose speed is worth more
    writes = parts.config.task.spec.has_lm_head
    bits = rounds if large and writes and parts.mesh.size == 1 else ()
    weights = initial(parts, {*todo.fresh, *keep}, bits)
    weights = pretrained.load(source, todo, weights, keep, rounds)
    return jax.tree.unflatten(jax.tree.structure(parts.specs), [weights[path] for path in specs])


def narrow(
    parts: Components, source: pretrained.PretrainedFolder, todo: pretrained.LoadPlan
) -> set[str]:
    """Returns the paths of weights that lose nothing when held in bfloat16 under precision=bf16.

    They are those that products round anyway, and those over the vocabulary whose files hold
    bfloat16.
    """
    vocabulary = {"embed/tokens/w"}
    if parts.config.task.spec.has_lm_head:
        vocabulary.add("head/w")
    return pretrained.read_by_products(flatten(parts.specs)) | {
        slot.path
        for move in todo.moves
        for slot in move.slots
        if slot.path in vocabulary and source.tensors.dtype(move.theirs) == "BF16"
    }


def plan(parts: Components, source: pretrained.PretrainedFolder) -> pretrained.LoadPlan:
    """Returns the plan that says what becomes of every tensor; a head that starts anew takes none.

    Raises ConfigError and CheckpointError, as `pretrained.plan`.
    """
    specs, wanted = flatten(parts.specs), asked(parts)
    if resets_head(parts):
        return pretrained.plan(source, specs, None)
    return pretrained.plan(source, specs, wanted.kind, wanted)


def asked(parts: Components) -> trained_heads.Asked:
    """Returns what the task needs of a trained head: its kind, options and labels."""
    state = parts.task.state
    names = state.get("labels") or state.get("targets")
    return trained_heads.Asked(parts.config.task.spec.head, parts.config.task, names)


def resets_head(parts: Components) -> bool:
    """Returns whether the head of the task starts anew, whatever the files have."""
    given = resets(parts.config)
    head = [path for path in flatten(parts.specs) if path.startswith("head/")]
    return bool(head) and (
        parts.config.model.init == "scratch"
        or all(any(patterns.full(one, path, "train.init_fresh") for one in given) for path in head)
    )


def resets(config: Config) -> list[str]:
    """Returns the patterns of weights that keep their initial values.

    They are those of `train.init_fresh` and of `model.init=reset:PATTERN`.
    """
    reset = (
        config.model.init.removeprefix("reset:") if config.model.init.startswith("reset:") else None
    )
    return [*config.train.init_fresh, *([reset] if reset is not None else [])]


def initial(parts: Components, wanted: set[str], bits: Collection[str] = ()) -> Flat:
    """Computes the initial values of the weights `wanted`, by path, and zeros for all others.

    Zeros cost nothing to make, and are overwritten. Weights in `bits` are packed as `halves` are
    held.
    """
    place = flatten(meshes.shardings(parts.specs, parts.mesh))

    def init(key: jax.Array) -> Flat:
        values = flatten(nn.meta.unbox(parts.model.init(key)))
        return {
            path: value if path in wanted else jnp.zeros_like(value)
            for path, value in (
                (path, halves.pack(value) if path in bits else value)
                for path, value in values.items()
            )
        }

    key = ("initial", frozenset(wanted), frozenset(bits))
    run = parts.compiled(key, lambda: jax.jit(init, out_shardings=place))
    return run(jax.random.key(parts.config.seeds.init))


# --- what a run keeps
# --------------------------------------------------------------------------------------------------
def facts(parts: Components, other: Callable[[str], Path]) -> dict[str, Any] | None:
    """Returns the facts that `pretrained.json` of a run holds.

    Returns None where nothing came from a folder in this layout. The facts are: folder, config and
    generation (config.json and generation_config.json as they were), tensors ({name: [dtype,
    shape]}), and fresh, left and head (of `pretrained.LoadPlan`).
    """
    config = parts.config
    if (folder := folder_of(config)) is None:
        before = config.train.init_from or config.model.pretrained
        path = other(before) / NAME if before else None
        return (
            rundir.read_json(path) | {"head": None} if path is not None and path.is_file() else None
        )
    source = pretrained.open_source(folder, config.model.part)
    todo = plan(parts, source)
    generation = folder / "generation_config.json"
    return {
        "folder": str(config.model.pretrained),
        "config": dict(source.values),
        "generation": rundir.read_json(generation) if generation.is_file() else None,
        "tensors": {
            name: [source.tensors.dtype(name), list(source.tensors.shape(name))]
            for name in source.tensors
        },
        "fresh": list(todo.fresh),
        "left": list(todo.left),
        "head": todo.head,
    }


def config_of(config: Config, other: Callable[[str], Path]) -> dict[str, Any] | None:
    """Returns the part of `facts` that is known before tensors are read.

    That is config.json; for a run that started from another run, all that the other one keeps.
    """
    if (folder := folder_of(config)) is not None:
        return {"config": dict(pretrained.open_source(folder, config.model.part).values)}
    before = config.train.init_from or config.model.pretrained
    path = other(before) / NAME if before else None
    return rundir.read_json(path) if path is not None and path.is_file() else None


def told(found: Mapping[str, Any]) -> str:
    """Formats the line that a run prints first: how many tensors it took, and which it did not."""
    some = lambda names: (
        ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    )
    out = f"{found['folder']}: {len(found['tensors']) - len(found['left'])} tensors taken"
    out += f"; not taken: {some(found['left'])}" if found["left"] else ""
    out += f"; fresh: {some(found['fresh'])}" if found["fresh"] else ""
    return out + (
        f"\nnote       its trained head is not taken: {found['head']}" if found.get("head") else ""
    )


def check_init(option: str, folder: Path) -> None:
    """Raises ConfigError where `train.init_from` names a folder in the layout of Hugging Face.

    Its architecture would not be read.
    """
    if pretrained.is_source(folder):
        raise ConfigError(
            f"{option}={folder}: is no run directory; model.pretrained={folder} takes its"
            " architecture and tokenizer too"
        )
