"""Split one file into training, validation and test rows by content: no order, no seed of the machine, and no leak of equal rows."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError


def canonical(row: Row) -> str:
    """The fields as JSON with sorted keys: equal for rows with equal content, wherever they stand."""
    return json.dumps(row.fields, sort_keys=True, separators=(",", ":"))


def normalise(text: str, case: bool = True, space: bool = True, punctuation: re.Pattern[str] | None = None) -> str:
    """The text in NFC, without what should not count: case, the amount of white space, and what `punctuation` finds."""
    text = unicodedata.normalize("NFC", text)
    if case:
        text = unicodedata.normalize("NFC", text.casefold())
    if punctuation:
        text = punctuation.sub(" ", text)
    return " ".join(text.split()) if space else text


def keys(rows: Sequence[Row], texts: Sequence[Sequence[str]], together: Sequence[str | None]) -> list[str]:
    """What makes rows equal for `split_rows`: their texts after normalisation (`normalise`), whatever else their columns hold; or what rows should
    stay together by. The key is the least content of those that are equal, so that a file without such rows is split by the contents alone.

    Args:
      texts: per row, those of its record.
      together: per row, what it shares with others, or None.
    """
    own = [canonical(row) if shared is None else shared for row, shared in zip(rows, together, strict=True)]
    alike = [normalise("\n".join(said) if shared is None else shared) for said, shared in zip(texts, together, strict=True)]
    least: dict[str, str] = {}
    for content, key in zip(own, alike, strict=True):
        least[key] = min(content, least.get(key, content))
    return [least[key] for key in alike]


def split_rows(
    rows: Sequence[Row],
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    stratify: Callable[[Row], str] | None = None,
    key: Callable[[Row], str] | None = None,
) -> tuple[list[Row], list[Row], list[Row]]:
    """Split rows into (train, validation, test), each in the order of the file.

    Within a stratum the distinct contents are sorted by the hash of content and seed and cut at the quantiles, so the parts do not depend on the
    order of the rows, and rows of equal content share a part. A stratum of at least three contents has one in each part of a positive fraction.

    Args:
      rows: of one file.
      fractions: of the distinct contents for each part; they sum to 1.
      seed: another one gives another split.
      stratify: the label of a row; each label is split by itself. Without it all rows are one stratum.
      key: what makes two rows equal (such as the text alone); by default all fields. Equal rows with several labels go with the smallest label.

    Raises:
      ConfigError: the fractions are not three numbers of at least 0 that sum to 1.
    """
    shares = [float(fraction) for fraction in fractions]
    if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(f"data.fractions={list(fractions)}: expected three numbers of at least 0 that sum to 1 (train, validation, test)")
    hashes = [_hash(key(row) if key else canonical(row), seed) for row in rows]
    label_of: dict[bytes, str] = {}
    for row, content in zip(rows, hashes, strict=True):
        label = stratify(row) if stratify else ""
        label_of[content] = min(label, label_of.get(content, label))
    strata: dict[str, list[bytes]] = defaultdict(list)
    for content, label in label_of.items():
        strata[label].append(content)
    part_of: dict[bytes, int] = {}
    for contents in strata.values():
        sizes = _sizes(len(contents), shares)
        parts = [part for part, size in enumerate(sizes) for _ in range(size)]
        part_of.update(zip(sorted(contents), parts, strict=True))
    split: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
    for row, content in zip(rows, hashes, strict=True):
        split[part_of[content]].append(row)
    return split


def _hash(content: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{content}".encode("utf-8", "backslashreplace")).digest()


def _sizes(count: int, shares: list[float]) -> list[int]:
    """How many of `count` contents each part gets: rounded quantiles, then one from the largest part for each empty part, while it has two."""
    first, second = round(count * shares[0]), round(count * (shares[0] + shares[1]))
    sizes = [first, second - first, count - second]
    for part, share in enumerate(shares):
        largest = max(range(3), key=sizes.__getitem__)
        if share > 0 and sizes[part] == 0 and count >= 3 and sizes[largest] > 1:
            sizes[part] += 1
            sizes[largest] -= 1
    return sizes
