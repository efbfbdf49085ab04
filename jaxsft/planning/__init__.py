"""What a run would need and how fast it could be, from its compiled steps: memory, FLOPs, bytes of
memory and wires. Nothing is allocated and nothing is trained.

This process imports no JAX: each candidate is compiled in one of its own
(`compile_ahead`).
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.config import compose
from jaxsft.config.schema import AXES, Config, MeshConfig
from jaxsft.errors import ConfigError
from jaxsft.planning import chips
from jaxsft.planning.chips import Topology
from jaxsft.planning.compiled_text import parse
from jaxsft.planning.costs import as_json, costs_of

POLL = 0.5  # seconds
# what the compiler for TPU writes of a program; its report of the memory is an upper bound
_DUMPED = ("after_optimizations.txt", "memory-usage-report.txt", "buffer-assignment.txt")
# from the fastest to the smallest: what is computed again is nothing, norms and sums and what the
# MLP multiplies, its products too, everything
REMAT = (
    (),
    ("model.remat=true", "model.remat_saves=[q,k,v,context,gate,up]"),
    ("model.remat=true", "model.remat_saves=[q,k,v,context]"),
    ("model.remat=true",),
)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A config to compile.

    Attributes:
      overrides: that make it from the one that was asked for.
      again: how much is computed again: a place in the list of what is tried.
    """

    config: Config
    overrides: tuple[str, ...]
    again: int = 0


