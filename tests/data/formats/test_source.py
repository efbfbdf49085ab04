"""Files, patterns, folders and archives; characters out of bytes; rows that are put aside."""

import gzip
import io
import zipfile

import pytest

from jaxsft.data import formats
from jaxsft.data.formats import source
from jaxsft.errors import DataError
from tests.realdata import real


def packed(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def texts(path, **options):
    return [(row.where, row.fields["text"]) for row in formats.stream(path, **options)]


def test_a_pattern_a_folder_and_an_archive_are_their_files_in_order(tmp_path):
    for name in ("b.txt", "a.txt", ".hidden.txt"):
        (tmp_path / name).write_text(f"{name} 1\n{name} 2\n")
    expected = [(f"{tmp_path}/{n}:{i}", f"{n} {i}") for n in ("a.txt", "b.txt") for i in (1, 2)]
    assert texts(f"{tmp_path}/*.txt") == expected and texts(tmp_path) == expected
    archive = packed(
        tmp_path / "all.zip",
        {
            "x/b.txt": "b",
            "x/a.txt.gz": gzip.compress(b"a"),
            "y/c.txt": "c",
            "__MACOSX/x/._a.txt": "?",
        },
    )
    assert texts(archive) == [
        (f"{archive}/x/a.txt.gz:1", "a"),
        (f"{archive}/x/b.txt:1", "b"),
        (f"{archive}/y/c.txt:1", "c"),
    ]
    assert [text for _, text in texts(f"{archive}/x/*")] == ["a", "b"]
    with pytest.raises(DataError, match="no file fits the pattern"):
        texts(f"{archive}/z/*")


@pytest.mark.parametrize(
    "name", ["../up.txt", "/root.txt", "a/../../up.txt", "C:/x.txt", "..\\up.txt"]
)
def test_an_archive_that_names_a_path_outside_itself_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="a path outside itself"):
        texts(packed(tmp_path / "a.zip", {"good.txt": "x", name: "x"}))


def test_what_grows_without_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "FREE", 2**16)
    zeros = b"\n" * 2**20
    bombs = {
        "a.txt.gz": gzip.compress(zeros, mtime=0),
        "b.zip": packed(io.BytesIO(), {"b.txt": zeros}).getvalue(),
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="grow more than 200-fold"):
            texts(tmp_path / name)
    plain = b"".join(b"%d\n" % i for i in range(40_000))  # beyond FREE, but as text packs
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(plain))
    assert len(texts(tmp_path / "c.txt.gz")) == 40_000


def test_an_encrypted_or_damaged_archive_is_one_sentence(tmp_path):
    whole = packed(tmp_path / "a.zip", {"a.txt": "x" * 100}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:60])
    locked = bytearray(whole)
    locked[whole.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    for name, part in (("cut.zip", "damaged"), ("locked.zip", "encrypted")):
        with pytest.raises(DataError, match=part):
            texts(tmp_path / name)


def test_a_name_with_a_line_break_is_told_in_one_line(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a\nb.jsonl").write_text("{")
    packed(tmp_path / "a.zip", {"a\nb.jsonl": "{"})
    for path in (tmp_path / "d", f"{tmp_path}/d/*", tmp_path / "a.zip"):
        with pytest.raises(DataError, match=r"a\\nb.jsonl:1: ") as caught:
            texts(path)
        assert "\n" not in str(caught.value)


def test_utf_16_and_a_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffgrün\r\nšum\n".encode("utf-16-le"))
    assert [t for _, t in texts(tmp_path / "a.txt", encoding="utf-16-le")] == ["grün", "šum"]
    (tmp_path / "b.txt").write_bytes("x\n".encode("utf-16-le")[:-1])
    with pytest.raises(DataError, match=r"b.txt:1: .*utf-16-le"):
        texts(tmp_path / "b.txt", encoding="utf-16-le")


FILES = {
    "a.jsonl": b'{"text": "1"}\n{"text": \n[2]\n{"text": "\xff"}\n{"text": "5"}\n',
    "a.csv": b'text,label\n1,x\n2\n"3"x,y\n"4\xff",y\n5,z\n',
    "a.tsv": b"text\tlabel\n1\tx\n2\n3\t\t\n4\xff\tx\n5\tz\n",
}


@pytest.mark.parametrize("name", FILES)
def test_bad_rows_are_put_aside_one_by_one(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    bad = []
    assert [t for _, t in texts(tmp_path / name, quarantine=bad.append, columns=["text"])] == [
        "1",
        "5",
    ]
    first = 2 if name == "a.jsonl" else 3
    assert (
        [b.line for b in bad] == [first, first + 1, first + 2]
        and "0xff" in bad[2].reason
        and all(b.file.endswith(name) for b in bad)
    )
    with pytest.raises(DataError, match=rf"{name}:{first}: .*data.on_bad_row=quarantine"):
        texts(tmp_path / name, columns=["text"])


def test_real_archives():
    rows = list(
        formats.stream(
            f"{real('movie_reviews_long')}/movie_reviews.zip/movie_reviews/*/*.txt", unit="file"
        )
    )
    assert len(rows) == 2000 and {row.fields["folder"] for row in rows} == {"neg", "pos"}
    lines = list(
        formats.stream(
            f"{real('sentence_polarity_subjectivity')}/sentence_polarity.zip/*/rt-polarity.*",
            format="txt",
            encoding="latin-1",
        )
    )
    assert len(lines) == 10662
