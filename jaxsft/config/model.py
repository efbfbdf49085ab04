"""The options of a Transformer. They are orthogonal: families of pretrained models choose among
them, and no block knows a family.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Optional

from jaxsft.config import condition
from jaxsft.config.option import Trace, declarations, option, walk
from jaxsft.errors import ConfigError

ROPE_SCALINGS = ("none", "linear", "ntk", "llama3", "yarn", "longrope")
_BIASED = ("model.attention!=blocked", "it has no place for the bias of positions")
_STRETCHED = ("model.rope_scaling.factor!=1", "model.rope_scaling.original")

ACTIVATIONS = (
    "silu",
    "gelu",
    "gelu_tanh",
    "relu",
    "tanh",
    "sigmoid",
    "relu2",
    "relu6",
    "leaky_relu",
    "mish",
    "hardswish",
    "quick_gelu",
    "gelu_10",
)
# of models and of heads; `models/activations.py` has the functions
ACTIVATIONS += ("laplace", "sqrtsoftplus", "linear")


@dataclass(frozen=True)
class RopeScaling:
    """The change of rotary frequencies for a longer context; `models/rope.py` has the
    formulas."""

    kind: str = option(
        "none",
        "none | linear | ntk | llama3 | yarn | longrope",
        choices=ROPE_SCALINGS,
        read_if="model.kind=transformer and model.positions=rope",
        needs={
            "linear": ("model.rope_scaling.factor!=1",),
            "ntk": ("model.rope_scaling.factor!=1",),
            "llama3": _STRETCHED,
            "yarn": _STRETCHED,
            "longrope": (*_STRETCHED, "model.rope_scaling.factors"),
        },
    )
    factor: float = option(
        1.0, "how many times longer the context is made", read_if="model.rope_scaling.kind!=none"
    )
    original: Optional[int] = option(
        None,
        "the context that the frequencies were trained with",
        read_if="model.rope_scaling.kind=llama3|yarn|longrope",
    )
    low: float = option(
        1.0,
        "of llama3: wave lengths above original / low are stretched",
        read_if="model.rope_scaling.kind=llama3",
    )
    high: float = option(
        4.0,
        "of llama3: those below original / high are left alone",
        read_if="model.rope_scaling.kind=llama3",
    )
    fast: float = option(
        32.0,
        "of yarn: dimensions that turn more often than this in the original context are left alone",
        read_if="model.rope_scaling.kind=yarn",
    )
    slow: float = option(
        1.0,
        "of yarn: those that turn less often are stretched",
        read_if="model.rope_scaling.kind=yarn",
    )
    truncate: bool = option(
        True, "of yarn: the two limits are whole dimensions", read_if="model.rope_scaling.kind=yarn"
    )
    attention: Optional[float] = option(
        None,
        "of yarn and longrope: what cosines and sines are multiplied by; null: by the formula",
        read_if="model.rope_scaling.kind=yarn|longrope",
    )
    factors: Optional[list[float]] = option(
        None,
        "of longrope: a divisor for each frequency",
        read_if="model.rope_scaling.kind=longrope",
    )


@dataclass(frozen=True)
class Architecture:
    """The architecture of a model; `model.pretrained` decides all of it."""

    kind: str = option(
        "transformer",
        "transformer | lstm | gru: of these two `embed` is the size of the state, in both"
        " directions together",
        choices=("transformer", "lstm", "gru"),
    )
    layers: int = option(
        4, "blocks; of an encoder-decoder model those of its encoder", at_least=1, at_most=4096
    )
    embed: int = option(128, "size of the states between blocks (`hidden_size`)", at_least=1)
    heads: int = option(4, "attention heads", at_least=1, read_if="model.kind=transformer")
    kv_heads: int = option(
        4,
        "heads of keys and values: fewer than `heads` is grouped-query attention",
        at_least=1,
        read_if="model.kind=transformer",
    )
    head_dim: int = option(32, "size of one head", at_least=1, read_if="model.kind=transformer")
    mlp: int = option(384, "hidden units of the MLP (`intermediate_size`)", at_least=1)
    context: int = option(
        2048, "tokens of the longest text (`max_position_embeddings`)", at_least=1
    )
    causal: bool = option(True, "a token sees only those before it: a decoder; false: an encoder")
    vocab_rows: Optional[int] = option(
        None, "rows of the embedding; null: as many as the tokenizer has tokens", at_least=1
    )
    norm: str = option(
        "rms",
        "root mean square, or LayerNorm: rms | layer",
        choices=("rms", "layer"),
    )
    norm_position: str = option(
        "pre",
        "pre: x + f(n(x)) | post: n(x + f(x)) | output: x + n(f(x)) | sandwich: x + n(f(n(x)))",
        choices=("pre", "post", "output", "sandwich"),
        read_if="model.kind=transformer",
    )
    norm_epsilon: float = option(1e-6, "added to the variance before its root", above=0)
    norm_bias: bool = option(True, "of norm=layer", read_if="model.norm=layer")
    norm_plus_one: bool = option(False, "the scale is kept as its distance from 1")
    parallel: bool = option(
        False,
        "attention and MLP both read the input of the block",
        read_if="model.kind=transformer",
    )
    shared_norm: bool = option(
        False,
        "of parallel: attention and MLP read one norm",
        read_if="model.kind=transformer and model.parallel",
        needs=("model.norm_position=pre",),
    )
    residual_scale: float = option(
        1.0,
        "what attention and MLP add to the states between blocks is multiplied by",
        above=0,
        read_if="model.kind=transformer",
    )
    first_norm: bool = option(
        True,
        "false: the first attention reads the embeddings as they are",
        read_if="model.kind=transformer and model.norm_position=pre|sandwich",
    )
    decoder_layers: int = option(
        0,
        "of an encoder-decoder model, whose encoder has `layers`; 0: there is no second half",
        at_least=0,
        at_most=4096,
        read_if="model.kind=transformer",
    )
    positions: str = option(
        "rope",
        "how the place of a token is told: rope | learned | sinusoidal | relative |"
        " learned_relative | disentangled | none",
        choices=(
            "rope",
            "learned",
            "sinusoidal",
            "relative",
            "learned_relative",
            "disentangled",
            "none",
        ),
        read_if="model.kind=transformer",
        needs={
            "relative": (_BIASED,),
            "learned_relative": (_BIASED,),
            "disentangled": ("model.causal=false", _BIASED),
        },
    )
    relative_buckets: int = option(
        32,
        "of positions=relative or disentangled: how many kinds of distance there are (of"
        " disentangled, in each direction)",
        read_if="model.kind=transformer and model.positions=relative|learned_relative|disentangled",
    )
    relative_distance: int = option(
        128,
        "from here on all share the last bucket",
        read_if="model.kind=transformer and model.positions=relative|learned_relative|disentangled",
    )
    relative_shared: bool = option(
        True,
        "all layers share one table of relative positions; false: each has its own",
        read_if="model.kind=transformer and model.positions=relative|learned_relative",
    )
    position_offset: int = option(
        0,
        "of positions=learned or sinusoidal: rows of the table before that of the first position",
        at_least=0,
        read_if="model.kind=transformer and model.positions=learned|learned_relative|sinusoidal",
    )
    rope_base: float = option(
        10000.0,
        "the base of the wave lengths of rotary and of sinusoidal positions",
        above=0,
        read_if="model.kind=transformer and model.positions=rope|sinusoidal",
    )
    rope_fraction: float = option(
        1.0,
        "of the dimensions of a head that are rotated",
        above=0,
        at_most=1,
        read_if="model.kind=transformer and model.positions=rope",
    )
    rope_pairs: str = option(
        "halves",
        "which dimensions turn together: halves (i and i + half) | neighbours (2i and 2i + 1)",
        choices=("halves", "neighbours"),
        read_if="model.kind=transformer and model.positions=rope",
    )
    rope_layers: Optional[list[int]] = option(
        None,
        "which layers turn queries and keys; null: all",
        read_if="model.kind=transformer and model.positions=rope",
    )
    rope_local_base: Optional[float] = option(
        None,
        "of the layers with a window; null: rope_base",
        above=0,
        read_if="model.kind=transformer and model.positions=rope and model.window",
    )
    rope_scaling: RopeScaling = option(RopeScaling, "not of layers with rope_local_base")
    window: Optional[int] = option(
        None,
        "a token sees those nearer than this; null: all",
        at_least=1,
        read_if="model.kind=transformer",
    )
    window_layers: Optional[list[int]] = option(
        None,
        "which layers have the window; null: all",
        read_if="model.kind=transformer and model.window",
    )
    qkv_bias: bool = option(
        False, "queries, keys and values have a bias", read_if="model.kind=transformer"
    )
    o_bias: bool = option(
        False, "the output of attention has a bias", read_if="model.kind=transformer"
    )
    qk_norm: str = option(
        "none",
        "none | head: of each head | all: of all heads together",
        choices=("none", "head", "all"),
        read_if="model.kind=transformer",
    )
    qk_norm_last: bool = option(
        False,
        "queries and keys are normed behind their rotation, not before it",
        read_if="model.kind=transformer and model.positions=rope and model.qk_norm!=none",
    )
    query_scale: Optional[float] = option(
        None, "null: head_dim^-0.5", above=0, read_if="model.kind=transformer"
    )
    attention_softcap: Optional[float] = option(
        None, "scores become cap * tanh(score / cap)", above=0, read_if="model.kind=transformer"
    )
    gated: bool = option(
        True, "an MLP with a gate (SwiGLU, GeGLU)", read_if="model.kind=transformer"
    )
    activation: str = option(
        "silu",
        "of the MLP: silu | gelu | gelu_tanh (gelu_new, gelu_fast) | relu | tanh | sigmoid |"
        " quick_gelu and others",
        choices=ACTIVATIONS,
        read_if="model.kind=transformer",
    )
    mlp_bias: bool = option(
        False, "the layers of the MLP have a bias", read_if="model.kind=transformer"
    )
    experts: int = option(
        0,
        "gated MLPs of a layer among which each token chooses; 0: one MLP for all",
        at_least=0,
        read_if="model.kind=transformer",
        needs=("model.gated=true", "model.mlp_bias=false"),
    )
    experts_per_token: int = option(
        2, "how many of them a token takes", read_if="model.kind=transformer and model.experts"
    )
    expert_norm: bool = option(
        True,
        "the weights of the chosen experts sum to one",
        read_if="model.kind=transformer and model.experts",
    )
    expert_shared: Optional[int] = option(
        None,
        "hidden units of an MLP beside the experts, which every token takes by a gate of its own",
        at_least=1,
        read_if="model.kind=transformer and model.experts",
    )
    tied: bool = option(True, "the output over the vocabulary is the embedding")
    head_bias: bool = option(
        False, "of the output over the vocabulary", read_if="output=vocabulary or model.pretrained"
    )
    logit_softcap: Optional[float] = option(
        None,
        "logits become cap * tanh(logit / cap); null: they stay",
        above=0,
        read_if="output=vocabulary or model.pretrained",
    )
    logit_scale: float = option(
        1.0,
        "what logits are multiplied by, before their bias and cap",
        above=0,
        read_if="output=vocabulary or model.pretrained",
    )
    output_scale: float = option(
        1.0,
        "of an encoder-decoder model: what its last states are multiplied by",
        above=0,
        read_if="model.kind=transformer and model.decoder_layers>0",
    )
    embed_scale: float = option(1.0, "what embeddings are multiplied by", above=0)
    embed_norm: bool = option(False, "a norm behind the embeddings")
    embed_inner: Optional[int] = option(
        None,
        "size of the embeddings, which a linear layer brings to `embed`; null: that size itself",
        at_least=1,
    )
    types: int = option(
        0,
        "kinds of token that have an embedding of their own: the first and the second text of a"
        " pair",
        at_least=0,
    )


@dataclass(frozen=True)
class Computation:
    """The way in which a model is computed and trained, whatever it is and wherever it comes
    from."""

    dropout: float = option(
        0.0,
        "share of the activations that training drops",
        at_least=0,
        below=1,
        common="Model",
        traced=Trace(when="random"),
        regularises="dropout",
    )
    attention: str = option(
        "auto",
        "blocked never holds all scores at once, as flash attention does; ring is blocked, but with"
        " mesh.context keys and values go from device to device instead of being gathered; splash"
        " is a kernel of TPUs: auto | reference | blocked | ring | splash",
        choices=("auto", "reference", "blocked", "ring", "splash"),
        read_if="model.kind=transformer",
    )
    activations: str = option(
        "auto",
        "states between and inside layers: bf16 | fp32; sums, norms, softmax and loss stay in"
        " float32; auto: bf16 on GPU and TPU with precision=bf16, else fp32",
        choices=("auto", "bf16", "fp32"),
        read_if="model.kind=transformer",
    )
    remat: bool = option(
        False,
        "gradient checkpointing: activations are computed again in the backward pass, which needs"
        " less memory and a third more time",
        common="Model",
    )
    remat_saves: Optional[list[str]] = option(
        None,
        "outputs that remat keeps, of each layer, instead of computing them again: q | k | v |"
        " context (what attention gives) | gate | up; null: none",
        choices=("q", "k", "v", "context", "gate", "up"),
        read_if="model.kind=transformer and model.remat",
    )
    frozen_dtype: str = option(
        "float",
        "how the linear layers that are not trained are held, and of tasks without an output over"
        " the vocabulary the embedding: float | int8 | int4 | nf4 (4 bits, QLoRA: arXiv:2305.14314)"
        "; each layer is widened in its turn",
        choices=("float", "int8", "int4", "nf4"),
        read_if="model.kind=transformer and adapter!=none or model.kind=transformer and"
        " train.freeze or model.kind=transformer and train.backbone=cached",
    )
    unroll: str = option(
        "auto",
        "auto | none | full: of the scan over layers",
        choices=("auto", "none", "full"),
        read_if="model.kind=transformer",
    )


@dataclass(frozen=True)
class StartingPoint:
    """The source of the weights of a model, and what is made of them."""

    pretrained: Optional[str] = option(
        None,
        "a run directory, a folder with config.json and safetensors, or hub:owner/name@revision of"
        " either",
        hub="folder",
        common="Model",
    )
    init: str = option(
        "pretrained",
        "with pretrained: its weights | scratch: its architecture and tokenizer only |"
        " reset:PATTERN: weights that start anew",
        matches=r"pretrained|scratch|reset:.+",
        what="pretrained, scratch or reset:PATTERN",
        read_if="model.pretrained",
    )
    part: str = option(
        "all",
        "with a pretrained encoder-decoder: all | encoder: its encoder alone, as any other; the"
        " decoder is left out",
        choices=("all", "encoder"),
        read_if="model.kind=transformer and model.pretrained",
    )
    keep_layers: Optional[list[int]] = option(
        None,
        "with pretrained: which of its layers (of its encoder), in this order, counted from 0;"
        " null: all",
        read_if="model.kind=transformer and model.pretrained and model.init!=scratch",
    )
    keep_decoder_layers: Optional[list[int]] = option(
        None,
        "with a pretrained encoder-decoder: which of its decoder's, likewise",
        read_if="model.kind=transformer and model.pretrained and model.init!=scratch",
    )
    repeat_layers: int = option(
        1,
        "with pretrained: how often each of them comes in a row",
        at_least=1,
        read_if="model.kind=transformer and model.pretrained and model.init!=scratch",
    )
    resize_mlp: Optional[int] = option(
        None,
        "with pretrained: hidden units; more compute the same function, fewer are those with the"
        " largest weights",
        at_least=1,
        read_if="model.kind=transformer and model.pretrained and model.init!=scratch",
    )
    resize_heads: Optional[int] = option(
        None,
        "with pretrained: heads, likewise",
        at_least=1,
        read_if="model.kind=transformer and model.pretrained and model.init!=scratch",
    )
    bidirectional: bool = option(
        False,
        "with pretrained: a token sees the whole text, whatever the model was trained with",
        read_if="model.kind=transformer and model.pretrained and model.init!=scratch",
    )
    vectors: Optional[str] = option(
        None, "a file of word vectors (word2vec, GloVe) that rows of the embedding start from"
    )
    train_rows: str = option(
        "all",
        "all | added: of the vocabulary only the rows of tokenizer.added are trained",
        choices=("all", "added"),
        needs={
            "added": (
                (
                    "tokenizer.added",
                    "there are no added tokens; name them by tokenizer.added=[...]",
                ),
            )
        },
    )


@dataclass(frozen=True)
class ModelConfig(StartingPoint, Computation, Architecture):
    """All options of a model; in its config.yaml the architecture comes first."""


# --- recurrent models
# --------------------------------------------------------------------------------------------------
_TRANSFORMER = "model.kind=transformer"


def _recurrent(kind: str, name: str) -> type:
    """Makes the class of options of a recurrent model: those of `ModelConfig` that it reads.

    What it has not is no option of it; code that serves every model finds the default there.
    """
    own, absent = [], {}
    for option_name, one in declarations(ModelConfig).items():
        field = ModelConfig.__dataclass_fields__[option_name]
        if _TRANSFORMER in one.accepts.read_if or dataclasses.is_dataclass(one.hint):
            absent[option_name] = one.default
            continue
        default = kind if option_name == "kind" else field.default
        same = dataclasses.field(default=default, metadata=field.metadata)
        own.append((option_name, one.hint, same))
    doc = f"The options of `model.kind={kind}`."
    return dataclasses.make_dataclass(
        name, own, frozen=True, namespace={"__module__": __name__, "__doc__": doc, **absent}
    )


MODELS = {
    "transformer": ModelConfig,
    "lstm": _recurrent("lstm", "LSTM"),
    "gru": _recurrent("gru", "GRU"),
}


def of_kind(model: Any) -> Any:
    """Returns the options of a model as the class of its kind has them.

    An older config.yaml names options that a recurrent model has not, at their defaults. Raises
    ConfigError where one of them was changed: nothing would read it.
    """
    cls = MODELS.get(model.kind, type(model))
    if type(model) is cls:
        return model
    values = {f"model.{key}": value for key, _, value in walk(model)}
    for key, one, value in walk(model, "model."):
        text = one.accepts.read_if
        if value != one.default and _TRANSFORMER in text:
            raise ConfigError(f"{key}={value}: is read {condition.where(text, values)}")
    return cls(**{name: getattr(model, name) for name in declarations(cls)})


def wide(model: Any) -> ModelConfig:
    """Returns the options of any model as those of a transformer, which has them all."""
    return ModelConfig(**{name: getattr(model, name) for name in declarations(ModelConfig)})
