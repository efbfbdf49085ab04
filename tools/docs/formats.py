"""docs/formats.md: every file format that `jaxsft.data.formats.FORMATS` has: its files, its rows,
its options, and what its reader says of itself.
"""

from __future__ import annotations

import inspect
import re

from jaxsft.data.formats import FORMATS, GENERIC, Format
from tools.docs import options

# options of `data` itself; the last are those that the task wants
ASKED = ("header", "unit", "columns")

# Family -> its formats, and what is true of all of them. A format that is in none stands under the
# last heading.
FAMILIES: dict[str, tuple[tuple[str, ...], str]] = {
    "Text and tables": (
        ("jsonl", "json", "csv", "tsv", "txt", "fasttext", "markdown", "html"),
        (
            "Lines end with LF or CR LF; a form feed or U+2028 inside a line is a character of it."
            " A quote in a TSV file is a character too, unless all its cells are written with"
            " quotes as spreadsheets and pandas do. `data.unit=line|paragraph|file` is about text,"
            " `data.header=auto|true|false` about tables. A workbook must be saved as CSV. UTF-16"
            " with a byte-order mark needs `data.encoding=utf-16`.\n\n    data.train=export.csv"
            " data.options.separator=semicolon\n    data.train=export.tsv data.options.quotes=true"
        ),
    ),
    "Columns of tokens": (
        ("conll", "conllu"),
        (
            "A sentence is a row, its columns are lists. An empty line parts sentences; so does one"
            " that holds only tabs and spaces. `-DOCSTART-` begins a document. What a file does"
            " differently from others is told from its beginning: the separator, a header, ids"
            " before the tokens, the column of the tags and their scheme; each has an option for a"
            " file that is told wrongly. With tabs a token may hold spaces.\n\n   "
            " data.train=wnut17/wnut17train.conll.gz\n    data.train=hipe2022_ajmc/de/train.tsv.gz"
            " data.options.tags=NE-FINE-LIT data.options.invalid=repair\n\nA line that does not fit"
            " makes its sentence a bad row, and reading goes on behind it. Tags that cannot follow"
            " each other are bad rows too: of real corpora one sentence in the German part of HIPE"
            " 2022, an `I-scope` behind an `I-work`. `invalid=repair` reads such tags as the"
            " conlleval script does. `to=iob2` converts on the way; from Python,"
            " `jaxsft.data.schemes` converts between IOB1, IOB2, IOBES (BIOES), BILOU, BMES, BMESO"
            " and spans, and counts what is invalid.\n\nIn CoNLL-U ids count up from 1, and ranges"
            " and empty nodes stand at their place; that the heads are a tree, with one root and no"
            " circle, is checked by `task=parse`. What was read is written back byte for byte."
        ),
    ),
    "Treebanks in brackets": (
        ("ptb", "pos"),
        (
            "The Penn Treebank's own two layouts. A tree goes over as many lines as it likes; the"
            " banner of the files (`*x*`) is skipped. A tree whose brackets do not close ends where"
            " the next one begins. Tokens keep their escapes (`-LRB-`, `\\/`) unless"
            " `escapes=unescape`."
        ),
    ),
    "Parallel texts": (
        ("aligned",),
        (
            "Two files whose lines belong together, and perhaps word alignments in Pharaoh's form"
            " (`0-0 1-2`, with scores `0-0-0.98`, possible links `0p1`):\n\n   "
            " data.train=corpus.de data.format=aligned data.options.target=corpus.en"
            " data.options.alignment=corpus.align\n\nor one file of lines `source ||| target`,"
            " perhaps `||| 0-0 1-2`; or files that are columns of a row, such as words, tags and"
            " intents:\n\n    task=joint data.train=train/seq.in data.format=aligned"
            " 'data.options.files={tags:seq.out,label:label}'\n\nFiles of different length are an"
            " error that names both. Two CoNLL-U treebanks of the same sentences are paired by"
            " their ids:\n\n    data.train=en_pud-ud-test.conllu.gz data.format=aligned"
            " data.options.target=de_pud-ud-test.conllu.gz data.options.pair=sent_id\n\nWith"
            " `data.options.alignment` beside them, a line of links for each pair,"
            " `data.options.project=upos` gives the words of the target the tags of the words that"
            " they are linked to. `python -m tools.align` makes such links where there are none."
        ),
    ),
    "Annotation tools": (
        ("labelstudio", "doccano", "brat", "snips", "squad"),
        (
            "Spans are `{start, end, label}` in characters of `text`; one that leaves its text is a"
            " bad row."
        ),
    ),
    "Images": (
        ("coco", "voc"),
        (
            "Images become samples of text: what is in them, their captions, their boxes. Boxes are"
            " checked: inside the image, with an area, of a known category."
        ),
    ),
    "Binary tables": (
        ("parquet", "arrow", "array_record", "tfds"),
        (
            'Parquet and Arrow need `pip install -e ".[parquet]"`. Data sets of TensorFlow Datasets'
            " are read without TensorFlow, also as `data.train=tfds:name/config:split`."
        ),
    ),
}


