"""Costs of compiled programs against counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxsft.config.schema import MeshConfig
from jaxsft.errors import ConfigError
from jaxsft.planning.chips import Topology, roofline
from jaxsft.planning.compiled_text import Instruction, parse, shapes
from jaxsft.planning.costs import Collective, Costs, as_json, costs_of
from jaxsft.planning.device_groups import axes_of
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.device_table import CHIPS

# a TPU program in short: a product as a convolution, a loop, text over several lines
TEXT = """HloModule jit_step

%body (p: (s32[], bf16[64,32])) -> (s32[], bf16[64,32]) {
  %p = (s32[], bf16[64,32]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[64,32]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %kernel = f32[8] custom-call(%x), custom_call_target="tpu_custom_call", metadata="{
}, more"
  %splash_mha_fwd_residuals.3 = f32[8] custom-call(%x), custom_call_target="tpu_custom_call"
  %w = bf16[32,32]{1,0} constant({...})
  %y = bf16[64,32]{1,0} convolution(%x, %w), dim_labels=bf_io->bf, metadata={op_name="a/mlp/up"}
  %g = bf16[64,32]{1,0:S(1)} all-gather(%y), replica_groups=[4,16]<=[64], dimensions={0}
  ROOT %t = (s32[], bf16[64,32]) tuple(%i, %g)
}

%condition (p: (s32[], bf16[64,32])) -> pred[] {
  %p.1 = (s32[], bf16[64,32]) parameter(0)
  %j = s32[] get-tuple-element(%p.1), index=0
  %n = s32[] constant(7)
  ROOT %less = pred[] compare(%j, %n), direction=LT
}

ENTRY %main (a: (s32[], bf16[64,32])) -> (s32[], bf16[64,32]) {
  %a = (s32[], bf16[64,32]) parameter(0)
  ROOT %loop = (s32[], bf16[64,32]) while(%a), condition=%condition, body=%body
}
"""


def test_a_loop_weighs_what_it_holds():
    program = parse(TEXT)
    assert dict(program.runs) == {"main": 1, "body": 7} and program.unknown == 0
    costs = costs_of(program, attended=1000.0)
    assert costs.by_part == {"MLP": 7 * 2 * 64 * 32 * 32, "attention scores": 7 * 2 * 1000.0}
    (gathered,) = costs.collectives
    assert (gathered.kind, gathered.devices, gathered.runs) == ("all-gather", 16, 7)
    assert gathered.bytes == 7 * 64 * 32 * 2 and gathered.wire_bytes == gathered.bytes * 15 / 16
    # x, kernel, splash, the product's three arrays; what is gathered lies on the chip
    each = 4096 + 32 + 4096 + 32 + 4096 + 2048 + 4096 + 4096 + 0
    assert costs.hbm_bytes == 7 * each


def test_sizes_of_arrays():
    one, two, three = shapes("(bf16[2,3]{1,0:T(8,128)S(1)}, s4[8], pred[])")
    assert (one.bytes, one.hbm_bytes, two.bytes, three.bytes) == (12, 0, 4, 1)
    with pytest.raises(ValueError, match="no entry"):
        parse("HloModule nothing\n")


def test_products_in_a_scan_are_counted_as_often_as_they_run():
    """Of this machine's compiler: nine layers of a product, and their gradient."""
    w, x = jnp.ones((9, 24, 24)), jnp.ones((5, 24))
    layer = lambda x, w: (jnp.tanh(x @ w), None)
    value = lambda w, x: jax.lax.scan(layer, x, w)[0].sum()
    text = jax.jit(jax.grad(value)).lower(w, x).compile().as_text()
    # forward, of the inputs and of the weights; the first layer's input needs none, but is computed
    assert costs_of(parse(text)).flops == pytest.approx(3 * 9 * 2 * 5 * 24 * 24)


def test_a_sum_of_which_a_kernel_takes_a_part_is_a_reduce_scatter():
    """As the compiler for TPU writes it, over groups of four."""
    text = """HloModule jit_step

%all-reduce-scatter.3.clone (input: f32[16,8]) -> f32[4,8] {
  %input = f32[16,8]{1,0} parameter(0)
  %sum = f32[16,8]{1,0} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %part = f32[4,8]{1,0} dynamic-slice(%sum, %i, %z), dynamic_slice_sizes={4,8}
}

ENTRY %main (a: f32[16,8]) -> f32[4,8] {
  %a = f32[16,8]{1,0} parameter(0)
  ROOT %f = f32[4,8]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.3.clone
}
"""
    (one,) = costs_of(parse(text)).collectives
    assert (one.kind, one.devices, one.bytes) == ("reduce-scatter", 4, 512)
    assert one.wire_bytes == 512 * 3 / 4


def test_a_collective_in_parts_is_counted_once():
    """As the compiler for TPU writes a gather that runs beside a product."""
    part = """
%{name} (p: bf16[2,8], q: bf16[16,8]) -> bf16[16,8] {{
  %p = bf16[2,8]{{1,0}} parameter(0)
  %q = bf16[16,8]{{1,0}} parameter(1)
  ROOT %g = bf16[16,8]{{1,0}} all-gather(%p), channel_id=3, replica_groups=[1,8]<=[8], \
backend_config={{"async_collective_fusion_config":{{}}}}
}}
"""
    call = "fusion(%x, %y), kind=kCustom, output_to_operand_aliasing={{}: (1, {})}, calls="
    main = f"""
ENTRY %main (x: bf16[2,8], y: bf16[16,8]) -> bf16[16,8] {{
  %x = bf16[2,8]{{1,0}} parameter(0)
  %y = bf16[16,8]{{1,0}} parameter(1)
  %start = bf16[16,8]{{1,0}} {call}%one
  ROOT %done = bf16[16,8]{{1,0}} {call}%two
}}
"""
    costs = costs_of(
        parse("HloModule a\n" + part.format(name="one") + part.format(name="two") + main)
    )
    (one,) = costs.collectives
    assert (one.runs, one.bytes, one.beside) == (1, 256, 256)
    assert costs.hbm_bytes == 2 * 32  # each call reads x; y is the same array


