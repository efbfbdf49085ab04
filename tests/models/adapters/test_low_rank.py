"""One linear layer with each adapter, against the formulas of the papers in numpy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config import adapters as options
from jaxsft.models import adapters
from jaxsft.models.adapters import low_rank
from jaxsft.models.adapters.targets import Site
from jaxsft.models.dropout import Dropout
from jaxsft.models.layers import Linear
from jaxsft.products import contract
from jaxsft.sharding.weight_spec import WeightSpec

pytestmark = pytest.mark.usefixtures("x64")
LINEARS = {  # equation, shape, axes, inputs
    "q": ("bsd,dhn->bshn", (6, 2, 3), ("embed", "heads", "head_dim"), 1),
    "o": ("bshn,hnd->bsd", (2, 3, 5), ("heads", "head_dim", "embed"), 2),
    "down": ("bsf,fd->bsd", (7, 4), ("mlp", "embed"), 1),
}
X = {"q": (2, 3, 6), "o": (2, 3, 2, 3), "down": (2, 3, 7)}
PRODUCT = functools.partial(contract, precision="fp32")


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def leaves_of(name, config, learnt=True):
    """The leaves of a site, made from its weight; `learnt`: moved away from the start."""
    _, shape, axes, inputs = LINEARS[name]
    w = normal(0, shape)
    declared = adapters.KINDS[config.name].declare(
        Site("layers/0/x", WeightSpec(shape, w.dtype, axes, inputs), 2 if name == "down" else 1),
        config,
    )
    made = {
        key: leaf.init(jax.random.key(i), leaf.shape, jnp.float64)
        for i, (key, leaf) in enumerate(sorted(declared.items()))
    }
    if (start := adapters.KINDS[config.name].start) is not None:
        made = start(made, w, config, None)
    if learnt:
        made |= {
            key: x + 0.3 * normal(50 + i, x.shape)
            for i, (key, x) in enumerate(sorted(made.items()))
            if key not in adapters.FIXED
        }
    return w, made


def run(name, config, leaves, w, bias=None, noise=None):
    node = adapters.KINDS[config.name].node(leaves, config)
    node = node.replace(dropout=noise) if noise is not None else node
    return node.linear(normal(9, X[name]), w, bias, LINEARS[name][0], PRODUCT), node


def flat(name, x):
    """The matrix [I, O] of a weight."""
    return np.asarray(x).reshape(np.prod(LINEARS[name][1][: LINEARS[name][3]]), -1)


def expected(name, matrix, bias=0.0):
    x = np.asarray(normal(9, X[name])).reshape(6, -1)
    out = LINEARS[name][1][LINEARS[name][3] :]
    return (x @ matrix + np.asarray(bias).reshape(-1)).reshape(2, 3, *out)


CONFIGS = [
    options.LoRA(rank=2, alpha=3.0),
    options.LoRA(rank=2, alpha=3.0, scaling="sqrt"),
    options.LoRA(rank=2, init="pissa"),
    options.DoRA(rank=2, alpha=3.0),
    options.IA3(),
]
IDS = ["lora", "rslora", "pissa", "dora", "ia3"]
each_linear = pytest.mark.parametrize("name", LINEARS)
each_config = pytest.mark.parametrize("config", CONFIGS, ids=IDS)


@each_linear
@each_config
def test_the_start_is_the_base_to_the_bit(config, name):  # guards G8
    w, leaves = leaves_of(name, config, learnt=False)
    plain = contract(LINEARS[name][0], normal(9, X[name]), w, "fp32")
    np.testing.assert_array_equal(run(name, config, leaves, w)[0], plain)


@each_linear
@pytest.mark.parametrize("scaling, factor", [("rank", 1.5), ("sqrt", 3 / 2**0.5)])
def test_lora_is_a_product_of_two_thin_matrices(scaling, factor, name):
    config = options.LoRA(rank=2, alpha=3.0, scaling=scaling)
    w, leaves = leaves_of(name, config)
    n = LINEARS[name][3]
    bias = normal(3, LINEARS[name][1][n:])
    a, b = np.asarray(leaves["a"]).reshape(-1, 2), np.asarray(leaves["b"]).reshape(2, -1)
    np.testing.assert_allclose(
        run(name, config, leaves, w, bias)[0],
        expected(name, flat(name, w) + factor * a @ b, bias),
        rtol=1e-12,
    )


@each_linear
def test_dora_is_length_times_direction(name):
    """Equation 5 with the merged weight, which the code never makes."""
    config = options.DoRA(rank=2, alpha=3.0)
    w, leaves = leaves_of(name, config)
    bias = normal(3, LINEARS[name][1][LINEARS[name][3] :])
    merged = flat(name, w) + 1.5 * np.asarray(leaves["a"]).reshape(-1, 2) @ np.asarray(
        leaves["b"]
    ).reshape(2, -1)
    direction = merged / np.linalg.norm(merged, axis=0)
    whole = np.asarray(leaves["magnitude"]).reshape(-1) * direction
    np.testing.assert_allclose(
        run(name, config, leaves, w, bias)[0], expected(name, whole, bias), rtol=1e-10
    )


def test_a_column_of_zeros_is_finite():  # guards G8
    config = options.DoRA(rank=2)
    w, leaves = leaves_of("down", config, learnt=False)
    w = w.at[:, 1].set(0)
    leaves = low_rank.start(leaves, w, config, None)

    def loss(trained):
        return jnp.square(run("down", config, leaves | trained, w)[0]).sum()

    trained = {key: leaves[key] for key in ("a", "b", "magnitude")}
    for _ in range(3):
        grads = jax.grad(loss)(trained)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads)) and np.isfinite(
            loss(trained)
        )
        trained = jax.tree.map(lambda x, g: x - 0.01 * g, trained, grads)


def test_the_length_is_not_differentiated():
    """Section 4.3: the gradient of a and b is that of LoRA times magnitude / length."""
    dora, lora = options.DoRA(rank=2), options.LoRA(rank=2)
    w, leaves = leaves_of("down", dora)
    ratio = run("down", dora, leaves, w)[1].ratio(w)
    weight = normal(4, (2, 3, 4))
    got = jax.grad(lambda b: (run("down", dora, leaves | {"b": b}, w)[0] * weight).sum())(
        leaves["b"]
    )
    plain = {key: leaves[key] for key in "ab"}
    want = jax.grad(lambda b: (run("down", lora, plain | {"b": b}, w)[0] * weight * ratio).sum())(
        leaves["b"]
    )
    np.testing.assert_allclose(got, want, rtol=1e-12)


@each_linear
def test_pissa_trains_the_principal_part(name):
    """The product at the start is the best approximation of rank 2 (Eckart and Young), and the base
    is not touched.
    """
    config = options.LoRA(rank=2, alpha=3.0, init="pissa")
    w, leaves = leaves_of(name, config, learnt=False)
    u, s, v = np.linalg.svd(flat(name, w), full_matrices=False)
    product = 1.5 * np.asarray(leaves["a"]).reshape(-1, 2) @ np.asarray(leaves["b"]).reshape(2, -1)
    np.testing.assert_allclose(product, (u[:, :2] * s[:2]) @ v[:2], rtol=1e-10, atol=1e-12)
    moved = leaves | {"b": leaves["b"] + 0.1}
    residual = flat(name, w) - product
    now = 1.5 * np.asarray(moved["a"]).reshape(-1, 2) @ np.asarray(moved["b"]).reshape(2, -1)
    np.testing.assert_allclose(
        run(name, config, moved, w)[0], expected(name, residual + now), rtol=1e-10, atol=1e-12
    )


@each_linear
@each_config
def test_merged_is_the_same_layer(config, name):  # guards G1, G7
    w, leaves = leaves_of(name, config)
    bias = normal(3, LINEARS[name][1][LINEARS[name][3] :])
    y, node = run(name, config, leaves, w, bias)
    one, more = node.merged(w, bias)
    np.testing.assert_allclose(
        y,
        contract(LINEARS[name][0], normal(9, X[name]), one, "fp32") + more,
        rtol=1e-10,
        atol=1e-12,
    )
    half, _ = node.merged(w.astype(jnp.bfloat16), None)
    assert half.dtype == jnp.float64 or half.dtype == jnp.float32
    products = [
        e
        for e in jax.make_jaxpr(lambda w: node.merged(w, None)[0])(w).eqns
        if e.primitive.name == "dot_general"
    ]
    # those of an accelerator are short by default
    assert all(set(e.params["precision"]) == {jax.lax.Precision.HIGHEST} for e in products)
    assert bool(products) == (config.name != "ia3")


def test_dropout_is_of_the_input_of_the_adapter_only():
    """The base sees all of the input; with the same key, two traced rates differ, and rate 0 is
    none.
    """
    config = options.LoRA(rank=2)
    w, leaves = leaves_of("down", config)
    plain, _ = run("down", config, leaves, w)
    base = contract(LINEARS["down"][0], normal(9, X["down"]), w, "fp32")
    at = jax.jit(
        lambda rate: run(
            "down", config, leaves, w, noise=Dropout(rate, jax.random.split(jax.random.key(0), 2))
        )[0]
    )
    np.testing.assert_allclose(at(0.0), plain, rtol=1e-12)
    assert np.abs(at(0.5) - plain).max() > 1e-3
    np.testing.assert_allclose(at(1.0), base, rtol=1e-12)  # nothing of the adapter is left


def test_a_module_without_adapters_is_what_it_was():
    layer = Linear(*LINEARS["q"][:3], "fp32")
    params = jax.tree.map(
        lambda x: x.value,
        layer.init(jax.random.key(0), normal(9, X["q"])),
        is_leaf=lambda x: hasattr(x, "value"),
    )
    assert set(params) == {"params"} and set(params["params"]) == {"w"}


@pytest.mark.parametrize(
    "equation, into, back",
    [
        ("bsd,dhn->bshn", "bsd,dr->bsr", "bsr,rhn->bshn"),
        ("bshn,hnd->bsd", "bshn,hnr->bsr", "bsr,rd->bsd"),
    ],
)
def test_thin_equations(equation, into, back):
    assert low_rank.thin(equation) == (into, back)
    # the letter of the rank is a free one
    assert low_rank.thin("brd,de->bre")[0] not in ("brd,dr->brr",)
