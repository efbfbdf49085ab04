import gzip

import pytest

from jaxsft.data.formats import read, write
from jaxsft.data.formats.tfds_write import write_tfds
from jaxsft.errors import DataError

ROWS = [{"text": f"grün {i}", "turns": [{"n": i, "half": 0.5, "none": None}]} for i in range(600)]


def test_rows_come_back_and_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a.array_record", "b.arrayrecord"):
        write(ROWS, tmp_path / name)
    assert [(row.line, row.fields) for row in read(tmp_path / "a.array_record")] == list(
        enumerate(ROWS, start=1)
    )
    assert (tmp_path / "a.array_record").read_bytes() == (tmp_path / "b.arrayrecord").read_bytes()
    (tmp_path / "noname-00000-of-00001").write_bytes((tmp_path / "a.array_record").read_bytes())
    assert len(read(tmp_path / "noname-00000-of-00001")) == 600


def test_records_that_are_no_objects_are_put_aside(tmp_path):
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    for record in (b'{"text": "a"}', b"[1]", b"\xff", b'{"text": "b"}'):
        writer.write(record)
    writer.close()
    bad = []
    assert [
        row.fields["text"] for row in read(tmp_path / "a.array_record", quarantine=bad.append)
    ] == ["a", "b"]
    assert [(b.line, b.reason) for b in bad] == [
        (2, "found the record b'[1]', expected a JSON object"),
        (3, "the record b'\\xff' is no JSON"),
    ]


def test_damaged_and_packed_files_are_one_sentence(tmp_path):
    write(ROWS, tmp_path / "a.array_record")
    whole = (tmp_path / "a.array_record").read_bytes()
    middle = bytearray(whole)
    middle[500:5000] = b"x" * 4500
    packed = gzip.compress(whole)
    for name, content in (
        ("cut.array_record", whole[:-70000]),
        ("text.array_record", b"text"),
        ("mid.array_record", bytes(middle)),
        ("p.array_record.gz", packed),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}:") and "\n" not in str(caught.value)


def test_a_shard_of_a_tfds_data_set_names_its_folder(tmp_path):
    write_tfds(tmp_path / "set", "mini", "1.0.0", {"train": [{"text": "a"}]})
    with pytest.raises(DataError, match="the folder of a TFDS data set is read as a whole"):
        read(tmp_path / "set" / "mini-train.array_record-00000-of-00001")
