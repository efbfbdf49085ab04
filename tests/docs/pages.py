"""What the tests of the pages share: the pages, and the blocks of code in them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def blocks(page: str) -> dict[str, str]:
    """The fenced blocks of a page that have a title."""
    return {
        m[1]: m[2]
        for m in re.finditer(
            r'^```\w+ title="([^"]+)"\n(.*?)^```$', text(page), re.MULTILINE | re.DOTALL
        )
    }


def load(name: str, source: str, folder: Path, monkeypatch):
    """A block of a page as a module of this name."""
    path = folder / f"{name.rsplit('.', 1)[-1]}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module
