"""Reads damaged files of every format, and tells where a reader does not do what it promises.

python -m tools.fuzz [files=1000] [seed=0] [format=all]

A reader raises DataError or ConfigError in one sentence, or yields rows and Bads: no other
exception, no hang. Where bad rows are put aside, rows and bad rows together account for every line
that is not empty (`accounted`). A file follows from seed and number, so a failure is repeated by
them.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxsft.data import formats
from jaxsft.data.formats import Bad, Row
from jaxsft.errors import ConfigError, DataError

SECONDS = 10  # longer is a hang
LONGEST = 2000  # characters of an error; what it quotes is cut
CONLLU = (
    "# sent_id = a\n# text = don't é\n1-2\tdon't"
    + "\t_" * 8
    + "\n1\tdo\tdo\tAUX\tVB\tMood=Imp|X=y\t2\taux\t_\tA=b\n2\tn't\tnot\tPART"
    + "\t_" * 2
)
CONLLU += (
    "\t0\troot\t_\t_\n2.1\tx" + "\t_" * 8 + "\n\n1\tok é" + "\t_" * 4 + "\t0" + "\t_" * 3 + "\n\n"
)

BOX = (
    "<object><name>dog</name><truncated>0</truncated><bndbox><xmin>1</xmin><ymin>1</ymin>"
    "<xmax>9</xmax><ymax>9</ymax></bndbox></object>"
)
IMAGE = (
    "<annotation><filename>a.jpg</filename><size><width>20</width><height>10</height>"
    f"<depth>3</depth></size>{BOX}</annotation>"
)
COCO = (
    '{"images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}],\n "annotations":'
    ' [\n{"id": 1, "image_id": 7, "category_id": 3, '
)
COCO += (
    '"bbox": [10, 5, 40, 20.5], "iscrowd": 0, "num_keypoints": 1, "keypoints": [9, 4, 1]},\n{"id":'
    ' 4, "image_id": 7, "caption": "é"}],\n '
)
COCO += '"categories": [{"id": 3, "name": "cat", "keypoints": ["x"], "skeleton": [[1, 1]]}]}'
STUDIO = (
    '[{"id": 1, "data": {"text": "abé"}, "annotations": [{"id": 2, "completed_by": 1, "result":'
    ' [{"id": "a", "from_name": "l", "type": "labels", '
)
STUDIO += (
    '"value": {"start": 0, "end": 1, "text": "a", "labels": ["X"]}}, {"from_name": "t", "type":'
    ' "choices", "value": {"choices": ["b"]}}]}]}]'
)

SQUAD = (
    '{"data": [{"title": "t", "paragraphs": [{"context": "abé", "qas": [{"id": "1", "question":'
    ' "q",\n '
)
SQUAD += (
    '"answers": [{"text": "a", "answer_start": 0}], "is_impossible": false}, {"question": "é",'
    ' "answers": [], "is_impossible": true}]}]}]}'
)

# Format -> (file name, content, options that a user could give); a dict of files for what is a
# folder or an archive.
SEEDS: dict[str, list[tuple[str, str | dict[str, str], dict[str, str]]]] = {
    "voc": [
        (
            "voc",
            {
                "VOC/Annotations/a.xml": IMAGE,
                "VOC/ImageSets/Main/train.txt": "a\n",
                "VOC/ImageSets/Main/val.txt": "a\n",
            },
            {"split": "train"},
        )
    ],
    "brat": [
        (
            "brat",
            {
                "a.txt": "Rome is in Itály.\n",
                "a.ann": (
                    "T1\tLoc 0 4\tRome\nT2\tLoc 11 16\tItály\nR1\tIn Arg1:T1"
                    " Arg2:T2\nE1\tIs:T1\n#1\tN T1\tx\n"
                ),
            },
            {},
        )
    ],
    "coco": [("a.json", COCO, {})],
    "snips": [
        (
            "a.json",
            (
                '{"Weather": [{"data": [{"text": "in "}, {"text": "Rome", "entity":'
                ' "city"}]},\n{"data": [{"text": "é"}]}]}'
            ),
            {},
        )
    ],
    "labelstudio": [("a.json", STUDIO, {})],
    "squad": [("a.json", SQUAD, {})],
    "doccano": [
        (
            "a.jsonl",
            '{"text": "abé", "label": [[0, 1, "X"]]}\n{"text": "b", "label": [[0, 1, "Y"]]}\n',
            {},
        )
    ],
    "jsonl": [
        (
            "a.jsonl",
            (
                '{"text": "a é\\u00e9", "label": 1, "list": [1, {"x": null}]}\n\n{"text": "b",'
                ' "label": true}\n{"text": "😀"}\n'
            ),
            {},
        )
    ],
    "json": [
        ("a.json", '[{"text": "a", "n": 1.5e3},\n {"text": "b é"}, {"text": ""}]\n', {}),
        ("b.json", '{"version": 2, "data": [{"a": 1}, {"a": [true]}], "x": {}}', {}),
    ],
    "csv": (
        [
            ("a.csv", 'text,label\n"a, ""b""\né",x\n\nplain,y\n"",z\nc,y\n', {}),
            ("b.csv", "1,a\n2,b\n", {"header": "false"}),
        ]
        + [
            ("c.csv", 'sep=;\ntext;label\n"a;b";x\nc,d;y\n', {}),
            ("d.csv", "text|label\na|x\nb|y\n", {"separator": "pipe"}),
        ]
    ),
    "tsv": (
        [
            ("a.tsv", 'text\tlabel\n"a\tx\né b\ty\n\nc\tz\n', {}),
            ("b.tsv", "ham\ta\nspam\tb\n", {"header": "false"}),
        ]
        + [
            ("c.tsv", 'text\tlabel\n"a ""b"""\tx\n"c\nd"\ty\n', {}),
            ("d.tsv", 'text\tlabel\n"a ""b"""\tx\n', {"quotes": "true"}),
        ]
    ),
    "fasttext": [
        ("a.ft", "__label__a __label__b one é\n__label__a two\n", {}),
        ("b.ft", "a one é\n\nb two\n", {"prefix": "none"}),
    ],
    "txt": [
        ("a.txt", "one é\n\ntwo\n\x0bthree\n", {}),
        ("b.txt", "a\nb\n\nc\n", {"unit": "paragraph"}),
        ("c.txt", "a\nb\n", {"unit": "file"}),
    ],
    "conll": [
        ("a.conll", "-DOCSTART- O\n\nEU B-ORG\né O\n\nHi O\nAnn B-PER\nLee I-PER\n", {}),
        (
            "b.tsv",
            "TOKEN\tNE\tMISC\n# id = 1\nA\tB-x\t_\nb\tO\tx|y\n\t\n# id = 2\n# free\nc\tO\t_\n",
            {},
        ),
        (
            "c.iob2",
            "# text = a\n1\t#a\tO\n1-2\tab\t_\n2\tb é\tB-y\n\n1\tc\tI-y\n",
            {"invalid": "repair", "to": "iobes"},
        ),
        (
            "d.bmes",
            "科0\tB\n技1\tE\n好0\tS\n\n中0\tB\n文1\tE\n",
            {"to": "bilou", "empty_token": "keep"},
        ),
    ],
    "conllu": [("a.conllu", CONLLU, {})],
    "ptb": [
        (
            "a.mrg",
            (
                "*x*x*\n\n( (S (NP-SBJ-1 (DT The) (NN é))\n   (VP (VBZ is) (NP (-NONE- *)) (-LRB-"
                " -LRB-))\n (. .)))\n( (X (Y 1\\/2)))\n"
            ),
            {},
        ),
        (
            "b.mrg",
            "(ROOT (S (NN a)))\n(ROOT (S (NP (-NONE- *T*)) (NN b)))\n",
            {"traces": "drop", "functions": "strip", "escapes": "unescape"},
        ),
    ],
    "pos": [
        (
            "a.pos",
            "=====\n\n[ The/DT house/NN ]\nis/VBZ 1\\/2/CD é/JJ\n./. ''/''\n[ a/B ]\n\n=====\n",
            {},
        ),
        ("b.pos", "a/B c/.\n", {"sentence": "paragraph"}),
    ],
    "aligned": [
        (
            "a.aligned",
            "a b é ||| c d\n\na b ||| c d ||| 0-0 1-1\nx ||| y ||| 0-0-0.5\nz ||| w ||| 0p0\n",
            {"possible": "drop"},
        )
    ],
}
ENCODINGS = (
    "utf-8",
    "utf-8",
    "utf-8",
    "latin-1",
    "utf-16",
    "cp1252",
    "utf-8-sig",
    "ascii",
    "gb18030",
    "utf-7",
)


