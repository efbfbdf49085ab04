"""Reads a config.json as the classes of its family do.

The rule: a key has an effect exactly when the classes of its family read it (`reads.py`, from the
sources of transformers). What they read, we read; or it is one of `NO_EFFECT`; or it has one of the
values of `HARMLESS`; or it is an error. What they never read is passed over, as they do it, but for
a name that is one slip away from one that they read: whoever wrote it meant that one, and would get
its default without a word.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from jaxsft import plugins
from jaxsft.errors import ConfigError
from jaxsft.hf.families.key_types import SCHEMA, ids_of, shown, wrong
from jaxsft.hf.families.reads import ALIASES, READS, SHARED

# Read by classes, and no number of what we compute depends on it: what training here has options of
# its own for, initial values (files have the weights), what a call returns, how it is computed, ids
# that the tokenizer knows, labels and options of heads (`trained_heads.py` reads them).
_NO_EFFECT = """
architectures model_type transformers_version torch_dtype dtype
attention_dropout attention_probs_dropout_prob attn_pdrop embd_pdrop resid_pdrop hidden_dropout
hidden_dropout_prob embedding_dropout mlp_dropout
dropout dropout_rate activation_dropout classifier_dropout cls_dropout seq_classif_dropout
qa_dropout pooler_dropout encoder_layerdrop residual_dropout
decoder_layerdrop summary_first_dropout summary_last_dropout classif_dropout
initializer_range initializer_factor initializer_cutoff_factor init_std
use_cache output_attentions output_hidden_states return_dict gradient_checkpointing
chunk_size_feed_forward attn_implementation pretraining_tp
reorder_and_upcast_attn deterministic_flash_attn sparse_prediction sparse_pred_ignore_index
bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id eod_token_id mask_token_id
decoder_start_token_id
forced_eos_token_id
id2label label2id num_labels problem_type
pooler_hidden_act pooler_hidden_size legacy classifier_activation classifier_bias classifier_pooling
decoder_bias
summary_type summary_use_proj summary_activation summary_proj_to_labels
output_router_logits router_aux_loss_coef sinusoidal_pos_embds
"""
NO_EFFECT = frozenset(_NO_EFFECT.split())
HARMLESS: dict[str, tuple[Any, ...]] = {  # what else is read, at values that change nothing
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "is_decoder": (False,),
    "quantization_config": (None,),
    "per_layer_config": (None,),
    "attention_chunk_size": (None,),
    "sliding_window": (None,),
    "layer_types": (None,),
    "rope_scaling": (None,),
}


class Keys:
    """The keys of one config.json. What its classes read and nobody here does is an error at the
    end: it would spoil the numbers silently.

    `context` is the length that is wanted; None: what the model was made for.
    """

    def __init__(
        self, values: Mapping[str, Any], place: str, family: str, context: int | None = None
    ):
        self.values, self.place, self.context = dict(values), place, context
        self.family, self.defaults = family, defaults(family)
        self.read_so_far: set[str] = set()
        # the name in the file, of a key that has another one there
        self.written: dict[str, str] = {}
        for other, key in ALIASES.get(family, {}).items():
            if other in self.values:
                value = self.values[other]
                # it is what the class takes; the tensors show whether it is right
                if other == "num_hidden_layers":
                    if why := wrong(key, self.values.get(key, 1)):
                        self.refuse(key, why)
                    self.values[key] = value
                    self.written[key] = other
                if key not in self.values:
                    self.written[key] = other
                if self.values.setdefault(key, value) == value:
                    del self.values[other]
                else:
                    self.refuse(
                        other,
                        f"is another name of {key}, which is {shown(self.values[key])}; expected"
                        " one value",
                    )

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value of a key; by default what the class of the family takes, or `default`.

        Raises ConfigError for one of another kind.
        """
        key = ALIASES.get(self.family, {}).get(key, key)
        self.read_so_far.add(key)
        if key not in self.values:
            return self.defaults.get(key, default)
        value = self.values[key]
        if why := wrong(key, value):
            self.refuse(key, why)
        return value

    def need(self, key: str) -> int:
        """Returns a size. Raises ConfigError where it is missing, null or no number from 1 on."""
        if key not in self.values:
            raise ConfigError(f"{self.place}: has no {key}, which model_type={self.family} needs")
        value = self.get(key)
        if value is None:
            self.refuse(key, "expected a number of at least 1, which this family needs")
        return value

    def only(self, key: str, *known: Any) -> Any:
        """Returns the value, which must be one of `known`; where none is set, the first of them.

        Raises ConfigError.
        """
        value = self.get(key, known[0])
        if value not in known:
            self.refuse(key, f"expected {' or '.join(map(repr, known))}")
        return value

    def named(self, key: str, names: Mapping[str, Any], default: str | None = None) -> Any:
        """Returns our word for the value. Raises ConfigError for one that has none."""
        value = self.get(key, default)
        if value not in names:
            self.refuse(key, f"is not known here; expected one of {', '.join(names)}")
        return names[value]

    def divided(self, size: str, heads: str) -> tuple[int, int]:
        """Returns (size, heads). Raises ConfigError where the second does not divide the first."""
        embed, count = self.need(size), self.need(heads)
        if embed % count:
            self.refuse(heads, f"does not divide {size}={embed}")
        return embed, count

    def refuse(self, key: str, why: str) -> None:
        raise ConfigError(
            f"{self.place}: {self.written.get(key, key)}={shown(self.values.get(key))}: {why}"
        )

    def finish(self, causal: tuple[bool, ...]) -> None:
        """Raises ConfigError that names the first key that was not read and is not without effect;
        `causal`: what `is_causal` may say.
        """
        harmless = {**HARMLESS, "is_causal": causal}
        reads = names_read(self.family)
        for key, value in self.values.items():
            if key in reads:
                self._check_idle(key, value)
            if key in self.read_so_far or key in NO_EFFECT:
                continue
            if key in reads and not any(value is known for known in harmless.get(key, ())):
                known = f"; only {harmless[key][0]} can be loaded" if harmless.get(key) else ""
                self.refuse(
                    key,
                    f"nothing here reads it, but the class of {self.family} does, so the numbers"
                    f" could differ{known}",
                )
            if key not in reads and (meant := nearest(key, reads)):
                self.refuse(
                    key,
                    f"nothing reads it; {meant} is what the class reads: write that, or take the"
                    " key out",
                )

    def _check_idle(self, key: str, value: Any) -> None:
        """Raises ConfigError for a value that cannot be meant, of a key without effect here.

        An id beyond the vocabulary cannot be, but for the class's own: transformers writes that
        into every file.
        """
        if key in NO_EFFECT and value is not None and key in SCHEMA and (why := wrong(key, value)):
            self.refuse(key, why)
        rows, own = self.values.get("vocab_size"), ids_of(key, self.defaults.get(key))
        beyond = [
            one
            for one in ids_of(key, value)
            if isinstance(rows, int) and one >= rows and one not in own
        ]
        if beyond:
            self.refuse(key, f"expected ids below vocab_size={rows}")


