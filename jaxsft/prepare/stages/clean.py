"""The stage `clean`: one Unicode form, no control characters, no markup, no boilerplate."""

from __future__ import annotations

import dataclasses
import html
import re
import unicodedata
from collections.abc import Callable
from typing import ClassVar

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError
from jaxsft.extras import need
from jaxsft.prepare.stage import Report, Stage, State, choice
from jaxsft.prepare.text_columns import change_text, is_empty, pattern, unread

ROUNDS = 20
# A joiner is needed behind a letter of these scripts: Arabic and its neighbours, N'Ko to Syriac
# supplement, the Indic scripts, Tibetan, Myanmar, Khmer, Mongolian (RFC 5892, appendix A.1 and A.2,
# in short).
JOINING = (
    "\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ua840-\ua87f\ua8e0-\ua8ff\uaae0-\uabff"
    "\U00010a00-\U00010aff\U00011000-\U000117ff"
)
EMOJI = "\u00a9\u00ae\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_joiner = re.compile(
    f"(?<![{JOINING}])\u200c|(?<![{JOINING}{EMOJI}\ufe0f])\u200d|(?<=[{EMOJI}\ufe0f])\u200d(?![{EMOJI}])"
)
# A flag of a region is the black flag and letters of the tag block; elsewhere those letters are
# invisible, and may hide anything.
_tag = re.compile("(\U0001f3f4[\U000e0030-\U000e007a]{1,8}\U000e007f)|[\U000e0000-\U000e007f]")
_control = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_newline = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")

_INLINE = (
    "a abbr acronym b bdi bdo big cite code data del dfn em embed font i img input ins kbd label"
    " mark param q s samp small span strike strong sub"
)
_INLINE += " sup svg time tt u var wbr"
_BLOCK = (
    "address article aside audio base blockquote body br button canvas caption center col colgroup"
    " dd details dialog div dl dt fieldset figcaption"
)
_BLOCK += (
    " figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html iframe legend li link"
    " main map menu meta nav noscript object ol"
)
_BLOCK += (
    " optgroup option p picture pre section select source summary table tbody td template textarea"
    " tfoot th thead title tr track ul video"
)
_inline, _block = (
    re.compile(rf"</?(?:{'|'.join(names.split())})(?:[\s/][^<>]*)?>", re.I)
    for names in (_INLINE, _BLOCK)
)
_doctype = re.compile(r"<!doctype[^<>]{0,500}>", re.I)
_hidden = [
    (re.compile(open, re.I), re.compile(close, re.I))
    for open, close in [
        ("<!--", "-->"),
        (r"<script(?:\s[^<>]*)?>", r"</script\s*>"),
        (r"<style(?:\s[^<>]*)?>", r"</style\s*>"),
    ]
]
_entity = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# so that an entity escaped n times takes one round, not n
_escaped_again = re.compile(r"&(?:(?:amp|AMP|#0{0,4}38|#[xX]0{0,4}26);)+")

_url = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:https?|ftp)://|www\.)[^\s<>\"'`，。；：！？、（）《》“”]+", re.I
)
_email = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}(?![\w-])", re.ASCII
)
_calculator = re.compile(r"<<[^<>\n]{0,200}>>")

_consent = re.compile(
    r"\b(?:(?:accept|reject|manage|allow)(?: all)? cookies|cookie"
    r" (?:policy|settings|preferences|notice)|(?:uses?|using) cookies|privacy policy"
    r"|terms (?:of|and|&) (?:use|service|conditions)|all rights reserved|skip to (?:main"
    r" )?content|back to top|sign (?:in|up) (?:to|with|for)"
    r"|subscribe to (?:our|the) newsletter|share (?:on|via)"
    r" (?:facebook|twitter|x|linkedin|email)|follow us on|enable javascript)\b"
    r"|javascript (?:is|must be)|接受所有\s?cookie|隐私政策|版权所有|返回顶部",
    re.I,
)
_separator = re.compile(r"[|»›·•]")

_blank = re.compile(r"[^\S\n]+")
_gap = re.compile(r"\n{3,}")


