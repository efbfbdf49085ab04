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
from jaxsft.metrics import names, retrieval, row_metrics, text_overlap

OF_TOKENS = ("loss", "perplexity", "token_accuracy", "tokens")
ANSWERS = ("stopped", "generated_rows")
TRUNCATED = ("error", "drop", "truncate_left", "truncate_right")
ANY = (*TRUNCATED, "window", "head_tail", "sentence")


def _given(spec: TaskSpec, config: Any) -> tuple[str, ...]:
    """Returns the names of all metrics: they do not depend on the config."""
    return spec.metrics


def _nothing(config: Any) -> None:
    """Accepts every config."""


@dataclass(frozen=True)
class TaskSpec:
    """The facts about a task that are known without JAX.

    Attributes:
      name: as in `task=NAME`.
      options: the class of `task.*`, whose docstring is the sentence of `--help`.
      records: the kind of its records: how a row is read, and the columns that decide about it.
      implementation: `module:Class` of its `jaxsft.tasks.base.Task`.
      about: what something is said of: `text`, each whole text; `words`, each word; `tokens`, over
        the vocabulary.
      output: what an answer is: label | labels | numbers | comparison | tags | tree | stretch |
        answer | target | continuation | hidden.
      metrics: the names that evaluation gives, so that a wrong name is known before any data is
        read.
      names_of: of these, those that it gives with a config, and those whose names come from it.
      metric: the one that chooses the checkpoint under `evaluation.metric=auto`; None: it hangs on
        the data.
      lower_is_better: those of which less is better.
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
    metrics: tuple[str, ...] = ("loss",)
    names_of: Callable[[TaskSpec, Any], tuple[str, ...]] = _given
    metric: str | None = "loss"
    lower_is_better: tuple[str, ...] = ("loss", "perplexity")
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
        """Returns the names of metrics under this config, with those of `evaluation.metrics`."""
        further = [row_metrics.take(name, self) for name in config.evaluation.metrics]
        return (*self.names_of(self, config), *(name for one in further for name in one.names))

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


def _of_pair(spec: TaskSpec, config: Any) -> tuple[str, ...]:
    own = {
        "label": (*names.LABEL, "rows"),
        "score": (*names.NUMBERS, "rows"),
        "nothing": retrieval.NAMES,
    }
    return ("loss", *own[of_pair(config.task.loss)])


def of_target(metric: str, target: str) -> str:
    """Returns the name of a metric of one target of several."""
    return f"{metric}_{target}"


def _of_targets(spec: TaskSpec, config: Any) -> tuple[str, ...]:
    targets = config.data.columns.targets
    each = [of_target(m, target) for target in targets for m in names.NUMBERS]
    return (*spec.metrics, *(each if len(targets) > 1 else ()))


def _of_scheme(spec: TaskSpec, config: Any) -> tuple[str, ...]:
    """Returns the names of metrics that the scheme of the tags allows, where one is set.

    Tags without chunks have no chunk metrics; with `auto` all names remain.
    """
    gone = {"auto": (), "none": names.CHUNKS}.get(config.data.columns.scheme, names.OF_WORDS)
    return tuple(name for name in spec.metrics if name not in gone)


_TAGS = ("loss", "accuracy", "words", *names.CHUNKS, *names.OF_WORDS)

CHAT = TaskSpec(
    "chat",
    options.ChatTask,
    records.CHAT,
    "jaxsft.tasks.chat:ChatSFT",
    about="tokens",
    output="answer",
    metrics=(*OF_TOKENS, "exact_match", *ANSWERS),
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
    metrics=OF_TOKENS,
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
    metrics=("loss", "perplexity", "masked_accuracy", "tokens"),
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
    metrics=("loss", "accuracy", "rows", *names.LABEL[1:]),
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
    metrics=("loss", *names.LABEL_SETS),
    lower_is_better=("loss", "hamming_loss"),
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
    metrics=("loss", *names.NUMBERS, "rows"),
    names_of=_of_targets,
    lower_is_better=("loss", *names.ERRORS),
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
    metrics=_TAGS,
    names_of=_of_scheme,
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
    metrics=(*_TAGS, "intent_accuracy", "frame_accuracy", "rows"),
    names_of=_of_scheme,
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
    metrics=(
        "loss",
        "uas",
        "las",
        "uas_nopunct",
        "las_nopunct",
        "root_accuracy",
        "label_accuracy",
        "trees",
        "upos_accuracy",
        "words",
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
    metrics=OF_TOKENS,
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
    metrics=(*OF_TOKENS, *text_overlap.SCORES, *ANSWERS),
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
    metrics=("loss", *names.LABEL, *names.NUMBERS, *retrieval.NAMES, "rows"),
    names_of=_of_pair,
    lower_is_better=("loss", *names.ERRORS),
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
    metrics=("loss", "exact_match", "f1", "rows"),
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
