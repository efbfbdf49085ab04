import json
import xml.etree.ElementTree as ElementTree

import pytest

from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import annotation, annotation_schema, annotation_tools
from tests.realdata import real

SPANS = "type: span\nlabels: [PER, LOC]\n"
KINDS = {
    "class": ("type: class\nlabels: [good, bad]\n", {"label": "bad"}),
    "multi_label": ("type: multi_label\nlabels: [joy, fear, anger]\n", {"labels": ["fear", "joy"]}),
    "rating": ("type: rating\nscale: [1, 5]\n", {"label": 4}),
    "typed": ("type: rating\nscale: [-2, 2]\n", {"label": -1}),
    "pairwise": ("type: pairwise\n", {"label": "tie"}),
    "span": (
        SPANS,
        {
            "spans": [
                {"start": 0, "end": 4, "label": "PER"},
                {"start": 15, "end": 21, "label": "LOC"},
            ]
        },
    ),
    "relation": (
        "type: relation\nlabels: [PER, LOC]\nrelations: [in, from]\n",
        {
            "spans": [
                {"start": 0, "end": 4, "label": "PER"},
                {"start": 15, "end": 21, "label": "LOC"},
            ],
            "relations": [{"head": 1, "tail": 0, "label": "in"}],
        },
    ),
}
TEXT = "Anna 🙂 lebt in Berlin & <Rom>."


def schema(text, folder):
    path = folder / "schema.yaml"
    path.write_text(text, encoding="utf-8")
    return annotation_schema.load(path)


def item(**fields):
    return Row({"id": "x1", "text": TEXT, "a": "one", "b": "two", **fields}, "items.jsonl", 1)


def answered(tasks: str, by="anna") -> str:
    """Label Studio's export after an annotator accepted every prediction."""
    out = json.loads(tasks)
    for number, task in enumerate(out):
        predictions = task.pop("predictions", [])
        results = predictions[0]["result"] if predictions else []
        task |= {
            "id": number,
            "annotations": [
                {
                    "completed_by": {"email": by},
                    "lead_time": 2.5,
                    "was_cancelled": False,
                    "result": results,
                }
            ],
        }
    return json.dumps(out)


@pytest.mark.parametrize("tool", annotation_tools.TOOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_survives_the_way_through_a_tool(kind, tool, tmp_path):
    text, fields = KINDS[kind]
    asked = schema(text, tmp_path)
    value = annotation.value_of({"text": TEXT, **fields}, asked, "here")
    assert (
        annotation.value_of({"text": TEXT, **annotation.fields_of(value, asked)}, asked, "here")
        == value
    )
    if tool == "conll" and kind != "span":
        with pytest.raises(ConfigError, match="takes a schema of type span"):
            annotation_tools.export_tasks([item(**fields)], asked, tool)
        return
    tasks = annotation_tools.export_tasks([item(**fields)], asked, tool)
    path = tmp_path / f"out.{annotation_tools.TOOLS[tool]}"
    path.write_text(answered(tasks) if tool == "labelstudio" else tasks, encoding="utf-8")
    work = annotation.collect([("anna", formats.read(path, format=tool))], asked)
    seconds = 2.5 if tool == "labelstudio" else None
    assert work.annotations == (annotation.Annotation("x1", "anna", value, seconds),)
    assert work.texts["x1"].startswith(TEXT)


def test_an_item_without_labels_is_asked_and_not_answered(tmp_path):
    asked = schema(KINDS["class"][0], tmp_path)
    tasks = annotation_tools.export_tasks([item()], asked, "labelstudio")
    assert json.loads(tasks) == [{"data": {"text": TEXT, "item": "x1"}}]
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([{**json.loads(tasks)[0], "annotations": []}]), encoding="utf-8")
    work = annotation.collect([("anna", formats.read(path, format="labelstudio"))], asked)
    assert work.annotations == () and work.untouched == ("x1",)
    path.write_text(
        json.dumps(
            [
                {
                    **json.loads(tasks)[0],
                    "annotations": [{"completed_by": 7, "was_cancelled": True, "result": []}],
                }
            ]
        ),
        encoding="utf-8",
    )
    work = annotation.collect([("anna", formats.read(path, format="labelstudio"))], asked)
    assert work.annotations == (annotation.Annotation("x1", "7", None),) and work.items == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_setup_of_label_studio_is_xml_with_every_choice(kind, tmp_path):
    asked = schema(
        KINDS[kind][0] + 'guidelines: |\n  Is it "good" & <nice>?\n  Say so.\n', tmp_path
    )
    tree = ElementTree.fromstring(annotation_tools.label_studio_config(asked))
    assert [h.get("value") for h in tree.iter("Header")][:2] == [
        'Is it "good" & <nice>?',
        "Say so.",
    ]
    named = {e.get("value") for tag in ("Choice", "Label", "Relation") for e in tree.iter(tag)}
    assert named == {*asked.names, *(r.name for r in asked.relations)}
    texts = {e.get("name") for e in tree.iter("Text")}
    assert all(e.get("toName") in texts for e in tree.iter() if e.get("toName"))
    tasks = json.loads(
        annotation_tools.export_tasks([item(**KINDS[kind][1])], asked, "labelstudio")
    )
    controls = {e.get("name"): e.tag.lower() for e in tree.iter() if e.get("toName")}
    for result in tasks[0]["predictions"][0]["result"]:
        assert result["type"] == "relation" or controls[result["from_name"]] == result["type"]
    assert {e.get("value") for e in tree.iter("Text")} <= {f"${key}" for key in tasks[0]["data"]}


