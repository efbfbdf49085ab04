import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.formats import Row, read, require_column, stream, write
from jaxsft.errors import ConfigError, DataError
from tests.realdata import real


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def found(path, **options):
    return [(row.line, row.fields) for row in read(path, **options)]


def fails(path, *parts, error=DataError, **options):
    with pytest.raises(error) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_the_three_shapes_of_json_keep_their_lines(tmp_path):
    lines = '{"a": 1}\n\n{"a": "x\u2028y"}\r\n'
    assert found(put(tmp_path, "a.jsonl", lines)) == [(1, {"a": 1}), (3, {"a": "x\u2028y"})]
    assert found(put(tmp_path, "a.json", lines)) == [(1, {"a": 1}), (3, {"a": "x\u2028y"})]
    assert found(put(tmp_path, "b.json", '[\n {"a": 1},\n {\n"a": 2}]')) == [
        (2, {"a": 1}),
        (3, {"a": 2}),
    ]
    assert found(
        put(
            tmp_path,
            "c.json",
            '{"version": 2,\n "data": [\n{"a": 1}\n, {"a": true}], "x": {"data": []}}',
        )
    ) == [
        (3, {"a": 1}),
        (4, {"a": True}),
    ]
    assert found(put(tmp_path, "d.json", '\n{"a":\n 1}\n')) == [(2, {"a": 1})]
    assert found(put(tmp_path, "e.ndjson", b"\xef\xbb\xbf" + b'{"a": 1}')) == [(1, {"a": 1})]
    assert found(put(tmp_path, "f.jsonl.gz", gzip.compress(b'{"a": 1}\n'))) == [(1, {"a": 1})]


def test_broken_json_names_its_line(tmp_path):
    bad = put(tmp_path, "a.jsonl", '{"a": 1}\n{"a": \n')
    fails(bad, f"{bad}:2: broken JSON")
    bad = put(tmp_path, "a.json", '[{"a": 1},\n{"a": 2}\n{"a": 3}]')
    fails(bad, f"{bad}:3: ", "expected ','")
    bad = put(tmp_path, "b.json", '[{"a": 1},\n{"a": tru}]')
    fails(bad, f"{bad}:2: broken JSON")
    bad = put(tmp_path, "c.json", '[{"a": 1}]\n]')
    fails(bad, f"{bad}:2: ", "after the end")
    bad = put(tmp_path, "d.jsonl", '{"a": 1}\n["a"]')
    fails(bad, f"{bad}:2: found a JSON list")
    bad = put(tmp_path, "e.jsonl", '{"a": {"b": ["\\ud83d"]}}')
    fails(bad, f"{bad}:1: ", "\\ud83d", "surrogate")


def test_bytes_that_are_not_the_encoding(tmp_path):
    bad = put(tmp_path, "a.csv", "text,label\nok,1\ncaf\xe9,2\n".encode("latin-1"))
    fails(bad, f"{bad}:3: byte 19 (0xe9)", "data.encoding=latin-1")
    assert found(bad, encoding="latin-1")[1] == (3, {"text": "café", "label": "2"})
    fails(bad, "data.encoding='martian'", error=ConfigError, encoding="martian")


STORY = "这是一个故事，讲述了它如何改变我们的生活。\n今天天气很好！价格是30元\n"
FORMOSAN = "這是一個故事，講述了它如何改變我們的生活。\n今天天氣很好！價格是30元\n"
KANA = "これは人工知能についての話です。\n今日は天気がいいですね、カタカナ\n"
HANGUL = "이것은 인공지능에 관한 이야기입니다.\n오늘은 날씨가 좋네요! 30원\n"


