"""LSTM and GRU against loops in numpy and against torch; texts that share a row know nothing of
each other.
"""

import dataclasses
import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.config import adapters as options
from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.models import adapters, registry
from jaxsft.models.attention import TokenInfo
from jaxsft.models.dropout import Dropout, neftune
from jaxsft.models.feature_tokens import Soft
from jaxsft.models.recurrent import Recurrent, RecurrentCell
from jaxsft.models.transformer import Transformer
from jaxsft.sharding.weights import flatten
from jaxsft.training import partition
from tests import conftest, tiny

D, V = 6, 11
KINDS = pytest.mark.parametrize("kind", ["lstm", "gru"])  # model.kind


def make(kind: str, causal: bool = False, layers: int = 2) -> tuple[Recurrent, dict]:
    model = Recurrent(
        ModelConfig(kind=kind, layers=layers, embed=D, causal=causal, embed_scale=2.0), V
    )
    params = jax.tree.map(
        lambda w: w.value, model.init(jax.random.key(0)), is_leaf=lambda w: hasattr(w, "value")
    )
    rng = np.random.default_rng(0)  # biases that are not zero
    return model, jax.tree.map(
        lambda w: jnp.asarray(w, jnp.float64) + 0.1 * rng.normal(size=w.shape), params
    )


def one(length: int) -> TokenInfo:
    return TokenInfo(jnp.ones((1, length), jnp.int32), jnp.arange(length)[None])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(kind: str, w: dict, x: np.ndarray) -> np.ndarray:
    """The states after each of `[S, D]` inputs, step by step."""
    h = c = np.zeros(w["u"].shape[0])
    out = []
    for now in x:
        a, r = (
            [now @ w["w"][:, g] + w["b"][g] for g in range(w["b"].shape[0])],
            [h @ w["u"][:, g] for g in range(w["b"].shape[0])],
        )
        if kind == "lstm":
            i, f, g, o = (x + y for x, y in zip(a, r, strict=True))
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            reset, keep = sigmoid(a[0] + r[0]), sigmoid(a[1] + r[1])
            h = (1 - keep) * np.tanh(a[2] + reset * (r[2] + w["c"])) + keep * h
        out.append(h)
    return np.stack(out)


@KINDS
@pytest.mark.parametrize("causal", [True, False])
def test_equals_a_loop(kind, causal, x64):
    model, params = make(kind, causal)
    ids = np.random.default_rng(1).integers(0, V, 7)
    x = np.asarray(params["embed"]["tokens"]["w"])[ids] * 2.0
    for layer in range(2):
        w = jax.tree.map(lambda a: np.asarray(a[layer]), params["layers"]["0"])
        x = (
            by_hand(kind, w["forward"], x)
            if causal
            else np.concatenate(
                [by_hand(kind, w["forward"], x), by_hand(kind, w["backward"], x[::-1])[::-1]], -1
            )
        )
    np.testing.assert_allclose(model.hidden(params, ids[None], one(7))[0], x, atol=1e-12)


@KINDS
@pytest.mark.parametrize("causal", [True, False])
def test_packed_is_unpacked(kind, causal, x64):  # guards B11
    model, params = make(kind, causal)
    a, b = np.array([[1, 2, 3]]), np.array([[4, 5]])
    segments, positions = np.array([[1, 1, 1, 2, 2, 0, 0]]), np.array([[0, 1, 2, 0, 1, 0, 0]])
    row = lambda first: np.concatenate([first, b, [[9, 9]]], 1)
    run = jax.jit(lambda ids: model.hidden(params, ids, TokenInfo(segments, positions)))
    packed, other = run(row(a)), run(row(a + 5))
    np.testing.assert_allclose(packed[:, :3], model.hidden(params, a, one(3)), atol=1e-15)
    np.testing.assert_allclose(packed[:, 3:5], model.hidden(params, b, one(2)), atol=1e-15)
    np.testing.assert_array_equal(packed[:, 3:], other[:, 3:])
    assert not np.allclose(packed[:, :3], other[:, :3]) and not packed[:, 5:].any()


def test_a_kind_that_cannot_keep_texts_apart_is_refused(monkeypatch):  # guards B11
    leaky = types.SimpleNamespace(supports_packing=False)
    monkeypatch.setitem(registry.KINDS, "gru", leaky)
    with pytest.raises(
        ConfigError, match=r"model.kind=gru: texts that share a row .* set data.packing=false"
    ):
        conftest.bench("classify", model=GRU)
    assert registry.get(ModelConfig(kind="gru"), packing=False) is leaky


# the last three as they are by default
GRU = {"kind": "gru", "heads": 4, "kv_heads": 4, "head_dim": 32}


def test_gradients_do_not_depend_on_packing(x64):  # guards B11
    given = {"model": GRU | {"layers": 1}, "train": {"batch_size": 5}}
    benches = [
        conftest.bench("classify", 5, longest=6, data={"packing": packing}, **given)
        for packing in (True, False)
    ]
    grads = [
        jax.jit(b.program._gradient)(
            b.state(), {}, b.batches[0], b.hyper, b.program.task.totals(b.batches[0])
        )[0]
        for b in benches
    ]
    conftest.assert_close(*grads, atol=1e-12)
    assert benches[0].batches.plan.rows < benches[1].batches.plan.rows == 5


