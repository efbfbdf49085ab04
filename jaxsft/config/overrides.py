"""Overrides, as on the command line and as Python values, composed over the groups of `conf/`.

Hydra's grammar has opinions on quotes, commas, `=` and other characters; where an option is text,
the value is taken as it stands.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jaxsft import plugins
from jaxsft.config import compose, hydra_schema
from jaxsft.config.schema import Config, ModelConfig, PrepareConfig, QualityConfig
from jaxsft.errors import ConfigError

OVERRIDE = r"~|\+{0,2}[\w.@/:]+="  # what an override begins with
# the user names its keys, so that adding one is no mistake
OPEN = r"(task\.variables|data\.options|data\.keep)(\.|$)"
# What Hydra's grammar reads as one unquoted word: it knows no letters but those of ASCII.
_PLAIN = re.compile(r"(?=[\w./:@%+\-]*[A-Za-z_/])[\w./:@%+\-]+", re.ASCII)
# ... but not as a word
_VALUE = re.compile(
    r"true|false|on|off|yes|no|null|inf|nan|[+-]?[\d_.]*(e[+-]?\d+)?", re.IGNORECASE
)
OF_OVERRIDES = ("crossval.choose",)  # lists of overrides
LEVELS = 50  # of lists and objects in each other
_PLACE = re.compile(r"\{\w+\}")  # a place in a text, such as {labels}: no dict


def config_folder() -> Path:
    """Returns the folder `conf/`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return next(p for p in (package / "conf", package.parent / "conf") if p.is_dir())


# parts of which it is noted what the user asked for
NOTED = ("model", "tokenizer", "task", "loss", "optim", "train")
SIZES = ("layers", "embed", "heads", "kv_heads", "head_dim", "mlp")
# the files of conf/ that whole configs are composed from
ROOTS = {"config": Config, "prepare": PrepareConfig, "quality": QualityConfig}


def composed(arguments: Sequence[str], name: str = "config", folders: Sequence[str] = ()) -> Any:
    """Composes the config of a command from overrides: of `jaxsft train`, or of another by `name`.

    Args:
      folders: where further presets lie, beside `conf/`.

    Raises:
      ConfigError: as `node`.
    """
    places = [one if "://" in one else f"file://{os.path.abspath(one)}" for one in folders]
    searched = [f"hydra.searchpath={_hydra_text(places)}"] if places else []
    composed = node([*arguments, *searched], name)
    with as_config_error(ROOTS[name]):
        OmegaConf.resolve(composed)
    return typed(composed, ROOTS[name], arguments, [Path(one) for one in folders])


def typed(
    node: DictConfig, root: type, arguments: Sequence[str], folders: Sequence[Path] = ()
) -> Any:
    """Builds the typed config of what was composed, with a note of what nobody asked for.

    The note is `Config.unasked`; `arguments` are the overrides that were given.

    Args:
      folders: where further presets lie, beside `conf/`.
    """
    config = compose.typed(node, root)
    if root is not Config:
        return config
    asked = _asked(arguments, [config_folder(), *folders])
    values = compose.flat({part: compose.to_dict(getattr(config, part)) for part in NOTED})
    mine = lambda name, value: any(
        (name == one or name.startswith(f"{one}.")) and given in (..., value)
        for one, given in asked.items()
    )
    return dataclasses.replace(
        config,
        unasked=tuple(
            (name, fixed(value)) for name, value in values.items() if not mine(name, value)
        ),
    )


def fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _asked(arguments: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    """Returns what the user gave of the parts in `NOTED`, by name.

    An override gives `...`, whatever its value; a preset that was chosen gives the values of its
    file. The preset of a task or an optimizer gives nothing: each has one, which must suit those
    who start from scratch; it may take the place of another preset's.
    """
    presets: dict[str, Any] = {}
    direct: dict[str, Any] = {}
    for argument in arguments:
        match = re.fullmatch(r"\+{0,2}([\w.]+)(?:@[\w.:]*)?=(.*)", argument, re.DOTALL)
        key, value = match.groups() if match else ("", "")
        if key.partition(".")[0] in NOTED and "." in key:
            direct[key] = ...
        elif key in ("model", "tokenizer", "experiment", "debug"):
            presets |= _of_preset(key, value.strip("'\""), folders)
    return presets | direct


def _of_preset(group: str, name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Returns what a file of `conf/` gives of the parts in `NOTED`, by name.

    Files that its defaults list are included.
    """
    path = next((p for folder in folders if (p := folder / group / f"{name}.yaml").is_file()), None)
    values = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if group == "model":
        # our own say the size of a model, with the defaults of its class
        ours = path is not None and path.parents[1] == config_folder()
        sizes = {name: getattr(ModelConfig(), name) for name in SIZES} if ours else {}
        given = {key: value for key, value in values.items() if key != "defaults"}
        return compose.flat({"model": sizes | given})
    out = (
        {"tokenizer": ...}
        if group == "tokenizer"
        else compose.flat({top: values.get(top) or {} for top in NOTED})
    )
    for entry in values.get("defaults") or [] if group == "experiment" else []:
        for key, value in entry.items() if isinstance(entry, dict) else [(group, entry)]:
            chosen = key.split("@")[0].removeprefix("override").strip().removeprefix("/")
            if chosen in ("model", "tokenizer", "experiment") and isinstance(value, str):
                out |= _of_preset(chosen, value.removeprefix(f"/{group}/"), folders)
    return out


def node(arguments: Sequence[str], name: str = "config") -> DictConfig:
    """Composes overrides with Hydra over the groups of `conf/`.

    The working directory and a Hydra application around it stay as they are.

    Raises:
      ConfigError: the overrides do not compose, in one line.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    plugins.of_arguments(arguments)
    hydra_schema.register()
    for argument in arguments:
        if not isinstance(argument, str) or not re.match(OVERRIDE, argument):
            raise ConfigError(f"{argument}: expected key=value")
    around = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with (
            as_config_error(ROOTS[name]),
            hydra.initialize_config_dir(str(config_folder()), version_base="1.3"),
        ):
            return hydra.compose(name, [quote(a, False, ROOTS[name]) for a in arguments])
    finally:
        if around is not None:
            GlobalHydra.instance().initialize(around)


def from_values(options: Mapping[str, Any]) -> list[str]:
    """Writes Python values as overrides, such as `{"data": {"train": path}, "seed": 1}`.

    A mapping holds the options of a group.
    """
    groups = {p.name for p in config_folder().iterdir() if p.is_dir()}
    out = []
    for key, value in options.items():
        if isinstance(value, Mapping) and not re.match(OPEN, key):
            out += from_values({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            plus = "++" if re.match(OPEN, key) else ""
            out.append(f"{plus}{key}={value if key in groups else _hydra_text(value)}")
    return out


def _hydra_text(value: Any) -> str:
    """Writes a Python value in Hydra's grammar.

    Raises ConfigError for a type that no option has.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if hasattr(value, "item"):  # a NumPy scalar
        return _hydra_text(value.item())
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | os.PathLike):
        return _quoted(os.fspath(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_hydra_text(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_hydra_text(inner) for inner in value) + "]"
    raise ConfigError(
        f"an option cannot be a {type(value).__name__} ({value!r}); expected text, a number, a list"
        " or a dict"
    )


def unquoted(word: str) -> str:
    """Returns an override without the quotes of its value, where Hydra does not need them."""
    key, _, value = word.partition("=")
    inner = value[1:-1] if value[:1] == value[-1:] == "'" else ""
    return f"{key}={inner}" if _is_word(inner) else word


def _is_word(value: str) -> bool:
    return bool(_PLAIN.fullmatch(value) and not _VALUE.fullmatch(value))


def _check_levels(argument: str) -> None:
    """Raises ConfigError for brackets that are nested too deep for Hydra's parser.

    The parser calls itself for each, and would run out of stack.
    """
    level, value = 0, argument.partition("=")[2]
    for letter in (
        value if re.match(r"\s*\w*[\[{(]", value) and sum(map(value.count, "[{(")) > LEVELS else ""
    ):
        level += (letter in "[{(") - (letter in "]})")
        if level > LEVELS:
            raise ConfigError(
                f"{argument.partition('=')[0]}: lists and objects stand in each other more than"
                f" {LEVELS} deep, which no option needs"
            )


def quote(argument: str, multirun: bool, root: type = Config) -> str:
    """Quotes the value of an override where the option is text and Hydra would parse it.

    So `data.train=a,b.csv` is one path. Under `multirun` a comma separates values.
    """
    _check_levels(argument)
    match = re.fullmatch(r"(\+{0,2})([\w.]+)=(.*)", argument, re.DOTALL)
    if not match:
        return argument
    plus, key, value = match.groups()
    plus = "" if key in ("experiment", "debug") else plus
    plus = "++" if re.match(OPEN, key) else plus
    if key in OF_OVERRIDES and re.fullmatch(r"\[[^'\"]*\]", value):
        # Hydra's grammar has no `=` in a list
        items = re.split(r",(?=\s*[\w.]+=)", value[1:-1])
        return f"{plus}{key}=[{','.join(_quoted(item.strip()) for item in items)}]"
    word = _is_word(value)
    quoted = re.fullmatch(r"""(['"])(?:\\.|(?!\1)[^\\])*\1""", value, re.DOTALL)
    taken_as_is = (
        not value or word or value == "null" or (value.startswith("${") and "}" in value) or quoted
    )
    holds = value[:1] in ("[", "{") and not _PLACE.match(value)
    free = (
        key.startswith(("data.options.", "data.keep."))
        and not _VALUE.fullmatch(value)
        and not holds
    )
    if (
        (key not in compose.string_keys(root) and not free)
        or taken_as_is
        or (multirun and "," in value)
    ):
        return f"{plus}{key}={value}"
    return f"{plus}{key}={_quoted(value)}"


def _quoted(text: str) -> str:
    # A backslash is special to Hydra only before a quote, and at the end, where one follows.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


@contextlib.contextmanager
def as_config_error(root: type = Config) -> Iterator[None]:
    try:
        yield
    except OverrideParseException as error:
        raise ConfigError(
            f"{error.override}: not a value; close every bracket, and put text of more than plain"
            " letters and digits in quotes, as in ['é b'], with other quotes around all of it for"
            " the shell"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(compose.one_line(error, root)) from error
