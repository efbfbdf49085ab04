"""HTML: the text of a page as a reader sees it, without scripts.

What stands around the content is left out, unless it is asked for.
"""

from __future__ import annotations

import codecs
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import PurePath

from jaxsft.config.option import option
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Source

UNSEEN = {
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "iframe",
    "object",
    "audio",
    "video",
    "canvas",
    "select",
    "datalist",
    "textarea",
    "button",
}
AROUND = {"nav", "aside", "form", "menu", "dialog"}
AROUND_PAGE = {"header", "footer"}  # of the page; those of an article belong to it
ROLES = {"navigation", "banner", "contentinfo", "search", "complementary", "dialog", "menu"}
CONTENT = {"article", "main", "section"}
# whose end tag may not be left out
CLOSED = {"div", "section", "article", "span", "ul", "ol", "table", *UNSEEN, *AROUND, *AROUND_PAGE}
_blocks = """
  address article aside blockquote body br caption dd details dialog div dl dt fieldset figcaption
  figure footer form h1 h2 h3 h4 h5 h6 header hr html
  li main menu nav ol option p pre search section summary table tbody tfoot thead title tr ul
"""
BLOCKS = frozenset(_blocks.split())
_space = re.compile(r"[ \t\r\n\f]+")
_charset = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_begins = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype\s+html|<html[\s>])",
    re.IGNORECASE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True, slots=True)
class HtmlOptions:
    boilerplate: bool = option(
        False, "true: keep navigation, headers and footers of the page, asides and forms"
    )


def read(source: Source, encoding: str, options: HtmlOptions) -> Numbered:
    """Reads a file as one row: `{"text", "title", "language", "folder"}`.

    A block is a line, a row of a table cells between tabs; `<pre>` keeps its spaces.

    Where the page has a `<main>`, its text is that. The characters are those that `<meta charset>`
    declares, unless `encoding` is another than utf-8. A page without text, and one with an element
    left open that hides what follows, is `Bad`.

    Raises:
      DataError: bytes that are not in the encoding.
    """
    declared = _charset.search(source.head()[:4096])
    if declared and encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = _known(declared[1].decode("ascii")) or encoding
    page = Page(options.boilerplate)
    try:
        page.feed(source.text(encoding))
        page.close()
    except AssertionError as error:  # a declaration that the standard library does not know
        yield Bad(page.getpos()[0], f"broken HTML ({error})")
        return
    if page.hidden:
        line, tag = page.hidden[0][1], page.hidden[0][0]
        yield Bad(
            line,
            f"<{tag}> is never closed, and so hides the rest of the page; close it, or set"
            " data.options.boilerplate=true if it is content",
        )
        return
    text = page.text()
    if not text:
        yield Bad(
            1,
            "there is no text outside of scripts and navigation; data.options.boilerplate=true"
            " keeps the latter",
        )
        return
    title = " ".join("".join(page.title).split()) or None
    yield (
        1,
        {
            "text": text,
            "title": title,
            "language": page.language,
            "folder": PurePath(source.name).parent.name,
        },
    )


class Page(HTMLParser):
    """A collector of lines of text.

    `hidden` are the open elements, with their lines, whose text is ignored.
    """

    def __init__(self, boilerplate: bool):
        super().__init__(convert_charrefs=True)
        self.boilerplate = boilerplate
        self.hidden: list[tuple[str, int]] = []
        self.lines: list[tuple[bool, str]] = []  # whether it stands in <main>, and its text
        self.line, self.first_cell = "", True
        self.title: list[str] = []
        self.language: str | None = None
        self.inside = dict.fromkeys((*CONTENT, "pre", "title", "head"), 0)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "html" and given.get("lang"):
            self.language = given["lang"]
        if tag not in ("html", "head", "title", "meta", "link", "base", *UNSEEN):
            self.inside["head"] = 0  # its end tag may be left out
        if self.hidden:
            if tag == self.hidden[0][0]:
                self.hidden.append((tag, self.getpos()[0]))
        elif self._hides(tag, given):
            self._break(tag)
            self.hidden.append((tag, self.getpos()[0]))
        else:
            self._break(tag)
            if tag in self.inside and (tag != "title" or self.inside["head"]):
                self.inside[tag] += 1

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._break(tag)  # <br/>, <nav/>: nothing is inside

    def handle_endtag(self, tag: str) -> None:
        if self.hidden:
            if tag == self.hidden[0][0]:
                self.hidden.pop()
            return
        if tag not in ("td", "th"):
            self._break(tag)
        if self.inside.get(tag):
            self.inside[tag] -= 1

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if self.inside["title"]:
            self.title.append(data)
        elif not self.inside["head"]:
            self._add(data)

    def _hides(self, tag: str, given: dict[str, str | None]) -> bool:
        if tag in UNSEEN:
            return True
        if tag not in CLOSED:
            return False
        if "hidden" in given or given.get("aria-hidden") == "true":
            return True
        if self.boilerplate:
            return False
        in_content = any(self.inside[name] for name in CONTENT)
        return (
            tag in AROUND or given.get("role") in ROLES or (tag in AROUND_PAGE and not in_content)
        )

    def _add(self, data: str) -> None:
        if self.inside["pre"]:
            *whole, last = data.replace("\r\n", "\n").split("\n")
            for part in whole:
                self.lines.append((bool(self.inside["main"]), (self.line + part).rstrip()))
                self.line = ""
            self.line += last
        else:
            data = _space.sub(" ", data)
            self.line += data.lstrip(" ") if not self.line or self.line[-1] in " \t" else data

    def _break(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.line = self.line.rstrip(" ") + ("" if self.first_cell else "\t")
            self.first_cell = False
        elif tag in BLOCKS:
            if self.line.strip():
                self.lines.append((bool(self.inside["main"]), self.line.rstrip()))
            self.line, self.first_cell = "", True

    def text(self) -> str:
        """Returns the text; that of <main> alone where it has any, unless boilerplate is kept."""
        self._break("html")
        main = [line for inside, line in self.lines if inside]
        return "\n".join(
            main if any(main) and not self.boilerplate else [line for _, line in self.lines]
        ).strip("\n")


def _known(charset: str) -> str | None:
    """Returns the codec of a declared charset; None for an unknown one.

    The web reads Latin-1 and ASCII as Windows-1252 (WHATWG encoding standard).
    """
    try:
        name = codecs.lookup(charset).name
    except LookupError:
        return None
    return "cp1252" if name in ("iso8859-1", "ascii") else name


def _looks_like(head: bytes) -> bool:
    return _begins.match(head) is not None


FORMAT = Format(
    "html",
    (".html", ".htm", ".xhtml"),
    read,
    "`text`, `title` and `language` of a page, and its `folder`",
    HtmlOptions,
    _looks_like,
    order=180,
)