@KINDS
def test_gradients_in_bfloat16(kind):
    """`precision=auto` rounds so; XLA's CPU backend does not have every product of bfloat16."""

    def gradients(precision):
        cell = RecurrentCell(kind, 8, precision)
        x, first = (
            jax.random.normal(jax.random.key(1), (4, 5, 16)),
            jnp.zeros((4, 5), bool).at[:, 0].set(True),
        )
        params = nn.meta.unbox(cell.init(jax.random.key(0), x, first))
        return jax.jit(jax.grad(lambda p: (cell.apply(p, x, first) ** 2).sum()))(params)["params"]

    exact, rounded = gradients("fp32"), gradients("bf16")
    for name in exact:
        assert np.abs(exact[name] - rounded[name]).max() < 0.02 * np.abs(exact[name]).max(), name


def test_dropout_remat_and_what_is_not_read(x64):
    model, params = make("lstm")
    noise, ids = (
        Dropout(jnp.float32(0.5), jax.random.split(jax.random.key(1), 1)),
        np.array([[1, 2, 3]]),
    )
    again = dataclasses.replace(model, config=dataclasses.replace(model.config, remat=True))
    run = jax.jit(
        lambda p: (
            model.hidden(p, ids, one(3)),
            again.hidden(p, ids, one(3)),
            model.hidden(p, ids, one(3), noise),
        )
    )
    plain, remat, noisy = run(params)
    assert not np.allclose(noisy, plain)
    np.testing.assert_array_equal(remat, plain)
    with pytest.raises(
        ConfigError, match=r"model.heads=2: is read with model.kind=transformer only"
    ):
        conftest.make_config("classify", model=GRU | {"heads": 2})
    with pytest.raises(ConfigError, match=r"model.embed=15: two directions"):
        conftest.make_config("classify", model=GRU | {"embed": 15})
    with pytest.raises(ConfigError, match="task=chat generates answers"):
        conftest.make_config("chat", model=GRU)
    with pytest.raises(ConfigError, match="it generates no text"):
        model.decode()


ADAPTED = {
    "lora": options.LoRA(rank=2),
    "pissa": options.LoRA(rank=2, init="pissa", target=("layers/1/.*/(w|u)", "embed/tokens")),
    "dora": options.DoRA(rank=2, target=("layers/.*/backward/u",)),
}


@KINDS
def test_noise_on_embeddings(kind, x64):  # guards H9
    """The states are those of embeddings with the noise of `neftune`; without its strength, to the
    bit those without.
    """
    model, params = make(kind)
    ids, where = np.arange(6)[None], one(6)
    keys = jax.random.split(jax.random.key(3), 1)
    noise = Dropout(jnp.float32(0.0), keys, neftune=jnp.float32(5.0))
    run = jax.jit(model.hidden)
    clean = run(params, ids, where)
    np.testing.assert_array_equal(run(params, ids, where, Dropout(jnp.float32(0.0), keys)), clean)
    x = model.config.embed_scale * params["embed"]["tokens"]["w"][ids]
    noisy = neftune(x, noise.at(model.config.layers), where.segment_ids)
    assert 0 < np.abs(noisy - x).max() <= 5 / (6 * x.shape[-1]) ** 0.5
    expected = run(params, ids, where, None, Soft(np.ones((1, 6), bool), noisy))
    found = run(params, ids, where, noise)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.abs(found - clean).max() > 1e-3
    assert conftest.make_config("classify", model=GRU, train={"neftune": 5.0}).train.neftune == 5.0


@pytest.mark.parametrize(
    "kind, name", [("lstm", "lora"), ("gru", "lora"), ("lstm", "pissa"), ("gru", "dora")]
)
def test_adapters_of_a_cell(kind, name, x64):  # guards G1, G7
    """The start is the base; a learnt adapter computes what the weights with it in them compute, in
    both directions.
    """
    plain, params = make(kind)
    model = dataclasses.replace(plain, adapter=ADAPTED[name])
    wide = lambda tree: jax.tree.map(lambda w: jnp.asarray(w, jnp.float64), tree)
    params["adapters"] = wide(nn.meta.unbox(model.init(jax.random.key(0)))["adapters"])
    params = adapters.start(model.adapter, params, jax.random.key(1))
    sites = {
        path.removeprefix("adapters/").rsplit("/", 1)[0]
        for path in flatten(params)
        if path.startswith("adapters/")
    }
    each = {f"layers/0/{way}/{matrix}" for way in ("forward", "backward") for matrix in "wu"}
    assert (
        sites
        == {
            "lora": each,
            "pissa": {x.replace("0", "1") for x in each} | {"embed/tokens"},
            "dora": {"layers/0/backward/u"},
        }[name]
    )
    ids = np.array([[1, 2, 3, 4, 5]])
    run = jax.jit(lambda p: model.hidden(p, ids, one(5)))
    base = {k: v for k, v in params.items() if k != "adapters"}
    np.testing.assert_allclose(run(params), plain.hidden(base, ids, one(5)), atol=1e-12)
    moved = jax.tree_util.tree_map_with_path(
        lambda path, w: w if path[-1].key in adapters.FIXED else w + 0.3, params["adapters"]
    )
    found, merged = (
        run({**params, "adapters": moved}),
        partition.join(adapters.merge(model.adapter, {**params, "adapters": moved})),
    )
    np.testing.assert_allclose(found, plain.hidden(merged, ids, one(5)), atol=1e-12)
    assert np.abs(found - run(params)).max() > 1e-3
    # a tied output has the adapter of the embedding too
    states = jax.random.normal(jax.random.key(2), (1, 3, D), jnp.float64)
    np.testing.assert_allclose(
        model.logits({**params, "adapters": moved}, states),
        plain.logits(merged, states),
        atol=1e-12,
    )


