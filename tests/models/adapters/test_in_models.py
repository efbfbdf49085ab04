"""Adapters inside a model: the start, what stays frozen, and the trust suite of the step again, in
float64.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.config import adapters as options
from jaxsft.config import optim, schema
from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.generation import decoding
from jaxsft.models import adapters
from jaxsft.models.attention import TokenInfo
from jaxsft.models.layers import Norm
from jaxsft.models.transformer import Transformer
from jaxsft.sharding.weights import flatten
from jaxsft.training import partition
from tests.conftest import assert_close, assert_same, bench, distance

pytestmark = pytest.mark.usefixtures("x64")
# hashed below
ADAM = optim.OPTIMIZERS["adamw"](
    learning_rate=0.05, weight_decay=0.1, lr_groups=(), decay_groups=()
)
LORA = options.LoRA(rank=2, target=("layers/.*/(q|v|down)",))
ALL = {
    "lora": options.LoRA(rank=2),
    "pissa": options.LoRA(rank=2, init="pissa"),
    "dora": options.DoRA(rank=2),
    "ia3": options.IA3(),
    "prefix": options.Prefix(tokens=3),
    "prompt": options.Prompt(tokens=3),
    "bitfit": options.BitFit(),
    "some layers": options.LoRA(rank=2, target=("layers/1/attention/(q|o)",)),
    "embedding": options.LoRA(rank=2, target=("embed/tokens", "layers/0/mlp/up")),
}
HEAD = options.LoRA(rank=2, target=("head",))
each = pytest.mark.parametrize("name", ALL)


@functools.cache
def made(name="lora", task="chat", **groups):
    groups = {
        key: dict(value) if isinstance(value, tuple) else value for key, value in groups.items()
    }
    model = {"qkv_bias": True, "norm": "layer"} if name == "bitfit" else {}
    adapter = ALL.get(name, name) if isinstance(name, str) else name
    return bench(
        task,
        adapter=adapter,
        **{"optim": ADAM} | groups | {"model": model | groups.get("model", {})},
    )


@functools.cache
def base(name=None):
    return (
        made(options.NoAdapter())
        if name != "bitfit"
        else bench("chat", optim=ADAM, model={"qkv_bias": True, "norm": "layer"})
    )


def learnt(b, steps=2):
    """All parameters after some steps."""
    return partition.join(partition.merge(b.run(steps)[0].trainable, b.apart[1]))


def hidden(b, params, k=0):
    batch = b.batches[k]
    return jax.jit(b.parts.model.hidden)(
        params, batch.tokens, TokenInfo(batch.segment_ids, batch.positions)
    )


@each
def test_what_is_trained_and_what_is_not(name):  # guards G10
    """The start is the base to the bit where nothing is put before the text; then the adapter
    moves, everything else keeps its bits under weight decay, and has no place in the state.
    """
    b = made(name)
    trained, _ = b.apart
    assert not [
        path for path in flatten(trained) if not (path.startswith("adapters/") or name == "bitfit")
    ]
    whole = base(name)
    assert_same({k: v for k, v in b.params.items() if k != "adapters"}, whole.params)
    once, sums = b.run([0])
    if name not in ("prefix", "prompt"):
        np.testing.assert_allclose(
            sums.terms["cross_entropy"], whole.run([0])[1].terms["cross_entropy"], rtol=1e-13
        )
    state, later = b.run([0], once)
    assert not later.skipped and later.terms["cross_entropy"] != sums.terms["cross_entropy"]
    for path, after in flatten(state.trainable).items():
        assert np.abs(after - flatten(trained)[path]).max() > 0, path
    assert sum(x.size for x in jax.tree.leaves(state.opt) if x.ndim) == 2 * sum(
        x.size for x in jax.tree.leaves(trained)
    )


def test_the_head_of_a_task_is_trained_an_output_matrix_is_not():
    classify = flatten(made("lora", "classify").apart[0])
    assert {path.split("/")[0] for path in classify} == {"adapters", "head"}
    untied = flatten(made("lora", model=(("tied", False),)).apart[0])
    assert {path.split("/")[0] for path in untied} == {"adapters"}
    more = made(dataclasses.replace(LORA, train=("norm/.*",)))
    assert "norm/scale" in flatten(more.apart[0])


def same_update(one, two, k=0):
    (a, sums), (b, other) = one.run([k]), two.run([k])
    assert distance(a.trainable, one.apart[0]) > 1e-4
    assert_close(
        (sums.terms, sums.totals, sums.grad_norm),
        (other.terms, other.totals, other.grad_norm),
        rtol=1e-11,
    )
    assert_close(a.trainable, b.trainable)


NOISY = dataclasses.replace(LORA, dropout=0.2)


@pytest.mark.parametrize(
    "change",
    [
        {"train": (("accumulate", 4),)},
        {"mesh": (("fsdp", 4), ("tensor", 2))},
        {"model": (("dropout", 0.1), ("remat", True), ("unroll", "none"))},
    ],
    ids=["micro-batches", "fsdp x tensor", "remat and scan"],
)
def test_how_it_is_computed_does_not_matter(change):  # guards A1, A3
    """With the adapter's own dropout, whose masks belong to rows."""
    common = {
        "data": (("packing", False),),
        "train": (("batch_size", 8),),
        "model": (("dropout", 0.1),),
    }
    merged = {
        key: tuple(dict(common.get(key, ()) + change.get(key, ())).items())
        for key in {*common, *change}
    }
    same_update(made(NOISY, **common), made(NOISY, **merged), 1)