def test_real_sentences_survive_conll(tmp_path):
    """Every sentence of WNUT17's test set, joined by spaces: the chunks that go out come back."""
    rows = formats.read(real("wnut17/emerging.test.annotated.gz"), format="conll")[:300]
    names = sorted({tag[2:] for row in rows for tag in row.fields["tags"] if tag != "O"})
    asked = schema(f"type: span\nid: null\nlabels: {json.dumps(names)}\n", tmp_path)
    items = []
    for row in rows:
        fields = {
            "text": " ".join(row.fields["tokens"]),
            "tokens": row.fields["tokens"],
            "tags": row.fields["tags"],
        }
        items.append(
            Row(
                {"text": fields["text"], "spans": annotation.spans_of_tokens(fields, row.where)},
                row.file,
                row.line,
            )
        )
    kept = []
    # what our tokens split inside of a chunk's border cannot be spelled, and says so
    for one in items:
        try:
            annotation_tools.export_tasks([one], asked, "conll")
            kept.append(one)
        except DataError as error:
            assert "does not begin and end with tokens" in str(error)
    assert len(kept) > 290
    path = tmp_path / "out.conll"
    path.write_text(annotation_tools.export_tasks(kept, asked, "conll"), encoding="utf-8")
    work = annotation.collect([("a", formats.read(path, format="conll"))], asked)
    expected = [
        tuple((s["start"], s["end"], s["label"]) for s in one.fields["spans"]) for one in kept
    ]
    assert [a.value for a in work.annotations] == expected and sum(map(len, expected)) > 100


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "type: clas\nlabels: [a, b]\n",
            "schema.yaml:1: found type 'clas', expected one of class, ",
        ),
        ("labels: [a, b]\n", "schema.yaml:1: found type None"),
        (
            "type: class\nlabels: [a]\n",
            "schema.yaml:2: found 1 labels, type class needs at least 2",
        ),
        (
            "type: class\nlabels: [yes, no]\n",
            (
                "schema.yaml:2: found the entry True in labels, expected text .yes, no and numbers"
                " in quotes"
            ),
        ),
        ("type: class\nlabels: [a, b, a]\n", "schema.yaml:2: 'a' is in labels twice"),
        (
            "type: class\nlabels: [a, b]\ncolour: red\n",
            "schema.yaml:3: the key 'colour' is unknown; expected one of type, ",
        ),
        (
            "type: class\nlabels: [a, b]\ntype: span\n",
            "schema.yaml:3: the key 'type' was given before, on line 1",
        ),
        (
            "type: class\nlabels: [a, b]\nscale: [1, 5]\n",
            "schema.yaml:3: scale does not fit type class; it fits rating",
        ),
        (
            "type: rating\nscale: [5, 1]\n",
            "schema.yaml:2: scale is .5, 1., expected the lowest and the highest",
        ),
        ("type: rating\nscale: [0, 1000000000]\n", "schema.yaml:2: scale is .*at most 101"),
        ("type: rating\n", "schema.yaml:1: scale is None"),
        ("type: relation\nlabels: [a]\n", "type relation needs at least one"),
        ("type: class\nlabels: [a, b\n", "schema.yaml:3: not YAML"),
        ("- class\n", "schema.yaml:1: found list, expected keys"),
        ("type: !!python/object/apply:os.getcwd []\n", "schema.yaml:1: not YAML"),
    ],
)
def test_a_schema_that_is_wrong_says_where(text, error, tmp_path):
    with pytest.raises(ConfigError, match=error):
        schema(text, tmp_path)


