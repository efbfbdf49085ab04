"""COCO's annotation files: instances, captions and keypoints, one JSON document over all images.

Lin et al. 2014, arXiv:1405.0312.

Every annotation is checked; one that is broken is `Bad`, and its image keeps the others. An image
without annotations is a row all the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxsft.config.option import option
from jaxsft.data.formats import boxes, jsonl
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.errors import DataError

Lines = list[tuple[int, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class CocoOptions(boxes.ImageOptions):
    also: Sequence[str] = option(
        (), "further files over the same images: the captions beside the instances"
    )


@dataclasses.dataclass(slots=True)
class _Image:
    line: int
    fields: dict[str, Any]
    # boxes by the id of their annotation: a file of keypoints has those of the instances again
    objects: dict[Any, dict[str, Any]]
    captions: list[str]
    points: list[dict[str, Any]]


def read(source: Source, encoding: str, options: CocoOptions) -> Numbered:
    """Reads a row per image; see `boxes` for the other rows and the samples.

    `{"id", "image", "width", "height", "labels", "boxes", "captions", "keypoints"}`.

    A box has `crowd`, whether it stands for a group. `keypoints` are `{"label", "points": [{"name",
    "x", "y", "visible"}]}`, those points that are labelled; `visible` is false for a covered one.
    Outlines (`segmentation`) are left out.

    Raises:
      DataError: broken JSON; no `images`; categories without id or name, or with the same id.
    """
    images: dict[Any, _Image] = {}
    for number, part in enumerate(
        [source, *(Source(str(path), Path(path)) for path in options.also)]
    ):
        for bad in _add(part, encoding, images, first=number == 0):
            yield dataclasses.replace(bad, file=part.name)
    for image in images.values():
        found = list(image.objects.values())
        row = {
            **image.fields,
            "labels": boxes.labels(found),
            "boxes": found,
            "captions": image.captions,
            "keypoints": image.points,
        }
        yield from ((image.line, fields) for fields in boxes.shaped(row, options))


def _add(source: Source, encoding: str, images: dict[Any, _Image], first: bool) -> Iterator[Bad]:
    """Adds the annotations of a file to their images, which the first file names."""
    lists: dict[str, Lines] = {"images": [], "annotations": [], "categories": []}
    seen = set()
    for name, line, value in jsonl.top_lists(source.text(encoding), source.name):
        seen.add(name)
        if name in lists:
            if isinstance(value, dict):
                value.pop("segmentation", None)  # most of the file
            lists[name].append((line, value))
    if first and "images" not in seen:
        raise DataError(
            f"{source.name}: the document has no list `images`; expected COCO's images, annotations"
            " and categories"
        )
    for line, image in lists["images"] if first else []:
        if wrong := _image_problem(image, images):
            yield Bad(line, wrong)
        else:
            fields = {
                "id": image["id"],
                "image": image["file_name"],
                "width": image["width"],
                "height": image["height"],
            }
            images[image["id"]] = _Image(line, fields, {}, [], [])
    categories, ids = _categories(source.name, lists["categories"]), set()
    for line, annotation in lists["annotations"]:
        wrong = _annotation_problem(annotation, images, categories, ids) or _note(
            images[annotation["image_id"]], annotation, categories
        )
        if wrong:
            yield Bad(line, wrong if len(wrong) <= 500 else f"{wrong[:500]}...")
        elif annotation.get("id") is not None:
            ids.add(annotation["id"])


def _note(
    image: _Image, annotation: dict[str, Any], categories: dict[Any, dict[str, Any]]
) -> str | None:
    if "caption" in annotation:
        image.captions.append(annotation["caption"].strip())
        return None
    category = categories[annotation["category_id"]]
    if "bbox" in annotation:
        x, y, w, h = annotation["bbox"]
        box = {
            "label": category["name"],
            "x": x,
            "y": y,
            "w": w,
            "h": h,
            "crowd": bool(annotation.get("iscrowd")),
        }
        key = (
            annotation.get("id")
            if annotation.get("id") is not None
            else f"unnumbered {len(image.objects)}"
        )
        if image.objects.setdefault(key, box) != box:
            return (
                f"annotation {key!r}: another file has another box with this id; number the"
                " annotations over all files"
            )
    if "keypoints" in annotation:
        points = [
            {"name": name, "x": x, "y": y, "visible": v == 2}
            for name, x, y, v in _points(annotation, category)
            if v
        ]
        image.points += [{"label": category["name"], "points": points}] if points else []
    return None


def _points(
    annotation: dict[str, Any], category: dict[str, Any]
) -> Iterator[tuple[str, Any, Any, Any]]:
    flat = annotation["keypoints"]
    return zip(category["keypoints"], flat[::3], flat[1::3], flat[2::3], strict=True)


def _categories(file: str, found: Lines) -> dict[Any, dict[str, Any]]:
    out: dict[Any, dict[str, Any]] = {}
    for line, category in found:
        if (
            not isinstance(category, dict)
            or not isinstance(category.get("id"), int | str)
            or not isinstance(category.get("name"), str)
        ):
            raise DataError(
                f"{file}:{line}: found the category {str(category)[:80]}, expected an object with"
                " id and name"
            )
        if category["id"] in out:
            raise DataError(f"{file}:{line}: the category id {category['id']!r} occurs twice")
        out[category["id"]] = category
    return out


def _image_problem(image: Any, images: dict[Any, _Image]) -> str | None:
    if (
        not isinstance(image, dict)
        or not isinstance(image.get("id"), int | str)
        or not isinstance(image.get("file_name"), str)
    ):
        return (
            f"found the image {str(image)[:80]}, expected an object with id, file_name, width and"
            " height"
        )
    if image["id"] in images:
        return f"the image id {image['id']!r} occurs twice"
    if not all(
        isinstance(image.get(side), int) and image[side] > 0 for side in ("width", "height")
    ):
        return (
            f"the image {image['file_name']} has the size {image.get('width')} x"
            f" {image.get('height')}, expected two positive integers"
        )
    return None


def _annotation_problem(
    annotation: Any, images: dict[Any, _Image], categories: dict[Any, Any], ids: set[Any]
) -> str | None:
    if not isinstance(annotation, dict) or not isinstance(annotation.get("image_id"), int | str):
        return f"found the annotation {str(annotation)[:80]}, expected an object with image_id"
    name = f"annotation {annotation.get('id')!r}"
    if annotation["image_id"] not in images:
        return f"{name}: there is no image {annotation['image_id']!r}"
    if not isinstance(annotation.get("id"), int | str | None):
        return f"{name}: its id is no number and no text"
    if annotation.get("id") in ids:
        return f"{name}: its id occurs twice"
    if "caption" in annotation:
        whole = isinstance(annotation["caption"], str) and annotation["caption"].strip()
        return (
            None
            if whole
            else f"{name}: found the caption {annotation['caption']!r}, expected a text"
        )
    if (
        not isinstance(annotation.get("category_id"), int | str)
        or annotation["category_id"] not in categories
    ):
        return f"{name}: there is no category {annotation.get('category_id')!r}"
    if "bbox" not in annotation and "keypoints" not in annotation:
        return f"{name}: found {', '.join(annotation)}, expected bbox, keypoints or caption"
    size = images[annotation["image_id"]].fields
    if "bbox" in annotation:
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4:
            return f"{name}: the box {box!r} is not four numbers"
        if wrong := boxes.problem(*box, size["width"], size["height"]):
            return f"{name}: {wrong}"
    return (
        _points_problem(annotation, categories[annotation["category_id"]], size, name)
        if "keypoints" in annotation
        else None
    )


def _points_problem(
    annotation: dict[str, Any], category: dict[str, Any], size: dict[str, Any], name: str
) -> str | None:
    flat, names = annotation["keypoints"], category.get("keypoints")
    if not isinstance(names, list):
        return f"{name}: its category {category['name']!r} has no keypoints"
    if (
        not isinstance(flat, list)
        or len(flat) != 3 * len(names)
        or not all(isinstance(v, int | float) for v in flat)
    ):
        return (
            f"{name}: found the keypoints {str(flat)[:60]}, expected 3 numbers for each of"
            f" {len(names)}"
        )
    found = [(point, x, y, v) for point, x, y, v in _points(annotation, category) if v]
    for point, x, y, v in found:
        if v not in (1, 2) or not (0 <= x <= size["width"] and 0 <= y <= size["height"]):
            return (
                f"{name}: the keypoint {point} at {x:g}, {y:g} ({v:g}) is not inside the image of"
                f" {size['width']} x {size['height']}"
            )
    if annotation.get("num_keypoints", len(found)) != len(found):
        return (
            f"{name}: found {len(found)} labelled keypoints, expected"
            f" num_keypoints={annotation['num_keypoints']}"
        )
    return None


_begins = re.compile(rb"(\xef\xbb\xbf)?\s*\{")
_lists = re.compile(
    rb'"images"\s*:\s*\[\s*\{[^{}]*"file_name"\s*:|"annotations"\s*:\s*\[\s*\{[^{}]*"image_id"\s*:'
)


def _looks_like(head: bytes) -> bool:
    return _begins.match(head) is not None and _lists.search(head) is not None


FORMAT = Format(
    "coco",
    (),
    read,
    "an image with its size, `labels`, `boxes`, `captions` and `keypoints`; or samples of text",
    CocoOptions,
    _looks_like,
    order=120,
)
