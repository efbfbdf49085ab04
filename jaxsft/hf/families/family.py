"""A family of models: how its `config.json` is read, and one table of its weight names.

Loading and export follow from the table.

A new family is one file: `read` (and `write`, its inverse), a table, and the `Family` that holds
them; `__init__.py` lists it. What keeps it honest: every key of config.json that its class reads is
read through `Keys` or is an error (`keys.py`); every weight of ours and every tensor of theirs is
in the table or is an error.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsft.config.model import ModelConfig
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf.families.keys import Keys
from jaxsft.hf.families.transforms import LINEAR, PLAIN, Transform
from jaxsft.sharding.weight_spec import WeightSpec


# --- the table
# --------------------------------------------------------------------------------------------------
class WeightEntry(NamedTuple):
    """One weight under both names.

    Attributes:
      ours: path of ours, `*` being the layer; several, separated by blanks, where one tensor of
        theirs holds several of ours.
      theirs: name of theirs, `*` being the layer; a `#` counts along the next axis of ours (one
        tensor per expert).
      how: the transform between them.
      beside, unless: a weight of ours that must be there, or must not, for the name of theirs
        depends on it; empty: it is always so.
    """

    ours: str
    theirs: str
    how: Transform = PLAIN
    beside: str = ""
    unless: str = ""


def both(ours: str, theirs: str, how: Transform = LINEAR) -> tuple[WeightEntry, WeightEntry]:
    """Returns the entries of a linear layer's weight and bias: `.../w` and `.../b`."""
    names = ours.split()
    return (
        WeightEntry(" ".join(f"{name}/w" for name in names), f"{theirs}.weight", how),
        WeightEntry(" ".join(f"{name}/b" for name in names), f"{theirs}.bias", how.of_bias),
    )


def norm(ours: str, theirs: str) -> tuple[WeightEntry, WeightEntry]:
    return WeightEntry(f"{ours}/scale", f"{theirs}.weight"), WeightEntry(
        f"{ours}/bias", f"{theirs}.bias"
    )


