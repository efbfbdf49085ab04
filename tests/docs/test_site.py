"""The site builds without a warning, and its pages load nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.docs import pages
from tests.reports.test_browser import CHROMIUM, FLAGS, works

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("material") is None, reason="needs the extra `docs` (make docs)"
    ),
]
LOADED = re.compile(
    r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["']?(https?:)?//[^"'\s>]+"""
)


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
        tags = [
            m[0]
            for m in LOADED.finditer(path.read_text(encoding="utf-8"))
            if "rel=canonical" not in m[0]
        ]
        assert not tags, f"{path.name}: {tags}"
    for path in site.rglob("*.css"):
        assert not re.search(
            r"url\(\s*[\"']?(https?:)?//|@import", path.read_text(encoding="utf-8")
        ), path.name


def test_the_search_has_what_it_needs_on_the_disk(site):
    """A page on the disk may neither fetch the index nor start a worker: the one is a script, and
    the other a script of ours.
    """
    assert (
        (site / "search" / "search_index.js")
        .read_text(encoding="utf-8")
        .startswith("var __index =")
    )
    for name in ("index.html", "training.html", "config.html"):
        text = (site / name).read_text(encoding="utf-8")
        assert '<script src="iframe-worker.js">' in text and (site / "iframe-worker.js").is_file()


def test_the_search_finds_a_page_from_the_disk(site, tmp_path):
    if not works():
        pytest.skip("no Chromium: install the package chromium to see the search in a browser")
    flags = [*FLAGS, f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *flags, f"{(site / 'index.html').as_uri()}?q=gradient+checkpointing"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'md-search-result__meta">(\d+) matching documents', done.stdout)
    assert found and int(found[1]) > 1 and "coming_from.html" in done.stdout
