"""Checks of the model's options: numbers in their bounds, and no option where nothing reads it."""

from __future__ import annotations

import dataclasses
import math
import os

from jaxsft.config.model import ROPE_SCALING, ModelConfig, RopeScaling
from jaxsft.config.schema import Config
from jaxsft.config.tasks import TaskConfig
from jaxsft.errors import ConfigError

SCORES = ("exact_match", "bleu", "chrf", "rouge_l")  # of task=seq2seq

SURGERY = {
    "keep_layers": None,
    "keep_decoder_layers": None,
    "repeat_layers": 1,
    "resize_mlp": None,
    "resize_heads": None,
    "bidirectional": False,
}


def model(config: Config, causal: bool | None) -> None:
    """`causal` is what the task needs. Raises ConfigError."""
    m = config.model
    if causal is not None and m.causal != causal:
        raise ConfigError(
            f"model.causal={m.causal}: task={config.task.name} needs model.causal={causal}"
        )
    if m.kind != "transformer":
        _recurrent(m, config.task)
    if m.heads % m.kv_heads:
        raise ConfigError(f"model.kv_heads={m.kv_heads}: does not divide model.heads={m.heads}")
    if m.positions == "rope" and (
        not 0 < m.rope_fraction <= 1
        or int(m.head_dim * m.rope_fraction) % 2
        or not int(m.head_dim * m.rope_fraction)
    ):
        part = "" if m.rope_fraction == 1 else f" model.rope_fraction={m.rope_fraction}"
        raise ConfigError(
            f"model.head_dim={m.head_dim}{part}: rotary positions need an even number of dimensions"
            " to rotate"
        )
    if m.tied and m.embed_inner and config.task.spec.head == "lm":
        raise ConfigError(
            f"model.embed_inner={m.embed_inner}: a tied output would need model.embed of that size;"
            " set model.tied=false"
        )
    if m.experts and not (m.gated and not m.mlp_bias and 1 <= m.experts_per_token <= m.experts):
        raise ConfigError(
            f"model.experts={m.experts}: they are gated, without biases, and"
            " model.experts_per_token lies between 1 and their number"
        )
    if m.positions == "disentangled" and (
        m.causal or m.heads != m.kv_heads or m.attention == "blocked"
    ):
        raise ConfigError(
            "model.positions=disentangled: needs model.causal=false, as many kv_heads as heads, and"
            " model.attention=auto or reference"
        )
    _numbers(m)
    _unread(m, config.task.spec.over_vocabulary)
    if m.causal and getattr(config.task, "pool", None) == "first":
        raise ConfigError(
            "task.pool=first: the first token of a causal model sees nothing of the text; set"
            " model.causal=false, or pool=mean or last"
        )
    _seq2seq(config)
    if m.pretrained and config.train.init_from:
        raise ConfigError(
            "model.pretrained and train.init_from both name weights to start from; give one"
        )
    for key, source in (
        ("model.pretrained", m.pretrained),
        ("train.init_from", config.train.init_from),
    ):
        if source and config.run_dir and _same_place(source, config.run_dir):
            raise ConfigError(
                f"{key}={source}: is the run directory itself; choose another run_dir="
            )
    if m.vectors and (m.pretrained or config.train.init_from):
        raise ConfigError(
            "model.vectors and weights of another run both say where the embedding starts; give one"
        )
    for name, standard in SURGERY.items():
        if getattr(m, name) != standard and (not m.pretrained or m.init == "scratch"):
            raise ConfigError(
                f"model.{name}={getattr(m, name)}: is read with the weights of model.pretrained"
                " only"
            )
    if m.part != "all" and not m.pretrained:
        raise ConfigError(f"model.part={m.part}: is read with model.pretrained only")
    if m.train_rows == "added" and not config.tokenizer.added:
        raise ConfigError(
            "model.train_rows=added: there are no added tokens; name them by tokenizer.added=[...]"
        )
    if m.init not in ("pretrained", "scratch") and not (
        m.init.startswith("reset:") and m.init != "reset:"
    ):
        raise ConfigError(f"model.init={m.init}: expected pretrained, scratch or reset:PATTERN")
    if m.init != "pretrained" and not m.pretrained:
        raise ConfigError(f"model.init={m.init}: is read with model.pretrained only")
    if config.train.init_fresh and not (m.pretrained or config.train.init_from):
        raise ConfigError("train.init_fresh is read with train.init_from or model.pretrained only")


