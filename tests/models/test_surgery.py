"""Other depths and widths of a pretrained model: what is not asked to change stays, to the bit, and
a wider model computes the same.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.models import structure, surgery
from jaxsft.models.attention import TokenInfo
from jaxsft.models.encoder_decoder import EncoderDecoder
from jaxsft.models.transformer import Transformer
from jaxsft.training.checkpoint import flatten
from tests import conftest

OLD = ModelConfig(
    layers=3,
    embed=8,
    heads=4,
    kv_heads=2,
    head_dim=4,
    mlp=6,
    context=16,
    qkv_bias=True,
    o_bias=True,
    mlp_bias=True,
    qk_norm="head",
)
IDS = np.array([[3, 1, 4, 1, 5]])
WHERE = TokenInfo(jnp.ones((1, 5), jnp.int32), jnp.arange(5)[None])


TWO = dataclasses.replace(OLD, decoder_layers=2, causal=False)
T5 = {
    "positions": "relative",
    "relative_buckets": 8,
    "relative_distance": 12,
    "qk_norm": "none",
    "query_scale": 1.0,
    "output_scale": 0.25,
}
BART = {
    "positions": "learned",
    "position_offset": 2,
    "norm": "layer",
    "norm_position": "post",
    "embed_norm": True,
    "gated": False,
}
PAIRS = {"T5": {**T5, "kv_heads": 4}, "BART": BART, "relative, grouped": T5}


def model_of(config: ModelConfig) -> Transformer:
    return (EncoderDecoder if config.decoder_layers else Transformer)(config, 7)


def declared(config: ModelConfig) -> dict:
    return jax.eval_shape(
        lambda: jax.tree.map(
            lambda w: w.value,
            model_of(config).init(jax.random.key(0)),
            is_leaf=lambda w: hasattr(w, "value"),
        )
    )


def start(config: ModelConfig = OLD) -> dict:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda w: jnp.asarray(0.4 * rng.normal(size=w.shape)), declared(config))


def change(params: dict, old: ModelConfig = OLD, **options) -> tuple[ModelConfig, dict]:
    wanted = dataclasses.replace(old, pretrained="x", **options)
    new = structure.resized(wanted)
    out = surgery.apply(params, old, wanted, 0)
    assert {k: v.shape for k, v in flatten(out).items()} == {
        k: v.shape for k, v in flatten(declared(new)).items()
    }
    return new, out


def hidden(config: ModelConfig, params: dict) -> np.ndarray:
    source = {"source": (IDS[:, ::-1], WHERE)} if config.decoder_layers else {}
    return np.asarray(jax.jit(lambda p: model_of(config).hidden(p, IDS, WHERE, **source))(params))


def apart(a: dict, b: dict) -> set[str]:
    """The weights that differ."""
    one, two = flatten(a), flatten(b)
    return {
        name
        for name in one
        if one[name].shape != two[name].shape or not np.array_equal(one[name], two[name])
    }


def test_layers(x64):
    params = start()
    new, out = change(params, keep_layers=(2, 0), repeat_layers=2)
    assert new.layers == 4 and structure.layers(
        dataclasses.replace(OLD, keep_layers=(2, 0), repeat_layers=2)
    ) == [2, 2, 0, 0]
    conftest.assert_same(
        out["layers"]["0"], jax.tree.map(lambda w: w[np.array([2, 2, 0, 0])], params["layers"]["0"])
    )
    conftest.assert_same(
        {k: v for k, v in out.items() if k != "layers"},
        {k: v for k, v in params.items() if k != "layers"},
    )
    window = dataclasses.replace(OLD, window=2, window_layers=(0, 1))
    assert structure.resized(dataclasses.replace(window, keep_layers=(2, 1, 0))).window_layers == (
        1,
        2,
    )
    assert structure.resized(OLD) == OLD
    for options, part in (
        ({"keep_layers": (0, 3)}, "expected some of the layers 0 to 2"),
        ({"keep_layers": ()}, "expected some of the layers"),
    ):
        with pytest.raises(ConfigError, match=part):
            change(params, **options)
    with pytest.raises(ConfigError, match="it must stay the first, and once"):
        structure.resized(dataclasses.replace(OLD, first_norm=False, repeat_layers=2))


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("units", [7, 16])
def test_a_wider_mlp_computes_the_same(gated, units, x64):
    old = dataclasses.replace(OLD, gated=gated, activation="gelu")
    params = start(old)
    new, out = change(params, old, resize_mlp=units)
    np.testing.assert_allclose(hidden(new, out), hidden(old, params), atol=1e-12)
    assert {name.split("/")[2] for name in apart(params, out)} == {"mlp"} and not {
        n for n in apart(params, out) if n.endswith("down/b")
    }
    gradient = jax.jit(
        jax.grad(lambda p: jnp.square(Transformer(new, 7).hidden(p, IDS, WHERE)[..., 0]).sum())
    )(out)["layers"]["0"]["mlp"]["up"]["w"]
    columns = np.asarray(gradient[0]).T
    # copies do not stay alike
    assert all(
        np.abs(columns[i] - columns[j]).max() > 1e-12 for i in range(units) for j in range(i)
    )


def test_more_heads_compute_the_same(x64):
    params = start()
    new, out = change(params, resize_heads=6)
    assert (new.heads, new.kv_heads) == (6, 3)
    np.testing.assert_allclose(hidden(new, out), hidden(OLD, params), atol=1e-12)
    assert {name.split("/")[2] for name in apart(params, out)} == {
        "attention"
    } and "layers/0/attention/o/b" not in apart(params, out)
    with pytest.raises(ConfigError, match="it must be a multiple of 2"):
        change(params, resize_heads=5)
    with pytest.raises(ConfigError, match="goes over all heads together"):
        structure.resized(dataclasses.replace(OLD, qk_norm="all", resize_heads=8))


@pytest.mark.parametrize("kind", PAIRS)
def test_an_encoder_decoder(kind, x64):
    """Layers of each half, and both halves wider with the same function; the heads of a shared
    table of positions are alike in all layers.
    """
    old = dataclasses.replace(TWO, **PAIRS[kind])
    params = start(old)
    new, out = change(params, old, keep_layers=(2, 0), keep_decoder_layers=(1,), repeat_layers=2)
    assert (new.layers, new.decoder_layers, new.causal) == (4, 2, False)
    for half, order in (("encoder", [2, 2, 0, 0]), ("decoder", [1, 1])):
        conftest.assert_same(
            out[half]["layers"]["0"],
            jax.tree.map(lambda w, order=order: w[np.array(order)], params[half]["layers"]["0"]),
        )
    assert not {name for name in apart(params, out) if "/layers/" not in name}
    new, out = change(params, old, resize_mlp=9, resize_heads=6)
    assert (new.mlp, new.heads, new.kv_heads) == (9, 6, 6 * old.kv_heads // 4)
    np.testing.assert_allclose(hidden(new, out), hidden(old, params), atol=1e-12)
    changed = {"/".join(name.split("/")[3:4]) or name for name in apart(params, out)}
    tables = {"encoder/relative/w", "decoder/relative/w"} if old.positions == "relative" else set()
    assert changed == {"attention", "cross", "mlp"} | tables
    cut = jax.tree.map(lambda w: w, params)
    # two heads that do next to nothing, which share keys and values where heads do
    for half in ("encoder", "decoder"):
        stack = cut[half]["layers"]["0"]
        for name in ("attention", "cross") if half == "decoder" else ("attention",):
            stack[name]["o"]["w"] = stack[name]["o"]["w"].at[:, :2].multiply(1e-9)
    new, out = change(cut, old, resize_heads=2)
    np.testing.assert_allclose(hidden(new, out), hidden(old, cut), atol=1e-6)


def test_heads_with_a_shared_table_of_positions(x64):
    """The same of a model of one stack."""
    old = dataclasses.replace(OLD, **T5 | {"output_scale": 1.0})
    params = start(old)
    new, out = change(params, old, resize_heads=8)
    np.testing.assert_allclose(hidden(new, out), hidden(old, params), atol=1e-12)
    assert "relative/w" in apart(params, out)


def test_fewer_are_those_with_the_largest_weights(x64):
    params = start()
    mlp = params["layers"]["0"]["mlp"]
    # units that do next to nothing
    mlp["down"]["w"] = mlp["down"]["w"].at[:, jnp.array([1, 4])].multiply(1e-9)
    new, out = change(params, resize_mlp=4)
    conftest.assert_same(
        out["layers"]["0"]["mlp"]["up"]["w"], mlp["up"]["w"][..., np.array([0, 2, 3, 5])]
    )
    np.testing.assert_allclose(hidden(new, out), hidden(OLD, params), atol=1e-7)
    attention = params["layers"]["0"]["attention"]
    # the first two heads, which share keys and values
    attention["o"]["w"] = attention["o"]["w"].at[:, :2].multiply(1e-9)
    new, out = change(params, resize_heads=2)
    assert (new.heads, new.kv_heads) == (2, 1)
    np.testing.assert_allclose(hidden(new, out), hidden(OLD, params), atol=1e-7)
    conftest.assert_same(out["layers"]["0"]["attention"]["k"]["w"], attention["k"]["w"][:, :, 1:])


def test_a_decoder_that_sees_the_whole_text(x64):
    params = start()
    new, out = change(params, bidirectional=True)
    assert not new.causal and not apart(params, out)
    later = IDS.copy()
    later[0, -1] = 6
    first = lambda config, ids: np.asarray(Transformer(config, 7).hidden(params, ids, WHERE))[0, 0]
    np.testing.assert_array_equal(first(OLD, IDS), first(OLD, later))
    assert not np.allclose(first(new, IDS), first(new, later))


def test_what_cannot_be_changed():
    with pytest.raises(
        ConfigError, match=r"model.resize_mlp=4: cannot change the structure of model.kind=lstm"
    ):
        structure.resized(ModelConfig(kind="lstm", resize_mlp=4))
    with pytest.raises(ConfigError, match="an encoder sees the whole text already"):
        structure.resized(dataclasses.replace(TWO, bidirectional=True))
    with pytest.raises(
        ConfigError, match=r"model.keep_decoder_layers=\[0\]: the model has no decoder"
    ):
        structure.resized(dataclasses.replace(OLD, keep_decoder_layers=(0,)))
    with pytest.raises(
        ConfigError, match=r"model.keep_decoder_layers=\[2\]: expected some of the layers 0 to 1"
    ):
        structure.resized(dataclasses.replace(TWO, keep_decoder_layers=(2,)))
    with pytest.raises(
        ConfigError,
        match=r"model.keep_layers=\[0\]: is read with model.pretrained only",
    ):
        conftest.make_config("lm", model={"keep_layers": [0]})
