"""Where arrays lie: `auto`, the rules, the table, the rows of a process, and that nothing large is
held whole by accident.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config.schema import MeshConfig
from jaxsft.errors import ConfigError
from jaxsft.rundir import read_jsonl
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.weight_spec import WeightSpec
from tests import tiny


@pytest.mark.parametrize(
    "given, found",
    [
        ({}, (8, 1, 1, 1)),
        ({"tensor": 2}, (4, 1, 1, 2)),
        ({"data": 2, "fsdp": "auto", "tensor": 2}, (2, 2, 1, 2)),
        ({"context": "auto", "data": 2}, (2, 1, 4, 1)),
        ({"data": 1}, (1, 1, 1, 1)),
    ],
)
def test_auto_takes_what_the_others_leave(given, found):
    mesh = meshes.resolve(MeshConfig(**given))
    assert tuple(getattr(mesh, axis) for axis in meshes.AXES) == found
    assert meshes.make_mesh(mesh).size == np.prod(found)


def test_auto_takes_no_more_devices_than_rows_can_be_shared_by():
    assert (
        meshes.resolve(MeshConfig(), rows=4).data == 4
        and meshes.resolve(MeshConfig(fsdp=2), rows=4).data == 2
    )
    assert meshes.resolve(MeshConfig(), rows=3).data == 1


def test_auto_needs_a_divisor():
    with pytest.raises(ConfigError, match="3 does not divide the 8 devices"):
        meshes.resolve(MeshConfig(tensor=3))


def test_rules():
    mesh = meshes.make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    spec = lambda axes, shape: tuple(
        meshes.partition_spec(WeightSpec(shape, jnp.float32, axes), mesh)
    )
    assert spec(("embed", "mlp"), (16, 32)) == ("fsdp", "tensor") and spec(
        ("embed", "mlp"), (18, 32)
    ) == (None, "tensor")
    with pytest.raises(ValueError, match="one mesh axis"):
        spec(("mlp", "vocab"), (16, 32))
    with pytest.raises(ValueError, match="no sharding rule"):
        spec(("unheard",), (16,))


def test_a_row_is_spread_over_the_axis_of_its_tokens():
    mesh = meshes.make_mesh(MeshConfig(data=1, fsdp=4, context=2))
    shard = lambda *shape: meshes.sequences(mesh, shape[1]).shard_shape(shape)
    assert shard(8, 6, 4) == (2, 3, 4) and shard(8, 1, 4) == (2, 1, 4)
    plain = meshes.make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    assert meshes.sequences(plain, 6).shard_shape((8, 6, 4)) == (2, 6, 4)


def test_the_rows_of_a_process_are_those_of_its_devices():
    mesh = meshes.make_mesh(MeshConfig(data=4, tensor=2))
    assert meshes.rows_here(mesh, 16).tolist() == list(range(16))  # one process holds all of them
    placed = meshes.place_rows(np.arange(32).reshape(16, 2), mesh, 16)
    assert {s.data.shape for s in placed.addressable_shards} == {(4, 2)} and (
        np.asarray(placed) == np.arange(32).reshape(16, 2)
    ).all()


def test_a_large_array_on_every_device_is_an_error(monkeypatch):
    monkeypatch.setattr(meshes, "LARGE", 64)
    mesh = meshes.make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    tree = {
        "spread": jax.device_put(np.zeros((8, 16)), jax.NamedSharding(mesh, jax.P("fsdp"))),
        "small": jax.device_put(np.zeros(3), meshes.replicated(mesh)),
    }
    assert meshes.check_spread(tree, mesh, allow=False) == []
    tree["state"] = {"whole": jax.device_put(np.zeros((9, 8)), meshes.replicated(mesh))}
    with pytest.raises(
        ConfigError, match=r"state/whole \[9, 8\] would lie whole on each of 8 devices"
    ):
        meshes.check_spread(tree, mesh, allow=False)
    assert meshes.check_spread(tree, mesh, allow=True) == [
        "state/whole [9, 8] lies whole on every device"
    ]
    # copies are what `data` means
    assert meshes.check_spread(tree, meshes.make_mesh(MeshConfig(data=8)), allow=False) == []


def test_optimizer_state_is_spread_like_its_weights_and_shown(tmp_path):
    files = tiny.data(tmp_path)
    given = (
        "train",
        "task=classify",
        f"data.train={files / 'labels.jsonl'}",
        *tiny.FAST,
        "train.duration=2steps",
        "optim=adamw",
    )
    code, out, err = tiny.jaxsft(
        *given, "mesh.fsdp=4", "mesh.tensor=2", "mesh.show=true", f"run_dir={tmp_path / 'run'}"
    )
    assert code == 0, err
    rows = {
        line.split()[0]: line for line in out.splitlines() if line.startswith(("state/", "sum"))
    }
    weights = {
        path.removeprefix("state/trainable/"): line
        for path, line in rows.items()
        if path.startswith("state/trainable/")
    }
    assert "(tensor, fsdp)" in weights["embed/tokens/w"] or "(-, fsdp)" in weights["embed/tokens/w"]
    moments = [
        line
        for path, line in rows.items()
        if path.startswith("state/opt/") and path.endswith("mlp/up/w")
    ]
    up = next(line for path, line in weights.items() if path.endswith("mlp/up/w"))
    assert len(moments) == 2 and all(
        line.split()[-1] == up.split()[-1] and "fsdp, tensor" in line for line in moments
    )
    assert (
        int(rows["sum"].split()[-1].replace(",", "")) > 0
        and len(read_jsonl(tmp_path / "run" / "metrics.jsonl")) == 1
    )


def test_a_mesh_that_divides_nothing_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(meshes, "LARGE", 256)
    files = tiny.data(tmp_path)
    given = (
        "train",
        "task=classify",
        f"data.train={files / 'labels.jsonl'}",
        *tiny.FAST,
        "mesh.fsdp=8",
        "model.embed=20",
        f"run_dir={tmp_path / 'run'}",
    )
    code, _, err = tiny.jaxsft(*given)
    assert code == 1 and "mesh.allow_replicated=true" in err and "Traceback" not in err
    code, out, err = tiny.jaxsft(*given, "mesh.allow_replicated=true")
    assert code == 0 and "lies whole on every device" in out, err
