"""Parts that other packages bring: tasks, metrics, losses, optimizers, schedules, families, formats
and stages, by name, without a change of jaxsft.

A plug-in is a module with `JAXSFT_CONTRACT = 1`. It is found in one of two ways, and in no other:

- as an entry point of an installed package, `[project.entry-points."jaxsft.tasks"]
  rate = "my_package.rate:SPEC"`, imported when its name is asked for;
- by the option `plugins=[my_package.rate]` (or `plugins=[rate.py]`, a file) of the command line or
  of a call; such a module names its parts in `PLUGINS = {"tasks": {"rate": SPEC}}`.

A name that only a run directory or a data file says is never imported: `check_run` refuses it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxsft import documents
from jaxsft.errors import ConfigError

CONTRACT = 1  # of what this jaxsft expects of a plug-in; another number is refused
OPTION = "plugins="
# By kind: what one is called, the table of those that jaxsft has, and the type of a plug-in. They
# are named by text, so that no room has to stand above this file to be looked up.
KINDS: dict[str, tuple[str, str, str]] = {
    "tasks": ("task", "jaxsft.tasks.specs:SPECS", "jaxsft.tasks.specs:TaskSpec"),
    "metrics": (
        "metric",
        "jaxsft.metrics.by_name:METRICS",
        "jaxsft.metrics.base:Metric",
    ),
    "losses": ("loss", "jaxsft.losses:LOSSES", "jaxsft.losses:Loss"),
    "optimizers": ("optimizer", "jaxsft.optim.parts:OPTIMIZERS", "jaxsft.optim.parts:Optimizer"),
    "schedules": ("schedule", "jaxsft.optim.parts:SCHEDULES", "jaxsft.optim.parts:Schedule"),
    "families": ("family", "jaxsft.hf.families:FAMILIES", "jaxsft.hf.families.family:Family"),
    "formats": ("format", "jaxsft.data.formats:FORMATS", "jaxsft.data.formats:Format"),
    "stages": ("stage", "jaxsft.prepare.stages:STAGES", "jaxsft.prepare.stage:Stage"),
}


@dataclass(frozen=True)
class Plugin:
    """One part that is not of jaxsft.

    Attributes:
      kind: a key of `KINDS`.
      module: where it stands; as it was given where it came by the option.
      attribute: its name in the module; None: it stands in `PLUGINS`.
      package: the installed package and its version; None: it came by the option.
    """

    kind: str
    name: str
    module: str
    attribute: str | None = None
    package: str | None = None

    def __str__(self) -> str:
        return (
            f"{KINDS[self.kind][0]} {self.name} of"
            f" {self.package or f'{OPTION}[{self.module}]'} ({self.module})"
        )


_given: dict[str, ModuleType] = {}  # modules of the option, by the name that was given
_used: list[Plugin] = []  # in the order of their use


# --- tables
# --------------------------------------------------------------------------------------------------
class Registry(Mapping[str, Any]):
    """A table of jaxsft that plug-ins of one kind extend: its own entries, then theirs. One of its
    own may be a text `module:NAME`, which is imported when it is asked for.

    Asking whether a name is there, or for all names, imports no plug-in.
    """

    def __init__(
        self, kind: str, own: Mapping[str, Any], read: Callable[[Any], Any] = lambda part: part
    ):
        """Makes the table of parts of a kind, our own (`own`) and those of plug-ins.

        `read` makes an entry of this table from a plug-in's part, such as the class of its options.
        """
        self.kind, self._own, self._read = kind, own, read

    def __getitem__(self, name: str) -> Any:
        """Returns the entry of a name, from jaxsft or from a plug-in.

        Raises KeyError for an unknown name, and ConfigError where two parts have it or a plug-in
        cannot be used.
        """
        theirs = _of_name(self.kind, name)
        if name in self._own and not theirs:
            return self._of_own(self._own[name])
        if not theirs:
            raise KeyError(name)
        if name in self._own:
            raise ConfigError(
                f"{theirs[0]}: jaxsft has a {KINDS[self.kind][0]} of this name; rename the plug-in,"
                " or take it away"
            )
        return self._read(part(theirs[0]))

    def _of_own(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        kind = part_type(self.kind)
        value = _only(value.removesuffix(":"), kind) if value.endswith(":") else _object(value)
        return self._read(value) if isinstance(value, kind) else value

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._own, *names(self.kind)]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in names(self.kind)

    @property
    def own(self) -> Mapping[str, Any]:
        """Returns the entries of jaxsft alone, as they were given."""
        return self._own

    def own_items(self) -> Iterator[tuple[str, Any]]:
        """Yields the names and entries of jaxsft alone."""
        return ((name, self._of_own(value)) for name, value in self._own.items())

    def take(self, name: str) -> Any:
        """Returns an entry that a run is going to use, and notes it where it is a plug-in."""
        value = self[name]
        _used.extend(one for one in _of_name(self.kind, name) if one not in _used)
        return value


def files(package: str, constant: str, folders: bool = False) -> dict[str, str]:
    """Returns the own entries of a table of which each is a file of a package: by the name of the
    file, without a suffix `_stage` or the like, the text `module:CONSTANT`.

    A new entry is a new file; none of them is imported here.

    Args:
      constant: what the part is called in its file; empty: it is the one part of its kind there.
      folders: each is a folder in the package, not a file.
    """
    suffix = f"_{package.rpartition('.')[2].removesuffix('s')}"
    return {
        one.name.removesuffix(suffix): f"{package}.{one.name}:{constant}"
        for one in _modules(package)
        if one.ispkg == folders
    }


def parts(package: str, kind: type) -> list[Any]:
    """Imports the files of a package, and returns the objects of a type that stand in them."""
    found = {}
    for one in _modules(package):
        module = importlib.import_module(f"{package}.{one.name}")
        found |= {id(part): part for part in vars(module).values() if isinstance(part, kind)}
    return list(found.values())


def _modules(package: str) -> list[pkgutil.ModuleInfo]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    return list(pkgutil.iter_modules(spec.submodule_search_locations))


class OfTable(Mapping[str, Any]):
    """One field of every entry of the table of a kind, such as the options of all tasks. The table
    is imported when it is first asked. `read` makes what is told from that field."""

    def __init__(self, kind: str, field: str, read: Callable[[Any], Any] = lambda value: value):
        self.kind, self.field, self._read = kind, field, read

    def own_items(self) -> Iterator[tuple[str, Any]]:
        """Yields the names and the field of the entries of jaxsft alone."""
        of_own = table(self.kind).own_items()
        return ((name, self._read(getattr(value, self.field))) for name, value in of_own)

    def __getitem__(self, name: str) -> Any:
        return self._read(getattr(table(self.kind)[name], self.field))

    def __iter__(self) -> Iterator[str]:
        return iter(table(self.kind))

    def __len__(self) -> int:
        return len(table(self.kind))

    def __contains__(self, name: object) -> bool:
        return name in table(self.kind)


def table(kind: str) -> Registry:
    """Returns the table of a kind: what jaxsft has, and the plug-ins."""
    return _object(KINDS[kind][1])


def part_type(kind: str) -> type:
    """Returns the class that a part of a kind is an object (or a subclass) of."""
    return _object(KINDS[kind][2])


def _object(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _only(module: str, kind: type) -> Any:
    """Returns the one class or object of a kind that a module defines."""
    content = vars(importlib.import_module(module)).items()
    found = [
        value
        for name, value in content
        if isinstance(value, kind)
        or (isinstance(value, type) and issubclass(value, kind) and value.__module__ == module)
        if not name.startswith("_")
    ]
    assert len(found) == 1, f"{module}: {len(found)} parts of the kind {kind.__name__}"
    return found[0]


# --- where plug-ins are found
# --------------------------------------------------------------------------------------------------
def found() -> list[Plugin]:
    """Returns all plug-ins, of installed packages first; nothing is imported for it."""
    given = [
        Plugin(kind, name, module)
        for module, content in _given.items()
        for kind, parts in content.PLUGINS.items()
        for name in parts
    ]
    installed = {(one.kind, one.name, one.module) for one in _installed()}
    return [*_installed(), *(one for one in given if _key(one) not in installed)]


def _key(one: Plugin) -> tuple[str, str, str]:
    return one.kind, one.name, getattr(_given[one.module], "__name__", one.module)


@functools.cache
def _installed() -> tuple[Plugin, ...]:
    out = []
    for kind in KINDS:
        for entry in importlib.metadata.entry_points(group=f"jaxsft.{kind}"):
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
            out.append(Plugin(kind, entry.name, entry.module, entry.attr, package))
    return tuple(dict.fromkeys(out))


def names(kind: str) -> list[str]:
    """Returns the names of the plug-ins of a kind; nothing is imported for it."""
    return [one.name for one in found() if one.kind == kind]


def _of_name(kind: str, name: str) -> list[Plugin]:
    """Returns the plug-in of a name, or none. Raises ConfigError where there are two."""
    theirs = [one for one in found() if one.kind == kind and one.name == name]
    if len(theirs) > 1:
        raise ConfigError(f"{theirs[0]} and {theirs[1]} have one name; take one of them away")
    return theirs


def working(kind: str) -> Iterator[tuple[str, Any]]:
    """Yields the names and parts of the plug-ins of a kind that can be used.

    Of the others `table` says why when they are asked for.
    """
    for name in names(kind):
        with contextlib.suppress(ConfigError):
            if name not in table(kind).own:
                yield name, part(_of_name(kind, name)[0])


# --- loading
# --------------------------------------------------------------------------------------------------
@functools.cache
def part(plugin: Plugin) -> Any:
    """Returns the part that a plug-in brings.

    Raises ConfigError where its module cannot be imported, is of another contract, or has something
    else at the place.
    """
    if plugin.attribute is None and plugin.module in _given:
        value = _given[plugin.module].PLUGINS[plugin.kind][plugin.name]
    else:
        module = _import(plugin.module, f"{plugin}")
        value = module
        for name in (plugin.attribute or "").split("."):
            value = getattr(value, name, None)
    expected = part_type(plugin.kind)
    good = (isinstance(value, type) and issubclass(value, expected)) or isinstance(value, expected)
    if not good:
        raise ConfigError(
            f"{plugin}: found a {type(value).__name__}, expected a {expected.__name__} of"
            f" {expected.__module__}"
        )
    return value


def _import(name: str, what: str) -> ModuleType:
    """Returns a module of the contract of this jaxsft. Raises ConfigError."""
    try:
        module = _of_file(Path(name)) if name.endswith(".py") else _of_name_or_folder(name)
    # whatever a module raises, its user gets one sentence
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{what}: cannot be imported ({type(error).__name__}: {error})"
        ) from error
    contract = getattr(module, "JAXSFT_CONTRACT", None)
    if contract != CONTRACT:
        has, repair = f"is of contract {contract}", "install the plug-in in a version for it"
        if contract is None:
            has, repair = "says no JAXSFT_CONTRACT", f"write JAXSFT_CONTRACT = {CONTRACT} in it"
        raise ConfigError(
            f"{what}: {has}, and this jaxsft takes plug-ins of contract {CONTRACT}; {repair}"
        )
    return module


def _of_name_or_folder(name: str) -> ModuleType:
    """Returns a module, of the working directory too, which stands behind everything installed."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def _of_file(path: Path) -> ModuleType:
    """Returns a file as a module under a name of its own, so that it hides no other."""
    path = path.resolve()
    name = f"jaxsft_plugin_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def use(modules: Iterable[str]) -> None:
    """Imports the modules of the option `plugins`. Raises ConfigError."""
    for name in modules:
        if name in _given:
            continue
        what = f"{OPTION}[{name}]"
        module = _import(name, what)
        parts = getattr(module, "PLUGINS", None)
        if not isinstance(parts, Mapping) or not all(
            isinstance(p, Mapping) for p in parts.values()
        ):
            raise ConfigError(
                f'{what}: expected PLUGINS in it, such as PLUGINS = {{"tasks": {{"rate": SPEC}}}}'
            )
        if unknown := [kind for kind in parts if kind not in KINDS]:
            raise ConfigError(
                f"{what}: PLUGINS[{unknown[0]!r}] is no kind; there are {', '.join(KINDS)}"
            )
        _given[name] = module


