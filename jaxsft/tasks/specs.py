"""What can be said of a task without JAX: its options, its records, its metrics, what it does with
long texts. Every place that asks about a task asks its spec (`config.task.spec`), never its name.

A task is its spec and a class (`TaskSpec.implementation`), which is imported when it runs. A new
task is a folder `jaxsft/tasks/NAME/`: options and `SPEC` in its `__init__.py`, which imports no
JAX, the class in a file beside it. A package of its own looks the same (docs/add_a_task.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxsft import losses, plugins
from jaxsft.config import tasks as options
from jaxsft.config.option import declarations
from jaxsft.data import records
from jaxsft.data.records import Kind
from jaxsft.errors import ConfigError
from jaxsft.metrics import by_name

TRUNCATED = ("error", "drop", "truncate_left", "truncate_right")
ANY = (*TRUNCATED, "window", "head_tail", "sentence")


# what the outputs of a task have (`jaxsft.metrics.base.Outputs`), by `TaskSpec.output`
_TOKENS = ("nll", "correct", "count", "bytes")
_ANSWER = ("answer", "references", "stopped", "schema")
_LABEL, _NUMBERS = ("label", "predicted", "logits"), ("targets", "predictions")
_WORDS = ("word.row", "word.tag", "word.predicted", "intent_hit", "frame_hit")
GIVEN = {
    "label": (*_LABEL, "out_of_scope"),
    "labels": ("labels", "given", "logits"),
    "numbers": _NUMBERS,
    "comparison": (*_LABEL, *_NUMBERS, "rank", "cosine"),
    "tags": _WORDS,
    "tree": (
        "word.row",
        *(
            f"word.{which}{name}"
            for name in ("head", "relation", "upos")
            for which in ("", "predicted_")
        ),
        "word.punctuation",
        "is_tree",
    ),
    "stretch": ("exact", "f1", "span.gold", "span.predicted"),
    "answer": (*_TOKENS, *_ANSWER),
    "target": (*_TOKENS, *_ANSWER),
    "continuation": _TOKENS,
    "hidden": _TOKENS[:3],
}


def _all(spec: TaskSpec, config: Any) -> tuple[str, ...]:
    """Returns all metrics of a task: they do not depend on the config."""
    return spec.measures


def _nothing(config: Any) -> None:
    """Accepts every config."""


@dataclass(frozen=True)
class TaskSpec:
    """The facts about a task that are known without JAX.

    Attributes:
      name: as in `task=NAME`.
      options: the class of `task.*`, whose docstring is the sentence of `--help`.
      records: the kind of its records: how a row is read, and the columns that decide about it.
      implementation: `module:Class` of its `jaxsft.tasks.task.Task`.
      about: what something is said of: `text`, each whole text; `words`, each word; `tokens`, over
        the vocabulary.
      output: what an answer is: label | labels | numbers | comparison | tags | tree | stretch |
        answer | target | continuation | hidden.
      measures: the metrics of `jaxsft/metrics` that it has by itself, where its outputs have what
        they read; so the names of its numbers are known before any data is read.
      measures_of: of these, those that a config allows.
      answer_measures: those of generated answers.
      numbers_of: names of further numbers, which come from the config.
      metric: the number that chooses the checkpoint under `evaluation.metric=auto`; None: it hangs
        on the data.
      causal: what the model's attention must be; None where both work.
      decoder: whether the decoder of an encoder-decoder model writes: no | may | must.
      generates: answers are generated from `prompt` and scored against `reference`.
      can_generate: a prompt can be continued or answered.
      conversations: a prompt may be a list of messages, which a chat template writes.
      stops: what is trained ends with a stop token, which `data.require_stop` checks.
      too_long: what `data.too_long` may be; empty: it is not read, and long texts are cut.
      head: the kind of head in the layouts of Hugging Face: lm | mlm | text | tag | span.
      problems: what `problem_type` of a config.json may say of its head; the first is that of
        labels, the last that of numbers.
      preset: options where the task is chosen, as in a file of `conf/task/`; of plug-ins.
      check: refuses a config of this task with a ConfigError.
      pipeline, does: of the model card: the tag of the hub, and what the model does.
    """

    name: str
    options: type[options.TaskConfig]
    records: Kind
    implementation: str
    about: str = "text"
    output: str = "label"
    measures: tuple[str, ...] = ()
    measures_of: Callable[[TaskSpec, Any], tuple[str, ...]] = _all
    answer_measures: tuple[str, ...] = ()
    numbers_of: Callable[[Any], tuple[str, ...]] = lambda config: ()
    metric: str | None = "loss"
    causal: bool | None = None
    decoder: str = "no"
    generates: bool = False
    can_generate: bool = False
    conversations: bool = False
    stops: bool = False
    too_long: tuple[str, ...] = ANY
    head: str | None = None
    problems: tuple[str, ...] = ()
    preset: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Any], None] = _nothing
    pipeline: str | None = None
    does: str = "does what its task says"

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    @property
    def of_words(self) -> bool:
        return self.about == "words"

    @property
    def over_vocabulary(self) -> bool:
        return self.about == "tokens"

    @property
    def has_lm_head(self) -> bool:
        """Returns whether the head of the task is the output matrix of a language model."""
        return self.head == "lm"

    @property
    def losses(self) -> tuple[str, ...]:
        """Returns the choices of `task.loss`, without plug-ins.

        It is empty where the task has no such option.
        """
        loss = declarations(self.options).get("loss")
        return loss.accepts.choices if loss else ()

    def metric_names(self, config: Any) -> tuple[str, ...]:
        """Returns the names of the numbers of an evaluation under this config.

        Raises ConfigError for a metric of `evaluation.metrics` that the task cannot feed, that
        needs answers where none are generated, or that gives a number of another metric.
        """
        own = [*self.measures_of(self, config), *self.answer_measures]
        seen = {number: name for name in own for number in by_name.METRICS[name].names}
        for name in config.evaluation.metrics:
            by_name.check_fits(name, self.given(config), self.name)
            if by_name.METRICS[name].of_answers and config.evaluation.generate == "never":
                raise ConfigError(
                    f"evaluation.metrics=[{name}]: is of generated answers; set"
                    " evaluation.generate=end|always, or leave it out"
                )
            for number in by_name.METRICS[name].names:
                if seen.setdefault(number, name) != name:
                    raise ConfigError(
                        f"evaluation.metrics=[{name}]: gives {number}, which {seen[number]} gives"
                        " too; ask for one of them, or give the number another name"
                    )
        return tuple(dict.fromkeys(["loss", *seen, *self.numbers_of(config)]))

    def given(self, config: Any) -> list[str]:
        """Returns the arrays and texts that the outputs of the task have under this config."""
        of = {"schema": config.data.columns.schema, "out_of_scope": _out_of_scope(config)}
        every = ("loss_terms", *GIVEN.get(self.output, ()))
        return [name for name in every if of.get(name, name) is not None]

    def answer_numbers(self, config: Any) -> tuple[str, ...]:
        """Returns the names of the numbers that need generated answers."""
        further = [n for n in config.evaluation.metrics if by_name.METRICS[n].of_answers]
        return by_name.numbers_of([*self.answer_measures, *further])

    def task(self) -> Any:
        """Returns the class of the task, which imports JAX. Raises ConfigError."""
        module, _, name = self.implementation.partition(":")
        found = getattr(importlib.import_module(module), name, None)
        if found is None or getattr(found, "spec", None) is not self:
            raise ConfigError(
                f"task={self.name}: {self.implementation} is no class with spec = this spec"
            )
        return found


def of_pair(loss: str) -> str:
    """Returns what a pair must have for a loss: label | score | nothing. Raises ConfigError."""
    what = {"labels": "label", "together": "label", "nothing": "nothing"}
    return what.get(losses.get(loss).targets, "score")


def of_target(number: str, target: str) -> str:
    """Returns the name of a number of one target of several."""
    return f"{number}_{target}"


def _of_targets(config: Any) -> tuple[str, ...]:
    targets, numbers = config.data.columns.targets, by_name.METRICS["number_scores"].names
    each = tuple(of_target(number, target) for target in targets for number in numbers)
    return each if len(targets) > 1 else ()


def _of_scheme(spec: TaskSpec, config: Any) -> tuple[str, ...]:
    """Returns the metrics that the scheme of the tags allows, where one is set.

    Tags without chunks have no metrics of chunks; with `auto` all remain.
    """
    gone = {"auto": "", "none": "chunk_scores"}.get(config.data.columns.scheme, "word_scores")
    return tuple(name for name in spec.measures if name != gone)


def _out_of_scope(config: Any) -> str | None:
    return getattr(config.task, "out_of_scope", None)


def _of_labels(spec: TaskSpec, config: Any) -> tuple[str, ...]:
    return spec.measures[: 1 if _out_of_scope(config) is None else None]


def _of_pair(spec: TaskSpec, config: Any) -> tuple[str, ...]:
    return PAIR_MEASURES[of_pair(config.task.loss)]


PAIR_MEASURES = {
    "label": ("label_scores",),
    "score": ("number_scores", "row_count"),
    "nothing": ("retrieval_scores",),
}
_TAGS = ("word_accuracy", "chunk_scores", "word_scores")

CHAT = TaskSpec(
    "chat",
    options.ChatTask,
    records.CHAT,
    "jaxsft.tasks.chat:ChatSFT",
    about="tokens",
    output="answer",
    measures=("token_scores",),
    answer_measures=("exact_match", "stop_rate"),
    causal=True,
    generates=True,
    can_generate=True,
    conversations=True,
    stops=True,
    too_long=TRUNCATED,
    head="lm",
    pipeline="text-generation",
    does="answers prompts in a conversation",
)
LM = TaskSpec(
    "lm",
    options.LMTask,
    records.TEXT,
    "jaxsft.tasks.lm:LM",
    about="tokens",
    output="continuation",
    measures=("token_scores",),
    causal=True,
    can_generate=True,
    too_long=(),
    head="lm",
    pipeline="text-generation",
    does="continues text",
)
MLM = TaskSpec(
    "mlm",
    options.MLMTask,
    records.TEXT,
    "jaxsft.tasks.mlm:MaskedLM",
    about="tokens",
    output="hidden",
    measures=("masked_token_scores",),
    causal=False,
    too_long=(),
    head="mlm",
)
CLASSIFY = TaskSpec(
    "classify",
    options.ClassifyTask,
    records.LABEL,
    "jaxsft.tasks.classify:Classify",
    output="label",
    metric="accuracy",
    measures=("label_scores", "out_of_scope"),
    measures_of=_of_labels,
    head="text",
    problems=("single_label_classification",),
    pipeline="text-classification",
    does="gives one of its labels to a text",
)
MULTILABEL = TaskSpec(
    "multilabel",
    options.MultiLabelTask,
    records.LABELS,
    "jaxsft.tasks.multilabel:MultiLabelTask",
    output="labels",
    metric="f1_micro",
    measures=("label_set_scores",),
    head="text",
    problems=("multi_label_classification",),
    pipeline="text-classification",
    does="gives any of its labels to a text",
)
REGRESS = TaskSpec(
    "regress",
    options.RegressTask,
    records.NUMBERS,
    "jaxsft.tasks.regress:Regress",
    output="numbers",
    metric="pearson",
    measures=("number_scores", "row_count"),
    numbers_of=_of_targets,
    head="text",
    problems=("regression",),
    pipeline="text-classification",
    does="gives numbers to a text",
)
TAG = TaskSpec(
    "tag",
    options.TagTask,
    records.TAGS,
    "jaxsft.tasks.tag:TagWords",
    about="words",
    output="tags",
    metric=None,
    measures=_TAGS,
    measures_of=_of_scheme,
    too_long=("error", "drop", "window"),
    head="tag",
)
JOINT = TaskSpec(
    "joint",
    options.JointTask,
    records.SLOTS,
    "jaxsft.tasks.joint:SlotsAndIntent",
    about="words",
    output="tags",
    metric="frame_accuracy",
    measures=(*_TAGS, "frame_scores"),
    measures_of=_of_scheme,
    too_long=("error", "drop", "window"),
)
PARSE = TaskSpec(
    "parse",
    options.ParseTask,
    records.TREE,
    "jaxsft.tasks.parse:ParseTrees",
    about="words",
    output="tree",
    metric="las",
    measures=(
        "attachment_scores",
        "attachment_scores_nopunct",
        "relation_scores",
        "upos_scores",
    ),
    too_long=("error", "drop"),
)
SPAN_CORRUPTION = TaskSpec(
    "span_corruption",
    options.SpanCorruptionTask,
    records.TEXT,
    "jaxsft.tasks.span_corruption:SpanCorruption",
    about="tokens",
    output="hidden",
    measures=("token_scores",),
    causal=False,
    decoder="must",
    too_long=("error", "drop"),
    head="lm",
)
SEQ2SEQ = TaskSpec(
    "seq2seq",
    options.Seq2SeqTask,
    records.SOURCE_TARGET,
    "jaxsft.tasks.seq2seq:Seq2SeqTask",
    about="tokens",
    output="target",
    measures=("token_scores",),
    answer_measures=(*options.SCORES, "stop_rate"),
    causal=None,  # true of a decoder-only model, false of an encoder; see config/rules.py
    decoder="may",
    generates=True,
    can_generate=True,
    stops=True,
    too_long=TRUNCATED,
    head="lm",
    pipeline="text2text-generation",
    does="writes a target for a source",
)
PAIR = TaskSpec(
    "pair",
    options.PairTask,
    records.PAIR,
    "jaxsft.tasks.pair:PairTask",
    output="comparison",
    measures=tuple(dict.fromkeys(name for names in PAIR_MEASURES.values() for name in names)),
    measures_of=_of_pair,
    head="text",
    problems=("single_label_classification", "regression"),
    pipeline="sentence-similarity",
    does="compares two texts",
)
SPAN = TaskSpec(
    "span",
    options.SpanTask,
    records.QUESTION,
    "jaxsft.tasks.span:SpanTask",
    output="stretch",
    metric="f1",
    measures=("answer_scores",),
    too_long=("error", "drop", "window", "sentence"),
    head="span",
)
_OWN = (
    CHAT,
    LM,
    MLM,
    CLASSIFY,
    MULTILABEL,
    REGRESS,
    TAG,
    JOINT,
    PARSE,
    SPAN_CORRUPTION,
    SEQ2SEQ,
    PAIR,
    SPAN,
)
# Those above, and of each folder here its `SPEC`, which is imported when it is asked for.
SPECS = plugins.Registry(
    "tasks",
    {
        **{spec.name: spec for spec in _OWN},
        **plugins.files("jaxsft.tasks", "SPEC", folders=True),
    },
)


def of_problem() -> dict[str, str]:
    """Returns the task of each `problem_type`, as transformers tells the classes apart."""
    own = (spec for _, spec in SPECS.own_items())
    return {spec.problems[0]: spec.name for spec in own if len(spec.problems) == 1}