def plan(config: Config, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Compiles the candidates of a config and returns the figures of the best.

    The best is the one with the most tokens a second in the middle between its two bounds among
    those that fit; if none does, the smallest. What was given is kept; rows, mesh and remat that
    nobody asked for are chosen.

    Args:
      tell: is given a line for each candidate.

    Raises:
      ConfigError: the config cannot run there at all.
    """
    topology = None
    if config.plan.topology:
        topology = Topology.of(config.plan.topology, config.plan.slices)
    if topology is not None and config.plan.devices is not None:
        raise ConfigError(
            f"plan.devices={config.plan.devices}: plan.topology={topology.name} has chips of its"
            " own; give one of the two"
        )
    found: list[dict[str, Any]] = []
    refused: ConfigError | None = None
    enough: int | None = None  # what computes more again than a candidate that fits is slower
    for candidate in candidates(config, topology):
        if enough is not None and candidate.again > enough:
            break
        try:
            one = _measured(candidate, topology)
        except ConfigError as error:
            refused = refused or error
            tell(f"{' '.join(candidate.overrides) or 'as asked'}: {error}")
            continue
        found.append(one)
        tell(summary(one))
        if one["fits"] and not config.plan.search:
            enough = candidate.again
    if not found and refused is not None:
        raise refused
    fitting = [one for one in found if one["fits"]]
    if not fitting:
        return min(found, key=lambda one: one["memory_bytes"])
    middle = lambda one: one["step_seconds_bound"] + one["step_seconds_serial"]
    return min(fitting, key=lambda one: 0.0 if topology is None else middle(one) / one["tokens"])


def candidates(config: Config, topology: Topology | None) -> Iterator[Candidate]:
    """Yields the configs to compile, the fastest first: what was asked for, and what was not.

    On a topology each chip has a row of a micro-batch, and weights are shared (`mesh.fsdp`) along
    all axes of the slice but the first, or along all of them, unless something else was asked for.
    """
    free = {name for name, _ in config.unasked}
    shapes: list[tuple[str, ...]] = [()]
    if topology is not None:
        chips_ = topology.size
        if config.mesh == MeshConfig():
            shapes = [_of_mesh(*shape) for shape in _meshes(topology, config.plan.search)]
        if "train.batch_size" in free:
            most = (4, 2, 1) if config.plan.search else (1,)
            of_row = 1 if config.mesh.context == "auto" else config.mesh.context
            rows = [chips_ // of_row * each * config.train.accumulate for each in most]
            shapes = [(*one, f"train.batch_size={n}") for one in shapes for n in rows]
    again: tuple[tuple[str, ...], ...] = ((),)
    if "model.remat" in free and "model.remat_saves" in free:
        # on a chip, to compute norms and sums again costs less than to keep them
        again = REMAT if topology is None or config.plan.search else REMAT[1:]
    for place, more in enumerate(again):
        for one in shapes:
            words = (*one, *more)
            yield Candidate(compose.override(config, words) if words else config, words, place)


def _meshes(topology: Topology, search: bool) -> list[tuple[int, int, int]]:
    """Returns the sizes of data, fsdp and tensor to try.

    Where copies of the weights lie along one axis of the slice, gradients are reduced and scattered
    over the others and only parts of them over all; the compiler for TPU has no reduce-scatter over
    a whole slice.
    """
    slices, first = topology.slices, topology.dims[0]
    chips_ = topology.size // slices
    found = [(first, chips_ // first, 1), (1, chips_, 1)]
    if search:
        found += [(chips_, 1, 1)]
        found += [(1, chips_ // n, n) for n in (4, 8) if chips_ % n == 0]
    return [(slices * data, fsdp, tensor) for data, fsdp, tensor in dict.fromkeys(found)]


def _of_mesh(*shape: int) -> tuple[str, ...]:
    names = ("mesh.data", "mesh.fsdp", "mesh.tensor")
    return tuple(f"{name}={n}" for name, n in zip(names, shape, strict=True))


# --- one candidate
# --------------------------------------------------------------------------------------------------
def _measured(candidate: Candidate, topology: Topology | None) -> dict[str, Any]:
    """Compiles the steps of a candidate and returns its figures.

    Evaluation is compiled where the training step fits.
    """
    step = compiled(candidate.config, topology, "step")
    facts, costs = step["facts"], step["costs"]
    fits = topology is None or step["memory_bytes"] <= topology.chip.hbm
    evaluation = compiled(candidate.config, topology, "evaluate") if fits else None
    decoding = None
    if fits and candidate.config.plan.decode:
        decoding = compiled(candidate.config, topology, "decode")
    figures = {
        "overrides": list(candidate.overrides),
        **facts,
        "topology": topology and topology.name,
        "slices": topology and topology.slices,
        "memory_bytes": step["memory_bytes"],
        "memory": step["memory"],
        "evaluation_memory_bytes": evaluation and evaluation["memory_bytes"],
        **as_json(costs),
        **({"decode_memory_bytes": decoding["memory_bytes"]} if decoding else {}),
        "fits": True,
        "flop_rule": "2 FLOPs a weight and token, causal attention by half, the backward pass twice"
        " the forward one; recomputation and padding are not counted (arXiv:2204.02311, B)",
    }
    if topology is None:
        return figures
    figures["hbm_limit"] = topology.chip.hbm
    needed = [part["memory_bytes"] for part in (step, evaluation, decoding) if part]
    figures["fits"] = bool(fits and max(needed) <= topology.chip.hbm)
    figures |= chips.roofline(costs, topology, facts["model_flops"])
    seconds = figures["step_seconds_bound"]
    figures["tokens_per_second_bound"] = facts["tokens"] / seconds if seconds else 0.0
    if evaluation:
        evaluated = chips.roofline(evaluation["costs"], topology, facts["model_flops"] / 3)
        figures["evaluation_seconds_bound"] = evaluated["step_seconds_bound"]
    if decoding:
        # not of products: the time of one token is that of reading weights and cache
        drawn = chips.roofline(decoding["costs"], topology, 0.0)
        figures["decode_seconds_bound"] = drawn["step_seconds_bound"]
        figures["decode_seconds"] = drawn["seconds"]
        figures["decode_collectives"] = as_json(decoding["costs"])["collectives"]
    plan_ = candidate.config.plan
    if plan_.tokens and seconds:
        figures["hours_bound"] = plan_.tokens / figures["tokens_per_second_bound"] / 3600
        if plan_.dollars:
            figures["dollars_bound"] = figures["hours_bound"] * topology.size * plan_.dollars
    return figures


def compiled(config: Config, topology: Topology | None, what: str) -> dict[str, Any]:
    """Compiles a step in a process of its own and reads what came of it. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="jaxsft-plan-") as name:
        folder = Path(name)
        rundir.write_text(folder / "config.yaml", compose.to_yaml(config))
        asked = {"topology": topology and topology.name, "slices": topology and topology.slices}
        asked["unasked"] = config.unasked  # which no file of a config has
        rundir.write_json(folder / "request.json", asked)
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            command = [sys.executable, "-m", "jaxsft.planning.compile_ahead", name, what]
            child = subprocess.Popen(
                command, stdout=log, stderr=log, env=_environment(config, topology)
            )
            try:
                while child.poll() is None and not _has_all(folder / "dump"):
                    time.sleep(POLL)
            finally:
                child.kill()
                child.wait()
        if (folder / "error.json").is_file():
            raise ConfigError(rundir.read_json(folder / "error.json")["error"])
        log_text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        if (found := _exceeded(log_text)) and not (folder / "program.txt").is_file():
            dumped = _dumped(folder / "dump", _DUMPED[0])
            text = dumped.read_text(encoding="utf-8") if dumped else ""
        elif (folder / "program.txt").is_file():
            found, text = 0, (folder / "program.txt").read_text(encoding="utf-8")
        elif _has_all(folder / "dump"):
            text = _dumped(folder / "dump", _DUMPED[0]).read_text(encoding="utf-8")
        else:
            raise ConfigError(f"the {what} cannot be compiled: {_reason(log_text)}")
        return _read(folder, text, found)


