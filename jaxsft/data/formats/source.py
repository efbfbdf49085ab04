"""The source of bytes (a file, a packed one, a member of an archive) and their decoding.

Archives are read in place: nothing is unpacked to the disk. A member whose name leaves the archive,
and one that grows without measure, is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import gzip
import io
import itertools
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from jaxsft.data import hub
from jaxsft.data.formats import unsupported
from jaxsft.data.formats.encoding_guess import likely_encodings
from jaxsft.data.formats.row import Bad, repeated
from jaxsft.errors import ConfigError, DataError

HEAD = 2**16  # bytes that are looked at to tell the format
# a packed file may grow 200-fold, and by 64 MiB in any case; text packs 3- to 20-fold
GROWTH, FREE = 200, 2**26
# encodings in which a line does not end with the byte 10 alone
WIDE = ("utf-16", "utf-32", "utf16", "utf32", "utf-7", "utf7")
# byte-order marks
MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
SURE = 2**22  # bytes that tell whether a line is damaged, or the file is in another encoding
JUNK = ("__macosx", "thumbs.db", "desktop.ini")  # what file managers leave in folders and archives


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One file.

    `name` is what messages call it: the path as the user spelled it, and the member of an
    archive behind it.
    """

    name: str
    path: Path
    member: str | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Opens its bytes, unpacked as they are read where the name ends in .gz.

        Raises:
          DataError: missing, a directory, unreadable, encrypted, a damaged archive or .gz, one that
            grows without measure.
        """
        with _told(self.name), contextlib.ExitStack() as opened:
            if self.member is None:
                file, size = opened.enter_context(open(self.path, "rb")), self.path.stat().st_size
            else:
                about = self.path.stat()
                archive = _archive(self.path, about.st_mtime_ns, about.st_size, os.getpid())
                size = archive.getinfo(self.member).compress_size
                file = opened.enter_context(_Bounded(archive.open(self.member), size, self.name))
            if self.name.endswith(".gz"):
                file = opened.enter_context(
                    _Bounded(gzip.GzipFile(fileobj=file, mode="rb"), size, self.name)
                )
            yield file

    def head(self) -> bytes:
        """Returns the first bytes; those of UTF-16 and UTF-32 with a byte-order mark as UTF-8."""
        with self.open() as file:
            head = file.read(HEAD)
        mark = _mark(head)
        return head if mark is None else head.decode(mark, "ignore").encode()

    def lines(self, encoding: str, ends: bool = False) -> Iterator[tuple[int, str] | Bad]:
        """Yields each line with its number from 1; `Bad` for one that is not in the encoding.

        A byte-order mark is no part of the first.

        Args:
          ends: keep the line ends; without, one LF or CR LF is taken off. Only a LF ends a line: a
            form feed or U+2028 is a character of the text.

        Raises:
          DataError: as `open`; or bytes of UTF-16 or UTF-32 that cannot be read on.
          ConfigError: the encoding does not exist.
        """
        _known(encoding)
        with self.open() as file:
            if encoding.lower().replace("_", "-").startswith(WIDE):
                yield from self._wide(file, encoding, ends)
                return
            at, cure = 0, None
            for number, line in enumerate(file, start=1):
                if number == 1:
                    self._refuse_mark(line, encoding)
                    if line.count(b"\r", 0, HEAD) > 1 and b"\n" not in line:
                        raise DataError(
                            f"{self.name}: the lines end with CR alone, as old Macs wrote them;"
                            " convert their ends to LF"
                        )
                try:
                    text = line.decode(encoding)
                except UnicodeError as error:
                    cure = cure or self._cure(encoding)
                    yield Bad(
                        number,
                        _undecodable(error, at, encoding, cure),
                        self.name,
                        line.decode("utf-8", "replace"),
                    )
                else:
                    yield number, _line(text, number, ends)
                at += len(line)

    def _wide(self, file: IO[bytes], encoding: str, ends: bool) -> Iterator[tuple[int, str]]:
        number = 0
        try:
            with io.TextIOWrapper(file, encoding, newline="\n") as text:
                for number, line in enumerate(text, start=1):
                    yield number, _line(line, number, ends)
        except UnicodeError as error:
            raise DataError(
                f"{self.name}:{number + 1}: {_undecodable(error, 0, encoding)}"
            ) from None

    def _refuse_mark(self, begin: bytes, encoding: str) -> None:
        mark = _mark(begin)
        if mark is None and len(begin) > 4 and begin.count(0, 0, HEAD) * 3 > len(begin[:HEAD]):
            wide = "utf-16-be" if begin[0] == 0 else "utf-16-le"
            raise DataError(
                f"{self.name}:1: every other byte is 0, as in UTF-16 without a byte-order mark; set"
                f" data.encoding={wide}"
            )
        if mark is not None and not encoding.lower().replace("_", "-").startswith(WIDE):
            raise DataError(
                f"{self.name}: the file begins with the byte-order mark of {mark.upper()}; set"
                f" data.encoding={mark}"
            )

    def _cure(self, encoding: str) -> str:
        """Returns the advice for a line that is not in the encoding.

        It is to mend the line, where most others with such bytes are in the encoding; else
        to choose another encoding.
        """
        fitting = strange = 0
        sample = b""
        with self.open() as file:
            for line in (
                itertools.takewhile(lambda _: file.tell() <= SURE, file)
                if file.seekable()
                else file
            ):
                if not line.isascii():
                    try:
                        line.decode(encoding)
                        fitting += 1
                    except UnicodeError:
                        strange += 1
                sample += line if len(sample) < HEAD else b""
                if fitting + strange > 10_000:
                    break
        if fitting > strange:
            return f"the line is damaged, for {fitting:,} others are valid; mend it"
        return f"set data.encoding={likely_encodings(sample)} or what the file is in"

    def text(self, encoding: str) -> str:
        """Returns all characters, without a byte-order mark and with the line ends as they are.

        It is for formats that are read as a whole.

        Raises:
          DataError: as `open`; or the bytes are not in `encoding` (with the line and the byte).
          ConfigError: the encoding does not exist.
        """
        _known(encoding)
        with self.open() as file:
            content = file.read()
        self._refuse_mark(content[:HEAD], encoding)
        try:
            return content.decode(encoding).removeprefix("\ufeff")
        except UnicodeError as error:
            line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
            raise DataError(
                f"{self.name}:{line}: {_undecodable(error, 0, encoding, self._cure(encoding))}"
            ) from None


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """A folder or an archive as a whole, for formats that spread a data set over files.

    `files` are all its files by their path inside it, sorted.
    """

    name: str
    path: Path
    files: dict[str, Source]

    def match(self, pattern: str) -> list[Source]:
        """Returns the files whose path inside the tree matches a pattern in any case.

        `*` stands for anything, slashes too.
        """
        return [
            source
            for inside, source in self.files.items()
            if fnmatchcase(inside.lower(), pattern.lower())
        ]


def sources(path: str | Path) -> list[Source]:
    """Returns the files that a path means, sorted by name, without hidden files.

    It may be one file, a pattern (`data/*.jsonl`), the members of an archive
    (`set.zip/train/*.txt`), the files of a folder or an archive; or one of the hub,
    `hub:owner/name@revision/path`.

    Raises:
      DataError: there is none.
    """
    text = str(path)
    if hub.is_hub(text):
        return [Source(text, hub.data_file(text))]
    plain = Path(text)
    with _told(text):
        if os.path.isfile(plain):  # a name that is too long is none
            return list(tree(text).files.values()) if _is_zip(plain) else [Source(text, plain)]
        if os.path.isdir(plain):
            return list(tree(text).files.values())
        if inside := _inside_archive(text):
            archive, pattern = inside
            members = tree(archive).files
            found = (
                [members[pattern]]
                if pattern in members
                else [source for name, source in members.items() if fnmatchcase(name, pattern)]
            )
        else:
            found = [
                Source(_printable(name), Path(name))
                for name in sorted(glob.glob(text, recursive=True))
                if Path(name).is_file()
            ]
    if not found:
        raise DataError(f"{text}: {_nothing(text)}")
    return found


def _nothing(text: str) -> str:
    """Returns why a path means no file."""
    if not glob.has_magic(text):
        return "there is no such file" + hub.hint(text, file=True)
    brackets = re.search(r"\[[^\]]*\]", text)
    literal = (
        f"; brackets stand for one of the signs in them: {text.replace('[', '[[]')!r} means the"
        " brackets themselves"
        if brackets
        else ""
    )
    return f"no file fits the pattern{literal}"


def tree(path: str | Path) -> Tree:
    """Returns a folder or an archive as a whole.

    Raises DataError where it is neither, or an archive's member would leave it.
    """
    text, plain = str(path), Path(path)
    with _told(text):
        if os.path.isdir(plain):
            inside = sorted(p for p in plain.rglob("*") if p.is_file())
            names = [p.relative_to(plain).as_posix() for p in inside]
            files = {
                n: Source(f"{text.rstrip('/')}/{_printable(n)}", p)
                for n, p in zip(names, inside, strict=True)
                if not _hidden(n)
            }
        elif os.path.isfile(plain) and _is_zip(plain):
            with zipfile.ZipFile(plain) as archive:
                unsupported.refuse(text, unsupported.of_archive(text, archive.namelist()))
                files = {
                    i.filename: Source(f"{text}/{_printable(i.filename)}", plain, i.filename)
                    for i in _members(archive, text)
                }
            files = dict(sorted(files.items()))
        elif os.path.exists(plain):
            raise DataError(f"{text}: found a file, expected a folder or a .zip archive")
        else:
            raise DataError(f"{text}: there is no such folder or archive")
    if not files:
        raise DataError(f"{text}: there is no file in it")
    return Tree(text, plain, files)


@functools.lru_cache(maxsize=2)
def _archive(path: Path, changed: int, size: int, process: int) -> zipfile.ZipFile:
    """Opens an archive that stays open: its list of members takes 10 ms for 2,000.

    A forked process has its own: a shared file has one position.
    """
    return zipfile.ZipFile(path)


def _members(archive: zipfile.ZipFile, name: str) -> Iterator[zipfile.ZipInfo]:
    if (
        twice := repeated(
            str(PurePosixPath(n.replace("\\", "/")))
            for n in archive.namelist()
            if not n.endswith("/")
        )
    ) is not None:
        raise DataError(
            f"{name}: the archive has two members called {twice!r}; unpack it by hand, and keep the"
            " right one"
        )
    for info in archive.infolist():
        inside = PurePosixPath(info.filename.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
            raise DataError(
                f"{name}: the archive names {info.filename!r}, a path outside itself; it is not"
                " read"
            )
        if info.flag_bits & 1:
            raise DataError(
                f"{name}: {info.filename!r} is encrypted; unpack it with its password first"
            )
        if not (info.is_dir() or stat.S_ISLNK(info.external_attr >> 16) or _hidden(info.filename)):
            yield info


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part.lower() in JUNK for part in PurePosixPath(name).parts)


def _printable(name: str) -> str:
    """Returns a name for messages, which are one line: a file's name may hold a line break."""
    return (
        name
        if name.isprintable()
        else "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in name)
    )


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return path.suffix.lower() == ".zip" or file.read(4) == b"PK\x03\x04"


