"""From Hydra's composed config to the frozen, typed objects of `schema.py`, and back to YAML."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import difflib
import functools
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, ListConfig, OmegaConf, errors

from jaxsft import documents, plugins
from jaxsft.config import foreign, option, schema
from jaxsft.config.hydra_schema import GROUPS, OF_PLUGINS, option_fields, plain, twin
from jaxsft.config.model import of_kind
from jaxsft.errors import ConfigError
from jaxsft.other_models import what_is

# What may differ when a run goes on: where it lies, how long it is, the devices that it has, how it
# is looked at, and who is told of it.
CHANGEABLE = (
    "run_dir",
    "train.duration",
    "mesh.",
    "hosts.",
    "profile",
    "compilation_cache",
    "trackers.",
    "check.",
    "train.backbone_limit",
    "plugins",
)


@functools.cache
def choices() -> dict[str, tuple[str, ...]]:
    """Returns the choices of each option of training that takes words only, by its whole name.

    An option that several classes have takes the choices of any of them.
    """
    classes = [("", schema.Config), *((f"{g}.", c) for g in GROUPS for c in GROUPS[g].values())]
    found: dict[str, tuple[str, ...]] = {}
    for prefix, cls in classes:
        for key, declaration in option.names(cls, prefix):
            if words := declaration.accepts.choices:
                found[key] = tuple(dict.fromkeys((*found.get(key, ()), *words)))
    return found


# --- to typed objects
# --------------------------------------------------------------------------------------------------
def typed(node: Any, root: type = schema.Config) -> Any:
    """Builds frozen objects from a composed config.

    Takes OmegaConf's containers or plain dicts, as in a run's config.yaml.

    Args:
      root: Config, PrepareConfig or QualityConfig.

    Raises:
      ConfigError: an unknown key, a wrong type, a missing value or an unknown option of a group.
    """
    values = (
        OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    ).copy()
    hints, classes = typing.get_type_hints(root), {}
    for group, options in GROUPS.items() if root is schema.Config else ():
        # the config of a run from before there was a choice
        absent = "none" if group not in values and "none" in options else None
        part = values.get(group) or {}
        if not isinstance(part, Mapping):
            found = "nothing" if part == MISSING else f"{part!r:.60}"
            raise ConfigError(
                f"{group}: found {found}, expected its options; choose one of"
                f" {', '.join(f'{group}={name}' for name in options)}"
            )
        name = part.get("name" if group != "tokenizer" else "kind", absent)
        if name not in options:
            raise ConfigError(f"{group}={name}: unknown; there are {', '.join(options)}")
        classes[group] = options[name]
    container: dict[str, Any] = {}
    try:
        for f in option_fields(root):
            if dataclasses.is_dataclass(hints[f.name]):
                part = {f.name: values.pop(f.name)} if f.name in values else {}
                container |= _merged(root, (f.name,), classes.get(f.name), _Given(part))
        container |= _merged(
            root,
            tuple(f.name for f in option_fields(root) if f.name not in container),
            None,
            _Given(values),
        )
    except errors.OmegaConfBaseException as error:
        raise ConfigError(one_line(error, root)) from error
    found = _freeze(root, copy.deepcopy(container), classes)
    if root is not schema.Config:
        return found
    return dataclasses.replace(found, model=of_kind(found.model))


class _Given(dict):
    """Values that are known by how they are written, so that 1 and 1.0 differ."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(self))

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)


@functools.lru_cache(maxsize=1024)
def _merged(
    root: type, names: tuple[str, ...], chosen: type | None, given: _Given
) -> dict[str, Any]:
    """Merges given values into some fields of the root, and returns them all as plain values.

    The merge checks types and fills in defaults. Calls are cached, as OmegaConf takes
    0.1 s for a whole config, most of which it has seen before.

    Args:
      chosen: the class of the option of a group, of the one field that is named.
    """
    part = dataclasses.make_dataclass(
        root.__name__, [_opened(root, name) for name in names], namespace={"__module__": __name__}
    )
    base = OmegaConf.structured(part)
    if chosen is not None:
        base[names[0]] = OmegaConf.structured(plain(chosen))
    return OmegaConf.to_container(OmegaConf.merge(base, dict(given)), throw_on_missing=True)


