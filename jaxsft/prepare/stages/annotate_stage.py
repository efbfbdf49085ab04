"""The stage `annotate`: a first annotation of words by a model.

It is for people to correct or for weak supervision.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Optional

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.extras import need
from jaxsft.prepare.stage import Report, RowSource, Stage, State, choice, text_of, with_fields
from jaxsft.prepare.text_columns import SPANS, add_columns, batches, predicted, unread

LAYERS = ("pos", "ner", "dep")


@dataclasses.dataclass(frozen=True)
class Annotate(Stage):
    """Adds the columns that a model says: parts of speech, names, trees; or whatever a jaxsft run
    predicts.

    - method=model: the model of a run is given each row's fields, and `take` says which fields of
      its answer become which columns. A list must be as long as the row's words.
    - method=spacy: spaCy's pipeline `model` (an installed package or a folder); method=stanza:
      Stanza's for the language `model` (already downloaded). Neither comes with jaxsft. The words
      are those of the row, if it has any, else the library's. The columns: `tokens`, and by layer
      `upos` (Universal Dependencies), `ner` (IOB2), `heads` (from 1; 0 is the root) and `deprels`.

    A pre-annotation is a guess: `annotated_by` says whose. A column that holds something is never
    replaced, unless `replace=true`; a text of several sentences has no tree, and is an error with
    the layer dep: split it before.
    """

    folders: ClassVar[tuple[str, ...]] = ("model",)

    method: str = option("model", "model | spacy | stanza")
    model: Optional[str] = option(
        None,
        "of spacy (en_core_web_sm, or a folder) and stanza (en); not of method=model, whose model"
        " the engine gives",
    )
    layers: list[str] = option(
        list(LAYERS),
        "pos | ner | dep, of spacy and stanza",
    )
    take: dict[str, Any] = option(
        {},
        "of method=model: field of the answer: new column, such as {tags: ner}",
    )
    tokens: str = option("tokens", "the column of the words")
    field: str = option("", "the column of the text of rows without words; empty: the text column")
    replace: bool = option(False, "take the place of what the columns hold")
    batch: int = option(32, "rows that the model is given at once")

    def check(self) -> None:
        choice("annotate", "method", self.method, ("model", "spacy", "stanza"))
        for layer in self.layers:
            choice("annotate", "layers", layer, LAYERS)
        if self.batch < 1:
            raise ConfigError(f"stages.annotate.batch={self.batch}: expected at least 1")
        if self.method == "model":
            if not self.take or not all(isinstance(name, str) for name in self.take.values()):
                raise ConfigError(
                    "stages.annotate.take: expected {field of the answer: new column}, such as"
                    " {tags: ner}"
                )
            if self.model is not None:
                raise ConfigError(
                    "stages.annotate.model: it belongs to method=spacy and method=stanza"
                )
            unread(self, "annotate", "method=model takes what `take` says", "layers")
            if self.context.predict is None:
                raise ConfigError(
                    "stages.annotate.method=model: it asks a model for its answers, and none was"
                    " given"
                )
            return
        if self.take:
            raise ConfigError(
                f"stages.annotate.take: it belongs to method=model; {self.method} has its own"
                " columns"
            )
        if self.model is None or not self.layers:
            raise ConfigError(
                f"stages.annotate: method={self.method} needs model=<name> and at least one layer"
            )
        _pipeline(self.method, self.model)

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterable[Row]:
        for batch in batches(rows, self.batch):
            for row, new in zip(
                batch,
                self._asked(batch) if self.method == "model" else map(self._parsed, batch),
                strict=True,
            ):
                report.changed["annotated"] += 1
                told = add_columns(
                    row, new, self.replace, "set another name, or stages.annotate.replace=true"
                )
                by = [row.fields.get("annotated_by"), self.model or "model"]
                yield with_fields(told, annotated_by="; ".join(dict.fromkeys(filter(None, by))))

    def _asked(self, rows: list[Row]) -> Iterable[dict[str, Any]]:
        for row, answer in zip(
            rows,
            predicted(self, "annotate", rows, [dict(row.fields) for row in rows], list(self.take)),
            strict=True,
        ):
            new = {str(column): answer[field] for field, column in self.take.items()}
            words = self._words(row)
            for name, value in new.items():
                if (
                    words is not None
                    and isinstance(value, list)
                    and name != SPANS
                    and len(value) != len(words)
                ):
                    raise DataError(
                        f"{row.where}: stages.annotate: the model gave {len(value)} values of"
                        f" {name!r} for {len(words)} words"
                    )
            yield new

    def _parsed(self, row: Row) -> dict[str, Any]:
        words = self._words(row)
        text = (
            ""
            if words is not None
            else text_of(row, self.field or self.context.text, "stages.annotate.field")
        )
        found = _pipeline(self.method, str(self.model))(text, words, tuple(self.layers))
        if "heads" in found and found["heads"].count(0) > 1:
            count = found["heads"].count(0)
            raise DataError(
                f"{row.where}: it has {count} sentences, and a tree is of one; split it, or leave"
                " dep out of stages.annotate.layers"
            )
        if words is not None and found["tokens"] != words:
            raise DataError(
                f"{row.where}: {self.method} split the {len(words)} words of column {self.tokens!r}"
                f" into {len(found['tokens'])}"
            )
        return {self.tokens: found.pop("tokens"), **found}

    def _words(self, row: Row) -> list[str] | None:
        found = row.fields.get(self.tokens)
        return (
            found
            if isinstance(found, list) and found and all(isinstance(word, str) for word in found)
            else None
        )


Parse = Callable[[str, list[str] | None, tuple[str, ...]], dict[str, list]]


@functools.lru_cache(maxsize=4)
def _pipeline(method: str, model: str) -> Parse:
    """Returns a function (text, words or None, layers) -> columns.

    Raises ConfigError where the library or its model is missing.
    """
    library: Any = need(method, f"stages.annotate.method={method}", None)
    try:
        return (
            _spacy(library, library.load(Path(model) if Path(model).is_dir() else model))
            if method == "spacy"
            else _stanza(library, model)
        )
    except Exception as error:  # each library has its own errors for a model that is not there
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"stages.annotate.model={model}: {method} cannot load it ({reason:.160})"
        ) from None


def _spacy(spacy: Any, pipeline: Any) -> Parse:
    def parse(text: str, words: list[str] | None, layers: tuple[str, ...]) -> dict[str, list]:
        doc = pipeline(text if words is None else spacy.tokens.Doc(pipeline.vocab, words=words))
        for layer, made in (("pos", "POS"), ("ner", "ENT_IOB"), ("dep", "DEP")):
            if layer in layers and len(doc) and not doc.has_annotation(made):
                there = ", ".join(pipeline.pipe_names) or "nothing"
                raise ConfigError(
                    f"stages.annotate.layers: the pipeline does not say {layer}; it has {there}"
                )
        tokens = [token for token in doc if words is not None or not token.is_space]
        number = {token.i: i for i, token in enumerate(tokens, start=1)}
        found: dict[str, list] = {"tokens": [token.text for token in tokens]}
        if "pos" in layers:
            found["upos"] = [token.pos_ for token in tokens]
        if "ner" in layers:
            found["ner"] = [
                f"{token.ent_iob_}-{token.ent_type_}" if token.ent_type_ else "O"
                for token in tokens
            ]
        if "dep" in layers:
            found["heads"] = [_head(token, number) for token in tokens]
            found["deprels"] = [token.dep_ for token in tokens]
        return found

    return parse


def _head(token: Any, number: dict[int, int]) -> int:
    """Returns the number of a word's head, skipping heads that are white space, no words here."""
    head = token.head
    while head.i not in number and head.head.i != head.i:
        head = head.head
    return 0 if head.i == token.i else number.get(head.i, 0)


