"""Parquet and Arrow: every value as JSON has it, without loss; the same rows give the same
bytes."""

import datetime
import decimal
import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.formats import parquet, read, stream, write
from jaxsft.errors import ConfigError, DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def put(path, table, **how):
    if path.suffix == ".parquet":
        pq.write_table(table, path, **how)
    elif how.get("stream"):
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    return path


def fields(path, **options):
    return [row.fields for row in read(path, **options)]


INSTANT = datetime.datetime(2024, 2, 29, 23, 59, 58, 120_000)
COLUMNS = {
    "text": (pa.array(["grün", None, ""]), ["grün", None, ""]),
    "big": (pa.array([2**63, 2**64 - 1, None], pa.uint64()), [2**63, 2**64 - 1, None]),
    "id": (pa.array([1370000000000000001, -(2**63), 0]), [1370000000000000001, -(2**63), 0]),
    "half": (pa.array([0.5, None, -2.0], pa.float16()), [0.5, None, -2.0]),
    "flag": (pa.array([True, None, False]), [True, None, False]),
    "money": (
        pa.array(
            [decimal.Decimal("0.10"), None, decimal.Decimal("-12345678901234567890.25")],
            pa.decimal128(24, 2),
        ),
        None,
    ),
    "when": (
        pa.array([INSTANT, None, INSTANT.replace(microsecond=0)], pa.timestamp("ms")),
        ["2024-02-29T23:59:58.120", None, "2024-02-29T23:59:58"],
    ),
    "nano": (pa.array([1, -1, None], pa.timestamp("ns", "Europe/Berlin")), None),
    "day": (
        pa.array([datetime.date(1969, 12, 31), None, datetime.date(2024, 1, 1)]),
        ["1969-12-31", None, "2024-01-01"],
    ),
    "clock": (
        pa.array([datetime.time(1, 2, 3, 4), None, datetime.time(0)], pa.time64("us")),
        ["01:02:03.000004", None, "00:00:00"],
    ),
    "lasts": (pa.array([1500, None, -20], pa.duration("ms")), ["PT1.500S", None, "-PT0.020S"]),
    "word": (pa.array(["b", "a", "b"]).dictionary_encode(), ["b", "a", "b"]),
    "empty": (pa.nulls(3), [None, None, None]),
    "pairs": (
        pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        [{"a": 1}, None, {}],
    ),
    "fixed": (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)), [[1, 2], None, [3, 4]]),
    "deep": (
        pa.array(
            [[{"a": ["x"], "b": datetime.date(2024, 1, 1)}], [], None],
            pa.list_(pa.struct({"a": pa.list_(pa.string()), "b": pa.date32()})),
        ),
        [[{"a": ["x"], "b": "2024-01-01"}], [], None],
    ),
}
EXPECTED = {
    **{name: expected for name, (_, expected) in COLUMNS.items()},
    "money": ["0.10", None, "-12345678901234567890.25"],
    "nano": ["1970-01-01T00:00:00.000000001+00:00", "1969-12-31T23:59:59.999999999+00:00", None],
}
ROWS = [{name: EXPECTED[name][i] for name in COLUMNS} for i in range(3)]
TABLE = pa.table({name: array for name, (array, _) in COLUMNS.items()})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("batch", [1, 2, 1024])
def test_every_type_becomes_plain_json(tmp_path, monkeypatch, name, batch):
    monkeypatch.setattr(parquet, "BATCH", batch)  # slices of arrays keep what they point to
    table = (
        TABLE if name == "a.arrow" else TABLE.drop_columns("half") if name == "a.parquet" else TABLE
    )
    rows = fields(put(tmp_path / name, table))
    assert rows == [{column: row[column] for column in table.column_names} for row in ROWS]
    json.dumps(rows)
    for row in rows:
        assert all(
            type(value) in (str, int, float, bool, list, dict, type(None)) for value in row.values()
        )


def test_row_groups_a_stream_a_packed_file_and_a_name_without_suffix(tmp_path):
    table = pa.table({"text": [f"t{i}" for i in range(50)]})
    put(tmp_path / "a.parquet", table, row_group_size=7)
    put(tmp_path / "s.arrow", table, stream=True)
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    (tmp_path / "noname").write_bytes((tmp_path / "a.parquet").read_bytes())
    for name in ("a.parquet", "s.arrow", "b.parquet.gz", "noname"):
        rows = read(tmp_path / name)
        assert [(row.line, row.fields["text"]) for row in rows] == [
            (i + 1, f"t{i}") for i in range(50)
        ], name