@pytest.mark.parametrize("name, task", [("prefix", "chat"), ("prompt", "classify")])
def test_packing_changes_nothing(name, task):  # guards B1, B9
    """The whole epoch is one batch, packed or one text a row; virtual tokens are every text's
    own."""
    packed, plain = (
        made(name, task, data=(("packing", p),), train=(("batch_size", 16),)) for p in (True, False)
    )
    assert packed.batches.plan.texts > 1 and len(packed.batches) == len(plain.batches) == 1
    same_update(packed, plain)


def test_a_prompt_of_an_encoder_sees_its_own_text_only():
    """Another text in the row does not move the states of the first."""
    b = made("prompt", "classify", train=(("batch_size", 16),))
    batch = b.batches[0]
    other = np.where(batch.segment_ids == 2, (batch.tokens + 1) % 50, batch.tokens)
    run = lambda tokens: np.asarray(
        jax.jit(b.parts.model.hidden)(
            b.params, tokens, TokenInfo(batch.segment_ids, batch.positions)
        )
    )
    moved = (run(batch.tokens) != run(other)).any(-1)
    assert moved[batch.segment_ids == 2].any() and not moved[batch.segment_ids != 2].any()
    assert (batch.positions.min(), (batch.positions < 0).sum()) == (
        -3,
        3 * (batch.example_ids >= 0).sum(),
    )


