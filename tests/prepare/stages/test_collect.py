import zipfile

import pytest

from jaxsft.data.formats import Row, read
from jaxsft.errors import ConfigError, DataError
from tests.prepare.harness import make, rows_of, run


def fields(rows, **options):
    out, _ = run(make("collect", **options), {"all": rows})
    return [row.fields for row in out["all"]]


def test_columns_of_every_row_in_the_end():
    rows = [
        *rows_of({"q": "a", "n": 1}, file="x/a.jsonl"),
        *rows_of({"text": "b", "junk": 2}, file="y/b.jsonl"),
    ]
    options = {
        "rename": {"q": "text"},
        "columns": ["text", "source", "licence", "n"],
        "values": {"licence": {"x/*": "MIT", "*": "CC0"}},
    }
    assert fields(rows, extra="drop", **options) == [
        {"text": "a", "source": "x/a.jsonl", "licence": "MIT", "n": 1},
        {"text": "b", "source": "y/b.jsonl", "licence": "CC0", "n": None},
    ]
    assert list(fields(rows, extra="drop", **options)[1]) == options["columns"]
    with pytest.raises(
        DataError, match=r"y/b.jsonl:1: column 'junk' is not in stages.collect.columns"
    ):
        fields(rows, **options)


def test_the_folder_in_an_archive_is_the_label(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("data/pos/1.txt", "good")
        archive.writestr("data/neg/2.txt", "bad")
    rows = read(tmp_path / "set.zip", format="txt", unit="file")
    assert sorted((f["text"], f["label"]) for f in fields(rows, folder="label", source=None)) == [
        ("bad", "neg"),
        ("good", "pos"),
    ]
    with pytest.raises(DataError, match="lies in no folder"):
        fields(rows_of("a", file="a.txt"), folder="label")


def test_keep_and_constants():
    assert fields(rows_of({"a": 1, "b": 2}), source=None, keep=["b"], values={"year": 2020}) == [
        {"b": 2, "year": 2020}
    ]
    with pytest.raises(DataError, match=r"missing column 'c'.*stages.collect.keep"):
        fields(rows_of({"a": 1}), keep=["c"])


def test_nothing_is_overwritten_silently():
    rows = rows_of({"text": "a", "source": "book"})
    with pytest.raises(DataError, match=r"column 'source' holds 'book' already.*replace=true"):
        fields(rows)
    assert fields(rows, replace=True)[0]["source"] == "rows.jsonl"
    assert fields(rows_of({"text": "a", "source": None}))[0]["source"] == "rows.jsonl"
    with pytest.raises(DataError, match="two columns would be called 'text'"):
        fields(rows_of({"text": "a", "q": "b"}), rename={"q": "text"})
    assert fields(rows_of({"a": 1, "b": 2}), source=None, rename={"a": "b", "b": "a"}) == [
        {"b": 1, "a": 2}
    ]


def test_a_file_that_no_pattern_fits_is_an_error():
    with pytest.raises(
        DataError, match=r"z.jsonl:1: stages.collect.values.licence: no pattern fits"
    ):
        fields([Row({"text": "a"}, "z.jsonl", 1)], values={"licence": {"x/*": "MIT"}})


@pytest.mark.parametrize(
    "options",
    [
        {"columns": ["text"]},
        {"rename": {"a": "source"}},
        {"rename": {"a": 1}},
        {"extra": "keep"},
        {"values": {"source": 1}},
    ],
)
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.collect"):
        make("collect", **options)
