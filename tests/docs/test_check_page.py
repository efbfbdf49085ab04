"""The example of docs/check.md prints what the page shows, and the page has every finding."""

import re
import shlex
from pathlib import Path

import pytest

from jaxsft.check import encoding as tokens
from jaxsft.check import text_findings
from tests import tiny
from tests.docs import pages


@pytest.mark.parametrize("which, code", [("", 1), (" for chats", 0)])
def test_the_example_prints_what_the_page_shows(tmp_path, monkeypatch, which, code):
    blocks = pages.blocks("check.md")
    monkeypatch.chdir(tmp_path)
    # the library may be there or not
    monkeypatch.setattr(text_findings, "languages", lambda *arguments: {})
    for name in ("train.jsonl", "test.jsonl", "chat.jsonl"):
        Path(name).write_text(blocks[name], encoding="utf-8")
    found, text, err = tiny.jaxsft(*shlex.split(blocks[f"command{which}"])[1:])
    assert (found, err) == (code, "") and text == blocks[f"output{which}"]


def test_the_page_has_every_finding():
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in Path(text_findings.__file__).parent.glob("*.py")
    )
    names = set(re.findall(r'findings\.add\(\s*"(\w+)"', sources)) | {
        *text_findings.RULES,
        *tokens.ABOUT.values(),
        *tokens.DROPPED,
    }
    # whose names are chosen in an expression
    names |= {"no_record", "no_label", "very_long", "very_short", "target", "template", "tokens"}
    names |= {
        "verdict",
        "one_hot",
        "label_separator",
        "tag_spelling",
        "mixed_tags",
        "classes",
        "label_balance",
        "rejected",
        "ignored",
        "skipped",
        "not_answered",
    }
    table = "".join(
        line.split("|")[1] for line in pages.text("check.md").splitlines() if line.startswith("| `")
    )
    assert names == set(re.findall(r"`(\w+)`", table))
