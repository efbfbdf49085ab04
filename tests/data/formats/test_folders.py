"""What of a folder or archive is data, files of other programs, and texts in an encoding that was
not given.
"""

import warnings
import zipfile

import pytest

from jaxsft.data import formats, hub
from jaxsft.data.formats import Bad, folders, unsupported
from jaxsft.errors import ConfigError, DataError

DOCUMENTS = [
    "README.md",
    "readme.txt",
    "Readme",
    "README.de.md",
    "LICENSE",
    "LICENSE.txt",
    "LICENCE-2.0",
    "dataset_info.json",
    "CITATION.cff",
]
DATA = [
    "a.txt",
    "readmes.txt",
    "license_plates.txt",
    "README.jsonl",
    "train.csv",
    "info.json",
    "licensed.md",
]


def put(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def zipped(path, files):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in files:
            archive.writestr(name, content)
    return path


def texts(path, **how):
    return [row.fields["text"] for row in formats.stream(path, **how)]


def test_what_describes_the_data_is_no_data():
    assert folders.documents(DOCUMENTS + DATA) == DOCUMENTS


@pytest.mark.parametrize("packed", [False, True])
def test_files_about_the_data_are_left_out_and_told(tmp_path, packed):
    files = {
        "a.txt": "one",
        "README.md": "# card",
        "sub/LICENSE.txt": "licence",
        "sub/b.txt": "two",
    }
    path = zipped(tmp_path / "set.zip", files.items()) if packed else put(tmp_path / "set", files)
    assert texts(path) == texts(path, format="txt") == ["one", "two"]
    assert formats.left_out(path) == [f"{path}/README.md", f"{path}/sub/LICENSE.txt"]
    (note,) = formats.left_out_note(path)
    assert "README.md" in note and "LICENSE.txt are no data and left out" in note
    assert not formats.left_out(f"{path}/*.txt") and not formats.left_out(tmp_path / "gone")


def test_a_folder_of_such_files_alone_is_data(tmp_path):
    path = put(tmp_path / "cards", {"a/README.txt": "# one", "b/README.txt": "# two"})
    assert len(texts(path)) == 2 and formats.left_out_note(path) == []


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.md", "# one, two", "a file in Markdown"),
        ("a.html", "just, text", "a web page"),
        ("a.csv", "\n<!DOCTYPE html>\n<p>sign in, please", "a web page"),
    ],
)
def test_pages_are_refused_unless_they_are_asked_for_as_text(tmp_path, name, content, what):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"{name}: found {what}; data.format=txt"):
        texts(tmp_path / name)
    (row,) = formats.read(tmp_path / name, format="txt", unit="file")
    assert row.fields["text"] == content


