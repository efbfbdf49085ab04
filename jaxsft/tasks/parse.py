"""`task=parse`: a dependency tree over the words: the head of each and its relation to it, and, if
wanted, its part of speech.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data import word_tokens as spelling
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records import Parse
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.losses.terms import tokens as token_losses
from jaxsft.metrics.base import Outputs
from jaxsft.models import biaffine, trees
from jaxsft.models.step_sums import Hits
from jaxsft.models.transformer import Transformer
from jaxsft.models.word_states import first_piece
from jaxsft.tasks import rows, specs
from jaxsft.tasks.tag import with_dropped, word_term, words_of_row
from jaxsft.tasks.task import Output, Task, Terms

PUNCTUATION = "PUNCT"  # of Universal Dependencies' parts of speech
OF_UPOS = ("uas_nopunct", "las_nopunct", "upos_accuracy")  # numbers that need the column upos


class ParseTrees(Task):
    """The deep biaffine parser: the cross-entropy of heads, of relations to the gold heads, and of
    parts of speech; trees by Chu, Liu and Edmonds.

    UAS is the share of words with the right head, LAS that of words with the right head and
    relation, subtypes (`nsubj:pass`) included.
    """

    spec = specs.PARSE

    # --- data
    # ----------------------------------------------------------------------------------------------
    def unlabelled(self, row: Row, columns: Any) -> Parse:
        """Returns the record of a row's words under an arbitrary tree that is never read.

        Where the row has a text in place of words, they are split off. Raises DataError.
        """
        row, columns = words_of_row(row, columns)
        count = len(row.fields[columns.tokens])
        given = {
            "heads": [0, *[1] * (count - 1)],
            "deprels": [self.labels[0]] * count,
            "upos": (self.upos or ["_"])[:1] * count,
        }
        fields = {
            name: value for name, value in row.fields.items() if name not in ("xpos", "feats")
        } | given
        return self.record(
            dataclasses.replace(row, fields=fields),
            dataclasses.replace(columns, heads="heads", deprels="deprels"),
        )

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Parse], where: Sequence[str]
    ) -> dict[str, Any]:
        labels = (
            [*config.task.labels]
            if config.task.labels
            else sorted({relation for r in records for relation in r.deprels})
        )
        asked = config.evaluation.metric.partition("/")[2]
        if config.task.upos > 0 or asked in OF_UPOS:
            what = (
                f"task.upos={config.task.upos}"
                if config.task.upos > 0
                else f"evaluation.metric=validation/{asked}"
            )
            if without := next(
                (place for r, place in zip(records, where, strict=True) if "upos" not in r.more),
                None,
            ):
                raise DataError(
                    f"{without}: no column 'upos', which {what} needs; leave it out, or give the"
                    " column"
                )
            if asked == "upos_accuracy" and not config.task.upos:
                raise ConfigError(
                    "evaluation.metric=validation/upos_accuracy: no parts of speech are learnt; set"
                    " task.upos=1"
                )
        upos = (
            sorted({tag for r in records for tag in r.more["upos"]}) if config.task.upos > 0 else []
        )
        return {"labels": labels, "upos": upos}

    @property
    def labels(self) -> list[str]:
        return self.state["labels"]

    @property
    def upos(self) -> list[str]:
        return self.state["upos"]

    def encode_all(self, records: Sequence[Parse], where: Sequence[str]) -> list[Encoded | str]:
        relations, tags = (
            {name: i for i, name in enumerate(names)} for names in (self.labels, self.upos)
        )
        pieces = spelling.encode_words(
            self.tokenizer, [r.tokens for r in records], [r.glued for r in records], where
        )
        out: list[Encoded | str] = []
        for record, place, (ids, offsets) in zip(records, where, pieces, strict=True):
            values = {
                "head": np.array(record.heads, np.int32),
                "deprel": _numbers(record.deprels, relations, "relation", record, place),
            }
            if self.upos:
                if "upos" not in record.more:
                    raise DataError(
                        f"{place}: no column 'upos', which task.upos={self.config.task.upos} needs;"
                        " give the column"
                    )
                values["upos"] = _numbers(
                    record.more["upos"], tags, "part of speech", record, place
                )
            out.append(spelling.encoded(ids, offsets, values))
        return out

    # --- model
    # ----------------------------------------------------------------------------------------------
    def head(self, vocab: int, precision: str) -> biaffine.Biaffine:
        t = self.config.task
        return biaffine.Biaffine(
            self.config.model.embed, t.arc, t.label, len(self.labels), len(self.upos), precision
        )

    @staticmethod
    def term_weights(config: Config) -> dict[str, float]:
        return {"heads": 1.0, "relations": 1.0} | (
            {"upos": config.task.upos} if config.task.upos > 0 else {}
        )

    def totals(self, batch: Batch) -> Terms:
        return dict.fromkeys(self.term_weights(self.config), batch.words["weight"].sum())

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        hidden = self.states(model, params, batch, noise)  # [B, S, D]
        words, there = batch.words, batch.words["segment"] > 0
        noise = noise.at(model.config.layers + 1) if noise else None
        views = model.head.apply({"params": params["head"]}, first_piece(hidden, words), noise)
        arcs = biaffine.masked_arcs(views, words["segment"])  # [B, W, 1 + W]
        labels = biaffine.label_logits(views, words["head"], model.precision)  # [B, W, R]
        values = lambda logits, gold: self.head_loss.of_words(logits, gold, hyper)
        # Arcs are not smoothed: how many heads there are to choose from is not the same for every
        # sentence of a row.
        terms = {
            "heads": word_term(token_losses.from_logits(arcs, words["head"]).nll, words),
            "relations": word_term(values(labels, words["deprel"]), words),
        }
        if self.upos:
            terms["upos"] = word_term(values(views.tags, words["upos"]), words)
        hits = Hits.update(arcs.argmax(-1) == words["head"], there, "uas")
        found = self._columns(model, views, arcs, words) if columns else None
        return Output.of(terms, {"words": hits}, batch, found)

    def _columns(
        self, model: Transformer, views: biaffine.Views, arcs: jax.Array, words: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Computes what leaves the device of each word: its head and relation where each word takes
        its best head; for the best tree, which the host finds, the scores of all arcs.
        """
        found = {"arcs": arcs, "segment": words["segment"]}
        if self.config.task.decode == "greedy":
            found = biaffine.best_arcs(views, arcs, words["segment"], model.precision)
        else:
            found["relations"] = biaffine.best_labels(views, model.precision)
        return found | ({"word.upos": views.tags.argmax(-1).astype(jnp.int32)} if self.upos else {})

    def decoded(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Decodes the tree of highest score of each sentence, and the best relation of each arc.

        Heads are counted in the sentence; 0 is the root. Under `task.decode=greedy` the device has
        found them (`biaffine.best_arcs`).
        """
        if "arcs" not in columns:
            return columns
        segments = columns["segment"]
        heads, relations = np.zeros_like(segments), np.zeros_like(segments)
        for row, numbers in enumerate(segments):
            for number in range(1, int(numbers.max(initial=0)) + 1):
                at = np.flatnonzero(numbers == number)
                candidates = np.concatenate([[0], at + 1])
                heads[row, at] = found = trees.best_tree(
                    columns["arcs"][row][np.ix_(at, candidates)]
                )
                relations[row, at] = columns["relations"][row][at, candidates[found]]
        kept = {
            name: value
            for name, value in columns.items()
            if name not in ("arcs", "relations", "segment")
        }
        return kept | {"word.head": heads, "word.deprel": relations}

    # --- results
    # ----------------------------------------------------------------------------------------------
    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        """Returns gold and predicted heads, relations and parts of speech of every word.

        Those of rows that were dropped have no prediction.
        """
        names = {"head": "head", "deprel": "relation"} | ({"upos": "upos"} if self.upos else {})
        index = {"deprel": self.labels, "upos": self.upos}
        arrays: dict[str, np.ndarray] = {}
        for column, name in names.items():
            predicted, row = rows.words(split, columns[f"word.{column}"])
            gold = rows.words(split, split.arrays[f"word.{column}"])[0]
            of = functools.partial(_gold, column=column, labels=index.get(column))
            words = with_dropped(split, row, of, gold, predicted)
            arrays["word.row"], arrays[f"word.{name}"], arrays[f"word.predicted_{name}"] = words
        if all("upos" in record.more for record in split.records):
            tags = [tag for record in split.records for tag in record.more["upos"]]
            arrays["word.punctuation"] = np.array(tags) == PUNCTUATION
        arrays["is_tree"] = np.zeros(len(split.records), bool)
        for row, heads in rows.words_by_row(split, columns["word.head"]).items():
            arrays["is_tree"][row] = trees.is_tree(heads)
        return Outputs(np.arange(len(split.records)), arrays, self.labels)

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        heads = rows.words_by_row(split, columns["word.head"])
        named = {"deprel": self.labels} | ({"upos": self.upos} if self.upos else {})
        found = {name: rows.words_by_row(split, columns[f"word.{name}"]) for name in named}
        for row, record in ((row, split.records[row]) for row in heads):
            more = {name: [labels[i] for i in found[name][row]] for name, labels in named.items()}
            prediction = {"head": heads[row].tolist(), **more}
            right = prediction["head"] == list(record.heads)
            yield {
                "row": row,
                "tokens": list(record.tokens),
                "heads": list(record.heads),
                "deprels": list(record.deprels),
                "prediction": prediction,
                "correct": right and prediction["deprel"] == list(record.deprels),
            }

    @staticmethod
    def predicted(line: dict[str, Any]) -> dict[str, Any]:
        return {"prediction": line["prediction"]}

    def annotated(self, line: dict[str, Any]) -> dict[str, Any]:
        """Returns the line with the predicted tree in its columns.

        `deps`, the graph of enhanced dependencies, belongs to the tree that was there and is
        emptied.
        """
        c = self.config.data.columns
        named = {"head": c.heads or "head", "deprel": c.deprels or "deprel"}
        told = {named.get(name, name): values for name, values in line["prediction"].items()}
        empty = {"deps": ["_"] * len(line["prediction"]["head"])} if "deps" in line else {}
        return {**{k: v for k, v in line.items() if k != "prediction"}, **told, **empty}


def _gold(record: Parse, column: str, labels: Sequence[str] | None) -> np.ndarray:
    """Returns the gold values of the words of a record; -1 for a name that is not learnt."""
    if column == "head":
        return np.array(record.heads, np.int32)
    index = {label: i for i, label in enumerate(labels or ())}
    named = record.deprels if column == "deprel" else record.more[column]
    return np.array([index.get(name, -1) for name in named], np.int32)


def _numbers(
    names: Sequence[str], index: Mapping[str, int], what: str, record: Parse, place: str
) -> np.ndarray:
    if unknown := next((name for name in names if name not in index), None):
        at, known = (
            names.index(unknown),
            ", ".join(list(index)[:10]) + (", ..." if len(index) > 10 else ""),
        )
        raise DataError(
            f"{place}: {what} {unknown!r} of word {at + 1}, {record.tokens[at]!r}, is not in the"
            f" vocabulary of {len(index)} of the training split ({known}); mend the row, or let"
            " training see one"
        )
    return np.array([index[name] for name in names], np.int32)
