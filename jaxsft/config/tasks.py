"""The options of every task. An option that does not apply to a task does not exist in its
class."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from jaxsft import plugins
from jaxsft.config.model import ACTIVATIONS
from jaxsft.config.option import Trace, option

SCORES = ("exact_match", "bleu", "chrf", "rouge_l")  # of answers


@dataclass(frozen=True)
class TaskConfig:
    name: str = "???"

    @property
    def spec(self) -> Any:
        """Returns the facts about the task (`jaxsft.tasks.specs.TaskSpec`)."""
        return plugins.table("tasks")[self.name]


# --- losses
# --------------------------------------------------------------------------------------------------
def with_losses(cls: type[TaskConfig]) -> type[TaskConfig]:
    """Adds to the options of a task what the losses say that its `task.loss` may be: their names,
    their options, each read where its loss is chosen, and what they need.

    A class without that option, or that lacks nothing, is returned as it is.
    """
    field = getattr(cls, "__dataclass_fields__", {}).get("loss")
    targets = field.metadata["accepts"].targets if field is not None else ()
    if not targets:
        return cls
    everyone = (*plugins.table("losses").own_items(), *plugins.working("losses"))
    return _with(cls, tuple((name, loss) for name, loss in everyone if loss.targets in targets))


@functools.cache
def _with(cls: type[TaskConfig], losses: tuple[tuple[str, Any], ...]) -> type[TaskConfig]:
    fields: Mapping[str, dataclasses.Field] = cls.__dataclass_fields__
    own, loss = plugins.table("losses").own, fields["loss"]
    accepts = loss.metadata["accepts"]
    words = sorted((n for n, _ in losses if n in own), key=lambda n: (n != loss.default, n))
    more = {
        option: _read_with(losses, part.options, option)
        for _, part in losses
        for option in part.own_options
        if option not in fields
    }
    if accepts.choices == tuple(words) and not more:
        return cls
    needs = {name: part.needs for name, part in losses if part.needs}
    accepts = dataclasses.replace(accepts, choices=tuple(words), needs={**accepts.needs, **needs})
    metadata = {**loss.metadata, "accepts": accepts}
    chosen = ("loss", str, dataclasses.field(default=loss.default, metadata=metadata))
    return dataclasses.make_dataclass(
        cls.__name__,
        [chosen, *more.values()],
        bases=(cls,),
        frozen=True,
        namespace={"__module__": cls.__module__, "__doc__": cls.__doc__},
    )


def _read_with(
    losses: tuple[tuple[str, Any], ...], options: type, name: str
) -> tuple[str, Any, dataclasses.Field]:
    """Returns the option of a loss as a field of a task, read where such a loss is chosen."""
    field = options.__dataclass_fields__[name]
    readers = "|".join(loss for loss, part in losses if part.options is options)
    accepts = dataclasses.replace(field.metadata["accepts"], read_if=f"task.loss={readers}")
    metadata = {**field.metadata, "accepts": accepts}
    default = (
        {"default": field.default}
        if field.default_factory is dataclasses.MISSING
        else {"default_factory": field.default_factory}
    )
    hint = typing.get_type_hints(options)[name]
    return name, hint, dataclasses.field(**default, metadata=metadata)


# --- tasks
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ChatTask(TaskConfig):
    """Conversations, of which the assistant's turns are learnt."""

    name: str = "chat"
    template: str = option(
        "auto",
        "auto: the tokenizer's, else default; chatml|llama3|gemma|mistral|phi3|qwen3|default; a"
        " name of the tokenizer's; a file",
    )
    variables: dict[str, Any] = option(
        {}, "further names that the template reads, such as enable_thinking; date: of strftime_now"
    )
    train_turns: str = option(
        "all",
        "last: of each conversation the last turn alone is trained",
        choices=("all", "last"),
    )
    allow_unwritten: bool = option(
        False, "messages or tools that the template leaves out, in whole or in part, are no error"
    )


@dataclass(frozen=True)
class LMTask(TaskConfig):
    """Raw text, of which every token is learnt."""

    name: str = "lm"


