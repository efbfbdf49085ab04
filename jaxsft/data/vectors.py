"""Word vectors from files, read as streams, also from .gz: word2vec and GloVe.

word2vec is text or binary (Mikolov et al. 2013); GloVe: Pennington et al. 2014.

- word2vec: a first line `words dimensions`, then a line `word x1 ... xD` each
- word2vec_binary: the same first line, then each word, a space, D little-endian float32 and perhaps
  a line end
- glove: lines `word x1 ... xD` only
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from jaxsft.data.formats.source import Source, sources
from jaxsft.errors import ConfigError, DataError

FORMATS = ("auto", "word2vec", "word2vec_binary", "glove")
LONGEST = 4096  # bytes of a word


@dataclasses.dataclass(frozen=True)
class Vectors:
    """The vectors `[W, D]`, float32, of `words`."""

    words: list[str]
    vectors: np.ndarray

    @property
    def index(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}


def read(
    path: str | Path,
    *,
    format: str = "auto",
    vocabulary: Container[str] | None = None,
    most: int | None = None,
    repeated: str = "error",
) -> Vectors:
    """Returns the vectors of a file, in its order.

    Args:
      path: one file, as `formats.stream` takes it.
      format: auto tells it by the first line, and binary from text by what follows it.
      vocabulary: only these words are kept; what a set of texts needs is little of such a file.
      most: only so many words of the beginning are looked at: these files are sorted by frequency.
      repeated: a word that comes twice: error | first (as some large files have it).

    Raises:
      DataError: the file is missing or cut off, a line is broken (named by `file:line`, in a binary
        file by the number of its word), or no word is in the vocabulary.
      ConfigError: an option has a value that does not exist.
    """
    if format not in FORMATS or repeated not in ("error", "first"):
        raise ConfigError(
            f"format={format}, repeated={repeated}: expected format {', '.join(FORMATS)} and"
            " repeated error or first"
        )
    words, found, seen = [], [], {}
    for where, word, vector in stream(path, format=format, vocabulary=vocabulary, most=most):
        if word in seen:
            if repeated == "error":
                raise DataError(
                    f"{where}: the word {word!r} again, after {seen[word]}; repeated=first keeps"
                    " the first"
                )
            continue
        seen[word] = where
        words.append(word)
        found.append(vector)
    if not words:
        raise DataError(
            f"{path}: none of its words is in the vocabulary; check its language and case"
        )
    return Vectors(words, np.stack(found))


def stream(
    path: str | Path,
    *,
    format: str = "auto",
    vocabulary: Container[str] | None = None,
    most: int | None = None,
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields (where, word, `[D]` float32) of the requested words. Raises as `read`."""
    files = sources(path)
    if len(files) != 1:
        raise DataError(f"{path}: {len(files)} files, expected one file of vectors")
    (source,) = files
    if format == "auto":
        format = _detect(source)
    if format == "word2vec_binary":
        yield from _binary(source, vocabulary, most)
    else:
        yield from _text(source, format == "word2vec", vocabulary, most)


def _detect(source: Source) -> str:
    head = source.head()
    first, _, rest = head.partition(b"\n")
    size = _header(first)
    if size is None:
        return "glove"
    line = rest.partition(b"\n")[0].rstrip()
    try:
        return (
            "word2vec"
            if len([float(v) for v in line.rsplit(b" ", size[1])[1:]]) == size[1]
            else "word2vec_binary"
        )
    except ValueError:
        return "word2vec_binary"