@pytest.mark.parametrize(
    ("kind", "fields", "error"),
    [
        (
            "class",
            {"label": "ugly"},
            (
                "items.jsonl:1: found the label 'ugly', which the schema does not have; it has"
                " good, bad"
            ),
        ),
        (
            "class",
            {"labels": ["good", "bad"]},
            "items.jsonl:1: found 2 answers .good, bad., expected one",
        ),
        ("rating", {"label": 6}, "found the rating 6, expected 1 to 5"),
        ("rating", {"label": 2.5}, "found the rating 2.5, expected a whole number"),
        (
            "span",
            {"spans": [{"start": 0, "end": 99, "label": "PER"}]},
            "the span from 0 to 99 is empty or leaves its text of 30 characters",
        ),
        ("span", {"spans": 3}, "found spans 3 and relations .*, expected a list"),
        (
            "span",
            {"tokens": ["Anna", 1], "tags": ["O", {}]},
            "expected two lists of text, of one length",
        ),
        (
            "span",
            {"tokens": ["Anna", "lobt"], "tags": ["O", "O"]},
            "the token 'lobt' is not in the rest of its text",
        ),
        ("span", {"tokens": ["Anna", "lebt"], "tags": ["O", "I-PER"]}, "items.jsonl:1: token 2: "),
        ("span", {"spans": ["PER"]}, "found the span 'PER', expected an object"),
        (
            "span",
            {"spans": [{"start": 0, "end": 4, "label": ["PER"]}]},
            "found the label .'PER'., which the schema does not have",
        ),
        (
            "relation",
            {"spans": [], "relations": [{"head": 0, "tail": 1, "label": "in"}]},
            "expected head and tail, the numbers of two spans",
        ),
    ],
)
def test_a_value_that_does_not_fit_says_where(kind, fields, error, tmp_path):
    with pytest.raises(DataError, match=error):
        annotation_tools.export_tasks(
            [item(**fields)], schema(KINDS[kind][0], tmp_path), "labelstudio"
        )


def test_items_and_work_that_are_ambiguous_are_refused(tmp_path):
    asked = schema(KINDS["class"][0], tmp_path)
    with pytest.raises(DataError, match=r"the id 'x1' stands at items.jsonl:1 too"):
        annotation_tools.export_tasks([item(), item()], asked, "doccano")
    with pytest.raises(DataError, match=r"missing column 'id'.*id: .null numbers the items"):
        annotation_tools.export_tasks([Row({"text": "t"}, "f", 1)], asked, "doccano")
    with pytest.raises(DataError, match="overlaps the one before it; use labelstudio"):
        spans = [{"start": 0, "end": 4, "label": "PER"}, {"start": 0, "end": 4, "label": "LOC"}]
        annotation_tools.export_tasks([item(spans=spans)], schema(SPANS, tmp_path), "conll")
    row = lambda line, **fields: Row(
        {"item": 1, "text": "t", "label": "good", **fields}, "w.jsonl", line
    )
    with pytest.raises(DataError, match=r"w.jsonl:2: 'anna' annotated item '1' before .w.jsonl:1."):
        annotation.collect([("anna", [row(1), row(2)])], asked)
    with pytest.raises(DataError, match=r"w.jsonl:2: item '1' has another text than in w.jsonl:1"):
        annotation.collect([("anna", [row(1)]), ("ben", [row(2, text="u")])], asked)
    with pytest.raises(DataError, match=r"w.jsonl:1: found no `item`"):
        annotation.collect([("anna", [row(1, item=None)])], asked)
