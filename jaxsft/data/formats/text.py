"""Plain text, and the one place where bytes of a data file become characters."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from jaxsft.data import hub
from jaxsft.errors import ConfigError, DataError


def load(path: str | Path, encoding: str) -> str:
    """The characters of a file (unpacked if its name ends in .gz), without a byte-order mark and with its line ends as they are.

    `path` may be one of the hub, `hub:owner/name@revision/path`.

    Raises:
      DataError: the file is missing, a directory, unreadable, empty, a damaged .gz, or not in `encoding` (with the line and the byte).
      ConfigError: the encoding does not exist.
    """
    try:
        content = hub.data_file(path).read_bytes()
        if str(path).endswith(".gz"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: found a directory, expected a file") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the file is not a whole gzip file ({error}); copy it again, or take .gz off its name if it is not packed") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read the file ({error.strerror or error})") from None
    if not content.strip():
        raise DataError(f"{path}:1: the file is empty")
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise ConfigError(f"data.encoding={encoding!r} is unknown; expected a name such as utf-8, latin-1, cp1252 or gb18030") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start : error.start + 1].hex()
        raise DataError(
            f"{path}:{line}: byte {error.start} (0x{byte}) is not valid {encoding} ({error.reason}); set data.encoding=latin-1 or what the file is in"
        ) from None


def parse(content: str, unit: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, {"text": ...}) per `unit`: file, line or paragraph. Empty lines are no rows; line ends are not part of a text."""
    if unit == "file":
        if content.strip():
            yield 1, {"text": content}
        return
    paragraph: list[str] = []
    # Not splitlines: a Unicode line separator inside a line is a character of the text.
    for number, line in enumerate([*content.split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if unit == "line":
            if line.strip():
                yield number, {"text": line}
        elif line.strip():
            paragraph.append(line)
        elif paragraph:
            yield number - len(paragraph), {"text": "\n".join(paragraph)}
            paragraph = []
