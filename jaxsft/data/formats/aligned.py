"""Parallel texts: aligned files, or files whose lines are the columns of a row.

Two files whose lines or sentence ids belong together, and a Pharaoh file of word alignments; or all
of it in one file; or any number of files, such as words, tags and intents.

`data.path` names the source side; the options name the files that lie next to it. One file holds
lines `source ||| target`, perhaps `||| 0-0 1-2`. Source of the alignment format: Koehn 2004
(Pharaoh); `0p1` for possible links as in the files of Europarl gold alignments.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from jaxsft.config.option import option
from jaxsft.data.formats import conllu
from jaxsft.data.formats.row import Bad, Format, NoOptions, Numbered, plain_number
from jaxsft.data.formats.source import Source, tree
from jaxsft.errors import ConfigError, DataError

BAR = "|||"
UNLINKED = "_"  # the tag of a word without a link: none, as in CoNLL-U; task.untagged=_ takes it so
_link = re.compile(r"(\d{1,9})([-p])(\d{1,9})(?:[-:]([0-9.]+(?:[eE][-+]?\d+)?))?")


@dataclasses.dataclass(frozen=True, slots=True)
class AlignedOptions:
    target: str = option(
        "",
        "the other file, seen from the folder of data.path; empty: each line of data.path is"
        " `source ||| target`",
    )
    alignment: str = option("", "a file of Pharaoh alignments, likewise")
    pair: str = option(
        "line",
        "line | sent_id: what belongs together; sent_id pairs two CoNLL-U files, and a line of"
        " `alignment` is about each pair",
    )
    project: str = option(
        "",
        "a column of the source's CoNLL-U, such as upos: `tags` of the target's words are those of"
        " the words that they are linked to",
    )
    possible: str = option("keep", "keep | drop: links `0p1`, which annotators were not sure of")
    files: Mapping[str, str] = option(
        {},
        "further files by column: {tags:seq.out,label:label}; instead of `target`",
    )
    column: str = option(
        "", "with `files`, the column of data.path itself; empty: tokens beside tags, else text"
    )
    lists: Sequence[str] = option(
        ("tokens", "tags"), "with `files`, the columns that are words between spaces"
    )


def read(source: Source, encoding: str, options: AlignedOptions) -> Numbered:
    """Reads one row per pair: `source`, `target`, and `alignment` where there is one.

    `alignment` is [[i, j], ...] between their tokens, counted from 0 between spaces; `scores`
    and `possible` (the links that are) stand there where the file has them. Of CoNLL-U also
    `sent_id`, `source_tokens` and `target_tokens`; with `project` the target's words are
    `tokens`, and `tags` those of the source words that they are linked to (Yarowsky et al.
    2001, section 3): of several links the first, without a link `_`, which `task.untagged=_`
    leaves out of loss and scores. With `files` a row has a column per file.

    Raises:
      DataError: the files have different numbers of lines, an id occurs twice, or a file is
        missing.
      ConfigError: an option has a value that does not exist, or options contradict each other.
    """
    for name, known in {"pair": ("line", "sent_id"), "possible": ("keep", "drop")}.items():
        if (value := getattr(options, name)) not in known:
            raise ConfigError(
                f"data.options.{name}={value!r} is unknown; expected one of {', '.join(known)}"
            )
    if options.files:
        yield from _columns(source, encoding, options)
        return
    if options.pair == "sent_id":
        if not options.target or (options.project and not options.alignment):
            raise ConfigError(
                "data.options.pair=sent_id: expected data.options.target, a CoNLL-U"
                f" file{', and data.options.alignment' if options.project else ''}"
            )
        yield from _by_id(source, beside(source, options.target), encoding, options)
        return
    if options.project:
        raise ConfigError(
            f"data.options.project={options.project}: is read with data.options.pair=sent_id only"
        )
    names = [name for name in (options.target, options.alignment) if name]
    files = [source, *(beside(source, name) for name in names)]
    for number, lines in _together(files, encoding):
        if wrong := next((line for line in lines if isinstance(line, Bad)), None):
            yield wrong
            continue
        if not options.target:
            parts = [part.strip(" \t") for part in lines[0].split(BAR)]
            if len(parts) not in (2, 3) or (len(parts) == 3 and options.alignment):
                yield Bad(
                    number,
                    f"found {len(parts)} parts between {BAR}, expected source {BAR} target; or set"
                    " data.options.target=<file>",
                )
                continue
            lines = [*parts, *lines[1:]]
        yield _pair(number, lines, options, files[-1].name if options.alignment else source.name)


def beside(source: Source, name: str) -> Source:
    """Returns the file of that name in the folder of `source`, or in its archive."""
    folder, _, _ = source.name.rpartition("/")
    label = name if PurePosixPath(name).is_absolute() or not folder else f"{folder}/{name}"
    if source.member is None:
        return Source(label, source.path.parent / name)
    found = tree(source.path).files.get(str(PurePosixPath(source.member).parent / name))
    if found is None:
        raise DataError(f"{label}: there is no such file in the archive")
    return dataclasses.replace(found, name=label)


def _together(files: list[Source], encoding: str) -> Iterator[tuple[int, list[str | Bad]]]:
    """Yields the lines of the same number; lines that are empty in all files are skipped."""
    readers = [file.lines(encoding) for file in files]
    for number in itertools.count(1):
        lines = [next(reader, None) for reader in readers]
        if all(line is None for line in lines):
            return
        if None in lines:
            counts = [
                number - 1 + (line is not None) + sum(1 for _ in reader)
                for line, reader in zip(lines, readers, strict=True)
            ]
            found = ", ".join(
                f"{file.name} has {count} lines" for file, count in zip(files, counts, strict=True)
            )
            raise DataError(
                f"{files[lines.index(None)].name}:{number}: {found}; expected as many lines, of"
                " which equal numbers belong together"
            )
        texts = [line if isinstance(line, Bad) else line[1] for line in lines]
        if any(isinstance(text, Bad) or text.strip() for text in texts):
            yield number, texts


def _columns(source: Source, encoding: str, options: AlignedOptions) -> Numbered:
    """Yields a row per line number, with a column for each file."""
    if options.target or options.alignment or options.pair != "line" or options.project:
        raise ConfigError(
            "data.options.files: excludes data.options.target, alignment, pair and project"
        )
    first = options.column or ("tokens" if "tags" in options.files else "text")
    if first in options.files:
        raise ConfigError(
            f"data.options.files: names the column {first!r}, which is that of data.path; set"
            " data.options.column to its name"
        )
    names, files = (
        [first, *options.files],
        [
            source,
            *(beside(source, name) for name in options.files.values()),
        ],
    )
    for number, lines in _together(files, encoding):
        bad = next(
            (
                dataclasses.replace(line, file=file.name)
                for line, file in zip(lines, files, strict=True)
                if isinstance(line, Bad)
            ),
            None,
        )
        if bad is None and (
            empty := next(
                (file.name for line, file in zip(lines, files, strict=True) if not line.strip()),
                None,
            )
        ):
            bad = Bad(number, f"the line of {empty} is empty, and those of other files are not")
        yield bad or (
            number,
            {
                name: line.split() if name in options.lists else line.strip()
                for name, line in zip(names, lines, strict=True)
            },
        )


def _pair(
    number: int, parts: list[str], options: AlignedOptions, alignment_file: str
) -> tuple[int, dict[str, Any]] | Bad:
    fields: dict[str, Any] = {"source": parts[0], "target": parts[1]}
    if empty := next((side for side in ("source", "target") if not fields[side].strip()), None):
        return Bad(number, f"the {empty} is empty, and the other side is not")
    if len(parts) == 2:
        return number, fields
    found = _links(
        number, parts[2], (len(parts[0].split()), len(parts[1].split())), options, alignment_file
    )
    return found if isinstance(found, Bad) else (number, fields | found)


def _links(
    number: int, line: str, lengths: tuple[int, int], options: AlignedOptions, alignment_file: str
) -> dict[str, Any] | Bad:
    """Returns the columns of a line of links between so many tokens; `Bad` where one is broken."""
    links, scores, possible = [], [], []
    for text in line.split():
        found = _link.fullmatch(text)
        score = plain_number(found[4]) if found and found[4] else None
        if found is None or (found[4] and score is None):
            return Bad(
                number,
                f"found {text[:40]!r}, expected links such as 0-0 1-2, 0-0-0.98 or 0p1",
                alignment_file,
            )
        i, j = int(found[1]), int(found[3])
        if i >= lengths[0] or j >= lengths[1]:
            return Bad(
                number,
                f"the link {text[:40]} leaves the pair of {lengths[0]} and {lengths[1]} tokens,"
                " which are counted from 0",
                alignment_file,
            )
        if found[2] == "p":
            if options.possible == "drop":
                continue
            possible.append([i, j])
        links.append([i, j])
        scores.append(score)
    fields: dict[str, Any] = {"alignment": links}
    if any(score is not None for score in scores):
        if None in scores:
            return Bad(number, "some links have a score and some have none", alignment_file)
        fields["scores"] = scores
    return fields | ({"possible": possible} if possible else {})


def _new_id(found: tuple[int, Mapping[str, Any]], known: Container[str], file: str) -> str:
    """Returns the `sent_id` of a sentence. Raises DataError where it is missing or known."""
    line, sentence = found
    name = sentence["sent_id"]
    if name is None or name in known:
        raise DataError(
            f"{file}:{line}: the sent_id {str(name)[:80]!r}"
            f" {'is missing' if name is None else 'occurs twice'}"
        )
    return name


def _by_id(source: Source, target: Source, encoding: str, options: AlignedOptions) -> Numbered:
    """Yields the sentences of two CoNLL-U files with the same `sent_id`, in the first one's order.

    One that is in one file only is Bad. The target is held in memory. The lines of an alignment
    belong to the pairs, in this order.
    """
    links = beside(source, options.alignment) if options.alignment else None
    lines = None if links is None else links.lines(encoding)
    others: dict[str, tuple[int, dict[str, Any]]] = {}
    for found in conllu.read(target, encoding, NoOptions()):
        if isinstance(found, Bad):
            yield dataclasses.replace(found, file=target.name)
        else:
            others[_new_id(found, others, target.name)] = found
    seen: set[str] = set()
    for found in conllu.read(source, encoding, NoOptions()):
        if isinstance(found, Bad):
            yield found
            continue
        line, here = found
        name = _new_id(found, seen, source.name)
        seen.add(name)
        if name not in others:
            yield Bad(line, f"the sentence {name[:80]!r} is not in {target.name}")
            continue
        there = others.pop(name)[1]
        fields = {
            "source": _text(here),
            "target": _text(there),
            "sent_id": name,
            "source_tokens": here["form"],
            "target_tokens": there["form"],
        }
        if lines is None:
            yield line, fields
        elif (links_line := next(lines, None)) is None:
            raise DataError(
                f"{links.name}: has no line for the pair {name[:80]!r}; expected a line of links"
                " for each pair, in their order"
            )
        elif isinstance(found := _linked(fields, here, links_line, options, links.name), Bad):
            yield found
        else:
            yield line, found
    if lines is not None and (left := next(lines, None)) is not None:
        where = left.line if isinstance(left, Bad) else left[0]
        raise DataError(
            f"{links.name}:{where}: there is no pair for this line; expected a line of links for"
            " each pair, in their order"
        )
    for name, (line, _) in others.items():
        yield Bad(line, f"the sentence {name[:80]!r} is not in {source.name}", target.name)


def _linked(
    fields: dict[str, Any],
    here: dict[str, Any],
    line: tuple[int, str] | Bad,
    options: AlignedOptions,
    file: str,
) -> dict[str, Any] | Bad:
    """Returns a pair with its links and, with `project`, the target's words and their tags."""
    if isinstance(line, Bad):
        return dataclasses.replace(line, file=file)
    words = fields["target_tokens"]
    found = _links(*line, (len(fields["source_tokens"]), len(words)), options, file)
    if isinstance(found, Bad) or not options.project:
        return found if isinstance(found, Bad) else fields | found
    if options.project not in (
        texts := [name for name in ("upos", "xpos", "lemma", "deprel") if name in here]
    ):
        raise ConfigError(
            f"data.options.project={options.project}: is no column of texts; expected one of"
            f" {', '.join(texts)}"
        )
    tags: dict[int, str | None] = {}
    for i, j in found["alignment"]:
        tags.setdefault(j, here[options.project][i])
    return (
        fields
        | found
        | {
            "tokens": words,
            "tags": [tags.get(j) or UNLINKED for j in range(len(words))],
        }
    )


def _text(sentence: dict[str, Any]) -> str:
    return sentence["text"] if sentence["text"] is not None else " ".join(sentence["form"])


FORMAT = Format(
    "aligned",
    (".aligned",),
    read,
    "one per line of several files, or per line `source ||| target`: `source`, `target`,"
    " `alignment` [[i, j], ...], or a column per file",
    AlignedOptions,
    order=110,
)
