"""The config that runs, from the config that was asked for: checked, with what the data, a
pretrained model and the machine decide.
"""

from __future__ import annotations

import dataclasses

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
from jaxsft.hf import read as pretrained
from jaxsft.metrics import text_overlap as text_scores
from jaxsft.models import surgery
from jaxsft.models.encoder_decoder import encoder_of
from jaxsft.sharding import platforms
from jaxsft.training import pretrained as hf
from jaxsft.training import pretrained_conflicts


def resolve(config: Config, device: Device | None = None) -> Config:
    """Returns the config that runs, with what data, pretrained model and machine decide.

    Architecture and tokenizer are those of `model.pretrained`, splits those of a prepared set; the
    rest is decided in `config/resolve.py`. Raises ConfigError.

    Args:
      device: where it will run; None: on the devices that JAX finds here.
    """
    config, brought = with_template_tokens(config)
    if config.model.pretrained:
        config = like_pretrained(config)
    if brought and hasattr(config.adapter, "train"):
        config = _with_trained_rows(config)
    check_columns(config)
    config = of_prepared(config, typed.columns_read(config.task.spec.records))
    validate.each(config)
    config = config if config.model.pretrained else hf.with_head_of_family(config)
    if config.data.format != "auto":
        formats.named(config.data.format)
    facts = Facts(device or platforms.facts(), scores=text_scores.installed())
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


def like_pretrained(config: Config) -> Config:
    """Returns the config with architecture and tokenizer of what `model.pretrained` names.

    The architecture is changed as `models/surgery.py` says; the options `hf.USERS` stay the user's.
    Raises ConfigError where others were given (`pretrained_conflicts.check`).
    """
    plain, source = of_source(config)
    found = dataclasses.replace(plain, model=surgery.resized(plain.model))
    pretrained_conflicts.check(config, hf.USERS, source, found)
    if config.model.init != "scratch":
        found = pretrained_defaults.apply(found, _trained_with(found))
    return dataclasses.replace(found, unasked=())


def _trained_with(config: Config) -> StartingModel:
    """Returns kind and width of the pretrained model, and how it was regularised."""
    m = config.model
    kind = "encoder-decoder" if m.decoder_layers else "decoder" if m.causal else "encoder"
    if (folder := hf.folder_of(config)) is not None:
        values = pretrained.open_source(folder, m.part).values
        return StartingModel(kind, m.embed, pretrained_defaults.regularised(values))
    run = compose.read(remote.opened(str(hub.run_dir(m.pretrained))) / "config.yaml")
    return StartingModel(kind, m.embed, pretrained_defaults.regularised(run))


def of_source(config: Config) -> tuple[Config, ModelConfig]:
    """Returns (config with architecture and tokenizer of `model.pretrained`, that architecture).

    The config has the architecture as the task uses it, the second value the one that is stored.
    """
    source = config.model.pretrained
    if (folder := hf.folder_of(config)) is not None:
        whole = pretrained.open_source(folder, config.model.part).model(config.model.context)
        return hf.like(config, folder, tokenizer_at(source)), whole
    found = wide(compose.read(remote.opened(str(hub.run_dir(source))) / "config.yaml").model)
    own = hf.own_options(config) | ({} if found.decoder_layers else {"causal": config.model.causal})
    if config.model.part == "encoder":
        if not found.decoder_layers and found.part != "encoder":
            raise ConfigError(
                f"model.part=encoder: model.pretrained={source} has no decoder beside an encoder;"
                " leave the option out"
            )
        found = encoder_of(found)
    tokenizer = PretrainedTokenizer(path=source, added=config.tokenizer.added)
    return (
        dataclasses.replace(
            config,
            model=hf.longer(config.model, dataclasses.replace(found, **own)),
            tokenizer=tokenizer,
        ),
        found,
    )
