"""Builds a quality card from the rows of a data set.

It makes two passes over it (three over held-out splits, and over a file with a split column).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxsft import __version__
from jaxsft.config.schema import QualityConfig
from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.data.split_rule import canonical
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.quality import (
    consistency,
    distribution,
    diversity,
    inputs,
    label_measures,
    noise,
    options,
    text_measures,
)
from jaxsft.prepare.quality.clusters import found_clusters
from jaxsft.prepare.quality.completeness import Completeness
from jaxsft.prepare.quality.contamination import Index
from jaxsft.prepare.quality.inputs import Sets
from jaxsft.prepare.quality.measures import MEASURES
from jaxsft.prepare.quality.notices import CardFindings
from jaxsft.prepare.stages.language import Language

VERSION = "jaxsft quality card 1"
LANGUAGES = 2000  # texts of a split whose language is told
ROWS = 10  # of a text with several labels
DIGITS = 6


@dataclasses.dataclass
class SplitCounts:
    """The counts of one split."""

    digest: Any = dataclasses.field(default_factory=hashlib.sha256)
    completeness: Completeness = dataclasses.field(default_factory=Completeness)
    consistency: consistency.Consistency = dataclasses.field(
        default_factory=consistency.Consistency
    )
    distribution: distribution.Distribution = dataclasses.field(
        default_factory=distribution.Distribution
    )
    noise: Counter[str] = dataclasses.field(default_factory=Counter)
    noisy: int = 0
    sample: diversity.RowSample = dataclasses.field(default_factory=lambda: diversity.RowSample(0))


def card(
    sets: Sets, config: QualityConfig, told: Callable[[dict[str, Any]], None] = lambda found: None
) -> dict[str, Any]:
    """Builds the card of a data set, as plain JSON; it repeats for the same rows and options.

    Args:
      sets: the splits, of `source.of_config` or `source.of_rows`.
      config: of its `data` only the columns, and how benchmarks and ratings are read (all but the
        format, which each of them tells).
      told: is given every row that a measure found.

    Raises:
      DataError: a file cannot be read, or no row has a column that the options name.
      ConfigError: options that do not go together.
    """
    options.check(config)
    return _Build(sets, config, CardFindings(told, config.listed)).card()


class _Build:
    def __init__(self, sets: Sets, config: QualityConfig, findings: CardFindings):
        self.sets, self.config, self.findings = sets, config, findings
        self.reading = {
            **inputs.reading(config.data),
            "columns": (),
            "format": "auto",
            "options": {},
        }
        first = next((row for _, row in sets.rows()), None)
        if first is None:
            raise DataError("there are no rows: a quality card needs at least one")
        self.fields = text_measures.fields_of(
            first.fields, config.data.columns, config.multilabel, first.where
        )
        self.reference = inputs.reference(sets.names)
        self.parts = {
            name: SplitCounts(sample=diversity.RowSample(config.sample, config.seed))
            for name in sets.names
        }
        self.texts = consistency.TextIndex()
        self.ratings = (
            {"ratings": label_measures.of_columns(config.ratings.columns, config.ratings.level)}
            if config.ratings.columns
            else {}
        )
        self.skipped: dict[str, str] = {}
        if config.embeddings is not None and len(sets.names) > 1:
            raise ConfigError(
                f"embeddings={config.embeddings}: expected one file, data.path=FILE, whose rows"
                " they belong to"
            )

    def card(self) -> dict[str, Any]:
        indexes = list(self._indexes())
        self._first_pass(indexes)
        unreadable = self._unreadable()
        self._check_columns()
        allowed = consistency.schema({name: part.consistency for name, part in self.parts.items()})
        conflicts = self._second_pass(allowed)
        quantity = distribution.is_quantity([part.distribution for part in self.parts.values()])
        numbers, tables, curves = self._numbers(quantity), self._tables(), {}
        for split, count in unreadable.items():
            numbers["completeness"][split]["unreadable_rows"] = count
        histogram = lambda what: distribution.histogram(
            {name: getattr(part.distribution, what) for name, part in self.parts.items()}
        )
        curves["lengths"] = {what: histogram(what) for what in ("characters", "words")}
        if quantity:
            curves["lengths"]["label"] = histogram("numbers")
            tables["classes"] = {}
        curves["growth"], counts = self._diversity(numbers)
        first = next(iter(self.parts.values()))
        samples = {name: part.sample for name, part in self.parts.items()}
        tables["clusters"] = found_clusters(samples, first.completeness.rows, self.config, numbers)
        tables["languages"] = (
            distribution.counted(self._languages()) if self.config.languages else {}
        )
        self._drift(numbers, counts, tables, quantity)
        self._agreement(numbers)
        self._label_issues(numbers, quantity)
        numbers["contamination"] = {index.name: index.numbers() for index in indexes}
        if not indexes:
            self.skipped["contamination"] = (
                "no benchmarks=[FILES] were given, and there is one split only"
            )
        used = {
            name for family in numbers.values() for values in family.values() for name in values
        }
        return rounded(
            {
                "card": VERSION,
                "jaxsft": __version__,
                "data": self._data(quantity),
                "options": {
                    name: value
                    for name, value in dataclasses.asdict(self.config).items()
                    if name not in ("data", "output", "compare")
                },
                "numbers": numbers,
                "tables": tables,
                "curves": curves,
                "conflicts": conflicts,
                "findings": self.findings.as_json(),
                "skipped": self.skipped,
                "definitions": {
                    name: dataclasses.asdict(measure)
                    for name, measure in MEASURES.items()
                    if name in used
                },
            }
        )

    # --- passes
    # ----------------------------------------------------------------------------------------------
    def _indexes(self) -> Iterator[Index]:
        """Yields the n-gram indexes.

        Those of the benchmarks, which all rows are compared with, and of every held-out
        split, which the reference split is compared with.
        """
        for path in self.config.benchmarks:
            yield Index.of(
                path, formats.stream(path, **self.reading), self.config.ngram, self.fields
            )
        for name in self.sets.names:
            if name != self.reference:
                rows = (row for _, row in self.sets.rows(name))
                yield Index.of(f"{name} in {self.reference}", rows, self.config.ngram, self.fields)

    def _first_pass(self, indexes: Sequence[Index]) -> None:
        for split, row in self.sets.rows():
            part, found = self.parts[split], self.fields.parts(row)
            text, names = "\n".join(found), self.fields.labels(row)
            words = [text_measures.words(one) for one in found]
            flat = [word for one in words for word in one]
            script = text_measures.script(text)
            part.digest.update(canonical(row).encode("ascii") + b"\n")
            part.completeness.add(row, self.fields, text, names)
            part.distribution.add(text, len(flat), script, names)
            part.sample.add(text, names, row.where)
            if text.strip():
                self.texts.add(
                    text_measures.key(text_measures.normalised(text)),
                    names,
                    self.sets.names.index(split),
                )
            for what in part.consistency.add(row, names):
                self.findings.add(f"consistency/{what}", split, row, text)
            self._noise(split, row, text, flat, script)
            for at, index in enumerate(indexes):
                if (at < len(self.config.benchmarks) or split == self.reference) and (
                    hit := index.look(row, words)
                ):
                    self.findings.add(
                        f"contamination/{index.name}",
                        split,
                        row,
                        text,
                        other=hit.benchmark_row,
                        detail=hit.words,
                    )
            if self.ratings:
                label_measures.add_row(self.ratings["ratings"], row)

    def _noise(self, split: str, row: Row, text: str, words: Sequence[str], script: str) -> None:
        part, broken = self.parts[split], noise.rules(text, words, script)
        part.noise.update(broken)
        bad = [name for name in broken if name in noise.RULES]
        part.noisy += bool(bad)
        for name in bad:
            self.findings.add(f"noise/{name}", split, row, text)

    def _unreadable(self) -> Counter[str]:
        """Counts rows that could not be read, by split; empty where such a row is an error."""
        found = self.sets.unreadable(sum(part.completeness.rows for part in self.parts.values()))
        for split, bad in found:
            self.findings.add("completeness/unreadable", split, bad.where, "", detail=bad.reason)
        counts = Counter(split for split, _ in found)
        return Counter({name: counts[name] for name in self.parts}) if found else Counter()

    def _check_columns(self) -> None:
        present = {name for part in self.parts.values() for name in part.completeness.present}
        for name in filter(
            None,
            (
                *self.fields.text,
                *self.fields.one_hot,
                None if self.fields.one_hot else self.fields.label,
            ),
        ):
            if name not in present:
                where = self.sets.files.get(self.reference, self.reference)
                raise DataError(
                    f"{where}: no row has the column {name!r}: found"
                    f" {', '.join(map(repr, sorted(present)))}; set data.columns"
                )

    def _second_pass(self, allowed: dict[str, set[str]]) -> list[dict[str, Any]]:
        """Counts what is known only when all rows were seen.

        Returns the first texts with several labels, each with its rows.
        """
        listed: dict[int, dict[str, Any]] = {}
        at = self.sets.names.index(self.reference)
        spelled = {
            name: group[0] for group in consistency.variants(self._labels()) for name in group[1:]
        }
        for split, row in self.sets.rows():
            part, text = self.parts[split].consistency, self.fields.text_of(row)
            names = self.fields.labels(row)
            key = text_measures.key(text_measures.normalised(text)) if text.strip() else None
            if wrong := consistency.violations(row, allowed):
                part.violating_rows += 1
                self.findings.add("consistency/type", split, row, text, detail="; ".join(wrong))
            for name in names:
                if name in spelled:
                    self.findings.add(
                        "consistency/label_variant",
                        split,
                        row,
                        text,
                        detail=f"{name!r}, elsewhere {spelled[name]!r}",
                    )
            if key is None:
                continue
            if split != self.reference and self.texts.splits[key] >> at & 1:
                part.shared_rows += 1
                self.findings.add("drift/shared", split, row, text)
            if key in self.texts.conflicting and names:
                part.conflicting_rows += 1
                self.findings.add("consistency/conflict", split, row, text, detail=", ".join(names))
                if key in listed or len(listed) < self.config.listed:
                    entry = listed.setdefault(key, {"text": text[:300], "count": 0, "rows": []})
                    entry["count"] += 1
                    if len(entry["rows"]) < ROWS:
                        entry["rows"].append(
                            {"row": row.where, "split": split, "labels": list(names)}
                        )
        return list(listed.values())

    def _labels(self) -> Counter[str]:
        return sum((part.consistency.labels for part in self.parts.values()), Counter())

    # --- numbers
    # ----------------------------------------------------------------------------------------------
    def _data(self, quantity: bool) -> dict[str, Any]:
        splits = {
            name: {
                "rows": part.completeness.rows,
                "sha256": part.digest.hexdigest(),
                **({"file": self.sets.files[name]} if self.sets.files else {}),
            }
            for name, part in self.parts.items()
        }
        kind = None if not self.fields.labelled else "quantity" if quantity else "classes"
        label = ", ".join(self.fields.one_hot) or self.fields.label
        return {
            "splits": splits,
            "reference": self.reference,
            "text": list(self.fields.text),
            "label": label,
            "label_is": kind,
        }

    def _numbers(self, quantity: bool) -> dict[str, dict[str, dict[str, Any]]]:
        labelled = self.fields.labelled
        noisy = [*noise.RULES, *noise.INFORMATIVE]
        return {
            "completeness": {
                name: part.completeness.numbers(self.fields) for name, part in self.parts.items()
            },
            "consistency": {
                name: part.consistency.numbers(labelled) for name, part in self.parts.items()
            },
            "diversity": {},
            "noise": {
                name: {
                    "noisy_rows": part.noisy / max(rows := part.completeness.rows, 1),
                    **{rule: part.noise[rule] / max(rows, 1) for rule in noisy},
                }
                for name, part in self.parts.items()
            },
            "distribution": {
                name: part.distribution.summary(quantity) for name, part in self.parts.items()
            },
            "drift": {},
            "agreement": {},
        }

    def _tables(self) -> dict[str, Any]:
        parts = self.parts.items()
        types: dict[str, Counter[str]] = {}
        for _, part in parts:
            for column, found in part.consistency.types.items():
                types.setdefault(column, Counter()).update(found)
        return {
            "columns": {name: part.completeness.by_column() for name, part in parts},
            "types": {column: dict(sorted(found.items())) for column, found in types.items()},
            "damage": {
                name: {what: part.consistency.damaged[what] for what in consistency.DAMAGE}
                for name, part in parts
            },
            "classes": distribution.counted(
                {name: part.distribution.classes for name, part in parts}
            ),
            "scripts": distribution.counted(
                {name: part.distribution.scripts for name, part in parts}
            ),
            "label_variants": consistency.variants(self._labels()),
        }

    def _diversity(self, numbers: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Counter[str]]]:
        curves, counts = {}, {}
        for at, (name, part) in enumerate(self.parts.items()):
            found, curves[name], counts[name] = diversity.numbers(
                [row[1] for row in part.sample.rows()]
            )
            numbers["diversity"][name] = {
                "repeated_rows": self.texts.repeated[at] / max(part.completeness.rows, 1),
                **found,
            }
        return curves, counts

    def _languages(self) -> dict[str, Counter[str]]:
        """Counts rows of each split by their text's language, as the stage `language` tells it.

        und is too short to tell.
        """
        told = Language().told
        return {
            name: Counter(told(row[1]) for row in part.sample.rows()[:LANGUAGES])
            for name, part in self.parts.items()
        }

    def _drift(
        self,
        numbers: dict[str, Any],
        counts: dict[str, Counter[str]],
        tables: dict[str, Any],
        quantity: bool,
    ) -> None:
        base = self.parts[self.reference]
        for name in self.sets.names:
            if name == self.reference:
                continue
            found = distribution.drift(base.distribution, self.parts[name].distribution, quantity)
            both = (self.reference, name)
            sizes = [
                {str(at): cluster["sizes"][split] for at, cluster in enumerate(tables["clusters"])}
                for split in both
            ]
            spoken = [
                {language: shares[split] for language, shares in tables["languages"].items()}
                for split in both
            ]
            for what, (a, b) in (("cluster", sizes), ("language", spoken)):
                if any(a.values()) and any(b.values()):
                    found |= distribution.counted_drift(what, a, b)
            words = sum(counts[name].values())
            if words and counts[self.reference]:
                unknown = sum(
                    count
                    for word, count in counts[name].items()
                    if word not in counts[self.reference]
                )
                found |= {
                    "vocabulary_js": distribution.js(counts[self.reference], counts[name]),
                    "unknown_words": unknown / words,
                }
            found["shared_rows"] = self.parts[name].consistency.shared_rows
            numbers["drift"][f"{name} against {self.reference}"] = found
        if len(self.sets.names) == 1:
            self.skipped["drift"] = "there is one split only"

    def _agreement(self, numbers: dict[str, Any]) -> None:
        if not self.ratings and self.config.ratings.file is None:
            self.skipped["agreement"] = (
                "no ratings were given: ratings.columns=[COLUMNS], or ratings.file=FILE with"
                " ratings.values=[COLUMNS]"
            )
            return
        if (asked := self.config.ratings).file is not None:
            how = {
                **self.reading,
                "columns": tuple(filter(None, [asked.item, asked.annotator, *asked.values])),
            }
            self.ratings = label_measures.of_file(formats.stream(asked.file, **how), asked)
        for name, ratings in self.ratings.items():
            numbers["agreement"][name] = label_measures.agreement(ratings)

    def _label_issues(self, numbers: dict[str, Any], quantity: bool) -> None:
        if not self.config.folds:
            self.skipped["label_issues"] = (
                "folds=0; folds=5 looks for wrong labels by confident learning"
            )
            return
        rows = [row for row in self.parts[self.reference].sample.rows() if len(row[2]) == 1]
        if quantity or not self.fields.labelled or len({row[2] for row in rows}) < 2:
            self.skipped["label_issues"] = (
                "rows with one label each, of at least two classes, are needed"
            )
            return
        found, looked = label_measures.issues(
            [row[1] for row in rows],
            [row[2][0] for row in rows],
            self.config.folds,
            self.config.seed,
        )
        if not looked:
            self.skipped["label_issues"] = (
                f"two classes with at least folds={self.config.folds} rows each are needed"
            )
            return
        numbers["noise"][self.reference] |= {
            "label_issues": len(found) / looked,
            "label_issue_rows": looked,
        }
        for at, likelier, probability in found:
            _, text, names, where = rows[at]
            detail = f"{names[0]} ({probability:.2g}), likelier {likelier}"
            self.findings.add("noise/label_issue", self.reference, where, text, detail=detail)


def rounded(value: Any) -> Any:
    """Rounds floats to six significant digits: further ones differ between machines."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