@dataclasses.dataclass(frozen=True)
class Head:
    """A class of transformers that computes what a head of ours does.

    Attributes:
      suffix: of its name in `architectures`, such as ForCausalLM.
      table: its weights, by full names of theirs. A bias that a head of ours lacks is written as
        zeros.
      options: what options of the task must be, for the class has no choice; a tuple: one of these;
        `OF_MODEL`: what the model has.
      words: keys of config.json that say what the head computes, by options of the task.
      prefix: of the weights of the body in this class; None: that of the family.
    """

    suffix: str
    table: tuple[WeightEntry, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    words: Callable[[Any], dict[str, Any]] = lambda task: {}
    prefix: str | None = None


OF_MODEL = object()


def tag_head(theirs: str) -> Head:
    """Builds a head with one linear layer over every token."""
    return Head(
        "ForTokenClassification",
        both("head/out", theirs),
        {"head": "linear", "crf": False, "align": ("first", "all")},
    )


def span_head(prefix: str | None = None) -> Head:
    """Builds a head with two logits of every token."""
    return Head(
        "ForQuestionAnswering", both("head/out", "qa_outputs"), {"head": "linear"}, prefix=prefix
    )


@dataclasses.dataclass(frozen=True)
class Family:
    """The description of one `model_type`.

    Attributes:
      read: from config.json to fields of ModelConfig; fields that it does not name keep their
        defaults.
      write: its inverse, for a model that has no config.json yet; `to_config` checks that it is.
        None: only models that came from such a file.
      table: the weights of the body. Names of theirs are without `prefix`, which files of a bare
        model lack. Weights that a model has not, because its options leave them out, are skipped:
        what is in a file must be in the model all the same.
      heads: by kind of head (lm, mlm, text, tag, span).
      skip: patterns of names (without prefix) that hold no weight of ours: buffers, heads of
        pretraining.
      copies: patterns of names (without prefix) that are the embedding once more.
      renamed: (old, new) ends of names, as old files have them.
      stored: names of tensors in files, by those of its class, where these are others.
      absent: patterns of names (without prefix) that files lack, because their model does nothing
        there: our weight keeps its initial value.
      bare: the end of the name of the class without a head.
      around: what the names of the body begin with besides, in files of models that hold more.
      encoder: of an encoder-decoder, the family of its encoder alone.
      keys: keys of config.json that its classes read, `key` or `key=default` with blanks between
        them; empty: they stand in `reads.py`.
      ties: whether its class ties the output to the embedding wherever the files have no output
        matrix, whatever the config says.
    """

    model_type: str
    architecture: str
    read: Callable[[Keys], dict[str, Any]]
    table: tuple[WeightEntry, ...]
    prefix: str
    heads: Mapping[str, Head]
    write: Callable[[ModelConfig], dict[str, Any]] | None = None
    skip: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    stored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    absent: tuple[str, ...] = ()
    bare: str = "Model"
    around: tuple[str, ...] = ()
    encoder: Family | None = None
    ties: bool = False
    keys: str = ""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Returns the prefixes of the body's names in files that hold more than the body."""
        found = (self.prefix, *self.around, *map(self.prefix_of, self.heads.values()))
        return tuple(prefix for prefix in dict.fromkeys(found) if prefix)

    def prefix_of(self, head: Head | None) -> str:
        """Returns the prefix of the body's names in the class with this head."""
        return self.prefix if head is None or head.prefix is None else head.prefix

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of its classes in transformers."""
        return tuple(
            self.architecture + end
            for end in (self.bare, *(head.suffix for head in self.heads.values()))
        )

    def of_model(self, model: ModelConfig) -> Family:
        """Returns the family, or that of the encoder alone where the model has no decoder."""
        return self.encoder if self.encoder is not None and not model.decoder_layers else self

    def moves(self, specs: Mapping[str, WeightSpec], prefix: str, what: str) -> list[Move]:
        """Returns every tensor of the body, whose names have this prefix.

        Raises CheckpointError where one of ours has no counterpart.
        """
        gone = re.compile("|".join(f"(?:{pattern})" for pattern in self.absent) or r"(?!)")
        found = moves(self.table, specs, prefix)
        check_covered(found, specs, what)
        return [move for move in found if not gone.fullmatch(move.theirs.removeprefix(prefix))]

    def fields(
        self, values: Mapping[str, Any], place: str, context: int | None = None
    ) -> dict[str, Any]:
        """Returns the fields of ModelConfig that a config.json stands for; `context` as in `Keys`.

        Raises ConfigError for a key that we would ignore.
        """
        keys = Keys(values, place, self.model_type, context)
        out = self.read(keys)
        keys.finish(() if out.get("decoder_layers") else (out["causal"],))
        if out.get("positions") == "rope" or "rope_base" in out:
            _check_rotation(out, keys)
        for name, value in out.items():
            kind = KINDS.get(TYPES[name])
            if kind and (
                not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind)
            ):
                raise ConfigError(
                    f"{place}: model.{name} would be {value!r}, expected a value of type"
                    f" {TYPES[name]}"
                )
        return out

    def model(
        self, values: Mapping[str, Any], place: str = "config.json", context: int | None = None
    ) -> ModelConfig:
        return ModelConfig(**self.fields(values, place, context))

    def to_config(self, model: ModelConfig, rows: int) -> dict[str, Any]:
        """Returns the config.json of a model with `rows` rows of the embedding.

        Raises ConfigError that names what the family has not.
        """
        if other := self.lacks(model, rows):
            told = ", ".join(
                f"model.{name}={wanted!r} (it would be {found!r})"
                for name, (found, wanted) in other.items()
            )
            raise ConfigError(f"export.family={self.model_type}: has no {told}")
        return {"model_type": self.model_type, **self.write(model), "vocab_size": rows}

    def lacks(self, model: ModelConfig, rows: int) -> dict[str, tuple[Any, Any]]:
        """Returns (family's value, model's value) of options that differ, by name.

        Raises ConfigError where it can say nothing of such a model.
        """
        if self.write is None:
            raise ConfigError(
                f"export.family={self.model_type}: a model that was not loaded from one cannot be"
                " written as one"
            )
        values = {"model_type": self.model_type, **self.write(model), "vocab_size": rows}
        back = dataclasses.replace(
            model,
            **{
                "vocab_rows": None,
                **self.fields(values, f"export.family={self.model_type}", model.context),
            },
        )
        out = {}
        for field in dataclasses.fields(ModelConfig):
            found, wanted = getattr(back, field.name), getattr(model, field.name)
            # of their head, whatever the config says
            masked = field.name == "head_bias" and "mlm" in self.heads
            if field.name not in UNWRITTEN and found != wanted and not masked:
                out[field.name] = found, wanted
        return out


TYPES = {field.name: str(field.type) for field in dataclasses.fields(ModelConfig)}


def _check_rotation(model: Mapping[str, Any], keys: Keys) -> None:
    """Raises ConfigError where the dimensions of a head that turn are no pairs, or where there is
    no factor for each pair.
    """
    dims = int(model["head_dim"] * model.get("rope_fraction", 1.0))
    if dims < 1 or dims + dims % 2 > model["head_dim"]:
        raise ConfigError(
            f"{keys.place}: {dims} of the {model['head_dim']} dimensions of a head would turn;"
            " expected an even number of at least 2"
        )
    factors = model["rope_scaling"].factors if "rope_scaling" in model else None
    if factors is not None and len(factors) != dims // 2:
        raise ConfigError(
            f"{keys.place}: long_factor and short_factor have {len(factors)} numbers, expected"
            f" {dims // 2}, one for a pair of dimensions"
        )


KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "str": (str,),
}
KINDS |= {"Optional[int]": (int, type(None)), "Optional[float]": (float, int, type(None))}
UNWRITTEN = (
    "dropout",
    "attention",
    "remat",
    "remat_saves",
    "unroll",
    "pretrained",
    "init",
    "part",
    "vocab_rows",
    "vectors",
    "train_rows",
)
# no part of the architecture
UNWRITTEN += (
    "keep_layers",
    "keep_decoder_layers",
    "repeat_layers",
    "resize_mlp",
    "resize_heads",
    "bidirectional",
)
# in files that were converted from TensorFlow
RENAMED_NORMS = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


# --- from patterns to tensors
# --------------------------------------------------------------------------------------------------
class Slot(NamedTuple):
    """A place in one of our weights: of a stack, one layer (and, with `#`, one expert).

    `spec` is of what lies there.
    """

    path: str
    index: tuple[int, ...]
    spec: WeightSpec


class Move(NamedTuple):
    """One tensor of theirs, and the slots of ours that it fills.

    `order`: which row of theirs each output of ours is; empty: they lie alike.
    """

    theirs: str
    slots: tuple[Slot, ...]
    how: Transform
    order: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape that the tensor of theirs must have."""
        return self.how.shape([slot.spec for slot in self.slots])

    def to_ours(self, tensor: np.ndarray) -> list[np.ndarray]:
        return self.how.to_ours(
            tensor[list(self.order)] if self.order else tensor, [slot.spec for slot in self.slots]
        )

    def to_theirs(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return self.how.to_theirs(arrays, [slot.spec for slot in self.slots])


def moves(
    table: Sequence[WeightEntry], specs: Mapping[str, WeightSpec], prefix: str = ""
) -> list[Move]:
    """Returns every tensor of a table for a model with these weights (a flat dict), layer by layer.

    Entries for weights that the model lacks are skipped.
    """
    out = []
    for entry in table:
        first, *others = entry.ours.split()
        pattern = re.compile(re.escape(first).replace(r"\*", r"(\d+)"))
        for path in specs:
            if match := pattern.fullmatch(path):
                start = match[1] if match.groups() else None
                there = lambda other: other.replace("*", start or "*") in specs
                if (entry.beside and not there(entry.beside)) or (
                    entry.unless and there(entry.unless)
                ):
                    continue
                paths = [path, *(other.replace("*", start or "*") for other in others)]
                out += _moves_of(
                    entry,
                    [(p, specs[p]) for p in paths],
                    None if start is None else int(start),
                    prefix,
                )
    return out


def _moves_of(
    entry: WeightEntry, weights: Sequence[tuple[str, WeightSpec]], start: int | None, prefix: str
) -> Iterator[Move]:
    """Yields the moves of the stacks of one segment, or of weights that are not stacked."""
    depth = (start is not None) + ("#" in entry.theirs)
    cut = [WeightSpec(s.shape[depth:], s.dtype, s.axes[depth:], s.inputs) for _, s in weights]
    for index in np.ndindex(*weights[0][1].shape[:depth]):
        name = entry.theirs
        if start is not None:
            name = name.replace("*", str(start + index[0]), 1)
        name = name.replace("#", str(index[-1]) if index else "")
        slots = tuple(Slot(path, index, spec) for (path, _), spec in zip(weights, cut, strict=True))
        yield Move(prefix + name, slots, entry.how)


def check_covered(found: Sequence[Move], specs: Mapping[str, WeightSpec], what: str) -> None:
    """Raises CheckpointError where a weight, or a layer of it, is filled never or twice."""
    filled = dict.fromkeys(specs, 0)
    for move in found:
        for slot in move.slots:
            filled[slot.path] += math.prod(slot.spec.shape)
    for path, spec in specs.items():
        if filled[path] != math.prod(spec.shape):
            raise CheckpointError(
                f"{what}: {path} {list(spec.shape)} has no counterpart in this family, or not of"
                " all its layers"
            )
