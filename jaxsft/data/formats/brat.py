"""brat's standoff files: a folder or archive of pairs, a .txt and its .ann.

Stenetorp et al. 2012, aclanthology.org/E12-2021.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from jaxsft.config.option import option
from jaxsft.data.formats import folders
from jaxsft.data.formats.row import Bad, Format, Numbered, Row
from jaxsft.data.formats.source import Source, Tree
from jaxsft.data.formats.spans import Problem, located
from jaxsft.errors import DataError

LISTS = ("spans", "relations", "events", "attributes", "equivalences", "normalizations", "notes")
_offsets = re.compile(r"\d{1,9} \d{1,9}(?:;\d{1,9} \d{1,9})*")


@dataclasses.dataclass(frozen=True, slots=True)
class BratOptions:
    annotators: bool = option(
        False, "true: the folder that a document lies in is called as its annotator"
    )


def read(tree: Tree, encoding: str, options: BratOptions) -> Numbered:
    """Reads a row per document with its text and annotations.

    `{"id", "folder", "text", "spans", "relations", "events", "attributes", "equivalences",
    "normalizations", "notes"}`.

    A span of several parts has `parts`, `[[start, end], ...]`, beside the start of the first and
    the end of the last. A line of the .ann file that is broken (offsets that leave the text, a text
    that is not there, an end that does not exist) is `Bad`, and so are those that point to it; the
    document keeps the others. One without .ann has None for its lists: nobody has annotated it;
    README and LICENSE are none. With `annotators` the row has `annotator`.

    Raises:
      DataError: there is no .txt; bytes that are not in the encoding.
    """
    about = {
        name for name in folders.documents(tree.files) if not folders.annotated(name, tree.files)
    }
    texts = {
        name: source
        for name, source in tree.files.items()
        if name.endswith(".txt") and name not in about
    }
    if not texts:
        raise DataError(
            f"{tree.name}: there is no .txt file; expected brat's pairs of .txt and .ann"
        )
    for name, source in tree.files.items():
        if name.endswith(".ann") and f"{name[:-4]}.txt" not in texts:
            yield Bad(1, "there is no .txt of this name", source.name)
    for name, source in texts.items():
        inside = PurePosixPath(name)
        folder = "" if str(inside.parent) == "." else str(inside.parent)
        row: dict[str, Any] = {"id": inside.stem, "folder": folder, "text": source.text(encoding)}
        notes = tree.files.get(f"{name[:-4]}.ann")
        document = _Document(row["text"])
        if notes is not None:
            yield from document.add(notes, encoding)
        row |= {key: None if notes is None else getattr(document, key) for key in LISTS}
        yield Row(
            {**row, **({"annotator": inside.parent.name} if options.annotators else {})},
            source.name,
            1,
        )


class _Document:
    """The annotations of a text from its .ann file.

    Spans are named by their position, events and relations by their id.
    """

    def __init__(self, text: str):
        self.text = text
        self.index: dict[str, int] = {}  # T1 -> its position in spans
        self.ids: set[str] = set()  # of events and relations
        for key in LISTS:
            setattr(self, key, [])

    def add(self, source: Source, encoding: str) -> Iterable[Bad]:
        """Adds the lines of an .ann file, which may stand in any order; yields the bad ones.

        Spans come first, then events and relations, then what points to them.
        """
        stages: list[list[tuple[int, str]]] = [[], [], []]
        for found in source.lines(encoding):
            if isinstance(found, Bad):
                yield found
            elif found[1].strip():
                stages[{"T": 0, "E": 1, "R": 1}.get(found[1][0], 2)].append(found)
        yield from self._add_lines(stages[0], source.name)
        self.ids = {line.split("\t")[0] for _, line in stages[1]}
        known = -1
        while known != len(self.ids):  # an event may point to one that turns out to be broken
            known = len(self.ids)
            self.events, self.relations = [], []
            bad = list(self._add_lines(stages[1], source.name))
            stages[1] = [found for found in stages[1] if found[0] not in {b.line for b in bad}]
            yield from bad
        yield from self._add_lines(stages[2], source.name)

    def _add_lines(self, lines: list[tuple[int, str]], file: str) -> Iterable[Bad]:
        for number, line in lines:
            try:
                self._add_line(line)
            except Problem as problem:
                self.ids.discard(line.split("\t")[0])
                yield Bad(number, str(problem), file)

    def _add_line(self, line: str) -> None:
        name, _, rest = line.partition("\t")
        head, _, tail = rest.partition("\t")
        words = head.split()
        kind = {
            "T": self._span,
            "R": self._relation,
            "E": self._event,
            "A": self._attribute,
            "M": self._attribute,
        }.get(name[:1])
        if kind is not None and words:
            kind(name, words, head, tail)
        elif name == "*" and len(words) > 2:
            self.equivalences.append([self.target(word, "an equivalence") for word in words[1:]])
        elif name[:1] == "N" and len(words) == 3:
            self.normalizations.append(
                {"target": self.target(words[1], name), "reference": words[2], "text": tail}
            )
        elif name[:1] == "#" and len(words) == 2:
            self.notes.append(
                {"label": words[0], "target": self.target(words[1], name), "text": tail}
            )
        else:
            raise Problem(
                f"found {line[:60]!r}, expected a line of brat such as 'T1<tab>Person 0"
                " 5<tab>Maria'"
            )

    def _span(self, name: str, words: list[str], head: str, tail: str) -> None:
        label, _, offsets = head.partition(" ")
        if not _offsets.fullmatch(offsets):
            raise Problem(
                f"{name} has the offsets {offsets!r}, expected 'start end', or several with ;"
                " between them"
            )
        if name in self.index:
            raise Problem(f"{name} occurs twice")
        parts = [
            located(self.text, *map(int, part.split()), None, name) for part in offsets.split(";")
        ]
        held = " ".join(self.text[start:end] for start, end in parts)
        if _spaced(held) != _spaced(tail):
            raise Problem(f"{name} is {tail!r}, but the text at {offsets} is {held!r}")
        if any(before[1] > after[0] for before, after in itertools.pairwise(parts)):
            raise Problem(f"{name} has parts that overlap or are out of order: {offsets}")
        self.index[name] = len(self.spans)
        span = {"start": parts[0][0], "end": parts[-1][1], "label": label}
        self.spans.append(
            {**span, "parts": [list(part) for part in parts]} if len(parts) > 1 else span
        )

    def _relation(self, name: str, words: list[str], head: str, tail: str) -> None:
        ends = dict(word.partition(":")[::2] for word in words[1:])
        if len(words) != 3 or len(ends) != 2 or not all(ends.values()):
            raise Problem(
                f"{name} is {head!r}, expected a label and two arguments such as 'Origin Arg1:T1"
                " Arg2:T2'"
            )
        first, second = (self.target(end, name) for end in ends.values())
        self.relations.append({"head": first, "tail": second, "label": words[0]})

    def _event(self, name: str, words: list[str], head: str, tail: str) -> None:
        pairs = [word.partition(":") for word in words]
        if not all(colon and target for _, colon, target in pairs):
            raise Problem(f"{name} is {head!r}, expected pairs such as 'Attack:T1 Target:T2'")
        (label, _, trigger), *arguments = pairs
        if trigger not in self.index:
            raise Problem(f"{name} has the trigger {trigger!r}, which is no span of this text")
        filled = [
            {"role": role, "target": self.target(target, name)} for role, _, target in arguments
        ]
        self.events.append(
            {"id": name, "label": label, "trigger": self.index[trigger], "arguments": filled}
        )

    def _attribute(self, name: str, words: list[str], head: str, tail: str) -> None:
        if len(words) < 2:
            raise Problem(f"{name} is {head!r}, expected a label and what it is of")
        self.attributes.append(
            {
                "label": words[0],
                "target": self.target(words[1], name),
                "value": " ".join(words[2:]) or True,
            }
        )

    def target(self, id: str, name: str) -> int | str:
        """Returns the position of a span, or the id of an event or a relation."""
        if id in self.index:
            return self.index[id]
        if id not in self.ids:
            raise Problem(f"{name} points to {id!r}, which is not in this file")
        return id


def _spaced(text: str) -> str:
    return " ".join(text.split())  # brat writes a line break inside a span as a space


def _is_brat(tree: Tree) -> bool:
    return any(name.endswith(".ann") and f"{name[:-4]}.txt" in tree.files for name in tree.files)


FORMAT = Format(
    "brat",
    (),
    read,
    "a document: `text`, `spans`, `relations`, `events`, `attributes` and `notes`",
    BratOptions,
    _is_brat,
    tree=True,
    order=30,
)