@pytest.mark.parametrize(
    "positions, causal", [("relative", True), ("relative", False), ("disentangled", False)]
)
def test_a_prefix_is_what_was_read_before(positions, causal):  # guards B3
    """With the keys and values of real tokens as the prefix, a layer says of a text what it says of
    the text behind these tokens, and packed beside another text too. A layer without a prefix has
    none of its distances.
    """
    config = ModelConfig(
        layers=2,
        embed=8,
        heads=2,
        kv_heads=2,
        head_dim=4,
        mlp=8,
        positions=positions,
        causal=causal,
        relative_buckets=8,
        relative_distance=12,
    )
    kind = options.Prefix(tokens=3, target=("layers/0/attention",))
    model, plain = (
        Transformer(config, 20, adapter=adapter) for adapter in (kind, options.NoAdapter())
    )
    params = nn.meta.unbox(plain.init(jax.random.key(0)))
    params = jax.tree.map(
        lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape, jnp.float64), params
    )
    before, text = np.array([[3, 7, 1]]), np.array([[2, 9, 4, 4, 11, 6, 5]])
    own = jax.tree.map(lambda w: w[0], params["layers"]["0"])
    normed = Norm.of(config).apply(
        {"params": own["attention_norm"]}, params["embed"]["tokens"]["w"][before[0]]
    )
    keys, values = (
        jnp.einsum("pd,dkn->pkn", normed, own["attention"][name]["w"]) for name in ("k", "v")
    )
    with_prefix = {
        **params,
        "adapters": {
            "layers": {"0": {"attention": {"prefix_k": keys[None], "prefix_v": values[None]}}}
        },
    }
    assert jax.tree.structure(with_prefix) == jax.tree.structure(
        nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0)))
    )
    where = lambda *lengths: TokenInfo(
        np.concatenate([np.full((1, n), i + 1) for i, n in enumerate(lengths)], 1),
        np.concatenate([np.arange(n)[None] for n in lengths], 1),
    )
    one = dataclasses.replace(config, layers=1)
    first = lambda p: {**p, "layers": {"0": jax.tree.map(lambda w: w[:1], p["layers"]["0"])}}
    whole = Transformer(one, 20).hidden(
        first(params), np.concatenate([before, text], 1), where(10)
    )[:, 3:]
    found = Transformer(one, 20, adapter=kind).hidden(first(with_prefix), text, where(7))
    np.testing.assert_allclose(found, whole, atol=1e-12)
    run = jax.jit(lambda p: model.hidden(p, np.concatenate([text, text[:, :4]], 1), where(7, 4)))
    packed = run(with_prefix)
    np.testing.assert_allclose(packed[:, :7], model.hidden(with_prefix, text, where(7)), atol=1e-12)
    other = jax.tree.map(lambda x: x + 0.5 if x.shape == keys[None].shape else x, with_prefix)
    assert np.abs(run(other) - packed).max() > 1e-4


def test_dropout_of_the_adapter_is_traced():
    b = made(NOISY)
    one, two, none = (
        b.run([0], adapter_dropout=np.float32(rate))[1].terms["cross_entropy"]
        for rate in (0.2, 0.5, 0.0)
    )
    assert one == two == none  # b is 0
    state, _ = b.run(2)
    one, two, none = (
        b.run([2], state, adapter_dropout=np.float32(rate))[1].terms["cross_entropy"]
        for rate in (0.2, 0.5, 0.0)
    )
    assert len({float(one), float(two), float(none)}) == 3


# --- merging
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["lora", "pissa", "dora", "ia3", "some layers", "embedding", "bitfit"]
)
def test_merged_weights_give_the_same_loss(name):  # guards G1, G3, G7
    b, plain = made(name), base("bitfit" if name == "bitfit" else None)
    state, _ = b.run(2)
    merged = partition.join(
        adapters.merge(b.config.adapter, partition.merge(state.trainable, b.apart[1]))
    )
    assert jax.tree.structure(merged) == jax.tree.structure(plain.params)
    expected = b.run([0], state)[1].terms["cross_entropy"]
    found, before = (
        plain.run([0], plain.state(p))[1].terms["cross_entropy"] for p in (merged, plain.params)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert abs(found - before) > 1e-3


def test_tokens_cannot_be_merged():
    with pytest.raises(ConfigError, match="cannot be merged"):
        adapters.merge(ALL["prefix"], made("prefix").params)


# --- the output matrix
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "adapter, tied", [(HEAD, False), (ALL["embedding"], True)], ids=["untied", "tied"]
)
def test_an_adapter_of_the_output_matrix_in_chunks(adapter, tied):  # guards G3, G5
    """Chunked or not, the same sums and gradients; and the head's adapter really is in the
    logits."""
    one, two = (
        made(adapter, model=(("tied", tied),), loss=(("chunk", chunk),)) for chunk in ("none", 7)
    )
    same_update(one, two)
    params = learnt(one)
    h = jax.random.normal(jax.random.key(0), (2, 3, 16), jnp.float64)
    model = one.parts.model
    merged = partition.join(adapters.merge(adapter, params))
    np.testing.assert_allclose(
        model.logits(params, h),
        dataclasses.replace(model, adapter=options.NoAdapter()).logits(merged, h),
        rtol=1e-10,
        atol=1e-12,
    )


