import json

import pytest

from jaxsft.data.formats import read, write
from jaxsft.errors import ConfigError, DataError

TEXT = "Ada 🙂 met Bob."


def span(start, end, label, text=None, id="a"):
    value = {"start": start, "end": end, "labels": [label], **({"text": text} if text else {})}
    return {"id": id, "from_name": "label", "to_name": "text", "type": "labels", "value": value}


def chosen(*choices, control="topic", kind="choices"):
    return {
        "id": "c",
        "from_name": control,
        "to_name": "text",
        "type": kind,
        "value": {kind: list(choices)},
    }


def task(*annotations, **more):
    return {
        "id": 1,
        "data": {"text": TEXT, "source": "web"},
        "annotations": list(annotations),
        **more,
    }


def put(folder, tasks, name="a.json"):
    (folder / name).write_text("[\n" + ",\n".join(json.dumps(task) for task in tasks) + "]")
    return folder / name


def fields(path, quarantine=None, **options):
    return [row.fields for row in read(path, options=options, quarantine=quarantine)]


def test_each_annotator_of_a_task_is_a_row(tmp_path):
    first = {
        "completed_by": 3,
        "result": [span(0, 3, "PER", "Ada"), span(10, 13, "PER", "Bob", id="b"), chosen("a", "b")],
    }
    first["result"].append(
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "left", "labels": ["met"]}
    )
    second = {
        "completed_by": {"id": 4, "email": "b@c.org"},
        "result": [{"from_name": "stars", "type": "rating", "value": {"rating": 4}}],
    }
    skipped = {"completed_by": 5, "was_cancelled": True, "result": []}
    path = put(
        tmp_path, [task(first, second, skipped), {"id": 2, "data": {"text": "b", "source": "web"}}]
    )
    rows = read(path)
    assert [row.line for row in rows] == [2, 2, 2, 3]
    base = {"id": 1, "text": TEXT, "source": "web"}
    none = {"spans": None, "relations": None, "labels": None}
    assert [row.fields for row in rows] == [
        {
            **base,
            "spans": [
                {"start": 0, "end": 3, "label": "PER"},
                {"start": 10, "end": 13, "label": "PER"},
            ],
            "relations": [{"head": 1, "tail": 0, "label": "met"}],
            "labels": ["a", "b"],
            "topic": ["a", "b"],
            "annotator": 3,
            "skipped": False,
        },
        {
            **base,
            "spans": [],
            "relations": [],
            "labels": [],
            "stars": 4,
            "annotator": "b@c.org",
            "skipped": False,
        },
        {**base, **none, "annotator": 5, "skipped": True},
        {"id": 2, "text": "b", "source": "web", **none, "annotator": None, "skipped": False},
    ]


def test_offsets_of_javascript_become_characters(tmp_path):
    # In UTF-16 the emoji is two units long, so Bob begins one later.
    path = put(
        tmp_path,
        [task({"result": [span(11, 14, "PER", "Bob")]}), task({"result": [span(10, 13, "PER")]})],
    )
    assert [row["spans"] for row in fields(path)] == [
        [{"start": 10, "end": 13, "label": "PER"}]
    ] * 2


def test_completions_predictions_and_other_controls(tmp_path):
    old = {
        "id": 1,
        "data": {"body": "hi"},
        "completions": [{"created_username": " a@b.c, 1", "result": [chosen("x")]}],
    }
    assert fields(put(tmp_path, [old]), text="body")[0] == {
        "id": 1,
        "text": "hi",
        "spans": [],
        "relations": [],
        "labels": ["x"],
        "topic": ["x"],
        "annotator": "a@b.c, 1",
        "skipped": False,
    }
    tree = chosen(["A", "B"], ["C"], control="tree", kind="taxonomy")
    words = {"from_name": "better", "type": "textarea", "value": {"text": ["x", "y"]}}
    path = put(
        tmp_path,
        [
            task(
                {"completed_by": 1, "result": [chosen("x")]},
                predictions=[{"model_version": "m1", "result": [tree, words]}],
            )
        ],
    )
    assert [row["annotator"] for row in fields(path)] == [1]
    (model,) = fields(path, take="predictions")
    assert (model["annotator"], model["labels"], model["better"]) == (
        "model m1",
        ["A/B", "C"],
        ["x", "y"],
    )
    assert [row["annotator"] for row in fields(path, take="both")] == [1, "model m1"]
    with pytest.raises(ConfigError, match=r"data\.options\.take='all'"):
        fields(path, take="all")


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ([span(0, 99, "PER")], "outside of its text of 14 characters"),
        ([span(3, 3, "PER")], "outside of its text"),
        ([span(0, 3, "PER", "Bob")], "the span 'PER' is 'Bob', but the text from 0 to 3 is 'Ada'"),
        ([span("0", 3, "PER")], "expected two integers"),
        ([{"type": "labels", "value": {"start": 0, "end": 1}}], "has no labels"),
        (
            [{"type": "rectanglelabels", "from_name": "x", "value": {"x": 1}}],
            "'rectanglelabels' is no annotation of a text",
        ),
        (
            [span(0, 3, "PER"), {"type": "relation", "from_id": "a", "to_id": "z"}],
            "ends at 'z', which is no span",
        ),
        ([chosen("x", control="source")], "'source' has the name of another column"),
        (["x"], "expected a list of objects"),
        ({"a": 1}, "expected a list of objects"),
        ([{"type": "choices", "value": 3}], "expected an object with type and value"),
    ],
)
def test_a_broken_result_makes_its_row_bad(tmp_path, result, reason):
    bad = []
    good = {"completed_by": 2, "result": [chosen("x")]}
    rows = fields(
        put(tmp_path, [task(good, {"completed_by": 1, "result": result})]),
        quarantine=bad.append,
    )
    assert [row["annotator"] for row in rows] == [2]
    assert len(bad) == 1 and bad[0].line == 2 and reason in bad[0].reason


