"""Whole weights beside an adapter of PEFT (`modules_to_save`): modules that are trained themselves,
such as a norm, an embedding or the head of a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.errors import ConfigError
from jaxsft.hf import trained_heads
from jaxsft.hf.families.family import Family, Head, Move, moves
from jaxsft.sharding.weight_spec import Flat, WeightSpec

MERGED = "export the merged weights"
MERGE = "merge it in PEFT and start from the merged weights"


def of_base(family: Family, head: Head | None, specs: Mapping[str, WeightSpec]) -> list[Move]:
    """Returns every tensor of the base: of the body, and of an output matrix over the vocabulary,
    by the names of the class.
    """
    body = {path: x for path, x in specs.items() if not path.startswith(("adapters/", "head/"))}
    output = {p: x for p, x in specs.items() if p.startswith("head/") and "vocab" in x.axes}
    prefix = family.prefix_of(head)
    return [*moves(family.table, body, prefix), *(moves(head.table, output) if head else ())]


def module(theirs: str) -> str:
    """Returns the name of the module of a tensor."""
    return theirs.rpartition(".")[0]


def under(theirs: str, names: Sequence[str]) -> bool:
    """Returns whether PEFT saves a tensor whole.

    The name of a module that holds it ends with one of `names`, from any letter on.
    """
    keys = theirs.split(".")
    return any(".".join(keys[:i]).endswith(tuple(names)) for i in range(1, len(keys)))


def is_frozen(path: str, index: Sequence[int], frozen: Mapping[str, Any]) -> bool:
    """Returns whether a weight, or this layer of a stack, is frozen (`partition.frozen_mask`)."""
    mask = np.ravel(frozen.get(path, 1.0))
    return bool(mask[index[0] if len(mask) > 1 else 0])


def embedding_of(found: Sequence[Move], family: Family, fix: str) -> str | None:
    """Returns the name of the embedding where it is among the tensors. Raises ConfigError where
    PEFT would leave copies of it as they are.
    """
    name = next((move.theirs for move in found if move.slots[0].path == "embed/tokens/w"), None)
    if name is not None:
        check_copies(name, family, fix)
    return name


def check_copies(embedding: str, family: Family, fix: str) -> None:
    """Raises ConfigError for an embedding that a class has several copies of: they are tied to it
    when a model is read, and PEFT changes only the one that is named.
    """
    if family.copies:
        raise ConfigError(
            f"{embedding}: {family.architecture} computes with copies of it that are tied to it,"
            f" which PEFT does not change; {fix}"
        )


# --- writing
# --------------------------------------------------------------------------------------------------
def written(
    found: Sequence[Move],
    weights: Flat,
    frozen: Mapping[str, Any],
    adapted: Sequence[str],
    output: str | None,
    family: Family,
) -> dict[str, np.ndarray]:
    """Returns, by name, every tensor of the modules of which something was trained beside the
    adapter.

    Args:
      frozen: by path of ours, 1 where a weight is not trained; `[n]` of a stack whose layers
        differ.
      adapted: the modules that have an adapter.
      output: the matrix that the embedding is tied to.

    Raises:
      ConfigError: PEFT cannot keep one of these modules.
    """
    changed = {
        module(move.theirs)
        for move in found
        if any(not is_frozen(slot.path, slot.index, frozen) for slot in move.slots)
    }
    if twice := sorted(changed & set(adapted)):
        raise ConfigError(
            f"{twice[0]}: has an adapter and is trained as a whole (adapter.train), and PEFT keeps"
            f" one of both; {MERGED}"
        )
    saved = [move for move in found if module(move.theirs) in changed]
    embedding, out = embedding_of(saved, family, MERGED), {}
    for move in saved:
        if len(move.slots[0].index) > 1 or not move.theirs.endswith((".weight", ".bias")):
            raise ConfigError(
                f"{move.theirs}: is trained (adapter.train), and is no module of its own, so PEFT"
                f" cannot save it; {MERGED}"
            )
        out[move.theirs] = move.to_theirs(
            [np.asarray(weights[slot.path][slot.index], np.float32) for slot in move.slots]
        )
    if embedding and output:
        out[f"{output}.weight"] = out[embedding].copy()
    return out


# --- reading
# --------------------------------------------------------------------------------------------------
def saved(
    values: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    found: Sequence[Move],
    output: str | None,
    frozen: Mapping[str, Any] | None,
    family: Family,
) -> tuple[list[Move], list[str]]:
    """Returns the tensors of the base that the folder holds whole, and names of further ones that
    say the same.

    Args:
      values: adapter_config.json.
      tensors: of the folder, by the names of the class.
      found: every tensor of the base.
      output: the matrix that the embedding is tied to.
      frozen: as of `written`; None: all are trained.

    Raises:
      ConfigError: the run would not train one of them, so that its export would lack it; or an
        embedding that is tied here and is not there.
    """
    names = values.get("modules_to_save") or []
    taken = [move for move in found if under(move.theirs, names)]
    name = embedding_of(taken, family, MERGE)
    for move in taken:
        for slot in move.slots:
            if frozen is not None and is_frozen(slot.path, slot.index, frozen):
                raise ConfigError(
                    f"modules_to_save={list(names)!r:.60}: {move.theirs} is a whole weight, which"
                    f" PEFT trains and this run does not; set"
                    f" adapter.train=['{_pattern(slot.path)}']"
                )
    if not (name and output):
        return taken, []
    twin = f"{output}.weight"
    tied = values.get("ensure_weight_tying") is True and twin not in tensors
    same = twin in tensors and name in tensors and np.array_equal(tensors[twin], tensors[name])
    if not (tied or same):
        raise ConfigError(
            f"{name} is saved, and {twin}, which is tied to it here, is"
            f" {'another one' if twin in tensors else 'that of the base'} there; {MERGE}"
        )
    return taken, [] if tied else [twin]


def _pattern(path: str) -> str:
    """Returns the pattern of a weight, of all layers of a stack."""
    keys = path.split("/")
    return "/".join(".*" if i and keys[i - 1] == "layers" else key for i, key in enumerate(keys))


def head_of(
    whole: Mapping[str, np.ndarray],
    names: Sequence[str],
    labels: Mapping[str, Any],
    family: Family,
    values: Mapping[str, Any],
    specs: Mapping[str, WeightSpec],
    asked: trained_heads.Asked,
    reset: bool,
) -> tuple[list[Move], list[str]]:
    """Returns the tensors of the head of the task, and names of further ones that it does not need:
    zeros of a bias that it has not, and all of them where the head starts anew.

    Args:
      whole: the tensors of the folder, by the names of the class.
      names: what is saved whole, `modules_to_save`; the rest of the head is that of the base.
      labels: what the folder says of them, as config.json has it.
      values: config.json of the base.
      specs: of the head (a flat dict).
      reset: whether the run asks for a new head.

    Raises:
      ConfigError: it is the head of another task, or of other labels.
    """
    head = family.heads.get(asked.kind)
    table = {entry.theirs for entry in head.table} & whole.keys() if head else set()
    found = moves(head.table, specs) if head else []
    own = [m for m in found if any("vocab" not in specs[slot.path].axes for slot in m.slots)]
    table -= {move.theirs for move in found} - {move.theirs for move in own}
    if not table or reset:
        return [], sorted(table)
    zeros = [n for n in sorted(table - {m.theirs for m in found}) if not np.any(whole[n])]
    shapes = {name: tensor.shape for name, tensor in whole.items() if name not in zeros} | {
        m.theirs: m.shape for m in found if not under(m.theirs, names) and m.theirs not in whole
    }
    named = {**values, **labels, "architectures": [f"{family.architecture}{head.suffix}"]}
    if asked.kind == "mlm":
        taken, why = trained_heads.masked(family, named, shapes, specs, asked.task)
    else:
        taken, why = trained_heads.taken(family, named, shapes, specs, asked)
    if why is not None:
        raise ConfigError(f"its trained head cannot be taken: {why}; {trained_heads.RESET}")
    kept = {move.theirs for move in own} & whole.keys()
    return [move for move in taken if move.theirs in kept], zeros


def put(out: Flat, weights: Flat, move: Move, tensor: np.ndarray) -> None:
    """Writes a tensor into the arrays of `out`, which are copies of those of `weights`."""
    for slot, value in zip(move.slots, move.to_ours(tensor), strict=True):
        if slot.path not in out:
            out[slot.path] = np.array(weights[slot.path])
        out[slot.path][slot.index] = value.astype(out[slot.path].dtype)
