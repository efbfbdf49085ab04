"""The files of a run directory: made once, written whole or not at all, appended line by line,
and hashed. `runlock` has the lock of one.

Files that are replaced (`result.json`, figures, predictions) are written aside in the same
directory, flushed to the disk and renamed: a reader, or a run that comes back after a crash, sees
the old content or the new one, never a part. `metrics.jsonl` grows by whole lines.

JSON is strict: a number that is not finite is written as the string "NaN", "Infinity" or
"-Infinity", so that every JSON reader takes the file. `read_json` and `read_jsonl` leave those
strings as they are; `number` turns one into a float where a number is expected.
"""

import contextlib
import datetime
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from jaxsft import documents
from jaxsft.errors import CheckpointError, DataError, JaxsftError

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_temporary = itertools.count()
_HOST = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:6]
_ASIDE = re.compile(r"\..*\.([0-9a-f]{6})-(\d+)-\d+\.tmp", re.DOTALL)
_written: set[Path] = set()  # aside, by this process


def create(path: str | Path | None, *, stem: str) -> Path:
    """Returns a run directory that exists: `path`, or a new `runs/<stem>-<YYYYmmdd-HHMMSS>`.

    `path` is made if missing; a new one is made in the working directory.

    A new one is made exclusively, with `-2`, `-3` ... behind its name when it is taken, so that two
    runs never share one by chance. Characters of `stem` that are awkward in a file name become `-`.

    Raises:
        JaxsftError: the directory cannot be made (no permission, a file in its place, a full disk).
    """
    if "://" in str(path):
        raise JaxsftError(f"{path}: expected a local folder here")
    if any("\ud800" <= letter <= "\udfff" for letter in str(path or "")):
        raise JaxsftError(
            f"{path}: the name of a run directory must be UTF-8; checkpoints cannot be written"
            " there"
        )
    if path is not None:
        with friendly(path, "make the run directory"):
            Path(path).mkdir(parents=True, exist_ok=True)
        return Path(path)
    safe_stem = re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "run"
    name = f"{safe_stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    with friendly(Path("runs"), "make the run directory"):
        Path("runs").mkdir(exist_ok=True)
        for attempt in itertools.count(1):
            made = Path("runs") / (name if attempt == 1 else f"{name}-{attempt}")
            with contextlib.suppress(FileExistsError):
                made.mkdir()
                return made
    raise AssertionError("unreachable")