def given() -> list[str]:
    """Returns the modules of the option that were imported, for another process to do the same."""
    return list(_given)


def of_arguments(arguments: Sequence[str]) -> list[str]:
    """Imports the modules of `plugins=` among arguments, and returns the other arguments.

    Raises ConfigError.
    """
    mine = [a for a in arguments if isinstance(a, str) and a.startswith(OPTION)]
    for argument in mine:
        value = argument.removeprefix(OPTION).strip().removeprefix("[").removesuffix("]")
        use(filter(None, (name.strip().strip("'\"") for name in value.split(","))))
    return [a for a in arguments if a not in mine]


# --- what a run used
# --------------------------------------------------------------------------------------------------
def note(kind: str, name: str) -> None:
    """Notes that a run uses a part, where it is a plug-in."""
    _used.extend(one for one in _of_name(kind, name) if one not in _used)


def begin() -> None:
    """Forgets what was used before: another run begins."""
    _used.clear()


def used() -> list[dict[str, Any]]:
    """Returns the plug-ins that were used since `begin`, as the manifest of a run names them."""
    return [
        {
            "kind": one.kind,
            "name": one.name,
            "module": one.module,
            "package": one.package,
            "contract": CONTRACT,
        }
        for one in _used
    ]


def check_run(folder: Path, modules: Any = ()) -> None:
    """Raises ConfigError where a run used a plug-in that is not here now.

    What the run directory names is compared with what is here, and never imported.

    Args:
      modules: `plugins` of its config.yaml.
    """
    there = {(one.kind, one.name, one.module) for one in found()}
    known = {*_given, *(one.module for one in _installed())}
    for name in modules if isinstance(modules, list | tuple) else ():
        if name not in known:
            raise ConfigError(_not_given(folder, str(name)))
    path = folder / "manifest.json"
    try:
        manifest = documents.read_json(path, ConfigError) if path.is_file() else {}
    except ConfigError:  # a manifest that is damaged is told by who reads all of it
        return
    listed = manifest.get("plugins") if isinstance(manifest, dict) else None
    for one in listed if isinstance(listed, list) else ():
        kind, name, module, package = (
            str(one[key]) if isinstance(one, dict) and one.get(key) is not None else None
            for key in ("kind", "name", "module", "package")
        )
        if kind not in KINDS or (kind, name, module) in there:
            continue
        if package is None:
            raise ConfigError(_not_given(folder, str(module)))
        raise ConfigError(
            f"{folder}: the run used the {KINDS[kind][0]} {name} of {package} ({module}), which is"
            " not installed here; install it"
        )


def _not_given(folder: Path, module: str) -> str:
    return (
        f"{folder}: the run used plugins=[{module}], and what only a run directory names is never"
        f" imported; give plugins=[{module}] again, or install it as a package with entry points"
    )


def why_not(kind: str, name: str) -> str | None:
    """Returns why a plug-in of this name cannot be used; None: it can, or there is none."""
    try:
        for one in _of_name(kind, name):
            part(one)
    except ConfigError as error:
        return str(error)
    return None


def forget() -> None:
    """Drops all that was found, given and used: packages may have come or gone (for tests)."""
    _given.clear()
    _used.clear()
    _installed.cache_clear()
    part.cache_clear()
