"""Pictures, sounds and films of a conversation: parts of a content, fields beside it, and the marks
that stand for them in a text. A model of texts sees none of them, so they are an error unless
`data.columns.allow=[media]` leaves them out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft.data.records.fields import show
from jaxsft.errors import DataError

# beside the text, of a row or of a turn
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
_fields = re.compile(
    rf"(?:{'|'.join(MEDIA)}|pictures?|photos?)(?:_?(?:urls?|paths?|files?|file_?names?|bytes|base64))?",
    re.IGNORECASE,
)
_name = r"(?:image|video|audio)(?:[ _]?\d{1,3})?"
MARK = re.compile(rf"<(?:{_name}|\|{_name}\|)>\n?")
# A mark, and what is none: code, and a tag of HTML that a text is about.
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_ABOUT = re.compile(r"[\s\"'*]*(?:tag|element|attribute)s?\b", re.IGNORECASE)


def is_media(part: Mapping[str, Any]) -> bool:
    """Returns whether a part of a content is a picture, a sound or a film."""
    kind = str(part.get("type"))
    return any(kind == name or kind == f"{name}_url" or kind == f"input_{name}" for name in MEDIA)


def without_media(
    fields: Mapping[str, Any], where: str, allow: Sequence[str]
) -> tuple[dict[str, Any], bool]:
    """Returns the fields without pictures, sounds and films, and whether there were some.

    Raises DataError where `allow` does not leave them out.
    """
    media = [name for name in fields if _fields.fullmatch(name)]
    there = [name for name in media if fields[name] not in (None, "", [], {})]
    if there and "media" not in allow:
        raise DataError(
            f"{where} has {there[0]} ({show(fields[there[0]])}), which a model of texts cannot see;"
            " set data.columns.allow=[media] to leave them out, and their marks in the texts with"
            " them"
        )
    return {name: value for name, value in fields.items() if name not in media}, bool(there)


def without_marks(text: str, role: str, where: str, allow: Sequence[str]) -> str:
    """Returns a text without the marks of media that stand nowhere else in its row.

    An answer may speak of `<video>`: of it only lines of nothing but marks are meant. Raises
    DataError where `allow` has neither `media` nor `media_marks`, which keeps them as text.
    """
    if "<" not in text or "media_marks" in allow or not (found := _marks(text, role)):
        return text
    if "media" not in allow:
        mark = text[slice(*found[0])].strip()
        raise DataError(
            f"{where} has {mark}, which stands for something that a model of texts cannot see; set"
            " data.columns.allow=[media] to leave such marks out, or [media_marks] to keep them as"
            " text"
        )
    for start, end in reversed(found):
        text = text[:start] + text[end:]
    return text


def _marks(text: str, role: str) -> list[tuple[int, int]]:
    code = [match.span() for match in _CODE.finditer(text)]
    found = []
    for match in MARK.finditer(text):
        start, end = match.span()
        line = text[text.rfind("\n", 0, start) + 1 :].partition("\n")[0]
        if not (
            any(a <= start < b for a, b in code)
            or f"</{match.group().strip()[1:-1]}>" in text
            or _ABOUT.match(text, end)
            or (role == "assistant" and MARK.sub("", line).strip())
        ):
            found.append((start, end))
    return found