# --- damage
# --------------------------------------------------------------------------------------------------
def flip(rng: random.Random, content: bytes) -> bytes:
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20)) if out else 0):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def cut(rng: random.Random, content: bytes) -> bytes:
    begin, end = sorted((rng.randint(0, len(content)), rng.randint(0, len(content))))
    return rng.choice((content[:end], content[begin:], content[:begin] + content[end:]))


def repeat(rng: random.Random, content: bytes) -> bytes:
    begin, end = sorted((rng.randint(0, len(content)), rng.randint(0, len(content))))
    return content[:end] + content[begin:end] * rng.choice((1, 2, 50)) + content[end:]


def insert(rng: random.Random, content: bytes) -> bytes:
    signs = (
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b'"',
        b",",
        b"(",
        b")",
        b"[",
        b"]",
        b"{",
        b"}",
        b"#",
        b"# x = y\n",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"/",
        b"|||",
    )
    signs += (
        "\u2028".encode(),
        "\xa0".encode(),
        "\x85".encode(),
        "\u0660".encode(),
        b"\\ud800",
        b"-DOCSTART-",
        b"\n#begin document (a)\n",
        b"====",
        b"\x1c",
        b" ",
        b"0",
        b"-1",
        b"1e999",
    )
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randint(0, len(content))
        content = content[:at] + rng.choice(signs) + content[at:]
    return content


