import json

import pytest

from jaxsft.data.formats import read, write
from jaxsft.errors import DataError

TEXT = "Ada met Bob."
SPANS = [{"start": 0, "end": 3, "label": "PER"}, {"start": 8, "end": 11, "label": "PER"}]


def put(folder, *rows, name="a.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def fields(path, quarantine=None, format="auto", **options):
    return [row.fields for row in read(path, format=format, options=options, quarantine=quarantine)]


def test_spans_are_told_by_their_shape(tmp_path):
    for column in ("label", "labels"):
        path = put(
            tmp_path,
            {"id": 1, "text": "x", column: [], "Comments": []},
            {"id": 2, "text": TEXT, column: [[0, 3, "PER"], [8, 11, "PER"]], "Comments": []},
        )
        assert fields(path) == [
            {"text": "x", "id": 1, "Comments": [], "spans": [], "labels": []},
            {"text": TEXT, "id": 2, "Comments": [], "spans": SPANS},
        ]
    assert read(path)[1].line == 2
    plain = put(tmp_path, {"text": TEXT, "label": ["a"]})
    assert fields(plain) == [{"text": TEXT, "label": ["a"]}]  # any JSON lines may look like this
    assert fields(plain, format="doccano") == [{"text": TEXT, "labels": ["a"]}]


def test_entities_relations_and_users(tmp_path):
    entities = [
        {"id": 10, "label": "PER", "start_offset": 0, "end_offset": 3},
        {"id": 11, "label": "PER", "start_offset": 8, "end_offset": 11},
    ]
    path = put(
        tmp_path,
        {
            "id": 1,
            "text": TEXT,
            "entities": entities,
            "relations": [{"id": 0, "from_id": 11, "to_id": 10, "type": "met"}],
        },
    )
    assert fields(path) == [
        {
            "text": TEXT,
            "id": 1,
            "spans": SPANS,
            "relations": [{"head": 1, "tail": 0, "label": "met"}],
        }
    ]
    notes = [
        {"label": 1, "start_offset": 0, "end_offset": 3, "user": 5},
        {"label": 2, "start_offset": 8, "end_offset": 11, "user": 6},
    ]
    assert fields(put(tmp_path, {"id": 1, "text": TEXT, "annotations": notes, "meta": {}})) == [
        {
            "text": TEXT,
            "id": 1,
            "meta": {},
            "spans": [{"start": 0, "end": 3, "label": 1}],
            "annotator": 5,
        },
        {
            "text": TEXT,
            "id": 1,
            "meta": {},
            "spans": [{"start": 8, "end": 11, "label": 2}],
            "annotator": 6,
        },
    ]
    classes = put(
        tmp_path,
        {"id": 1, "text": TEXT, "annotations": [{"label": 3, "user": 5}]},
        name="eva.jsonl",
    )
    assert fields(classes, format="doccano") == [
        {"text": TEXT, "id": 1, "labels": [3], "annotator": 5}
    ]
    assert (
        fields(
            put(tmp_path, {"text": TEXT, "label": [[0, 3, "PER"]]}, name="eva.jsonl"),
            annotators=True,
        )[0]["annotator"]
        == "eva"
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": TEXT, "label": [[0, 99, "PER"]]}, "outside of its text of 12 characters"),
        ({"text": TEXT, "label": [[5, 2, "PER"]]}, "outside of its text"),
        ({"text": TEXT, "label": [[0, 3]]}, "expected [start, end, label]"),
        ({"text": TEXT, "label": [["a", 3, "x"]]}, "expected two integers"),
        ({"text": TEXT, "label": {"a": 1}}, "expected a list"),
        ({"text": TEXT}, "found no label, labels or entities, but text"),
        ({"label": []}, "found no text, but label"),
        (
            {"text": TEXT, "entities": [], "relations": [{"from_id": 1, "to_id": 2}]},
            "ends at '1', which is no span",
        ),
        ({"text": TEXT, "entities": [3]}, "found the span 3"),
        ({"text": TEXT, "annotations": [{"user": []}]}, "whose user is neither"),
    ],
)
def test_a_broken_row_is_bad(tmp_path, row, reason):
    bad = []
    assert (
        len(
            fields(
                put(tmp_path, row, {"text": "b", "label": ["x"]}),
                quarantine=bad.append,
                format="doccano",
            )
        )
        == 1
    )
    assert len(bad) == 1 and bad[0].line == 1 and reason in bad[0].reason


def test_what_is_written_reads_as_the_same_rows(tmp_path):
    for rows in (
        [
            {"text": TEXT, "id": 3, "spans": SPANS},
            {"text": "b", "id": 4, "spans": [{"start": 0, "end": 1, "label": "X"}]},
        ],
        [{"text": TEXT, "labels": ["a", "b"]}],
        [
            {
                "text": TEXT,
                "id": 1,
                "spans": SPANS,
                "relations": [{"head": 1, "tail": 0, "label": "met"}],
            }
        ],
    ):
        write(rows, tmp_path / "a.jsonl", format="doccano")
        assert fields(tmp_path / "a.jsonl", format="doccano") == rows
    for row in (
        {"text": TEXT},
        {"spans": SPANS},
        {"text": TEXT, "spans": SPANS, "labels": ["a"]},
        {"text": "b", "spans": SPANS},
    ):
        with pytest.raises(DataError, match="row 1"):
            write([row], tmp_path / "b.jsonl", format="doccano")


@pytest.mark.parametrize(
    "bad", ['{"id": 5, "label": []}', '{"text": 3, "label": []}', '{"text": "x"', "1"]
)
@pytest.mark.parametrize("first", [False, True])
def test_one_bad_row_does_not_decide_the_format(tmp_path, bad, first):
    good = ['{"text": "Ann here", "label": [[0, 3, "PER"]]}'] * 3
    lines, found = [bad, *good] if first else [*good, bad], []
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    rows = read(tmp_path / "a.jsonl", quarantine=found.append)
    assert [row.fields["spans"] for row in rows] == [[{"start": 0, "end": 3, "label": "PER"}]] * 3
    assert [one.line for one in found] == [1 if first else 4]
