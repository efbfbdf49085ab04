"""Whatever a file holds, reading it gives rows, rows that are put aside, or one sentence: never a
traceback.
"""

import copy
import json
import random
import zipfile

import pytest

from jaxsft.data.formats import stream, write
from jaxsft.errors import DataError
from tests.data.formats.test_brat import ANN, TEXT
from tests.data.formats.test_coco import DOCUMENT
from tests.data.formats.test_json_records import SNIPS
from tests.data.formats.test_voc import XML, element

STRANGE = (
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    "x",
    [],
    [None],
    [[]],
    {},
    {"x": 1},
    float("nan"),
    float("inf"),
)
SPAN = {
    "id": "a",
    "from_name": "label",
    "type": "labels",
    "value": {"start": 0, "end": 1, "text": "a", "labels": ["X"]},
}
RELATION = {"type": "relation", "from_id": "a", "to_id": "a", "direction": "left", "labels": ["y"]}
CHOICE = {"from_name": "t", "type": "choices", "value": {"choices": ["b"]}}
LABELSTUDIO = [
    {
        "id": 1,
        "data": {"text": "abc"},
        "annotations": [{"completed_by": {"id": 1}, "result": [SPAN, RELATION, CHOICE]}],
        "predictions": [],
    }
]
ENTITY = {"id": 1, "label": "X", "start_offset": 0, "end_offset": 1}
DOCCANO = [
    {"text": "abc", "label": [[0, 1, "X"]]},
    {"text": "abc", "entities": [ENTITY], "relations": [{"from_id": 1, "to_id": 1, "type": "y"}]},
    {"text": "abc", "annotations": [{"label": 1, "user": 1, "start_offset": 0, "end_offset": 1}]},
]


def nodes(value, path=()):
    yield path
    for key in (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield from nodes(value[key], (*path, key))


def changed(value, path, by):
    """A copy with what lies at the path replaced, or taken out where `by` is ..."""
    if not path:
        return [] if by is ... else by
    value = copy.deepcopy(value)
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    if by is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = by
    return value


def consumed(path, **how):
    """How many rows and how many put aside; None where the file as a whole is refused, in one
    sentence that names it.
    """
    bad = []
    try:
        rows = sum(1 for _ in stream(path, quarantine=bad.append, **how))
    except DataError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        return None
    assert all(b.reason and "\n" not in b.reason and b.line > 0 and b.file for b in bad)
    return rows, len(bad)


@pytest.mark.parametrize(
    ("format", "document", "options"),
    [
        ("coco", DOCUMENT, {}),
        ("coco", DOCUMENT, {"sample": "boxes", "prompt": "{labels}{captions}"}),
        ("snips", json.loads(SNIPS), {}),
        ("labelstudio", LABELSTUDIO, {"take": "both"}),
        ("json", {"a": {"b": [{"c": 1}]}}, {"records": "*.b"}),
    ],
)
def test_json_documents_with_any_part_replaced(tmp_path, format, document, options):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    assert consumed(path, format=format, options=options)[1] == 0
    changes = [(at, by) for at in nodes(document) for by in (..., *STRANGE)]
    for at, by in random.Random(0).sample(changes, min(len(changes), 200)):
        path.write_text(json.dumps(changed(document, at, by)))
        consumed(path, format=format, options=options)


def test_doccano_with_any_part_replaced(tmp_path):
    path = tmp_path / "a.jsonl"
    changes = [(row, at, by) for row in DOCCANO for at in nodes(row) for by in (..., *STRANGE)]
    for row, at, by in random.Random(0).sample(changes, 250):
        path.write_text(json.dumps(changed(row, at, by)) + "\n")
        consumed(path, format="doccano")


def mutated(content: bytes, draw: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(out) + 1)
        match draw.randrange(4):
            case 0:
                out[at : at + draw.randint(1, 9)] = b""
            case 1:
                out[at:at] = draw.choice(
                    [
                        b"\t",
                        b"<",
                        b">",
                        b";",
                        b"\n",
                        b"\xff",
                        b"-1",
                        b"99999999999",
                        b"&x;",
                        b"<![if",
                        b"T1",
                        b"---\n",
                        b"\0",
                        b" ",
                    ]
                )
            case 2:
                out = out[:at] or bytearray(b"x")
            case 3:
                end = draw.randrange(at, len(out) + 1)
                out[at:at] = out[at:end][:40]
    return bytes(out)


TREES = {"brat": {"a.txt": TEXT.encode(), "a.ann": ANN.encode()}, "voc": {}}
TREES["voc"] = {
    "Annotations/a.xml": XML.format(name="a", objects=element(1, 1, 9, 9)).encode(),
    "ImageSets/Main/train.txt": b"a\n",
}


@pytest.mark.parametrize("name", TREES)
def test_text_formats_with_any_bytes_changed(tmp_path, name):
    draw = random.Random(0)
    for _ in range(120):
        path = tmp_path / "set.zip"
        chosen = draw.choice(list(TREES[name]))
        with zipfile.ZipFile(path, "w") as archive:
            for inside, content in TREES[name].items():
                archive.writestr(inside, mutated(content, draw) if inside == chosen else content)
        consumed(path, format=name, options={"split": "train"} if name == "voc" else None)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.array_record"])
def test_tables_with_any_bytes_changed(tmp_path, name):
    pytest.importorskip("pyarrow")
    draw = random.Random(1)
    write(
        [{"text": f"row {i}", "n": i, "tags": ["a"] * (i % 3)} for i in range(50)], tmp_path / name
    )
    whole = (tmp_path / name).read_bytes()
    for number in range(60):
        out = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
        (tmp_path / name).write_bytes(out if number % 3 else out[: draw.randrange(1, len(out))])
        consumed(tmp_path / name, format=name[2:])