@contextlib.contextmanager
def atomic_lines(path: str | Path) -> Iterator[IO[str]]:
    """Yields a text file (UTF-8, LF) that replaces `path` if the block ends without an error.

    Raises:
        JaxsftError: the file cannot be written; what stood at `path` before is untouched.
    """
    # A lone surrogate (half of a broken emoji) is written as \udXXX, which inside a JSON string is
    # exactly its escape.
    with _aside(
        Path(path), mode="w", encoding="utf-8", errors="backslashreplace", newline="\n"
    ) as file:
        yield file


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Yields a binary file that replaces `path`, as `atomic_lines` does."""
    with _aside(Path(path), mode="wb") as file:
        yield file


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder that replaces `path` if the block ends without an error.

    Raises:
        JaxsftError: the folder cannot be written; what stood at `path` before is untouched.
    """
    path = Path(path)
    aside, old = (_beside(path) for _ in range(2))
    try:
        with friendly(path, "write", also=aside):
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.mkdir()
            yield aside
            if path.exists():
                os.replace(path, old)
            os.replace(aside, path)
            _sync_directory(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        _written.difference_update((aside, old))


def write_text(path: str | Path, text: str) -> Path:
    """Replaces `path` by `text`, all or nothing, and returns the path.

    Raises JaxsftError if it cannot be written.
    """
    with atomic_lines(path) as file:
        file.write(text)
    return Path(path)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Replaces `path` by `content`, all or nothing, and returns the path.

    Raises JaxsftError if it cannot be written.
    """
    with atomic_file(path) as file:
        file.write(content)
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Writes `value` to `path` as indented strict JSON (arrays become lists); returns the path.

    Raises JaxsftError as `write_text`.
    """
    return write_text(
        path, json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    )


def read_json(path: str | Path) -> Any:
    """Returns the content of a JSON file, "NaN" and its kind left as strings.

    Raises:
        DataError: the file is missing or unreadable, or not JSON as `documents` takes it.
    """
    return documents.read_json(path, DataError, halves=True)


class Stored(dict):
    """A mapping read from a file that another version may have written.

    A missing key is an error that names the file.
    """

    def __init__(self, values: Any, where: str):
        """Wraps values of the file `where`. Raises CheckpointError where it holds no object."""
        if not isinstance(values, dict):
            raise CheckpointError(f"{where}: holds a {type(values).__name__}, expected an object")
        super().__init__(
            {
                key: Stored(value, f"{where}: {key}") if isinstance(value, dict) else value
                for key, value in values.items()
            }
        )
        self.where = where

    def __missing__(self, key: str) -> Any:
        raise CheckpointError(
            f"{self.where} has no {key!r}: another version of jaxsft wrote it, or it was changed;"
            " use that version, or train again"
        )


def json_text(value: Any, indent: int | None = None) -> str:
    """Returns `value` as one line of strict JSON, or indented.

    Non-finite numbers become strings, other scripts stay unescaped.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def number(value: Any) -> float:
    """Returns a value of a JSON file as a float.

    It is a number, or one of "NaN", "Infinity" and "-Infinity". Raises DataError otherwise.
    """
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    raise DataError(f"expected a number, 'NaN', 'Infinity' or '-Infinity' (found {value!r})")


class JsonLines:
    """Appends objects to a file, one JSON line each, handed to the system per line so that a killed
    process loses none.

    Opening the file cuts off a half line that a crash left, so that the next line never sticks to
    it.
    """

    def __init__(self, path: str | Path):
        """Opens `path` for appending; its directory is made if missing.

        Raises JaxsftError if it cannot be opened.
        """
        self.path = Path(path)
        with friendly(self.path, "open"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
            self._end = self._mend()

    def _mend(self) -> int:
        """Returns the file's length after its last line was completed or, if partial, cut off."""
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            return 0  # a device or a pipe has no last line; reading one may never end
        self._file.seek(0)
        content = self._file.read()
        whole, tail = content[: content.rfind(b"\n") + 1], content[content.rfind(b"\n") + 1 :]
        if tail and _is_json(tail):
            self._file.write(b"\n")
            return len(content) + 1
        if tail:
            self._file.truncate(len(whole))
        return len(whole)

    def append(self, row: dict) -> None:
        """Writes one line. Raises JaxsftError if it cannot; nothing of the line is left then."""
        line = (json_text(row) + "\n").encode("utf-8", "backslashreplace")
        with friendly(self.path, "write"):
            try:
                written = 0
                # a nearly full disk takes a part of the line, and refuses the rest
                while written < len(line):
                    written += self._file.write(line[written:])
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._end)
                raise
        self._end += len(line)

    def sync(self) -> None:
        """Syncs the lines to the disk, so that they survive a power cut.

        Call it before a checkpoint that refers to them.
        """
        with friendly(self.path, "write"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> "JsonLines":
        """Returns itself; the file is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self.close()


def read_jsonl(path: str | Path) -> list[dict]:
    """Returns the objects of a JSON-lines file; a last line that a crash cut short is dropped.

    Raises:
        JaxsftError: the file is missing or unreadable.
        DataError: another line is not a JSON object; the message names file and line.
    """
    return [row for row, _ in _lines(path)]


def truncate_jsonl(path: str | Path, keep: Callable[[dict], bool]) -> None:
    """Rewrites a JSON-lines file, all or nothing, with the rows that `keep` accepts, byte for byte.

    A half last line goes too.

    A file that does not exist is left so. Raises JaxsftError and DataError as `read_jsonl` and
    `write_text`.
    """
    if Path(path).exists():
        write_bytes(path, b"".join(line + b"\n" for row, line in _lines(path) if keep(row)))


def sha256_file(path: str | Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal.

    Raises JaxsftError if it cannot be read.
    """
    with friendly(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Returns the SHA-256 of a text as UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_json(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, whatever the order of its keys, in hexadecimal."""
    return sha256_text(
        json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    )


def _beside(path: Path) -> Path:
    """Returns a temporary name in the same folder, with this host and process in it."""
    made = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{next(_temporary)}.tmp")
    _written.add(made)
    return made


def sweep(directory: Path) -> None:
    """Removes temporary files that dead processes of this machine left in a directory tree.

    The caller owns the directory.
    """
    for folder, folders, files in os.walk(directory):
        for name in [*folders, *files]:
            path, found = Path(folder, name), _ASIDE.fullmatch(name)
            if found and found[1] == _HOST and path not in _written and not _alive(int(found[2])):
                _remove(path)
        folders[:] = [
            name
            for name in folders
            if name not in ("checkpoints", "damaged") and not _ASIDE.fullmatch(name)
        ]
    # a step that was being written
    for path in Path(directory, "checkpoints").glob("*.orbax-checkpoint-tmp*"):
        _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _alive(process: int) -> bool:
    """Returns whether a process other than this one runs; its number may have been reused."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True


@contextlib.contextmanager
def _aside(path: Path, **how: Any) -> Iterator[IO[Any]]:
    temporary = _beside(path)
    with friendly(path, "write", also=temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, **how)  # noqa: SIM115 - a file that cannot be opened must not be unlinked below
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        finally:
            _written.discard(temporary)
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Makes a rename survive a power cut.

    File systems that cannot sync a directory order the rename themselves.
    """
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def friendly(path: str | Path, doing: str, also: Path | None = None) -> Iterator[None]:
    """Raises JaxsftError for an OSError about `path` or no named file; other errors pass."""
    try:
        yield
    except OSError as error:
        ours = {None, str(path), str(Path(path).parent), str(also)}
        if doing == "write" and error.filename not in ours:
            raise
        raise JaxsftError(f"{path}: cannot {doing} ({error.strerror or error})") from error


def _lines(path: str | Path) -> list[tuple[dict, bytes]]:
    with friendly(path, "read"):
        content = Path(path).read_bytes()
    # not splitlines: a JSON string may hold other line separators
    found, lines = [], content.split(b"\n")
    for i, line in enumerate(lines, start=1):
        try:
            row = documents.decode(line.decode("utf-8"), halves=True) if line.strip() else None
        except ValueError as error:
            if i == len(lines):
                break  # no newline behind it: the line was being written when the process ended
            raise DataError(f"{path}:{i}: not a JSON object ({error})") from error
        if row is not None and not isinstance(row, dict):
            raise DataError(f"{path}:{i}: expected a JSON object (found {type(row).__name__})")
        if row is not None:
            found.append((row, line))
    return found


def _is_json(text: bytes) -> bool:
    try:
        return isinstance(documents.decode(text.decode("utf-8"), halves=True), dict)
    except ValueError:
        return False


def _plain(value: Any) -> Any:
    """Returns `value` in the types of strict JSON.

    Arrays become lists, paths text, non-finite numbers strings.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return (
            float(value)
            if math.isfinite(value)
            else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
        )
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [
            _plain(item)
            for item in (sorted(value) if isinstance(value, set | frozenset) else value)
        ]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars, without importing either
        listed = value.tolist()
        return _plain(listed if type(listed) is not type(value) else float(value))
    if hasattr(value, "__float__"):
        return _plain(float(value))
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def duration_text(seconds: float) -> str:
    """Returns a length of time in its two largest units.

    >>> duration_text(3725), duration_text(59.6)
    ('1 h 2 min', '1 min 0 s')
    """
    whole = round(seconds)
    parts = [
        (whole // 86400, "d"),
        (whole // 3600 % 24, "h"),
        (whole // 60 % 60, "min"),
        (whole % 60, "s"),
    ]
    first = next((i for i, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])