@dataclasses.dataclass(frozen=True)
class Clean(Stage):
    """Brings text into one form and takes out what is no language: use it first, before anything
    counts, compares or splits texts.

    It works on a text column and on the turns of a chat. The defaults are safe for code,
    mathematics and markup: one Unicode form, no control characters, no white space at the ends.
    Everything else is asked for. The steps are repeated until nothing changes, so that cleaning
    twice is cleaning once: `&amp;lt;b&amp;gt;` is the tag `<b>`, and goes with html=strip. A text
    that has not settled after 20 rounds (markup nested on purpose) is dropped as "markup that does
    not settle".

    Characters that cannot be seen are removed: controls but tab and line feed, soft hyphens,
    zero-width spaces, byte-order marks, marks of direction, halves of surrogate pairs, tag
    characters. Kept is the zero-width (non-)joiner where a script needs it (behind a letter of the
    Arabic, Indic, Tibetan, Myanmar, Khmer and Mongolian blocks: RFC 5892, appendix A, in short),
    the joiner between two emoji, and the tags of a regional flag. Other line ends (CR LF, U+2028
    ...) become line feeds.

    Boilerplate: a line of at most 20 words that speaks of cookies, terms, signing up or sharing, or
    that is a bar of three or more short entries; whole lines only (the idea: Raffel et al. 2020,
    C4, section 2.2).
    """

    replayed: ClassVar[bool] = True
    slow: ClassVar[bool] = True

    fields: list[str] = option(
        [],
        "the columns that are cleaned; empty: the text column",
    )
    unicode: str = option(
        "NFC", "NFC | NFKC (also folds full-width letters, ligatures, superscripts) | none"
    )
    fix: bool = option(False, "repair mojibake, such as Ã© for é, with ftfy (the extra `text`)")
    invisible: str = option("remove", "control and zero-width characters: remove | keep")
    html: str = option(
        "keep",
        "tags and entities: keep | strip (tags that HTML has; `List<String>` and `a < b` stay)",
    )
    urls: str = option("keep", "keep | remove | token")
    url_token: str = option("<url>", "what stands for an address with urls=token")
    emails: str = option("keep", "keep | remove | token")
    email_token: str = option("<email>", "what stands for an e-mail address with emails=token")
    calculator: str = option("keep", "marks such as <<48/2=24>> of gsm8k: keep | strip")
    boilerplate: bool = option(
        False, "drop lines about cookies, terms, sharing, and bars of navigation"
    )
    patterns: list[str] = option(
        [],
        "regular expressions; a line in which one is found is dropped",
    )
    space: str = option(
        "trim",
        "trim (ends of lines and text, empty lines) | collapse (also runs of blanks, indentation) |"
        " line (all one line) | keep",
    )
    empty: str = option("drop", "rows of which a text is empty in the end: drop | keep")

    def check(self) -> None:
        if len(set(self.fields)) < len(self.fields):
            raise ConfigError(f"stages.clean.fields={list(self.fields)}: expected each column once")
        choice("clean", "unicode", self.unicode, ("NFC", "NFKC", "none"))
        choice("clean", "space", self.space, ("trim", "collapse", "line", "keep"))
        choice("clean", "empty", self.empty, ("drop", "keep"))
        choice("clean", "invisible", self.invisible, ("remove", "keep"))
        for name in ("html", "calculator"):
            choice("clean", name, getattr(self, name), ("keep", "strip"))
        for name, looks in (("urls", _url), ("emails", _email)):
            choice("clean", name, getattr(self, name), ("keep", "remove", "token"))
            if getattr(self, name) != "token":
                unread(
                    self,
                    "clean",
                    f"{name}={getattr(self, name)} puts no token in",
                    f"{name[:-1]}_token",
                )
            if looks.search(token := getattr(self, f"{name[:-1]}_token")):
                raise ConfigError(
                    f"stages.clean.{name[:-1]}_token={token}: it looks like what it stands for, so"
                    " that it would be replaced again"
                )
        if self.fix:
            need("ftfy", "stages.clean.fix=true")
        for text in self.patterns:
            pattern(text, "stages.clean.patterns")

    def row(self, row: Row, state: State, report: Report) -> Row | None:
        steps, done = self._steps, set()
        restless = False

        def clean(text: str) -> str:
            nonlocal restless
            for _ in range(ROUNDS):
                before = text
                for name, step in steps:
                    new = step(text)
                    if new != text:
                        done.add(name)
                        text = new
                if text == before:
                    return text
            restless = True
            return text

        new = row
        for name in self.fields or [self.context.text]:
            new = change_text(new, name, clean, "stages.clean.fields")
        if restless:
            report.drop(row, "markup that does not settle")
            return None
        if self.empty == "drop" and any(
            is_empty(new.fields[name]) for name in self.fields or [self.context.text]
        ):
            report.drop(row, "empty text")
            return None
        report.changed.update(done)
        return new

    @property
    def _steps(self) -> list[tuple[str, Callable[[str], str]]]:
        """Returns each step by the name under which it is counted."""
        steps: list[tuple[str, Callable[[str], str]]] = []
        if self.fix:
            steps.append(("mojibake", _ftfy))
        if self.invisible == "remove":
            steps.append(("invisible characters", _visible))
        if self.unicode != "none":
            steps.append((self.unicode, lambda text: unicodedata.normalize(self.unicode, text)))
        if self.calculator == "strip":
            steps.append(("calculator marks", lambda text: _calculator.sub("", text)))
        if self.html == "strip":
            steps.append(("html", strip_html))
        if self.urls != "keep":
            steps.append(("urls", lambda text: _url.sub(self._link, text)))
        if self.emails != "keep":
            mail = self.email_token if self.emails == "token" else ""
            steps.append(("emails", lambda text: _email.sub(lambda _: mail, text)))
        if self.boilerplate or self.patterns:
            steps.append(("boilerplate", self._lines))
        if self.space != "keep":
            steps.append(("white space", lambda text: trim(text, self.space)))
        return steps

    def _link(self, match: re.Match[str]) -> str:
        """Replaces an address; punctuation behind it ends the sentence, not the address.

        A bracket belongs to it where it was opened in it.
        """
        address = match[0].rstrip(".,;:!?)]}")
        if address.count("(") > address.count(")") and match[0][len(address) :].startswith(")"):
            address += ")"
        return (self.url_token if self.urls == "token" else "") + match[0][len(address) :]

    def _lines(self, text: str) -> str:
        patterns = [pattern(p, "stages.clean.patterns") for p in self.patterns]
        lines = text.split("\n")
        kept = [
            line
            for line in lines
            if not (self.boilerplate and is_boilerplate(line))
            and not any(p.search(line) for p in patterns)
        ]
        return text if len(kept) == len(lines) else "\n".join(kept)