@pytest.mark.slow
def test_a_step_trains_the_adapter_of_a_cell_alone(x64):  # guards A1, G10
    """With its dropout, whose masks belong to rows, in one batch or in micro-batches."""
    given = {
        "model": GRU | {"layers": 1},
        "adapter": options.LoRA(rank=2, dropout=0.3),
        "data": {"packing": False},
    }
    whole, parts = (
        conftest.bench("classify", 4, longest=6, train={"batch_size": 4, "accumulate": n}, **given)
        for n in (1, 2)
    )
    assert {path.split("/")[0] for path in flatten(whole.apart[0])} == {"adapters", "head"}
    (a, sums), (b, other) = whole.run([0, 0]), parts.run([0, 0])
    conftest.assert_close((a.trainable, sums.terms), (b.trainable, other.terms))
    for path, start in flatten(whole.apart[0]).items():
        assert np.abs(flatten(a.trainable)[path] - start).max() > 0, path
    quiet = whole.run([0, 0], adapter_dropout=np.float32(0))[1]
    assert abs(float(quiet.terms["cross_entropy"] - sums.terms["cross_entropy"])) > 1e-9
    biases = conftest.bench(
        "classify", 4, longest=6, model=GRU | {"layers": 1}, adapter=options.BitFit()
    )
    assert {
        path.rsplit("/", 1)[1] for path in flatten(biases.apart[0]) if path.startswith("layers")
    } == {"b", "c"}


@pytest.mark.parametrize(
    "adapter, why",
    [(options.IA3(), "no attention, and no MLP"), (options.Prefix(), "no attention to tokens")],
)
def test_adapters_that_a_cell_has_no_place_for(adapter, why):
    with pytest.raises(
        ConfigError,
        match=(
            rf"adapter={adapter.name}: model.kind=gru has {why}.*choose lora, dora, bitfit, or"
            r" model.kind=transformer"
        ),
    ):
        conftest.bench("classify", 3, model=GRU, adapter=adapter)


@pytest.mark.slow
@KINDS
def test_equals_torch(kind, x64):
    torch = pytest.importorskip("torch")
    model, params = make(kind)
    ids = np.random.default_rng(1).integers(0, V, 9)
    other = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](
        D, D // 2, 2, batch_first=True, bidirectional=True, dtype=torch.float64
    )
    with torch.no_grad():
        for layer in range(2):
            for name, end in (("forward", ""), ("backward", "_reverse")):
                w = {k: np.asarray(v[layer]) for k, v in params["layers"]["0"][name].items()}
                hidden = np.zeros_like(w["b"])
                if kind == "gru":
                    hidden[2] = w["c"]
                for field, value in (
                    ("weight_ih", w["w"].reshape(D, -1).T),
                    ("weight_hh", w["u"].reshape(D // 2, -1).T),
                    ("bias_ih", w["b"].ravel()),
                    ("bias_hh", hidden.ravel()),
                ):
                    getattr(other, f"{field}_l{layer}{end}").copy_(torch.tensor(value))
        expected = other(torch.tensor(np.asarray(params["embed"]["tokens"]["w"])[ids][None] * 2.0))[
            0
        ].numpy()
    np.testing.assert_allclose(model.hidden(params, ids[None], one(9)), expected, atol=1e-12)


@pytest.mark.slow
def test_a_run(tmp_path):
    files = tiny.data(tmp_path)
    code, _, err = tiny.jaxsft(
        "train",
        "task=classify",
        "model=lstm",
        f"data.train={files / 'labels.jsonl'}",
        f"data.validation={files / 'labels_held.jsonl'}",
        f"run_dir={tmp_path / 'run'}",
        "train.duration=4steps",
        "model.embed=16",
        "precision=fp32",
        "mesh.data=1",
        "tokenizer=word",
        "tokenizer.min_count=1",
    )
    assert code == 0, err
    assert (tmp_path / "run" / "result.json").is_file() and registry.KINDS["lstm"] is Recurrent


def test_the_interface_is_that_of_the_transformer():
    for name in ("init", "hidden", "output_matrix", "finish_logits", "logits"):
        assert str(inspect.signature(getattr(Recurrent, name))) == str(
            inspect.signature(getattr(Transformer, name))
        ), name