def _header(line: bytes | str) -> tuple[int, int] | None:
    """Returns (words, dimensions) of a first line of word2vec; None if it is none."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or int(parts[1]) < 1:
        return None
    return int(parts[0]), int(parts[1])


def _text(
    source: Source, header: bool, vocabulary: Container[str] | None, most: int | None
) -> Iterator[tuple[str, str, np.ndarray]]:
    declared = dimensions = None
    count = 0
    for line in source.lines("utf-8"):
        if not isinstance(line, tuple):
            raise DataError(f"{line.where}: {line.reason}")
        number, text = line
        where = f"{source.name}:{number}"
        if header and number == 1:
            if (size := _header(text)) is None:
                raise DataError(
                    f"{where}: found {text!r:.60}, expected the number of words and of dimensions;"
                    " set format=glove if there is no such line"
                )
            declared, dimensions = size
            continue
        text = text.rstrip()
        if not text:
            raise DataError(f"{where}: an empty line, expected a word and its vector")
        if count == most:
            return
        count += 1
        dimensions = dimensions or len(text.split(" ")) - 1
        word, *parts = text.rsplit(" ", dimensions)  # a word of GloVe may hold spaces
        if len(parts) != dimensions or not dimensions or not word:
            raise DataError(
                f"{where}: found {len(parts)} numbers, expected a word and {dimensions} numbers"
            )
        if vocabulary is None or word in vocabulary:
            yield where, word, _vector(parts, where)
    if declared is not None and declared != count and most is None:
        raise DataError(
            f"{source.name}:1: {declared} words are declared, found {count}: the file is cut off or"
            " damaged"
        )
    if not count:
        raise DataError(f"{source.name}:1: the file has no vectors")


def _vector(parts: Sequence[str], where: str) -> np.ndarray:
    try:
        vector = np.array([float(part) for part in parts], np.float32)
    except ValueError:
        raise DataError(
            f"{where}: found {' '.join(parts)!r:.60}, expected {len(parts)} numbers as in the lines"
            " before"
        ) from None
    return _finite(vector, where)


def _finite(vector: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(vector).all():
        raise DataError(f"{where}: a number of the vector is not finite")
    return vector


def _binary(
    source: Source, vocabulary: Container[str] | None, most: int | None
) -> Iterator[tuple[str, str, np.ndarray]]:
    with source.open() as file:
        size = _header(file.readline(LONGEST))
        if size is None:
            raise DataError(
                f"{source.name}:1: expected the number of words and of dimensions, as word2vec"
                " writes them"
            )
        words, dimensions = size
        buffer = _Buffer(file)
        for number in range(1, (words if most is None else min(words, most)) + 1):
            where = f"{source.name}: word {number}"
            raw = buffer.until(b" ", where).lstrip(b"\n")
            vector = np.frombuffer(buffer.take(4 * dimensions, where), "<f4")
            try:
                word = raw.decode("utf-8")
            except UnicodeError:
                raise DataError(f"{where}: {raw!r:.60} is not in utf-8") from None
            if vocabulary is None or word in vocabulary:
                yield where, word, _finite(vector.astype(np.float32), where)


class _Buffer:
    """A buffer that reads a file by length and by end mark."""

    def __init__(self, file: IO[bytes]):
        self.file, self.held = file, b""

    def take(self, count: int, where: str) -> bytes:
        while len(self.held) < count:
            more = self.file.read(max(count - len(self.held), 2**16))
            if not more:
                raise DataError(
                    f"{where}: the file ends here, before its declared number of words: it is"
                    " cut off"
                )
            self.held += more
        out, self.held = self.held[:count], self.held[count:]
        return out

    def until(self, mark: bytes, where: str) -> bytes:
        while (at := self.held.find(mark)) < 0:
            if len(self.held) > LONGEST:
                raise DataError(
                    f"{where}: no word ends within {LONGEST} bytes: the file is damaged, or its"
                    " declared dimensions are wrong"
                )
            more = self.file.read(2**16)
            if not more:
                raise DataError(
                    f"{where}: the file ends here, before its declared number of words: it is"
                    " cut off"
                )
            self.held += more
        out, self.held = self.held[:at], self.held[at + len(mark) :]
        return out


def matrix(
    vectors: Vectors, vocabulary: Sequence[str], *, lower: bool = False, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Builds an initial embedding table from word vectors.

    Args:
      lower: a word that is not there is looked up in lower case.
      seed: of the rows of words that are not there, drawn with the mean and deviation that each
        dimension has among those found.

    Returns: `[V, D]` float32 in the order of `vocabulary`, and which rows were found, `[V]` bool.

    Raises:
      DataError: none is found.
    """
    index = vectors.index
    rows = np.array(
        [index.get(word, index.get(word.lower(), -1) if lower else -1) for word in vocabulary],
        np.int64,
    )
    found = rows >= 0
    if not found.any():
        raise DataError(
            f"none of the {len(vocabulary)} words of the vocabulary has a vector; check case and"
            " language"
        )
    known = vectors.vectors[rows[found]]
    out = (
        np.random.default_rng(seed)
        .normal(known.mean(0), known.std(0), (len(rows), known.shape[1]))
        .astype(np.float32)
    )
    out[found] = known
    return out, found


class VectorRows(NamedTuple):
    """The rows of an embedding that have a word vector.

    Their numbers `[n]`, the vectors `[n, D]` float32, and how many rows stand for a word at
    all.
    """

    rows: np.ndarray
    vectors: np.ndarray
    words: int


def rows_of(path: str | Path, words: Sequence[str | None]) -> VectorRows:
    """Returns the vectors for the rows of an embedding.

    A word that the file lacks is looked up in lower case.

    Args:
      words: of each row; None where it stands for none.

    Raises: as `read`, and DataError where no word has a vector.
    """
    wanted = {form for word in words if word is not None for form in (word, word.lower())}
    index = (found := read(path, vocabulary=wanted)).index
    at = np.array(
        [-1 if word is None else index.get(word, index.get(word.lower(), -1)) for word in words],
        np.int64,
    )
    rows = np.flatnonzero(at >= 0)
    return VectorRows(rows, found.vectors[at[rows]], sum(word is not None for word in words))


def pooled(vectors: Vectors, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean word vector of each text, `[N, D]`, and how many words had one, `[N]`.

    Words are cut by `words_of`; the float32 mean is zeros where none had a vector.
    """
    index = vectors.index
    out, count = (
        np.zeros((len(texts), vectors.vectors.shape[1]), np.float32),
        np.zeros(len(texts), np.int64),
    )
    for i, text in enumerate(texts):
        rows = [index[word] for word in words_of(text) if word in index]
        count[i] = len(rows)
        if rows:
            out[i] = vectors.vectors[rows].mean(0, dtype=np.float64)
    return out, count


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, without punctuation at their ends."""
    return [word for part in text.lower().split() if (word := part.strip(".,;:!?\"'()[]{}<>"))]
