"""The stage `words`: bags of words.

Lower case, without punctuation and stop words, stems or lemmas.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Callable
from typing import ClassVar

from jaxsft.config.option import option
from jaxsft.data import chinese
from jaxsft.data.formats import Row
from jaxsft.data.graphemes import marks
from jaxsft.data.scripts import lines_of
from jaxsft.errors import ConfigError
from jaxsft.extras import need
from jaxsft.prepare.stage import Report, Stage, State, choice
from jaxsft.prepare.text_columns import change_text, is_empty

# Snowball's names of its algorithms, by ISO 639-1 code.
SNOWBALL = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian",
    "eu": "basque",
    "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy":
    "armenian", "id": "indonesian", "it": "italian",
    "lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian", "pt": "portuguese", "ro":
    "romanian", "ru": "russian", "sr": "serbian",
    "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
_word = rf"\w+(?:[{marks()}\u200c\u200d]+\w*)*"
_token = re.compile(rf"{_word}(?:['’-]{_word})*|[^\w\s]")


@dataclasses.dataclass(frozen=True)
class Words(Stage):
    """Turns text into normalised words, joined by blanks: for classical baselines and for keyword
    features, never for a pretrained model.

    In this order: segmentation (jieba for Chinese), lower case, punctuation, stop words, stem or
    lemma. Stop words are compared in lower case, before stemming. Stems are Snowball's (Porter
    2001, snowballstem.org), lemmas simplemma's dictionary. A text of which nothing is left is
    dropped as "no words left". All libraries are in the extra `text`.
    """

    replayed: ClassVar[bool] = True
    slow: ClassVar[bool] = True

    fields: list[str] = option(
        [],
        "the columns that are changed; empty: the text column",
    )
    language: str = option(
        "en", "the ISO 639-1 code: of the stop words, the stems, the lemmas; zh segments with jieba"
    )
    lower: bool = option(True, "lower case")
    punctuation: str = option("remove", "punctuation and symbols that stand alone: remove | keep")
    stop_words: str = option(
        "none",
        "none | library (stopwordsiso's list of the language) | the path of a file with one word a"
        " line",
    )
    stem: bool = option(False, "Snowball's stem of each word; not with lemma")
    lemma: bool = option(False, "simplemma's lemma of each word; not with stem")
    empty: str = option("drop", "rows without any word left: drop | keep")

    def check(self) -> None:
        choice("words", "punctuation", self.punctuation, ("remove", "keep"))
        choice("words", "empty", self.empty, ("drop", "keep"))
        if self.stem and self.lemma:
            raise ConfigError("stages.words: stem=true and lemma=true exclude each other")
        if self.language == "zh":
            chinese.segmenter("stages.words.language=zh")
        if self.stem:
            choice("words", "language", self.language, tuple(SNOWBALL))
            _stemmer(self.language)
        if self.lemma:
            _lemmatiser(self.language)
        _stop_words(self.stop_words, self.language)

    def row(self, row: Row, state: State, report: Report) -> Row | None:
        new = row
        for name in self.fields or [self.context.text]:
            new = change_text(new, name, self.text, "stages.words.fields")
        if self.empty == "drop" and any(
            is_empty(new.fields[name]) for name in self.fields or [self.context.text]
        ):
            report.drop(row, "no words left")
            return None
        if new is not row:
            report.changed["words"] += 1
        return new

    def text(self, text: str) -> str:
        words = (
            chinese.segmenter("stages.words.language=zh").lcut(text)
            if self.language == "zh"
            else _token.findall(text)
        )
        words = [word for word in words if not word.isspace()]
        if self.lower:
            words = [word.lower() for word in words]
        if self.punctuation == "remove":
            words = [
                word for word in words if any(unicodedata.category(c)[0] in "LMN" for c in word)
            ]
        if stop := _stop_words(self.stop_words, self.language):
            words = [word for word in words if word.lower() not in stop]
        if self.stem or self.lemma:
            words = list(
                map(_stemmer(self.language) if self.stem else _lemmatiser(self.language), words)
            )
        return " ".join(words)


@functools.cache
def _stop_words(source: str, language: str) -> frozenset[str]:
    if source == "none":
        return frozenset()
    if source != "library":
        return frozenset(line.lower() for line in lines_of(source, "stages.words.stop_words"))
    library = need("stopwordsiso", "stages.words.stop_words=library")
    if not library.has_lang(language):
        raise ConfigError(
            f"stages.words.language={language}: stopwordsiso has no stop words of it; set"
            " stop_words to a file"
        )
    return frozenset(library.stopwords(language))


@functools.cache
def _stemmer(language: str) -> Callable[[str], str]:
    stemmer = need("snowballstemmer", "stages.words.stem=true").stemmer(SNOWBALL[language])
    return functools.lru_cache(maxsize=2**16)(stemmer.stemWord)


@functools.cache
def _lemmatiser(language: str) -> Callable[[str], str]:
    simplemma = need("simplemma", "stages.words.lemma=true")
    try:
        simplemma.lemmatize("x", lang=language)
    except ValueError:
        raise ConfigError(
            f"stages.words.language={language}: simplemma has no lemmas of it"
        ) from None
    return functools.lru_cache(maxsize=2**16)(functools.partial(simplemma.lemmatize, lang=language))
