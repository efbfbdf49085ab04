"""jaxsft from Python: compose a config, train, open a run, use its model. The commands are thin
readers of arguments over this file.

config = jaxsft.compose("task=classify", "data.path=all.csv", seed=1)
result = jaxsft.train(config)
model = jaxsft.load(result)
model.predict(["a text", "another"])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxsft import plugins
from jaxsft.config import overrides as over
from jaxsft.config.schema import Config, QualityConfig
from jaxsft.data.pipeline import Batches
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.inference import CHECKPOINT, Model, load, model_functions
from jaxsft.training import components, loop, setup, stack
from jaxsft.training import export as exporting
from jaxsft.training.recorder import Result

if TYPE_CHECKING:
    from jaxsft.check import CheckResult as Checked

__all__ = [
    "Model",
    "Result",
    "batches",
    "check",
    "compose",
    "export",
    "load",
    "model_functions",
    "prepare",
    "quality",
    "train",
    "train_stack",
]


# --- train
# --------------------------------------------------------------------------------------------------
def compose(*overrides: str, **options: Any) -> Config:
    """Composes the config of `jaxsft train` with these options, from the groups of `conf/`.

    Args:
      overrides: `key=value`, as on the command line.
      options: the same as Python values, applied after them: `seed=1`, `task="classify"`,
        `data={"train": path}`.

    Raises:
      ConfigError: an unknown option, a wrong type or a missing value.
    """
    return over.composed([*overrides, *over.from_values(options)])


def batches(config: Config) -> tuple[Batches, Tokenizer]:
    """Returns the batches that training would see, and the tokenizer that reads them.

    `batches[step]` is a `jaxsft.data.pipeline.Batch`.

    Raises:
      JaxsftError: as `train`, for what is wrong with config or data.
    """
    parts, records = components.prepare(setup.resolve(config))
    return parts.batches(parts.split("train", records["train"]), training=True), parts.tokenizer


def train(config: Config | str, *overrides: str, **options: Any) -> Result:
    """Trains, or continues the unfinished run in `run_dir`, and writes the figures and the report.

    Args:
      config: what `compose` gave; or the first of overrides, which with `options` are composed
        here.

    Returns: the run directory and the numbers of `result.json`; after Ctrl-C `stopped_by` is the
    signal, and the same call continues.

    Raises:
      JaxsftError: anything that the user can mend.
    """
    config = _composed(config, overrides, options)
    plugins.begin()
    from jaxsft.reports import outputs

    return loop.train(config, outputs.write_all)


def train_stack(
    configs: Sequence[Config], on_event: stack.OnEvent = stack.ignored
) -> list[Result | JaxsftError]:
    """Trains configs that can be one program as one, and writes figures and reports of each.

    Each has a `run_dir` of its own, and leaves there what `train` would have left.

    Args:
      on_event: as of `training.stack.train_stack`.

    Returns: the result of each config, or why it has none.
    """
    plugins.begin()
    from jaxsft.reports import outputs

    return stack.train_stack(configs, on_event, outputs.write_all)


def _composed(config: Config | str, overrides: Sequence[str], options: Mapping[str, Any]) -> Config:
    if not isinstance(config, Config):
        return compose(config, *overrides, **options)
    if overrides or options:
        raise ConfigError(
            "give a Config, or overrides: a Config is complete; dataclasses.replace changes it"
        )
    return config


# --- data
# --------------------------------------------------------------------------------------------------
def check(config: Config | str, *overrides: str, **options: Any) -> Checked:
    """Checks the data of a config before training, as `jaxsft check`; nothing is trained.

    Returns findings with severity, rows and repair.

    Args:
      config, overrides, options: as for `train`.

    Raises:
      ConfigError: an option is wrong, or there is no data. What is wrong with the data is a
        finding.
    """
    from jaxsft.check import check as of_config

    return of_config(_composed(config, overrides, options))


def quality(config: QualityConfig | str, *overrides: str, **options: Any) -> dict[str, Any]:
    """Measures a data set, as `jaxsft quality` with these options.

    Returns the card that the command writes as card.json. No file is written.

    Args:
      config: a QualityConfig; or the first of overrides, which with `options` are composed here.

    Raises:
      ConfigError: an option is wrong; or `output` or `compare` is given, of which nothing would
        come.
      DataError: a file cannot be read, or there is no row.
    """
    from jaxsft.prepare import quality as measuring

    if not isinstance(config, QualityConfig):
        config = over.composed([config, *overrides, *over.from_values(options)], "quality")
    elif overrides or options:
        raise ConfigError(
            "give a QualityConfig, or overrides: a config is complete; dataclasses.replace"
            " changes it"
        )
    if given := [name for name in ("output", "compare") if getattr(config, name) is not None]:
        raise ConfigError(
            f"{given[0]}: jaxsft.quality gives the card and writes nothing;"
            " jaxsft.prepare.quality.card_comparison sets two cards side by side"
        )
    return measuring.card(measuring.of_config(config.data, config.split_column), config)


# --- prepare
# --------------------------------------------------------------------------------------------------
def prepare(
    *overrides: str, models: Mapping[str, Callable] | None = None, **options: Any
) -> tuple[dict[str, Any], bool]:
    """Takes a data set through stages, as `jaxsft prepare` with these options.

    Returns the manifest, and whether anything was done.

    Args:
      models: functions `score` and `predict` for stages that need a model; None: those of the run
        directory `run`, if there is one.

    Raises:
      JaxsftError: anything that the user can mend.
    """
    from jaxsft.prepare import run as preparing

    config = over.composed([*overrides, *over.from_values(options)], "prepare")
    return preparing.prepare(config, model_functions(config.run) if models is None else models)


# --- use
# --------------------------------------------------------------------------------------------------
def export(
    run: str | os.PathLike | Result,
    to: str | os.PathLike,
    *,
    dtype: str | None = None,
    family: str | None = None,
    shard: int = exporting.SHARD,
    adapter: str = "merge",
    head: str = "class",
    checkpoint: str | None = None,
) -> dict[str, Any]:
    """Writes the model of a run as a folder that transformers loads. Equal to `jaxsft export`.

    Args:
      dtype: fp32 | bf16 | fp16; None: what each tensor had in the files that the run started from,
        else float32.
      family: the model_type to write; None: that which the run started from, else the first that
        has all options of the model.
      shard: bytes of a file of weights at most.
      adapter: merge: it becomes part of the weights | peft: it alone is written, for the library
        PEFT.
      head: class: the class of transformers that has the head of the task | body: the model without
        it, and the head in head.safetensors.
      checkpoint: the step, or newest; None: the best one.

    Raises:
      ConfigError: transformers has no class with this computation, or the folder is there already.
      CheckpointError: no good checkpoint.
    """
    asked = [] if checkpoint is None else [f"{CHECKPOINT}{checkpoint}"]
    opened = load(run, "precision=fp32", *asked).run
    return exporting.export(
        opened, to, dtype=dtype, family=family, shard=shard, adapter=adapter, head=head
    )