def words_read(family: str) -> frozenset[str]:
    """Returns `key` or `key=default` of every key that the classes of a family read."""
    if family in READS:
        return READS[family]
    return frozenset(f"{SHARED} {plugins.table('families')[family].keys}".split())


@functools.cache
def defaults(family: str) -> dict[str, Any]:
    """Returns the constants that the classes of a family take for missing keys."""
    split = (word.partition("=") for word in words_read(family))
    found = {key: json.loads(value) for key, sign, value in split if sign}
    return {ALIASES.get(family, {}).get(key, key): value for key, value in found.items()}


@functools.cache
def names_read(family: str) -> frozenset[str]:
    return frozenset(word.partition("=")[0] for word in words_read(family))


@functools.cache
def _names_of_others() -> frozenset[str]:
    return frozenset().union(NO_EFFECT, *map(names_read, READS))


def nearest(key: str, reads: frozenset[str]) -> str | None:
    """Returns the key that was meant by an unread one; None if it is no slip.

    The two are the same but for capitals and signs between words, or but for one letter that is
    wrong, missing, too much, or has changed places with the next. A name that any family reads
    is no slip, nor a private one.
    """
    if key in _names_of_others() or key.startswith("_") or not 6 <= len(key) <= 60:
        return None
    plain = _plain(key)
    return next(
        (
            name
            for name in sorted(reads - NO_EFFECT)
            if _plain(name) == plain or _one_slip(key, name)
        ),
        None,
    )


def _plain(key: str) -> str:
    return "".join(c for c in key.casefold() if c.isalnum())


def _one_slip(a: str, b: str) -> bool:
    """Returns whether two words differ by one insertion, deletion, replacement or swap.

    Only neighbours are swapped (Damerau, 1964).
    """
    if abs(len(a) - len(b)) > 1 or a == b:
        return False
    start = next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    x, y = a[start:], b[start:]
    return (
        x[1:] == y[1:]
        or x[1:] == y
        or x == y[1:]
        or (x[:2] == y[1::-1] and len(y) > 1 and x[2:] == y[2:])
    )