@dataclass(frozen=True)
class MLMTask(TaskConfig):
    """Some tokens of a text are hidden, and guessed."""

    name: str = "mlm"
    share: float = option(
        0.15, "of the tokens of a text that are guessed; one at least", above=0, below=1
    )
    random: float = option(0.1, "of these, replaced by a random token", at_least=0, at_most=1)
    kept: float = option(
        0.1, "of these, left as they are; the others become the mask token", at_least=0, at_most=1
    )
    whole_word: bool = option(False, "all pieces of a word are hidden together")
    mask_token: Optional[str] = option(None, "null: that of the tokenizer")
    activation: str = option(
        "gelu", "of the head: what model.activation may be", choices=ACTIVATIONS
    )


@dataclass(frozen=True)
class TextTask(TaskConfig):
    """The options that tasks on whole texts share: how a text becomes one vector, and what reads
    it.
    """

    pool: str = option(
        "mean",
        "mean | max | first | last | attention: a mean by the product with a learnt query",
        choices=("mean", "max", "first", "last", "attention"),
    )
    head: str = option(
        "linear",
        "linear | dense: a layer and an activation before it, as BERT and RoBERTa have | normed:"
        " and a norm too, as ModernBERT has",
        choices=("linear", "dense", "normed"),
    )
    activation: str = option(
        "tanh",
        "of head=dense or normed: what model.activation may be",
        choices=ACTIVATIONS,
        read_if="task.head=dense|normed",
    )
    bias: bool = option(
        True,
        "of the layers of the head",
        read_if="task.head=dense|normed or task.loss!=cosine_embedding|contrastive",
    )


@dataclass(frozen=True)
class FeaturesTask(TextTask):
    """A text, and columns beside it (`data.columns.features`)."""

    features: str = option(
        "tokens",
        "how they are given: tokens, a learnt vector each, in front of the text; or text",
        choices=("tokens", "text"),
        read_if="data.columns.features",
    )
    feature_template: str = option(
        "{name}: {value}\n",
        "of features=text: how each is written in front of the text",
        matches=r"(?s).*\{value\}.*",
        what="{value} in it, where the value of a column stands",
        read_if="task.features=text",
    )


def _windows(*hows: str) -> Any:
    return option(
        "mean",
        f"how the windows of a text become one prediction, by their logits: {' | '.join(hows)}",
        choices=hows,
        read_if="data.too_long=window",
    )


def _transition() -> Any:
    return option(
        None,
        "a .json file with the probability of each label that is given, by the true one; stage"
        " label_noise writes it",
        read_if="task.loss=forward_correction",
    )


@with_losses
@dataclass(frozen=True)
class ClassifyTask(FeaturesTask):
    """One label for a text."""

    name: str = "classify"
    labels: Optional[list[str]] = option(None, "null: inferred from the training split")
    out_of_scope: Optional[str] = option(
        None,
        "the label of texts that no other label fits: how well confidence tells them apart",
    )
    loss: str = option(
        "cross_entropy",
        "what is minimised; mse, mae and huber are between probability and label",
        plugins="losses",
        targets=("labels", "probabilities", "numbers"),
    )
    transition: Optional[str] = _transition()
    windows: str = _windows("mean", "max", "vote")
    ordinal: bool = option(
        False,
        "the labels are in an order, that of task.labels: one score of a text, and thresholds"
        " between the labels (the cumulative link model)",
        needs={
            "true": (
                ("task.labels", "their order is that of the classes"),
                ("targets=labels", "what the head gives are logarithms of probabilities"),
            )
        },
    )
    r_drop: float = option(
        0.0,
        "weight of how far two passes with other dropout are apart (arXiv:2106.14448), which makes"
        " the step twice as long",
        at_least=0,
        needs=(("model.dropout>0", "without it both passes are one"),),
        traced=Trace(when="term"),
    )
    supervised_contrastive: float = option(
        0.0,
        "weight of a loss that brings the vectors of texts of one label together, apart from those"
        " of others in the batch (arXiv:2004.11362)",
        at_least=0,
        needs=(
            (
                "train.accumulate=1",
                "it compares all texts of a batch; its sum over micro-batches is another loss",
            ),
            ("train.backbone=trained", "it moves the vectors below the head"),
            ("task.pool!=attention", "its vectors are those that are pooled below the head"),
        ),
        traced=Trace(when="term"),
    )
    contrast_temperature: float = option(
        0.1,
        "of supervised_contrastive: cosines are divided by it",
        above=0,
        read_if="task.supervised_contrastive>0",
        traced=Trace(when="read"),
    )
    prior_correction: float = option(
        0.0,
        "factor of log(share of a label in training) that is taken from the logits that predict;"
        " the loss is that of the logits as they are",
        at_least=0,
        traced=Trace(when="above 0"),
    )


