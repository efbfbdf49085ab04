"""Every option of the model runs, has the weights that a count by hand gives, and takes part in the
gradient.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.config.model import ModelConfig
from jaxsft.models.attention import TokenInfo
from jaxsft.models.dropout import Dropout
from jaxsft.models.heads import VocabHead
from jaxsft.models.layer_stack import layers_of
from jaxsft.models.transformer import Transformer
from tests.conftest import short

VOCAB, D, L, H, K, N, F, CONTEXT = 11, 8, 2, 4, 2, 2, 12, 9
BASE = {
    "layers": L,
    "embed": D,
    "heads": H,
    "kv_heads": K,
    "head_dim": N,
    "mlp": F,
    "context": CONTEXT,
}
WHERE = TokenInfo(np.array([[1, 1, 1, 1, 2, 2, 0]]), np.array([[0, 1, 2, 3, 0, 1, 0]]))
IDS = np.array([[3, 1, 4, 1, 5, 9, 0]])
# What families choose among, in combinations that no family has; a count by hand for each would
# repeat the code.
EXTRAS = {
    "gemma": {
        "norm_position": "sandwich",
        "norm_plus_one": True,
        "qk_norm": "head",
        "query_scale": 0.3,
        "attention_softcap": 2.0,
        "logit_softcap": 3.0,
        "embed_scale": 4.0,
        "window": 2,
        "window_layers": (0,),
        "rope_local_base": 100.0,
        "head_dim": 4,
        "activation": "gelu_tanh",
    },
    "olmo": {"norm_position": "output", "qk_norm": "all", "tied": False, "vocab_rows": 16},
    "neox": {
        "norm": "layer",
        "parallel": True,
        "rope_fraction": 0.5,
        "head_dim": 4,
        "gated": False,
        "activation": "relu",
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
    },
    "bert": {
        "norm": "layer",
        "norm_position": "post",
        "positions": "learned",
        "position_offset": 2,
        "types": 2,
        "embed_norm": True,
        "embed_inner": 6,
        "tied": False,
        "head_bias": True,
        "causal": False,
    },
    "modern": {
        "norm": "layer",
        "norm_bias": False,
        "first_norm": False,
        "embed_norm": True,
        "window": 2,
        "window_layers": (1,),
        "causal": False,
    },
    "experts": {"experts": 3, "experts_per_token": 2},
    "command": {
        "norm": "layer",
        "norm_bias": False,
        "parallel": True,
        "shared_norm": True,
        "rope_pairs": "neighbours",
        "rope_layers": (0,),
        "residual_scale": 0.5,
        "logit_scale": 0.5,
        "head_dim": 4,
    },
    "shared expert": {
        "experts": 3,
        "experts_per_token": 2,
        "expert_shared": 6,
        "qk_norm": "head",
        "qk_norm_last": True,
    },
    "mpnet": {"positions": "learned_relative", "causal": False, "relative_buckets": 8},
    "deberta": {
        "positions": "disentangled",
        "relative_buckets": 4,
        "relative_distance": 8,
        "kv_heads": 4,
        "causal": False,
        "qkv_bias": True,
    },
    "plain": {"positions": "none", "rope_base": 10000.0},
}


def model(**options):
    config = ModelConfig(**BASE | options)
    rows = config.vocab_rows or VOCAB
    head = VocabHead(D, rows, "fp32", matrix=not config.tied, bias=config.head_bias)
    return Transformer(config, rows, "fp32", None if config.tied and not config.head_bias else head)


@functools.cache
def params_of(m):
    return nn.meta.unbox(jax.jit(m.init)(jax.random.key(0)))


def count_by_hand(
    norm="rms", norm_position="pre", positions="rope", gated=True, tied=True, kv_heads=K, **_
):
    one_norm = D * (2 if norm == "layer" else 1)
    attention = D * H * N + 2 * D * kv_heads * N + H * N * D
    block = attention + (3 if gated else 2) * D * F + 2 * one_norm
    return (
        VOCAB * D * (1 if tied else 2)
        + (CONTEXT * D if positions == "learned" else 0)
        + L * block
        + (one_norm if norm_position == "pre" else 0)
    )


OPTIONS = [
    {},
    {"norm": "layer"},
    {
        "norm_position": "post",
        "norm": "layer",
        "positions": "learned",
        "gated": False,
        "activation": "gelu",
        "causal": False,
    },
    {"norm_position": "post", "tied": False, "kv_heads": H},
    {"positions": "learned", "tied": False},
    {"gated": False, "kv_heads": 1, "remat": True, "unroll": "none"},
]


@pytest.mark.parametrize(
    "options",
    short(OPTIONS, {}, OPTIONS[2], OPTIONS[-1]),
    ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()) or "default",
)
def test_every_option_runs(options):
    m = model(**options)
    params = params_of(m)
    assert sum(x.size for x in jax.tree.leaves(params)) == count_by_hand(**options)

    def value(params):
        hidden = m.hidden(params, IDS, WHERE)
        logits = hidden @ m.output_matrix(params)
        return (jax.nn.log_softmax(logits)[:, :, 3] * (WHERE.segment_ids > 0)).sum(), (
            hidden,
            logits,
        )

    grads, (hidden, logits) = jax.jit(jax.grad(value, has_aux=True))(params)
    assert hidden.shape == (1, 7, D) and logits.shape == (1, 7, VOCAB) and np.isfinite(logits).all()
    for path, g in jax.tree_util.tree_flatten_with_path(grads)[0]:
        assert np.isfinite(g).all() and np.abs(g).max() > 0, jax.tree_util.keystr(path)


# the choices of most families are in tests/hf/families/test_parity.py too
@pytest.mark.parametrize("name", short(list(EXTRAS), "neox", "experts"))
def test_what_families_choose_among(name):
    """Every weight has a gradient, logits are finite, scanned and unrolled alike, and each option
    by itself changes the logits.
    """
    m = model(**EXTRAS[name])
    where = WHERE._replace(types=np.array([[0, 0, 1, 1, 0, 1, 0]])) if m.config.types else WHERE
    # off the zeros that norms and biases start from
    params = jax.tree.map(lambda w: w + 0.05, params_of(m))

    def value(params):
        logits = m.logits(params, m.hidden(params, IDS, where))
        return (jax.nn.log_softmax(logits)[:, :, 3] * (WHERE.segment_ids > 0)).sum(), logits

    grads, logits = jax.jit(jax.grad(value, has_aux=True))(params)
    assert np.isfinite(logits).all() and logits.shape[-1] == m.vocab
    for path, g in jax.tree_util.tree_flatten_with_path(grads)[0]:
        assert np.isfinite(g).all() and np.abs(g).max() > 0, jax.tree_util.keystr(path)

    def logits_with(**changed):
        other = model(**EXTRAS[name] | changed)
        return np.asarray(other.logits(params, other.hidden(params, IDS, where)))[:, :6]

    np.testing.assert_allclose(logits_with(unroll="none"), logits[:, :6], rtol=1e-5, atol=1e-6)
    numbers = {
        "norm_plus_one",
        "query_scale",
        "attention_softcap",
        "logit_softcap",
        "embed_scale",
        "window",
        "window_layers",
        "rope_local_base",
    }
    others = {"norm_plus_one": False, "embed_scale": 1.0, "window_layers": None, "window": 3} | {
        "parallel": False,
        "first_norm": True,
    }
    others |= {"rope_fraction": 1.0, "activation": "silu", "norm_epsilon": 0.1}
    others |= {"rope_pairs": "halves", "rope_layers": None}
    others |= {"residual_scale": 1.0, "logit_scale": 1.0}
    if m.config.shared_norm:  # which is that of a parallel block
        del others["parallel"]
    for option in (numbers | set(others)) & (set(EXTRAS[name]) | {"norm_epsilon"}):
        assert np.abs(logits_with(**{option: others.get(option)}) - logits[:, :6]).max() > 1e-5, (
            option
        )


def test_remat_and_unroll_change_nothing():
    """Nor is there a weight more or less."""
    m = model()
    plain = jax.jit(m.hidden)(params_of(m), IDS, WHERE)
    for options in (
        {"remat": True},
        {"remat": True, "remat_saves": ("v", "gate")},
        {"unroll": "none"},
        {"unroll": "full"},
        {"remat": True, "unroll": "full"},
    ):
        np.testing.assert_allclose(
            jax.jit(model(**options).hidden)(params_of(m), IDS, WHERE), plain, rtol=1e-5, atol=1e-6
        )


def test_remat_computes_again_what_it_does_not_keep():
    """Products in the gradient: fewest without remat, most where nothing is kept."""

    def products(**options):
        m = model(unroll="none", **options)
        value = lambda params: m.hidden(params, IDS, WHERE).sum()
        return str(jax.make_jaxpr(jax.grad(value))(params_of(m))).count("dot_general")

    everything = ("q", "k", "v", "context", "gate", "up")
    counts = [
        products(),
        products(remat=True, remat_saves=everything),
        products(remat=True, remat_saves=("q", "k", "v", "context")),
        products(remat=True),
    ]
    assert counts == sorted(set(counts)), counts


def test_states_in_bf16_add_little_to_the_error_of_products():
    """Sums, norms, softmax and what is returned stay in float32: the gradient is off by no more
    than twice what products of rounded operands are; nothing that a layer keeps is wider.
    """

    def gradient(precision, activations):
        m = model(unroll="none", head_dim=8, activations=activations)
        m = dataclasses.replace(m, precision=precision)
        value = lambda params: (m.hidden(params, IDS, WHERE)[0, :6] ** 2).sum()
        saved = jax.make_jaxpr(lambda p: jax.vjp(value, p)[1])(params_of(m)).out_avals
        kept = {str(x.dtype) for x in saved if x.shape[:1] == (L,) and x.shape[1:3] == IDS.shape}
        states = jax.eval_shape(m.hidden, params_of(m), IDS, WHERE)
        grads = jax.jit(jax.grad(value))(params_of(m))
        assert {x.dtype for x in jax.tree.leaves((grads, states))} == {np.dtype("float32")}
        return np.concatenate([x.ravel() for x in jax.tree.leaves(grads)]), kept

    (exact, _), (products, wide), (both, narrow) = (
        gradient(*how) for how in (("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16"))
    )
    off = lambda x: np.linalg.norm(x - exact) / np.linalg.norm(exact)
    assert 0 < off(products) < off(both) < 2 * off(products) < 0.1
    assert "float32" in wide and narrow == {"bfloat16"}


@pytest.mark.parametrize("causal", [True, False])
def test_who_sees_whom(causal):  # guards B2
    """A token changes the states behind it (or all) of its own text, to the bit, and no other."""
    m = model(causal=causal)
    run = jax.jit(m.hidden)
    before, after = (
        np.asarray(run(params_of(m), ids, WHERE))
        for ids in (IDS, np.where(np.arange(7) == 2, 7, IDS))
    )
    moved = (before != after).any(-1)[0]
    np.testing.assert_array_equal(moved, [not causal, not causal, True, True, False, False, False])


def test_order_matters():
    """Both kinds of positions tell two orders of the same tokens apart, also without a causal
    mask."""
    for positions in ("rope", "learned"):
        m = model(positions=positions, causal=False)
        run, swapped = jax.jit(m.hidden), IDS.copy()
        swapped[0, :2] = IDS[0, 1::-1]
        last = [run(params_of(m), ids, WHERE)[0, 3] for ids in (IDS, swapped)]
        assert np.abs(last[0] - last[1]).max() > 1e-5


@pytest.mark.usefixtures("x64")
def test_rotary_positions_have_no_end():  # guards G9
    """Whatever the context: a text far behind it is told apart by distances, as at the start."""
    m, params = model(), jax.tree.map(lambda w: w.astype(np.float64), params_of(model()))
    run = jax.jit(m.hidden)
    near, far = (
        run(params, IDS, WHERE._replace(positions=WHERE.positions + start))
        for start in (0, 100 * CONTEXT)
    )
    np.testing.assert_allclose(near, far, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"parallel": True}, {"experts": 2}, {"norm_position": "output"}], ids=str
)
def test_dropout_is_at_every_site(options):
    """At the rate 1 nothing is added to the residual stream, neither by attention nor by the MLP;
    and the embeddings are gone.
    """
    m, x = model(**options), np.random.default_rng(0).normal(size=(1, 7, D)).astype(np.float32)
    noise = Dropout(np.float32(1), jax.random.split(jax.random.key(0), 1))
    weights = jax.tree.map(lambda w: w[0], params_of(m)["layers"]["0"])
    layer = jax.tree.map(lambda a: a[0], layers_of(m.config, 0, 1))
    run = lambda noise: m.block().apply(
        {"params": weights},
        x,
        WHERE,
        m._positions(params_of(m), WHERE, WHERE, x.dtype),
        layer,
        noise,
    )[0]
    np.testing.assert_array_equal(run(noise), x)
    assert np.abs(run(None) - x).max() > 1e-3
    assert not m._embed(params_of(m), IDS, WHERE, noise).any()


def test_layers_and_seeds_differ():  # guards H7
    """Every layer has weights of its own; the seed alone decides."""
    m = model()
    one, again, other = (nn.meta.unbox(jax.jit(m.init)(jax.random.key(s))) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    for name in ("q", "k", "v", "o"):
        w = one["layers"]["0"]["attention"][name]["w"]
        assert (w[0] != w[1]).all() and (w != other["layers"]["0"]["attention"][name]["w"]).all()


def test_first_logits_are_near_uniform():
    """The states have unit variance, and so have the logits of an untied head: the first loss is
    about log(vocab) + 1/2.
    """
    options = {"embed": 64, "heads": 4, "head_dim": 16, "mlp": 128, "context": 64, "tied": False}
    m = Transformer(ModelConfig(**BASE | options), 128, "fp32", VocabHead(64, 128, "fp32"))
    params = params_of(m)
    ids = np.random.default_rng(0).integers(0, 128, (4, 32))
    hidden = jax.jit(m.hidden)(
        params, ids, TokenInfo(np.ones_like(ids), np.tile(np.arange(32), (4, 1)))
    )
    log_p = jax.nn.log_softmax(hidden @ m.output_matrix(params))
    nll = -np.take_along_axis(np.asarray(log_p), np.roll(ids, -1, 1)[..., None], -1).mean()
    assert np.asarray(hidden).std() == pytest.approx(1, rel=0.05) and nll == pytest.approx(
        np.log(128) + 0.5, abs=0.2
    )
