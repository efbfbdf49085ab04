"""The table of embeddings, spread over a mesh, against the whole one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxsft.config.schema import MeshConfig
from jaxsft.models.embedding import Table
from jaxsft.sharding import mesh as meshes

ROWS, EMBED = 24, 16
IDS = np.random.default_rng(0).integers(0, ROWS, (8, 10)).astype(np.int32)
W = np.random.default_rng(1).normal(size=(ROWS, EMBED)).astype(np.float32)


def rows_and_gradient(mesh):
    table = Table(ROWS, EMBED, "vocab", mesh)

    def value(w, ids):
        x = table.apply({"params": {"w": w}}, ids)
        return ((1 + ids[..., None]) * jnp.sin(x)).sum(), x

    return jax.grad(value, has_aux=True)


@pytest.mark.parametrize(
    "shape", [(2, 2, 1, 2), (1, 8, 1, 1), (1, 2, 1, 4), (8, 1, 1, 1), (1, 2, 2, 2)]
)
def test_a_spread_table_has_the_rows_and_the_gradient_of_the_whole_one(shape):
    """Rows over tensor, columns over fsdp; and where there is nothing to spread."""
    mesh = meshes.make_mesh(MeshConfig(**dict(zip(meshes.AXES, shape, strict=True))))
    own = NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
    program = jax.jit(rows_and_gradient(mesh), out_shardings=(own, meshes.rows(mesh)))
    program = program.lower(jax.device_put(W, own), jax.device_put(IDS, meshes.rows(mesh)))
    program = program.compile()
    found = program(jax.device_put(W, own), jax.device_put(IDS, meshes.rows(mesh)))
    for one, right in zip(found, rows_and_gradient(None)(W, IDS), strict=True):
        np.testing.assert_allclose(one, right, rtol=1e-5, atol=1e-6)
    # nowhere is the table or its gradient whole, nor what all devices look up; what is found
    # travels once each way
    tokens = f"{ROWS}|{IDS.size}|{len(IDS)},{IDS.shape[1]}"
    whole = re.findall(rf"f32\[(?:{tokens}),{EMBED}\]", program.as_text())
    sent = str(jax.make_jaxpr(rows_and_gradient(mesh))(W, IDS)).count("all_to_all[")
    assert (bool(whole), sent) == ((True, 0) if shape == (8, 1, 1, 1) else (False, 2))


def test_fewer_rows_than_devices():
    """As in the evaluation of a small split."""
    mesh = meshes.make_mesh(MeshConfig(data=1, fsdp=8, tensor=1))
    found = Table(ROWS, EMBED, "vocab", mesh).apply({"params": {"w": W}}, IDS[:3])
    np.testing.assert_array_equal(found, W[IDS[:3]])