@pytest.mark.parametrize(
    "encoding, content, advice",
    [
        ("gb18030", STORY, "gb18030"),
        ("utf-16-le", STORY, "utf-16-le"),
        ("utf-16-be", STORY, "utf-16-be"),
        ("big5", FORMOSAN, "big5"),
        ("gbk", FORMOSAN, "gb18030, koi8-r"),
        ("shift_jis", KANA, "shift_jis"),
        ("euc-jp", KANA, "euc-jp"),
        ("euc-kr", HANGUL, "euc-kr"),
        ("latin-1", "Größe für Müller\ndéjà vu à côté\n", "latin-1 "),
        ("latin-1", "Die Größe läßt zu wünschen\n", "latin-1 "),  # two letters beside each other
        ("latin-1", "für M\0üller und andere\n", "latin-1 "),
        ("shift_jis", "こんにちは、今日はいい天気ですね。\n", "shift_jis"),
        ("cp1252", "“smart” don’t – yes\n", "cp1252, latin-1 "),
        ("cp1251", "Это рассказ об интеллекте\n", "cp1251, "),
        ("koi8-r", "Это рассказ об интеллекте\n", "koi8-r, "),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_an_encoding_is_proposed_by_the_commonest_characters(
    tmp_path, name, encoding, content, advice
):
    content = content if name == "a.txt" else json.dumps([{"text": content}], ensure_ascii=False)
    bad = put(tmp_path, name, (content + "\n").encode(encoding))
    fails(bad, f"{bad}:1: ", f"set data.encoding={advice}")
    assert found(bad, encoding=advice.partition(",")[0].strip())


def test_files_that_hold_nothing(tmp_path):
    fails(tmp_path / "no.csv", "no.csv: there is no such file")
    (tmp_path / "d.csv").mkdir()
    fails(tmp_path / "d.csv", "there is no file in it")
    fails(put(tmp_path, "e.csv", ""), "the file is empty")
    fails(put(tmp_path, "e.txt", " \n"), "the file is empty")
    fails(put(tmp_path, "h.csv", "text,label\n"), "has no rows", header="true")
    fails(put(tmp_path, "l.json", "[]"), "has no rows")
    fails(put(tmp_path, "g.jsonl.gz", b"not packed"), "not a whole gzip file")
    fails(put(tmp_path, "cut.txt.gz", gzip.compress(b"text " * 1000)[:-9]), "not a whole gzip file")
    fails(tmp_path / "x.csv", "there is no such file")
    fails(
        put(tmp_path, "x.npz", "\x01\x02"),
        "cannot tell the format",
        "data.format=",
        error=ConfigError,
    )
    fails(
        put(tmp_path, "y.jsonl", "{}"),
        "data.options.unit: format jsonl has no such option",
        error=ConfigError,
        options={"unit": "line"},
    )
    fails(put(tmp_path, "a.txt", "x"), "data.unit='word'", error=ConfigError, unit="word")


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("a.json", {"records": None}, "data.options.records=None: expected text"),
        ("a.doccano", {"annotators": "yes"}, "data.options.annotators=yes: expected true or false"),
        ("a.parquet", {"columns": [1]}, "expected a list of texts"),
        ("a.coco", {"digits": 1.5}, "data.options.digits=1.5: expected a whole number"),
    ],
)
def test_options_have_the_type_of_their_default(tmp_path, name, options, part):
    path = put(tmp_path, name, "{}")
    fails(path, part, error=ConfigError, format=path.suffix[1:], options=options)
    assert found(put(tmp_path, "h.csv", "text,label\na,b\n"), options={"header": True}) == [
        (2, {"text": "a", "label": "b"})
    ]


def test_csv_cells(tmp_path):
    path = put(tmp_path, "a.csv", 'text,label\r\n"a, ""b""\nc",x\r\n\r\n d,y\r\n')
    assert found(path) == [
        (2, {"text": 'a, "b"\nc', "label": "x"}),
        (5, {"text": " d", "label": "y"}),
    ]
    assert read(path)[1].where == f"{path}:5"
    assert (
        len(
            read(put(tmp_path, "long.csv", "text,label\n" + "x" * 300_000 + ",y\n"))[0].fields[
                "text"
            ]
        )
        == 300_000
    )
    index = put(tmp_path, "pandas.csv", ",text,label\n0,a,x\n1,b,x\n")
    assert found(index)[0] == (2, {"0": "0", "text": "a", "label": "x"})