# --- many adapters over one base
# --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_eight_adapters_in_one_program_are_eight_runs():  # guards I6
    """Of different rates, starts and seeds of dropout, over one frozen base that is not copied;
    each of them is compared with its own run.
    """
    b = made(
        NOISY,
        model=(("layers", 1), ("mlp", 8)),
        data=(("packing", False),),
        train=(("batch_size", 4),),
    )
    trees = [b.apart[0]]
    for seed in range(1, 8):
        trees.append(
            jax.tree.map(
                lambda x, s=seed: x + 0.1 * jax.random.normal(jax.random.key(s), x.shape, x.dtype),
                b.apart[0],
            )
        )
    own = {
        "learning_rate": np.arange(1, 9, dtype=np.float32) * np.float32(1e-3),
        "dropout_seed": np.arange(8, dtype=np.uint32),
    }
    assert all(b.hyper[name].dtype == value.dtype for name, value in own.items())
    stack = jax.tree.map(lambda *x: jnp.stack(x), *[b.state(tree) for tree in trees])
    step = jax.jit(
        jax.vmap(
            b.program.step, in_axes=(0, None, None, dict.fromkeys(b.hyper) | dict.fromkeys(own, 0))
        )
    )
    for k in range(2):
        stack, sums = step(stack, b.apart[1], b.batches[k], b.hyper | own)
    assert (
        sums.terms["cross_entropy"].shape == (8,)
        and len({float(x) for x in sums.terms["cross_entropy"]}) == 8
    )
    for i, tree in enumerate(trees):
        solo, alone = b.run(2, b.state(tree), **{name: value[i] for name, value in own.items()})
        assert distance(solo.trainable, tree) > 1e-4
        assert_close(jax.tree.map(lambda x, i=i: x[i], (stack, sums)), (solo, alone), rtol=1e-10)
    other, _ = b.run(2, b.state(trees[7]), learning_rate=own["learning_rate"][7])
    assert distance(other.trainable, solo.trainable) > 1e-6  # the seed is read


# --- rates, layers
# --------------------------------------------------------------------------------------------------
def test_b_learns_faster_than_a():  # guards G6
    """LoRA+ is a group of learning rates like any other, so it is in the config that the run
    keeps."""
    sgd = optim.OPTIMIZERS["sgd"](learning_rate=0.5, momentum=0.0, clip_norm=None, lr_groups=())
    plain, plus = (
        made(dataclasses.replace(LORA, lr_ratio=ratio), optim=sgd) for ratio in (1.0, 16.0)
    )
    assert plus.config.optim.lr_groups == (optim.Group("adapters/.*/b", 16.0),)
    moved = [
        flatten(jax.tree.map(lambda x, y: x - y, b.run(1)[0].trainable, b.apart[0]))
        for b in (plain, plus)
    ]
    for path in moved[0]:
        np.testing.assert_allclose(
            moved[1][path], (16 if path.endswith("/b") else 1) * moved[0][path], rtol=1e-10
        )


def test_adapters_are_cut_with_the_layers():
    """Layers that are adapted or frozen otherwise are segments of their own, in the base and in the
    adapter alike.
    """
    b = made(
        options.LoRA(rank=2, target=("layers/[12]/attention/q", "layers/2/mlp/up")),
        model=(("layers", 4),),
    )
    trained, frozen = b.apart
    assert sorted(trained["adapters"]["layers"]) == ["1", "2"] and sorted(frozen["layers"]) == [
        "0",
        "1",
        "2",
        "3",
    ]
    whole = partition.merge(trained, frozen)
    assert_same(partition.join(whole), partition.join(b.params))
    np.testing.assert_array_equal(hidden(b, whole), hidden(b, b.params))
    lower = made(LORA, model=(("layers", 4),), train=(("freeze", ("adapters/layers/[01]/.*",)),))
    assert sorted(lower.apart[0]["adapters"]["layers"]) == ["2"] and sorted(
        lower.apart[1]["layers"]
    ) == ["0", "2"]
    assert_same(partition.join(partition.merge(*lower.apart)), lower.params)


