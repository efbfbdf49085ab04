"""Experts against every token going through all of them, in numpy; no token is dropped, and none
knows of the others.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.config.model import ModelConfig
from jaxsft.models.attention import TokenInfo
from jaxsft.models.experts import Experts
from jaxsft.sharding.weight_spec import WeightSpec
from jaxsft.sharding.weights import specs
from tests.hf.families import hf
from tests.hf.families.test_parity import rows

ROUTERS = json.loads(
    (Path(__file__).parent / "golden" / "routers.json").read_text(encoding="utf-8")
)

x64 = pytest.mark.usefixtures("x64")
CONFIG = ModelConfig(embed=6, mlp=5, experts=4, experts_per_token=2)
RNG = np.random.default_rng(0)


def made(config=CONFIG, precision="fp32"):
    module = Experts(config, precision, 1.0)
    boxed = module.init(jax.random.key(0), jnp.zeros((1, 1, 6)))["params"]
    return (
        module,
        jax.tree.map(lambda p: np.asarray(p, np.float64), nn.meta.unbox(boxed)),
        specs(boxed),
    )


def by_hand(params, x, config):
    silu = lambda y: y / (1 + np.exp(-y))
    p = np.exp(x @ params["router"]["w"])
    p = p / p.sum(-1, keepdims=True)
    out = np.zeros_like(x)
    for b, s in np.ndindex(x.shape[:2]):
        best = np.argsort(-p[b, s])[: config.experts_per_token]
        weight = p[b, s, best] / (p[b, s, best].sum() if config.expert_norm else 1)
        for e, w in zip(best, weight, strict=True):
            h = silu(x[b, s] @ params["gate"]["w"][e]) * (x[b, s] @ params["up"]["w"][e])
            out[b, s] += w * (h @ params["down"]["w"][e])
    return out


@x64
@pytest.mark.parametrize("chosen", [1, 2, 4])
@pytest.mark.parametrize("norm", [True, False])
def test_by_hand_with_gradients(chosen, norm):
    config = dataclasses.replace(CONFIG, experts_per_token=chosen, expert_norm=norm)
    module, params, _ = made(config)
    x, g = RNG.normal(size=(2, 2, 7, 6))
    run = jax.jit(lambda params, x: module.apply({"params": params}, x))
    np.testing.assert_allclose(run(params, x), by_hand(params, x, config), rtol=1e-10, atol=1e-12)
    grad = jax.jit(jax.grad(lambda params, x: (g * run(params, x)).sum(), (0, 1)))(params, x)
    step = RNG.normal(size=x.shape)
    near = lambda e: (g * by_hand(params, x + e * step, config)).sum()
    assert (grad[1] * step).sum() == pytest.approx((near(1e-6) - near(-1e-6)) / 2e-6, rel=1e-5)
    for name in ("gate", "up", "down"):
        step = RNG.normal(size=params[name]["w"].shape)
        near = lambda e, name=name, step=step: (
            g * by_hand({**params, name: {"w": params[name]["w"] + e * step}}, x, config)
        ).sum()
        assert (grad[0][name]["w"] * step).sum() == pytest.approx(
            (near(1e-6) - near(-1e-6)) / 2e-6, rel=1e-5
        )


@x64
def test_a_token_does_not_know_the_others():
    module, params, _ = made()
    x = RNG.normal(size=(1, 9, 6))
    alone = [module.apply({"params": params}, x[:, i : i + 1])[0, 0] for i in range(9)]
    np.testing.assert_allclose(module.apply({"params": params}, x)[0], alone, rtol=1e-12)


def test_a_matrix_is_that_of_one_expert():
    assert made()[2]["gate"]["w"] == WeightSpec(
        (4, 6, 5), np.float32, ("experts", "embed", "mlp"), 1
    )
    spec = WeightSpec((3, 4, 6, 5), np.float32, ("layers", "experts", "embed", "mlp"), 1)
    assert (
        spec.matrix == (6, 5)
        and spec.stacks == 2
        and WeightSpec((6, 5), np.float32, ("embed", "mlp"), 1).stacks == 0
    )


@pytest.mark.parametrize("name", ROUTERS)
def test_losses_of_routers_are_those_of_transformers(name, tmp_path):  # guards A11, B12
    """Of two texts in a batch with padding, and of the same two packed into one row."""
    about, arrays = hf.golden(name)
    model, params = hf.load(hf.write(name, tmp_path), "lm", about["context"])
    ids, where = rows(arrays)
    for part in (slice(0, 1), slice(1, 3)):
        seen = dataclasses.replace(model, routed=[])
        seen.hidden(params, ids[part], TokenInfo(where.segment_ids[part], where.positions[part]))
        [found] = seen.routed
        assert (
            found.tokens.tolist() == [arrays["lengths"].sum()] * 3
            and (found.chosen.sum(1) == found.tokens * model.config.experts_per_token).all()
        )
        assert {k: v for k, v in found.brief().items() if k in ROUTERS[name]} == pytest.approx(
            ROUTERS[name], rel=1e-5
        )


def test_bf16_is_near():
    module, params, _ = made(precision="bf16")
    params = jax.tree.map(lambda p: p.astype(np.float32), params)
    x = RNG.normal(size=(2, 7, 6)).astype(np.float32)
    run = lambda module: jax.jit(lambda p, x: module.apply({"params": p}, x))(params, x)
    found, wanted = run(module), run(made()[0])
    assert found.dtype == np.float32 and np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_spread_over_devices(shape):
    """The numbers of one device, whatever the compiler makes of it."""
    from jaxsft.config.schema import MeshConfig
    from jaxsft.sharding import mesh as meshes

    config = dataclasses.replace(CONFIG, embed=8, mlp=8)
    module = Experts(config, "fp32", 1.0)
    boxed = module.init(jax.random.key(0), jnp.zeros((1, 1, 8)))["params"]
    params, x = nn.meta.unbox(boxed), RNG.normal(size=(8, 5, 8)).astype(np.float32)
    value = lambda params, x: (jnp.sin(module.apply({"params": params}, x)) ** 2).sum()
    expected = jax.jit(jax.value_and_grad(value))(params, x)
    mesh = meshes.make_mesh(MeshConfig(*shape))
    placed = jax.device_put(params, meshes.shardings(specs(boxed), mesh))
    found = jax.jit(jax.value_and_grad(value))(placed, meshes.place_rows(x, mesh, 8))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), found, expected
    )