def test_csv_rows_that_do_not_fit(tmp_path):
    bad = put(tmp_path, "a.csv", "text,label\na,b\nc,d,e\n")
    fails(bad, f"{bad}:3: found 3 cells, expected 2")
    bad = put(tmp_path, "b.csv", "text,label\na,b\nc\n")
    fails(bad, f"{bad}:3: found 1 cells, expected 2")
    bad = put(tmp_path, "c.csv", 'text,label\n"a ""quoted"" b\nc","d\ne,f\ng,h\n')
    fails(bad, f"{bad}:3: the quote that opens here is never closed")
    bad = put(tmp_path, "d.csv", 'text,label\n"a"b,c\n')
    fails(bad, f"{bad}:2: ", "quote")
    bad = put(tmp_path, "e.csv", "text,text\na,b\n")
    fails(bad, "'text' occurs twice", header="true")


def test_tsv_minds_no_quotes(tmp_path):
    path = put(tmp_path, "a.tsv", 'ham\t"unclosed, \\n\r\nspam\t""\nham\tx\n')
    assert found(path, header="false") == [
        (1, {"0": "ham", "1": '"unclosed, \\n'}),
        (2, {"0": "spam", "1": '""'}),
        (3, {"0": "ham", "1": "x"}),
    ]


def test_header_auto(tmp_path):
    headed = put(tmp_path, "a.csv", "text,label\nhello,x\nbye,y\n")
    bare = put(tmp_path, "b.csv", "hello,x\nbye,y\nhi,x\n")
    assert found(headed, columns=["label"])[0] == (2, {"text": "hello", "label": "x"})
    assert found(bare, columns=["0", "1"])[0] == (1, {"0": "hello", "1": "x"})
    assert found(bare)[0][0] == 1  # x occurs again in its column
    assert found(headed)[0][0] == 2
    fails(
        bare,
        f"{bare}:1: missing column 'text'",
        "'hello', 'x'",
        "data.header=false",
        columns=["text", "label"],
    )
    fails(put(tmp_path, "c.csv", "hello,x\n"), "data.header=true or data.header=false")
    numbered = put(tmp_path, "n.csv", "0,1\nham,x\nspam,y\n")  # as pandas writes what has no names
    for columns in ([], ["0", "1"]):
        fails(
            numbered,
            f"{numbered}:1: the first row, '0', '1', may be a header or data",
            "data.header=true",
            columns=columns,
        )
    assert found(numbered, header="true") == [
        (2, {"0": "ham", "1": "x"}),
        (3, {"0": "spam", "1": "y"}),
    ]
    assert found(bare, header="true")[0] == (2, {"hello": "bye", "x": "y"})


def test_text_units(tmp_path):
    path = put(tmp_path, "a.txt", "a\r\nb\n\n \nc\x0bd\n")
    assert found(path) == [(1, {"text": "a"}), (2, {"text": "b"}), (5, {"text": "c\x0bd"})]
    assert found(path, unit="paragraph") == [(1, {"text": "a\nb"}), (5, {"text": "c\x0bd"})]
    assert found(path, unit="file") == [
        (1, {"text": "a\r\nb\n\n \nc\x0bd\n", "folder": tmp_path.name})
    ]


def test_options_have_the_types_that_their_format_declares(tmp_path):
    path = put(tmp_path, "a.conll", "a\tX\tO\nb\tY\tB-x\n")
    assert (
        found(path, options={"tags": 1})
        == found(path, options={"tags": "1"})
        == [(1, {"tokens": ["a", "b"], "tags": ["X", "Y"], "column_2": ["O", "B-x"]})]
    )
    for options in ({"tags": None}, {"tags": ["x"]}, {"tags": {}}):
        fails(path, "data.options.tags=", "expected text", error=ConfigError, options=options)
    notes = put(tmp_path, "notes.jsonl", '{"text": "ab", "label": [[0, 1, "X"]]}')
    assert found(notes, options={"annotators": "true"}) == found(
        notes, options={"annotators": True}
    )
    fails(
        notes,
        "data.options.annotators=7: expected true or false",
        error=ConfigError,
        options={"annotators": 7},
    )


