"""Decides whether a checkpoint's trained head is the task's, and in which order its outputs lie.

It is taken where transformers computes with it what the task computes, and where it tells the same
labels apart. The head of the task starts anew where it is of another task or has other labels, and
the start of the run says so. Where only an option of the task stands between them, that is an
error: a trained head is not replaced by a random one unless `train.init_fresh=['head/.*']` asks for
it. A bias that is not in the files is zero. The pooler of BERT is of its body there, and of the
head here: it is taken wherever the head has one.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxsft.config.model import ACTIVATIONS
from jaxsft.errors import ConfigError
from jaxsft.hf import families
from jaxsft.hf.families.decoders import ACTIVATIONS as ACTIVATION_NAMES
from jaxsft.hf.families.family import OF_MODEL, Family, Head, Move, moves
from jaxsft.sharding.weight_spec import WeightSpec

RESET = "train.init_fresh=['head/.*'] starts with a new head"
MOST_LABELS = 2**20
BESIDE = "head/features/"  # of columns beside the text, which no checkpoint has
# What a config.json means that does not say it. `classifier_bias` is not looked at: the tensors
# show it, and a bias that is not there is zero.
DEFAULTS = {
    "pooler_hidden_act": "gelu",
    "classifier_activation": "gelu",
    "classifier_pooling": "cls",
}


class Asked(NamedTuple):
    """The head that the task asks for.

    Attributes:
      kind: of head, as `TaskSpec.head`.
      task: its options.
      names: of the outputs, in their order; None: they have none.
    """

    kind: str | None
    task: Any
    names: Sequence[str] | None


def names_of(values: Mapping[str, Any]) -> list[str]:
    """Returns the labels of a config.json, in the order of its outputs.

    Without any, as transformers calls them. Raises ConfigError.
    """
    found = values.get("id2label") or {}
    if not found:
        count = values.get("num_labels") or 2
        if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= MOST_LABELS:
            raise ConfigError(
                f"config.json: num_labels={count!r:.40}: expected a whole number from 1 to"
                f" {MOST_LABELS:,}"
            )
        return [f"LABEL_{i}" for i in range(count)]
    if not isinstance(found, Mapping) or sorted(found) != sorted(map(str, range(len(found)))):
        raise ConfigError(
            f"config.json: id2label={str(found)[:60]}: expected the label of each output at its"
            " number, from 0"
        )
    return [str(found[str(i)]) for i in range(len(found))]


def head_of(family: Family, values: Mapping[str, Any]) -> tuple[str, Head] | None:
    """Returns (kind, head) of the class that a config.json names; None where it has no such head.

    Heads are those for texts or their tokens.
    """
    classes = values.get("architectures") or []
    fits = lambda kind, head: (
        kind not in ("lm", "mlm") and f"{family.architecture}{head.suffix}" in classes
    )
    return next(((kind, head) for kind, head in family.heads.items() if fits(kind, head)), None)


def options_of(head: Head, values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Returns the task options that compute what a config.json says of its head.

    Where none do, the first that the class has.
    """
    fields = {field.name for field in dataclasses.fields(kind)}
    choices = {
        name: value if isinstance(value, tuple) else (value,)
        for name, value in head.options.items()
    } | (
        {"activation": ("gelu", *ACTIVATIONS)}
        if head.options.get("head", "linear") != "linear" and "activation" not in head.options
        else {}
    )
    choices = {name: values for name, values in choices.items() if name in fields}
    found = [
        dict(zip(choices, chosen, strict=True)) for chosen in itertools.product(*choices.values())
    ]
    return next(
        (options for options in found if _other_word(head, kind(**options), values) is None),
        found[0],
    )


def nearest_options(head: Head, task: Any) -> dict[str, Any]:
    """Returns the task options nearest to those given that a class computes with."""
    out = {"activation": "gelu"} if head.options.get("head", "linear") != "linear" else {}
    for name, fits in head.options.items():
        fits = fits if isinstance(fits, tuple) else (fits,)
        out[name] = getattr(task, name, None) if getattr(task, name, None) in fits else fits[0]
    return {name: value for name, value in out.items() if hasattr(task, name)}


def of_masked(family: Family, values: Mapping[str, Any], task: Any) -> dict[str, Any]:
    """Returns the options of task=mlm that match a config.json; empty where none do."""
    fits = [
        name
        for name in ("gelu", *ACTIVATIONS)
        if other_activation(family, values, dataclasses.replace(task, activation=name)) is None
    ]
    return {"activation": fits[0]} if fits else {}


