"""Packages outside the repository, as plug-ins come: written into a folder, and installed there by
the files that tell `importlib.metadata` of them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxsft import plugins


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """The folder, with these files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def installed(folder: Path, name: str, version: str, points: Mapping[str, Mapping[str, str]]):
    """Writes the `dist-info` of a package: {group: {name: place}}."""
    lines = [
        line
        for group, entries in points.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    write(folder, {f"{info}/METADATA": about, f"{info}/entry_points.txt": "\n".join(lines)})


def by_pyproject(folder: Path, text: str) -> None:
    """As `installed`, from a pyproject.toml."""
    project = tomllib.loads(text)["project"]
    installed(folder, project["name"], project["version"], project["entry-points"])


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Python finds the packages of the folder inside; after it, it knows nothing of them."""
    before = {*sys.modules}
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    plugins.forget()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in {*sys.modules} - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
        plugins.forget()