def _opened(root: type, name: str) -> tuple[str, Any, dataclasses.Field]:
    """Returns a field of the twin of the root, as `make_dataclass` takes it."""
    twin = plain(root)
    return name, typing.get_type_hints(twin)[name], _default(twin.__dataclass_fields__[name])


def filled(cls: type, given: Any, prefix: str, skip: Sequence[str] = ()) -> Any:
    """Builds a frozen dataclass from options by name, typed and checked.

    Serves classes that no group of `conf/` has.

    Args:
      skip: fields that are no options.

    Raises:
      ConfigError: an unknown option, a wrong type or a missing value, each named behind `prefix`.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{prefix}: found {given!r:.60}, expected options by name")
    known = [f.name for f in dataclasses.fields(cls) if f.name not in skip]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{prefix}.{name}: unknown option{_suggest(str(name), known)}; it has"
                f" {', '.join(known) or 'none'}"
            )
    chosen = [f for f in dataclasses.fields(cls) if f.name in known]
    hints = typing.get_type_hints(cls)
    partial = dataclasses.make_dataclass(
        cls.__name__,
        [(f.name, twin(hints[f.name]), _default(f)) for f in chosen],
        namespace={"__module__": __name__},
    )
    try:
        container = OmegaConf.to_container(
            OmegaConf.merge(OmegaConf.structured(partial), dict(given)), throw_on_missing=True
        )
    except errors.OmegaConfBaseException as error:
        raise ConfigError(f"{prefix}: {one_line(error)}") from error
    values = {name: tuple(v) if isinstance(v := container[name], list) else v for name in known}
    return cls(**values)


def _default(f: dataclasses.Field) -> Any:
    """Returns a new field of the same default.

    Without one it is `MISSING` until a value is given.
    """
    if f.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=f.default_factory)
    return dataclasses.field(default=MISSING if f.default is dataclasses.MISSING else f.default)


def _freeze(
    cls: type, values: dict[str, Any], classes: dict[str, type] = types.MappingProxyType({})
) -> Any:
    hints, out = typing.get_type_hints(cls), {}
    for f in option_fields(cls):
        value, hint = values[f.name], classes.get(f.name, hints[f.name])
        if dataclasses.is_dataclass(hint):
            value = _freeze(hint, value)
        elif isinstance(value, list):
            inner = typing.get_args(hint)[0] if typing.get_args(hint) else None
            # Optional[list[...]]
            inner = typing.get_args(inner)[0] if typing.get_origin(inner) is list else inner
            value = tuple(
                _freeze(inner, v) if dataclasses.is_dataclass(inner) else v for v in value
            )
        # a bare true or false of a YAML file, where an option takes words
        elif hint is str and value in ("True", "False"):
            value = value.lower()
        out[f.name] = value
    return cls(**out)


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the options as plain values, ready for YAML and JSON."""
    return {
        k: _plain_value(v)
        for k, v in ((f.name, getattr(config, f.name)) for f in option_fields(config))
    }


def _plain_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return [_plain_value(v) for v in value] if isinstance(value, list | tuple) else value


