"""COCO: every annotation is checked, images without any are kept, and one image gives rows or
samples of text.
"""

import collections
import copy
import gzip
import json

import pytest

from jaxsft.data.formats import read
from jaxsft.errors import ConfigError, DataError
from tests.realdata import real

POINTS = ["nose", "left_eye"]
DOCUMENT = {
    "info": {"year": 2017},
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 50},
        {"id": 8, "file_name": "b.jpg", "width": 10, "height": 10},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 3,
            "bbox": [10, 5, 40, 20.5],
            "iscrowd": 0,
            "segmentation": [[1, 2]],
        },
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 100, 50], "iscrowd": 1},
        {
            "id": 3,
            "image_id": 7,
            "category_id": 3,
            "bbox": [90, 40, 10.02, 10],
            "num_keypoints": 1,
            "keypoints": [95, 45, 1, 0, 0, 0],
        },
        {"id": 4, "image_id": 7, "caption": " A cat. "},
        {"id": 5, "image_id": 7, "caption": "Two cats?"},
    ],
    "categories": [
        {"id": 1, "name": "cat"},
        {"id": 3, "name": "dining table", "keypoints": POINTS},
    ],
}


def put(path, document):
    text = (
        "{"
        + ",\n".join(
            f"{json.dumps(k)}: " + json.dumps(v).replace("}, {", "},\n{")
            for k, v in document.items()
        )
        + "}"
    )
    path.write_text(text)
    return path


def fields(path, quarantine=None, **options):
    return [row.fields for row in read(path, options=options, quarantine=quarantine)]


def test_an_image_is_a_row_with_its_boxes_captions_and_keypoints(tmp_path):
    path = put(tmp_path / "a.json", DOCUMENT)
    rows = read(path)
    assert [row.line for row in rows] == [2, 3]
    assert rows[0].fields == {
        "id": 7,
        "image": "a.jpg",
        "width": 100,
        "height": 50,
        "labels": ["dining table", "cat"],
        "boxes": [
            {"label": "dining table", "x": 10, "y": 5, "w": 40, "h": 20.5, "crowd": False},
            {"label": "cat", "x": 0, "y": 0, "w": 100, "h": 50, "crowd": True},
            {"label": "dining table", "x": 90, "y": 40, "w": 10.02, "h": 10, "crowd": False},
        ],
        "captions": ["A cat.", "Two cats?"],
        "keypoints": [
            {
                "label": "dining table",
                "points": [{"name": "nose", "x": 95, "y": 45, "visible": False}],
            }
        ],
    }
    # an image without annotations is kept
    assert rows[1].fields["boxes"] == rows[1].fields["captions"] == rows[1].fields["labels"] == []


def test_rows_by_annotation_and_by_caption_are_one_to_many(tmp_path):
    path = put(tmp_path / "a.json", DOCUMENT)
    boxes = fields(path, rows="annotation")
    assert [(row["image"], row["label"], row["w"]) for row in boxes] == [
        ("a.jpg", "dining table", 40),
        ("a.jpg", "cat", 100),
        ("a.jpg", "dining table", 10.02),
    ]
    captions = fields(path, rows="caption")
    assert [row["caption"] for row in captions] == ["A cat.", "Two cats?"] and captions[0][
        "labels"
    ] == ["dining table", "cat"]


def test_samples_of_text(tmp_path):
    path = put(tmp_path / "a.json", DOCUMENT)
    assert fields(path, sample="caption", prompt="{image} shows {labels}:") == [
        {"image": "a.jpg", "prompt": "a.jpg shows dining table, cat:", "completion": caption}
        for caption in ("A cat.", "Two cats?")
    ]
    assert fields(path, sample="labels") == [
        {"image": "a.jpg", "text": "A cat.\nTwo cats?", "labels": ["dining table", "cat"]},
        {"image": "b.jpg", "labels": []},
    ]
    assert [row["text"] for row in fields(path, sample="labels", rows="caption")] == [
        "A cat.",
        "Two cats?",
    ]
    boxes = fields(path, sample="boxes", prompt="Where? {captions}", digits=2)
    assert boxes[0]["prompt"] == "Where? A cat.\nTwo cats?" and boxes[1]["completion"] == "none"
    assert boxes[0]["completion"].split("\n") == [
        "dining table 0.10 0.10 0.50 0.51",
        "cat 0.00 0.00 1.00 1.00",
        "dining table 0.90 0.80 1.00 1.00",
    ]
    for options, part in (
        ({"rows": "box"}, "data.options.rows='box'"),
        ({"sample": "x"}, "data.options.sample='x'"),
        ({"digits": 0}, "digits=0"),
    ):
        with pytest.raises(ConfigError, match=part):
            read(path, options=options)


def changed(index, **fields):
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][index].update(fields)
    return document