RECURRENT = (
    "kind",
    "layers",
    "embed",
    "context",
    "causal",
    "vocab_rows",
    "tied",
    "head_bias",
    "logit_softcap",
    "embed_scale",
    "embed_norm",
)
RECURRENT += (
    "embed_inner",
    "types",
    "dropout",
    "remat",
    "pretrained",
    "vectors",
    "train_rows",
    "norm",
    "norm_bias",
    "norm_epsilon",
    "norm_plus_one",
)
RECURRENT += ("mlp",)  # not read, but the preset of a task for both kinds gives it


def _recurrent(m: ModelConfig, task: TaskConfig) -> None:
    for f in dataclasses.fields(ModelConfig):
        if f.name not in RECURRENT and getattr(m, f.name) != (
            f.default if f.default is not dataclasses.MISSING else f.default_factory()
        ):
            raise ConfigError(
                f"model.{f.name}={getattr(m, f.name)}: is read with model.kind=transformer only"
            )
    if not m.causal and m.embed % 2:
        raise ConfigError(
            f"model.embed={m.embed}: two directions share it, so that it must be even; or set"
            " model.causal=true"
        )
    if task.spec.conversations:
        raise ConfigError(
            f"model.kind={m.kind}: task={task.name} generates answers, which needs"
            " model.kind=transformer"
        )


def _seq2seq(config: Config) -> None:
    m, task, decoder = config.model, config.task, config.task.spec.decoder
    if m.part == "encoder" and decoder != "no":
        raise ConfigError(
            f"model.part=encoder: task={task.name} writes, which an encoder alone cannot; leave the"
            " option out"
        )
    if decoder == "must" and not m.decoder_layers:
        raise ConfigError(
            f"task={task.name}: a decoder writes what was taken out; set model=encoder_decoder,"
            " or model.decoder_layers"
        )
    if decoder != "may":
        if m.decoder_layers and decoder == "no":
            instead = (
                "set model.part=encoder, which leaves the decoder out"
                if m.pretrained
                else "set model.decoder_layers=0"
            )
            raise ConfigError(
                f"model.decoder_layers={m.decoder_layers}: task={task.name} has one text only;"
                f" {instead}; task=seq2seq trains an encoder-decoder"
            )
        return
    if m.causal == bool(m.decoder_layers):
        kind = (
            "an encoder sees the whole source"
            if m.decoder_layers
            else "a decoder-only model writes from left to right"
        )
        raise ConfigError(
            f"model.causal={m.causal}: {kind}; set model.causal={not m.causal}, or"
            f" model.decoder_layers={4 if not m.decoder_layers else 0}"
        )
    if task.template != "auto" and task.template.count("{source}") != 1:
        raise ConfigError(
            f"task.template={task.template!r}: expected {{source}} in it once, where the source"
            " stands"
        )
    if unknown := [name for name in task.scores or () if name not in SCORES]:
        raise ConfigError(f"task.scores=[{unknown[0]}]: expected some of {', '.join(SCORES)}")
    if task.scores is not None and (not task.scores or len(set(task.scores)) != len(task.scores)):
        raise ConfigError(
            f"task.scores={list(task.scores)}: expected at least one, each named once"
        )
    if task.start is not None and not task.start:
        raise ConfigError(
            "task.start=[]: a decoder starts from at least one token; name it, or set"
            " task.start=null"
        )


def _same_place(a: str, b: str) -> bool:
    """Of two folders, or two places at a store."""
    return (
        a.rstrip("/") == b.rstrip("/")
        if "://" in a + b
        else os.path.abspath(a) == os.path.abspath(b)
    )


