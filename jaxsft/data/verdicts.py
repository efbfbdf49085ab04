"""Columns that say whether a row may be used.

The verdict of an annotator, a mark that a row is to be skipped, or the split that a row belongs to.

A column that nothing reads would change nothing in silence, so such a column is obeyed where its
tool leaves no doubt (`answer` of Prodigy, `skipped` and `was_cancelled` of Label Studio), and is an
error elsewhere until `data.keep` says which of its values are used.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft import plugins
from jaxsft.data.formats import SPLITS as FILES
from jaxsft.data.formats import Row
from jaxsft.data.ledger import Aside
from jaxsft.data.records.fields import Doubtful, show
from jaxsft.errors import ConfigError, DataError

ANY = "any"  # in `data.keep`: the column decides nothing
ANSWER = "answer"  # of Prodigy
ANSWERS = {"accept": None, "reject": "rejected", "ignore": "ignored"}
SKIPPED = ("skipped", "was_cancelled")  # of Label Studio, as its formats and its JSON call it


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


OUT = _names(
    "skip skipped ignore ignored delete deleted remove removed discard discarded exclude excluded"
    " reject rejected invalid cancelled canceled"
)
OUT |= _names(
    "drop dropped flagged bad broken unusable needsreview archived disabled mask masked noloss"
)
IN = _names(
    "valid keep kept include included use usable accept accepted approve approved confirmed"
    " reviewed validated trainable train"
)
IN |= _names("training trainon loss lossmask enabled")
GOLD = _names("gold golden goldstandard testquestion")
VERDICTS = _names("answer verdict decision status state review")  # and what ends in `status`
SPLIT, FOLD = (
    _names("split splits datasplit datasetsplit partition set"),
    _names("fold folds foldid cvfold kfold"),
)
PARTS = {
    "train": "train training trn",
    "validation": "validation valid val dev development",
    "test": "test testing tst eval evaluation heldout",
}
PART_OF = {name: part for part, names in PARTS.items() for name in names.split()}
GOOD = _names(
    "accept accepted approve approved submitted complete completed done finalized finished valid ok"
    " good keep kept confirmed reviewed"
)
BAD = _names(
    "reject rejected ignore ignored skip skipped discard discarded draft pending cancelled canceled"
    " deleted removed excluded invalid bad"
)
BAD |= _names("flagged unreviewed incomplete todo declined refused")
FLAGS = {
    **dict.fromkeys(("true", "yes", "y", "1", "t"), True),
    **dict.fromkeys(("false", "no", "n", "0", "f"), False),
}


def used(
    rows: Sequence[Row],
    columns: Any,
    keep: Mapping[str, Any],
    split: str,
    aside: list[Aside],
    task: str,
) -> list[Row]:
    """Returns the rows that may be used, in their order; those that are left out go into `aside`
    under the name of the reason.

    A rejected row of an export with one class is an example of what is not that class: `not NAME`
    of task=classify, no label of task=multilabel.

    Args:
      columns: `data.columns`; a column that it names is read, and is no verdict. keep: `data.keep`.
      split: that of the file; "" where one file holds all splits.

    Raises:
      Doubtful: a column seems to say that some rows are not to be used, and `keep` does not name
        it.
      DataError: no row is left.
      ConfigError: `keep` names a column that no row has.
    """
    wanted = of_split(keep, split)
    there = dict.fromkeys(name for row in rows for name in row.fields)
    if missing := [name for name in wanted if name not in there]:
        raise ConfigError(
            f"data.keep.{missing[0]}: no row of {rows[0].file} has this column; found"
            f" {', '.join(map(repr, there))}"
        )
    for name in there:
        if name in columns.named() or name in wanted:
            continue
        rows = (
            _obeyed(rows, name, columns, aside, task)
            if _is_obeyed(rows, name)
            else _doubtless(rows, name, split)
        )
    for name, values in wanted.items():
        if values != ANY:
            rows = _kept(rows, name, values, aside)
    return rows


def of_split(keep: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Returns what `data.keep` says of the file of a split: by column its values."""
    own = keep.get(split) if isinstance(keep.get(split), Mapping) else {}
    return {
        name: value
        for name, value in keep.items()
        if not (name in FILES and isinstance(value, Mapping))
    } | dict(own)


