"""Findings about labels, tags and targets.

How often each occurs, what one split has and another lacks, and rows that contradict each other.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsft.check.findings import Findings, rows, some
from jaxsft.check.load import CheckedSplit
from jaxsft.config.schema import Config
from jaxsft.data import schemes
from jaxsft.data.records import Kind
from jaxsft.data.records.fields import declared_labels
from jaxsft.prepare.neighbours import normalise

INVISIBLE = ("Cf", "Cc")  # zero-width characters, byte-order marks, soft hyphens
# the most frequent class over the least frequent one, from which it is worth a warning
IMBALANCED = 10


def count_labels(
    config: Config, parts: Mapping[str, CheckedSplit], kind: Kind, findings: Findings
) -> dict[str, dict[str, int]]:
    """Counts the rows of each class by split, for tags and relations the words; adds findings.

    The findings are about unknown, rare and missing classes.
    """
    counts = {name: _counted(part, kind) for name, part in parts.items()}
    if not any(counts.values()):
        return counts
    declared = declared_labels(
        getattr(config.task, "labels", None) or (),
        {label for those in counts.values() for label in those},
    )
    known = set(declared) or set(counts.get("train", ()))
    for name, part in parts.items():
        if "train" in parts or declared:
            _unseen(config, name, part, kind, known, bool(declared), findings)
    if "train" in parts:
        _missing(config, parts, counts, kind, findings)
        _balance(counts["train"], config, findings)
        _everywhere(counts["train"], parts["train"], config, findings)
        _like_none(counts["train"], findings)
    for name, part in parts.items():
        _conflicts(name, part, kind, findings)
    return counts


def _everywhere(
    train: Counter[str], part: CheckedSplit, config: Config, findings: Findings
) -> None:
    """Adds a finding for labels that every row has in multi-label data: they teach nothing."""
    rows_there = len(part.records)
    if (
        config.task.spec.output == "labels"
        and len(train) > 1
        and (always := sorted(x for x, n in train.items() if n == rows_there))
    ):
        message = (
            f"Every row of train has {'the label' if len(always) == 1 else 'the labels'}"
            f" {some(always)}, so that nothing is learnt of it."
        )
        findings.add(
            "label_everywhere",
            "warning",
            message,
            split="train",
            count=len(always),
            repair="data.columns.label, or task.labels",
        )


def _like_none(train: Counter[str], findings: Findings) -> None:
    """Adds a finding for labels that a program or an annotator may have written for none."""
    found = [
        label
        for label in train
        if label.strip().lower()
        in ("none", "n/a", "na", "-", "?", "unknown", "undefined", "missing")
    ]
    if found:
        message = (
            f"{some(found)} may stand for no label ({sum(train[label] for label in found):,} rows"
            " of train have it)."
        )
        findings.add(
            "label_like_none",
            "info",
            message,
            split="train",
            count=len(found),
            repair=f"data.columns.no_label={found[0]}",
        )


def _counted(part: CheckedSplit, kind: Kind) -> Counter[str]:
    out: Counter[str] = Counter()
    for record in part.records:
        out.update(
            getattr(record, "tags", None) or getattr(record, "deprels", None) or kind.labels(record)
        )
    return out


def _unseen(
    config: Config,
    name: str,
    part: CheckedSplit,
    kind: Kind,
    known: set[str],
    declared: bool,
    findings: Findings,
) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for where, record in zip(part.where, part.records, strict=True):
        for label in kind.labels(record):
            if label not in known:
                places[label].append(where)
    if places:
        new = sorted(places, key=lambda label: -len(places[label]))
        lacks = "task.labels lacks" if declared else "the training split lacks"
        message = (
            f"{name} has {len(new):,} {'label' if len(new) == 1 else 'labels'} that {lacks}:"
            f" {some(new)}."
        )
        where = [place for label in new for place in places[label]]
        learnt = config.data.unseen_labels == "learn"
        repair = (
            ""
            if learnt
            else (
                "task.labels=[...] with all of them"
                if declared
                else "data.unseen_labels=learn|drop, or task.labels=[...]"
            )
        )
        findings.add(
            "unseen_label", "info" if learnt else "error", message, where, split=name, repair=repair
        )


def _missing(
    config: Config,
    parts: Mapping[str, CheckedSplit],
    counts: Mapping[str, Counter[str]],
    kind: Kind,
    findings: Findings,
) -> None:
    # a class of the whole text, by which a file is split
    whole = any(kind.stratum(record) for record in parts["train"].records[:1])
    for name in parts:
        if (
            name != "train"
            and counts[name]
            and (lacks := sorted(set(counts["train"]) - set(counts[name])))
        ):
            message = (
                f"{name} has no row of {len(lacks):,} of the {len(counts['train']):,} classes, of"
                f" which no metric tells: {some(lacks)}."
            )
            repair = (
                "more rows of these classes"
                if config.data.path
                else "data.path=<one file of all rows> is split by class"
                if whole
                else ""
            )
            of_words = config.task.spec.of_words
            findings.add(
                "class_missing",
                "info" if of_words else "warning",
                message,
                split=name,
                count=len(lacks),
                repair=repair,
            )


def _balance(train: Counter[str], config: Config, findings: Findings) -> None:
    if len(train) == 1:
        findings.add(
            "one_class",
            "error",
            f"All rows of train have one label, {next(iter(train))!r}.",
            split="train",
            repair="data.columns.label",
        )
        return
    (most, high), (least, low) = train.most_common()[0], train.most_common()[-1]
    ratio = high / low
    times = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
    message = (
        f"{len(train):,} classes in train; {most!r} ({high:,}) is {times} times as frequent as"
        f" {least!r} ({low:,})."
    )
    if times == "1":
        share = (
            f"equally frequent ({high:,} each)"
            if high == low
            else f"nearly equally frequent ({low:,} to {high:,})"
        )
        message = f"{len(train):,} classes in train, {share}."
    # whose classes are as frequent as the language has them
    of_words = config.task.spec.of_words
    skewed = high >= IMBALANCED * low and not of_words
    repair = "the stage balance" if skewed else ""
    id, severity = ("label_balance", "warning") if skewed else ("classes", "info")
    findings.add(id, severity, message, split="train", count=len(train), repair=repair)
    _once(train, of_words, findings)
    if not of_words:
        _fractions(train, config, findings)
    _spellings(train, findings)


def _once(train: Counter[str], of_words: bool, findings: Findings) -> None:
    if once := sorted(label for label, count in train.items() if count == 1):
        occur = "class occurs" if len(once) == 1 else "classes occur"
        message = f"{len(once):,} {occur} once in train: {some(once)}."
        severity = "info" if of_words else "warning"
        findings.add("label_once", severity, message, split="train", count=len(once))


def _fractions(train: Counter[str], config: Config, findings: Findings) -> None:
    """Finds classes that are numbers with a fraction: what a regression is for."""
    decimals = sorted(label for label in train if re.fullmatch(r"[-+]?\d*\.0*[1-9]\d*", label))
    if len(decimals) > 2:
        message = (
            f"{len(decimals):,} of the {len(train):,} classes are numbers with a fraction,"
            f" {some(decimals)}: none is near another one as a class."
        )
        repair = (
            "task.loss=mse with data.columns.score=<column>"
            if "score" in config.task.spec.records.reads
            else "task=regress"
        )
        findings.add(
            "number_labels", "warning", message, split="train", count=len(decimals), repair=repair
        )


def _spellings(train: Counter[str], findings: Findings) -> None:
    """Finds labels that only case, white space or invisible characters tell apart."""
    alike = defaultdict(set)
    for label in train:
        visible = "".join(c for c in label if unicodedata.category(c) not in INVISIBLE)
        alike[normalise(visible)].add(label)
    if spelled := [" / ".join(sorted(names)) for names in alike.values() if len(names) > 1]:
        differ = "label differs" if len(spelled) == 1 else "labels differ"
        message = (
            f"{len(spelled):,} {differ} in case, white space or invisible characters alone:"
            f" {some(spelled)}."
        )
        findings.add(
            "label_spelling",
            "error",
            message,
            split="train",
            count=len(spelled),
            repair="mend them, or data.columns.label_names",
        )


def _conflicts(name: str, part: CheckedSplit, kind: Kind, findings: Findings) -> None:
    """Adds a finding for rows with the same text and different labels.

    The loss cannot be zero on them, and one of them is likely to be wrong.
    """
    seen: dict[str, dict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    for where, record in zip(part.where, part.records, strict=True):
        said = (
            tuple(record.tags)
            if hasattr(record, "tags")
            else tuple(getattr(record, "heads", ())) or tuple(sorted(kind.labels(record)))
        )
        seen[kind.text_key(record)][said].append(where)
    those = [
        where
        for by_label in seen.values()
        if len(by_label) > 1
        for places in by_label.values()
        for where in places
    ]
    if those:
        texts = sum(len(by_label) > 1 for by_label in seen.values())
        message = (
            f"{rows(len(those), name, len(part.where))}: a text that occurs with different labels"
            f" ({texts:,} in all)."
        )
        findings.add(
            "label_conflict",
            "warning",
            message,
            those,
            split=name,
            repair="the stages label_noise, or dedup with conflict=drop",
        )


def tag_schemes(config: Config, parts: Mapping[str, CheckedSplit], findings: Findings) -> None:
    """Detects the chunk scheme of each split; adds an error where splits differ."""
    told = {}
    _numbers(config, parts, findings)
    for name, part in parts.items():
        tags = [record.tags for record in part.records]
        scheme = (
            schemes.detect(tags)
            if all(record.scheme != "none" for record in part.records)
            else None
        )
        if scheme is None:
            continue
        told[name] = scheme
        broken = [w for w, t in zip(part.where, tags, strict=True) if schemes.problems(t, scheme)]
        if broken:
            message = f"The tags of {name} are {scheme}, but {len(broken):,} rows break it."
            findings.add(
                "scheme_broken",
                "error",
                message,
                broken,
                split=name,
                repair=f"data.columns.scheme={scheme} names each of them",
            )
        else:
            chunks = sum(len(schemes.spans(t, scheme)) for t in tags)
            findings.add(
                "scheme",
                "info",
                f"The tags of {name} are {scheme}: {chunks:,} chunks in {len(tags):,} rows.",
                split=name,
            )
    if len(set(told.values())) > 1:
        shown = ", ".join(f"{name} {scheme}" for name, scheme in told.items())
        findings.add(
            "schemes_differ",
            "error",
            f"The splits write their chunks differently: {shown}.",
            repair="write all of them in one scheme",
        )


def _numbers(config: Config, parts: Mapping[str, CheckedSplit], findings: Findings) -> None:
    """Adds a finding for tags that are whole numbers and may be ids of names."""
    found = {tag for part in parts.values() for record in part.records for tag in record.tags}
    if found and all(re.fullmatch(r"-?\d+", tag) for tag in found):
        message = (
            f"The {len(found):,} tags are whole numbers, which may be the ids of names: scores are"
            " of words, never of chunks."
        )
        repair = (
            "data.columns.label_names=<a file with a name a line>"
            if "label" not in config.task.spec.records.reads
            else ""
        )
        findings.add("number_tags", "warning", message, count=len(found), repair=repair)


def targets(
    config: Config, parts: Mapping[str, CheckedSplit], findings: Findings
) -> dict[str, list[dict[str, Any]]]:
    """Returns the statistics of each regression target by split.

    Smallest, mean, largest, deviation, and how many are missing.
    """
    names = config.data.columns.targets or (config.data.columns.label or "label",)
    out = {}
    for split, part in parts.items():
        values = np.array([record.targets for record in part.records], np.float64).reshape(
            len(part.records), len(names)
        )
        out[split] = []
        for name, column in zip(names, values.T, strict=True):
            there = column[np.isfinite(column)]
            if not len(there):
                findings.add(
                    "target_missing",
                    "error",
                    f"{split} has no value of the target {name!r}.",
                    split=split,
                    repair="data.columns.targets",
                )
                continue
            facts = {
                "name": name,
                "min": there.min(),
                "mean": there.mean(),
                "max": there.max(),
                "std": there.std(),
                "missing": int(np.isnan(column).sum()),
            }
            out[split].append(
                {k: v if isinstance(v, str | int) else float(v) for k, v in facts.items()}
            )
            missing = f", {facts['missing']:,} missing" if facts["missing"] else ""
            between = (
                f"{facts['min']:.4g} and {facts['max']:.4g}, mean {facts['mean']:.4g}, deviation"
                f" {facts['std']:.3g}"
            )
            message = f"Target {name!r} of {split} lies between {between}{missing}."
            constant = len(there) > 1 and math.isclose(facts["std"], 0, abs_tol=1e-12)
            findings.add(
                "target_constant" if constant else "target",
                "error" if constant else "info",
                message,
                split=split,
            )
    return out