def test_brat_reads_no_licence_as_a_document(tmp_path):
    path = put(
        tmp_path / "brat",
        {
            "a.txt": "Ann",
            "a.ann": "T1\tPER 0 3\tAnn\n",
            "README.txt": "about",
            "LICENSE.txt": "x",
            "LICENSE.ann": "",
        },
    )
    assert texts(path) == ["x", "Ann"] and [
        name.rpartition("/")[2] for name in formats.left_out(path)
    ] == ["README.txt"]


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (
            {"train.jsonl": '{"text": "a"}\n', "notes.xml": "<a/>"},
            ("several formats", "notes.xml", "{}/*.jsonl'"),
        ),
        (
            {"a.csv": "text,label\nx,y\nz,y\n", "b.txt": "x", "c.txt": "y"},
            ("csv: {}/a.csv", "txt: {}/b.txt and 1 more", "{}/*.csv' or '{}/*.txt'"),
        ),
        (
            {"x/train.csv": "text,label\nx,y\n", "x/test.csv": "text,label\nx,y\n"},
            ("several splits", "train: {}/x/train.csv", "{}/**'"),
        ),
        (
            {"train/pos/1.txt": "a", "test/pos/1.txt": "b"},
            ("several splits", "data.train='{}/train/pos/1.txt'"),
        ),
        (
            {"a.jsonl": "{}\n", "b.zip": b"PK\x03\x04.."},
            ("several formats", "unknown: {}/b.zip", "{}/*.jsonl'"),
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_several_formats_or_splits_names_the_pattern(tmp_path, files, parts, packed):
    path = zipped(tmp_path / "set.zip", files.items()) if packed else put(tmp_path / "set", files)
    with pytest.raises(DataError) as caught:
        texts(path)
    assert all(part.replace("{}", str(path)) in str(caught.value) for part in parts), caught.value


def test_the_pattern_that_is_named_reads(tmp_path):
    path = zipped(
        tmp_path / "set.zip", [("a/train.jsonl", '{"text": "a"}\n'), ("notes.xml", "<a/>")]
    )
    assert texts(f"{path}/*.jsonl") == ["a"] == texts(f"{path}/a/train.jsonl")
    folder = put(tmp_path / "deep", {"x/a.txt": "a", "b.csv": "text,label\nx,y\nz,w\n"})
    with pytest.raises(DataError, match=r"deep/\*\*/\*\.txt'"):
        texts(folder)
    assert texts(f"{folder}/**/*.txt") == ["a"]


def test_what_file_managers_leave_is_no_data(tmp_path):
    path = zipped(
        tmp_path / "a.zip",
        [
            ("a.txt", "a"),
            ("__MACOSX/._a.txt", "x"),
            (".DS_Store", "x"),
            ("sub/Thumbs.db", "x"),
            ("Desktop.ini", "x"),
        ],
    )
    assert texts(path) == ["a"]


@pytest.mark.parametrize("second", ["train.txt", "./train.txt"])
def test_two_members_of_one_name_are_refused(tmp_path, second):
    path = zipped(tmp_path / "a.zip", [("train.txt", "a"), (second, "b")])
    for where in (path, f"{path}/*.txt"):
        with pytest.raises(DataError, match=r"two members called 'train.txt'"):
            texts(where)


def test_brackets_of_a_pattern_are_explained(tmp_path):
    put(tmp_path / "[data]", {"a.txt": "a"})
    with pytest.raises(
        DataError, match=r"no file fits the pattern; brackets stand for .*\[\[\]data\]/\*\.txt"
    ):
        texts(f"{tmp_path}/[data]/*.txt")
    assert texts(f"{tmp_path}/[[]data]/*.txt") == ["a"] == texts(tmp_path / "[data]" / "a.txt")
    assert texts(f"{zipped(tmp_path / 'b.zip', [('x[1].txt', 'a')])}/x[1].txt") == ["a"]


OFFICE = {
    "t.xlsx": "an Excel workbook; save it as CSV",
    "t.docx": "a Word document",
    "t.zip": "an Office document",
}


@pytest.mark.parametrize("name", OFFICE)
def test_office_files_are_called_by_name(tmp_path, name):
    for format in ("auto", "csv"):
        with pytest.raises(DataError, match=f"{name}: found {OFFICE[name]}"):
            texts(zipped(tmp_path / name, [("[Content_Types].xml", "<Types/>")]), format=format)
    with pytest.raises(DataError, match="an Excel workbook"):
        texts(
            zipped(
                tmp_path / "b.csv", [("[Content_Types].xml", "<Types/>"), ("xl/workbook.xml", "")]
            )
        )
    for name, member in (
        ("b.numbers", "Index/Document.iwa"),
        ("b.epub", "META-INF/container.xml"),
        ("b.npz", "x.npy"),
    ):
        with pytest.raises(
            DataError, match=r"a Numbers or Pages document|an EPUB book|arrays of numpy"
        ):
            texts(zipped(tmp_path / name, [(member, "x")]))
    with pytest.raises(DataError, match="an OpenDocument spreadsheet; save it as CSV"):
        texts(zipped(tmp_path / "b.ods", [("mimetype", "x"), ("content.xml", "<a/>")]))


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
        (b"%PDF-1.7\n", "a PDF file"),
        (b"\x80\x04\x95\x10", "a pickle"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
        (b"\0" * 257 + b"ustar", "a tar archive"),
        (b"#FORMAT=WebAnno TSV 3.2\n", "WebAnno TSV of INCEpTION"),
        (b"PK\x03\x04", "an archive inside an archive"),
        (b"\x1f\x8b\x08", "a file packed by gzip"),
        (b"BZh91AY&SYxx", "bzip2"),
    ],
)
def test_files_of_other_programs_are_called_by_name(tmp_path, head, part):
    (tmp_path / "in").mkdir()
    for format in ("auto", "csv"):
        with pytest.raises(DataError, match=part):
            texts(zipped(tmp_path / "a.zip", [("t.xls", head + b"xx")]), format=format)
    assert (
        unsupported.of_file("a.txt", b"BZhang went home") is None
        and unsupported.of_file("a.txt", b"a plain text") is None
    )


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_a_byte_order_mark_proposes_the_encoding(tmp_path, encoding):
    mark = "utf-32" if "32" in encoding else "utf-16"
    for name, content in (
        ("a.csv", "text,label\nä,x\nb,y\n"),
        ("a.txt", "ä\nb\n"),
        ("a.json", '[{"text": "ä"}, {"text": "b"}]'),
    ):
        (tmp_path / name).write_bytes(("\ufeff" + content).encode(encoding))
        with pytest.raises(
            DataError,
            match=(
                f"{name}: the file begins with the byte-order mark of {mark.upper()}; set"
                f" data.encoding={mark}"
            ),
        ):
            texts(tmp_path / name)
        assert texts(tmp_path / name, encoding=mark) == ["ä", "b"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_proposed_too(tmp_path, encoding):
    for name, content in (("a.csv", "text,label\na,x\n"), ("a.json", '[{"text": "a"}]')):
        (tmp_path / name).write_bytes(content.encode(encoding))
        with pytest.raises(
            DataError, match=f"{name}:1: every other byte is 0.* set data.encoding={encoding}"
        ):
            texts(tmp_path / name)


def test_one_damaged_line_is_no_other_encoding(tmp_path):
    good = "".join(f"schön {i}\n" for i in range(9))
    bad: list[Bad] = []
    (tmp_path / "a.txt").write_bytes(good.encode() + b"sch\xc3\n")
    assert len(list(formats.stream(tmp_path / "a.txt", quarantine=bad.append))) == 9
    assert (
        "the line is damaged, for 9 others are valid" in bad[0].reason
        and "latin" not in bad[0].reason
    )
    (tmp_path / "b.txt").write_bytes(good.encode("latin-1"))
    with pytest.raises(DataError, match=r"set data\.encoding=latin-1"):
        texts(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_bytes("“schön”\n".encode("cp1252"))
    with pytest.raises(
        DataError, match=r"set data\.encoding=cp1252, latin-1 or what the file is in"
    ):
        texts(tmp_path / "c.txt")


def test_what_can_be_read_of_a_damaged_line_is_kept(tmp_path):
    bad: list[Bad] = []
    put(
        tmp_path,
        {
            "a.csv": b"text,label\nok,ham\nwin \xa3,spam\nok,ham\n",
            "b.jsonl": b'{"text": "\xa3", "label": "spam"}\n',
        },
    )
    for name in ("a.csv", "b.jsonl"):
        list(formats.stream(tmp_path / name, quarantine=bad.append))
    assert [one.fields["label"] for one in bad] == ["spam", "spam"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("bert-base-uncased", "hub:OWNER/bert-base-uncased@REVISION"),
        ("Qwen/Qwen3-0.6B", "hub:Qwen/Qwen3-0.6B@REVISION"),
        ("gpt2", "hub:OWNER/gpt2@"),
    ],
)
def test_names_of_the_hub_are_proposed(tmp_path, monkeypatch, name, part):
    monkeypatch.chdir(tmp_path)
    for look in (hub.run_dir, hub.tokenizer_dir):
        with pytest.raises(ConfigError, match=f"{part}.*needs jaxsft.hub"):
            look(name)
    with pytest.raises(
        DataError,
        match=(
            f"there is no such file; a file of a data set of the Hugging Face Hub is named {part}"
        ),
    ):
        texts(name)


def test_paths_are_no_names_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("train.csv", "runs/mine", "a/b/c", "./x", "r", "x" * 200, "données"):
        assert hub.hint(path, file=True) == "" and hub.run_dir(path) == path
