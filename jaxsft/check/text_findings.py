"""Findings about texts: empty, far too long, damaged, or full of markup."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.check.findings import Findings, percent, rows, some
from jaxsft.check.load import CheckedSplit
from jaxsft.data.records import Kind
from jaxsft.errors import ConfigError
from jaxsft.prepare.quality.consistency import is_mojibake
from jaxsft.prepare.quality.text_measures import script
from jaxsft.prepare.stages.language import UNTOLD, Language

# times the quartile range: Tukey's outer fences (Exploratory Data Analysis, 1977), here of log
# lengths
FENCE = 3.0
RUN = 20  # characters of one kind in a row
SAMPLED = 1000  # rows whose language is told by the model
# Tokens and headings of chat templates; a model that was trained on them as text has seen two kinds
# of turns.
MARKERS = re.compile(
    r"<\|[\w ]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|</?tool_call>|(?m:^###"
    r" (?:Instruction|Response):)"
)
HTML = re.compile(
    r"</?(?:p|br|div|span|a|img|table|t[rdh]|[uo]l|li|b|i|em|strong|h[1-6]|script|style)(?:\s[^<>]*)?/?>|&(?:nbsp|amp|lt|gt|quot|#\d+);",
    re.I,
)
CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]"
)
REPEATED = re.compile(rf"([^\s=\-_.*#~])\1{{{RUN - 1},}}")


def _found(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.search(text) is not None


# id: (what it is, how it is told, what mends it)
RULES: Mapping[str, tuple[str, Callable[[str], bool], str]] = {
    "mojibake": (
        "UTF-8 that was read in another encoding (such as Ã© for é)",
        is_mojibake,
        "data.encoding, or the stage clean",
    ),
    "replacement_character": (
        "U+FFFD, which stands for a lost character",
        lambda text: "\ufffd" in text,
        "data.encoding, or read the source again",
    ),
    "control_characters": (
        "control characters, or others that cannot be seen",
        _found(CONTROL),
        "the stage clean",
    ),
    "repeated_characters": (
        f"one character {RUN} times or more in a row",
        _found(REPEATED),
        "the stage heuristics",
    ),
    "template_markers": (
        "markers of chat templates (such as <|im_end|>), which are spelled out as text",
        _found(MARKERS),
        "the stage clean",
    ),
    "html": ("HTML tags or entities", _found(HTML), "the stage clean"),
}


def suspicious(
    part: CheckedSplit, kind: Kind, special: Sequence[str], findings: Findings
) -> dict[str, Any]:
    """Adds findings on the texts of a split, and returns the numbers for the card.

    They are the characters of a row, and rows by script.
    """
    texts = [kind.texts(record) for record in part.records]
    _empty(part, texts, [kind.given(record) for record in part.records], findings)
    marks = [text for text in special if text.strip()]
    by_rule: dict[str, list[str]] = defaultdict(list)
    for where, those in zip(part.where, texts, strict=True):
        joined = "\n".join(those)
        for id, (_, found, _) in RULES.items():
            if found(joined) or (
                id == "template_markers" and any(mark in joined for mark in marks)
            ):
                by_rule[id].append(where)
    for id, (what, _, repair) in RULES.items():
        if places := by_rule[id]:
            message = f"{rows(len(places), part.name, len(texts))}: {what}."
            severity = "info" if id == "html" else "warning"
            findings.add(id, severity, message, places, split=part.name, repair=repair)
    lengths = np.array([sum(map(len, those)) for those in texts])
    _outliers(part, lengths, findings)
    return {"characters": lengths, "scripts": _scripts(part, texts, findings)}


def _empty(
    part: CheckedSplit,
    texts: Sequence[Sequence[str]],
    given: Sequence[Sequence[str]],
    findings: Findings,
) -> None:
    """Finds rows that give the model nothing, and rows whose answer is empty."""
    empty = [
        where
        for where, those in zip(part.where, given, strict=True)
        if not any(text.strip() for text in those)
    ]
    if empty:
        message = (
            f"{rows(len(empty), part.name)}: nothing but white space in what the model is given."
        )
        repair = "the stage missing, or remove them"
        findings.add("empty", "warning", message, empty, split=part.name, repair=repair)
    blank = [
        where
        for where, those, asked in zip(part.where, texts, given, strict=True)
        if len(those) > len(asked) and not all(t.strip() for t in those[len(asked) :])
    ]
    if blank:
        message = f"{rows(len(blank), part.name)}: an empty answer."
        findings.add(
            "empty_answer", "warning", message, blank, split=part.name, repair="remove them"
        )


def _outliers(part: CheckedSplit, lengths: np.ndarray, findings: Findings) -> None:
    if len(lengths) < 8:
        return
    logs = np.log1p(lengths)
    first, third = np.quantile(logs, [0.25, 0.75])
    # where most rows are as long as each other, half as much again is no outlier
    width = FENCE * max(third - first, np.log(1.5))
    for id, far, what in (
        ("very_long", logs > third + width, "longer"),
        ("very_short", logs < first - width, "shorter"),
    ):
        if far.any():
            places = [part.where[i] for i in np.flatnonzero(far)]
            extreme = int(lengths[far].max() if id == "very_long" else lengths[far].min())
            reach = (
                f"{'up' if id == 'very_long' else 'down'} to {extreme:,} characters; the median is"
                f" {int(np.median(lengths)):,}"
            )
            message = f"{rows(len(places), part.name)}: far {what} than the others ({reach})."
            findings.add(id, "info", message, places, split=part.name, repair="the stage outliers")


def _scripts(
    part: CheckedSplit, texts: Sequence[Sequence[str]], findings: Findings
) -> dict[str, int]:
    """Counts rows by the script of most of their letters; `none` where there is no letter."""
    main: Counter[str] = Counter()
    places: dict[str, list[str]] = defaultdict(list)
    for where, those in zip(part.where, texts, strict=True):
        name = script("".join(those)[:2000])
        main[name] += 1
        places[name].append(where)
    written = Counter({name: count for name, count in main.items() if name != "none"})
    (first, most), *others = written.most_common() or [("none", 0)]
    rare = [name for name, count in others if count < 0.01 * written.total()]
    if others:
        shown = ", ".join(
            f"{name} {percent(count, written.total())}" for name, count in written.most_common(5)
        )
        findings.add(
            "scripts",
            "info",
            f"The rows of {part.name} are written in {len(written)} scripts: {shown}.",
            split=part.name,
        )
    if rare and most > 0.9 * written.total():
        those = [where for name in rare for where in places[name]]
        message = (
            f"{rows(len(those), part.name)}: in another script ({some(rare)}) than the rest"
            f" ({first})."
        )
        findings.add(
            "rare_script", "info", message, those, split=part.name, repair="the stage language"
        )
    return dict(main.most_common())


def languages(part: CheckedSplit, kind: Kind, findings: Findings) -> dict[str, int]:
    """Counts evenly spaced rows by language; empty where py3langid is not installed."""
    count = min(SAMPLED, len(part.records))
    texts = [
        " ".join(kind.texts(part.records[i * len(part.records) // count])) for i in range(count)
    ]
    try:
        told = Counter(map(Language().told, texts))
    except ConfigError:
        return {}
    del told[UNTOLD]
    if len(told) > 1:
        shown = ", ".join(f"{name} {percent(n, told.total())}" for name, n in told.most_common(5))
        findings.add(
            "languages",
            "info",
            f"Of {told.total():,} rows of {part.name} that are long enough to tell: {shown}.",
            split=part.name,
        )
    return dict(told.most_common())
