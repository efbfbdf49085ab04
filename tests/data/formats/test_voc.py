"""PASCAL VOC: a folder or an archive, its splits, its boxes."""

import collections
import re
import zipfile

import pytest

from jaxsft.data.formats import detect, read, tree
from jaxsft.errors import DataError
from tests.realdata import real

XML = """<annotation>
  <filename>{name}.jpg</filename>
  <size><width>100</width><height>50</height><depth>3</depth></size>
{objects}
</annotation>
"""
OBJECT = """  <object>
    <name>{name}</name><truncated>{truncated}</truncated><difficult>1</difficult>
    <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
  </object>"""


def element(*corners, name="dog", truncated=0):
    return OBJECT.format(*corners, name=name, truncated=truncated)


def put(folder, files, splits=None):
    for name, objects in files.items():
        path = folder / "VOC2012" / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            objects
            if isinstance(objects, bytes)
            else XML.format(name=name, objects="\n".join(objects)).encode()
        )
    for name, lines in (splits or {}).items():
        path = folder / "VOC2012" / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
    return folder


def fields(path, quarantine=None, **options):
    return [row.fields for row in read(path, options=options, quarantine=quarantine)]


FILES = {
    "b": [element(1, 2, 41, 22), element("10.5", 2, 100, 50, name="cat", truncated=1)],
    "a": [],
    "c": [element(1, 1, 2, 2)],
}


def test_a_folder_and_an_archive(tmp_path):
    folder = put(tmp_path / "set", FILES, {"train": ["b", "a"], "dog_train": ["b  1", "a -1"]})
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    for path in (folder, tmp_path / "set.zip"):
        assert detect(tree(path)).name == "voc"
        rows = read(path)
        assert [row.where for row in rows] == [
            f"{path}/VOC2012/Annotations/{name}.xml:1" for name in "abc"
        ]
        # kept
        assert rows[0].fields == {
            "id": "a",
            "image": "a.jpg",
            "width": 100,
            "height": 50,
            "labels": [],
            "boxes": [],
        }
        assert rows[1].fields["labels"] == ["dog", "cat"]
        assert rows[1].fields["boxes"] == [
            {
                "label": "dog",
                "x": 1,
                "y": 2,
                "w": 40,
                "h": 20,
                "truncated": False,
                "difficult": True,
            },
            {
                "label": "cat",
                "x": 10.5,
                "y": 2,
                "w": 89.5,
                "h": 48,
                "truncated": True,
                "difficult": True,
            },
        ]
        assert [row["image"] for row in fields(path, split="train")] == ["b.jpg", "a.jpg"]
        assert [row["image"] for row in fields(path, split="dog_train")] == ["b.jpg"]
        with pytest.raises(
            DataError, match=r"no split 'test'; set data\.options\.split to one of dog_train, train"
        ):
            read(path, options={"split": "test"})
        assert fields(path, sample="boxes", digits=1)[2]["completion"] == "dog 0.0 0.0 0.0 0.0"
        assert len(fields(path, rows="annotation")) == 3
        # of images without captions the prompt is the text
        bare = fields(path, sample="labels", prompt="{places}", digits=1)
        assert (
            bare[1]
            == {
                "image": "b.jpg",
                "text": "0.0 0.0 0.4 0.4\n0.1 0.0 1.0 1.0",
                "labels": ["dog", "cat"],
            }
            and bare[0]["text"] == "none"
        )
        assert (
            fields(path, sample="boxes", prompt="Name {places}", digits=1)[2]["prompt"]
            == "Name 0.0 0.0 0.0 0.0"
        )
        assert fields(path, sample="labels")[0] == {"image": "a.jpg", "labels": []}


