"""The config of a run that starts from a folder in the layout of Hugging Face: its architecture,
its tokenizer and the head of its class, from its files and without JAX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft import remote
from jaxsft.config.model import Computation, StartingPoint
from jaxsft.config.schema import Config, ModelConfig, PretrainedTokenizer
from jaxsft.data import hub
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.hf import pretrained_folder, sentence_vectors, trained_heads, write
from jaxsft.hf.families.family import Head
from jaxsft.hf.pretrained_folder import PretrainedFolder

# stay the user's
USERS = tuple(f.name for part in (Computation, StartingPoint) for f in dataclasses.fields(part))
# read where logits over the vocabulary are made
OF_VOCABULARY = ("tied", "head_bias", "logit_softcap")


def like(config: Config, folder: Path, reader: Tokenizer | None) -> Config:
    """Returns the config with the architecture and the tokenizer of a folder.

    Args:
      reader: the tokenizer; None: it was not read, so that it gives no rows to the vocabulary and
        no tokens to start from.

    Raises:
      ConfigError: an option changes nothing there, or the tokenizer is of another model.
    """
    source = pretrained_folder.open_source(folder, config.model.part)
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
        reader is not None
        and config.model.init != "scratch"
        and (tokens := int(reader.ordinary().max(initial=-1)) + 1) > found.vocab_rows
    ):
        raise ConfigError(
            f"model.pretrained={config.model.pretrained}: the tokenizer makes texts of {tokens}"
            f" tokens, the embedding of the model has {found.vocab_rows} rows, so they belong to"
            " different models; put the model's own tokenizer there"
        )
    if reader is not None:
        rows = max(found.vocab_rows, reader.vocab_size + len(config.tokenizer.added))
        found = dataclasses.replace(found, vocab_rows=rows)
    tokenizer = PretrainedTokenizer(path=config.model.pretrained, added=config.tokenizer.added)
    if reader is not None and found.decoder_layers and getattr(task, "start", ()) is None:
        start = _start(source, reader)
        config = dataclasses.replace(config, task=dataclasses.replace(task, start=start))
    return dataclasses.replace(config, model=found, tokenizer=tokenizer)


def with_head_of_class(config: Config, source: PretrainedFolder) -> Config:
    """Returns the config with the head of the folder's class, where no option of a head was given.

    So what is trained can be exported, and a trained head or a pooler is taken. Of a folder of
    sentence-transformers it is the pooling by which its vectors were made.

    Raises:
      ConfigError: a module of sentence-transformers has no counterpart.
    """
    task, kind = config.task, config.task.spec.head
    head = source.family.heads.get(kind)
    if kind == "text" and sentence_vectors.is_one(source.folder):
        given = {name: not _nobody_gave(config, name) for name in ("pool", "head")}
        own = sentence_vectors.options_of(source.folder, given)
        return _unless_given(config, head, own, "sentence-transformers", always=True)
    if head is None or kind == "lm" or getattr(task, "encoder", "cross") != "cross":
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


def _nobody_gave(config: Config, name: str) -> bool:
    """Returns whether an option of the task has its default because nobody gave it."""
    unasked = dict(config.unasked)
    if unasked:
        return f"task.{name}" in unasked
    return getattr(config.task, name) == getattr(type(config.task)(), name)


def _unless_given(
    config: Config, head: Head | None, own: Mapping[str, Any], name: str, always: bool = False
) -> Config:
    """Returns the config with these options of the task, where nobody gave them.

    If an option was given that the class does not compute with, the others would not make that
    class either, and the task stays as it is (but for `always`). `Config.origins` says that they
    are those of the class `name`.
    """
    task = config.task
    nobody = lambda name: _nobody_gave(config, name)
    other = lambda key, value: (
        head is not None
        and key in head.options
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


def _start(source: PretrainedFolder, tokenizer: Tokenizer) -> list[str] | None:
    """Returns the tokens that the decoder was trained to start from; None where none are named.

    They are the `decoder_start_token_id`, and bos where the tokenizer has another one, for a target
    is framed as a source is. Raises ConfigError where the id is no special token.
    """
    first = source.values.get("decoder_start_token_id")
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


def architecture(config: Config, source: PretrainedFolder) -> ModelConfig:
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


def folder_of(config: Config, whole: bool = True) -> Path | None:
    """Returns the folder that `model.pretrained` names; None where it is none in this layout.

    Args:
      whole: all of it is fetched, where it lies elsewhere; else its config alone.
    """
    if not config.model.pretrained:
        return None
    place = (hub.run_dir if whole else hub.config_dir)(config.model.pretrained)
    folder = remote.opened(str(place))
    return folder if pretrained_folder.is_source(folder) else None
