"""What cannot work in the options of the tasks on whole texts: classify, multilabel, regress,
pair."""

from __future__ import annotations

import math
from typing import Any

from jaxsft import plugins
from jaxsft.config.schema import Config
from jaxsft.config.tasks import FeaturesTask, MultiLabelTask, PairTask, SpanTask, TextTask
from jaxsft.errors import ConfigError

NUMBERS = ("mse", "mae", "huber")  # losses between numbers
APART = ("cosine_embedding", "contrastive")  # they compare the vectors of two texts


def check_values(values: dict[str, Any]) -> None:
    """Each option by itself, in a flat config. Raises ConfigError."""
    spec = plugins.table("tasks")[values["task.name"]]
    known = spec.losses
    if "mse" in known:  # what plug-ins bring is between numbers too
        known = (*known, *plugins.names("losses"))
    if known and values["task.loss"] not in known:
        raise ConfigError(
            f"task.loss={values['task.loss']}: task={values['task.name']} has {', '.join(known)}"
        )
    given = values.get("task.positive_weight", "none")
    if given not in ("none", "balanced") and not _number(given, 0, math.inf):
        raise ConfigError(
            f"task.positive_weight={given}: expected none, balanced, or a finite number of more"
            " than 0"
        )
    given = values.get("task.threshold", 0.5)
    if spec.options is MultiLabelTask and given != "tuned" and not _number(given, 0, 1):
        raise ConfigError(
            f"task.threshold={given}: expected tuned, or a probability of more than 0 and less"
            " than 1"
        )
    if spec.options is PairTask and not -1 <= given <= 1:
        raise ConfigError(f"task.threshold={given}: expected a cosine, between -1 and 1")


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value < high


def check(config: Config) -> None:
    """The options together. Raises ConfigError."""
    t, columns = config.task, config.data.columns
    if columns.features and not isinstance(t, FeaturesTask):
        raise ConfigError(
            f"data.columns.features: task={t.name} reads no columns beside its text; classify,"
            " multilabel and regress do"
        )
    if len(set(columns.features)) < len(columns.features):
        raise ConfigError(
            f"data.columns.features={list(columns.features)}: expected each column once"
        )
    if strange := [name for name in columns.categories if name not in columns.features]:
        raise ConfigError(
            f"data.columns.categories=[{strange[0]}]: expected some of"
            f" data.columns.features={list(columns.features)}"
        )
    if not isinstance(t, TextTask | SpanTask):
        return
    if not config.model.tied:
        raise ConfigError(
            f"model.tied=False: task={t.name} has no output matrix over the vocabulary"
        )
    if isinstance(t, SpanTask):
        if config.data.too_long not in ("error", "drop", "window", "sentence"):
            raise ConfigError(
                f"data.too_long={config.data.too_long}: task=span would lose answers; expected"
                " error, drop, window or sentence"
            )
        return
    if isinstance(t, FeaturesTask) and "{value}" not in t.feature_template:
        raise ConfigError(
            f"task.feature_template={t.feature_template!r}: expected {{value}} in it, where the"
            " value of a column stands"
        )
    validation = config.data.validation or (config.data.path and config.data.fractions[1] > 0)
    if getattr(t, "threshold", None) == "tuned" and not validation:
        raise ConfigError(
            "task.threshold=tuned: there is no validation data to tune it on; set data.validation="
            " or data.path="
        )
    if isinstance(t, PairTask):
        if t.encoder == "bi" and config.data.too_long in ("window", "sentence"):
            raise ConfigError(
                f"data.too_long={config.data.too_long}: task.encoder=bi makes one vector of a text;"
                " expected truncate_left|right|head_tail"
            )
        _pair(config, t)


def _pair(config: Config, t: PairTask) -> None:
    if t.loss in APART and t.encoder != "bi":
        raise ConfigError(
            f"task.loss={t.loss}: compares the vectors of two texts; set task.encoder=bi"
        )
    if t.loss == "cosine_embedding" and t.positive is None:
        raise ConfigError(
            "task.loss=cosine_embedding: set task.positive=<the label of texts that belong"
            " together>"
        )
    if t.loss == "contrastive" and config.train.accumulate > 1:
        raise ConfigError(
            f"train.accumulate={config.train.accumulate}: task.loss=contrastive compares all pairs"
            " of a batch; its sum over micro-batches is another loss; set train.accumulate=1"
        )


def unread(config: Config) -> list[tuple[str, bool, str]]:
    """(option, whether nothing reads it, why), as `validate._unread` takes them."""
    t, texts = config.task, isinstance(config.task, TextTask | SpanTask)
    loss, pair, numbers = (
        getattr(t, "loss", ""),
        isinstance(t, PairTask),
        (*NUMBERS, *plugins.names("losses")),
    )
    cosine, contrast = loss == "cosine_embedding", loss == "contrastive"
    labels = texts and (
        loss == "cosine_embedding" or loss not in (*numbers, "contrastive") or not pair
    )
    smooth = t.spec.output in ("label", "labels") or (pair and loss == "cross_entropy")
    text = getattr(t, "features", "") == "text"
    return [
        (
            "task.features",
            not config.data.columns.features,
            "is read with data.columns.features only",
        ),
        ("task.feature_template", not text, "is read with task.features=text only"),
        ("task.huber_delta", loss != "huber", "is read with task.loss=huber only"),
        ("loss.chunk", texts, "is read by the losses over a vocabulary only"),
        ("loss.z_loss", texts, "is read by the losses over a vocabulary only"),
        (
            "loss.label_smoothing",
            texts and not smooth,
            f"is not read by task={t.name}" + (f" task.loss={loss}" if loss else ""),
        ),
        (
            "task.activation",
            getattr(t, "head", "") == "linear",
            "is read with task.head=dense or normed only",
        ),
        (
            "task.bias",
            pair and loss in APART and t.head == "linear",
            f"there is no layer in the head of task.loss={loss}",
        ),
        (
            "task.positive",
            pair and not cosine,
            "is read with task.loss=cosine_embedding only",
        ),
        (
            "task.margin",
            pair and not cosine,
            "is read with task.loss=cosine_embedding only",
        ),
        (
            "task.threshold",
            pair and not cosine,
            "is read with task.loss=cosine_embedding only",
        ),
        (
            "task.temperature",
            pair and not contrast,
            "is read with task.loss=contrastive only",
        ),
        ("task.labels", pair and not labels, f"task.loss={loss} reads no labels"),
    ]


DEFAULTS = {
    "task.features": "tokens",
    "task.feature_template": "{name}: {value}\n",
    "task.huber_delta": 1.0,
    "task.activation": "tanh",
    "loss.chunk": "auto",
    "loss.z_loss": 0.0,
    "loss.label_smoothing": 0.0,
    "task.bias": True,
    "task.positive": None,
    "task.margin": 0.0,
    "task.threshold": 0.5,
    "task.temperature": 0.05,
    "task.labels": None,
}
