"""What a family of models is: how its `config.json` reads in our options, and one table of weight names, from which loading and export follow.

A new family is one file: `read` (and `write`, its inverse), a table, and the `Family` that holds them; `__init__.py` lists it. What keeps it honest:
every key of config.json is read through `Keys` or is an error; every weight of ours and every tensor of theirs is in the table or is an error.
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
from jaxsft.models.families.transforms import LINEAR, PLAIN, Transform
from jaxsft.sharding.weights import WeightSpec

# Keys of config.json that change no number of a forward pass: names, ids that the tokenizer knows better, what only training or decoding reads.
_INERT = """
architectures model_type transformers_version _name_or_path name_or_path auto_map torch_dtype dtype use_cache initializer_range initializer_factor
bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id
id2label label2id num_labels problem_type finetuning_task tokenizer_class task_specific_params gradient_checkpointing
output_attentions output_hidden_states return_dict use_return_dict torchscript use_bfloat16 chunk_size_feed_forward
_attn_implementation attn_implementation _attn_implementation_autoset cache_implementation
language max_length min_length do_sample num_beams temperature top_k top_p
attention_dropout attention_probs_dropout_prob attn_pdrop embd_pdrop resid_pdrop resid_dropout hidden_dropout hidden_dropout_prob embd_dropout
embedding_dropout dropout dropout_rate classifier_dropout classifier_dropout_prob seq_classif_dropout qa_dropout
"""
INERT = frozenset(_INERT.split())
INERT_WHERE = {  # what else has no effect, but only at this value
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
    "pretraining_tp": 1,
    "is_decoder": False,
    "quantization_config": None,
    "sep_token": None,
}


class Keys:
    """The keys of one config.json. What nobody has read at the end is an error: a field that we would ignore spoils the numbers silently.

    `context` is the length that is wanted; None: what the model was made for.
    """

    def __init__(self, values: Mapping[str, Any], place: str, context: int | None = None):
        self.values, self.place, self.context, self._read = dict(values), place, context, set()

    def get(self, key: str, default: Any = None) -> Any:
        """The value; where there is none, `default`, which is what transformers takes."""
        self._read.add(key)
        return self.values.get(key, default)

    def need(self, key: str) -> int:
        """A size. Raises ConfigError where it is missing, or no number of at least 1."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{self.place}: {key}={value!r}: expected a number of at least 1, which this family needs")
        return value

    def count(self, key: str, default: int, least: int = 1) -> int:
        """A whole number; where there is none, `default`. Raises ConfigError for another value, null too."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(key, f"expected a whole number of at least {least}")
        return value

    def only(self, key: str, *known: Any) -> Any:
        """The value, which must be one of `known`; the first is the default of transformers. Raises ConfigError."""
        value = self.get(key, known[0])
        if value not in known:
            self.refuse(key, f"expected {' or '.join(map(repr, known))}")
        return value

    def named(self, key: str, names: Mapping[str, Any], default: str | None = None) -> Any:
        """Our word for the value. Raises ConfigError for one that has none."""
        value = self.get(key, default)
        if not isinstance(value, str) or value not in names:
            self.refuse(key, f"is not known here; expected one of {', '.join(names)}")
        return names[value]

    def refuse(self, key: str, why: str) -> None:
        raise ConfigError(f"{self.place}: {key}={self.values.get(key)!r}: {why}")

    def finish(self) -> None:
        """Raises ConfigError that names the first key that was not read."""
        for key, value in self.values.items():
            if key in self._read or key in INERT or (key in INERT_WHERE and value == INERT_WHERE[key]):
                continue
            why = f"only {INERT_WHERE[key]!r} can be loaded" if key in INERT_WHERE else "nothing here reads it, so the numbers could differ"
            self.refuse(key, why)


# --- the table -------------------------------------------------------------------------------------------------------------------------------
class Entry(NamedTuple):
    """One weight in both worlds.

    Attributes:
      ours: path of ours, `*` being the layer; several, separated by blanks, where one tensor of theirs holds several of ours.
      theirs: name of theirs, `*` being the layer; a `#` counts along the next axis of ours (one tensor per expert).
      how: the transform between them.
      beside, unless: a weight of ours that must be there, or must not, for the name of theirs depends on it; empty: it is always so.
    """

    ours: str
    theirs: str
    how: Transform = PLAIN
    beside: str = ""
    unless: str = ""


def both(ours: str, theirs: str, how: Transform = LINEAR) -> tuple[Entry, Entry]:
    """Weight and bias of one linear layer: `.../w` and `.../b`."""
    names = ours.split()
    return (
        Entry(" ".join(f"{name}/w" for name in names), f"{theirs}.weight", how),
        Entry(" ".join(f"{name}/b" for name in names), f"{theirs}.bias", how.of_bias),
    )


def norm(ours: str, theirs: str) -> tuple[Entry, Entry]:
    return Entry(f"{ours}/scale", f"{theirs}.weight"), Entry(f"{ours}/bias", f"{theirs}.bias")


@dataclasses.dataclass(frozen=True)
class Head:
    """A class of transformers that computes what a head of ours does.

    Attributes:
      suffix: of its name in `architectures`, such as ForCausalLM.
      table: its weights, by full names of theirs. A bias that a head of ours lacks is written as zeros.
      options: what options of the task must be, for the class has no choice; a tuple: one of these; `OF_MODEL`: what the model has.
      words: keys of config.json that say what the head computes, by options of the task.
      prefix: of the weights of the body in this class; None: that of the family.
    """

    suffix: str
    table: tuple[Entry, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    words: Callable[[Any], dict[str, Any]] = lambda task: {}
    prefix: str | None = None


OF_MODEL = object()


def tag_head(theirs: str) -> Head:
    """One linear layer over every token."""
    return Head("ForTokenClassification", both("head/out", theirs), {"head": "linear", "crf": False, "align": ("first", "all")})


def span_head(prefix: str | None = None) -> Head:
    """Two logits of every token."""
    return Head("ForQuestionAnswering", both("head/out", "qa_outputs"), {"head": "linear"}, prefix=prefix)


@dataclasses.dataclass(frozen=True)
class Family:
    """Everything about one `model_type`.

    Attributes:
      read: from config.json to fields of ModelConfig; fields that it does not name keep their defaults.
      write: its inverse, for a model that has no config.json yet; `to_config` checks that it is. None: only models that came from such a file.
      table: the weights of the body. Names of theirs are without `prefix`, which files of a bare model lack. Weights that a model has not, because
        its options leave them out, are skipped: what is in a file must be in the model all the same.
      heads: by kind of head (lm, mlm, text, tag, span).
      skip: patterns of names (without prefix) that hold no weight of ours: buffers, heads of pretraining.
      copies: patterns of names (without prefix) that are the embedding once more.
      renamed: (old, new) ends of names, as old files have them.
      stored: names of tensors in files, by those of its class, where these are others.
      absent: patterns of names (without prefix) that files lack, because their model does nothing there: our weight keeps its initial value.
      bare: the end of the name of the class without a head.
      around: what the names of the body begin with besides, in files of models that hold more.
      encoder: of an encoder-decoder, the family of its encoder alone.
    """

    model_type: str
    architecture: str
    read: Callable[[Keys], dict[str, Any]]
    table: tuple[Entry, ...]
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

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Those of its body in files with more than it."""
        found = (self.prefix, *self.around, *map(self.prefix_of, self.heads.values()))
        return tuple(prefix for prefix in dict.fromkeys(found) if prefix)

    def prefix_of(self, head: Head | None) -> str:
        """That of its body in the class with this head."""
        return self.prefix if head is None or head.prefix is None else head.prefix

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its classes in transformers."""
        return tuple(self.architecture + end for end in (self.bare, *(head.suffix for head in self.heads.values())))

    def of_model(self, model: ModelConfig) -> Family:
        """Of an encoder-decoder that of its encoder alone, where the model has no other half."""
        return self.encoder if self.encoder is not None and not model.decoder_layers else self

    def moves(self, specs: Mapping[str, WeightSpec], prefix: str, what: str) -> list[Move]:
        """Every tensor of the body, whose names have this prefix. Raises CheckpointError where one of ours has no counterpart."""
        gone = re.compile("|".join(f"(?:{pattern})" for pattern in self.absent) or r"(?!)")
        found = moves(self.table, specs, prefix)
        check_covered(found, specs, what)
        return [move for move in found if not gone.fullmatch(move.theirs.removeprefix(prefix))]

    def fields(self, values: Mapping[str, Any], place: str, context: int | None = None) -> dict[str, Any]:
        """The fields of ModelConfig that a config.json stands for; `context` as of `Keys`. Raises ConfigError for a key that we would ignore."""
        keys = Keys(values, place, context)
        out = self.read(keys)
        keys.finish()
        for name, value in out.items():
            kind = KINDS.get(TYPES[name])
            if kind and (not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind)):
                raise ConfigError(f"{place}: model.{name} would be {value!r}, expected a value of type {TYPES[name]}")
        return out

    def model(self, values: Mapping[str, Any], place: str = "config.json", context: int | None = None) -> ModelConfig:
        return ModelConfig(**self.fields(values, place, context))

    def to_config(self, model: ModelConfig, rows: int) -> dict[str, Any]:
        """The config.json of a model of ours with so many rows of the embedding. Raises ConfigError that names what the family has not."""
        if other := self.lacks(model, rows):
            told = ", ".join(f"model.{name}={wanted!r} (it would be {found!r})" for name, (found, wanted) in other.items())
            raise ConfigError(f"export.family={self.model_type}: has no {told}")
        return {"model_type": self.model_type, **self.write(model), "vocab_size": rows}

    def lacks(self, model: ModelConfig, rows: int) -> dict[str, tuple[Any, Any]]:
        """By name, (what the family has, what the model has) of options that differ. Raises ConfigError where it can say nothing of such a model."""
        if self.write is None:
            raise ConfigError(f"export.family={self.model_type}: a model that was not loaded from one cannot be written as one")
        values = {"model_type": self.model_type, **self.write(model), "vocab_size": rows}
        back = dataclasses.replace(model, **{"vocab_rows": None, **self.fields(values, f"export.family={self.model_type}", model.context)})
        out = {}
        for field in dataclasses.fields(ModelConfig):
            found, wanted = getattr(back, field.name), getattr(model, field.name)
            masked = field.name == "head_bias" and "mlm" in self.heads  # of their head, whatever the config says
            if field.name not in UNWRITTEN and found != wanted and not masked:
                out[field.name] = found, wanted
        return out


TYPES = {field.name: str(field.type) for field in dataclasses.fields(ModelConfig)}
KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,)}
KINDS |= {"Optional[int]": (int, type(None)), "Optional[float]": (float, int, type(None))}
UNWRITTEN = ("dropout", "attention", "remat", "unroll", "pretrained", "init", "part", "vocab_rows", "vectors", "train_rows")
UNWRITTEN += ("keep_layers", "keep_decoder_layers", "repeat_layers", "resize_mlp", "resize_heads", "bidirectional")  # no part of the architecture
RENAMED_NORMS = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))  # in files that were converted from TensorFlow


# --- from patterns to tensors ----------------------------------------------------------------------------------------------------------------
class Slot(NamedTuple):
    """A place in a weight of ours: of a stack, one layer (and, with `#`, one expert). `spec` is of what lies there."""

    path: str
    index: tuple[int, ...]
    spec: WeightSpec


class Move(NamedTuple):
    """One tensor of theirs, and the slots of ours that it fills. `order`: which row of theirs each output of ours is; empty: they lie alike."""

    theirs: str
    slots: tuple[Slot, ...]
    how: Transform
    order: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """What theirs must have."""
        return self.how.shape([slot.spec for slot in self.slots])

    def to_ours(self, tensor: np.ndarray) -> list[np.ndarray]:
        return self.how.to_ours(tensor[list(self.order)] if self.order else tensor, [slot.spec for slot in self.slots])

    def to_theirs(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return self.how.to_theirs(arrays, [slot.spec for slot in self.slots])


def moves(table: Sequence[Entry], specs: Mapping[str, WeightSpec], prefix: str = "") -> list[Move]:
    """Every tensor of a table for a model with these weights (a flat dict), layer by layer; entries for weights that it has not give none."""
    out = []
    for entry in table:
        first, *others = entry.ours.split()
        pattern = re.compile(re.escape(first).replace(r"\*", r"(\d+)"))
        for path in specs:
            if match := pattern.fullmatch(path):
                start = match[1] if match.groups() else None
                there = lambda other: other.replace("*", start or "*") in specs
                if (entry.beside and not there(entry.beside)) or (entry.unless and there(entry.unless)):
                    continue
                paths = [path, *(other.replace("*", start or "*") for other in others)]
                out += _moves_of(entry, [(p, specs[p]) for p in paths], None if start is None else int(start), prefix)
    return out


def _moves_of(entry: Entry, weights: Sequence[tuple[str, WeightSpec]], start: int | None, prefix: str) -> Iterator[Move]:
    """Of the stacks of one segment, or of weights that are not stacked."""
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
            raise CheckpointError(f"{what}: {path} {list(spec.shape)} has no counterpart in this family, or not of all its layers")