def test_rows_come_before_the_rest_is_read(tmp_path):
    path = put(
        tmp_path / "a.parquet",
        pa.table({"text": [f"text {i}" for i in range(5000)]}),
        row_group_size=2500,
        compression="none",
    )
    place = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 400] = bytes(400)
    path.write_bytes(damaged)
    rows = stream(path)
    assert [next(rows).fields["text"] for _ in range(2000)] == [f"text {i}" for i in range(2000)]
    with pytest.raises(DataError, match="damaged"):
        list(rows)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("large_string", ["a", None], ["a", None]),
        ("string_view", ["a", None], ["a", None]),
        ("date64", [datetime.date(1969, 7, 20), None], ["1969-07-20", None]),
        ("time32", [datetime.time(23, 59, 59), None], ["23:59:59", None]),
        ("decimal256", [decimal.Decimal("1e40"), None], ["1" + "0" * 40 + ".00", None]),
        ("large_list", [["a"], None, []], [["a"], None, []]),
        ("list_view", [["a", "b"], None, ["c"]], [["a", "b"], None, ["c"]]),
        ("map", [[(1, "a"), (1, "b")], None], [[[1, "a"], [1, "b"]], None]),
    ],
)
def test_further_types_of_arrow(tmp_path, kind, values, expected):
    make = {
        "date64": pa.date64,
        "time32": lambda: pa.time32("s"),
        "decimal256": lambda: pa.decimal256(50, 2),
        "map": lambda: pa.map_(pa.int64(), pa.string()),
    }
    make |= {
        name: lambda name=name: getattr(pa, name)(pa.string())
        for name in ("large_list", "list_view")
    }
    array = pa.array(values, make.get(kind, getattr(pa, kind, None))())
    assert [
        row["a"] for row in fields(put(tmp_path / "a.arrow", pa.table({"a": array})))
    ] == expected


def test_run_ends_extensions_and_unions(tmp_path):
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    table = pa.table(
        {
            "runs": runs,
            "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None, "[]"])),
        }
    )
    assert fields(put(tmp_path / "a.arrow", table)) == [
        {"runs": "a", "json": '{"a": 1}'},
        {"runs": "a", "json": None},
        {"runs": "b", "json": "[]"},
    ]
    union = pa.UnionArray.from_sparse(
        pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]
    )
    with pytest.raises(DataError, match="column 'u' holds values of the type sparse_union"):
        read(put(tmp_path / "b.arrow", pa.table({"u": union})))


def test_bytes_are_bad_unless_other_columns_are_asked_for(tmp_path):
    path = put(
        tmp_path / "a.parquet", pa.table({"text": ["a", "b"], "image": [{"bytes": b"\xff"}, None]})
    )
    bad = []
    assert [row.fields for row in read(path, quarantine=bad.append)] == [
        {"text": "b", "image": None}
    ]
    assert (
        [b.line for b in bad] == [1]
        and "'image' holds bytes (binary)" in bad[0].reason
        and "data.options.columns" in bad[0].reason
    )
    assert fields(path, columns=["text"]) == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(DataError, match=r"a.parquet:1: column 'image'"):
        read(path, columns=["text", "image"])


def test_a_text_that_is_not_utf_8_is_one_bad_row(tmp_path):
    raw = pa.array([b"ok", b"\xff", b"fine"]).view(pa.string())
    bad = []
    path = put(tmp_path / "a.arrow", pa.table({"text": raw}))
    assert [row.fields["text"] for row in read(path, quarantine=bad.append)] == ["ok", "fine"]
    assert [b.line for b in bad] == [2] and "not UTF-8 (" in bad[0].reason


def test_a_date_beyond_the_year_9999_is_bad(tmp_path):
    bad = []
    rows = read(
        put(
            tmp_path / "a.parquet",
            pa.table({"d": pa.array([0, 2**31 - 1], pa.int32()).view(pa.date32())}),
        ),
        quarantine=bad.append,
    )
    assert (
        [row.fields for row in rows] == [{"d": "1970-01-01"}]
        and bad[0].line == 2
        and "1 to 9999" in bad[0].reason
    )


