"""Files of other programs, known by their first bytes or by what an archive holds.

Each comes with what to do with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

from jaxsft.errors import DataError

EXCEL, WORD, SLIDES = (
    "an Excel workbook; save it as CSV",
    "a Word document; save it as plain text",
    "a PowerPoint file; save its text",
)
CALC, WRITER = (
    "an OpenDocument spreadsheet; save it as CSV",
    "an OpenDocument text; save it as plain text",
)
UNPACK = "; unpack it"
# The folder of an Office file's main part, and the suffix of its name.
OFFICE = {"xl": EXCEL, "word": WORD, "ppt": SLIDES}
SUFFIXES = {
    ".xls": EXCEL,
    ".xlsx": EXCEL,
    ".xlsm": EXCEL,
    ".xlsb": EXCEL,
    ".doc": WORD,
    ".docx": WORD,
    ".ppt": SLIDES,
    ".pptx": SLIDES,
}
OPEN = {".ods": CALC, ".odt": WRITER}
MAGIC = {
    b"%PDF-": "a PDF file; save its text",
    b"{\\rtf": "an RTF document; save it as plain text",
    b"SQLite format 3\0": "an SQLite database; export its table as CSV",
    b"PK\x03\x04": "an archive inside an archive or a folder; unpack it, or name it by itself",
    b"PK\x05\x06": "an empty archive",
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive{UNPACK}",
    b"Rar!\x1a\x07": f"a RAR archive{UNPACK}",
    b"BZh": f"a file packed by bzip2{UNPACK}, or pack it by gzip",
    b"\xfd7zXZ\0": f"a file packed by xz{UNPACK}, or pack it by gzip",
    b"\x28\xb5\x2f\xfd": f"a file packed by zstd{UNPACK}, or pack it by gzip",
    b"\x1f\x8b": "a file packed by gzip; give its name the ending .gz",
    b"\x93NUMPY": "an array of numpy; write its rows as JSON lines",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file; export its table as CSV",
    b"FEA1": "a Feather file of version 1; write it as version 2, or as Parquet",
    b"Obj\x01": "an Avro file; write its rows as Parquet or JSON lines",
    b"$FL2@(#)": "an SPSS file; export its table as CSV",
    b"<stata_dta>": "a Stata file; export its table as CSV",
    b"RDX2\n": "a file of R; export its table as CSV",
    b"RDX3\n": "a file of R; export its table as CSV",
    b"MATLAB 5.0 MAT-file": "a MATLAB file; export its table as CSV",
    b"\x89PNG\r\n\x1a\n": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"#FORMAT=WebAnno TSV": "WebAnno TSV of INCEpTION; export it as CoNLL 2002 or CoNLL-U",
    b'<?xml version="1.0" encoding="UTF-8"?><xmi:XMI': (
        "UIMA CAS XMI; export it as CoNLL 2002 or CoNLL-U"
    ),
}
_pickle = re.compile(rb"\x80[\x02-\x05][\x95}\]cK(q]")
_page = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+)?html[\s>]", re.IGNORECASE
)


def of_file(name: str, head: bytes) -> str | None:
    """Returns what an unreadable file is and what to do with it; None if a reader may take it."""
    suffix = PurePath(name.lower()).suffix
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return SUFFIXES.get(
            suffix, "a document of an old Office program; save it as CSV or plain text"
        )
    if head[257:262] == b"ustar":
        return f"a tar archive{UNPACK}"
    if _pickle.match(head):
        return "a pickle, which is a program and is never read; write its rows as JSON lines"
    if head.startswith(b"BZh") and head[4:10] != b"1AY&SY":
        return None
    return next((what for magic, what in MAGIC.items() if head.startswith(magic)), None)


def of_markup(name: str, head: bytes) -> str | None:
    """Returns what a page in HTML or Markdown is and what to do with it, else None.

    No format of ours is one, but `data.format=txt` reads it as it is.
    """
    suffix = PurePath(name.lower().removesuffix(".gz")).suffix
    if suffix in (".md", ".markdown"):
        return "a file in Markdown; data.format=txt data.unit=file reads it as it is"
    if suffix in (".html", ".htm", ".xhtml") or _page.match(head):
        return (
            "a web page; data.format=txt data.unit=file reads it as it is, and the stage"
            " clean with html=strip leaves its text"
        )
    return None


def of_archive(name: str, members: Iterable[str]) -> str | None:
    """Returns what a zip archive is to its user, such as a workbook; None for an archive."""
    suffix, members = PurePath(name.lower()).suffix, set(members)
    if "[Content_Types].xml" in members:
        folders = {member.partition("/")[0] for member in members}
        known = next((what for folder, what in OFFICE.items() if folder in folders), None)
        return known or SUFFIXES.get(suffix, "an Office document; save it as CSV or plain text")
    if suffix in OPEN and "mimetype" in members:
        return OPEN[suffix]
    if "META-INF/container.xml" in members:
        return "an EPUB book; save it as plain text"
    if any(member.endswith(".iwa") for member in members):
        return "a Numbers or Pages document; export it as CSV or plain text"
    if members and all(member.endswith(".npy") for member in members):
        return "arrays of numpy; write their rows as JSON lines"
    return None


def refuse(name: str, what: str | None) -> None:
    """Raises DataError where a file is of a kind that is not read."""
    if what is not None:
        raise DataError(f"{name}: found {what}")
