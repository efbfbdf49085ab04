"""The page on preparation, run as it stands."""

import shlex

from jaxsft.data import formats
from tests.docs import pages
from tests.tiny import jaxsft

PAGE = "prepare.md"


def arguments(block: str) -> list[str]:
    return shlex.split(pages.blocks(PAGE)[block].replace("\\\n", " "))[1:]


def test_the_commands_print_what_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text(pages.blocks(PAGE)["reviews.csv"], encoding="utf-8")
    code, out, _ = jaxsft(*arguments("prepare"))
    assert code == 0 and out == pages.blocks(PAGE)["output"]
    assert (tmp_path / "set" / "dropped.jsonl").read_text() == pages.blocks(PAGE)["dropped.jsonl"]
    code, out, _ = jaxsft(*arguments("prepare"))
    assert code == 0 and out.endswith("nothing was done\n")
    code, out, _ = jaxsft(*arguments("check"))
    assert code == 0 and "label_conflict" in out and "reviews.csv:14" in out


def test_the_stage_of_the_page_works(tmp_path):
    """The code block is put behind the imports that it needs, in a module of its own."""
    import importlib.util

    names = (
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom jaxsft.data.formats"
        " import Row\n"
    )
    names += "from jaxsft.prepare.stage import Report, Stage, State, text_of, with_fields\n"
    (tmp_path / "shout.py").write_text(names + pages.blocks(PAGE)["shout.py"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("shout", tmp_path / "shout.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from jaxsft.prepare.stage import Report

    rows, report = (
        [
            formats.Row({"text": "hey"}, "a", 1),
            formats.Row({"text": ""}, "a", 2),
        ],
        Report(),
    )
    assert [row.fields for row in module.Shout().rows("train", rows, {}, report)] == [
        {"text": "HEY"}
    ]
    assert report.dropped == [("a:2", "too short")]