def test_files_that_are_broken_are_one_sentence(tmp_path):
    whole = put(tmp_path / "a.parquet", TABLE.select(["text"])).read_bytes()
    arrow = put(tmp_path / "a.arrow", TABLE.select(["text"])).read_bytes()
    twice = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), twice)
    for name, content, part in (
        ("cut.parquet", whole[:-9], "damaged"),
        ("text.parquet", b"not at all", "damaged"),
        ("cut.arrow", arrow[: len(arrow) // 2], "damaged"),
        ("v1.feather", b"FEA1" + whole, "a Feather file of version 1; write it as version 2"),
        ("twice.parquet", twice.getvalue(), "'a' occurs twice"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=part) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}:") and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="has no rows"):
        read(put(tmp_path / "e.parquet", pa.table({"a": pa.array([], pa.string())})))


def labelled(features, **columns):
    return pa.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def test_class_names_of_hugging_face(tmp_path):
    label = {"names": ["neg", "pos"], "_type": "ClassLabel"}
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": label,
        "tags": {"feature": label, "_type": "Sequence"},
        "old": [{"x": label}],
    }
    table = labelled(
        features, text=["a", "b"], label=[1, -1], tags=[[0, 1], []], old=[[{"x": 0, "y": 7}], None]
    )
    path = put(tmp_path / "a.parquet", table)
    assert fields(path)[0] == {"text": "a", "label": 1, "tags": [0, 1], "old": [{"x": 0, "y": 7}]}
    assert fields(path, options={"class_names": True}) == [
        {"text": "a", "label": "pos", "tags": ["neg", "pos"], "old": [{"x": "neg", "y": 7}]},
        {"text": "b", "label": None, "tags": [], "old": None},
    ]
    beyond = put(tmp_path / "b.parquet", labelled({"label": label}, label=[0, 2]))
    with pytest.raises(
        DataError,
        match=r"b.parquet:2: column 'label' holds the id 2, expected one of the 2 classes",
    ):
        read(beyond, options={"class_names": True})
    with pytest.raises(ConfigError, match="no class names"):
        read(put(tmp_path / "c.parquet", pa.table({"label": [1]})), options={"class_names": True})


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
row = st.fixed_dictionaries(
    {
        "text": st.none() | text,
        "n": st.none() | st.integers(-(2**63), 2**63 - 1),
        "x": st.none() | st.floats(allow_nan=False),
        "ok": st.booleans(),
        "tags": st.none() | st.lists(st.none() | text, max_size=3),
        "turns": st.lists(
            st.fixed_dictionaries({"role": text, "weight": st.none() | st.integers(0, 9)}),
            max_size=3,
        ),
    }
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(row, min_size=1, max_size=5), st.sampled_from(["a.parquet", "a.arrow", "a.parquet.gz"])
)
def test_write_and_read_give_the_rows_back(tmp_path_factory, rows, name):
    path = tmp_path_factory.mktemp("w") / name
    write(rows, path)
    assert fields(path) == rows
    first = path.read_bytes()
    write(rows, path)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([{"a": 1}, {"a": "x"}], "row 2, column 'a': found a value of the type text, expected int"),
        (
            [{"a": 1}, {"a": 1.0}],
            "row 2, column 'a': found a value of the type float, expected int",
        ),
        (
            [{"a": True}, {"a": 1}],
            "row 2, column 'a': found a value of the type int, expected bool",
        ),
        ([{"a": [1]}, {"a": [None, "x"]}], "row 2, column 'a': found"),
        ([{"a": {"b": 1}}, {"a": {"b": []}}], "row 2, column 'a', column 'b': found"),
        ([{"a": 1}, {"b": 1}], "row 2 has the columns ['b'], expected ['a']"),
        ([{"a": {}}], "row 1, column 'a' has the columns []"),
        ([{"a": 2**64}], "more than 64 bits"),
        ([{"a": 2**63}, {"a": -1}], "one type of 64 bits"),
        ([{"a": b"x"}], "found a bytes"),
        ([], "no rows"),
    ],
)
def test_write_names_the_row_and_the_column_that_do_not_fit(tmp_path, rows, part):
    for name in ("a.parquet", "a.arrow"):
        with pytest.raises(DataError) as caught:
            write(rows, tmp_path / name)
        assert part in str(caught.value) and not (tmp_path / name).exists()