def taken(
    family: Family,
    values: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    specs: Mapping[str, WeightSpec],
    asked: Asked,
) -> tuple[list[Move], str | None]:
    """Returns (the tensors of the head, why its outputs are not among them).

    There is no reason where the checkpoint has no head.

    Args:
      values: its config.json.
      shapes: of its tensors, by name.
      specs: of the head of the task (a flat dict).

    Raises:
      ConfigError: it is a head of this task and these labels, but options of the task compute
        otherwise.
    """
    head = family.heads.get(asked.kind)
    if head is None:
        return [], _of_both_halves(family, values)
    found = [_there(move, family, shapes) for move in moves(head.table, specs)]
    pooler = _pooler(family, head, found, shapes, asked.task)
    if (own := head_of(family, values)) is None:
        return pooler, _of_both_halves(family, values)
    name = f"{family.architecture}{own[1].suffix}"
    task = asked.task
    if own[0] != asked.kind:
        wanted = f"{family.architecture}{head.suffix}"
        return pooler, f"it is that of {name}, and task={task.name} has that of {wanted}"
    if (other := _other_task(asked, values)) is not None:
        return pooler, f"{name} computes otherwise: {other}"
    is_output = lambda m: m.slots[0].path.startswith("head/out/")
    order, why = _order(asked, values, shapes, [m for m in found if is_output(m)])
    if why is not None:
        return pooler, why
    if (
        other := _other_option(head, task, tuple(head.options))
        or _other_word(head, task, values)
        or _other_scale(asked)
    ) is not None:
        raise ConfigError(
            f"its trained head cannot be taken: {name} computes otherwise: {other}; {RESET}"
        )
    full = [m for m in found if m.theirs in shapes or not is_bias(m)]
    lost = [m.theirs for m in full if shapes.get(m.theirs) != m.shape]
    extra = {entry.theirs for entry in head.table} & shapes.keys() - {m.theirs for m in full}
    filled = {slot.path for m in found for slot in m.slots}
    empty = [path for path in specs if path not in filled and not path.startswith(BESIDE)]
    if lost or extra or empty:
        have = (
            f"{name} has {', '.join(sorted(extra)) or 'no ' + ', '.join(lost)}, and the head of the"
            f" task {', '.join(specs)}"
        )
        raise ConfigError(f"its head cannot be taken: {have}; {RESET}")
    return [m._replace(order=order) if is_output(m) else m for m in full], None


def _pooler(
    family: Family,
    head: Head,
    found: Sequence[Move],
    shapes: Mapping[str, tuple[int, ...]],
    task: Any,
) -> list[Move]:
    """Returns the tensors of the head that are of the body in the files, such as BERT's pooler.

    None of them where the task computes its vector of a text in another way.
    """
    if not family.prefix or _other_option(head, task, ("pool", "head", "activation")) is not None:
        return []
    own = {entry.theirs for entry in head.table}
    of_body = lambda m: m.theirs.startswith(family.prefix) or m.theirs not in own
    return [m for m in found if of_body(m) and shapes.get(m.theirs) == m.shape]


def is_bias(move: Move) -> bool:
    """Returns whether it is a bias of a head, which is zero where the files have none."""
    return move.slots[0].path.startswith("head/") and move.slots[0].path.endswith("/b")


def masked(
    family: Family,
    values: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    specs: Mapping[str, WeightSpec],
    task: Any = None,
) -> tuple[list[Move], str | None]:
    """Returns the masked-LM head as `taken` does; with `task` None, whatever its activation.

    Raises ConfigError where the files have a part of the head only, or one that computes
    otherwise.
    """
    if (head := family.heads.get("mlm")) is None:
        return [], None
    found, name = moves(head.table, specs), f"{family.architecture}{head.suffix}"
    there = [move for move in found if move.theirs in shapes]
    if not any(move.slots[0].path.startswith(("head/dense/", "head/norm/")) for move in there):
        return [], None
    if (own := head_of(family, values)) is not None and {entry.theirs for entry in own[1].table} & {
        move.theirs for move in there
    }:
        return (
            [],
            f"it is that of {family.architecture}{own[1].suffix}, and task=mlm has that of {name}",
        )
    if task is not None and (why := other_activation(family, values, task)) is not None:
        raise ConfigError(f"its trained head cannot be taken: {why}; {RESET}")
    lost = [move.theirs for move in found if move.theirs not in shapes and not is_bias(move)]
    unread = {entry.theirs for entry in head.table if entry.ours == "head/b"} & shapes.keys() - {
        move.theirs for move in there
    }
    twin = [] if any(move.slots[0].path == "head/b" for move in there) else sorted(unread)
    if lost or twin:
        have = (
            f"{there[0].theirs} and no {lost[0]}"
            if lost
            else f"{twin[0]}, which {name} does not read where tie_word_embeddings is as it is"
        )
        raise ConfigError(f"its trained head cannot be taken: the files have {have}; {RESET}")
    return there, None