def _ftfy(text: str) -> str:
    """Repairs mojibake only.

    Quotes, ligatures, widths, entities and the Unicode form are options of their own.
    """
    ftfy = need("ftfy", "stages.clean.fix=true")
    keep = {
        "unescape_html": False,
        "uncurl_quotes": False,
        "fix_latin_ligatures": False,
        "fix_character_width": False,
        "fix_line_breaks": False,
    }
    return ftfy.fix_text(
        text,
        ftfy.TextFixerConfig(
            **keep,
            remove_terminal_escapes=False,
            remove_control_chars=False,
            normalization=None,
            explain=False,
        ),
    )


def _visible(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    text = _newline.sub("\n", text)
    return _tag.sub(lambda match: match[1] or "", _joiner.sub("", _control.sub("", text)))


def strip_html(text: str) -> str:
    """Returns text without comments, scripts, tags and entities.

    A tag of a block leaves a line feed where there was none.
    """
    if "<" not in text and "&" not in text:
        return text
    for opening, closing in _hidden:
        text = _cut(text, opening, closing)
    text = _inline.sub("", _block.sub("\n", _doctype.sub("", text)))
    return _entity.sub(lambda match: html.unescape(match[0]), _escaped_again.sub("&", text))


def _cut(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    """Removes what stands between the two patterns; what is never closed stays.

    It takes time linear in the text's length.
    """
    kept, at = [], 0
    while (start := opening.search(text, at)) and (end := closing.search(text, start.end())):
        kept.append(text[at : start.start()])
        at = end.end()
    return "".join([*kept, text[at:]])


def is_boilerplate(line: str) -> bool:
    """Returns whether a line is boilerplate.

    It is a short line about cookies, terms, signing up or sharing; or a bar of at least three
    entries of at most three words.
    """
    if not line or len(line) > 300 or len(line.split()) > 20:
        return False
    entries = [entry.split() for entry in _separator.split(line)]
    return bool(_consent.search(line)) or (
        len(entries) >= 3 and all(len(entry) <= 3 for entry in entries) and any(entries)
    )


def trim(text: str, how: str) -> str:
    """Trims white space as `Clean.space` says; `trim` keeps the indentation of lines."""
    if how == "line":
        return " ".join(text.split())
    if how == "collapse":
        text = "\n".join(line.strip() for line in _blank.sub(" ", text).split("\n"))
    text = _gap.sub("\n\n", "\n".join(map(str.rstrip, text.split("\n")))).strip("\n")
    return text if "\n" in text else text.strip()
