"""The options of every task. An option that does not apply to a task does not exist in its
class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from jaxsft import plugins
from jaxsft.config.option import option


@dataclass(frozen=True)
class TaskConfig:
    name: str = "???"

    @property
    def spec(self) -> Any:
        """Returns what is known of the task (`jaxsft.tasks.specs.TaskSpec`)."""
        return plugins.table("tasks")[self.name]


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
    train_turns: str = option("all", "last: of each conversation the last turn alone is trained")
    allow_unwritten: bool = option(
        False, "a message or tools that the template leaves out are no error"
    )


@dataclass(frozen=True)
class LMTask(TaskConfig):
    """Raw text, of which every token is learnt."""

    name: str = "lm"


@dataclass(frozen=True)
class MLMTask(TaskConfig):
    """Some tokens of a text are hidden, and guessed."""

    name: str = "mlm"
    share: float = option(0.15, "of the tokens of a text that are guessed; one at least")
    random: float = option(0.1, "of these, replaced by a random token")
    kept: float = option(0.1, "of these, left as they are; the others become the mask token")
    whole_word: bool = option(False, "all pieces of a word are hidden together")
    mask_token: Optional[str] = option(None, "null: that of the tokenizer")
    activation: str = option("gelu", "of the head: what model.activation may be")


@dataclass(frozen=True)
class TextTask(TaskConfig):
    """What the tasks on whole texts share: how a text becomes one vector, and what reads it."""

    pool: str = option(
        "mean", "mean | max | first | last | attention: a mean by the product with a learnt query"
    )
    head: str = option(
        "linear",
        "linear | dense: a layer and an activation before it, as BERT and RoBERTa have | normed:"
        " and a norm too, as ModernBERT has",
    )
    activation: str = option("tanh", "of head=dense or normed: what model.activation may be")
    bias: bool = option(True, "of the layers of the head")


@dataclass(frozen=True)
class FeaturesTask(TextTask):
    """A text, and columns beside it (`data.columns.features`)."""

    features: str = option(
        "tokens", "how they are given: tokens, a learnt vector each, in front of the text; or text"
    )
    feature_template: str = option(
        "{name}: {value}\n", "of features=text: how each is written in front of the text"
    )


@dataclass(frozen=True)
class ClassifyTask(FeaturesTask):
    """One label for a text."""

    name: str = "classify"
    labels: Optional[list[str]] = option(None, "null: inferred from the training split")
    loss: str = option(
        "cross_entropy", "cross_entropy | log_loss | binary_cross_entropy | mse | mae | huber"
    )
    huber_delta: float = option(1.0, "read by loss=huber")


@dataclass(frozen=True)
class MultiLabelTask(FeaturesTask):
    """Any number of labels for a text."""

    name: str = "multilabel"
    labels: Optional[list[str]] = option(None, "null: inferred from the training split")
    loss: str = option(
        "binary_cross_entropy", "or between probability and label: mse | mae | huber"
    )
    huber_delta: float = option(1.0, "read by loss=huber")
    positive_weight: Any = option(
        "none",
        "multiplies the loss of the labels that a text has: none | balanced (rows without / rows"
        " with it) | a number",
    )
    threshold: Any = option(
        0.5,
        "the probability from which a label is given; tuned: one for each label, the best F1 on the"
        " validation split",
    )


@dataclass(frozen=True)
class RegressTask(FeaturesTask):
    """One or several numbers for a text."""

    name: str = "regress"
    loss: str = option("mse", "mse | mae | huber")
    huber_delta: float = option(
        1.0, "read by loss=huber; in standard deviations where standardize=true"
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
    )
    head: str = option(
        "linear",
        "linear | dense: a layer and an activation before it | normed: and a norm too, as"
        " ModernBERT has",
    )
    activation: str = option("tanh", "of head=dense or normed: what model.activation may be")
    crf: bool = option(False, "a linear chain scores neighbouring tags together")
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
    pool: str = option("mean", "mean | max | first | last: what of a text its label is told from")
    tags: float = option(1.0, "weight of the loss of tags, beside that of the label, which is 1")


@dataclass(frozen=True)
class ParseTask(TaskConfig):
    """A tree over the words: a head and a relation for each."""

    name: str = "parse"
    labels: Optional[list[str]] = option(
        None, "the relations; null: inferred from the training split"
    )
    arc: int = option(256, "size of the views of a word that score arcs")
    label: int = option(64, "size of those that score relations")
    decode: str = option(
        "mst",
        "mst | greedy: the best tree, or the best head of each word, which need not be a tree",
    )
    upos: float = option(
        0.0,
        "weight of the loss of parts of speech (column upos), which are learnt beside the tree; 0:"
        " they are not",
    )


@dataclass(frozen=True)
class SpanCorruptionTask(TaskConfig):
    """Spans of a text are taken out, and written by the decoder of an encoder-decoder model."""

    name: str = "span_corruption"
    share: float = option(0.15, "of the tokens of a text that are taken out")
    mean_length: float = option(3.0, "of a span, in tokens")
    sentinel: str = option(
        "<extra_id_{i}>", "what stands in the place of span i, from 0: added tokens"
    )
    start: Optional[list[str]] = option(
        None, "the special tokens that a decoder starts from; null: bos, else pad"
    )


@dataclass(frozen=True)
class Seq2SeqTask(TaskConfig):
    """A text that becomes another, such as a translation."""

    name: str = "seq2seq"
    template: str = option(
        "auto",
        "what is made of a source, with {source} in its place; auto: the source, and a new line"
        " after it for a decoder-only model",
    )
    start: Optional[list[str]] = option(
        None,
        "of an encoder-decoder model: the special tokens that a decoder starts from; null: bos,"
        " else pad",
    )
    scores: Optional[list[str]] = option(
        None,
        "of generated answers: exact_match | bleu | chrf | rouge_l; null: those whose library is"
        " installed",
    )
    score_tokens: str = option(
        "auto",
        "what BLEU and ROUGE-L count: auto (by the script of the targets) | 13a | intl | zh | char"
        " | none, as in sacrebleu",
    )


@dataclass(frozen=True)
class PairTask(TextTask):
    """Two texts: the class of the pair, how near they are, or which belong together."""

    name: str = "pair"
    encoder: str = option(
        "cross",
        "cross: both texts in one sequence; bi: each read apart, and compared by their vectors",
    )
    loss: str = option(
        "cross_entropy",
        "of labels: cross_entropy | cosine_embedding (bi); of scores: mse | mae | huber; of"
        " neither: contrastive (bi)",
    )
    labels: Optional[list[str]] = option(None, "null: inferred from the training split")
    positive: Optional[str] = option(
        None, "of cosine_embedding: the label of texts that belong together"
    )
    margin: float = option(
        0.0, "of cosine_embedding: the cosine from which others are pushed apart"
    )
    threshold: float = option(
        0.5, "of cosine_embedding: the cosine from which two texts belong together"
    )
    temperature: float = option(0.05, "of contrastive: cosines are divided by it")
    huber_delta: float = option(1.0, "read by loss=huber")


@dataclass(frozen=True)
class SpanTask(TaskConfig):
    """The answer to a question, as a stretch of a context."""

    name: str = "span"
    max_answer: int = option(30, "tokens of an answer")
    head: str = option(
        "linear",
        "linear | dense: a layer and an activation before it | normed: and a norm too, as"
        " ModernBERT has",
    )
    activation: str = option("tanh", "of head=dense or normed: what model.activation may be")


TASKS = plugins.OfTable("tasks", "options")  # the class of options of each task, by its name