BROKEN = [
    (0, {"image_id": 9}, "annotation 1: there is no image 9"),
    (0, {"image_id": None}, "expected an object with image_id"),
    (0, {"category_id": 2}, "there is no category 2"),
    (0, {"category_id": [1]}, "there is no category [1]"),
    (0, {"id": []}, "its id is no number"),
    (1, {"id": 1}, "its id occurs twice"),
    (0, {"bbox": [10, 5, 0, 20]}, "the size 0 x 20, expected a positive area"),
    (0, {"bbox": [10, 5, -4, 20]}, "expected a positive area"),
    (0, {"bbox": [90, 5, 11, 20]}, "leaves its image of 100 x 50"),
    (0, {"bbox": [-1, 5, 11, 20]}, "leaves its image"),
    (0, {"bbox": [1, 2, 3]}, "is not four numbers"),
    (0, {"bbox": [1, 2, float("nan"), 4]}, "is not four numbers"),
    (0, {"bbox": "1 2 3 4"}, "is not four numbers"),
    (2, {"keypoints": [95, 45, 1]}, "expected 3 numbers for each of 2"),
    (2, {"keypoints": [95, 60, 1, 0, 0, 0]}, "the keypoint nose at 95, 60"),
    (2, {"keypoints": [95, 45, 3, 0, 0, 0]}, "the keypoint nose"),
    (2, {"num_keypoints": 2}, "found 1 labelled keypoints, expected num_keypoints=2"),
    (2, {"category_id": 1}, "'cat' has no keypoints"),
    (3, {"caption": "  "}, "found the caption '  '"),
    (3, {"caption": None}, "found the caption None"),
]


@pytest.mark.parametrize(("index", "change", "reason"), BROKEN)
def test_a_broken_annotation_is_put_aside_alone(tmp_path, index, change, reason):
    path = put(tmp_path / "a.json", changed(index, **change))
    bad = []
    rows = fields(path, quarantine=bad.append)
    assert len(bad) == 1 and reason in bad[0].reason and bad[0].line == 4 + index, bad
    whole = fields(put(tmp_path / "b.json", DOCUMENT))
    count = lambda rows: sum(len(row["boxes"]) + len(row["captions"]) for row in rows)
    assert len(rows) == 2 and count(rows) == count(whole) - 1
    with pytest.raises(DataError, match=rf"a.json:{4 + index}: .*data.on_bad_row=quarantine"):
        read(path)


def test_broken_images_and_documents(tmp_path):
    for change, reason in (
        ({"width": 0}, "the size 0 x 50"),
        ({"height": None}, "the size 100 x None"),
        ({"file_name": 3}, "expected an object with id"),
    ):
        document = copy.deepcopy(DOCUMENT)
        document["images"][0].update(change)
        bad = []
        assert [
            row["image"]
            for row in fields(put(tmp_path / "a.json", document), quarantine=bad.append)
        ] == ["b.jpg"]
        # and nothing is said of an image that is not there
        assert reason in bad[0].reason and len(bad) == 1 + len(DOCUMENT["annotations"])
    for change, part in (
        ({"images": [DOCUMENT["images"][0]] * 2}, "the image id 7 occurs twice"),
        ({"categories": [{"id": 1}]}, "expected an object with id and name"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "category id 1 occurs twice",
        ),
    ):
        with pytest.raises(DataError, match=part):
            read(put(tmp_path / "a.json", {**DOCUMENT, **change}))
    (tmp_path / "b.json").write_text('{"annotations": []}')
    with pytest.raises(DataError, match="no list `images`"):
        read(tmp_path / "b.json", format="coco")


def test_a_second_file_over_the_same_images(tmp_path):
    objects = put(
        tmp_path / "objects.json", {**DOCUMENT, "annotations": DOCUMENT["annotations"][:3]}
    )
    captions = put(
        tmp_path / "captions.json",
        {"images": DOCUMENT["images"], "annotations": DOCUMENT["annotations"][3:]},
    )
    whole = put(tmp_path / "whole.json", DOCUMENT)
    assert fields(objects, also=[str(captions)]) == fields(whole)
    points = put(
        tmp_path / "points.json", {**DOCUMENT, "annotations": DOCUMENT["annotations"][2:3]}
    )
    both = fields(objects, also=[str(points)])[0]
    assert len(both["boxes"]) == 3  # the box of annotation 3 is in both files
    other = put(
        tmp_path / "other.json",
        {**DOCUMENT, "annotations": [{**DOCUMENT["annotations"][0], "bbox": [0, 0, 1, 1]}]},
    )
    with pytest.raises(
        DataError, match=r"other.json:4: annotation 1: another file has another box"
    ):
        fields(objects, also=[str(other)])


KINDS = {"instances": "boxes", "captions": "captions", "person_keypoints": "boxes"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_files_agree_with_the_document(kind, split):
    path = real(f"coco_mini/{kind}_{split}2017.json.gz")
    document = json.loads(gzip.decompress(path.read_bytes()))
    rows = fields(path)
    assert [row["image"] for row in rows] == [image["file_name"] for image in document["images"]]
    assert sum(len(row[KINDS[kind]]) for row in rows) == len(document["annotations"])
    names = {category["id"]: category["name"] for category in document.get("categories", [])}
    expected = collections.Counter(
        names[a["category_id"]] for a in document["annotations"] if "bbox" in a
    )
    assert collections.Counter(box["label"] for row in rows for box in row["boxes"]) == expected
    labelled = sum(a.get("num_keypoints", 0) for a in document["annotations"])
    assert sum(len(person["points"]) for row in rows for person in row["keypoints"]) == labelled


def test_real_captions_beside_real_instances():
    rows = fields(
        real("coco_mini/instances_val2017.json.gz"),
        also=[str(real("coco_mini/captions_val2017.json.gz"))],
        sample="caption",
        prompt="{labels}",
    )
    assert len(rows) == 395 and all(row["prompt"] and row["completion"] for row in rows)
    labels = fields(
        real("coco_mini/instances_val2017.json.gz"),
        also=[str(real("coco_mini/captions_val2017.json.gz"))],
        sample="labels",
    )
    assert len(labels) == 79 and all(row["text"].count("\n") >= 4 for row in labels)