# --- obeyed
# --------------------------------------------------------------------------------------------------
def _is_obeyed(rows: Sequence[Row], name: str) -> bool:
    found = [row.fields[name] for row in rows if row.fields.get(name) is not None]
    if name == ANSWER:
        return bool(found) and all(isinstance(value, str) and value in ANSWERS for value in found)
    return name in SKIPPED and bool(found) and all(isinstance(value, bool) for value in found)


def _obeyed(
    rows: Sequence[Row], name: str, columns: Any, aside: list[Aside], task: str
) -> list[Row]:
    negative = _negative(rows, columns, task) if name == ANSWER else None
    out = []
    for row in rows:
        value = row.fields.get(name)
        reason = (
            ("skipped" if value else None)
            if name != ANSWER
            else "not_answered"
            if value is None
            else ANSWERS[value]
        )
        if reason == "rejected" and negative is not None:
            out.append(dataclasses.replace(row, fields={**row.fields, **negative}))
        elif reason is None:
            out.append(row)
        else:
            aside.append(
                Aside(
                    row.file,
                    row.line,
                    reason,
                    f"{row.where}: column {name!r} holds {show(value)}",
                    declared=True,
                )
            )
    if not out:
        raise DataError(
            f"{rows[0].where}: column {name!r} leaves none of the {len(rows)} rows"
            f" ({_counted(rows, name)})"
        )
    return out


def _negative(rows: Sequence[Row], columns: Any, task: str) -> dict[str, Any] | None:
    """Returns the fields of a rejected row of an export with one class.

    None where a rejection says nothing that could be learned.
    """
    output = plugins.table("tasks")[task].output if task else None  # none of a preparation
    if output not in ("label", "labels"):
        return None
    name = columns.label or next((n for n in ("label", "labels") if n in rows[0].fields), "label")
    found = {
        value if isinstance(value, str) else None
        for value in (row.fields.get(name) for row in rows)
    }
    if len(found) != 1 or None in found:
        return None
    return {name: f"not {next(iter(found))}" if output == "label" else []}


# --- refused until data.keep decides
# --------------------------------------------------------------------------------------------------
def _doubtless(rows: Sequence[Row], name: str, split: str) -> Sequence[Row]:
    """Returns the rows as they are.

    Raises DataError where the column may say whether they are to be used.
    """
    kind = _kind(name)
    if kind not in _KNOWN:
        return rows
    found = [(row, row.fields[name]) for row in rows if row.fields.get(name) not in (None, "")]
    if (those := _against(kind, found)) is None:
        return rows
    (row, value), *_ = those
    count = (
        f"{len(those):,} of {len(rows):,} rows" if len(those) > 1 else f"1 of {len(rows):,} rows"
    )
    if kind in SPLIT:
        each = " ".join(
            f"data.{part}={row.file} {_option(f'{part}.', name, spelt)}"
            for part, spelt in _spellings(found).items()
        )
        how = (
            f"{each} reads each part as its split"
            if not split
            else f"{_option(f'{split}.', name, _spellings(found).get(split, value))} takes one"
        )
        what = f"these are rows of several splits ({_counted(rows, name)})"
    else:
        good = next((v for _, v in found if not any(v is w or v == w for _, w in those)), None)
        take = good if good is not None else "<value>"
        how, what = (
            f"{_option('', name, take)} takes the rows with that value alone",
            f"{count}, and nothing says what that means for the row",
        )
    raise Doubtful(
        f"{row.where}: column {name!r} holds {show(value)}: {what}; {how}, {_option('', name, ANY)}"
        " takes all rows",
        "verdict",
        f"{_option('', name, '<value>')}, or {ANY}",
    )


def may_speak(name: str) -> bool:
    """Returns whether a column of this name may say something about the use of rows."""
    return name == ANSWER or name in SKIPPED or _kind(name) in _KNOWN


