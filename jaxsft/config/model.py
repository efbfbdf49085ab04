"""The options of a Transformer. They are orthogonal: families of pretrained models choose among
them, and no block knows a family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from jaxsft.config.option import option

ROPE_SCALING = {  # by kind, the options that it needs, and those that it reads besides
    "none": ((), ()),
    "linear": (("factor",), ()),
    "ntk": (("factor",), ()),
    "llama3": (("factor", "original"), ("low", "high")),
    "yarn": (("factor", "original"), ("fast", "slow", "truncate", "attention")),
    "longrope": (("factor", "original", "factors"), ("attention",)),
}

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
# of models and of heads; `models/layers.py` has the functions
ACTIVATIONS += ("laplace", "sqrtsoftplus", "linear")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are changed for a longer context; `models/rope.py` has the
    formulas."""

    kind: str = option("none", "none | linear | ntk | llama3 | yarn | longrope")
    factor: float = option(1.0, "how many times longer the context is made")
    original: Optional[int] = option(None, "the context that the frequencies were trained with")
    low: float = option(1.0, "of llama3: wave lengths above original / low are stretched")
    high: float = option(4.0, "of llama3: those below original / high are left alone")
    fast: float = option(
        32.0,
        "of yarn: dimensions that turn more often than this in the original context are left alone",
    )
    slow: float = option(1.0, "of yarn: those that turn less often are stretched")
    truncate: bool = option(True, "of yarn: the two limits are whole dimensions")
    attention: Optional[float] = option(
        None, "of yarn and longrope: what cosines and sines are multiplied by; null: by the formula"
    )
    factors: Optional[list[float]] = option(None, "of longrope: a divisor for each frequency")