def _read(folder: Path, text: str, exceeded: float) -> dict[str, Any]:
    """Reads facts, memory and costs from what the process left."""
    facts = rundir.read_json(folder / "facts.json")
    costs = (
        costs_of(parse(text), facts["attended_flops"], {axis: facts["mesh"][axis] for axis in AXES})
        if text
        else costs_of(parse("ENTRY %none () -> () {\n}"), 0.0)
    )
    memory: dict[str, float] = dict(facts["state_bytes"])
    if (folder / "memory.json").is_file():
        sizes = rundir.read_json(folder / "memory.json")
        total = sizes["argument"] + sizes["temp"] + sizes["output"] - sizes["alias"]
        memory["temporaries"] = sizes["temp"]
    else:
        report = _dumped(folder / "dump", _DUMPED[1])
        reported = re.search(
            r"color=0\)\s+Total bytes: (\d+)", report.read_text(encoding="utf-8") if report else ""
        )
        total = max(exceeded, float(reported[1]) if reported else 0.0)
        memory["temporaries"] = max(total - sum(memory.values()), 0.0)
    return {"facts": facts, "costs": costs, "memory": memory, "memory_bytes": total}


def _environment(config: Config, topology: Topology | None) -> dict[str, str]:
    """Returns the environment of the process that compiles."""
    own = dict(os.environ)
    if topology is not None:
        # what is said here of this machine's chips and compiler is not of that topology, and its
        # compiler ends the process for a flag that it does not know
        mine = ("TPU_", "XLA_FLAGS")
        own = {name: value for name, value in own.items() if not name.startswith(mine)}
        # no chip is taken, so that several plans may be made at once
        own |= {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }
    elif config.plan.devices:
        flags = own.get("XLA_FLAGS", "")
        count = f"--xla_force_host_platform_device_count={config.plan.devices}"
        own |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} {count}".strip()}
    return own


def _dumped(dump: Path, ending: str) -> Path | None:
    """Returns the file of the step among those that the compiler wrote."""
    found = [
        one for one in dump.glob(f"*{ending}") if re.search(r"jit_(step|evaluate|decode)", one.name)
    ]
    return max(found, key=lambda one: one.stat().st_size, default=None)


def _has_all(dump: Path) -> bool:
    """Returns whether the compiler has written program and memory, and for long enough."""
    found = [_dumped(dump, ending) for ending in _DUMPED]
    now = time.time()
    return all(one is not None and now - one.stat().st_mtime > 2 for one in found)


def _reason(log: str) -> str:
    """Returns the line of a log that tells best why a compilation failed."""
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["it said nothing"]
    telling = [line for line in lines if re.search(r"RESOURCE_EXHAUSTED|Error: |INTERNAL:", line)]
    return (telling or lines)[-1][:300]


def _exceeded(log: str) -> float:
    """Returns the bytes that a program needs of which the compiler says that they are too many."""
    found = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", log)
    return float(found[1]) * 1024 ** "_KMGT".index(found[2]) if found else 0.0


# --- what is told
# --------------------------------------------------------------------------------------------------
def summary(one: dict[str, Any]) -> str:
    """Returns a line for a candidate."""
    changed = " ".join(one["overrides"]) or "as asked"
    memory = f"{one['memory_bytes'] / 1e9:.2f} GB"
    if one["topology"] is None:
        return f"{changed}: {memory} a device"
    fits = "fits" if one["fits"] else f"does not fit {one['hbm_limit'] / 1e9:.0f} GB"
    return (
        f"{changed}: {memory}, {fits}, MFU at most {one['mfu_bound']:.2f}"
        f" (nothing overlapping {one['mfu_serial']:.2f})"
    )


