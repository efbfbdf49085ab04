"""`jaxsft annotate` as a user meets it."""

import json

import pytest

from jaxsft import rundir
from tests.tiny import jaxsft, write_lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.yaml").write_text(
        "type: class\nlabels: [good, bad]\nguidelines: Is it good?\n", encoding="utf-8"
    )
    write_lines(tmp_path / "items.jsonl", [{"id": i, "text": f"text {i}"} for i in range(4)])
    write_lines(
        tmp_path / "gold.jsonl", [{"item": 0, "label": "good"}, {"item": "1", "label": "bad"}]
    )
    return tmp_path


def works(folder, **by):
    """A doccano file per annotator, from the exported tasks."""
    assert (
        jaxsft(
            "annotate",
            "export",
            "schema=schema.yaml",
            "input=items.jsonl",
            "output=tasks.jsonl",
            "tool=doccano",
        )[0]
        == 0
    )
    for name, labels in by.items():
        tasks = rundir.read_jsonl(folder / "tasks.jsonl")
        write_lines(
            folder / f"{name}.jsonl",
            [
                {**task, "id": 90 + i, "label": [x] if x else []}
                for i, (task, x) in enumerate(zip(tasks, labels, strict=True))
            ],
        )


IMPORT = (
    "annotate",
    "import",
    "schema=schema.yaml",
    "tool=doccano",
    "output=out/adjudicated.jsonl",
)


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
def test_several_files_become_one_answer_and_a_report(folder, method):
    works(folder, anna=["good", "bad", "good", "good"], ben=["good", "bad", "bad", None])
    code, out, err = jaxsft(
        *IMPORT,
        "inputs=[anna.jsonl,ben.jsonl]",
        "gold=gold.jsonl",
        "report=report.md",
        f"method={method}",
    )
    assert code == 0, err
    lines = rundir.read_jsonl(folder / "out/adjudicated.jsonl")
    assert [line["item"] for line in lines] == ["0", "1", "2", "3"] and lines[0]["text"] == "text 0"
    assert [line["label"] for line in lines[:2]] == ["good", "bad"] and lines[3][
        "status"
    ] == "single"
    if method == "majority":
        assert lines[2] == {
            **{
                "item": "2",
                "text": "text 2",
                "label": None,
                "status": "tie",
                "annotators": 2,
                "confidence": 0.5,
            },
            "candidates": [{"label": "bad"}, {"label": "good"}],
        }
        assert "2 annotators, 4 items, 1 ties" in out
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "| anna | 4 | 0 |" in page and "| ben | 3 | 1 |" in page and "gold" in page


def test_label_studio_names_the_annotators(folder):
    code, out, err = jaxsft(
        "annotate",
        "export",
        "schema=schema.yaml",
        "input=items.jsonl",
        "output=tasks.json",
        "tool=labelstudio",
    )
    assert code == 0 and "tasks.xml" in out, err
    assert 'value="Is it good?"' in (folder / "tasks.xml").read_text(encoding="utf-8")
    answer = lambda who, label: {
        "completed_by": who,
        "lead_time": 4.5,
        "result": [
            {
                "from_name": "labels",
                "to_name": "text",
                "type": "choices",
                "value": {"choices": [label]},
            }
        ],
    }
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    for task in tasks[:3]:
        task["annotations"] = [answer(1, "good"), answer(2, "good")]
    tasks[3]["annotations"] = []
    (folder / "all.json").write_text(json.dumps(tasks), encoding="utf-8")
    options = (
        "annotate",
        "import",
        "schema=schema.yaml",
        "tool=labelstudio",
        "output=o.jsonl",
        "inputs=all.json",
        "report=r.md",
    )
    code, out, err = jaxsft(*options)
    assert code == 0 and "2 annotators, 3 items, 0 ties" in out, err
    page = (folder / "r.md").read_text(encoding="utf-8")
    assert "1 items were not annotated by anybody" in page and "4.500" in page


def test_plain_rows_of_everybody(folder):
    rows = [
        {"item": i, "annotator": who, "label": label, "seconds": 2}
        for who, label in (("anna", "good"), ("ben", "bad"))
        for i in range(2)
    ]
    write_lines(folder / "all.jsonl", rows)
    code, out, err = jaxsft(
        "annotate",
        "import",
        "schema=schema.yaml",
        "tool=jsonl",
        "output=o.jsonl",
        "inputs=[all.jsonl]",
    )
    assert code == 0 and "2 annotators, 2 items, 2 ties" in out, err
    assert [line["candidates"] for line in rundir.read_jsonl(folder / "o.jsonl")] == [
        [{"label": "bad"}, {"label": "good"}]
    ] * 2


def test_files_of_one_name_are_told_apart_by_annotators(folder):
    works(folder, anna=["good"] * 4)
    (folder / "b").mkdir()
    (folder / "anna.jsonl").rename(folder / "b/all.jsonl")
    works(folder, all=["good"] * 4)
    code, _, err = jaxsft(*IMPORT, "inputs=[all.jsonl,b/all.jsonl]")
    assert (
        code == 1 and "'all' annotated item '0' before (all.jsonl:1); set annotators=[...]" in err
    )
    assert jaxsft(*IMPORT, "inputs=[all.jsonl,b/all.jsonl]", "annotators=[anna,ben]")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("annotate",), "give export or import"),
        (("annotate", "export", "schema=schema.yaml"), "missing input="),
        (
            ("annotate", "export", "schema=none.yaml", "input=i", "output=o", "tool=conll"),
            "none.yaml: cannot be read",
        ),
        (
            (
                "annotate",
                "export",
                "schema=schema.yaml",
                "input=items.jsonl",
                "output=o",
                "tool=prodigy",
            ),
            "tool='prodigy' is unknown",
        ),
        (
            (
                "annotate",
                "export",
                "schema=schema.yaml",
                "input=items.jsonl",
                "output=o",
                "tool=conll",
            ),
            "takes a schema of type span",
        ),
        (
            (*IMPORT, "inputs=[anna.jsonl]", "methods=majority"),
            "methods=: unknown; did you mean method=?",
        ),
        ((*IMPORT, "inputs=[anna.jsonl,]"), "expected names between commas"),
        (
            (*IMPORT, "inputs=[anna.jsonl]", "annotators=[a,b]"),
            "annotators= has 2 names and inputs= 1 files",
        ),
        ((*IMPORT, "inputs=[anna.jsonl]", "method=vote"), "method='vote' is unknown"),
        (
            (*IMPORT, "inputs=[anna.jsonl]", "gold=bad_gold.jsonl"),
            "bad_gold.jsonl:1: found the label 'fine', which the schema does not have",
        ),
        (
            (
                "annotate",
                "import",
                "schema=schema.yaml",
                "inputs=anna.jsonl",
                "tool=doccano",
                "output=./anna.jsonl",
            ),
            "anna.jsonl is read and written",
        ),
        ((*IMPORT, "inputs=[anna.jsonl,none.jsonl]"), "none.jsonl: there is no such file"),
        ((*IMPORT, "inputs=[empty.jsonl]"), "empty.jsonl:1: found no annotation"),
    ],
)
def test_what_is_wrong_is_one_line(folder, arguments, error):
    works(folder, anna=["good"] * 4, empty=[None] * 4)
    write_lines(folder / "bad_gold.jsonl", [{"item": 0, "label": "fine"}])
    code, _, err = jaxsft(*arguments)
    assert code == 1 and error in err and err.count("\n") == 1
    assert not (folder / "out").exists()