@dataclass(frozen=True)
class ModelConfig:
    kind: str = option(
        "transformer",
        "transformer | lstm | gru: of these two `embed` is the size of the state, in both"
        " directions together",
    )
    layers: int = option(4, "blocks; of an encoder-decoder model those of its encoder")
    embed: int = option(128, "size of the states between blocks (`hidden_size`)")
    heads: int = option(4, "attention heads")
    kv_heads: int = option(
        4, "heads of keys and values: fewer than `heads` is grouped-query attention"
    )
    head_dim: int = option(32, "size of one head")
    mlp: int = option(384, "hidden units of the MLP (`intermediate_size`)")
    context: int = option(2048, "tokens of the longest text (`max_position_embeddings`)")
    causal: bool = option(True, "a token sees only those before it: a decoder; false: an encoder")
    vocab_rows: Optional[int] = option(
        None, "rows of the embedding; null: as many as the tokenizer has tokens"
    )
    norm: str = option("rms", "root mean square, or LayerNorm: rms | layer")
    norm_position: str = option(
        "pre",
        "pre: x + f(n(x)) | post: n(x + f(x)) | output: x + n(f(x)) | sandwich: x + n(f(n(x)))",
    )
    norm_epsilon: float = option(1e-6, "added to the variance before its root")
    norm_bias: bool = option(True, "of norm=layer")
    norm_plus_one: bool = option(False, "the scale is kept as its distance from 1")
    parallel: bool = option(False, "attention and MLP both read the input of the block")
    first_norm: bool = option(True, "false: the first attention reads the embeddings as they are")
    decoder_layers: int = option(
        0, "of an encoder-decoder model, whose encoder has `layers`; 0: there is no second half"
    )
    positions: str = option(
        "rope", "how the place of a token is told: rope | learned | relative | disentangled | none"
    )
    relative_buckets: int = option(
        32,
        "of positions=relative or disentangled: how many kinds of distance there are (of"
        " disentangled, in each direction)",
    )
    relative_distance: int = option(128, "from here on all share the last bucket")
    position_offset: int = option(
        0, "of positions=learned: rows of the table before that of the first position"
    )
    rope_base: float = 10000.0
    rope_fraction: float = option(1.0, "of the dimensions of a head that are rotated")
    rope_local_base: Optional[float] = option(None, "of the layers with a window; null: rope_base")
    rope_scaling: RopeScaling = option(RopeScaling, "not of layers with rope_local_base")
    window: Optional[int] = option(None, "a token sees those nearer than this; null: all")
    window_layers: Optional[list[int]] = option(None, "which layers have the window; null: all")
    qkv_bias: bool = option(False, "queries, keys and values have a bias")
    o_bias: bool = option(False, "the output of attention has a bias")
    qk_norm: str = option("none", "none | head: of each head | all: of all heads together")
    query_scale: Optional[float] = option(None, "null: head_dim^-0.5")
    attention_softcap: Optional[float] = option(None, "scores become cap * tanh(score / cap)")
    gated: bool = option(True, "an MLP with a gate (SwiGLU, GeGLU)")
    activation: str = option(
        "silu",
        "of the MLP: silu | gelu | gelu_tanh (gelu_new, gelu_fast) | relu | tanh | sigmoid |"
        " quick_gelu and others",
    )
    mlp_bias: bool = option(False, "the layers of the MLP have a bias")
    experts: int = option(
        0, "gated MLPs of a layer among which each token chooses; 0: one MLP for all"
    )
    experts_per_token: int = 2
    expert_norm: bool = option(True, "the weights of the chosen experts sum to one")
    tied: bool = option(True, "the output over the vocabulary is the embedding")
    head_bias: bool = option(False, "of the output over the vocabulary")
    logit_softcap: Optional[float] = option(
        None, "logits become cap * tanh(logit / cap); null: they stay"
    )
    output_scale: float = option(
        1.0, "of an encoder-decoder model: what its last states are multiplied by"
    )
    embed_scale: float = option(1.0, "what embeddings are multiplied by")
    embed_norm: bool = option(False, "a norm behind the embeddings")
    embed_inner: Optional[int] = option(
        None,
        "size of the embeddings, which a linear layer brings to `embed`; null: that size itself",
    )
    types: int = option(
        0,
        "kinds of token that have an embedding of their own: the first and the second text of a"
        " pair",
    )
    dropout: float = option(0.0, "share of the activations that training drops")
    attention: str = option(
        "auto",
        "blocked never holds all scores at once, as flash attention does: auto | reference |"
        " blocked",
    )
    remat: bool = option(
        False,
        "gradient checkpointing: activations are computed again in the backward pass, which needs"
        " less memory and a third more time",
    )
    unroll: str = option("auto", "auto | none | full: of the scan over layers")
    pretrained: Optional[str] = option(
        None,
        "a run directory, a folder with config.json and safetensors, or hub:owner/name@revision of"
        " either",
    )
    init: str = option(
        "pretrained",
        "with pretrained: its weights | scratch: its architecture and tokenizer only |"
        " reset:PATTERN: weights that start anew",
    )
    part: str = option(
        "all",
        "with a pretrained encoder-decoder: all | encoder: its encoder alone, as any other; the"
        " decoder is left out",
    )
    keep_layers: Optional[list[int]] = option(
        None,
        "with pretrained: which of its layers (of its encoder), in this order, counted from 0;"
        " null: all",
    )
    keep_decoder_layers: Optional[list[int]] = option(
        None, "with a pretrained encoder-decoder: which of its decoder's, likewise"
    )
    repeat_layers: int = option(1, "with pretrained: how often each of them comes in a row")
    resize_mlp: Optional[int] = option(
        None,
        "with pretrained: hidden units; more compute the same function, fewer are those with the"
        " largest weights",
    )
    resize_heads: Optional[int] = option(None, "with pretrained: heads, likewise")
    bidirectional: bool = option(
        False, "with pretrained: a token sees the whole text, whatever the model was trained with"
    )
    vectors: Optional[str] = option(
        None, "a file of word vectors (word2vec, GloVe) that rows of the embedding start from"
    )
    train_rows: str = option(
        "all", "all | added: of the vocabulary only the rows of tokenizer.added are trained"
    )