@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ((5, 5, 5, 9), "the size 0 x 4, expected a positive area"),
        ((9, 5, 5, 9), "expected a positive area"),
        ((1, 1, 101, 9), "leaves its image of 100 x 50"),
        ((-3, 1, 9, 9), "leaves its image"),
        (("x", 1, 9, 9), "no box of four numbers xmin, ymin, xmax, ymax"),
        (("nan", 1, 9, 9), "no box of four numbers"),
    ],
)
def test_a_broken_box_is_put_aside_alone(tmp_path, corners, reason):
    folder = put(tmp_path, {"a": [element(1, 1, 9, 9), element(*corners)]})
    bad = []
    rows = fields(folder, quarantine=bad.append)
    assert len(rows) == 1 and len(rows[0]["boxes"]) == 1
    assert (
        len(bad) == 1 and reason in bad[0].reason and bad[0].where.endswith("Annotations/a.xml:9")
    )
    with pytest.raises(DataError, match=r"a.xml:9: the object 'dog'"):
        read(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<annotation><size></annotation>", "broken XML"),
        (
            b'<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>',
            "a document type or an entity",
        ),
        (XML.format(name="a", objects="").encode("utf-16"), "a zero byte"),
        (b'<?xml version="1.0" encoding="martian"?><annotation/>', "broken XML"),
        (
            b"<annotation><size><width>0</width><height>5</height></size></annotation>",
            "the size is 0 x 5",
        ),
        (b"<annotation/>", "the size is None x None"),
        (b"<html/>", "found <html>"),
    ],
)
def test_a_broken_file_is_one_bad_row(tmp_path, content, reason):
    bad = []
    assert len(fields(put(tmp_path, {"a": [], "b": content}), quarantine=bad.append)) == 1
    assert len(bad) == 1 and reason in bad[0].reason and bad[0].file.endswith("b.xml")


def test_a_name_in_a_split_without_a_file(tmp_path):
    with pytest.raises(DataError, match=r"train.txt:2: 'z' has no file in Annotations"):
        read(put(tmp_path, FILES, {"train": ["a", "z"]}), options={"split": "train"})


@pytest.mark.parametrize("folder", ["annotations", "ANNOTATIONS", "Annotations", "labels", ""])
def test_folders_are_found_in_any_case_where_the_format_is_named(tmp_path, folder):
    root = tmp_path / "set" / folder
    root.mkdir(parents=True)
    (root / "cat.XML").write_text(XML.format(name="cat", objects=element(1, 2, 3, 4)))
    (row,) = read(tmp_path / "set", format="voc")
    assert row.fields["id"] == "cat" and row.fields["labels"] == ["dog"]
    assert (
        detect(tree(tmp_path / "set")).name if folder.lower() == "annotations" else "voc"
    ) == "voc"


def test_two_images_of_one_name_are_not_one(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.xml").write_text(XML.format(name="a", objects=""))
    with pytest.raises(DataError, match=r"train/a.xml: .*test/a.xml has the same name"):
        read(tmp_path, format="voc")


def test_real_archive_agrees_with_its_text():
    path = real("voc_bccd/BCCD_voc.zip")
    bad, out = [], {}
    with zipfile.ZipFile(path) as archive:
        xml = {
            name: archive.read(name).decode()
            for name in archive.namelist()
            if name.endswith(".xml")
        }
        listed = {
            s: archive.read(f"BCCD/ImageSets/Main/{s}.txt").decode().split()
            for s in ("train", "val", "trainval", "test")
        }
    rows = fields(path, quarantine=bad.append)
    # SOURCE.txt counts 368 files: 364 images and 4 lists. Two boxes are points, and stand in the
    # ledger.
    assert len(rows) == len(xml) == 364 and len(xml) + len(listed) == 368
    assert [(b.file.rsplit("/", 1)[1], b.line) for b in bad] == [
        ("BloodImage_00338.xml", 158),
        ("BloodImage_00343.xml", 50),
    ]
    out = collections.Counter(box["label"] for row in rows for box in row["boxes"])
    expected = collections.Counter(re.findall("<name>(.*?)</name>", "".join(xml.values())))
    assert out + collections.Counter(RBC=2) == expected and set(out) == {"RBC", "WBC", "Platelets"}
    for split, names in listed.items():
        assert [row["id"] for row in fields(path, quarantine=bad.append, split=split)] == names
    with pytest.raises(DataError, match=r"BloodImage_00338.xml:158: .*data.on_bad_row=quarantine"):
        read(path)
