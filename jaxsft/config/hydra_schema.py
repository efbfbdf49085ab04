"""The schema as Hydra and OmegaConf take it: plain twins of the classes of `schema.py`.

OmegaConf cannot merge into frozen dataclasses, so it gets mutable ones with the same fields, types
and defaults.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any

from omegaconf import MISSING

from jaxsft import plugins
from jaxsft.config import adapters, optim, schema

GROUPS = {**schema.GROUPS, "optim": optim.OPTIMIZERS, "adapter": adapters.ADAPTERS}
# the groups whose choices plug-ins extend, and the kind of plug-in
OF_PLUGINS = {"task": "tasks", "optim": "optimizers", "schedule": "schedules"}


def option_fields(cls: Any) -> list[dataclasses.Field]:
    """Returns the fields of a class of `schema.py`, or of an object of it, that are options."""
    return [f for f in dataclasses.fields(cls) if f.metadata.get("option", True)]


@functools.cache
def plain(cls: type) -> type:
    """Makes a mutable twin of a frozen dataclass, with the types that OmegaConf can merge into."""
    hints = typing.get_type_hints(cls)
    bases = tuple(plain(b) for b in cls.__bases__ if dataclasses.is_dataclass(b))
    fields = []
    for f in option_fields(cls):
        if f.default_factory is not dataclasses.MISSING:
            example = f.default_factory()
            factory = (
                plain(type(example)) if dataclasses.is_dataclass(example) else f.default_factory
            )
            fields.append((f.name, twin(hints[f.name]), dataclasses.field(default_factory=factory)))
        else:
            fields.append((f.name, twin(hints[f.name]), dataclasses.field(default=f.default)))
    return dataclasses.make_dataclass(
        cls.__name__, fields, bases=bases, namespace={"__module__": __name__}
    )


def twin(hint: Any) -> Any:
    """Returns the type that OmegaConf gets for a type of a field."""
    if dataclasses.is_dataclass(hint):
        return plain(hint)
    if typing.get_origin(hint) is list:
        return list[twin(typing.get_args(hint)[0])]
    return hint


_told: list[Any] = []  # what Hydra knows of the schema


def register() -> None:
    """Tells Hydra the schema: the root, and a class for each option of a group.

    Nothing is told twice, as OmegaConf takes 0.06 s for it.
    """
    from hydra.core.config_store import ConfigStore

    theirs = {
        (group, name): part
        for group, kind in OF_PLUGINS.items()
        for name, part in plugins.working(kind)
    }
    classes = {
        (group, name): cls
        for group, options in GROUPS.items()
        for name, cls in (options.own_items() if group in OF_PLUGINS else options.items())
    } | {(group, name): GROUPS[group][name] for group, name in theirs}
    if _told == [classes, theirs]:
        return
    store = ConfigStore.instance()
    store.store(name="schema", node=_root())
    store.store(name="prepare_schema", node=plain(schema.PrepareConfig))
    store.store(name="quality_schema", node=plain(schema.QualityConfig))
    for (group, name), cls in classes.items():
        store.store(group=f"schema/{group}", name=name, node=plain(cls))
    for (group, name), part in theirs.items():
        _store_preset(store, group, name, part.preset)
    _told[:] = [classes, theirs]


def _store_preset(store: Any, group: str, name: str, preset: Mapping[str, Any]) -> None:
    """Registers the preset of a plug-in with Hydra, as a file of `conf/` would be."""
    values = {key: value for key, value in preset.items() if key != "defaults"}
    of_all = group == "task"  # the preset of a task may set options of any group
    own = f"/schema/{group}/{name}@{group if of_all else '_here_'}"
    store.store(
        group=group,
        name=name,
        package="_global_" if of_all else None,
        node={"defaults": [own, "_self_", *preset.get("defaults", ())], **values},
    )


def _root() -> type:
    """Makes the twin of `Config` with its groups open.

    Which class a group has is decided by the option that is composed into it.
    """
    opened = [(group, Any, dataclasses.field(default=MISSING)) for group in GROUPS]
    return dataclasses.make_dataclass(
        "Root", opened, bases=(plain(schema.Config),), namespace={"__module__": __name__}
    )
