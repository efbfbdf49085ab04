"""Damaged files of every format: `python -m tools.fuzz files=1000` reads more of them."""

import dataclasses
import time

import pytest

from jaxsft.data import formats
from jaxsft.data.formats import Bad
from jaxsft.errors import DataError
from tools import fuzz

FILES = 200


@pytest.mark.parametrize("kind", formats.FORMATS)
def test_a_damaged_file_is_rows_bad_rows_or_one_sentence(tmp_path, kind):
    """# guards D9"""
    for number in range(-(-FILES // len(formats.FORMATS))):
        wrong, what = fuzz.case(2026, number, tmp_path, [kind])
        assert not wrong, f"{what}\n{wrong}"


@pytest.mark.parametrize("kind", fuzz.SEEDS)
def test_the_seeds_are_read(tmp_path, kind):
    """Otherwise only the first check of a reader would ever be tried."""
    for name, content, options in fuzz.SEEDS[kind]:
        files = content if isinstance(content, dict) else {"": content}
        for inside, text in files.items():
            (tmp_path / name / inside).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / inside).write_text(text, encoding="utf-8")
        assert not fuzz.check(
            tmp_path / name,
            content.encode() if isinstance(content, str) else None,
            kind,
            "utf-8",
            options,
        )
        how = {key: value for key, value in options.items() if key in ("header", "unit")}
        given = {key: value for key, value in options.items() if key not in how}
        rows = formats.read(tmp_path / name, format=kind, options=given, **how)
        whole = (
            formats.tree(tmp_path / name)
            if isinstance(content, dict)
            else formats.sources(tmp_path / name)[0]
        )
        assert rows and formats.detect(whole).name == kind


def drops_a_row(found):
    return list(found)[1:]


def repeats_a_row(found):
    return [*(rows := list(found)), rows[0]]


def fails(found):
    return list(found)[99]


def speaks_twice(found):
    raise DataError("a.x:1: one\ntwo")


def names_nothing(found):
    raise DataError("something is wrong")


def bad_without_a_line(found):
    return [Bad(0, "x")]


def hangs(found):
    while True:
        time.sleep(0.01)


def test_a_reason_is_one_line_and_no_book(tmp_path, monkeypatch):
    quotes = lambda source, encoding, options: iter(
        [Bad(1, "found " + "x\n" * 5000 + "; set data.options.x=y")]
    )
    monkeypatch.setitem(
        formats.FORMATS.own, "txt", dataclasses.replace(formats.FORMATS["txt"], read=quotes)
    )
    (tmp_path / "a.txt").write_text("x")
    bad = []
    assert not list(formats.stream(tmp_path / "a.txt", quarantine=bad.append))
    assert (
        len(bad[0].reason) < 1000
        and "\n" not in bad[0].reason
        and bad[0].reason.endswith("; set data.options.x=y")
    )


@pytest.mark.parametrize(
    ("sabotage", "part"),
    [
        (drops_a_row, ""),
        (repeats_a_row, "two rows in the same line"),
        (fails, "IndexError"),
        (speaks_twice, "no sentence of one line"),
        (names_nothing, "without a file"),
        (bad_without_a_line, "a bad row without"),
        (hangs, "no end after"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "txt", "conll", "conllu", "aligned"])
def test_a_reader_that_breaks_its_promise_is_found(tmp_path, monkeypatch, kind, sabotage, part):
    if (kind, sabotage) in (("csv", repeats_a_row), ("csv", drops_a_row), ("tsv", drops_a_row)):
        pytest.skip("a first line may be a header, and a row of csv may go over lines")
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    format = formats.FORMATS[kind]
    name, content, options = fuzz.SEEDS[kind][0]
    broken = lambda source, encoding, given: iter(sabotage(format.read(source, encoding, given)))
    monkeypatch.setitem(formats.FORMATS.own, kind, dataclasses.replace(format, read=broken))
    (tmp_path / name).write_text(content, encoding="utf-8")
    wrong = fuzz.check(tmp_path / name, content.encode(), kind, "utf-8", options)
    assert wrong and part in wrong
