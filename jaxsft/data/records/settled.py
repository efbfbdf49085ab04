"""What only all rows of a file tell together: whether tags are chunks and how they are spelled,
whether lists are one-hot, which label is none.

A task reads these rows differently by it, so that a file of which it is in doubt is an error, which
names the options that decide.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from jaxsft.data import schemes
from jaxsft.data.formats import Row
from jaxsft.data.records.fields import (
    Doubtful,
    first_of,
    label_names,
    one_hot,
    plain_label,
    show,
    spells_list,
)
from jaxsft.errors import DataError

UNCHUNKED = ("upos", "xpos")  # columns of parts of speech, whatever their tags look like
# what programs write for a label that is missing, in lower case
NO_LABEL = ("nan", "null", "<na>", "nat", "#n/a")
SIGNS = ("|", ";", "/", "+", "&", "#", " ")  # that part the labels of a cell in some files
MOST = 0.9  # of the tags, or of the rows, from which the others are taken for mistakes


# --- tags
# --------------------------------------------------------------------------------------------------
def tags(rows: Sequence[Row], columns: Any, declared: Sequence[str] = ()) -> Any:
    """Returns the columns with the scheme `none` where the tags are no chunks.

    Raises:
      Doubtful: some tags are of chunks and others are not, the tags look like chunks in another
        spelling, or letters are chunks in most rows.
    """
    name = columns.tags or "tags"
    if columns.scheme != "auto" or columns.spans is not None:
        return columns
    if name in UNCHUNKED:
        return dataclasses.replace(columns, scheme="none")
    names = list(label_names(columns.label_names)) if columns.label_names else []
    named = lambda tag: (
        names[int(tag)] if str(tag).isdecimal() and int(tag) < len(names) else str(tag)
    )
    lists = [
        (row, list(map(named, found)))
        for row in rows
        if isinstance(found := row.fields.get(name), list) and found
    ]
    counts = Counter(tag for _, those in lists for tag in those)
    parts = {tag: schemes.split(tag) for tag in counts}
    chunks, letters = (
        {tag for tag, part in parts.items() if part and bool(part[1]) == typed and part[0] != "O"}
        for typed in (True, False)
    )
    others = {tag for tag, part in parts.items() if part is None}
    if others:
        _spelled(lists, name, counts, chunks, others)
        if chunks:
            _mixed(lists, name, counts, chunks, others)
        return dataclasses.replace(columns, scheme="none")
    if letters and not chunks:
        return _of_letters(lists, name, columns)
    return columns


Lists = Sequence[tuple[Row, list[str]]]


def _first(lists: Lists, among: set[str]) -> tuple[Row, int, str]:
    """Returns the first tag that is among these: its row, its place from 1, and the tag."""
    return next(
        (row, i, tag)
        for row, those in lists
        for i, tag in enumerate(those, start=1)
        if tag in among
    )


def _mixed(
    lists: Lists, name: str, counts: Counter[str], chunks: set[str], others: set[str]
) -> None:
    row, at, tag = _first(
        lists,
        others if sum(counts[t] for t in chunks) >= sum(counts[t] for t in others) else chunks,
    )
    of = lambda those: (
        f"{sum(counts[t] for t in those):,} words have tags"
        f" {'such as' if len(those) > 1 else 'of'} {_some(those, counts)}"
    )
    raise Doubtful(
        f"{row.where}: column {name!r} has {tag!r} at place {at}: {of(chunks)}, which are chunks,"
        f" but {of(others)}, which are not; mend them, or set data.columns.scheme=none to take each"
        " tag for itself",
        "mixed_tags",
        "data.columns.scheme=none, or mend the tags",
    )


def _spelled(
    lists: Lists, name: str, counts: Counter[str], chunks: set[str], others: set[str]
) -> None:
    """Raises Doubtful where tags become those of chunks when they are spelled as usual.

    That is so where nearly all tags of words inside chunks are, or can be respelled as, chunk tags.
    """
    said = {tag: schemes.respelled(tag) for tag in others}
    spelled = {tag for tag, new in said.items() if new is not None and new != "O"}
    inside = chunks | {tag for tag, new in said.items() if new != "O"}
    if not spelled or sum(counts[t] for t in chunks | spelled) < MOST * sum(
        counts[t] for t in inside
    ):
        return
    outside = {tag for tag in counts if schemes.respelled(tag) == "O"}
    prefixes = {schemes.split(said[tag] or tag)[0] for tag in spelled | chunks}
    if not outside and len(prefixes) < 2:
        return
    fixed = [
        [said.get(tag) or tag for tag in those]
        for _, those in lists
        if all(said.get(tag, tag) for tag in those)
    ]
    scheme = schemes.detect(fixed) or "iob2"
    row, at, tag = _first(lists, spelled)
    raise Doubtful(
        f"{row.where}: column {name!r} has {tag!r} at place {at}: {_share(spelled, counts)} look"
        f" like tags of chunks in another spelling ({said[tag]!r}); data.columns.scheme={scheme}"
        " reads them as chunks, data.columns.scheme=none takes each for itself",
        "tag_spelling",
        f"data.columns.scheme={scheme}, or data.columns.scheme=none",
    )


def _of_letters(lists: Lists, name: str, columns: Any) -> Any:
    """Returns the columns for tags B, I, E, S ... without a type.

    They are chunks, such as words, where all rows fit a scheme, else tags that stand for
    themselves. Raises Doubtful where most rows fit and some do not.
    """
    scheme = schemes.detect(those for _, those in lists)
    broken = [row for row, those in lists if scheme and schemes.problems(those, scheme)]
    if not broken:
        return columns
    if len(lists) - len(broken) < MOST * len(lists):
        return dataclasses.replace(columns, scheme="none")
    raise Doubtful(
        f"{broken[0].where}: column {name!r}: the letters of {len(lists) - len(broken):,} of"
        f" {len(lists):,} rows are chunks in {scheme}, those of this row are not; mend it, or set"
        f" data.columns.scheme={scheme} to have each such row named, or none to take each letter"
        " for itself",
        "mixed_tags",
        f"data.columns.scheme={scheme}, or data.columns.scheme=none",
    )


def _share(those: set[str], counts: Counter[str]) -> str:
    return f"{sum(counts[t] for t in those):,} of {counts.total():,} tags"


def _some(those: set[str], counts: Counter[str]) -> str:
    return ", ".join(map(repr, sorted(those, key=lambda tag: (-counts[tag], tag))[:3]))


# --- labels
# --------------------------------------------------------------------------------------------------
def label(rows: Sequence[Row], columns: Any, declared: Sequence[str] = ()) -> Any:
    """Checks the labels of a file, and returns the columns unchanged.

    Args:
      declared: `task.labels`: a label that is named there is a class, whatever it looks like.

    Raises:
      Doubtful: -1 stands beside other whole numbers, or alone, or -100 among them; or a label is
        what programs write for one that is missing.
    """
    name = columns.label or first_of(rows[0], ("label", "intent"))
    found = [
        (row, text)
        for row in rows
        if (text := _text(row.fields.get(name))) is not None
        and text not in (columns.no_label, *declared)
    ]
    texts = {text for _, text in found}
    doubts = [(row, text) for row, text in found if text.strip().lower() in NO_LABEL]
    if all(re.fullmatch(r"-?\d+(\.0)?", text) for text in texts) and columns.label_names is None:
        none = {
            text
            for text in texts
            if float(text) == -100 or (float(text) == -1 and {*map(float, texts)} != {-1, 1})
        }
        doubts += [(row, text) for row, text in found if text in none]
    if doubts:
        row, text = doubts[0]
        count = sum(other == text for _, other in doubts)
        raise Doubtful(
            f"{row.where}: column {name!r} holds {show(row.fields[name])} ({count:,} of"
            f" {len(rows):,} rows), which mostly stands for no label; data.columns.no_label={text}"
            " drops such rows, task.labels=[...] with it among them learns it as a class",
            "no_label",
            f"data.columns.no_label={text}",
        )
    return columns


def _text(value: Any) -> str | None:
    try:
        return plain_label(value, "")
    except DataError:
        return None


def labels(rows: Sequence[Row], columns: Any, declared: Sequence[str] = ()) -> Any:
    """Checks the lists of labels of a file, and returns the columns unchanged.

    Raises Doubtful where the lists of all rows are one-hot and no option names their classes, or
    where cells seem to be parted by another sign than `data.columns.separator`.
    """
    if columns.labels:
        return columns
    name = columns.label or first_of(rows[0], ("labels", "label"))
    lists = [(row, found) for row in rows if (found := one_hot(row.fields.get(name))) is not None]
    there = sum(row.fields.get(name) not in (None, "", []) for row in rows)
    if len(lists) < there:
        _parted(rows, name, columns, declared)
    if (
        len(lists) < 2
        or len(lists) < there
        or len({len(found) for _, found in lists}) > 1
        or set("01") <= set(declared)
    ):
        return columns
    row, found = lists[0]
    raise Doubtful(
        hot(row, name, found), "one_hot", "data.columns.labels=[<a name for each place>]"
    )


def _parted(rows: Sequence[Row], name: str, columns: Any, declared: Sequence[str]) -> None:
    """Raises Doubtful where cells seem to hold several labels behind another separator.

    No cell then has `data.columns.separator`, and one holds `|` or `;`, or another sign between
    labels that stand alone in other cells.
    """
    cells = [
        (row, cell.strip())
        for row in rows
        if isinstance(cell := row.fields.get(name), str) and cell.strip()
    ]
    if any(columns.separator in cell or spells_list(cell) for _, cell in cells):
        return
    alone = {cell for _, cell in cells}
    for row, cell in cells:
        for sign in SIGNS:
            parts = [part.strip() for part in cell.split(sign)]
            if (
                cell in declared
                or len(parts) < 2
                or not all(parts)
                or not (sign in "|;" or alone.issuperset(parts))
            ):
                continue
            raise Doubtful(
                f"{row.where}: column {name!r} holds {show(cell)}, in which {sign!r} seems to part"
                f" {len(parts)} labels; set data.columns.separator='{sign}', or name {show(cell)}"
                " among task.labels=[...] where it is one label",
                "label_separator",
                f"data.columns.separator='{sign}'",
            )


def hot(row: Row, name: str, found: Sequence[Any]) -> str:
    return (
        f"{row.where}: column {name!r} holds {show(row.fields[name])}: lists of {len(found)} zeros"
        " and ones are one-hot; name the class of each place by data.columns.labels=[...]"
        f" ({len(found)} names)"
    )


Settle = Callable[[Sequence[Row], Any, Sequence[str]], Any]


def both(rows: Sequence[Row], columns: Any, declared: Sequence[str] = ()) -> Any:
    """Checks the labels of texts as `label`, and returns the columns of tags as `tags` does.

    `declared` are the labels of texts. Raises Doubtful.
    """
    label(rows, columns, declared)
    return dataclasses.replace(
        tags(rows, dataclasses.replace(columns, label_names=None)), label_names=columns.label_names
    )


def neither(rows: Sequence[Row], columns: Any, declared: Sequence[str] = ()) -> Any:
    return columns
