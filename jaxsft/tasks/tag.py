"""`task=tag`: a tag for each word: parts of speech, or chunks such as the names in a text."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxsft.config.schema import Config
from jaxsft.data import schemes
from jaxsft.data import word_tokens as spelling
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records import TOKENS, Tags
from jaxsft.data.records import words as words_in
from jaxsft.data.records.fields import declared_labels, first_of
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.metrics.base import Outputs
from jaxsft.metrics.by_name import METRICS
from jaxsft.models.crf import Chains, ChainScores, TagHead, negative_log_likelihood, viterbi
from jaxsft.models.heads import layers_of
from jaxsft.models.step_sums import Hits
from jaxsft.models.word_states import first_piece, mean_of_pieces, word_of
from jaxsft.tasks import rows, specs
from jaxsft.tasks.label_order import in_order
from jaxsft.tasks.loss_terms import Weighed
from jaxsft.tasks.task import Output, Task, Terms

FORBIDDEN = -1e9  # the score of what a scheme does not allow
UNTAGGED = -1  # the id of a word without a tag; the weight of its loss is 0
BLANK = "_"  # stands in CoNLL-U for what is not given


class TagWords(Task):
    """A word is what stands at its first token, or the mean of its tokens. The loss is the
    cross-entropy of its tag, or that of a linear chain.

    Where tags are chunks, precision, recall and F1 are of chunks (`f1_micro`), and right is a chunk
    whose beginning, end and type are; else they are of words, under names of their own
    (`word_f1_micro`).
    """

    spec = specs.TAG

    @property
    def best_metric(self) -> str:
        return self.metric or ("accuracy" if self.scheme == "none" else "f1_micro")

    # --- data
    # ----------------------------------------------------------------------------------------------
    def unlabelled(self, row: Row, columns: Any) -> Tags:
        """Returns the words of a row, or of its text, under tags that are never read."""
        row, columns = words_of_row(row, columns)
        tags = [self.labels[0]] * len(row.fields[columns.tokens])  # never read
        row = dataclasses.replace(row, fields={**row.fields, "tags": tags})
        return self.record(
            row, dataclasses.replace(columns, tags="tags", spans=None, scheme="none")
        )

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Tags], where: Sequence[str]
    ) -> dict[str, Any]:
        found = in_order({tag for r in records for tag in r.tags})
        labels = declared_labels(config.task.labels, found) if config.task.labels else found
        labels = cls._without_untagged(config, labels, records, where)
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise (ConfigError if config.task.labels else DataError)(
                f"{where[0].rsplit(':', 1)[0] if where else 'task.labels'}: {len(set(labels))}"
                f" different tags ({', '.join(labels[:5])}); tagging needs at least two, each named"
                " once; check data.columns.tags and task.labels"
            )
        scheme = "none"
        if all(r.scheme != "none" for r in records):
            asked = config.data.columns.scheme
            scheme = (
                asked if asked != "auto" else schemes.detect([r.tags for r in records]) or "iob2"
            )
        asked = config.evaluation.metric.partition("/")[2]
        if asked in METRICS["chunk_scores" if scheme == "none" else "word_scores"].names:
            other, what, are = (
                (f"word_{asked}", "chunks", "none")
                if scheme == "none"
                else (asked.removeprefix("word_"), "words", "chunks")
            )
            raise ConfigError(
                f"evaluation.metric=validation/{asked}: is a score of {what}, and the tags are"
                f" {are}; validation/{other} is theirs"
            )
        if config.task.valid and scheme == "none":
            raise ConfigError(
                "task.valid=true: the tags are no chunks, so that any may stand behind any; leave"
                " it out"
            )
        if config.task.untagged is not None and scheme != "none":
            raise ConfigError(
                f"task.untagged={config.task.untagged}: the tags are chunks, which a word without a"
                " tag would break; data.columns.scheme=none"
            )
        return {"labels": labels, "scheme": scheme} | (
            {} if config.task.untagged is None else {"untagged": config.task.untagged}
        )

    @staticmethod
    def _without_untagged(
        config: Config, labels: list[str], records: Sequence[Tags], where: Sequence[str]
    ) -> list[str]:
        """Returns the labels that are learnt: all but the tag of untagged words (`task.untagged`).

        Raises:
          ConfigError: no word has the tag that `task.untagged` names, or `task.labels` has it too.
          DataError: a tag looks like that of untagged words, but no option says so.
        """
        blank, count = config.task.untagged, lambda tag: sum(r.tags.count(tag) for r in records)
        if blank is None:
            numbers = all(re.fullmatch(r"-?\d+", label) for label in labels)
            none = next(
                (
                    label
                    for label in labels
                    if label == BLANK or (numbers and label.startswith("-"))
                ),
                None,
            )
            if not config.task.labels and none is not None:
                place = next(
                    place for r, place in zip(records, where, strict=True) if none in r.tags
                )
                raise DataError(
                    f"{place}: {count(none):,} words of the split have the tag {none!r}, which"
                    f" stands for none{' in CoNLL-U' if none == BLANK else ' among numbers'};"
                    f" task.untagged={none} leaves them out of loss and scores, task.labels=[...]"
                    " with it among them learns it as a tag"
                )
            return labels
        if not count(blank):
            raise ConfigError(
                f"task.untagged={blank}: no word of the training split has this tag, so that it has"
                " no effect; leave it out"
            )
        if config.task.labels and blank in labels:
            raise ConfigError(
                f"task.untagged={blank}: task.labels names it too, to be learnt; name it in one of"
                " them"
            )
        return [label for label in labels if label != blank]

    @property
    def labels(self) -> list[str]:
        return self.state["labels"]

    @property
    def untagged(self) -> str | None:
        return self.state.get("untagged")

    @property
    def scheme(self) -> str:
        return self.state["scheme"]

    def encode_all(self, records: Sequence[Tags], where: Sequence[str]) -> list[Encoded | str]:
        index = {label: i for i, label in enumerate(self.labels)}
        if (blank := self.untagged) is not None:
            index[blank] = UNTAGGED
        for record, place in zip(records, where, strict=True):
            if unknown := next((tag for tag in record.tags if tag not in index), None):
                at, known = (
                    record.tags.index(unknown),
                    ", ".join(self.labels[:10]) + (", ..." if len(index) > 10 else ""),
                )
                raise DataError(
                    f"{place}: tag {unknown!r} of word {at + 1}, {record.tokens[at]!r}, is not in"
                    f" the vocabulary of {len(index)} tags ({known}); add it by task.labels"
                )
            if "none" not in (self.scheme, record.scheme) and (
                bad := schemes.problems(record.tags, self.scheme)
            ):
                raise DataError(
                    f"{place}: tag {bad[0][0] + 1} breaks {self.scheme}, in which the training"
                    f" split is written: {bad[0][1]}; mend it, or set data.columns.scheme=none"
                )
        pieces = spelling.encode_words(
            self.tokenizer, [r.tokens for r in records], [r.glued for r in records], where
        )
        tags = [np.array([index[tag] for tag in r.tags], np.int32) for r in records]
        weight = [(tag != UNTAGGED).astype(np.float32) for tag in tags]
        return [
            spelling.encoded(*of, {"tag": tag, "weight": w})
            for of, tag, w in zip(pieces, tags, weight, strict=True)
        ]

    # --- model
    # ----------------------------------------------------------------------------------------------
    def head(self, vocab: int, precision: str) -> TagHead:
        t, model = self.config.task, self.config.model
        return TagHead(
            model.embed, precision, **layers_of(t, model), classes=len(self.labels), crf=t.crf
        )

    @staticmethod
    def term_weights(config: Config) -> dict[str, float]:
        return {"crf" if config.task.crf else "cross_entropy": 1.0}

    def totals(self, batch: Batch) -> Terms:
        return dict.fromkeys(self.term_weights(self.config), batch.words["weight"].sum())

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        hidden = self.states(model, params, batch, noise)  # [B, S, D]
        noise = noise.at(model.config.layers + 1) if noise else None
        return self.of_states(
            hidden, model.head, params["head"], batch, hyper, noise, columns=columns
        )

    def of_states(
        self, hidden, module: TagHead, weights, batch: Batch, hyper, noise, *, columns: bool
    ) -> Output:
        """Computes loss terms, metric states and predictions of tags from the states of tokens.

        `hidden` is `[B, S, D]`. The columns of predictions are returned only where `columns` is
        true.
        """
        # [B, W]
        words, gold, tagged = (
            batch.words,
            jnp.maximum(batch.words["tag"], 0),
            batch.words["tag"] != UNTAGGED,
        )
        head = lambda x: module.apply({"params": weights}, x, noise)
        values = lambda logits, tags: self.head_loss.of_words(logits, tags, hyper)
        if self.config.task.align == "all":
            by_token = head(hidden)  # [B, S, C]
            padded = jnp.pad(gold, ((0, 0), (0, 1)))
            of_token = jnp.take_along_axis(padded, word_of(words, hidden.shape[1]), axis=1)
            # the tokens of a word share its weight
            terms = {
                "cross_entropy": word_term(mean_of_pieces(values(by_token, of_token), words), words)
            }
            logits = first_piece(by_token, words)
        else:
            # [B, W, C]
            logits = head(
                (first_piece if self.config.task.align == "first" else mean_of_pieces)(
                    hidden, words
                )
            )
            if self.config.task.crf:
                nll = negative_log_likelihood(logits, gold, chains_of(words), self._scores(weights))
                terms = {"crf": word_term(nll, words)}
            else:
                terms = {"cross_entropy": word_term(values(logits, gold), words)}
        best = self._best(weights, logits, words)
        hits = Hits.update(best == gold, words["own"] & (words["segment"] > 0) & tagged)
        found = {"word.prediction": best} if columns else None
        return Output.of(terms, {"words": hits}, batch, found)

    def _best(self, weights, logits, words):
        if not (self.config.task.crf or self.config.task.valid):
            return logits.argmax(-1).astype(jnp.int32)
        scores = self._scores(weights)
        if self.config.task.valid:
            scores = ChainScores(
                *(
                    score + jnp.asarray(bar, score.dtype)
                    for score, bar in zip(scores, self._bars, strict=True)
                )
            )
        return viterbi(logits, chains_of(words), scores)

    def _scores(self, weights) -> ChainScores:
        if self.config.task.crf:
            return ChainScores(*(weights[name] for name in ("transitions", "start", "end")))
        count = len(self.labels)
        return ChainScores(jnp.zeros((count, count)), jnp.zeros(count), jnp.zeros(count))

    @functools.cached_property
    def _bars(self) -> ChainScores:
        """Returns scores that are `FORBIDDEN` where the scheme does not allow a tag in its place.

        That is behind another tag, at the beginning of a sentence, or at its end; elsewhere they
        are 0.
        """
        bar = lambda before, after: (
            0.0 if schemes.allowed(before, after, self.scheme) else FORBIDDEN
        )
        return ChainScores(
            np.array([[bar(before, after) for after in self.labels] for before in self.labels]),
            np.array([bar(None, tag) for tag in self.labels]),
            np.array([bar(tag, None) for tag in self.labels]),
        )

    # --- results
    # ----------------------------------------------------------------------------------------------
    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        """Returns the gold and predicted tag of every word of the split, but of those that nobody
        has tagged. Those of rows that were dropped have no prediction.
        """
        predicted, row = rows.words(split, columns["word.prediction"])
        gold = rows.words(split, split.arrays["word.tag"])[0]
        words = with_dropped(split, row, lambda r: self._ids(r.tags), gold, predicted)
        row, gold, predicted = (x[words[1] != UNTAGGED] for x in words)
        arrays = {"word.row": row, "word.tag": gold, "word.predicted": predicted}
        return Outputs(np.arange(len(split.records)), arrays, self.labels, self.scheme)

    def _ids(self, tags: Sequence[str]) -> np.ndarray:
        """Returns the numbers of tags."""
        index = {label: i for i, label in enumerate(self.labels)}
        return np.array([index.get(tag, UNTAGGED) for tag in tags], np.int32)

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        for row, ids in rows.words_by_row(split, columns["word.prediction"]).items():
            record, predicted = split.records[row], [self.labels[i] for i in ids]
            pairs = zip(record.tags, predicted, strict=True)
            yield {
                "row": row,
                "tokens": list(record.tokens),
                "tags": list(record.tags),
                "prediction": predicted,
                "correct": all(a == b for a, b in pairs if a != self.untagged),
            }

    @staticmethod
    def predicted(line: dict[str, Any]) -> dict[str, Any]:
        return {"prediction": line["prediction"]}

    def annotated(self, line: dict[str, Any]) -> dict[str, Any]:
        name = self.config.data.columns.tags or "tags"
        return {**{k: v for k, v in line.items() if k != "prediction"}, name: line["prediction"]}


def with_dropped(
    split: Split, row: np.ndarray, gold_of: Callable[[Any], np.ndarray], *gold_and_more: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Returns (row, gold, predictions, ...) of words with those of rows that were dropped, in the
    order of the rows. They have gold values, `gold_of(record)`, and the prediction -1.

    Args:
      row, gold_and_more: of the words of the rows that were kept.
    """
    dropped = {number: gold_of(split.records[number]) for number in split.dropped}
    if not dropped:
        return row, *gold_and_more
    rest = np.concatenate([np.full(len(gold), number) for number, gold in dropped.items()])
    golds = np.concatenate(list(dropped.values()))
    row = np.concatenate([row, rest])
    order = np.argsort(row, kind="stable")
    gold, *predicted = gold_and_more
    columns = [np.concatenate([gold, golds])]
    columns += [np.concatenate([x, np.full(len(golds), -1, x.dtype)]) for x in predicted]
    return tuple(x[order] for x in (row, *columns))