@with_losses
@dataclass(frozen=True)
class MultiLabelTask(FeaturesTask):
    """Any number of labels for a text."""

    name: str = "multilabel"
    labels: Optional[list[str]] = option(None, "null: inferred from the training split")
    loss: str = option(
        "binary_cross_entropy",
        "or between probability and label: mse | mae | huber",
        plugins="losses",
        targets=("probabilities", "numbers"),
    )
    windows: str = _windows("mean", "max")
    positive_weight: Any = option(
        "none",
        "multiplies the loss of the labels that a text has: none | balanced (rows without / rows"
        " with it) | a number",
        words=("none", "balanced"),
        what="a finite number",
        above=0,
        whole=False,
    )
    threshold: Any = option(
        0.5,
        "the probability from which a label is given; tuned: one for each label, the best F1 on the"
        " validation split",
        words=("tuned",),
        what="a probability",
        above=0,
        below=1,
        whole=False,
    )


@with_losses
@dataclass(frozen=True)
class RegressTask(FeaturesTask):
    """One or several numbers for a text."""

    name: str = "regress"
    loss: str = option(
        "mse",
        "what is minimised, between prediction and number; gaussian: beside each number its"
        " deviation is predicted",
        plugins="losses",
        targets=("numbers", "normals"),
    )
    standardize: bool = option(
        True,
        "learn (y - mean) / deviation of the training rows; predictions and metrics are in the"
        " units of the data",
    )


@dataclass(frozen=True)
class TagTask(TaskConfig):
    """A tag for each word."""

    name: str = "tag"
    labels: Optional[list[str]] = option(None, "null: inferred from the training split")
    align: str = option(
        "first",
        "first | mean | all: which tokens stand for a word: its first, the mean of them, or each is"
        " trained and the first predicts",
        choices=("first", "mean", "all"),
    )
    head: str = option(
        "linear",
        "linear | dense: a layer and an activation before it | normed: and a norm too, as"
        " ModernBERT has",
        choices=("linear", "dense", "normed"),
    )
    activation: str = option(
        "tanh",
        "of head=dense or normed: what model.activation may be",
        choices=ACTIVATIONS,
        read_if="task.head=dense|normed",
    )
    crf: bool = option(
        False,
        "a linear chain scores neighbouring tags together",
        needs={
            "true": (
                (
                    "task.align!=all",
                    "a chain runs over words, and all trains tokens; set first or mean",
                ),
                ("task.untagged=null", "a chain is of the tags of all words"),
            )
        },
    )
    valid: bool = option(
        False, "predictions are tags that their scheme allows, the best such sequence"
    )
    untagged: Optional[str] = option(
        None,
        "the tag of words that nobody has tagged: neither trained nor scored; null: every tag is"
        " learnt",
    )


@dataclass(frozen=True)
class JointTask(TagTask):
    """A tag for each word and a label for the text: slots and intent, over one encoder."""

    name: str = "joint"
    intents: Optional[list[str]] = option(
        None, "the labels of texts; null: inferred from the training split"
    )
    pool: str = option(
        "mean",
        "mean | max | first | last: what of a text its label is told from",
        choices=("mean", "max", "first", "last", "attention"),
    )
    tags: float = option(
        1.0, "weight of the loss of tags, beside that of the label, which is 1", at_least=0
    )


