"""What cannot work is refused here, before any data is read: one sentence that names the option,
what was found and what was expected.

Each option by itself, where it is read and what it needs follow from its declaration (`option.py`);
what is between several options is in `rules.py`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft import plugins
from jaxsft.config import compose, condition, option, rules
from jaxsft.config.option import Declaration
from jaxsft.config.schema import Config, DataFiles
from jaxsft.errors import ConfigError

# `generate.allow_cut` of a run stays where another `max_new_tokens` is asked for
DRAWN = tuple(
    f"generate.{name}" for name in ("temperature", "top_k", "top_p", "min_p", "length_penalty")
)


def validate(config: Config, runs: bool = True) -> None:
    """Checks a config of training, each option and all together. Raises ConfigError.

    Args:
      runs: it must name its data too; false where it is only looked at.
    """
    each(config)
    values = flat(config)
    _needs(config, values)
    if runs:
        _raise_first(rules.training_data(config))
    for rule in rules.RULES:
        _raise_first(rule(config))
    _raise_first(rules.batches(config))
    _trackers(config.trackers.use)
    _unread(config, values)
    config.task.spec.check(config)


def each(config: Any) -> None:
    """Checks each option by itself. Raises ConfigError.

    Args:
      config: of training, preparation or quality.
    """
    for key, declaration, value in option.walk(config):
        texts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ConfigError(f"{key}={value!r}: expected a text without the character NUL")
        option.check(key, declaration, value)


def of_run(config: Config) -> None:
    """Checks the options that may be changed for a trained run.

    They are checked each by itself, and those that say how an answer is drawn together. Raises
    ConfigError.
    """
    each(config)
    _raise_first(rules.axes(config))
    _raise_first(rules.generation(config))
    _raise_first(rules.metrics(config))
    _unread(config, flat(config), DRAWN)


def data(config: Config) -> None:
    """Checks where the data lies and how it is read. Raises ConfigError."""
    _raise_first(rules.training_data(config))
    _raise_first(rules.data(config))


def options_of_splits(data: DataFiles) -> None:
    """Checks that options of a split are given with its file. Raises ConfigError."""
    _raise_first(rules.options_of_splits(data))


def evaluation_batches(config: Config) -> None:
    """Raises ConfigError where a batch of the evaluation cannot be shared out."""
    _raise_first(rules.evaluation_batches(config))


def flat(config: Config) -> dict[str, Any]:
    """Returns the values that conditions may ask for: those of a config, by whole name.

    `output`, `answer` and `stops` are added, which the task's spec says of itself, and `targets`
    and `reads`, which the loss says where the task has a choice of losses.
    """
    spec = getattr(config.task, "spec", None)
    about = (
        {}
        if spec is None
        else {
            "output": output(spec),
            "answer": spec.output,
            "stops": spec.stops,
            **_of_loss(getattr(config.task, "loss", None), spec.output),
        }
    )
    return compose.flat(compose.to_dict(config)) | about


def _of_loss(name: str | None, answer: str) -> dict[str, Any]:
    """Returns what the loss of a name says of itself; an unknown name is refused elsewhere."""
    table = plugins.table("losses")
    if name is None or name not in table:
        return {}
    return {"targets": table[name].targets, "reads": table[name].reads(answer)}


def output(spec: Any) -> str:
    """Returns over what the head of a task has outputs: vocabulary | text | span | words."""
    if spec.over_vocabulary:
        return "vocabulary"
    return "span" if spec.output == "stretch" else spec.about


def _raise_first(messages: Any) -> None:
    for message in messages:
        raise ConfigError(message)


def _is_default(declaration: Declaration, value: Any) -> bool:
    plain = lambda x: list(x) if isinstance(x, tuple) else x
    return plain(value) == plain(declaration.default)


def _unread(config: Config, values: Mapping[str, Any], names: str | tuple[str, ...] = "") -> None:
    """Raises ConfigError for an option that was changed where nothing reads it.

    It would look as if it had an effect.
    """
    for key, declaration, value in option.walk(config):
        text = declaration.accepts.read_if
        if (
            key.startswith(names)
            and not condition.holds(text, values)
            and not _is_default(declaration, value)
        ):
            found = list(value) if isinstance(value, tuple) else value
            raise ConfigError(f"{key}={found}: is read {condition.where(text, values)}")


def _needs(config: Config, values: Mapping[str, Any]) -> None:
    for key, declaration, value in option.walk(config):
        for given, reasons in declaration.accepts.needs.items():
            if _is_default(declaration, value) or (given and not condition.is_text(value, given)):
                continue
            for reason in reasons:
                text, why = (reason, "") if isinstance(reason, str) else reason
                if not condition.holds(text, values):
                    raise ConfigError(_lacking(f"{key}={given or value}", text, why, values))


def _lacking(what: str, text: str, why: str, values: Mapping[str, Any]) -> str:
    """Writes the message for an option (`what`) whose condition (`text`) does not hold."""
    term = condition.broken(text, values)
    found, because = condition.value_of(term.key, values), f": {why}" if why else ""
    if found in (None, (), [], ""):
        return f"{what} needs {term}{because}"
    unset = term.values == ("null",)
    repair = "leave it out" if unset else f"set {term}" if term.sign == "=" else ""
    return f"{what} excludes {term.key}={found}{because}" + (f"; {repair}" if repair else "")


def _trackers(use: Sequence[str]) -> None:
    """Raises ConfigError where the library of a tracker is not installed."""
    for name in use:
        found = importlib.util.find_spec(name)
        # a folder wandb/ of offline runs in the working directory is a package too, with no file
        if found is None or found.origin is None:
            raise ConfigError(f"trackers.use=[{name}]: install jaxsft[{name}]")