def page() -> str:
    out = [
        "# File formats",
        "",
        (
            "Written by `tools/docs/formats.py` from `jaxsft/data/formats/`; `make docs` writes it"
            " again. What becomes of the rows: [Data](data.md)."
        ),
        "",
        (
            "The format of a file is told from its beginning, whatever it is called, and else from"
            " its suffix (also with `.gz`); `data.format=<format>` decides."
            " `data.options.<name>=<value>` are the options of a format. Files are read as a"
            " stream, in folders and `.zip` archives too. Every line of a file becomes part of a"
            " row or of a bad row, which names file and line: `data.on_bad_row=error|quarantine`."
            " `jaxsft.data.formats.write` writes the formats that have a tick below; what would not"
            " be read back as it is, is refused."
        ),
        "",
        "| format | files | told by content | written | a row |",
        "|---|---|---|---|---|",
        *(_summary(kind) for kind in FORMATS.values()),
        "",
    ]
    placed = {name for names, _ in FAMILIES.values() for name in names}
    others = tuple(name for name in FORMATS if name not in placed)
    for title, (names, about) in {
        **FAMILIES,
        **({"Others": (others, "")} if others else {}),
    }.items():
        kinds = [FORMATS[name] for name in names if name in FORMATS]
        if kinds:
            out += [
                f"## {title}",
                "",
                *([about, ""] if about else []),
                *(line for kind in kinds for line in _section(kind)),
            ]
    return "\n".join(out).rstrip() + "\n"


def _summary(kind: Format) -> str:
    files = " ".join(f"`{suffix}`" for suffix in kind.suffixes) or (
        "a folder or archive" if kind.tree else "any"
    )
    told = (
        ""
        if kind.looks_like is None
        else "where the suffix is unknown"
        if kind.name in GENERIC
        else "yes"
    )
    return (
        f"| [{kind.name}](#{kind.name}) | {files} | {told} | {'✓' if kind.write else ''} |"
        f" {options._cell(kind.rows)} |"
    )


def _section(kind: Format) -> list[str]:
    about = _about(kind)
    rows = options.items(kind.options, skip=ASKED, prefix="data.options.")
    rows = [row.replace("| `` |", "| none |") for row in rows]
    asked = [f"`data.{name}`" for name in ASKED[:2] if name in kind.options.__dataclass_fields__]
    out = [f"### {kind.name}", "", *([about, ""] if about else [f"A row: {kind.rows}.", ""])]
    out += [*rows, ""] if len(rows) > 2 else []
    return out + ([f"Options of all such files: {', '.join(asked)}.", ""] if asked else [])


def _about(kind: Format) -> str:
    """What the reader's docstring says before it comes to errors."""
    doc = inspect.getdoc(kind.read) or ""
    return re.split(r"\n+(?:Args|Raises|Yields|Returns):", doc)[0].strip()