def _stanza(stanza: Any, language: str) -> Parse:
    @functools.cache
    def pipeline(split: bool, layers: tuple[str, ...]) -> Any:
        needs = {"pos": ["pos"], "ner": ["ner"], "dep": ["pos", "lemma", "depparse"]}
        processors = ["tokenize", *dict.fromkeys(name for layer in layers for name in needs[layer])]
        return stanza.Pipeline(
            language,
            processors=",".join(processors),
            tokenize_pretokenized=split,
            download_method=None,
            verbose=False,
        )

    pipeline(True, ("pos",))

    def parse(text: str, words: list[str] | None, layers: tuple[str, ...]) -> dict[str, list]:
        doc = pipeline(words is not None, layers)(text if words is None else [words])
        pairs = [
            (token, word, i)
            for sentence in doc.sentences
            for token in sentence.tokens
            for i, word in enumerate(token.words)
        ]
        found: dict[str, list] = {"tokens": [word.text for _, word, _ in pairs]}
        if "pos" in layers:
            found["upos"] = [word.upos for _, word, _ in pairs]
        if "ner" in layers:
            found["ner"] = [iob2(token.ner, first=i == 0) for token, _, i in pairs]
        if "dep" in layers:
            found["heads"], found["deprels"] = (
                [word.head for _, word, _ in pairs],
                [word.deprel for _, word, _ in pairs],
            )
        return found

    return parse


def iob2(tag: str, first: bool = True) -> str:
    """Converts a tag of IOBES to IOB2.

    `first` is false for the later words of a token that is several (German "zum" is "zu" and
    "dem").
    """
    if tag == "O":
        return tag
    return ("B" if tag[0] in "BS" and first else "I") + tag[1:]