def _of_both_halves(family: Family, values: Mapping[str, Any]) -> str | None:
    """Returns why an encoder alone lacks the head of the files' class; None if it does not."""
    names = (
        f"{family.architecture}For{what}"
        for what in ("SequenceClassification", "QuestionAnswering")
    )
    alone = families.get(family.model_type, "").encoder is family
    name = next(
        (name for name in names if alone and name in (values.get("architectures") or [])), None
    )
    return (
        None if name is None else f"it is that of {name}, which reads a text with its decoder too"
    )


def _there(move: Move, family: Family, shapes: Mapping[str, Any]) -> Move:
    """Returns the move with the name that the tensor has in a file of the body alone, if any."""
    bare = move.theirs.removeprefix(family.prefix)
    return move._replace(theirs=bare) if move.theirs not in shapes and bare in shapes else move


def _other_option(head: Head, task: Any, names: Sequence[str]) -> str | None:
    """Describes the first option of the task that differs from the class; None without one."""
    for name in names:
        wanted = head.options.get(name)
        fits = wanted if isinstance(wanted, tuple) else (wanted,)
        zero = name == "bias" and task.bias  # of a class without one
        if name in head.options and getattr(task, name, None) not in fits and not zero:
            return (
                f"task.{name}={getattr(task, name, None)} is "
                + " or ".join(f"task.{name}={value}" for value in fits)
                + " there"
            )
    return None


def _other_word(head: Head, task: Any, values: Mapping[str, Any]) -> str | None:
    """Describes the first key of config.json by which the class computes otherwise, if any."""
    ours_of = lambda word: ACTIVATION_NAMES.get(word, word) if isinstance(word, str) else word
    for key, ours in head.words(task).items():
        if key in DEFAULTS and ours_of(theirs := values.get(key, DEFAULTS[key])) != ours_of(ours):
            return f"{key}={theirs} there, and {ours} by the options of the task"
    return None


def other_activation(family: Family, values: Mapping[str, Any], task: Any) -> str | None:
    """Returns why a checkpoint's masked-LM head computes otherwise than the task's; None if not."""
    head, name = family.heads["mlm"], f"{family.architecture}{family.heads['mlm'].suffix}"
    theirs = head.options.get("activation", task.activation)
    theirs = family.model(values).activation if theirs is OF_MODEL else theirs
    why = _other_word(head, task, values) or (
        f"task.activation={task.activation} is {theirs} there"
        if theirs != task.activation
        else None
    )
    return why and f"{name} computes otherwise: {why}"


def _other_task(asked: Asked, values: Mapping[str, Any]) -> str | None:
    task, problem = asked.task, values.get("problem_type")
    problems = task.spec.problems
    if problem is not None and len(problems) == 1 and problem not in problems:
        return f"problem_type={problem}, and task={task.name} is {problems[0]}"
    if getattr(task, "encoder", "cross") != "cross":
        return f"task.encoder={task.encoder} is task.encoder=cross there"
    if task.spec.output == "comparison" and asked.names is None:
        return "scores are scaled by task=pair, and are as they are there"
    return None


def _other_scale(asked: Asked) -> str | None:
    if getattr(asked.task, "standardize", False):
        return (
            "task.standardize=true scales the numbers, which are as they are there; set"
            " task.standardize=false"
        )
    return None


def _order(
    asked: Asked, values: Mapping[str, Any], shapes: Mapping[str, Any], out: Sequence[Move]
) -> tuple[tuple[int, ...], str | None]:
    """Returns (which output of theirs each of ours is, why there is no answer).

    The order is empty where the outputs have no names.
    """
    theirs, ours = names_of(values), asked.names
    if ours is None:
        return (), None
    rows = next((shapes[m.theirs][0] for m in out if m.theirs in shapes), len(theirs))
    if rows != len(ours):
        return (
            (),
            f"it has {rows} outputs ({_some(theirs)}), the task has {len(ours)} ({_some(ours)})",
        )
    if len(theirs) == rows and set(theirs) == set(ours):
        return tuple(theirs.index(name) for name in ours), None
    if asked.task.spec.output == "numbers" and rows == 1:
        return (), None
    # whose names are numbers
    if all(re.fullmatch(r"LABEL_\d+", name) for name in theirs) and set(ours) == {
        str(i) for i in range(rows)
    }:
        return tuple(int(name) for name in ours), None
    return (
        (),
        (
            f"its labels are {_some(theirs)}, those of the data {_some(ours)}; id2label of its"
            " config.json names them"
        ),
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
