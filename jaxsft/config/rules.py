"""What cannot work between options, group by group: each function yields one sentence for each
rule that a config breaks. What one declaration says (`option.py`) is not repeated here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxsft.config import durations
from jaxsft.config.model import ModelConfig
from jaxsft.config.schema import AXES, Columns, Config, DataFiles, GenerateConfig
from jaxsft.config.tasks import SCORES, FeaturesTask
from jaxsft.config.until import Until

COUNTS = ("rows", "tokens", "words", "generated_rows")  # metrics that do not depend on the weights
Broken = Iterator[str]


# --- the run
# --------------------------------------------------------------------------------------------------
def run(config: Config) -> Broken:
    """Yields messages about durations, devices, processes and where a run starts from."""
    c = config
    if durations.parse(c.train.duration, "train.duration")[1] == "%":
        yield (
            f"train.duration={c.train.duration}: the whole cannot be a percentage; give steps,"
            " epochs or examples"
        )
    if c.profile is not None:
        durations.profile_steps(c.profile)
    for key, source in (
        ("model.pretrained", c.model.pretrained),
        ("train.init_from", c.train.init_from),
    ):
        if source and c.run_dir and _same_place(source, c.run_dir):
            yield f"{key}={source}: is the run directory itself; choose another run_dir="
    if c.model.pretrained and c.train.init_from:
        yield "model.pretrained and train.init_from both name weights to start from; give one"
    if c.model.vectors and (c.model.pretrained or c.train.init_from):
        yield (
            "model.vectors and weights of another run both say where the embedding starts; give one"
        )
    yield from axes(c)


def axes(config: Config) -> Broken:
    """Yields a message where more than one axis of the mesh is `auto`."""
    names = [name for name in AXES if getattr(config.mesh, name) == "auto"]
    if len(names) > 1:
        given = " and ".join(f"mesh.{name}=auto" for name in names)
        yield f"{given}: only one axis can take what the others leave"


def batches(config: Config) -> Broken:
    """Yields a message where a batch cannot be divided evenly over micro-batches and devices."""
    t, m, shards = config.train, config.mesh, config.mesh.data * config.mesh.fsdp
    if t.batch_size % (t.accumulate * shards):
        yield (
            f"train.batch_size={t.batch_size}: not divisible by train.accumulate={t.accumulate}"
            f" times mesh.data x mesh.fsdp={shards}"
        )
    if m.context > 1 and config.model.kind != "transformer":
        yield (
            f"mesh.context={m.context}: model.kind={config.model.kind} reads a row token after"
            " token, which cannot be spread over devices; only a transformer's can"
        )
    for name in ("max_length", "max_source_length"):
        length = getattr(config.data, name)
        if length != "auto" and length % m.context:
            yield f"data.{name}={length}: not divisible by mesh.context={m.context}"
    yield from evaluation_batches(config)


def evaluation_batches(config: Config) -> Broken:
    """Yields a message where a batch of the evaluation cannot be divided evenly over devices."""
    size, shards = config.evaluation.batch_size, config.mesh.data * config.mesh.fsdp
    if size and size % shards:
        yield f"evaluation.batch_size={size}: not divisible by mesh.data x mesh.fsdp={shards}"


def _same_place(a: str, b: str) -> bool:
    """Returns whether two folders, or two places in an object store, are the same."""
    if "://" in a + b:
        return a.rstrip("/") == b.rstrip("/")
    return os.path.abspath(a) == os.path.abspath(b)


# --- model
# --------------------------------------------------------------------------------------------------
def model(config: Config) -> Broken:
    """Yields messages for sizes of the model that do not fit, and parts that exclude each other."""
    m, spec = config.model, config.task.spec
    if spec.causal is not None and m.causal != spec.causal:
        yield f"model.causal={m.causal}: task={spec.name} needs model.causal={spec.causal}"
    if m.kind != "transformer" and not m.causal and m.embed % 2:
        yield (
            f"model.embed={m.embed}: two directions share it, so that it must be even; or set"
            " model.causal=true"
        )
    if m.kind != "transformer" and spec.conversations:
        yield (
            f"model.kind={m.kind}: task={spec.name} generates answers, which needs"
            " model.kind=transformer"
        )
    if m.kind == "transformer" and m.heads % m.kv_heads:
        yield f"model.kv_heads={m.kv_heads}: does not divide model.heads={m.heads}"
    yield from _positions(m)
    if m.tied and m.embed_inner and spec.has_lm_head:
        yield (
            f"model.embed_inner={m.embed_inner}: a tied output would need model.embed of that size;"
            " set model.tied=false"
        )
    if not spec.over_vocabulary and not m.tied:
        yield f"model.tied=False: task={spec.name} has no output matrix over the vocabulary"
    if m.experts and not 1 <= m.experts_per_token <= m.experts:
        yield (
            f"model.experts={m.experts}: model.experts_per_token={m.experts_per_token} must lie"
            " between 1 and their number"
        )
    for name in ("window_layers", "rope_layers"):
        if wrong := [i for i in getattr(m, name) or () if not 0 <= i < m.layers]:
            yield f"model.{name}: there is no layer {wrong[0]} of {m.layers}, counted from 0"
    if m.parallel and m.norm_position == "post":
        yield (
            "model.parallel=True: there is no one input of the block with model.norm_position=post"
        )
    if m.causal and getattr(config.task, "pool", None) == "first":
        yield (
            "task.pool=first: the first token of a causal model sees nothing of the text; set"
            " model.causal=false, or pool=mean or last"
        )
    yield from _decoder(config)
    if m.decoder_layers and config.train.unfreeze_every is not None:
        yield (
            f"train.unfreeze_every={config.train.unfreeze_every}: with model.decoder_layers there"
            " are two stacks, and no one order from the top"
        )


def _positions(m: ModelConfig) -> Broken:
    turned = int(m.head_dim * m.rope_fraction)
    if m.positions == "rope" and (turned % 2 or not turned):
        part = "" if m.rope_fraction == 1 else f" model.rope_fraction={m.rope_fraction}"
        yield (
            f"model.head_dim={m.head_dim}{part}: rotary positions need an even number of dimensions"
            " to rotate"
        )
    if (factors := m.rope_scaling.factors) and len(factors) != turned // 2:
        yield f"model.rope_scaling.factors: {len(factors)} numbers, expected {turned // 2}"
    if m.positions == "disentangled" and m.heads != m.kv_heads:
        yield f"model.positions=disentangled: needs model.kv_heads=model.heads={m.heads}"
    buckets, distance = m.relative_buckets, m.relative_distance
    # these buckets grow by a logarithm that is 0 one distance later
    least = buckets // 2 + (m.positions == "disentangled")
    if buckets < 4 or buckets % 4 or distance <= least:
        yield (
            f"model.relative_buckets={buckets} model.relative_distance={distance}: expected a"
            f" multiple of 4, and a distance of more than {least}"
        )


def _decoder(config: Config) -> Broken:
    """Yields messages for an encoder-decoder model, and for tasks that need one or have none."""
    m, spec = config.model, config.task.spec
    if m.part == "encoder" and spec.decoder != "no":
        yield (
            f"model.part=encoder: task={spec.name} writes, which an encoder alone cannot; leave the"
            " option out"
        )
    if m.decoder_layers and (
        m.parallel or m.window is not None or not m.first_norm or m.types or m.experts
    ):
        yield (
            "model.decoder_layers: with it there is no model.parallel, window, first_norm=false,"
            " types or experts"
        )
    if spec.decoder == "must" and not m.decoder_layers:
        yield (
            f"task={spec.name}: a decoder writes what was taken out; set model=encoder_decoder,"
            " or model.decoder_layers"
        )
    if spec.decoder == "no" and m.decoder_layers:
        instead = (
            "set model.part=encoder, which leaves the decoder out"
            if m.pretrained
            else "set model.decoder_layers=0"
        )
        yield (
            f"model.decoder_layers={m.decoder_layers}: task={spec.name} has one text only;"
            f" {instead}; task=seq2seq trains an encoder-decoder"
        )
    if spec.decoder == "may" and m.causal == bool(m.decoder_layers):
        kind = (
            "an encoder sees the whole source"
            if m.decoder_layers
            else "a decoder-only model writes from left to right"
        )
        yield (
            f"model.causal={m.causal}: {kind}; set model.causal={not m.causal}, or"
            f" model.decoder_layers={4 if not m.decoder_layers else 0}"
        )


# --- data
# --------------------------------------------------------------------------------------------------
def training_data(config: Config) -> Broken:
    """Yields a message where nothing names the data."""
    d = config.data
    if not d.path and not d.train and not d.mixture.sources:
        yield (
            "no training data: set data.train=FILE (and data.validation=, data.test=), or"
            " data.path=FILE to have it split"
        )


def fractions(values: Sequence[float]) -> Broken:
    """Yields a message where the shares of the splits are none."""
    good = len(values) == 3 and all(0 <= share <= 1 for share in values)
    if not good or abs(sum(values) - 1) > 1e-6:
        yield (
            f"data.fractions={list(values)}: expected three numbers of at least 0 that sum to 1"
            " (train, validation, test)"
        )


def data(config: Config) -> Broken:
    """Yields messages about where the data lies and how it is read."""
    d = config.data
    parts = [name for name in ("train", "validation", "test") if getattr(d, name)]
    if d.path and parts:
        yield (
            f"data.path excludes data.{', data.'.join(parts)}: give one file to be split, or the"
            " splits"
        )
    if d.path:
        yield from fractions(d.fractions)
    yield from _columns(d.columns)
    yield from _mixture(config)
    yield from options_of_splits(d)
    spec = config.task.spec
    if d.too_long not in (allowed := spec.too_long or ("error",)):
        why = _why_not(spec)
        yield f"data.too_long={d.too_long}: task={spec.name} {why}; expected {'|'.join(allowed)}"
    if d.too_long in ("window", "sentence") and getattr(config.task, "encoder", "") == "bi":
        yield (
            f"data.too_long={d.too_long}: task.encoder=bi makes one vector of a text; expected"
            " truncate_left|right|head_tail"
        )
    for name in ("max_length", "max_source_length"):
        if (longest := getattr(d, name)) != "auto" and longest > config.model.context:
            yield (
                f"data.{name}={longest}: more than model.context={config.model.context}; raise"
                " that too"
            )
    yield from _features(config)


def _why_not(spec: Any) -> str:
    """Returns why a task does not treat long texts in every way."""
    if not spec.too_long:
        return "cuts long texts into pieces"
    if spec.output == "tree":
        return "cannot cut a tree"
    if spec.output == "stretch":
        return "would lose answers"
    if spec.of_words:
        return "would score fewer words than the file has"
    if spec.decoder == "must":
        return "cuts no texts, of which data.unit=paragraph gives shorter ones"
    return "has no windows, for its texts are not merged"


def options_of_splits(d: DataFiles) -> Broken:
    """Yields messages for options of a split that has no file, so that nothing reads them."""
    mixed = getattr(getattr(d, "mixture", None), "sources", ())
    files = {"train": d.train or mixed, "validation": d.validation, "test": d.test}
    keep = getattr(d, "keep", {})
    for name, file in files.items():
        if isinstance(keep.get(name), Mapping) and not file:
            yield (
                f"data.keep.{name}: is read with data.{name}=FILE only; set that, or give the"
                f" columns without {name}"
            )
        if name in d.options and not file:
            yield (
                f"data.options.{name}: is read with data.{name}=FILE only; set that, or give the"
                f" options without {name}"
            )


def _mixture(config: Config) -> Broken:
    d, m = config.data, config.data.mixture
    if not m.sources:
        return
    if given := [name for name in ("path", "train", "limit") if getattr(d, name)]:
        yield (f"data.mixture.sources excludes data.{given[0]}: the sources are the training data")
    if len(m.sources) < 2 or len({s.path for s in m.sources}) < len(m.sources):
        yield "data.mixture.sources: expected at least two, each with a path of its own"
    weights = [s.weight for s in m.sources]
    if any(w is None for w in weights) != all(w is None for w in weights):
        yield "data.mixture.sources: expected a weight for each of them, or for none"
    if weights[0] is not None and m.temperature != 1:
        yield f"data.mixture.temperature={m.temperature}: is read without weights only"


def _columns(c: Columns) -> Broken:
    for one, others, why in (
        ("messages", ("prompt", "completion"), "a row has one form"),
        ("label", ("labels",), "labels stand in one column, or each class has one of its own"),
        ("target", ("references",), "a row has one target, or a list of them"),
    ):
        if getattr(c, one) and any(getattr(c, other) for other in others):
            excluded = " and ".join(f"data.columns.{other}" for other in others)
            yield f"data.columns.{one} excludes {excluded}: {why}"


def _features(config: Config) -> Broken:
    t, c = config.task, config.data.columns
    if c.features and not isinstance(t, FeaturesTask):
        yield (
            f"data.columns.features: task={t.name} reads no columns beside its text; classify,"
            " multilabel and regress do"
        )
    if len(set(c.features)) < len(c.features):
        yield f"data.columns.features={list(c.features)}: expected each column once"
    if strange := [name for name in c.categories if name not in c.features]:
        yield (
            f"data.columns.categories=[{strange[0]}]: expected some of"
            f" data.columns.features={list(c.features)}"
        )


# --- task
# --------------------------------------------------------------------------------------------------
def task(config: Config) -> Broken:
    """Yields messages for options of a task that contradict each other or the data."""
    t = config.task
    if getattr(t, "random", 0) + getattr(t, "kept", 0) > 1:
        yield (
            f"task.random={t.random} and task.kept={t.kept}: expected shares of at least 0 that are"
            " together at most 1"
        )
    scores = getattr(t, "scores", None)
    if scores is not None and (not scores or len(set(scores)) != len(scores)):
        yield f"task.scores={list(scores)}: expected at least one, each named once"
    if getattr(t, "start", None) is not None and not t.start:
        yield (
            "task.start=[]: a decoder starts from at least one token; name it, or set"
            " task.start=null"
        )
    if getattr(t, "threshold", None) == "tuned" and not _validated(config):
        yield (
            "task.threshold=tuned: there is no validation data to tune it on; set data.validation="
            " or data.path="
        )


def _validated(config: Config) -> bool:
    d = config.data
    return bool(d.validation or (d.path and d.fractions[1] > 0))


def backbone(config: Config) -> Broken:
    """Yields messages for a cached backbone under a task whose head is not all that trains.

    The head must be apart from the model and have weights.
    """
    if config.train.backbone != "cached":
        return
    t = config.task
    if t.spec.over_vocabulary:
        yield (
            f"train.backbone=cached excludes task={t.name}: it has no head apart from the model;"
            " those that have one say something of a text, a span or words"
        )
    if config.data.columns.features and getattr(t, "features", "") == "tokens":
        yield (
            "train.backbone=cached excludes task.features=tokens: the vectors of"
            " data.columns.features are learnt below the backbone; set task.features=text"
        )
    if (
        getattr(t, "encoder", "") == "bi"
        and t.loss != "cross_entropy"
        and t.pool != "attention"
        and t.head == "linear"
    ):
        yield (
            f"train.backbone=cached excludes task.loss={t.loss}: its head has no weights, so that"
            " nothing would be trained; set task.head=dense"
        )


def least_replicates(level: float) -> int:
    """Returns how many replicates a bootstrap needs to have one beyond each bound of a level."""
    return math.ceil(round(2 / (1 - level), 6))


# --- evaluation and generation
# --------------------------------------------------------------------------------------------------
def evaluation(config: Config) -> Broken:
    """Yields messages about the metric that chooses the best checkpoint, and about generation."""
    e, spec = config.evaluation, config.task.spec
    if e.metric != "auto":
        yield from _number(config, f"evaluation.metric={e.metric}", e.metric, "chooses")
    if (until := config.train.until) is not None:
        yield from _number(config, f"train.until={until}", Until.read(until).metric, "ends")
    if e.replicates and e.replicates < (least := least_replicates(e.level)):
        yield (
            f"evaluation.replicates={e.replicates}: evaluation.level={e.level} needs {least} of"
            " them at least"
        )
    if e.patience is not None and not _validated(config):
        yield (
            f"evaluation.patience={e.patience}: there is no validation data to lose patience with;"
            " set data.validation= or data.path="
        )
    if e.generate == "always" and not spec.generates:
        yield (
            f"evaluation.generate=always: task={spec.name} has no answers that are generated and"
            " scored; leave the option out"
        )
    yield from generation(config)
    if not spec.can_generate:
        yield from _no_answers(config)


def metrics(config: Config) -> Broken:
    """Yields nothing. Raises ConfigError for a metric that is unknown or that the task cannot feed,
    whatever chooses the best checkpoint."""
    config.task.spec.metric_names(config)
    yield from ()


def _number(config: Config, at: str, metric: str, does: str) -> Broken:
    """Yields messages about a number that every evaluation is to have: `at` names the option, and
    `does` says what the number does there.
    """
    name, spec = metric.partition("/")[2], config.task.spec
    metrics = spec.metric_names(config)
    if not metric.startswith("validation/") or name not in metrics:
        choices = ", ".join(f"validation/{m}" for m in metrics)
        yield f"{at}: unknown; task={spec.name} has {choices} (the test split never {does})"
    if not _validated(config):
        yield f"{at}: there is no validation data; set data.validation= or data.path="
    asked = getattr(config.task, "scores", None)
    if name in SCORES and asked is not None and name not in asked:
        yield f"{at}: is not among task.scores={list(asked)}"
    if name in spec.answer_numbers(config) and config.evaluation.generate != "always":
        yield f"{at}: answers must be generated at every evaluation; set evaluation.generate=always"
    if name in COUNTS:
        yield f"{at}: a count is the same at every evaluation, and {does} nothing"


def generation(config: Config) -> Broken:
    """Yields a message where a batch of generation has fewer rows than beams."""
    g = config.generate
    if g.num_beams > g.batch_size:
        yield (
            f"generate.num_beams={g.num_beams}: beams are rows of a batch; raise"
            f" generate.batch_size={g.batch_size}"
        )


def _no_answers(config: Config) -> Broken:
    """Yields messages for options of generation under a task that generates nothing.

    `max_new_tokens` and `allow_cut` are left out: presets for all tasks set them.
    """
    for key, standard in vars(GenerateConfig()).items():
        value = getattr(config.generate, key)
        same = list(value) == list(standard) if key == "stop" else value == standard
        if key not in ("max_new_tokens", "allow_cut") and not same:
            yield (
                f"generate.{key}={value}: task={config.task.name} generates nothing; leave the"
                " option out"
            )


RULES = (run, model, data, task, metrics, evaluation, backbone)
