"""The stage `language`: the language, or the script, of a text."""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections import Counter
from typing import Any, ClassVar

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError
from jaxsft.extras import need
from jaxsft.prepare.stage import Report, Stage, State, choice
from jaxsft.prepare.text_columns import add_columns, judge, text_in, unread

SCRIPT_NAMES = {"CJK": "Han", "HANGUL": "Hangul", "IDEOGRAPHIC": "Han", "NKO": "Nko"}
UNTOLD = "und"  # undetermined, ISO 639-2


@dataclasses.dataclass(frozen=True)
class Language(Stage):
    """Tells the language of each text, and keeps the rows in the languages that are wanted.

    method=model asks py3langid (Lui & Baldwin 2012, langid.py: naive Bayes over byte n-grams; 97
    languages, offline; the extra `text`) and adds the columns `language` (ISO 639-1) and
    `language_probability`. It guesses badly on few words: a text of fewer letters than
    `min_letters` is "und" (undetermined, ISO 639-2), and `short` says what becomes of it.

    method=script needs no library: it counts letters by script, the first word of their Unicode
    name, and adds `script`, the most frequent one, and `script_share`, the share of letters in the
    scripts of `keep` (without any: in the most frequent one). Japanese is Han, Hiragana and
    Katakana. A letter that other scripts borrow (modifier letters) counts as none.
    """

    slow: ClassVar[bool] = True

    field: str = option("", "the column that is looked at; empty: the text column")
    method: str = option("model", "model | script")
    keep: list[str] = option(
        [],
        "languages (en, zh ...) or scripts (Latin, Han ...) that stay; empty: all",
    )
    min_probability: float = option(
        0.0,
        "of the language that was found, or the share of letters in the scripts that are kept: less"
        " is another one",
    )
    min_letters: int = option(
        20,
        "a text of fewer letters has no language; Han characters count threefold. method=script: of"
        " none at all",
    )
    short: str = option("keep", "texts without a language: keep | drop")
    candidates: list[str] = option(
        [],
        "the languages that method=model chooses from; empty: all that it knows",
    )
    action: str = option("drop", "the other rows: drop | mark (the column `marks` says why)")
    replace: bool = option(
        False, "the new columns may take the place of old ones that hold something"
    )

    def check(self) -> None:
        choice("language", "method", self.method, ("model", "script"))
        choice("language", "short", self.short, ("keep", "drop"))
        choice("language", "action", self.action, ("drop", "mark"))
        if not 0 <= self.min_probability <= 1:
            raise ConfigError(
                f"stages.language.min_probability={self.min_probability}: expected a number from 0"
                " to 1"
            )
        if self.method == "script":
            unread(self, "language", "method=script counts letters", "candidates", "min_letters")
            return
        known = set(_identifier(tuple(self.candidates)).labels)
        for name in ("keep", "candidates"):
            if unknown := [language for language in getattr(self, name) if language not in known]:
                raise ConfigError(
                    f"stages.language.{name}: {unknown[0]!r} is none of the languages that can be"
                    f" found: {', '.join(sorted(known))}"
                )

    def row(self, row: Row, state: State, report: Report) -> Row | None:
        text = text_in(row, self.field or self.context.text, "stages.language.field")
        found, share, names = (
            self._script(text) if self.method == "script" else self._language(text)
        )
        new = add_columns(
            row,
            {names[0]: found, names[1]: round(share, 4)},
            self.replace,
            "rename it, or set stages.language.replace=true",
        )
        report.changed[f"{names[0]} {found}"] += 1
        if found == UNTOLD:
            reasons = ["too short to tell"] if self.short == "drop" else []
        elif self.method == "model" and self.keep and found not in self.keep:
            reasons = ["another language"]
        else:
            none = self.method == "script" and self.keep and share == 0
            reasons = (
                [f"another {names[0]}" if none else "not sure enough"]
                if none or share < self.min_probability
                else []
            )
        return judge(self, "language", new, reasons, report, self.action)

    def told(self, text: str) -> str:
        """Returns the language of a text; UNTOLD where it is too short to tell."""
        return self._language(text)[0]

    def _language(self, text: str) -> tuple[str, float, tuple[str, str]]:
        letters = sum((3 if script(c) == "Han" else 1) for c in text if c.isalpha())
        names = ("language", "language_probability")
        if letters < max(self.min_letters, 1):
            return UNTOLD, 0.0, names
        found, probability = _identifier(tuple(self.candidates)).classify(text)
        return str(found), float(probability), names

    def _script(self, text: str) -> tuple[str, float, tuple[str, str]]:
        counts, names = script_counts(text), ("script", "script_share")
        if not counts:
            return UNTOLD, 0.0, names
        first = max(sorted(counts), key=counts.__getitem__)
        return (
            first,
            sum(counts[name] for name in set(self.keep or [first])) / counts.total(),
            names,
        )


@functools.lru_cache(maxsize=2**16)
def script(character: str) -> str | None:
    """Returns the script of a letter, from its Unicode name; None where it has no single one.

    Latin, Han, Cyrillic, Hiragana ...
    """
    if not character.isalpha() or unicodedata.category(character) == "Lm":
        return None
    name = (
        unicodedata.name(character, "")
        .removeprefix("FULLWIDTH ")
        .removeprefix("HALFWIDTH ")
        .partition(" ")[0]
        .partition("-")[0]
    )
    return SCRIPT_NAMES.get(name, name.title()) or None


def script_counts(text: str) -> Counter[str]:
    """Counts the letters in each script."""
    return Counter(filter(None, map(script, text)))


@functools.cache
def _identifier(candidates: tuple[str, ...]) -> Any:
    langid = need("py3langid.langid", "stages.language.method=model")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    if candidates and set(candidates) <= set(identifier.labels):
        identifier.set_languages(list(candidates))
    return identifier