def to_yaml(config: schema.Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def read(path: Path) -> schema.Config:
    """Reads the config of a run directory. Raises ConfigError."""
    check_there(path)
    try:
        values = documents.read_yaml(path, ConfigError, dict)
        plugins.check_run(path.parent, values.get("plugins"))
        return typed(values)
    except (AttributeError, TypeError, ValueError) as error:  # a group that is no mapping, say
        raise ConfigError(f"{path}: not a readable config ({one_line(error)})") from error


def check_there(path: Path) -> None:
    """Raises ConfigError where there is no config.yaml: its folder is no run directory."""
    try:
        there = path.exists()
        folder = path.parent.is_dir() or not path.parent.exists()
    except (OSError, ValueError) as error:  # a name that is too long
        raise ConfigError(
            f"{path.parent}: not a run directory ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not there:
        why = (
            "it is a file"
            if not folder
            else f"it has no {path.name}"
            if path.parent.exists()
            else "there is no such folder"
        )
        other = what_is(path.parent) if path.name == "config.yaml" else None
        raise ConfigError(f"{path.parent}: not a run directory ({other or why})")


def override(config: schema.Config, overrides: Sequence[str]) -> schema.Config:
    """Applies `a.b=value` overrides, strictly, to the config of a run.

    The value is raw text, without Hydra's grammar.

    Raises:
      ConfigError: no `=`, an unknown key, or a value of the wrong type.
    """
    node = OmegaConf.create(to_dict(config))
    OmegaConf.set_struct(node, True)
    known = list(flat(to_dict(config)))
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"{text}: expected key=value")
        # the format, the file or the template knows its names
        free = key.startswith(("data.options.", "data.keep.", "task.variables"))
        if key not in known and not free:
            raise ConfigError(f"{key}: unknown option{_suggest(key, known)}")
        given = (
            value
            if key in string_keys() and value != "null"
            else _without_dates(documents.parse_yaml(value, text, ConfigError))
        )
        if isinstance(OmegaConf.select(node, key), ListConfig) and not isinstance(
            given, list | None
        ):
            raise ConfigError(f"{text}: expected a list, such as {key}=[{value}]")
        OmegaConf.update(node, key, given, force_add=free)
    return typed(node)


def _without_dates(value: Any) -> Any:
    """Returns the value with text in place of what YAML takes for a date."""
    if isinstance(value, dict):
        return {key: _without_dates(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_dates(part) for part in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts: `{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    out = {}
    for key, value in values.items():
        out |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        )
    return out


def string_keys(root: type = schema.Config) -> frozenset[str]:
    """Returns the options whose value is text: the command line takes it raw there."""
    return _string_keys(root, tuple(plugins.found()))


@functools.cache
def _string_keys(root: type, theirs: tuple[plugins.Plugin, ...]) -> frozenset[str]:
    """Returns the options whose value is text, with those of these plug-ins; cached by plug-ins."""

    def walk(cls: type, prefix: str) -> set[str]:
        out = set()
        for name, hint in typing.get_type_hints(cls).items():
            if dataclasses.is_dataclass(hint):
                out |= walk(hint, f"{prefix}{name}.")
            elif hint is str or (
                typing.get_origin(hint) is typing.Union and str in typing.get_args(hint)
            ):
                out.add(prefix + name)
        return out

    keys = walk(root, "")
    for group, options in GROUPS.items() if root is schema.Config else ():
        for name in options:
            with contextlib.suppress(ConfigError):  # a plug-in that cannot be used has none
                keys |= walk(options[name], f"{group}.")
    return frozenset(keys)


# --- messages
# --------------------------------------------------------------------------------------------------
def one_line(error: BaseException, root: type = schema.Config) -> str:
    """Formats an error of Hydra or OmegaConf as one line.

    Their advice to set environment variables is left out.
    """
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, errors.OmegaConfBaseException):
        cause = cause.__cause__
    text = str(cause)
    key = re.search(r"full_key: (\S+)", text)
    first = re.split(r"\n\s*full_key:|\n\s*object_type|\nSet the environment", text)[0]
    if option := re.search(
        r"Could not find '(\w+)/([^']+)'\s+Available options in '\w+':\s+([\w\s]+?)\s+Config search"
        r" path",
        first,
    ):
        meant = MEANT.get(option[1], "").format(option[2])
        kind = OF_PLUGINS.get(option[1])
        if kind and (why := plugins.why_not(kind, option[2])):
            return why
        return f"{option[1]}={option[2]}: unknown; there are {', '.join(option[3].split())}" + (
            f"; {meant}" if meant else ""
        )
    found = re.search(r"Key '([^']+)' (?:is not in struct|not in '(\w+)')", first)
    if found:
        name = key[1] if key else found[1]
        return _unknown(name, str(cause), root)
    if isinstance(cause, errors.MissingMandatoryValue) and key:
        return f"{key[1]}: must be given, as there is no default"
    wrong = re.search(
        r"Invalid type assigned: \w+ is not a subclass of \w+\. value: (.*)", first, re.DOTALL
    )
    if key and wrong and (told := _no_part(key[1], wrong[1], root)):
        return told
    line = " ".join(part.strip() for part in first.splitlines() if part.strip())
    return f"{key[1]}: {line}" if key and key[1] not in line else line


def _unknown(name: str, text: str, root: type) -> str:
    """Formats the message for an option that does not exist.

    The error names the class that lacks it, so that options of this class are suggested.
    """
    group = name.partition(".")[0]
    chosen = re.search(r"object_type=(?:\w+\.)*(\w+)", text)
    for choice, cls in GROUPS.get(group, {}).items():
        if chosen and cls.__name__ == chosen[1]:
            known = [
                f"{group}.{f.name}"
                for f in dataclasses.fields(cls)
                if f.name not in ("name", "kind")
            ]
            near = (
                _suggest(name, known, 0.8)
                or f"; it has {', '.join(known) or 'none'}{_elsewhere(name, group, choice)}"
            )
            return f"{name}: unknown option of {group}={choice}{near}"
    known = flat(OmegaConf.to_container(OmegaConf.structured(plain(root))))
    return f"{name}: unknown option{_suggest(name, list(known))}"


def _suggest(key: str, known: Sequence[str], alike: float = 0.6) -> str:
    last = key.rsplit(".", 1)[-1]
    # optim.lr
    short = [
        k
        for k in known
        if key
        == k.rsplit(".", 1)[0] + "." + "".join(word[0] for word in k.rsplit(".", 1)[-1].split("_"))
    ]
    if not short and (told := foreign.hint(key)):
        return f"; {told}"
    same = [k for k in known if k.rsplit(".", 1)[-1] == last]
    close = short or same[:2] or difflib.get_close_matches(key, known, n=2, cutoff=alike)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _elsewhere(name: str, group: str, option: str) -> str:
    """Returns which other choices of a group have an option that this one lacks."""
    having = [
        other
        for other, cls in GROUPS[group].items()
        if other != option and name.partition(".")[2] in cls.__dataclass_fields__
    ]
    return (
        f"; {' and '.join(f'{group}={other}' for other in having[:3])}"
        f" {'have' if len(having) > 1 else 'has'} this one"
        if having
        else ""
    )


# What somebody means who gives a file or a name where a group of `conf/`, or a part of the config,
# is meant.
MEANT = {
    "data": "a file is data.path={0} (split here) or data.train={0}",
    "model": "a folder of weights is model.pretrained={0}",
    "tokenizer": "a folder of a tokenizer is tokenizer=pretrained tokenizer.path={0}",
    "trackers": "a tracker is trackers.use=[{0}]",
    "train": "a file is data.train={0}",
    "adapter": "a folder of an adapter is adapter=lora adapter.start_from={0}",
}


def _no_part(name: str, value: Any, root: type) -> str | None:
    """Returns the message for a value in place of a part of the config (`trackers=wandb`).

    Returns None where the name is no part.
    """
    hint = typing.get_type_hints(root).get(name)
    if hint is None or not dataclasses.is_dataclass(hint):
        return None
    meant = MEANT.get(name, "").format(value)
    options = ", ".join(f"{name}.{f.name}=" for f in option_fields(hint)[:4])
    return f"{name}={value}: {name} holds several options; " + (
        meant or f"give them by name, such as {options}"
    )
