"""Composes the many configs of one command: what the choices of groups come to is loaded once, and
each job's values are applied to a copy of it, as Hydra would apply them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from jaxsft.config import hydra_schema
from jaxsft.config.overrides import ROOTS, as_config_error, config_folder, typed

KEPT = 64  # composed choices of groups that are held, of the latest jobs


class Composer:
    """Composes configs of one command from overrides in Hydra's grammar; made by `opened`."""

    def __init__(self, name: str, folders: Sequence[str], loader: Any):
        """Takes the name of a root config and the user's folders of presets, in Hydra's search
        path.
        """
        self.name, self.root, self.loader = name, ROOTS[name], loader
        self.folders = [Path(folder) for folder in folders]
        self._search = [f"file://{folder.resolve()}" for folder in self.folders]
        self._groups: dict[str, bool] = {}
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def config(self, words: Sequence[str]) -> Any:
        """Returns the typed config of some overrides. Raises ConfigError."""
        with as_config_error(self.root):
            node = self._node(words)
            OmegaConf.resolve(node)
        return typed(node, self.root, words, self.folders)

    def _node(self, words: Sequence[str]) -> DictConfig:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.core.override_parser.overrides_parser import OverridesParser

        chosen = tuple(word for word in words if self._chooses(word))
        if chosen not in self._composed:
            if len(self._composed) >= KEPT:
                self._composed.pop(next(iter(self._composed)))
            self._composed[chosen] = self._load(chosen)
        node = copy.deepcopy(self._composed[chosen])
        values = [word for word in words if word not in chosen]
        parsed = OverridesParser.create().parse_overrides(values)
        ConfigLoaderImpl._apply_overrides_to_config(parsed, node)
        return node

    def _load(self, chosen: Sequence[str], hydra_too: bool = False) -> DictConfig:
        import hydra

        words = [*chosen, *self._searched()]
        return hydra.compose(self.name, words, return_hydra_config=hydra_too)

    def _searched(self) -> list[str]:
        return [f"hydra.searchpath=[{','.join(self._search)}]"] if self._search else []

    def hydra(self, words: Sequence[str]) -> DictConfig:
        """Returns what some overrides say of Hydra itself (`sweep.dir`, `sweeper.params` ...).

        Raises ConfigError.
        """
        with as_config_error(self.root):
            return self._load(words, hydra_too=True).hydra

    def _chooses(self, word: str) -> bool:
        """Returns whether an override chooses an option of a group, or removes one."""
        key = re.sub(r"^[+~]+", "", word.partition("=")[0])
        if "@" in key or "/" in key:
            return True
        if key not in self._groups:
            options = lambda: self.loader.get_group_options(key, None, self.name, self._searched())
            self._groups[key] = "." not in key and bool(options())
        return self._groups[key]


@contextmanager
def opened(folders: Sequence[str] = (), name: str = "config") -> Iterator[Composer]:
    """Yields a composer; a Hydra application around it stays as it is.

    Args:
      folders: of presets of the user, `--config-dir` and `hydra.searchpath`.
      name: of `overrides.ROOTS`.

    Raises:
      ConfigError: what is composed in the block does not compose.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    hydra_schema.register()
    around = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            yield Composer(name, folders, GlobalHydra.instance().config_loader())
    finally:
        GlobalHydra.instance().clear()
        if around is not None:
            GlobalHydra.instance().initialize(around)