def test_layers_are_unfrozen_from_the_top():  # guards G10
    """A layer that waits keeps its bits under weight decay, and its moments are zero; the embedding
    is the last.
    """
    b = bench("classify", optim=ADAM, train={"unfreeze_every": "2steps", "batch_size": 4})
    state, moved = b.state(), []
    for k in range(8):
        before = state
        state, _ = b.run([k % len(b.batches)], state)
        w = [flatten(s.trainable) for s in (before, state)]
        delta = {name: np.abs(np.asarray(w[1][name] - w[0][name])) for name in w[0]}
        q = delta["layers/0/attention/q/w"].reshape(2, -1).max(1)
        moved.append(
            (
                max(d.max() for path, d in delta.items() if path.startswith("head/")) > 0,
                q[1] > 0,
                q[0] > 0,
                delta["embed/tokens/w"].max() > 0,
            )
        )
    assert moved == [(True, k >= 2, k >= 4, k >= 6) for k in range(8)]
    waits, _ = b.run(2)
    held = [x for path, x in flatten(waits.opt).items() if "embed/tokens" in path]
    assert held and not any(np.any(x) for x in held)


# --- generation
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, positions", [("prefix", "learned"), ("prompt", "learned"), ("prefix", "relative")]
)
def test_the_cache_generates_what_the_whole_forward_pass_says(name, positions):
    b = made(name, model=(("positions", positions),))
    params, model, p = learnt(b), b.parts.model, b.parts.model.prompt_length
    prompt = [9, 8, 7, 6, 5, 4]
    options_of = schema.GenerateConfig(batch_size=2)
    new = decoding.generate(
        model, params, [prompt, [5, 6, 7]], options_of, max_new_tokens=4, stop_ids=[]
    )[0].ids
    ids = np.array([[0] * p + prompt + new])
    where = TokenInfo(np.ones_like(ids), np.arange(ids.shape[1])[None] - p)
    logits = model.logits(params, jax.jit(model.hidden)(params, ids, where))[0]
    assert logits.argmax(-1)[p + 5 : p + 5 + len(new)].tolist() == new and len(new) == 4


@pytest.mark.parametrize(
    "adapter, message",
    [
        (
            options.LoRA(target=("layers/.*/nothing",)),
            "adapter.target: pattern 'layers/.*/nothing' matches no parameter",
        ),
        (options.LoRA(target=("norm",)), "matches no parameter"),
        (options.BitFit(), "has nothing to train"),
        (
            options.LoRA(rank=2, train=("nothing",)),
            "adapter.train: pattern 'nothing' matches no parameter",
        ),
        (
            options.LoRA(rank=9, init="pissa"),
            (
                "adapter.rank=9: adapter.init=pissa takes singular triples of each weight, and"
                " layers/0/attention/k has 8"
            ),
        ),
        (
            options.DoRA(dropout=0.1, target=("embed/tokens",)),
            "adapter.dropout=0.1: adapter.target=['embed/tokens'] matches embeddings and output",
        ),
    ],
    ids=["target", "no linear layer", "no biases", "train", "rank of PiSSA", "dropout of nothing"],
)
def test_what_cannot_be_adapted_is_refused(adapter, message):
    with pytest.raises(ConfigError, match=None) as error:
        bench("chat", 3, adapter=adapter).apart  # noqa: B018
    assert message in str(error.value)


def test_learned_positions_must_have_room():
    with pytest.raises(ConfigError, match=r"adapter.tokens=3 leaves 61 of model.context=64"):
        made("prompt", model=(("positions", "learned"),), data=(("max_length", 62),))
