"""Reads adapters in the format of the library PEFT: the reverse of `peft.py`.

What is one fused layer there are several here. A folder that `peft.write` wrote has the ranks of
all parts, and a block of the second factor for each; one that PEFT trained has one first factor for
all of them, which every part gets with its own slice of the second.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsft import documents
from jaxsft.config.adapters import IA3, AdapterConfig, LowRank, Prefix, Prompt
from jaxsft.config.model import ModelConfig
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import peft_config, peft_saved
from jaxsft.hf.families.family import Family, Head, Move
from jaxsft.hf.peft_write import (
    CONFIG,
    LABELS,
    ROOT,
    WEIGHTS,
    Module,
    by_module,
    lengths,
    modules,
    prefixes,
    sites,
    tied,
    tied_lengths,
)
from jaxsft.sharding.weight_spec import Flat, WeightSpec

OfHead = Callable[..., tuple[Sequence[Move], Collection[str]]]
Puts = Callable[[np.ndarray], Iterable[tuple[str, str, np.ndarray]]]
Wanted = dict[str, tuple[tuple[int, ...], Puts]]
# the leaves of the parts of a module that have an adapter, by path
Parts = Mapping[str, Mapping[str, np.ndarray]]


class PeftFolder(NamedTuple):
    """A folder of PEFT: its config and its tensors."""

    folder: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    def of(self, pattern: str, module: str, default: str) -> Any:
        """Returns the value of a module in `rank_pattern` or `alpha_pattern`.

        It is that of the first key which matches its name or the end of it, as a regular
        expression; else the value for all.
        """
        given = self.values.get(pattern) or {}
        return next(
            (value for key, value in given.items() if peft_config.matches(key, module)),
            self.values.get(default),
        )


def read(
    folder: str | Path,
    options: AdapterConfig,
    weights: Flat,
    specs: Mapping[str, WeightSpec],
    model: ModelConfig,
    family: Family,
    head: Head | None = None,
    frozen: Mapping[str, Any] | None = None,
    of_head: OfHead | None = None,
) -> Flat:
    """Reads the weights of a model from a folder of PEFT: those of `adapters/`, and whole ones
    (`modules_to_save`).

    Args:
      options: which must be those that the folder was trained with.
      weights: of the model, flat; those of the adapter that are made from the base stay.
      frozen: which weights are not trained, as of `peft_saved.saved`; None: none.
      of_head: as `peft_saved.head_of`, but for its first two arguments and with what the folder
        says of labels in the third; None: no head of a task is taken.

    Returns: the leaves of `adapters/` and what else the folder holds, as numpy arrays by their
      paths.

    Raises:
      ConfigError: the options are others than the folder's, or what it computes has no place in
        this adapter.
      CheckpointError: a tensor is missing, additional or of another shape.
    """
    source = _opened(Path(folder))
    peft_config.check(source.folder / CONFIG, source.values, options)
    out = {path: np.array(value) for path, value in weights.items() if path.startswith("adapters/")}
    if isinstance(options, Prefix | Prompt):
        wanted = _virtual(source, sites(weights), options, model)
    else:
        found = by_module(weights, modules(family, head, specs))
        wanted = _modules(source, found, options, weights, tied(model, head), family)
    _put_adapter(out, source, wanted)
    whole = {
        name.removeprefix(ROOT): tensor
        for name, tensor in source.tensors.items()
        if name.startswith(ROOT) and name not in wanted
    }
    base = peft_saved.of_base(family, head, specs) if family else []
    output = tied(model, head) if model else None
    taken, over = peft_saved.saved(source.values, whole, base, output, frozen, family)
    heads, more = _of_head(source, whole, of_head) if of_head and whole else ((), ())
    for move in (*taken, *heads):
        _check_whole(source, whole, move)
        peft_saved.put(out, weights, move, whole[move.theirs])
    same = (f"{tied(model, head)}.weight",) if source.values.get("ensure_weight_tying") else ()
    peft_config.check_saved(source.folder / CONFIG, source.values, (*whole, *same))
    known = {*wanted, *(ROOT + name for name in (*over, *more))}
    known |= {ROOT + move.theirs for move in (*taken, *heads)}
    if left := sorted(set(source.tensors) - known):
        raise CheckpointError(f"{folder}: has {left[0]}, for which this model has no place")
    return out


def _put_adapter(out: Flat, source: PeftFolder, wanted: Wanted) -> None:
    """Puts the tensors of an adapter into its leaves. Raises CheckpointError for one that is
    missing or of another shape."""
    for name, (shape, puts) in wanted.items():
        if name not in source.tensors:
            raise CheckpointError(
                f"{source.folder}: has no {name}, which this adapter needs"
                f" ({len(source.tensors)} tensors there)"
            )
        if source.tensors[name].shape != shape:
            raise CheckpointError(
                f"{source.folder}: {name} is {list(source.tensors[name].shape)}, but this adapter"
                f" needs {list(shape)}"
            )
        for path, leaf, value in puts(source.tensors[name]):
            _put(out, path, leaf, value)


def _check_whole(source: PeftFolder, whole: Mapping[str, np.ndarray], move: Move) -> None:
    has = whole[move.theirs].shape if move.theirs in whole else None
    if has != move.shape:
        raise CheckpointError(
            f"{source.folder}: has {'no' if has is None else list(has)} {ROOT}{move.theirs},"
            f" expected {list(move.shape)}, a whole weight (modules_to_save)"
        )


def _of_head(
    source: PeftFolder, whole: Mapping[str, np.ndarray], of_head: OfHead
) -> tuple[Sequence[Move], Collection[str]]:
    """Returns what `peft_saved.head_of` does, with what the folder says of its labels."""
    file = source.folder / LABELS
    labels = documents.read_json(file, CheckpointError, dict, 1 << 24) if file.is_file() else {}
    try:
        return of_head(whole, source.values.get("modules_to_save") or [], labels)
    except ConfigError as error:
        raise ConfigError(f"{source.folder}: {error}") from None


def _opened(folder: Path) -> PeftFolder:
    import safetensors
    import safetensors.numpy

    values = documents.read_json(folder / CONFIG, CheckpointError, dict, 1 << 24)
    try:
        source = PeftFolder(folder, values, safetensors.numpy.load_file(folder / WEIGHTS))
    except (OSError, ValueError, CheckpointError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: is no adapter of PEFT that can be read ({str(error).splitlines()[0]})"
        ) from error
    for name, value in source.tensors.items():
        if not np.isfinite(value.astype(np.float32)).all():
            raise CheckpointError(
                f"{folder / WEIGHTS}: {name} has values that are no finite numbers"
            )
    return source


def _virtual(
    source: PeftFolder, found: Parts, options: Prefix | Prompt, model: ModelConfig
) -> Wanted:
    if isinstance(options, Prompt):
        undo = lambda x: [("embed", "prompt", x / np.float32(model.embed_scale))]
        return {"prompt_embeddings": (found["embed"]["prompt"].shape, undo)}
    names, table = prefixes(model)
    if set(found) != set(names):
        raise ConfigError(
            f"{source.folder / CONFIG}: has a prefix in {names[0]} and its like, this run in"
            f" {sorted(found)[0]} and its like; set {ONLY}"
        )
    count, there = (
        (2, 1)[not model.decoder_layers],
        source.values.get("num_transformer_submodules") or 1,
    )
    if there != count:
        raise ConfigError(
            f"{source.folder / CONFIG}: num_transformer_submodules={there}: expected {count}, as"
            " this model has it"
        )
    shape = (options.tokens, 2 * len(names), model.kv_heads, model.head_dim)
    where = [
        (name, leaf, at + i)
        for name, at in zip(names, table, strict=True)
        for i, leaf in enumerate(("prefix_k", "prefix_v"))
    ]
    return {
        "prompt_embeddings": (
            (options.tokens, math.prod(shape[1:])),
            lambda x: [(n, leaf, x.reshape(shape)[:, at]) for n, leaf, at in where],
        )
    }


ONLY = (
    """adapter.target to '["decoder/layers/.*/attention"]' in an encoder-decoder model,"""
    " to its standard in another"
)


def _modules(
    source: PeftFolder,
    found: Mapping[str, tuple[Module, Parts]],
    options: AdapterConfig,
    weights: Flat,
    output: str | None,
    family: Family,
) -> Wanted:
    """Returns for each tensor its shape and a function to (path, leaf, array) of our weights."""
    out: Wanted = {}
    for theirs, (module, parts) in found.items():
        if isinstance(options, IA3):
            out |= _ia3(source, module, parts)
            continue
        peft_config.check_start(
            source.folder / CONFIG,
            source.values,
            theirs,
            plain=len(module.parts) == 1 and bool(module.spec.inputs),
        )
        if not module.spec.inputs:
            peft_saved.check_copies(theirs, family, peft_saved.MERGE)
        out |= _low_rank(source, module, parts, options, *_rank(source, module, parts, options))
        if any("magnitude" in leaves for leaves in parts.values()):
            size = sum(math.prod(spec.shape) for spec in _outputs(module))
            puts = functools.partial(
                _by_part, source, module, parts, "magnitude", functools.partial(lengths, weights)
            )
            out[f"{ROOT}{theirs}.lora_magnitude_vector"] = ((size,), puts)
        if not module.spec.inputs and output:
            out |= _twins(source, module, output, options)
    peft_config.check_targets(source.folder / CONFIG, source.values, found)
    for pattern in ("rank_pattern", "alpha_pattern"):
        if bad := [
            key
            for key in source.values.get(pattern) or {}
            if not any(peft_config.matches(key, theirs) for theirs in found)
        ]:
            raise ConfigError(
                f"{source.folder / CONFIG}: {pattern} has {bad[0]:.60}, which is no module of this"
                " adapter; check adapter.target"
            )
    return out


def _rank(source: PeftFolder, module: Module, parts: Parts, options: LowRank) -> tuple[int, float]:
    """Returns the rank of a PEFT module and the factor of its second matrix in our weights.

    Here one scale holds for all modules; the factor is 1 where theirs is that. Raises
    ConfigError for ranks that its parts cannot have.
    """
    rank, alpha = (
        source.of("rank_pattern", module.theirs, "r"),
        source.of("alpha_pattern", module.theirs, "lora_alpha"),
    )
    fits = sorted(
        {options.rank, options.rank * len(parts)} if len(module.parts) > 1 else {options.rank}
    )
    is_less = (
        type(rank) is int and rank < options.rank and getattr(options, "init", "zero") == "zero"
    )
    if rank not in fits and not is_less:
        of = f" for {len(parts)} parts of one layer" if len(parts) > 1 else ""
        raise ConfigError(
            f"{source.folder / CONFIG}: {module.theirs} has rank {rank}, expected"
            f" {' or '.join(map(str, fits))}{of}, as adapter.rank={options.rank}"
            + (f"; set adapter.rank={rank}" if rank > options.rank else "")
        )
    grow = math.sqrt if options.scaling == "sqrt" else float
    there, here = alpha / grow(rank), options.alpha / grow(options.rank)
    if math.isclose(there, here, rel_tol=1e-6):
        return rank, 1.0
    # what is subtracted at the start has this scale too
    if getattr(options, "init", "zero") != "zero":
        raise ConfigError(
            f"{source.folder / CONFIG}: {module.theirs} is scaled by {there:g}, expected {here:g}"
            " from adapter.alpha and adapter.rank"
        )
    return rank, there / here


def _low_rank(
    source: PeftFolder, module: Module, parts: Parts, options: LowRank, rank: int, scale: float
) -> Wanted:
    n = module.spec.inputs or 1
    inputs, outputs = (
        math.prod(module.spec.shape[:n]),
        sum(math.prod(spec.shape) for spec in _outputs(module)),
    )
    a, b = (
        ("lora_A.weight", "lora_B.weight")
        if module.spec.inputs
        else ("lora_embedding_A", "lora_embedding_B")
    )
    if len(module.parts) == 1:
        ((path, leaves),) = parts.items()
        turned = lambda leaf, x: [(path, leaf, x.T.reshape(leaves[leaf].shape))]
        first, second = functools.partial(turned, "a"), functools.partial(turned, "b")
    else:
        order = [path for path, _ in module.parts if path in parts]
        rows = {
            path: (
                slice(i * options.rank, (i + 1) * options.rank)
                if rank > options.rank
                else slice(None)
            )
            for i, path in enumerate(order)
        }
        first = lambda x: [
            (path, "a", x[at].T.reshape(parts[path]["a"].shape)) for path, at in rows.items()
        ]
        second = functools.partial(_slices, source, module, parts, rows)
    scaled = second if scale == 1 else lambda x: second(x * np.float32(scale))
    # columns of zeros beside rows of zeros: they change no number, and have no gradient
    more = max(options.rank - rank, 0)
    return {
        f"{ROOT}{module.theirs}.{a}": (
            (rank, inputs),
            lambda x: first(np.pad(x, ((0, more), (0, 0)))),
        ),
        f"{ROOT}{module.theirs}.{b}": (
            (outputs, rank),
            lambda x: scaled(np.pad(x, ((0, 0), (0, more)))),
        ),
    }


def _slices(
    source: PeftFolder, module: Module, parts: Parts, rows: Mapping[str, slice], x: np.ndarray
) -> list[tuple[str, str, np.ndarray]]:
    """Splits the second factor [O, R] of a fused layer into its parts.

    Raises ConfigError where a part would lose something.
    """
    specs = [
        WeightSpec((x.shape[1], *out.shape), out.dtype, ("rank", *out.axes), 1)
        for out in _outputs(module)
    ]
    found = []
    for (path, _), block in zip(
        module.parts, module.how.to_ours(x if module.how.turned else x.T, specs), strict=True
    ):
        kept = np.zeros(len(block), bool)
        if path in parts:
            kept[rows[path]] = True
            found.append((path, "b", block[kept].reshape(parts[path]["b"].shape)))
        if np.any(block[~kept]):
            what = (
                "has no block of its own for each part"
                if path in parts
                else f"changes {path}, which has no adapter here"
            )
            fix = f"set adapter.rank={x.shape[1]}" if path in parts else "add it to adapter.target"
            raise ConfigError(f"{source.folder}: the adapter of {module.theirs} {what}; {fix}")
    return found


def _twins(source: PeftFolder, module: Module, output: str, options: LowRank) -> Wanted:
    """Checks the other side of a tied embedding, whose adapter must be the same here.

    Raises ConfigError where it is another or none.
    """
    if options.name == "dora":
        raise tied_lengths(module.theirs, output)
    (v, d), out = module.spec.shape, {}
    for name, twin, shape in (
        ("lora_A.weight", "lora_embedding_B", (options.rank, d)),
        ("lora_B.weight", "lora_embedding_A", (v, options.rank)),
    ):
        full, other = f"{ROOT}{output}.{name}", f"{ROOT}{module.theirs}.{twin}"
        own, its = source.tensors.get(full), source.tensors.get(other)
        alphas = [
            source.of("alpha_pattern", name, "lora_alpha") for name in (output, module.theirs)
        ]
        if (
            own is None
            or (its is not None and not np.array_equal(own, its.T))
            or alphas[0] != alphas[1]
        ):
            has = "has no adapter beside that of" if own is None else "has another adapter than"
            raise ConfigError(
                f"{source.folder}: {output} {has} {module.theirs}, which it is tied to, and here a"
                " tied weight has one on both sides; merge it in PEFT and start from the merged"
                " weights"
            )
        out[full] = (shape, lambda x: [])
    return out


def _ia3(source: PeftFolder, module: Module, parts: Parts) -> Wanted:
    n = module.spec.inputs or 1
    given = {leaf for leaves in parts.values() for leaf in leaves}
    name, size = (
        f"{ROOT}{module.theirs}.ia3_l",
        sum(math.prod(spec.shape) for spec in _outputs(module)),
    )
    if "inputs" not in given:
        return {
            name: (
                (size, 1),
                lambda x: _by_part(
                    source, module, parts, "outputs", lambda path: np.float32(1), x[:, 0]
                ),
            )
        }
    if len(given) > 1 or len(parts) < len(module.parts):
        raise ConfigError(
            f"{module.theirs}: is fused, so adapter.target_inputs must match all of its parts:"
            f" {', '.join(p for p, _ in module.parts)}"
        )
    every = lambda x: [
        (path, "inputs", x[0].reshape(leaves["inputs"].shape)) for path, leaves in parts.items()
    ]
    return {name: ((1, math.prod(module.spec.shape[:n])), every)}


def _outputs(module: Module) -> list[WeightSpec]:
    """Returns the output spec of each part; of an embedding that of its vectors."""
    return [
        WeightSpec(spec.shape[spec.inputs or 1 :], spec.dtype, spec.axes[spec.inputs or 1 :])
        for _, spec in module.parts
    ]


def _by_part(
    source: PeftFolder,
    module: Module,
    parts: Parts,
    leaf: str,
    other: Callable[[str], Any],
    x: np.ndarray,
) -> list[tuple[str, str, np.ndarray]]:
    """Splits one value per output into parts.

    Raises ConfigError where a part without an adapter has others than `other(path)`.
    """
    if len(module.parts) == 1:
        ((path, leaves),) = parts.items()
        return [(path, leaf, x.reshape(leaves[leaf].shape))]
    found = []
    for (path, _), value in zip(
        module.parts, module.how.of_bias.to_ours(x, _outputs(module)), strict=True
    ):
        if path in parts:
            found.append((path, leaf, value.reshape(parts[path][leaf].shape)))
        elif not np.allclose(np.ravel(value), other(path), rtol=1e-4):
            raise ConfigError(
                f"{source.folder}: the adapter of {module.theirs} changes {path}, which has no"
                " adapter here; add it to adapter.target"
            )
    return found


def _put(out: Flat, path: str, leaf: str, value: np.ndarray) -> None:
    """Writes a value into the stack that holds its layer."""
    keys = path.split("/")
    if "layers" not in keys:
        out[f"adapters/{path}/{leaf}"] = value.astype(out[f"adapters/{path}/{leaf}"].dtype)
        return
    at = keys.index("layers") + 1
    layer = int(keys[at])
    for start in range(layer, -1, -1):
        stack = out.get("/".join(["adapters", *keys[:at], str(start), *keys[at + 1 :], leaf]))
        if stack is not None:
            stack[layer - start] = value
            return
