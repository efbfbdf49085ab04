"""PASCAL VOC: a folder or archive with Annotations/*.xml and ImageSets/Main/*.txt.

Everingham et al. 2010, doi:10.1007/s11263-009-0275-4.

Corners are kept as the file has them (VOC counts pixels from 1): x = xmin, w = xmax - xmin. An
image without objects is a row all the same.
"""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from jaxsft.config.option import option
from jaxsft.data.formats import boxes
from jaxsft.data.formats.row import Bad, Format, Numbered, Row, plain_number
from jaxsft.data.formats.source import Source, Tree
from jaxsft.errors import DataError

XML, SETS = "*Annotations/*.xml", "*ImageSets/Main/*.txt"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_object = re.compile(rb"<object\b")


@dataclasses.dataclass(frozen=True, slots=True)
class VocOptions(boxes.ImageOptions):
    split: str = option(
        "", "the name of a file in ImageSets/Main, such as train; empty: all images"
    )


def read(tree: Tree, encoding: str, options: VocOptions) -> Numbered:
    """Reads a row per image: `{"id", "image", "width", "height", "labels", "boxes"}`.

    They come in the order of the split, or of the names; see `boxes` for the other rows.

    A box has `truncated` and `difficult` too. An object that is broken is `Bad`, and its image
    keeps the others; so is an image whose file is broken (no XML, a document type or entities, no
    size), and a name in the split that has no file.

    Raises:
      DataError: no annotations; no such split (they are listed).
    """
    files: dict[str, Source] = {}
    for source in tree.match(XML) or tree.match("*.xml"):
        if (before := files.setdefault(PurePosixPath(source.name).stem, source)) is not source:
            raise DataError(
                f"{source.name}: {before.name} has the same name, and a split names images by it;"
                " name one of their folders"
            )
    if not files:
        raise DataError(f"{tree.name}: there is no file {XML}; expected the folders of PASCAL VOC")
    for where, line, stem in (
        _split(tree, encoding, options.split)
        if options.split
        else (("", 0, stem) for stem in files)
    ):
        if stem not in files:
            yield Bad(line, f"{stem!r} has no file in Annotations", where)
            continue
        source = files[stem]
        try:
            row, bad = _image(source, stem)
        except _Broken as error:
            yield Bad(error.line, str(error), source.name)
            continue
        yield from bad
        yield from (Row(fields, source.name, 1) for fields in boxes.shaped(row, options))


def _split(tree: Tree, encoding: str, split: str) -> Iterator[tuple[str, int, str]]:
    """Yields file, line and image of each line of a split.

    In lists by class, `name 1`, those with -1 are not in it.
    """
    found = {PurePosixPath(source.name).stem: source for source in tree.match(SETS)}
    if split not in found:
        raise DataError(
            f"{tree.name}: there is no split {split!r}; set data.options.split to one of"
            f" {', '.join(found) or 'none: there are none'}"
        )
    for line in found[split].lines(encoding):
        if isinstance(line, Bad):
            raise DataError(f"{line.where}: {line.reason}")
        words = line[1].split()
        if words and words[1:] != ["-1"]:
            yield found[split].name, line[0], words[0]


class _Broken(Exception):
    def __init__(self, line: int, what: str):
        super().__init__(what)
        self.line = line


def _image(source: Source, stem: str) -> tuple[dict[str, Any], list[Bad]]:
    with source.open() as file:
        content = file.read()
    root = _parsed(content)
    if root.tag != "annotation":
        raise _Broken(1, f"found <{root.tag[:40]}>, expected <annotation>")
    width, height = (_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    if not width or not height or width < 0 or height < 0 or width % 1 or height % 1:
        found = " x ".join(str(root.findtext(f"size/{side}"))[:40] for side in ("width", "height"))
        raise _Broken(1, f"the size is {found}, expected two positive integers")
    found, bad = [], []
    objects = root.findall("object")
    lines = [content.count(b"\n", 0, match.start()) + 1 for match in _object.finditer(content)]
    lines = lines if len(lines) == len(objects) else [1] * len(objects)  # one stands in a comment
    for line, element in zip(lines, objects, strict=True):
        box = _box(element, width, height)
        bad += [Bad(line, box, source.name)] if isinstance(box, str) else []
        found += [] if isinstance(box, str) else [box]
    name = (root.findtext("filename") or stem).strip()
    row = {
        "id": stem,
        "image": name,
        "width": int(width),
        "height": int(height),
        "labels": boxes.labels(found),
        "boxes": found,
    }
    return row, bad


def _parsed(content: bytes) -> ElementTree.Element:
    if b"\0" in content:
        raise _Broken(
            1, "found a zero byte, expected XML in UTF-8 or another encoding of single bytes"
        )
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise _Broken(1, "found a document type or an entity, which is not read; take it out")
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise _Broken(error.position[0], f"broken XML ({error})") from None
    except (ValueError, LookupError) as error:  # an encoding that does not exist
        raise _Broken(1, f"broken XML ({error})") from None


def _box(element: ElementTree.Element, width: float, height: float) -> dict[str, Any] | str:
    """Returns the box of an object, or what is wrong with it."""
    name = (element.findtext("name") or "").strip()
    if len(name) > 200:
        return f"an object has a name of {len(name)} characters, expected a label"
    if not name:
        return "an object has no name"
    corners = [_number(element.findtext(f"bndbox/{corner}")) for corner in CORNERS]
    if None in corners:
        return f"the object {name!r} has no box of four numbers {', '.join(CORNERS)}"
    x, y, x_end, y_end = (int(v) if v % 1 == 0 else v for v in corners)
    if wrong := boxes.problem(x, y, x_end - x, y_end - y, width, height):
        return f"the object {name!r}: {wrong}"
    flags = {
        flag: (element.findtext(flag) or "0").strip() == "1" for flag in ("truncated", "difficult")
    }
    return {"label": name, "x": x, "y": y, "w": x_end - x, "h": y_end - y, **flags}


def _number(text: str | None) -> float | None:
    value = plain_number(text or "")
    return value if value is not None and abs(value) < 1e9 else None


def _is_voc(tree: Tree) -> bool:
    found = tree.match(XML)
    if not found:
        return False
    head = found[0].head()
    return b"<annotation" in head and b"<size" in head


FORMAT = Format(
    "voc",
    (),
    read,
    "an image with its size, `labels` and `boxes` (truncated, difficult); or samples of text",
    VocOptions,
    _is_voc,
    tree=True,
    order=20,
)
