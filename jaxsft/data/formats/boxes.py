"""Rows of images with boxes, for COCO and VOC: the check of a box, and text samples of them.

A row of an image is `{"image", "width", "height", "labels", "boxes", "captions", ...}`, sizes in
pixels; a box is `{"label", "x", "y", "w", "h"}`, its upper left corner at x, y. `labels` has each
label of a box once, in the order of the boxes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from jaxsft.config.option import option
from jaxsft.errors import ConfigError

ROWS = ("image", "annotation", "caption")
SAMPLES = ("", "caption", "labels", "boxes")
EDGE = 0.02  # pixels that a box may stand out: the files round coordinates to two digits
ASK = "Describe the image."
NOTHING = "none"  # the text of no boxes


@dataclasses.dataclass(frozen=True, slots=True)
class ImageOptions:
    rows: str = option("image", "image | annotation (a row per box) | caption (a row per caption)")
    sample: str = option(
        "",
        "caption: prompt -> caption | labels: captions, or prompt -> labels | boxes: prompt ->"
        " boxes | empty: rows as they are",
    )
    prompt: str = option(
        ASK,
        "of samples; {labels}, {boxes}, {places} (boxes without labels), {captions}, {image} stand"
        " for what the image has",
    )
    digits: int = option(3, "of a coordinate in a text, where 0 to 1 spans the image")

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise ConfigError(
                f"data.options.rows={self.rows!r} is unknown; expected one of {', '.join(ROWS)}"
            )
        if self.sample not in SAMPLES:
            raise ConfigError(
                f"data.options.sample={self.sample!r} is unknown; expected"
                f" {', '.join(SAMPLES[1:])}, or nothing"
            )
        if self.digits < 1:
            raise ConfigError(f"data.options.digits={self.digits}: expected at least 1")


def problem(x: float, y: float, w: float, h: float, width: float, height: float) -> str | None:
    """Returns what is wrong with a box in an image, in half a sentence; None if nothing is."""
    if not all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
        for v in (x, y, w, h)
    ):
        return f"the box {[x, y, w, h]} is not four numbers"
    if w <= 0 or h <= 0:
        return f"the box has the size {w:g} x {h:g}, expected a positive area"
    if x < -EDGE or y < -EDGE or x + w > width + EDGE or y + h > height + EDGE:
        return (
            f"the box from {x:g}, {y:g} to {x + w:g}, {y + h:g} leaves its image of {width:g} x"
            f" {height:g}"
        )
    return None


def labels(boxes: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(box["label"] for box in boxes))


def as_text(row: dict[str, Any], digits: int, named: bool = True) -> str:
    """Formats the boxes as text, one line each: label (where they are `named`) and corners.

    The corners are left, top, right and bottom, each as the part of the image's width or height
    (0 to 1) that lies before it.
    """
    lines = []
    for box in row["boxes"]:
        corners = (box["x"] / row["width"], box["y"] / row["height"])
        corners += ((box["x"] + box["w"]) / row["width"], (box["y"] + box["h"]) / row["height"])
        label = [box["label"]] if named else []
        lines.append(
            " ".join([*label, *(f"{min(max(part, 0.0), 1.0):.{digits}f}" for part in corners)])
        )
    return "\n".join(lines) or NOTHING


def shaped(row: dict[str, Any], options: ImageOptions) -> Iterator[dict[str, Any]]:
    """Yields the rows, or the samples, of one image.

    caption: `{"image", "prompt", "completion"}` per caption; boxes: the same per image, whose
    completion are the boxes as text; labels: `{"image", "text", "labels"}` per image, or per
    caption with rows=caption; with a prompt of one's own that is the text, and else without
    captions there is none.
    """
    captions = row.get("captions") or []
    if options.sample == "caption":
        yield from (
            {"image": row["image"], "prompt": _prompt(row, options), "completion": caption}
            for caption in captions
        )
    elif options.sample == "boxes":
        yield {
            "image": row["image"],
            "prompt": _prompt(row, options),
            "completion": as_text(row, options.digits),
        }
    elif options.sample == "labels":
        texts = captions if options.rows == "caption" or not captions else ["\n".join(captions)]
        texts = texts if options.prompt == ASK else [_prompt(row, options)]
        yield from (
            {"image": row["image"], "text": text, "labels": row["labels"]} for text in texts
        )
        if not texts and options.rows == "image":
            yield {"image": row["image"], "labels": row["labels"]}
    elif options.rows == "image":
        yield row
    else:
        about = {key: row[key] for key in ("id", "image", "width", "height") if key in row}
        if options.rows == "caption":
            yield from (
                {**about, "caption": caption, "labels": row["labels"]} for caption in captions
            )
        else:
            yield from ({**about, **box} for box in row["boxes"])


def _prompt(row: dict[str, Any], options: ImageOptions) -> str:
    values = {
        "{labels}": lambda: ", ".join(row["labels"]) or NOTHING,
        "{boxes}": lambda: as_text(row, options.digits),
        "{places}": lambda: as_text(row, options.digits, named=False),
        "{captions}": lambda: "\n".join(row.get("captions") or []),
        "{image}": lambda: row["image"],
    }
    out = options.prompt
    for name, value in values.items():
        out = out.replace(name, value()) if name in out else out
    return out
