"""The data files of a folder or archive: files of one format and split, without documentation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from jaxsft.data.formats.source import Source
from jaxsft.errors import ConfigError, DataError

K = TypeVar("K")
# Files about a data set, as hubs and archives have them beside it.
_document = re.compile(
    r"(?:readme|licen[cs]e|copying|copyright|citation|changelog|contributing|dataset_?card|data_?card|datasheet)"
    r"(?:[-. ].*|_[a-z]{2}(?:[-_][a-z]{2,4})?(?:\.[a-z]+)?)?",
    re.IGNORECASE,
)
_prose = ("", ".md", ".markdown", ".txt", ".rst", ".pdf", ".cff", ".bib", ".html", ".htm", ".org")
# of Hugging Face datasets
DESCRIBE = (
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "croissant.json",
)
# Words in the names of files and folders that say of which split they are.
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}


def documents(names: Iterable[str]) -> list[str]:
    """Returns the paths that name a file about the data: README, LICENSE, dataset_info.json ..."""
    paths = map(PurePosixPath, names)
    return [
        str(p)
        for p in paths
        if p.name.lower() in DESCRIBE or (_document.fullmatch(p.name) and _suffix(p) in _prose)
    ]


def _suffix(path: PurePosixPath) -> str:
    suffix = path.suffix.lower()
    return "" if re.search(r"[^.a-z]", suffix) else suffix  # LICENSE-2.0 has none


def annotated(name: str, files: Iterable[str]) -> bool:
    """Returns whether a text has an .ann of the same name, so that it is data all the same."""
    return str(PurePosixPath(name).with_suffix(".ann")) in files


def data_files(found: Sequence[Source]) -> list[Source]:
    """Returns the files without those about the data, unless there are no others."""
    out = {str(PurePosixPath(name)) for name in documents(source.name for source in found)}
    return [source for source in found if str(PurePosixPath(source.name)) not in out] or list(found)


def of_one_kind(
    path: str, found: Sequence[Source], detect: Callable[[Source], K]
) -> list[tuple[Source, K]]:
    """Returns each file with its format, which all must share.

    Raises:
      DataError: the files are of several formats, of one that cannot be told, or of several splits;
        the message has the patterns that name some.
    """
    kinds: list[tuple[Source, K | None]] = []
    for source in found:
        try:
            kinds.append((source, detect(source)))
        except (ConfigError, DataError):
            if len(found) == 1:
                raise
            kinds.append((source, None))
    patterns = {}
    for source, kind in kinds:
        name = getattr(kind, "name", "unknown")
        # the same rows, spelled in two ways
        patterns.setdefault("json" if name == "jsonl" else name, []).append(source.name)
    if len(patterns) > 1:
        some = "; ".join(
            f"{name}: {names[0]}{f' and {len(names) - 1:,} more' if len(names) > 1 else ''}"
            for name, names in patterns.items()
        )
        good = [_pattern(path, names) for name, names in patterns.items() if name != "unknown"]
        raise DataError(
            f"{path}: holds files of several formats ({some}); name those that you want by a"
            f" pattern, such as {' or '.join(good[:3])}"
        )
    if None in (only := [kind for _, kind in kinds]):
        detect(found[0])
    _of_one_split(path, found)
    return [(source, kind) for source, kind in zip(found, only, strict=True) if kind is not None]


def _pattern(path: str, names: Sequence[str]) -> str:
    """Returns a pattern for files of one ending, in the folder or below it."""
    inside = [name.removeprefix(path.rstrip("/") + "/") for name in names]
    ending = "".join(
        PurePosixPath(inside[0]).suffixes[-2 if inside[0].lower().endswith(".gz") else -1 :]
    )
    deep = "" if path.lower().endswith(".zip") or not any("/" in name for name in inside) else "**/"
    return repr(
        f"{path.rstrip('/')}/{deep}*{ending}" if ending else f"{path.rstrip('/')}/{inside[0]}"
    )


def _of_one_split(path: str, found: Sequence[Source]) -> None:
    splits: dict[str, str] = {}
    for source in found:
        inside = source.name.removeprefix(path.rstrip("/") + "/")
        words = [
            word
            for part in PurePosixPath(inside).parts
            for word in re.split(r"[^a-z]+", part.lower())
        ]
        if split := next((SPLITS[word] for word in words if word in SPLITS), None):
            splits.setdefault(split, source.name)
    if len(splits) > 1 and "train" in splits:
        some = ", ".join(f"{split}: {name}" for split, name in splits.items())
        raise DataError(
            f"{path}: holds several splits ({some}); name the files of one, such as"
            f" data.train={splits['train']!r}, or all of them by a pattern, such as"
            f" {path.rstrip('/') + '/**'!r}"
        )
