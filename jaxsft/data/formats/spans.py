"""Spans of characters in their text, shared by the formats of annotation tools.

A span is `{"start", "end", "label"}`, counted in characters (code points), `end` exclusive; a
relation `{"head", "tail", "label"}`, whose ends are positions in the row's list of spans. None in
place of a list of spans or labels says that nobody has annotated the row.
"""

from __future__ import annotations

from typing import Any


class Problem(Exception):
    """The error of one annotation, as the reason of a `Bad`.

    It has at most 500 characters, whatever it quotes.
    """

    def __init__(self, reason: str):
        super().__init__(reason if len(reason) <= 500 else f"{reason[:500]}...")


def located(text: str, start: Any, end: Any, quoted: str | None, name: str) -> tuple[int, int]:
    """Returns start and end of a span, checked against the text and the `quoted` part, if any.

    Offsets of JavaScript, which counts a character beyond U+FFFF twice, are turned into characters
    where only so the quoted part fits.

    Raises:
      Problem: the span leaves the text, is empty, or does not hold what is quoted.
    """
    if not _is_integer(start) or not _is_integer(end):
        raise Problem(f"{name} goes from {start!r} to {end!r}, expected two integers")
    if 0 <= start < end <= len(text) and (quoted is None or same(quoted, text[start:end])):
        return start, end
    if (
        quoted is not None
        and 0 <= start < end
        and (found := _from_utf16(text, start, end))
        and same(quoted, text[found[0] : found[1]])
    ):
        return found
    if not 0 <= start < end <= len(text):
        raise Problem(
            f"{name} goes from {start} to {end}, outside of its text of {len(text)} characters"
        )
    raise Problem(
        f"{name} is {quoted!r}, but the text from {start} to {end} is {text[start:end]!r}"
    )


def same(quoted: str, held: str) -> bool:
    r"""Returns whether a tool quotes what a text holds.

    The tool may show white space folded and line breaks gone, or as `\n`, as a browser or a
    form does.
    """
    return quoted == held or (isinstance(quoted, str) and _bare(quoted) == _bare(held))


def _bare(text: str) -> str:
    return "".join(text.replace("\\n", " ").replace("\u200b", "").split())


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _from_utf16(text: str, start: int, end: int) -> tuple[int, int] | None:
    units = text.encode("utf-16-le", "surrogatepass")
    if 2 * end > len(units):
        return None
    try:
        return len(units[: 2 * start].decode("utf-16-le")), len(
            units[: 2 * end].decode("utf-16-le")
        )
    except UnicodeDecodeError:  # between the halves of a character
        return None


def relation(head: Any, tail: Any, label: Any, index: dict[Any, int], name: str) -> dict[str, Any]:
    """Returns a relation between spans, by their ids.

    Raises Problem where one of them is not there.
    """
    for end in (head, tail):
        if not isinstance(end, int | str) or end not in index:
            raise Problem(f"{name} ends at {end!r}, which is no span of this text")
    return {"head": index[head], "tail": index[tail], "label": label}
