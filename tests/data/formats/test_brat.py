import zipfile

import pytest

from jaxsft.data.formats import detect, read, tree
from jaxsft.errors import DataError

TEXT = "North and South\nAmerica 🙂 beat Ada Lovelace.\n"
ANN = """E1\tBeat:T3 Winner:T1 Loser:T4
T1\tLoc 0 5;16 23\tNorth America
T2\tLoc 10 23\tSouth America
T3\tVerb 26 30\tbeat
T4\tPer 31 43\tAda Lovelace
R1\tNear Arg1:T1 Arg2:T2
A1\tNegated E1
A2\tSurety E1 high
M1\tOld T1
*\tEquiv T1 T2
N1\tReference T4 Wikipedia:974\tAda Lovelace
#1\tAnnotatorNotes T1\tcheck\tthis

"""


def put(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    return folder


def fields(path, quarantine=None, **options):
    return [row.fields for row in read(path, options=options, quarantine=quarantine)]


def test_every_kind_of_line(tmp_path):
    folder = put(
        tmp_path / "set",
        eva__a_txt=TEXT,
        eva__a_ann=ANN,
        b_txt="nothing here",
        b_ann="",
        c_txt="not seen",
        readme_md="# x",
    )
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    for path in (folder, tmp_path / "set.zip"):
        assert detect(tree(path)).name == "brat"
        b, c, a = read(path)
        assert a.where == f"{path}/eva/a.txt:1"
        assert a.fields == {
            "id": "a",
            "folder": "eva",
            "text": TEXT,
            "spans": [
                {"start": 0, "end": 23, "label": "Loc", "parts": [[0, 5], [16, 23]]},
                {"start": 10, "end": 23, "label": "Loc"},
                {"start": 26, "end": 30, "label": "Verb"},
                {"start": 31, "end": 43, "label": "Per"},
            ],
            "relations": [{"head": 0, "tail": 1, "label": "Near"}],
            "events": [
                {
                    "id": "E1",
                    "label": "Beat",
                    "trigger": 2,
                    "arguments": [{"role": "Winner", "target": 0}, {"role": "Loser", "target": 3}],
                }
            ],
            "attributes": [
                {"label": "Negated", "target": "E1", "value": True},
                {"label": "Surety", "target": "E1", "value": "high"},
                {"label": "Old", "target": 0, "value": True},
            ],
            "equivalences": [[0, 1]],
            "normalizations": [{"target": 3, "reference": "Wikipedia:974", "text": "Ada Lovelace"}],
            "notes": [{"label": "AnnotatorNotes", "target": 0, "text": "check\tthis"}],
        }
        # nothing to mark, and nobody has looked
        assert b.fields["spans"] == [] and c.fields["spans"] is None
        assert fields(path, annotators=True)[2]["annotator"] == "eva"


@pytest.mark.parametrize(
    ("lines", "reasons"),
    [
        ("T9\tPer 0 99\tx", ["T9 goes from 0 to 99, outside of its text of 45 characters"]),
        ("T9\tPer 0 5\tSouth", ["T9 is 'South', but the text at 0 5 is 'North'"]),
        ("T9\tPer 5 0\tx", ["outside of its text"]),
        ("T9\tPer 10 15;0 5\tSouth North", ["out of order"]),
        ("T9\tPer zero 5\tNorth", ["T9 has the offsets 'zero 5'"]),
        ("T1\tPer 0 5\tNorth", ["T1 occurs twice"]),
        ("R9\tNear Arg1:T1 Arg2:T8", ["R9 points to 'T8'"]),
        ("R9\tNear T1 T2", ["R9 is 'Near T1 T2', expected a label and two"]),
        ("E8\tBeat:T9", ["E8 has the trigger 'T9'"]),
        # and what points to it
        ("E7\tBeat:T3 Cause:E8\nE8\tBeat:T9", ["E8 has the trigger 'T9'", "E7 points to 'E8'"]),
        ("A9\tNegated E8", ["A9 points to 'E8'"]),
        ("N9\tReference T8 x:1\tx", ["N9 points to 'T8'"]),
        ("what is this", ["found 'what is this', expected a line of brat"]),
        ("Z1\tPer 0 5\tNorth", ["expected a line of brat"]),
    ],
)
def test_a_broken_line_is_put_aside_alone(tmp_path, lines, reasons):
    bad = []
    whole = fields(put(tmp_path / "whole", a_txt=TEXT, a_ann=ANN))
    assert (
        fields(put(tmp_path / "set", a_txt=TEXT, a_ann=ANN + lines), quarantine=bad.append) == whole
    )
    assert len(bad) == len(reasons)
    for found, reason in zip(bad, reasons, strict=True):
        assert (
            reason in found.reason and found.file.endswith("a.ann") and found.line > ANN.count("\n")
        )
    with pytest.raises(DataError, match=r"a.ann:\d+: .*data.on_bad_row=quarantine"):
        read(tmp_path / "set")


def test_an_ann_without_its_text(tmp_path):
    with pytest.raises(DataError, match=r"b.ann:1: there is no .txt of this name"):
        read(put(tmp_path, a_txt="x", a_ann="", b_ann=""))
    with pytest.raises(DataError, match=r"there is no .txt file"):
        read(put(tmp_path / "only", a_ann=""), format="brat")