def test_a_paragraph_with_a_line_that_cannot_be_decoded_is_no_row(tmp_path):
    path, bad = put(tmp_path, "a.txt", b"a\n\nb\n\xff\nc\n\nd\n\xff"), []
    assert [
        (row.line, row.fields["text"])
        for row in stream(path, unit="paragraph", quarantine=bad.append)
    ] == [(1, "a")]
    assert [b.line for b in bad] == [4, 8]


def test_missing_column_lists_those_found():
    row = Row({"sentence": "x", "label": 1}, "a.csv", 17)
    with pytest.raises(DataError) as caught:
        require_column(row, "text", "data.columns.text")
    assert (
        str(caught.value)
        == "a.csv:17: missing column 'text': found columns 'sentence', 'label'; set"
        " data.columns.text=<column>"
    )
    assert require_column(row, "label", "") == 1


cell = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"text": cell, "label": cell}), min_size=1, max_size=6),
    st.sampled_from(["a.csv", "a.jsonl", "a.json", "a.csv.gz"]),
)
def test_write_and_read_give_the_rows_back(tmp_path_factory, rows, name):
    path = tmp_path_factory.mktemp("w") / name
    write(rows, path)
    assert [row.fields for row in read(path, header="true")] == rows
    first = path.read_bytes()
    write(rows, path)
    assert path.read_bytes() == first and [file.name for file in path.parent.iterdir()] == [name]


def test_write_refuses_what_a_cell_cannot_hold(tmp_path):
    write([{"a": None, "b": True, "c": 1.5}], tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_text() == "a\tb\tc\n\ttrue\t1.5\n"
    for rows, part in (
        ([{"a": "x\ty"}], "a tab"),
        ([{"a": []}], "a list"),
        ([{"a": "1"}, {"b": "2"}], "row 2"),
        ([], "no rows"),
        ([{"a": ""}], "empty line"),
    ):
        with pytest.raises(DataError, match=part):
            write(rows, tmp_path / "a.tsv")
    with pytest.raises(ConfigError):
        write([{"text": "x"}], tmp_path / "a.npz")
    assert (tmp_path / "a.tsv").read_text().startswith("a\tb")  # a failed write leaves the old file


def test_real_headers_and_row_counts():
    rows = read(real("banking77/train.csv"), columns=["text", "category"])
    assert len(rows) == 10003 and list(rows[0].fields) == ["text", "category"]
    assert [row.fields for row in read(real("banking77/train.csv"))] == [row.fields for row in rows]
    # Default quoting loses rows here.
    spam = read(real("sms_spam/sms.tsv"))
    assert len(spam) == 5574 and {row.fields["0"] for row in spam} == {"ham", "spam"}
    emotions = read(real("goemotions/dev.tsv"))
    assert len(emotions) == 5426 and list(emotions[0].fields) == ["0", "1", "2"]
    assert len(read(real("gsm8k/test.jsonl"))) == 1319
    assert len(read(real("gpteacher/roleplay.json.gz"))) == len(
        json.loads(gzip.decompress(real("gpteacher/roleplay.json.gz").read_bytes()))
    )


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, {"x": -float("inf")}]])
def test_what_is_written_is_strict_json(tmp_path, suffix, value):
    path = tmp_path / f"out.{suffix}"
    with pytest.raises(
        DataError,
        match=(
            rf"out.{suffix}: row 2, column 'n': found -?(nan|inf), which JSON does not have; write"
            r" .csv, or drop it"
        ),
    ):
        write([{"n": 1.5}, {"a": 1, "n": value}], path)
    assert not path.exists()
    if isinstance(value, float):
        write([{"n": 1.5}, {"n": value}], tmp_path / "out.csv")