def word_term(values: Array, words: Mapping[str, Any]) -> Weighed:
    """Returns the term of a loss of each word, `[B, W]`."""
    values = jnp.where(words["segment"] > 0, values, 0)
    return Weighed(values, words["weight"], words["segment"])


def chains_of(words: Mapping[str, Any]) -> Chains:
    """Returns the chains of words that a window of a text answers for.

    The words around them belong to other windows, and only the encoder reads them.
    """
    return Chains(jnp.where(words["own"], words["segment"], 0), words["index"] == 0, words["last"])


def words_of_row(row: Row, columns: Any) -> tuple[Row, Any]:
    """Returns the row with its words in a column, and the columns that name it.

    Without such a column the text is split into words. Raises DataError.
    """
    name = columns.tokens or first_of(row, TOKENS)
    text = columns.text or "text"
    if name not in row.fields and isinstance(found := row.fields.get(text), str):
        places = words_in(found)
        if not places:
            raise DataError(f"{row.where}: column {text!r} has no word to tag; remove the row")
        misc = [
            "SpaceAfter=No" if i + 1 < len(places) and places[i + 1][0] == end else "_"
            for i, (_, end) in enumerate(places)
        ]
        others = {name: value for name, value in row.fields.items() if name != "multiword"}
        row = dataclasses.replace(
            row, fields={**others, "tokens": [found[a:b] for a, b in places], "misc": misc}
        )
        name = "tokens"
    if not isinstance(row.fields.get(name), list):
        raise DataError(
            f"{row.where}: no list of words in column {name!r}; found {', '.join(row.fields)}; set"
            " data.columns.tokens=<column>"
        )
    return row, dataclasses.replace(columns, tokens=name)