def told(best: dict[str, Any]) -> list[str]:
    """Returns the lines of a plan for the screen."""
    mesh = " x ".join(f"{axis} {n}" for axis, n in best["mesh"].items())
    where = best["topology"] or f"{best['devices']} x {best['platform']}"
    where = f"{best['slices']} x {where}" if (best["slices"] or 1) > 1 else where
    lines = [
        f"{best['parameters']:,} parameters on {where} ({mesh}), {best['rows']:,} rows of"
        f" {best['length']:,} tokens, {best['precision']}, attention {best['attention']}",
        "",
        "memory of a device",
        *(f"  {name:<26}{size / 1e9:>10.3f} GB" for name, size in best["memory"].items()),
        f"  {'step':<26}{best['memory_bytes'] / 1e9:>10.3f} GB"
        + (f" of {best['hbm_limit'] / 1e9:.0f}" if "hbm_limit" in best else ""),
        *(
            [f"  {'evaluation':<26}{best['evaluation_memory_bytes'] / 1e9:>10.3f} GB"]
            if best["evaluation_memory_bytes"]
            else []
        ),
        *(
            [f"  {'decoding':<26}{best['decode_memory_bytes'] / 1e9:>10.3f} GB"]
            if "decode_memory_bytes" in best
            else []
        ),
        "",
        f"products of a device, a step: {best['flops'] / 1e12:.3f} TFLOP"
        f" (the model needs {best['model_flops'] / 1e12:.3f})",
        *(f"  {part:<26}{n / 1e12:>10.3f}" for part, n in best["flops_by_part"].items()),
    ]
    if best["collectives"]:
        lines += ["", "collectives of a device, a step"]
        lines += [
            f"  {one['kind']:<20}{one['dtype']:<12}{one['devices']:>5} devices"
            f" {one['axes'] and 'of ' + one['axes']:<16}"
            f"{one['runs']:>8} times{one['bytes'] / 1e9:>10.3f} GB"
            + (f", {one['beside'] / one['bytes']:.0%} beside products" if one["beside"] else "")
            for one in best["collectives"]
        ]
    if best["unknown_loops"]:
        lines += [f"{best['unknown_loops']} loops of unknown length are counted once"]
    lines += ["", *_of_time(best)]
    if best["overrides"]:
        lines += ["", f"overrides: {' '.join(best['overrides'])}"]
    return lines


def _of_time(best: dict[str, Any]) -> list[str]:
    if best["topology"] is None:
        return ["this machine's peak is not known: no bound of the time"]
    seconds = best["seconds"]
    network = f", network {seconds['network']:.3f}" if best["slices"] > 1 else ""
    lines = [
        f"a step takes at least {best['step_seconds_bound']:.3f} s (products"
        f" {seconds['compute']:.3f}, memory {seconds['hbm']:.3f}, wires {seconds['wires']:.3f}"
        f"{network}); {best['step_seconds_serial']:.3f} s if nothing overlaps",
        f"at most {best['tokens_per_second_bound']:,.0f} tokens/s, MFU {best['mfu_bound']:.2f};"
        f" {best['mfu_serial']:.2f} if nothing overlaps",
    ]
    if "decode_seconds_bound" in best:
        drawn = best["decode_seconds"]
        lines.append(
            f"a token of all answers takes at least {1e3 * best['decode_seconds_bound']:.2f} ms"
            f" (products {1e3 * drawn['compute']:.2f}, memory {1e3 * drawn['hbm']:.2f}, wires"
            f" {1e3 * drawn['wires']:.2f})"
        )
    if "hours_bound" in best:
        cost = f", {best['dollars_bound']:,.0f} dollars" if "dollars_bound" in best else ""
        lines.append(f"the run takes at least {best['hours_bound']:.1f} hours{cost}")
    if not best["fits"]:
        lines.append(
            "it does not fit; what makes it smaller: model.remat=true, fewer rows"
            " (train.batch_size), shorter ones (data.max_length), more chips that share the weights"
            " (mesh.fsdp, mesh.tensor, mesh.context), adapter=lora, or a larger plan.topology"
        )
    return lines