def test_what_is_fetched_ahead_is_read_once():
    """A slice that is copied to the chip beside the rest, and put together there."""
    text = """HloModule jit_step

%async (p: f32[64,8]) -> f32[4,8] {
  %p = f32[64,8]{1,0} parameter(0)
  ROOT %s = f32[4,8]{1,0:S(1)} slice(%p), slice={[0:4], [0:8]}
}

ENTRY %main (a: f32[64,8]) -> f32[4,8] {
  %a = f32[64,8]{1,0} parameter(0)
  %c = (f32[64,8]{1,0:S(1)}, f32[64,8]{1,0}, u32[]{:S(2)}) copy-start(%a)
  %s = ((f32[64,8]{1,0}), f32[4,8]{1,0:S(1)}, s32[]{:S(2)}) async-start(%a), calls=%async
  %d = f32[4,8]{1,0:S(1)} async-done(%s)
  ROOT %b = f32[4,8]{1,0} custom-call(%d), custom_call_target="ConcatBitcast"
}
"""
    assert costs_of(parse(text)).hbm_bytes == 64 * 8 * 4 + 4 * 8 * 4


def test_what_goes_between_slices():
    """As the compiler writes the sum over four slices: each chip sends and receives its part."""
    text = """HloModule jit_step

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %token = token[] after-all()
  %send = (f32[8,128]{1,0}, u32[], token[]) send(%a, %token), frontend_attributes={\
_xla_megascale_target="{1,2,3,4}x{0:15}",_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %b = f32[8,128]{1,0} add(%a, %a)
}
"""
    costs = costs_of(parse(text))
    (one,) = costs.collectives
    assert (one.kind, one.devices, one.bytes) == ("between slices", 4, 4096)
    assert one.wire_bytes == 4096 * 2 * 3 / 4
    pods = Topology.of("v5e:4x4", 4)
    assert pods.size == 64 and pods.wires(16) == Topology.of("v5e:4x4").wires(16)
    found = roofline(costs, pods, 1.0)["seconds"]
    assert found["network"] == pytest.approx(one.wire_bytes / 3.125e9) and not found["wires"]


def test_a_group_has_the_links_of_its_axes():
    pod = Topology.of("v5p:4x4x8")
    assert [pod.wires(n) / 90e9 for n in (4, 8, 16, 32, 128)] == [2, 2, 4, 4, 6]
    assert Topology.of("v6e:8x16").wires(8) == 90e9 == Topology.of("v6e:8x16").wires(16) / 2
    assert pod.wires(2) == pod.wires(8)  # a part of the longest


def test_collectives_of_a_mesh():
    mesh = meshes.make_mesh(MeshConfig(data=8))
    place = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
    x = jax.ShapeDtypeStruct((16, 6), np.float32, sharding=place("data"))
    text = jax.jit(lambda x: x.sum(0), out_shardings=place()).lower(x).compile().as_text()
    (summed,) = costs_of(parse(text)).collectives
    assert (summed.kind, summed.devices, summed.bytes) == ("all-reduce", 8, 24)
    assert summed.wire_bytes == 24 * 2 * 7 / 8


def test_the_roofline_by_hand():
    topology = Topology.of("v5e:4x4")
    ring = (Collective("all-reduce", 16, "bf16", 1, 1, 90e9 * 8 / 15),)
    costs = Costs(197e12, {"MLP": 197e12}, 819e9 / 2, ring, 0)
    found = roofline(costs, topology, 197e12 / 2)
    seconds = {"compute": 1.0, "hbm": 0.5, "wires": 1.0, "network": 0.0}
    assert found["seconds"] == pytest.approx(seconds)
    assert found["mfu_bound"] == pytest.approx(0.5) and found["mfu_serial"] == pytest.approx(0.2)
    assert as_json(costs)["collectives"][0]["wire_bytes"] == pytest.approx(90e9)
    assert Topology.of("v5p:4x4x8").size == 128 and set(CHIPS) == {"v5e", "v5p", "v6e"}
    for wrong in ("v5p:4x4", "v6e:8x8x8", "v5e:0x4"):
        with pytest.raises(ConfigError, match="expected"):
            Topology.of(wrong)


@pytest.mark.parametrize(
    "groups, axes",
    [
        ("replica_groups={{0,1},{2,3}}", "context"),
        ("replica_groups=[4,2]<=[4,2]T(1,0)", "fsdp"),
        ("replica_groups=[2,4]<=[8]", "fsdp x context"),
        ("replica_groups=[1,8]<=[8]", "data x fsdp x context"),
        ("source_target_pairs={{0,1},{1,0},{2,3},{3,2}}", "context"),
        ("replica_groups=mesh['axis_0'=4, 'axis_1'=2] {'axis_0'}", "data x fsdp"),
        ("replica_groups=[4,2]", ""),
        ("replica_groups={}", ""),
    ],
)
def test_the_axes_of_a_collective(groups, axes):
    one = Instruction("g", (), "all-gather", (), f"all-gather(%x), {groups}, dimensions={{0}}")
    assert axes_of(one, {"data": 2, "fsdp": 2, "context": 2, "tensor": 1}) == axes
