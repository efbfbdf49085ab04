"""What a compiled program costs a device: FLOPs of products, bytes of its main memory and of every
collective, each weighted by how often it is run.

The compiler's own `cost_analysis` counts the body of a loop once, and a kernel not at all.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from jaxsft.planning.compiled_text import CompiledText, Instruction, Shape
from jaxsft.planning.device_groups import axes_of, group_size

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
)
# what goes from slice to slice, by the network of the data centre
NETWORK = "between slices"
# products of matrices of a head in the kernels of splash attention, by a part of their names
SPLASH = {"splash_mha_fwd": 2, "splash_mha_dkv": 5}  # the backward pass is fused
# instructions that read and write nothing themselves
_FREE = frozenset(
    ("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "while", "conditional")
    + ("call", "after-all", "partition-id", "iota", "async-update")
)
_PART = "async_collective_fusion_config"
# calls that only name what is there already
_NAMES = re.compile(r'custom_call_target="(ConcatBitcast|AllocateBuffer|Assume\w+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind, over as many devices along the same axes of the mesh, of one
    type of number.

    Attributes:
      sites: in the text. runs: in a step. bytes: that a device gives or takes in a step.
      beside: of these bytes, those that travel while something else is computed.
      axes: of the mesh (`device_groups.axes_of`); "" where they are not known.
    """

    kind: str
    devices: int
    dtype: str
    sites: int = 0
    runs: int = 0
    bytes: float = 0.0
    beside: float = 0.0
    axes: str = ""

    @property
    def wire_bytes(self) -> float:
        """Returns the bytes that leave a device, in a ring: an all-reduce goes round twice."""
        share = (self.devices - 1) / self.devices if self.devices > 1 else 1
        return self.bytes * share * (2 if self.kind in ("all-reduce", NETWORK) else 1)


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of a program on one device, of one run.

    Attributes:
      flops: of products. by_part: the same by part of the model. hbm_bytes: read and written.
      unknown_loops: loops counted once, as the text does not tell how often they run.
    """

    flops: float
    by_part: Mapping[str, float]
    hbm_bytes: float
    collectives: tuple[Collective, ...]
    unknown_loops: int


def costs_of(
    program: CompiledText, attended: float = 0.0, mesh: Mapping[str, int] | None = None
) -> Costs:
    """Counts the costs of a program.

    Args:
      attended: FLOPs of one product of queries and keys of all rows and heads of a device, for
        kernels that the compiler does not look into.
      mesh: sizes of its axes, by which collectives are told apart.
    """
    by_part: collections.Counter[str] = collections.Counter()
    hbm = 0.0
    found: dict[tuple[Any, ...], Collective] = {}
    parts: set[str] = set()  # of a collective that is cut into parts beside products, its channel
    shapes_of = {
        name: {one.name: one.shapes for one in body} for name, body in program.computations.items()
    }
    for where, times, one in program.instructions():
        types = shapes_of[where]
        if one.op in ("dot", "convolution"):
            by_part[_part(one)] += times * _product_flops(one, types)
        elif one.op == "custom-call":
            products = next((n for name, n in SPLASH.items() if name in one.name), 0)
            by_part["attention scores"] += times * products * attended
        if (kind := one.op.removesuffix("-start")) in COLLECTIVES:
            # the compiler for TPU writes a reduce-scatter as one kernel: a sum, of which a part is
            # taken
            channel = one.attribute(r"channel_id=(\d+)") if _PART in one.text else None
            if channel in parts:
                continue
            parts |= {channel} - {None}
            scattered = kind == "all-reduce" and where.startswith("all-reduce-scatter")
            axes = axes_of(one, mesh) if mesh else ""
            _add(found, "reduce-scatter" if scattered else kind, one, types, times, axes)
        elif one.op == "send" and "_xla_megascale_transfer_type" in one.text:
            _add(found, NETWORK, one, types, times)
        if where not in program.fused and one.op not in _FREE and not one.op.endswith("-done"):
            hbm += times * _hbm_bytes(program, one, types)
    flops = {name: number for name, number in by_part.most_common() if number}
    collectives = tuple(sorted(found.values(), key=lambda one: -one.wire_bytes))
    return Costs(sum(flops.values()), flops, hbm, collectives, program.unknown)


def _part(one: Instruction) -> str:
    """Returns the part of the model that a product belongs to, by its named scopes."""
    for scope, part in (
        ("/attend", "attention scores"),
        ("logits", "logits"),
        ("/mlp", "MLP"),
        ("attention", "projections"),
    ):
        if scope in one.label:
            return part
    return "other"


# --- products
# --------------------------------------------------------------------------------------------------
def _product_flops(one: Instruction, types: Mapping[str, tuple[Shape, ...]]) -> float:
    """Counts two FLOPs for each number of the result and each number that is summed for it."""
    operands = [types[name][0] for name in one.operands[:2] if types.get(name)]
    if len(operands) < 2 or not one.shapes:
        return 0.0
    left, right = operands
    out = one.shapes[0].dims
    if one.op == "dot":
        dims = one.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
        return 2 * math.prod(out) * math.prod(left.dims[int(n)] for n in dims.split(",") if n)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.text)
    if labels is None:
        return 0.0
    summed = right.dims[labels[2].index("i")]
    return 2 * math.prod(out) * summed * _taps(one, left, out, labels[1], labels[3])


def _taps(one: Instruction, left: Shape, out: tuple[int, ...], of_left: str, of_out: str) -> float:
    """Returns the mean number of places of a window that fall on numbers, not on padding.

    XLA for TPU writes products of matrices as convolutions, whose windows may lie outside.
    """
    window = one.attribute(r"window=\{([^}]*)\}")
    if not window:
        return 1.0
    value = lambda name, default: (re.search(rf"\b{name}=([\dx_\-]+)", window) or (0, default))[1]
    size = [int(n) for n in value("size", "1").split("x")]
    ones = "x".join("1" for _ in size)
    stride, of_lhs, of_rhs = (
        [int(n) for n in value(name, ones).split("x")]
        for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    pads = [int(p.split("_")[0]) for p in value("pad", "x".join("0_0" for _ in size)).split("x")]
    taps = 1.0
    for i, width in enumerate(size):
        outputs, inputs = out[of_out.index(str(i))], left.dims[of_left.index(str(i))]
        places = range(outputs) if outputs <= 64 else (0, outputs // 2, outputs - 1)
        end, hits = (inputs - 1) * of_lhs[i] + 1, 0
        for place in places:
            first = place * stride[i] - pads[i]
            at = [first + tap * of_rhs[i] for tap in range(min(width, 4096))]
            hits += sum(0 <= x < end and x % of_lhs[i] == 0 for x in at)
        taps *= hits / len(places)
    return taps


# --- memory and wires
# --------------------------------------------------------------------------------------------------
def _hbm_bytes(
    program: CompiledText, one: Instruction, types: Mapping[str, tuple[Shape, ...]]
) -> float:
    """Returns what an instruction reads and writes; of a stack that is sliced, the slice."""
    size = lambda shapes: sum(shape.hbm_bytes for shape in shapes)
    given = [size(types.get(name, ())) for name in one.operands]
    if one.op == "custom-call" and _NAMES.search(one.text):
        return 0.0
    if one.op == "copy-start":  # its result is (what is written, what is read, a counter)
        return sum(given) + one.shapes[0].hbm_bytes
    if one.op == "async-start":
        return _started_bytes(program, one, given)
    if one.op == "dynamic-update-slice":
        return 2 * given[1]
    if one.op in ("dynamic-slice", "slice", "gather"):
        return 2 * size(one.shapes)
    if one.op != "fusion":
        return size(one.shapes) + sum(given)
    inner = program.computations.get(one.attribute(r"calls=%?([\w.\-]+)") or "", [])
    written = [shape.hbm_bytes for shape in one.shapes]
    if any(_PART in of.text for of in inner):
        # what is under way is handed on from part to part
        for to, source in re.findall(r"\{(\d*)\}: \((\d+), \{\}\)", one.text):
            written[int(to or 0)] = given[int(source)] = 0.0
    return _fused_bytes(inner, given, sum(written))


def _started_bytes(program: CompiledText, one: Instruction, given: list[float]) -> float:
    """Returns the bytes of what runs beside the rest: often a slice that is fetched ahead."""
    results = one.shapes[len(one.operands) :]  # the arguments come first
    written = results[0].hbm_bytes if results else 0.0
    inner = program.computations.get(one.attribute(r"calls=%?([\w.\-]+)") or "", [])
    takes_part = any(of.op in ("slice", "dynamic-slice", "gather") for of in inner)
    if results and (takes_part or "gather" in one.name):
        return results[0].bytes + written
    return sum(given) + written


def _fused_bytes(inner: list[Instruction], given: list[float], written: float) -> float:
    """Returns the bytes of a kernel whose arguments may be stacks of which it takes a slice."""
    sizes = {one.name: sum(shape.bytes for shape in one.shapes) for one in inner}
    source: dict[str, str] = {}
    parameters: dict[int, str] = {}
    for one in inner:
        if number := re.match(r"parameter\((\d+)\)", one.text):
            parameters[int(number[1])] = one.name
        elif one.op in ("bitcast", "copy", "convert", "reshape") and one.operands:
            source[one.name] = one.operands[0]

    def root(name: str) -> str:
        while name in source:
            name = source[name]
        return name

    total, aliased = 0.0, 0.0
    for number, whole in enumerate(given):
        part, read_whole = 0.0, False
        for one in inner:
            if one.name in source or parameters.get(number) not in map(root, one.operands):
                continue
            if one.op == "dynamic-slice" and root(one.operands[0]) == parameters.get(number):
                part += sizes[one.name]
            elif one.op == "dynamic-update-slice" and root(one.operands[0]) == parameters.get(
                number
            ):
                update = sizes.get(one.operands[1], 0.0)
                part, aliased = part + update, aliased + max(whole - update, 0.0)
            else:
                read_whole = True
        total += whole if read_whole or not part else min(part, whole)
    return total + max(written - aliased, 0.0)


def _add(
    found: dict[tuple[Any, ...], Collective],
    kind: str,
    one: Instruction,
    types: Mapping[str, tuple[Shape, ...]],
    times: int,
    axes: str = "",
) -> None:
    """Adds the runs and bytes of a collective to those of its kind."""
    given = sum(shape.bytes for name in one.operands for shape in types.get(name, ()))
    sizes = [shape.bytes for shape in one.shapes]
    # the result of a started one is a tuple of what goes in and what comes out
    result = max(sizes, default=0.0) if one.op.endswith("-start") else sum(sizes)
    size = result if kind == "all-reduce" else max(result, given)
    size = sizes[0] if kind == NETWORK else size
    beside = one.op.endswith("-start") or _PART in one.text
    names = sorted({shape.dtype for shape in one.shapes} - {"u32", "s32", "token"})
    key = (kind, group_size(one), "/".join(names) or "integers", axes)
    before = found.get(key, Collective(*key[:3], axes=axes))
    found[key] = dataclasses.replace(
        before,
        sites=before.sites + 1,
        runs=before.runs + times,
        bytes=before.bytes + size * times,
        beside=before.beside + size * times * beside,
    )


def as_json(costs: Costs) -> dict[str, Any]:
    """Returns the costs as plain data, collectives with their wire bytes."""
    return {
        "flops": costs.flops,
        "flops_by_part": dict(costs.by_part),
        "hbm_bytes": costs.hbm_bytes,
        "unknown_loops": costs.unknown_loops,
        "collectives": [
            dataclasses.asdict(one) | {"wire_bytes": one.wire_bytes} for one in costs.collectives
        ],
    }
