"""fastText's lines with their labels in front: `__label__sport The match began late`.

Joulin et al. 2017; or `NUM:date When was it ?`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from jaxsft.config.option import option
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Source

MARK = "__label__"


@dataclasses.dataclass(frozen=True, slots=True)
class FasttextOptions:
    prefix: str = option(
        MARK, "what a label begins with; none: the first word of each line is its label"
    )


def read(source: Source, encoding: str, options: FasttextOptions) -> Numbered:
    """Reads `{"text", "labels"}` of each line.

    Labels are the words in front that begin with the prefix, without it; the text is what is
    left. Empty lines are no rows.

    A line without a label or without a text is `Bad`, and so is a label behind the text.
    """
    none = options.prefix.lower() in ("none", "")
    for found in source.lines(encoding):
        if isinstance(found, Bad):
            yield found
        elif found[1].strip():
            yield _row(*found, None if none else options.prefix)


def _row(number: int, line: str, prefix: str | None) -> tuple[int, dict[str, Any]] | Bad:
    labels, rest = [], line.strip()
    while rest and (prefix is None or rest.startswith(prefix)) and not (prefix is None and labels):
        word, *behind = rest.split(maxsplit=1)
        labels.append(word.removeprefix(prefix or ""))
        rest = behind[0] if behind else ""
    if not labels or not all(labels):
        return Bad(
            number,
            f"found {line[:60]!r}, expected {prefix or ''}LABEL at its beginning;"
            " data.options.prefix=none takes the first word",
        )
    if not rest:
        return Bad(number, f"found the label {labels[0][:40]!r} and no text behind it")
    if prefix is not None and re.search(rf"(?:^|\s){re.escape(prefix)}", rest):
        return Bad(
            number,
            f"found a label behind the text, {rest[rest.index(prefix) :][:40]!r}, expected all"
            " labels in front of it",
        )
    return number, {"text": rest, "labels": labels}


def _looks_like(head: bytes) -> bool:
    """Returns whether nearly every line begins with a label as fastText writes it."""
    lines = [line for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n")[:200] if line.strip()]
    lines = lines[:-1] if len(lines) > 1 else lines
    return bool(lines) and sum(
        line.lstrip().startswith(MARK.encode()) for line in lines
    ) > 0.9 * len(lines)


FORMAT = Format(
    "fasttext",
    (".ft",),
    read,
    "`text` and `labels` of a line that begins with labels, `__label__sport`",
    FasttextOptions,
    looks_like=_looks_like,
    order=170,
)