def shuffle(rng: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def swell(rng: random.Random, content: bytes) -> bytes:
    """A field of up to 300,000 characters, or brackets nested up to 30,000 deep."""
    at, size = rng.randint(0, len(content)), rng.choice((900, 1100, 30_000))
    opened = rng.choice((b"[", b'{"a":', b"(", b"(X ", b'[{"a":['))
    closed = {b"[": b"]", b'{"a":': b"}", b"(": b")", b"(X ": b")", b'[{"a":[': b"]}]"}[opened]
    deep = opened * size + rng.choice((b"", b"1", b"(A b)")) + closed * rng.choice((0, size))
    long = rng.choice(
        (b"x", b" ", b"=", b"(", b")", b"a ", b"-", b"# ", b'"', b",", b"\t", b"a/B ")
    ) * rng.choice((30_000, 300_000))
    return (
        content[:at]
        + rng.choice((long, long, b"9" * 5000, b"0-0 " * 3000, deep, b'{"a": ' + deep + b"}\n"))
        + content[at:]
    )


def recode(rng: random.Random, content: bytes) -> bytes:
    return content.decode("utf-8", "replace").encode(
        rng.choice(("utf-16", "utf-32", "latin-1", "utf-16-be", "utf-8-sig", "cp1252")), "replace"
    )


DAMAGE = (flip, flip, cut, cut, repeat, insert, insert, insert, shuffle, swell, recode)


def wrapped(rng: random.Random, name: str, content: bytes) -> tuple[str, bytes]:
    """As it is, packed, or in an archive; what is packed is damaged now and then."""
    how = rng.choice(("plain",) * 6 + ("gz", "zip"))
    if how == "plain":
        return name, content
    if how == "gz":
        name, content = f"{name}.gz", gzip.compress(content, 1, mtime=0)
    else:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(name), content)
            archive.writestr(zipfile.ZipInfo(rng.choice(("b/", "c", "../", ".")) + name), content)
        name, content = "all.zip", file.getvalue()
    return name, rng.choice((flip, cut))(rng, content) if rng.random() < 0.4 else content


# --- what is promised
# --------------------------------------------------------------------------------------------------
def text_lines(content: bytes, encoding: str, blank: Callable[[str], bool]) -> list[int]:
    """The numbers of the lines that are not empty. Lines that cannot be decoded are not."""
    found = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        text = line.decode(encoding, "replace")
        text = text.removeprefix("\ufeff") if number == 1 else text
        if not blank(text.removesuffix("\r")):
            found.append(number)
    return found


