"""Markdown: a file is a row, and its front matter becomes columns.

Front matter is YAML between `---` or TOML between `+++`.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import tomllib
from pathlib import PurePath
from typing import Any

import yaml

from jaxsft.config.option import option
from jaxsft.data.formats import html
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Source

_matter = re.compile(
    r"(---|\+\+\+)[ \t]*\r?\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
BRACKETS = 500  # [ and { in front matter


@dataclasses.dataclass(frozen=True, slots=True)
class MarkdownOptions:
    markup: bool = option(
        True,
        "false: the text as it is shown, without signs for headings, emphasis, links or code, and"
        " without images",
    )


def read(source: Source, encoding: str, options: MarkdownOptions) -> Numbered:
    """Reads `{"text", "title", "folder"}` and the fields of the front matter.

    `title` is its field, or else the first heading of level 1.

    Front matter that is broken, is no mapping, or has a field `text` or `folder`, makes the row
    `Bad`; so does a file without text.

    Raises:
      DataError: bytes that are not in the encoding.
    """
    content = source.text(encoding)
    found = _matter.match(content)
    try:
        fields = _fields(found[1], found[2]) if found else {}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        yield Bad(
            1,
            f"the front matter is broken ({' '.join(str(error).split())}); mend it, or take it out",
        )
        return
    if taken := [key for key in ("text", "folder") if key in fields]:
        yield Bad(
            1,
            f"the front matter has a field {taken[0]!r}, which is a column of its own here;"
            " rename it",
        )
        return
    body = content[found.end() if found else 0 :].strip("\r\n")
    if not body.strip():
        yield Bad(1, "there is no text")
        return
    shown, title = _shown(body)
    row = {
        "text": body if options.markup else shown,
        "title": title,
        "folder": PurePath(source.name).parent.name,
        **fields,
    }
    line = 1 + (content.count("\n", 0, found.end()) if found else 0)
    yield (line, row) if row["text"].strip() else Bad(line, "there is no text but markup")


def _fields(fence: str, matter: str) -> dict[str, Any]:
    if fence == "+++":
        fields = tomllib.loads(matter.replace("\r\n", "\n"))
    else:
        if sum(matter.count(sign) for sign in "[{") > BRACKETS:
            # the YAML parser takes minutes over some thousand nested ones
            raise ValueError(f"found more than {BRACKETS} brackets")
        if any(
            isinstance(event, yaml.AliasEvent)
            for event in yaml.parse(matter, Loader=yaml.SafeLoader)
        ):
            # a few of them can grow without measure
            raise ValueError("found an alias, *name, which is not read")
        fields = yaml.safe_load(matter)
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise ValueError(f"found a {type(fields).__name__}, expected fields such as 'title: ...'")
    return {str(key): _plain(value) for key, value in fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"found a {type(value).__name__}, which is no JSON value")


def _shown(body: str) -> tuple[str, str | None]:
    """Returns the text as a page shows it, and its first heading of level 1."""
    from markdown_it import MarkdownIt

    page = html.Page(boilerplate=True)
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(body)
    page.feed(parser.renderer.render(tokens, parser.options, {}))
    page.close()
    after = (
        tokens[i + 1]
        for i, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag == "h1"
    )
    inline = next(after, None)
    if inline is None:
        return page.text(), None
    heading = html.Page(boilerplate=True)
    heading.feed(parser.renderer.render([inline], parser.options, {}))
    heading.close()
    return page.text(), heading.text() or None


FORMAT = Format(
    "markdown",
    (".md", ".markdown"),
    read,
    "`text` and `title` of a file, its `folder`, and the fields of its front matter",
    MarkdownOptions,
    order=190,
)