def _numbers(m: ModelConfig) -> None:
    for name in (
        "norm_epsilon",
        "output_scale",
        "rope_base",
        "rope_local_base",
        "query_scale",
        "attention_softcap",
        "logit_softcap",
        "embed_scale",
    ):
        if (value := getattr(m, name)) is not None and not 0 < value < math.inf:
            raise ConfigError(f"model.{name}={value}: expected more than 0")
    for name in ("window", "embed_inner", "vocab_rows"):
        if (value := getattr(m, name)) is not None and value < 1:
            raise ConfigError(f"model.{name}={value}: expected at least 1")
    for name in ("types", "position_offset", "experts"):
        if getattr(m, name) < 0:
            raise ConfigError(f"model.{name}={getattr(m, name)}: expected at least 0")
    if wrong := [i for i in m.window_layers or () if not 0 <= i < m.layers]:
        raise ConfigError(
            f"model.window_layers: there is no layer {wrong[0]} of {m.layers}, counted from 0"
        )
    if (
        m.relative_buckets < 4
        or m.relative_buckets % 4
        or m.relative_distance <= m.relative_buckets // 2
    ):
        raise ConfigError(
            f"model.relative_buckets={m.relative_buckets}"
            f" model.relative_distance={m.relative_distance}: expected a multiple of 4, and a"
            " distance of more than half of it"
        )
    if m.positions == "relative" and m.attention == "blocked":
        raise ConfigError(
            "model.attention=blocked: has no place for the bias of model.positions=relative; set"
            " model.attention=reference or auto"
        )
    if m.decoder_layers and (
        m.parallel or m.window is not None or not m.first_norm or m.types or m.experts
    ):
        raise ConfigError(
            "model.decoder_layers: with it there is no model.parallel, window, first_norm=false,"
            " types or experts"
        )
    s, (needed, read) = m.rope_scaling, ROPE_SCALING[m.rope_scaling.kind]
    for f in dataclasses.fields(RopeScaling):
        value = getattr(s, f.name)
        if f.name in needed and value == f.default:
            raise ConfigError(f"model.rope_scaling.kind={s.kind}: give model.rope_scaling.{f.name}")
        if f.name not in (*needed, *read, "kind") and value != f.default:
            raise ConfigError(
                f"model.rope_scaling.{f.name}={value}: kind={s.kind} does not read it"
            )
    if s.factors and len(s.factors) != int(m.head_dim * m.rope_fraction) // 2:
        raise ConfigError(
            f"model.rope_scaling.factors: {len(s.factors)} numbers, expected"
            f" {int(m.head_dim * m.rope_fraction) // 2}"
        )


def _unread(m: ModelConfig, vocabulary: bool) -> None:
    """An option that was changed where nothing reads it would look as if it had an effect."""
    for name, read, where in (
        (
            "relative_buckets",
            m.positions in ("relative", "disentangled"),
            "with model.positions=relative or disentangled",
        ),
        (
            "relative_distance",
            m.positions in ("relative", "disentangled"),
            "with model.positions=relative or disentangled",
        ),
        ("output_scale", m.decoder_layers, "with model.decoder_layers above 0"),
        ("norm_bias", m.norm == "layer", "with model.norm=layer"),
        ("rope_base", m.positions == "rope", "with model.positions=rope"),
        ("rope_fraction", m.positions == "rope", "with model.positions=rope"),
        ("rope_scaling", m.positions == "rope", "with model.positions=rope"),
        (
            "rope_local_base",
            m.positions == "rope" and m.window is not None,
            "with model.positions=rope and model.window",
        ),
        ("position_offset", m.positions == "learned", "with model.positions=learned"),
        ("window_layers", m.window is not None, "with model.window"),
        (
            "first_norm",
            m.norm_position in ("pre", "sandwich"),
            "with model.norm_position=pre or sandwich",
        ),
        ("experts_per_token", m.experts > 0, "with model.experts"),
        ("expert_norm", m.experts > 0, "with model.experts"),
        ("head_bias", vocabulary, "by tasks with an output over the vocabulary"),
        ("logit_softcap", vocabulary, "by tasks with an output over the vocabulary"),
    ):
        default = next(f for f in dataclasses.fields(ModelConfig) if f.name == name)
        standard = RopeScaling() if name == "rope_scaling" else default.default
        if (
            not read
            and getattr(m, name) != standard
            and not (m.pretrained and name in ("head_bias", "logit_softcap"))
        ):
            raise ConfigError(f"model.{name}={getattr(m, name)}: is read {where} only")
    if m.parallel and m.norm_position == "post":
        raise ConfigError(
            "model.parallel=True: there is no one input of the block with model.norm_position=post"
        )