def accounted(
    kind: str,
    content: bytes,
    encoding: str,
    options: dict[str, str],
    rows: Sequence[Row],
    bad: Sequence[Bad],
) -> str:
    """What is missing from the account of a file that was read to its end; "" if nothing is, or if
    the format is not one of lines.
    """
    # a cell of several lines may be bad in the line of another row
    placed = rows if kind == "tsv" else (*rows, *bad)
    if len(items := [x.line for x in placed]) != len(set(items)) and kind not in (
        "ptb",
        "pos",
        "csv",
        "json",
        "squad",
    ):
        return f"two rows in the same line: {sorted(items)}"
    lines = text_lines(
        content,
        encoding,
        {"tsv": lambda t: not t, "conll": lambda t: not t.strip(" \t\r")}.get(
            kind, lambda t: not t.strip()
        ),
    )
    count, found = len(lines), len(rows) + len(bad)
    if kind == "jsonl" and content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return ""
    if (
        kind in ("jsonl", "aligned", "txt", "fasttext")
        and options.get("unit", "line") == "line"
        and found != count
    ):
        return f"{count} lines, but {found} rows"
    if kind == "tsv" and b'"' not in content and not 0 <= count - found <= 1:  # a header
        return f"{count} lines, but {found} rows"
    if kind == "conllu" and found != (blocks := sum(number - 1 not in lines for number in lines)):
        return f"{blocks} sentences, but {found} rows"
    if kind == "conll":
        return _accounted_sentences(content, encoding, lines, rows, bad)
    if kind == "csv" or (kind == "tsv" and b'"' in content):
        return _accounted_cells(lines, rows, bad)
    return ""


def _accounted_cells(lines: list[int], rows: Sequence[Row], bad: Sequence[Bad]) -> str:
    """A row goes over as many lines as its cells have line breaks; what lies behind a bad row
    belongs to it until the next row begins.
    """
    heights = {row.line: sum(cell.count("\n") for cell in row.fields.values()) for row in rows} | {
        b.line: 10**9 for b in bad
    }
    items = sorted(heights)
    for number in lines:
        before = [line for line in items if line <= number]
        after = next((line for line in items if line > number), 0)
        # A line before a bad one may belong to it, for a quote joins lines; the first line may be
        # the header.
        if (
            not (before and number <= before[-1] + heights[before[-1]])
            and heights.get(after, 0) < 10**9
            and before
        ):
            return f"no row has line {number}"
    return ""


def _accounted_sentences(
    content: bytes, encoding: str, lines: list[int], rows: Sequence[Row], bad: Sequence[Bad]
) -> str:
    """Every line is a token, a comment, the header, a -DOCSTART-, or one of a bad sentence (or of
    the comments before it).
    """
    text = {
        n: line.decode(encoding, "replace") for n, line in enumerate(content.split(b"\n"), start=1)
    }
    text[1] = text[1].removeprefix("\ufeff")
    marks = sum(text[n].startswith(("#begin document", "#end document")) for n in lines)
    marks += sum(
        text[n].startswith("-DOCSTART-")
        and text[n].rstrip()[10:11] in ("", " ", "\t")
        and "\ufffd" not in text[n]
        for n in lines
    )
    read = sum(len(row.fields["tokens"]) + len(row.fields.get("multiword", ())) for row in rows)
    comments = sum(
        1 + v.count("\n")
        for row in rows
        for k, v in row.fields.items()
        if isinstance(v, str) and k != "document"
    )
    left = len(lines) - marks - read - comments
    named = sum("global.columns" in text[n] for n in lines)
    if not bad:
        return (
            ""
            if 0 <= left <= 1 + named
            else (
                f"{len(lines)} lines, {read} tokens, {comments} comments, {marks} marks of"
                f" documents: {left} lines left"
            )
        )
    return (
        "" if left >= len(bad) else f"{len(bad)} bad sentences, but only {left} lines left for them"
    )


class Hang(BaseException):
    """A reader that does not end."""


def _ring(*_: Any) -> None:
    raise Hang