def _kind(name: str) -> str:
    kind = re.sub(r"[^a-z]", "", name.lower())
    kind = "status" if kind.endswith("status") else kind
    bare = (kind.removeprefix(prefix) for prefix in ("is", "was", "has"))
    return next((k for k in (kind, *bare) if k in _KNOWN), kind)


_KNOWN = OUT | IN | GOLD | VERDICTS | SPLIT | FOLD


def _against(kind: str, found: Sequence[tuple[Row, Any]]) -> list[tuple[Row, Any]] | None:
    """Returns the rows whose value speaks against them; None where the column says nothing."""
    if kind in SPLIT:
        parts = [PART_OF.get(re.sub("[^a-z]", "", str(value).lower())) for _, value in found]
        return (
            [found[i] for i in range(len(found)) if parts[i] != parts[0]]
            if len(set(parts)) > 1 and None not in parts
            else None
        )
    if kind in FOLD:
        whole = all(re.fullmatch(r"\d{1,4}(\.0)?", str(value)) for _, value in found)
        return [one for one in found if one[1] != found[0][1]] or None if whole else None
    if kind in VERDICTS:
        words = [re.sub("[^a-z]", "", str(value).lower()) for _, value in found]
        against = [one for one, word in zip(found, words, strict=True) if word in BAD]
        return against or None if set(words) <= GOOD | BAD else None
    flags = [_flag(value) for _, value in found]
    if None in flags:
        return None
    if kind in GOLD:
        return (
            [one for one, flag in zip(found, flags, strict=True) if flag]
            if len(set(flags)) > 1
            else None
        )
    return [one for one, flag in zip(found, flags, strict=True) if flag == (kind in OUT)] or None


def _flag(value: Any) -> bool | None:
    text = str(value).strip().lower().removesuffix(".0")
    return FLAGS.get(text)


def _spellings(found: Sequence[tuple[Row, Any]]) -> dict[str, Any]:
    """Returns the column's name for each split."""
    out: dict[str, Any] = {}
    for _, value in found:
        out.setdefault(PART_OF[re.sub("[^a-z]", "", str(value).lower())], value)
    return {part: out[part] for part in PARTS if part in out}


def _option(prefix: str, name: str, value: Any) -> str:
    value = str(value).lower() if isinstance(value, bool) else value
    if re.fullmatch(r"[A-Za-z_][\w-]*", name, re.ASCII):
        return f"data.keep.{prefix}{name}={value}"
    inner = f"{{{name}: {value}}}"
    return f"'data.keep={inner}'" if not prefix else f"'data.keep={{{prefix[:-1]}: {inner}}}'"


def _counted(rows: Sequence[Row], name: str) -> str:
    counts = Counter(
        "null" if (value := row.fields.get(name)) is None else str(value)[:40] for row in rows
    )
    return ", ".join(f"{value}: {count:,}" for value, count in counts.most_common(6))


# --- data.keep
# --------------------------------------------------------------------------------------------------
def _kept(rows: Sequence[Row], name: str, values: Any, aside: list[Aside]) -> list[Row]:
    wanted = list(values) if isinstance(values, list | tuple) else [values]
    texts, flags = {_text(value) for value in wanted}, {_flag(value) for value in wanted} - {None}
    out = []
    for row in rows:
        value = row.fields.get(name)
        if _text(value) in texts or (isinstance(value, bool | int | str) and _flag(value) in flags):
            out.append(row)
        else:
            message = (
                f"{row.where}: column {name!r} holds {show(value)}, which data.keep.{name} does not"
                " take"
            )
            aside.append(Aside(row.file, row.line, f"keep.{name}", message, declared=True))
    if not out:
        raise DataError(
            f"{rows[0].where}: data.keep.{name}={values} leaves none of the {len(rows)} rows"
            f" ({_counted(rows, name)})"
        )
    return out


def _text(value: Any) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else "null"
        if value is None
        else str(value).strip()
    )