def test_tasks_that_cannot_be_read(tmp_path):
    for broken, reason in (
        (
            {"id": 1, "data": {"body": "a"}, "annotations": [{"result": []}]},
            "no text in the field 'text'.*which has body; set data.options.text",
        ),
        (
            {"id": 1, "data": {"text": "a", "spans": 1}, "annotations": [{"result": []}]},
            "a field 'spans'",
        ),
        (
            {"id": 1, "data": {"text": "a"}, "annotations": [3], "completed_by": 1},
            "in 'annotations', expected a list of objects",
        ),
    ):
        with pytest.raises(DataError, match=rf"a.json:2: .*{reason}"):
            read(put(tmp_path, [broken]), format="labelstudio")


def test_json_min(tmp_path):
    row = {
        "id": 7,
        "text": TEXT,
        "label": [{"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}],
        "sentiment": "pos",
        "topics": {"choices": ["a", "b"]},
    }
    path = put(
        tmp_path,
        [
            {
                **row,
                "annotator": 1,
                "annotation_id": 9,
                "created_at": "x",
                "updated_at": "y",
                "lead_time": 1.5,
            }
        ],
    )
    assert fields(path) == [
        {
            "id": 7,
            "text": TEXT,
            "sentiment": "pos",
            "topics": ["a", "b"],
            "spans": [{"start": 0, "end": 3, "label": "PER"}],
            "annotator": 1,
        }
    ]


def test_what_is_written_reads_as_the_same_rows(tmp_path):
    spans = [{"start": 0, "end": 3, "label": "PER"}, {"start": 4, "end": 5, "label": "EMO"}]
    whole = {"id": 1, "text": TEXT, "source": "web", "skipped": False}
    rows = [
        {
            **whole,
            "spans": spans,
            "relations": [{"head": 1, "tail": 0, "label": "by"}],
            "labels": ["a", "b"],
            "annotator": "x",
        },
        {**whole, "spans": [], "relations": [], "labels": [], "annotator": "y"},
        {
            **whole,
            "spans": None,
            "relations": None,
            "labels": None,
            "annotator": "z",
            "skipped": True,
        },
        {**whole, "id": "b", "spans": None, "relations": None, "labels": None, "annotator": None},
    ]
    write(rows, tmp_path / "a.json", format="labelstudio")
    assert fields(tmp_path / "a.json") == rows
    for row, part in (
        ({"a": 1}, "row 1 has no text"),
        ({**rows[0], "spans": [{"start": 0, "end": 99, "label": "x"}]}, "leaves its text"),
    ):
        with pytest.raises(DataError, match=part):
            write([row], tmp_path / "b.json", format="labelstudio")
    with pytest.raises(DataError, match="row 2: the data of 1 differ"):
        write([rows[0], {**rows[1], "text": "other"}], tmp_path / "b.json", format="labelstudio")


def test_the_time_that_it_took_is_kept(tmp_path):
    work = {"completed_by": 1, "lead_time": 2.5, "was_cancelled": False, "result": []}
    path = put(
        tmp_path,
        [
            {
                "id": 1,
                "data": {"text": "a"},
                "annotations": [work, {**work, "completed_by": 2, "was_cancelled": True}],
            }
        ],
    )
    rows = [row.fields for row in read(path, format="labelstudio")]
    assert [row["seconds"] for row in rows] == [2.5, 2.5]
    write(rows, tmp_path / "again.json", "labelstudio")
    assert [row.fields for row in read(tmp_path / "again.json", format="labelstudio")] == rows