def check(
    path: Path, content: bytes | None, kind: str, encoding: str, options: dict[str, str]
) -> str:
    """What a reader did wrong with one file; "" if nothing. `content`: what is to be accounted for,
    if that is known.
    """
    bad: list[Bad] = []
    given = {name: value for name, value in options.items() if name not in ("header", "unit")}
    how = {name: options[name] for name in ("header", "unit") if name in options}
    before = csv.field_size_limit()
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        rows = list(
            formats.stream(
                path,
                format=kind,
                encoding=encoding,
                options=given if kind != "auto" else None,
                quarantine=bad.append,
                **how,
            )
        )
    except (DataError, ConfigError) as error:
        message = str(error)
        if "\n" in message or len(message) > LONGEST:
            return (
                f"an error that is no sentence of one line: {len(message)} characters:"
                f" {message[:300]!r}"
            )
        return (
            ""
            if str(path) in message or "data." in message
            else f"an error without a file or an option: {message}"
        )
    except Hang:
        return f"no end after {SECONDS} s"
    except Exception:
        return traceback.format_exc(limit=-3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if wrong := next(
        (b for b in bad if "\n" in b.reason or len(b.reason) > LONGEST or b.line < 1 or not b.file),
        None,
    ):
        return (
            f"a bad row without a line, a file, or a sentence of one line: {wrong.where}:"
            f" {wrong.reason[:300]!r}"
        )
    if csv.field_size_limit() != before:
        return "the limit of csv fields is not what it was"
    return (
        accounted(kind, content, encoding, options, rows, bad)
        if content is not None and kind != "auto"
        else ""
    )


def case(seed: int, number: int, folder: Path, kinds: Sequence[str]) -> tuple[str, str]:
    """One damaged file: what is wrong (or "") and what it was."""
    rng = random.Random(f"{seed}/{number}")
    kind = kinds[number % len(kinds)]
    name, content, options = seed_of(kind, rng)
    files, done = content if isinstance(content, dict) else {name: content}, []
    chosen = rng.choice(list(files))
    for _ in range(rng.choice((1, 1, 2, 3))):
        damage = rng.choice(DAMAGE)
        files = {**files, chosen: damage(rng, files[chosen])}
        done.append(damage.__name__)
    plain = None
    path = folder / f"{number}_{name}"
    if isinstance(content, dict) or (formats.FORMATS[kind].tree and kind not in SEEDS):
        path = _tree(rng, path, files)
    else:
        shown, packed = wrapped(rng, name, files[name])
        plain = files[name] if packed is files[name] else None
        path = folder / f"{number}_{shown}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed)
    encoding = rng.choice(ENCODINGS)
    given = kind if formats.FORMATS[kind].tree or rng.random() < 0.8 else "auto"
    plain = plain if kind in SEEDS and encoding in ("utf-8", "latin-1", "cp1252", "ascii") else None
    wrong = check(path, plain, given, encoding, options)
    if not wrong:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return (
        wrong,
        (
            f"seed={seed} file {number}: {path}: format={given} encoding={encoding}"
            f" options={options} {'+'.join(done)}"
        ),
    )


def seed_of(kind: str, rng: random.Random) -> tuple[str, bytes | dict[str, bytes], dict[str, str]]:
    """A whole file of a format; of one that has no seed what its writer makes, or else a file of
    another format.
    """
    if kind not in SEEDS and (written := _written(kind)) is not None:
        return f"a{formats.FORMATS[kind].suffixes[0]}", written, {}
    name, content, options = rng.choice(SEEDS.get(kind) or rng.choice(list(SEEDS.values())))
    encoded = (
        {inside: text.encode() for inside, text in content.items()}
        if isinstance(content, dict)
        else content.encode()
    )
    if isinstance(encoded, dict) and not formats.FORMATS[kind].tree:
        name, encoded = next(iter(encoded.items()))
        name = name.replace("/", "_")
    return name, encoded, options if kind in SEEDS else {}


@functools.cache
def _written(kind: str) -> bytes | None:
    format = formats.FORMATS[kind]
    if format.write is None or not format.suffixes or format.tree:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{format.suffixes[0]}"
        try:
            formats.write(
                [{"text": f"é {i}", "n": i, "tags": ["a"] * (i % 3)} for i in range(9)],
                path,
                format=kind,
            )
        except (DataError, ConfigError):  # an extra is missing
            return None
        return path.read_bytes()


def _tree(rng: random.Random, path: Path, files: dict[str, bytes]) -> Path:
    """A folder of the files, or an archive of them, which is damaged itself now and then."""
    if rng.random() < 0.5:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    path = path.with_name(f"{path.name}.zip")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        rng.choice((flip, cut))(rng, file.getvalue()) if rng.random() < 0.3 else file.getvalue()
    )
    return path


def main(arguments: Sequence[str]) -> int:
    given = dict(argument.split("=", 1) for argument in arguments)
    files, seed, only = (
        int(given.get("files", 1000)),
        int(given.get("seed", 0)),
        given.get("format", "all"),
    )
    kinds = list(formats.FORMATS) if only == "all" else [only]
    folder, begin, failed = Path(tempfile.mkdtemp(prefix="fuzz_")), time.monotonic(), 0
    for number in range(files):
        wrong, what = case(seed, number, folder, kinds)
        if wrong:
            failed += 1
            print(f"{what}\n    {wrong.strip()}\n", flush=True)
    print(
        f"{files} files, {failed} failures, {time.monotonic() - begin:.0f} s"
        + (f"; they are in {folder}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