@dataclass(frozen=True)
class ParseTask(TaskConfig):
    """A tree over the words: a head and a relation for each."""

    name: str = "parse"
    labels: Optional[list[str]] = option(
        None, "the relations; null: inferred from the training split"
    )
    arc: int = option(256, "size of the views of a word that score arcs", at_least=1)
    label: int = option(64, "size of those that score relations", at_least=1)
    decode: str = option(
        "mst",
        "mst | greedy: the best tree, or the best head of each word, which need not be a tree",
        choices=("mst", "greedy"),
    )
    upos: float = option(
        0.0,
        "weight of the loss of parts of speech (column upos), which are learnt beside the tree; 0:"
        " they are not",
        at_least=0,
    )


@dataclass(frozen=True)
class SpanCorruptionTask(TaskConfig):
    """Spans of a text are taken out, and written by the decoder of an encoder-decoder model."""

    name: str = "span_corruption"
    share: float = option(0.15, "of the tokens of a text that are taken out", above=0, below=1)
    mean_length: float = option(3.0, "of a span, in tokens", at_least=1)
    sentinel: str = option(
        "<extra_id_{i}>",
        "what stands in the place of span i, from 0: added tokens",
        matches=r"(?s).*\{i\}.*",
        what="{i} in it, for the number of a span",
    )
    start: Optional[list[str]] = option(
        None,
        "the special tokens that a decoder starts from; null: bos, else pad",
        read_if="model.decoder_layers>0",
    )


@dataclass(frozen=True)
class Seq2SeqTask(TaskConfig):
    """A text that becomes another, such as a translation."""

    name: str = "seq2seq"
    template: str = option(
        "auto",
        "what is made of a source, with {source} in its place; auto: the source, and a new line"
        " after it for a decoder-only model",
        matches=r"(?s)auto|(?!.*\{source\}.*\{source\}).*\{source\}.*",
        what="{source} in it once, where the source stands",
    )
    start: Optional[list[str]] = option(
        None,
        "of an encoder-decoder model: the special tokens that a decoder starts from; null: bos,"
        " else pad",
        read_if="model.decoder_layers>0",
    )
    scores: Optional[list[str]] = option(
        None,
        "of generated answers: exact_match | bleu | chrf | rouge_l; null: those whose library is"
        " installed",
        choices=SCORES,
    )
    score_tokens: str = option(
        "auto",
        "what BLEU and ROUGE-L count: auto (by the script of the targets) | 13a | intl | zh | char"
        " | none, as in sacrebleu",
        choices=("auto", "13a", "intl", "zh", "char", "none"),
        read_if="task.scores=null|bleu|rouge_l",
    )


@with_losses
@dataclass(frozen=True)
class PairTask(TextTask):
    """Two texts: the class of the pair, how near they are, or which belong together."""

    name: str = "pair"
    encoder: str = option(
        "cross",
        "cross: both texts in one sequence; bi: each read apart, and compared by their vectors",
        choices=("cross", "bi"),
    )
    loss: str = option(
        "cross_entropy",
        "of labels: cross_entropy | cosine_embedding (bi); of scores: mse | mae | huber; of"
        " neither: contrastive (bi)",
        plugins="losses",
        targets=("labels", "together", "nothing", "numbers"),
    )
    transition: Optional[str] = _transition()
    labels: Optional[list[str]] = option(
        None,
        "null: inferred from the training split",
        read_if="targets=labels|together",
    )
    positive: Optional[str] = option(
        None,
        "of cosine_embedding: the label of texts that belong together",
        read_if="task.loss=cosine_embedding",
    )
    threshold: float = option(
        0.5,
        "of cosine_embedding: the cosine from which two texts belong together",
        what="a cosine",
        at_least=-1,
        at_most=1,
        read_if="task.loss=cosine_embedding",
    )


@dataclass(frozen=True)
class SpanTask(TaskConfig):
    """The answer to a question, as a stretch of a context."""

    name: str = "span"
    max_answer: int = option(30, "tokens of an answer", at_least=1)
    head: str = option(
        "linear",
        "linear | dense: a layer and an activation before it | normed: and a norm too, as"
        " ModernBERT has",
        choices=("linear", "dense", "normed"),
    )
    activation: str = option(
        "tanh",
        "of head=dense or normed: what model.activation may be",
        choices=ACTIVATIONS,
        read_if="task.head=dense|normed",
    )


# the class of options of each task, by its name
TASKS = plugins.OfTable("tasks", "options", read=with_losses)
