"""The site builds without a warning, and its pages load nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.docs import pages

pytestmark = [pytest.mark.slow, pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="needs the extra `docs` (make docs)")]
LOADED = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["']?(https?:)?//[^"'\s>]+""")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built(site):
    for page in pages.PAGES[1:]:
        assert (site / page.with_suffix(".html").name).is_file()


def test_nothing_is_loaded_from_elsewhere(site):
    for path in site.rglob("*.html"):
        tags = [m[0] for m in LOADED.finditer(path.read_text(encoding="utf-8")) if "rel=canonical" not in m[0]]
        assert not tags, f"{path.name}: {tags}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import", path.read_text(encoding="utf-8")), path.name


def test_the_search_works_from_the_disk(site):
    """A page that lies on the disk may not fetch the index: it must be a script that every page loads."""
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index =") and "task=classify" in index
    for name in ("index.html", "training.html", "config.html"):
        text = (site / name).read_text(encoding="utf-8")
        assert "search/search_index.js" in text and "iframe-worker" in text, name
    assert not re.search(r"https?://unpkg", "".join(path.read_text(encoding="utf-8") for path in site.glob("*.html")))