def _inside_archive(text: str) -> tuple[str, str] | None:
    """Splits a path inside an archive: `set.zip/a/*.txt` -> (`set.zip`, `a/*.txt`)."""
    parts = PurePosixPath(text).parts
    for i in range(1, len(parts)):
        archive = Path(*parts[:i])
        if archive.suffix.lower() == ".zip" and archive.is_file():
            return str(archive), "/".join(parts[i:])
    return None


class _Bounded(io.RawIOBase):
    """A stream of unpacked bytes that fails where it grows beyond all proportion."""

    def __init__(self, file: IO[bytes], packed: int, name: str):
        self.file, self.left, self.name, self.packed = (
            file,
            max(GROWTH * packed, FREE),
            name,
            packed,
        )

    def __enter__(self) -> io.BufferedReader:  # type: ignore[override]
        return io.BufferedReader(self, 2**20)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        part = self.file.read(len(buffer))
        self.left -= len(part)
        if self.left < 0:
            raise DataError(
                f"{self.name}: {self.packed:,} packed bytes grow more than {GROWTH}-fold; unpack"
                " the file by hand if that is right"
            )
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self.file.close()
        super().close()


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Raises one sentence for each error of the system, gzip and zip."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    except (IsADirectoryError, NotADirectoryError):
        raise DataError(f"{name}: found a directory, expected a file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{name}: the file is not a whole gzip file ({error}); copy it again, or take .gz off"
            " its name if it is not packed"
        ) from None
    # the last two from names and fields of an archive
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error) as error:
        raise DataError(
            f"{name}: the archive is damaged or of an unknown kind ({str(error)[:200]}); copy it"
            " again, or unpack it by hand"
        ) from None
    except OSError as error:
        raise DataError(f"{name}: cannot read the file ({error.strerror or error})") from None


def _known(encoding: str) -> None:
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        raise ConfigError(
            f"data.encoding={encoding!r} is unknown; expected a name such as utf-8, latin-1, cp1252"
            " or gb18030"
        ) from None


def _undecodable(
    error: UnicodeError,
    at: int,
    encoding: str,
    cure: str = "set data.encoding to what the file is in",
) -> str:
    if not isinstance(error, UnicodeDecodeError):
        return (
            f"the bytes are not valid {encoding} ({error}); set data.encoding to what the file"
            " is in"
        )
    byte = error.object[error.start : error.start + 1].hex()
    return f"byte {at + error.start} (0x{byte}) is not valid {encoding} ({error.reason}); {cure}"


def _mark(head: bytes) -> str | None:
    """Returns the encoding of a file's byte-order mark; None without one, or for UTF-8.

    None also for Arrow's streams, which begin likewise.
    """
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), None)


def _line(text: str, number: int, ends: bool) -> str:
    if number == 1:
        text = text.removeprefix("\ufeff")
    return text if ends else text.removesuffix("\n").removesuffix("\r")
