"""Weights held as the bits of bfloat16: the products are those of rounded operands, and no float32
copy of a weight is made.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsft import halves
from jaxsft.products import contract


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def near(found: jax.Array, wanted: jax.Array) -> None:
    assert found.shape == wanted.shape and found.dtype == wanted.dtype == jnp.float32
    assert float(jnp.abs(found - wanted).max()) <= 2e-6 * float(jnp.abs(wanted).max())


def test_bits_are_the_numbers_of_bfloat16():
    w = normal(3, 40) * 1e3
    near(halves.widen(halves.pack(w)), w.astype(jnp.bfloat16).astype(jnp.float32))
    assert halves.unpack(halves.pack(w)).dtype == jnp.bfloat16
    np.testing.assert_array_equal(halves.unpack(halves.pack(w)), w.astype(jnp.bfloat16))
    assert halves.widen(w) is w


@pytest.mark.parametrize(
    "rows, shape, inputs, equation",
    [
        (1, (300, 221), 1, "bsd,df->bsf"),  # parts of 75 of the inputs
        (1, (307, 221), 1, "bsd,df->bsf"),  # of 76, and three are left
        (30, (300, 221), 1, "bsd,df->bsf"),  # of 55 of the outputs, and one is left
        (1, (301, 5, 44), 1, "bsd,dhn->bshn"),
        (2, (5, 44, 307), 2, "bshn,hnd->bsd"),
        (1, (9, 8000), 1, "bsd,df->bsf"),  # too few inputs to be cut
        (3, (20, 10), 1, "bsd,df->bsf"),  # whole
    ],
)
def test_products_by_parts_are_those_of_whole_weights(rows, shape, inputs, equation):
    x, w = normal(2, rows, *shape[:inputs]), normal(*shape, seed=1)
    bits = halves.pack(w)
    wanted = contract(equation, x, w, "bf16")
    near(jax.jit(halves.linear, static_argnums=2)(x, bits, inputs), wanted)
    near(contract(equation, x, bits, "bf16"), wanted)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_logits_by_parts_are_those_of_the_whole_matrix(tied, packed):
    x, w = normal(2, 3, 90), normal(90, 1003, seed=1)
    held = (w.T if tied else w).astype(jnp.bfloat16).astype(jnp.float32) if packed else w
    held = held.T if tied and not packed else held
    matrix = halves.OutputBits(halves.pack(held) if packed else held, tied)
    assert matrix.shape == (90, 1003)
    near(jax.jit(lambda x, m: m.logits(x, None))(x, matrix), contract("bsd,dv->bsv", x, w, "bf16"))


@pytest.mark.parametrize("rows", [1, 8, 20])
def test_a_loop_over_tokens_holds_no_copy_in_float32(rows):
    """A part of each weight, and the states; of bfloat16 XLA would keep every weight widened."""
    w, table = (
        jax.ShapeDtypeStruct((4, 512, 512), jnp.uint16),
        jax.ShapeDtypeStruct((6000, 512), jnp.uint16),
    )

    def tokens(x, w, table):
        def one(_, x):
            for i in range(4):
                x = x + halves.linear(x, w[i], 1)
            return x + halves.OutputBits(table, True).logits(x, None)[:, :512]

        return lax.fori_loop(0, 3, one, x)

    x = jax.ShapeDtypeStruct((rows, 512), jnp.float32)
    found = jax.jit(tokens).lower(x, w, table).compile().memory_analysis()
    copies = 4 * (w.size + table.size)
    assert found.temp_size_in_bytes < copies / 4
