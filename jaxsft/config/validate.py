"""What cannot work is refused here, before any data is read: one sentence that names the option,
what was found and what was expected.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft import plugins
from jaxsft.config import (
    compose,
    durations,
    hubid,
    validate_backbone,
    validate_generate,
    validate_model,
    validate_texts,
)
from jaxsft.config.model import ACTIVATIONS, ROPE_SCALING
from jaxsft.config.schema import Columns, Config, DataConfig, DataFiles, GenerateConfig
from jaxsft.config.tasks import MLMTask, SpanCorruptionTask
from jaxsft.config.validate_model import SCORES
from jaxsft.errors import ConfigError

TOO_LONG = ("error", "drop", "truncate_left", "truncate_right", "window", "head_tail", "sentence")
CHOICES: dict[str, Sequence[str]] = {
    "data.header": ("auto", "true", "false"),
    "data.unit": ("file", "line", "paragraph"),
    "data.on_bad_row": ("error", "quarantine"),
    "data.unseen_labels": ("error", "drop", "learn"),
    "data.columns.form": ("auto", "messages", "sharegpt", "alpaca", "prompt"),
    "data.columns.missing": ("error", "mask"),
    "data.columns.scheme": ("auto", "none", "iob2", "iob1", "iobes", "bilou", "bmes", "bmeso"),
    "data.too_long": TOO_LONG,
    "model.kind": ("transformer", "lstm", "gru"),
    "model.train_rows": ("all", "added"),
    "model.part": ("all", "encoder"),
    "model.norm": ("rms", "layer"),
    "model.norm_position": ("pre", "post", "output", "sandwich"),
    "model.positions": ("rope", "learned", "relative", "disentangled", "none"),
    "model.rope_scaling.kind": tuple(ROPE_SCALING),
    "model.qk_norm": ("none", "head", "all"),
    "model.activation": ACTIVATIONS,
    "model.attention": ("auto", "reference", "blocked"),
    "model.unroll": ("auto", "none", "full"),
    "train.on_nan": ("stop", "skip"),
    "train.backbone": ("trained", "cached"),
    "adapter.scaling": ("rank", "sqrt"),
    "adapter.init": ("zero", "pissa"),
    "evaluation.generate": ("end", "always", "never"),
    "precision": ("auto", "fp32", "bf16"),
    "task.align": ("first", "mean", "all"),
    "task.decode": ("mst", "greedy"),
    "task.pool": ("mean", "max", "first", "last", "attention"),
    "task.head": ("linear", "dense", "normed"),
    "task.activation": ACTIVATIONS,
    "task.encoder": ("cross", "bi"),
    "task.features": ("tokens", "text"),
    "data.mixture.exhausted": ("stop", "repeat", "error"),
    "task.train_turns": ("all", "last"),
    "task.score_tokens": ("auto", "13a", "intl", "zh", "char", "none"),
    "tokenizer.segment": ("spaces", "jieba"),
}
AT_LEAST_ONE = (
    *(f"model.{f}" for f in ("repeat_layers", "resize_mlp", "resize_heads")),
    *(f"model.{f}" for f in ("layers", "embed", "heads", "kv_heads", "head_dim", "mlp", "context")),
    "workers",
    "output.shards",
    "hosts.count",
    "hosts.timeout",
    "hosts.wait",
    "train.batch_size",
    "adapter.rank",
    "adapter.tokens",
    "optim.ns_steps",
    "train.accumulate",
    "evaluation.batch_size",
    "evaluation.patience",
    "evaluation.generate_rows",
    "generate.batch_size",
    "data.limit",
    "data.stride",
    "task.arc",
    "task.label",
    "task.max_answer",
    "tokenizer.min_count",
    "tokenizer.vocab_size",
)
NOT_NEGATIVE = (
    "optim.learning_rate",
    "optim.weight_decay",
    "optim.eps",
    "optim.adam_eps",
    "optim.initial_accumulator",
    "schedule.final",
    "loss.z_loss",
    "loss.balance",
    "loss.router_z",
    "task.upos",
    "task.tags",
    "generate.temperature",
)
# 32 bits, as the keys of the device
SEEDS = ("seed", "seeds.init", "seeds.data", "seeds.dropout", "data.split_seed", "data.plan_seed")
MOMENTS = ("b1", "b2", "momentum", "adam_b1", "adam_b2")
# in [0, 1)
FRACTIONS = (
    "model.dropout",
    "loss.label_smoothing",
    "train.ema",
    "adapter.dropout",
    *(f"optim.{f}" for f in MOMENTS),
)
ALLOW = (
    "assistant_first",
    "repeated_role",
    "no_answer",
    "several_roots",
    "partial_words",
    "discontinuous",
    "absent",
    "media",
)
GENERATED = (*SCORES, "stopped")  # metrics of answers
TRACKERS = ("wandb", "mlflow", "trackio")
COUNTS = ("rows", "tokens", "words", "generated_rows")  # metrics that do not depend on the weights
DURATIONS = (
    "train.duration",
    "train.log_every",
    "schedule.warmup",
    "schedule.decay",
    "checkpoint.every",
    "evaluation.every",
    "train.unfreeze_every",
)


def validate(
    config: Config,
    *,
    metrics: Sequence[str],
    causal: bool | None,
    generates: bool,
    can_generate: bool,
) -> None:
    """Raises ConfigError. `metrics`, `causal`, `generates` and `can_generate` are what the task
    declares.
    """
    values = compose.flat(compose.to_dict(config))
    validate_values(values)
    for key in DURATIONS:
        if values.get(key) is not None:
            durations.parse(values[key], key)
    if durations.parse(config.train.duration, "train.duration")[1] == "%":
        raise ConfigError(
            f"train.duration={config.train.duration}: the whole cannot be a percentage; give steps,"
            " epochs or examples"
        )
    for key in (
        "train.duration",
        "train.log_every",
        "checkpoint.every",
        "evaluation.every",
        "train.unfreeze_every",
    ):
        if values[key] is not None and durations.parse(values[key], key)[0] == 0:
            raise ConfigError(f"{key}={values[key]}: expected more than 0")
    if config.profile is not None:
        durations.profile_steps(config.profile)
    for key in ("optim.lr_groups", "optim.decay_groups"):
        for group in getattr(config.optim, key.partition(".")[2], ()):
            if not 0 <= group.factor < math.inf:
                raise ConfigError(
                    f"{key}: factor {group.factor} of {group.pattern!r}: expected a finite number"
                    " of at least 0"
                )
    for penalty in config.loss.penalties:
        if not 0 < penalty.weight < math.inf:
            raise ConfigError(
                f"loss.penalties: weight {penalty.weight} of {penalty.pattern!r}: expected a finite"
                " number of more than 0"
            )
    validate_model.model(config, causal)
    _unfreezing(config)
    data(config)
    _batches(config)
    _evaluation(config, metrics)
    _trackers(config.trackers.use)
    _hub(values)
    _unread(config, values)
    _masking(config)
    _generation(config, generates, can_generate)
    validate_texts.check(config)
    validate_backbone.check(config)
    config.task.spec.check(config)


def validate_each(values: dict[str, Any]) -> None:
    """Each option by itself, where a bound or a list of words says all of it. Raises ConfigError.

    Args:
      values: the flat config, of training or of preparation.
    """
    for key, known in CHOICES.items():
        if key in values and values[key] not in known:
            raise ConfigError(f"{key}={values[key]}: expected one of {', '.join(known)}")
    for keys, good, expected in (
        (AT_LEAST_ONE, lambda v: v >= 1, "at least 1"),
        (NOT_NEGATIVE, lambda v: 0 <= v < math.inf, "a finite number of at least 0"),
        (SEEDS, lambda v: 0 <= v < 2**32, "at least 0 and less than 2^32"),
        (FRACTIONS, lambda v: 0 <= v < 1, "at least 0 and less than 1"),
        (
            ("adapter.alpha", "adapter.lr_ratio"),
            lambda v: 0 < v < math.inf,
            "a finite number of more than 0",
        ),
        (("optim.clip_norm",), lambda v: v > 0, "more than 0, or null"),
        (("train.backbone_limit",), lambda v: 0 < v < math.inf, "more than 0, or null"),
        (("train.neftune",), lambda v: 0 < v < math.inf, "more than 0, or null"),
        (
            ("task.temperature", "task.huber_delta", "data.mixture.temperature"),
            lambda v: 0 < v < math.inf,
            "more than 0",
        ),
        (("task.margin",), lambda v: -1 <= v < 1, "a cosine, of at least -1 and less than 1"),
        (("model.rope_base",), lambda v: 0 < v < math.inf, "more than 0"),
        (("model.decoder_layers",), lambda v: v >= 0, "at least 0"),
        (("check.near",), lambda v: 0 <= v < 1, "at least 0 and less than 1"),
        (("check.samples", "check.places"), lambda v: v >= 0, "at least 0"),
        (("data.max_dropped",), lambda v: 0 <= v <= 1, "between 0 and 1"),
    ):
        for key in keys:
            if values.get(key) is not None and not good(values[key]):
                raise ConfigError(f"{key}={values[key]}: expected {expected}")


def validate_values(values: dict[str, Any]) -> None:
    """Each option of a training config by itself. Raises ConfigError."""
    validate_each(values)
    validate_texts.check_values(values)
    validate_generate.check(values)
    mesh = [f"mesh.{axis}" for axis in ("data", "fsdp", "tensor")]
    if len(autos := [key for key in mesh if values[key] == "auto"]) > 1:
        raise ConfigError(
            f"{' and '.join(f'{key}=auto' for key in autos)}: only one axis can take what the"
            " others leave"
        )
    for key in (key for key in mesh if values[key] != "auto"):
        if isinstance(values[key], bool) or not isinstance(values[key], int) or values[key] < 1:
            raise ConfigError(f"{key}={values[key]}: expected auto, or a number of devices")
    for key, words in (
        ("data.max_length", ("auto",)),
        ("data.max_source_length", ("auto",)),
        ("generate.max_new_tokens", ("auto",)),
        ("loss.chunk", ("auto", "none")),
    ):
        value = values[key]
        if value not in words and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise ConfigError(f"{key}={value}: expected {', '.join(words)} or a number of tokens")
    for key, what in (
        ("run_dir", "name a folder, or leave the option out"),
        ("compilation_cache", "name a folder, auto or none"),
    ):
        if values.get(key) == "":
            raise ConfigError(f"{key}= is empty; {what}")


def _unfreezing(config: Config) -> None:
    every = config.train.unfreeze_every
    if every is not None and getattr(config.model, "decoder_layers", 0):
        raise ConfigError(
            f"train.unfreeze_every={every}: with model.decoder_layers there are two stacks, and no"
            " one order from the top"
        )


def data(config: Config) -> None:
    """Where the data lies and how it is read. Raises ConfigError."""
    d = config.data
    parts = [name for name in ("train", "validation", "test") if getattr(d, name)]
    if d.path and parts:
        raise ConfigError(
            f"data.path excludes data.{', data.'.join(parts)}: give one file to be split, or the"
            " splits"
        )
    _columns(d.columns)
    _mixture(d)
    options_of_splits(d)
    if not d.path and not d.train and not d.mixture.sources:
        raise ConfigError(
            "no training data: set data.train=FILE (and data.validation=, data.test=), or"
            " data.path=FILE to have it split"
        )
    _too_long(config)
    _of_words(config)
    if d.max_length != "auto" and d.max_length > config.model.context:
        raise ConfigError(
            f"data.max_length={d.max_length}: more than model.context={config.model.context}; raise"
            " that too"
        )
    if d.max_source_length != "auto" and d.max_source_length > config.model.context:
        raise ConfigError(
            f"data.max_source_length={d.max_source_length}: more than"
            f" model.context={config.model.context}; raise that too"
        )


def options_of_splits(d: DataFiles) -> None:
    """Options of a split are read with its file. Raises ConfigError."""
    sources = {
        "train": bool(d.train or getattr(getattr(d, "mixture", None), "sources", ())),
        "validation": d.validation,
        "test": d.test,
    }
    keep = getattr(d, "keep", {})
    if unread := [
        name for name, there in sources.items() if isinstance(keep.get(name), Mapping) and not there
    ]:
        raise ConfigError(
            f"data.keep.{unread[0]}: is read with data.{unread[0]}=FILE only; set that, or give the"
            f" columns without {unread[0]}"
        )
    if unread := [name for name, there in sources.items() if name in d.options and not there]:
        raise ConfigError(
            f"data.options.{unread[0]}: is read with data.{unread[0]}=FILE only; set that, or give"
            f" the options without {unread[0]}"
        )


def _of_words(config: Config) -> None:
    if config.task.spec.of_words and not config.model.tied:
        raise ConfigError(
            f"model.tied=False: task={config.task.name} has no output matrix over the vocabulary"
        )
    if getattr(config.task, "crf", False) and config.task.align == "all":
        raise ConfigError(
            "task.crf=true: a chain runs over words, and task.align=all trains tokens; set"
            " task.align=first or mean"
        )
    if getattr(config.task, "crf", False) and config.task.untagged is not None:
        raise ConfigError(
            f"task.untagged={config.task.untagged}: a chain is of the tags of all words; set"
            " task.crf=false"
        )


def _too_long(config: Config) -> None:
    """What becomes of long texts, where the task allows it. Raises ConfigError."""
    how, task, spec = config.data.too_long, config.task.name, config.task.spec
    if how in ("head_tail", "sentence") and not spec.of_texts:
        raise ConfigError(
            f"data.too_long={how}: is read by task={'|'.join(_tasks('of_texts'))} only; found"
            f" task={task}"
        )
    tree = spec.output == "tree"
    if how == "window" and "window" not in spec.too_long:
        why = "a tree cannot be cut" if tree else "its texts are not merged from windows"
        raise ConfigError(
            f"data.too_long=window: task={task} has no windows ({why}); expected"
            f" {'error or drop' if tree else 'another'}"
        )
    if how.startswith("truncate") and spec.of_words:
        choices = "|".join(one for one in spec.too_long if one != "error")
        raise ConfigError(
            f"data.too_long={how}: task={task} would score fewer words than the file has; expected"
            f" error|{choices}"
        )


def _tasks(what: str) -> list[str]:
    """Returns the names of the tasks whose spec says `what`."""
    return [name for name, spec in plugins.table("tasks").own_items() if getattr(spec, what)]


def _mixture(d: DataConfig) -> None:
    m = d.mixture
    if not m.sources:
        return
    if given := [name for name in ("path", "train", "limit") if getattr(d, name)]:
        raise ConfigError(
            f"data.mixture.sources excludes data.{given[0]}: the sources are the training data"
        )
    if len(m.sources) < 2 or len({s.path for s in m.sources}) < len(m.sources):
        raise ConfigError(
            "data.mixture.sources: expected at least two, each with a path of its own"
        )
    weights = [s.weight for s in m.sources]
    if any(w is None for w in weights) != all(w is None for w in weights):
        raise ConfigError("data.mixture.sources: expected a weight for each of them, or for none")
    if bad := [w for w in weights if w is not None and not 0 < w < math.inf]:
        raise ConfigError(f"data.mixture.sources: weight {bad[0]}: expected more than 0")
    if weights[0] is not None and m.temperature != 1:
        raise ConfigError(f"data.mixture.temperature={m.temperature}: is read without weights only")


def _columns(c: Columns) -> None:
    if c.messages and (c.prompt or c.completion):
        raise ConfigError(
            "data.columns.messages excludes data.columns.prompt and data.columns.completion: a row"
            " has one form"
        )
    if unknown := [name for name in c.allow if name not in ALLOW]:
        raise ConfigError(f"data.columns.allow=[{unknown[0]}]: expected some of {', '.join(ALLOW)}")
    if c.label and c.labels:
        raise ConfigError(
            "data.columns.label excludes data.columns.labels: labels stand in one column, or each"
            " class has one of its own"
        )
    if c.target and c.references:
        raise ConfigError(
            "data.columns.target excludes data.columns.references: a row has one target, or a list"
            " of them"
        )
    if not c.separator:
        raise ConfigError(
            "data.columns.separator= is empty; name the sign between the labels of a cell"
        )


def _batches(config: Config) -> None:
    t, shards = config.train, config.mesh.data * config.mesh.fsdp
    if t.batch_size % (t.accumulate * shards):
        raise ConfigError(
            f"train.batch_size={t.batch_size}: not divisible by train.accumulate={t.accumulate}"
            f" times mesh.data x mesh.fsdp={shards}"
        )
    evaluation_batches(config)


def evaluation_batches(config: Config) -> None:
    """Raises ConfigError where a batch of the evaluation cannot be shared out."""
    shards = config.mesh.data * config.mesh.fsdp
    if config.evaluation.batch_size and config.evaluation.batch_size % shards:
        raise ConfigError(
            f"evaluation.batch_size={config.evaluation.batch_size}: not divisible by mesh.data x"
            f" mesh.fsdp={shards}"
        )


def _evaluation(config: Config, metrics: Sequence[str]) -> None:
    e, validation = (
        config.evaluation,
        bool(config.data.validation or (config.data.path and config.data.fractions[1] > 0)),
    )
    if e.metric != "auto":
        split, _, name = e.metric.partition("/")
        if split != "validation" or name not in metrics:
            choices = ", ".join(f"validation/{m}" for m in metrics)
            raise ConfigError(
                f"evaluation.metric={e.metric}: unknown; task={config.task.name} has {choices} (the"
                " test split never chooses)"
            )
        if not validation:
            raise ConfigError(
                f"evaluation.metric={e.metric}: there is no validation data; set data.validation="
                " or data.path="
            )
        asked = getattr(config.task, "scores", None)
        if name in SCORES and asked is not None and name not in asked:
            raise ConfigError(
                f"evaluation.metric={e.metric}: is not among task.scores={list(config.task.scores)}"
            )
        if name in GENERATED and config.task.spec.generates and e.generate != "always":
            raise ConfigError(
                f"evaluation.metric={e.metric}: answers must be generated at every evaluation; set"
                " evaluation.generate=always"
            )
        if name in COUNTS:
            raise ConfigError(
                f"evaluation.metric={e.metric}: a count is the same at every evaluation, and"
                " chooses nothing"
            )
    if e.patience is not None and not validation:
        raise ConfigError(
            f"evaluation.patience={e.patience}: there is no validation data to lose patience with;"
            " set data.validation= or data.path="
        )


def _hub(values: dict[str, Any]) -> None:
    files = [f"data.{name}" for name in ("train", "validation", "test", "path")]
    for key in (*files, "tokenizer.path", "model.pretrained", "train.init_from"):
        if hubid.is_hub(values.get(key)):
            hubid.parse(values[key], file=key in files)


def _trackers(use: Sequence[str]) -> None:
    for name in use:
        if name not in TRACKERS:
            raise ConfigError(
                f"trackers.use=[{name}]: unknown; there are {', '.join(TRACKERS)} (TensorBoard is"
                " always written)"
            )
        found = importlib.util.find_spec(name)
        # a folder wandb/ of offline runs in the working directory is a package too, with no file
        if found is None or found.origin is None:
            raise ConfigError(f"trackers.use=[{name}]: install jaxsft[{name}]")


def _generation(config: Config, generates: bool, can_generate: bool) -> None:
    """Answers that no one would see. `generate.max_new_tokens` and `allow_cut` stand in presets for
    all tasks; `never` is true of any.
    """
    name, g, standard = config.task.name, config.generate, GenerateConfig()
    if config.evaluation.generate == "always" and not generates:
        raise ConfigError(
            f"evaluation.generate=always: task={name} has no answers that are generated and scored;"
            " leave the option out"
        )
    for key in (
        f.name for f in dataclasses.fields(g) if f.name not in ("max_new_tokens", "allow_cut")
    ):
        if not can_generate and (list(g.stop) if key == "stop" else getattr(g, key)) != getattr(
            standard, key
        ):
            raise ConfigError(
                f"generate.{key}={getattr(g, key)}: task={name} generates nothing; leave the"
                " option out"
            )


def _masking(config: Config) -> None:
    t = config.task
    if not isinstance(t, MLMTask | SpanCorruptionTask):
        return
    if not 0 < t.share < 1:
        raise ConfigError(f"task.share={t.share}: expected more than 0 and less than 1")
    if isinstance(t, SpanCorruptionTask):
        if not 1 <= t.mean_length < math.inf or "{i}" not in t.sentinel:
            raise ConfigError(
                f"task.mean_length={t.mean_length} task.sentinel={t.sentinel}: expected at least 1,"
                " and {i} for the number of a span"
            )
        if config.data.too_long not in ("error", "drop"):
            raise ConfigError(
                f"data.too_long={config.data.too_long}: task=span_corruption cuts no texts; set"
                " data.unit=paragraph or line, or data.too_long=drop"
            )
        return
    if min(t.random, t.kept) < 0 or t.random + t.kept > 1:
        raise ConfigError(
            f"task.random={t.random} and task.kept={t.kept}: expected shares of at least 0 that are"
            " together at most 1"
        )


def _unread(config: Config, values: dict[str, Any]) -> None:
    """An option that was changed where nothing reads it would look as if it had an effect."""
    scores = getattr(config.task, "scores", ())
    scores = SCORES if scores is None else scores
    for key, unread, why in (
        *validate_texts.unread(config),
        (
            "data.require_stop",
            not config.task.spec.stops,
            f"is read by {' and '.join(f'task={name}' for name in _tasks('stops'))} only",
        ),
        (
            "data.max_source_length",
            not config.model.decoder_layers,
            "is read with model.decoder_layers above 0 only",
        ),
        (
            "task.start",
            not config.model.decoder_layers,
            "is read with model.decoder_layers above 0 only",
        ),
        (
            "task.score_tokens",
            not {"bleu", "rouge_l"} & set(scores),
            "is read by bleu and rouge_l of task.scores only",
        ),
        ("loss.chunk", config.task.spec.of_words, "is read by the losses over a vocabulary only"),
        ("loss.z_loss", config.task.spec.of_words, "is read by the losses over a vocabulary only"),
        ("loss.balance", not config.model.experts, "is read with model.experts only"),
        ("loss.router_z", not config.model.experts, "is read with model.experts only"),
        (
            "loss.label_smoothing",
            getattr(config.task, "crf", False),
            "is not read with task.crf=true, whose loss is of whole sequences",
        ),
        (
            "data.too_long",
            not config.task.spec.too_long,
            f"is not read by task={config.task.name}, which cuts long texts into pieces",
        ),
        (
            "generate.allow_cut",
            config.generate.max_new_tokens == "auto",
            "is read with a number of generate.max_new_tokens only",
        ),
        ("data.stride", config.data.too_long != "window", "is read with data.too_long=window only"),
        (
            "data.mixture.temperature",
            not config.data.mixture.sources,
            "is read with data.mixture.sources only",
        ),
        (
            "data.mixture.exhausted",
            not config.data.mixture.sources,
            "is read with data.mixture.sources only",
        ),
        ("data.fractions", not config.data.path, "is read with data.path only"),
        ("data.split_seed", not config.data.path, "is read with data.path only"),
        ("trackers.project", not config.trackers.use, "is read with trackers.use only"),
        ("trackers.name", not config.trackers.use, "is read with trackers.use only"),
    ):
        if unread and key in values and values[key] != DEFAULTS[key]:
            raise ConfigError(f"{key}={values[key]}: {why}")


DEFAULTS = {
    "data.require_stop": True,
    "data.max_source_length": "auto",
    "task.start": None,
    "task.score_tokens": "auto",
    "data.too_long": "error",
    "data.stride": None,
    "generate.allow_cut": False,
    **validate_texts.DEFAULTS,
    "loss.label_smoothing": 0.0,
    "loss.balance": 0.0,
    "loss.router_z": 0.0,
    "data.mixture.temperature": 1.0,
    "data.mixture.exhausted": "stop",
    "data.fractions": [0.7, 0.15, 0.15],
    "data.split_seed": 0,
    "trackers.project": "jaxsft",
    "trackers.name": None,
}
