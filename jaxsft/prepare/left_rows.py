"""Rows that the columns beside them do not let be used, by the rules of `data/verdicts.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxsft.config.schema import UsedFiles
from jaxsft.data import verdicts
from jaxsft.data.formats import Bad, Row
from jaxsft.data.ledger import Aside


def marked(
    read: Callable[[], Iterable[Row | Bad]],
    data: UsedFiles,
    split: str,
    options: Sequence[Mapping[str, Any]],
) -> Iterator[Row | Bad | Aside]:
    """Returns the rows as read, with an Aside in the place of each that is not to be used.

    Only columns whose names may speak of it are held at once; the file is read twice where there
    is one.

    Args:
      read: reads the rows from the beginning.
      split: that of the file; "" where one file holds all splits.
      options: those of the stages: a column that one of them names is read, and is no verdict.

    Raises:
      Doubtful: a column seems to say that some rows are not to be used, and `data.keep` does not
        name it.
      DataError: no row is left.
      ConfigError: `data.keep` names a column that no row has.
    """
    wanted, named = verdicts.of_split(data.keep, split), {*_texts(options)}
    speaks = lambda name: name in wanted or (name not in named and verdicts.may_speak(name))
    found, names = [], {}
    for row in filter(lambda row: isinstance(row, Row), read()):
        names |= dict.fromkeys(row.fields)
        fields = {name: value for name, value in row.fields.items() if speaks(name)}
        found.append(dataclasses.replace(row, fields=fields))
    if not found or not (wanted or any(map(speaks, names))):
        return iter(read())
    # an error about a column that is not there lists those that are
    found[0] = dataclasses.replace(found[0], fields=dict.fromkeys(names) | found[0].fields)
    aside: list[Aside] = []
    verdicts.used(found, data.columns, data.keep, split, aside, "")
    left = {(one.file, one.line): one for one in aside}
    return (left.get((row.file, row.line), row) if isinstance(row, Row) else row for row in read())


def _texts(value: Any) -> Iterator[str]:
    """Every string inside nested options."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
