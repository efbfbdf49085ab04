"""The config that runs, from the config that was asked for: checked, with what the data, a
pretrained model and the machine decide.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxsft import remote
from jaxsft.config import compose, pretrained_defaults, validate
from jaxsft.config import resolve as resolving
from jaxsft.config.environment import Device, Facts, StartingModel
from jaxsft.config.model import wide
from jaxsft.config.schema import (
    Config,
    ModelConfig,
    PretrainedTokenizer,
)
from jaxsft.data import formats, hub
from jaxsft.data import records as typed
from jaxsft.data.chat import named_templates
from jaxsft.data.chosen_tokenizer import tokenizer_at
from jaxsft.data.config_files import check_columns, of_prepared
from jaxsft.data.tokenizers.tokenizer import SPECIAL
from jaxsft.errors import ConfigError
from jaxsft.hf import pretrained_folder
from jaxsft.hf.families.keys import names_read
from jaxsft.metrics import text_overlap as text_scores
from jaxsft.models import structure
from jaxsft.training import pretrained_conflicts, started_from


def resolve(config: Config) -> Config:
    """Returns the config that runs on the devices that JAX finds. Raises ConfigError."""
    from jaxsft.sharding import platforms  # it imports JAX, which takes seconds

    return resolve_for(config, platforms.facts())


def resolve_for(config: Config, device: Device | None) -> Config:
    """Returns the config that runs, with what data, pretrained model and machine decide.

    Architecture and tokenizer are those of `model.pretrained`, splits those of a prepared set; the
    rest is decided in `config/resolve.py`. It imports no JAX.

    Args:
      device: the devices of all processes; None: the config is only looked at, so that what depends
        on them stays `auto`, and of a pretrained model its config alone is read.

    Raises:
      ConfigError: an option, or a source that it names, cannot be used.
    """
    config, brought = with_template_tokens(config)
    if config.model.pretrained:
        config = like_pretrained(config, whole=device is not None)
    if brought and hasattr(config.adapter, "train"):
        config = _with_trained_rows(config)
    check_columns(config)
    config = of_prepared(config, typed.columns_read(config.task.spec.records))
    validate.each(config)
    config = config if config.model.pretrained else started_from.with_head_of_family(config)
    if config.data.format != "auto":
        formats.named(config.data.format)
    text_scores.check_asked(config)
    facts = Facts(device, scores=text_scores.installed())
    return resolving.resolve(config, facts)


def with_template_tokens(config: Config) -> tuple[Config, bool]:
    """Adds the special tokens that the named chat template writes and the tokenizer lacks.

    Returns the config with them in `tokenizer.added`, and whether there were any.
    """
    name = config.task.template if config.task.spec.conversations else "auto"
    if not named_templates.lacking(name, ()):
        return config, False
    source = config.model.pretrained or getattr(config.tokenizer, "path", None)
    known = {*(tokenizer_at(source).added if source else SPECIAL), *config.tokenizer.added}
    missing = named_templates.lacking(name, known)
    added = (*config.tokenizer.added, *missing)
    return (
        (
            dataclasses.replace(
                config, tokenizer=dataclasses.replace(config.tokenizer, added=added)
            ),
            True,
        )
        if missing
        else (config, False)
    )


def _with_trained_rows(config: Config) -> Config:
    """Returns the config whose adapter trains the rows of added tokens too, and no other rows.

    Without this a token that was added would keep a vector without a meaning.
    """
    rows = ["embed/tokens/.*", *([] if config.model.tied else ["head/.*"])]
    # a tuple: a model with an adapter is hashed
    train = (*config.adapter.train, *(one for one in rows if one not in config.adapter.train))
    adapter = dataclasses.replace(config.adapter, train=train)
    given = any(pattern.startswith("embed") for pattern in config.adapter.train)
    return dataclasses.replace(
        config,
        adapter=adapter,
        model=config.model if given else dataclasses.replace(config.model, train_rows="added"),
    )


def like_pretrained(config: Config, whole: bool = True) -> Config:
    """Returns the config with architecture and tokenizer of what `model.pretrained` names.

    The architecture is changed as `models/structure.py` says; the options `started_from.USERS` stay
    the user's. Raises ConfigError where others were given (`pretrained_conflicts.check`).
    """
    plain, source = of_source(config, whole)
    found = dataclasses.replace(plain, model=structure.resized(plain.model))
    pretrained_conflicts.check(config, started_from.USERS, source, found)
    if config.model.init != "scratch":
        found = pretrained_defaults.apply(found, _trained_with(found, whole))
    return dataclasses.replace(found, unasked=())


def _trained_with(config: Config, whole: bool) -> StartingModel:
    """Returns kind and width of the pretrained model, and how it was regularised."""
    m = config.model
    kind = "encoder-decoder" if m.decoder_layers else "decoder" if m.causal else "encoder"
    if (folder := started_from.folder_of(config, whole)) is not None:
        source = pretrained_folder.open_source(folder, m.part)
        read = names_read(source.family.model_type)
        values = {key: value for key, value in source.values.items() if key in read}
        return StartingModel(kind, m.embed, pretrained_defaults.regularised(values))
    run = compose.read(remote.opened(str(_place(m.pretrained, whole))) / "config.yaml")
    return StartingModel(kind, m.embed, pretrained_defaults.regularised(run))


def _place(source: str, whole: bool) -> str | Path:
    return (hub.run_dir if whole else hub.config_dir)(source)


def of_source(config: Config, whole: bool = True) -> tuple[Config, ModelConfig]:
    """Returns (config with architecture and tokenizer of `model.pretrained`, that architecture).

    The config has the architecture as the task uses it, the second value the one that is stored.

    Args:
      whole: its tokenizer is read too, which takes a second; else `vocab_rows` are those of its
        config, and `task.start` stays open.
    """
    source = config.model.pretrained
    if (folder := started_from.folder_of(config, whole)) is not None:
        reader = tokenizer_at(source) if whole else None
        stored = pretrained_folder.open_source(folder, config.model.part)
        return started_from.like(config, folder, reader), stored.model(config.model.context)
    found = wide(compose.read(remote.opened(str(_place(source, whole))) / "config.yaml").model)
    own = started_from.own_options(config) | (
        {} if found.decoder_layers else {"causal": config.model.causal}
    )
    if config.model.part == "encoder":
        if not found.decoder_layers and found.part != "encoder":
            raise ConfigError(
                f"model.part=encoder: model.pretrained={source} has no decoder beside an encoder;"
                " leave the option out"
            )
        found = structure.encoder_of(found)
    tokenizer = PretrainedTokenizer(path=source, added=config.tokenizer.added)
    return (
        dataclasses.replace(
            config,
            model=started_from.longer(config.model, dataclasses.replace(found, **own)),
            tokenizer=tokenizer,
        ),
        found,
    )
