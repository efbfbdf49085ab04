"""What will happen, told before step 0: data, weights, recipe, machine, and what is unusual."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax

from jaxsft import remote
from jaxsft.config import option
from jaxsft.config.schema import Config
from jaxsft.data import hub
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import platforms
from jaxsft.training import components, device, frozen_weights, pretrained, pruning
from jaxsft.training import export as exporting
from jaxsft.training.session import Session


def facts(session: Session, start: int) -> dict[str, Any]:
    """Returns the facts that `banner` prints about a session which starts at a step."""
    parts = session.components
    return {
        "parameters": _count(parts.specs),
        "trainable": _count(session.program.specs),
        "ledger": session.ledger,
        "steps": session.total,
        "steps_per_epoch": session.clock.steps_per_epoch,
        "devices": device.describe(session.mesh.devices),
        "memory": memory_text(session.compiled),
        "flops": session.model_flops(session.batches["train"].sizes(0)),
        "peak": device.peak_flops(jax.devices()[0]),
        "notes": [
            *([f"resumed at step {start}"] if start else []),
            *_notes_of_devices(session),
            *_notes_of_weights(session),
            *_notes_of_scores(session),
        ],
    }


def _count(specs: Any) -> int:
    return sum(math.prod(spec.shape) for spec in jax.tree.leaves(specs))


def _notes_of_devices(session: Session) -> list[str]:
    parts, mesh = session.components, session.mesh
    unused = platforms.unused_gpu(jax.devices())
    return [
        *(
            f"{path} stays whole on every device: the mesh does not divide it"
            for path in meshes.whole(parts.specs, mesh)
        ),
        *session.spread,
        *session.cached,
        *components.left_out(session.config),
        *([unused] if unused else []),
    ]


def _notes_of_weights(session: Session) -> list[str]:
    parts, notes = session.components, frozen_weights.told(session.components)
    notes = [*notes, *pruning.told(session.config, session.program.specs)]
    config_of = pretrained.config_of(
        session.config, lambda place: remote.opened(str(hub.run_dir(place)))
    )
    if refused := exporting.refusal(parts, config_of):
        notes.append(f"jaxsft export writes no class of transformers: {refused}")
    if (used := session.mesh.size) < jax.device_count():
        notes.append(
            f"{used} of {jax.device_count()} devices are used: mesh.data x mesh.fsdp must"
            " divide the rows of a micro-batch"
        )
    if (found := parts.vectors) is not None:
        share = len(found.rows) / max(found.words, 1)
        notes.append(
            f"{len(found.rows):,} of {found.words:,} words of the vocabulary ({share:.1%})"
            f" start from the vectors of {session.config.model.vectors}"
        )
    return notes + session.ledger["train"].get("notes", [])


def _notes_of_scores(session: Session) -> list[str]:
    """Returns notes about how the run is scored."""
    config, notes = session.config, []
    tokens = session.task.state.get("score_tokens") or "13a"
    if tokens != "13a" and config.task.score_tokens == "auto":
        notes.append(
            f"BLEU and ROUGE-L count the tokens {tokens} of sacrebleu, which fit the script of"
            " the targets (task.score_tokens)"
        )
    if "validation" not in session.batches:
        notes.append("no validation data: the last weights are the result")
    generated = config.evaluation.generate_rows
    for name, (limit, cut) in session.answers.items():
        rows = session.batches[name].split.examples
        some = (
            f"the first {generated} rows of {name} only (evaluation.generate_rows=null: all)"
            if generated and rows > generated
            else name
        )
        unreachable = (
            f"; {cut} references are longer and count as wrong (generate.allow_cut)" if cut else ""
        )
        notes.append(f"answers of up to {limit} tokens are generated for {some}{unreachable}")
    return notes


def banner(config: Config, run_dir: str | Path, said: dict[str, Any]) -> str:
    """Returns the text that is printed before step 0; `said` is the result of `facts`."""
    model = (
        f"the encoder of {config.model.pretrained} alone, without its decoder:"
        if config.model.part == "encoder"
        else "model"
    )
    lines = [
        f"run        {run_dir}",
        (
            f"task       {config.task.name}, {model} {said['parameters']:,} parameters,"
            f" {said['trainable']:,} trained"
        ),
    ]
    for name, entry in said["ledger"].items():
        lines += _split_lines(config, name, entry)
    train = said["ledger"]["train"]["packing"]
    places = config.train.batch_size * train["row_length"]
    lines.append(
        f"steps      {said['steps']:,} of {config.train.batch_size} rows x {train['row_length']} ="
        f" {places:,} tokens, {places * train['fill']:,.0f} real; {said['steps_per_epoch']:,}"
        " steps an epoch"
    )
    lines += recipe(config)
    peak = (
        "peak unknown" if said["peak"] is None else f"peak {said['peak'] / 1e12:,.0f} TFLOP/s each"
    )
    why = dict(config.origins).get("precision")
    precision = f"{config.precision} ({why})" if why else config.precision
    lines.append(
        f"device     {said['devices']} ({peak}), {precision}, {said['memory']},"
        f" {flops_text(said['flops'])} of the model"
    )
    return "\n".join(lines + [f"note       {note}" for note in said["notes"]])


def _split_lines(config: Config, name: str, entry: dict[str, Any]) -> list[str]:
    """Returns the lines of the banner that tell what became of the rows of a split."""
    rows, packing = entry["rows"], entry["packing"]
    dropped = ", ".join(f"{reason} {n}" for reason, n in rows["dropped"].items()) or "none"
    cut = f", {rows['truncated']} truncated" if rows["truncated"] else ""
    leak = (
        f", {entry['also_in_train']} of them also in train!" if entry.get("also_in_train") else ""
    )
    lines = [
        f"{name:<11}{rows['read']:,} rows read, {rows['kept']:,} kept (dropped:"
        f" {dropped}){cut}{leak}; fill {packing['fill']:.1%}"
    ]
    if weights := entry.get("weights"):
        span = f"{weights['min']:g} to {weights['max']:g}, on average {weights['mean']:.3g}"
        lines.append(
            f"{'weights':<11}the loss of a row of {name} counts {span} times"
            f" ({config.data.columns.weight})"
        )
    if lacks := entry.get("lacks"):
        lines.append(
            f"{'note':<11}{name} has no row of {len(lacks)} labels:"
            f" {', '.join(lacks[:5])}{' ...' if len(lacks) > 5 else ''}"
        )
    return lines


def recipe(config: Config) -> list[str]:
    """Returns the lines of the banner that tell how weights are trained.

    Values that were chosen for this run have their reason beside them.
    """
    why = dict(config.origins)
    head = [key for key in why if key.startswith("task.")]
    its = ", ".join(f"{key}={getattr(config.task, key.removeprefix('task.'))}" for key in head)
    told = lambda key, text: f"{text} ({why[key]})" if key in why else text
    o, s = config.optim, config.schedule
    falls = f" to {s.final:g} of it" if getattr(s, "final", None) else ""
    return [
        *([f"head       {its} ({why[head[0]]})"] if head else []),
        f"optimizer  {o.name}, "
        + told("optim.learning_rate", f"learning rate {o.learning_rate:g}")
        + f", {s.name}{falls} with {s.warmup} warm-up,"
        f" {told('train.duration', config.train.duration)}",
        f"{'':<11}"
        + "".join(
            told(key, f"{one.accepts.regularises} {value:g}") + ", "
            for key, one, value in option.walk(config)
            if one.accepts.regularises
        )
        + told("train.batch_size", f"{config.train.batch_size} rows a step"),
    ]


def flops_text(flops: float) -> str:
    return f"{flops / 1e9:,.1f} GFLOP" if flops >= 1e8 else f"{flops / 1e6:,.2g} MFLOP"


def memory_text(compiled: Any) -> str:
    """Returns the memory that the compiled step needs, from the compiler."""
    try:
        m = compiled.memory_analysis()
        gib = (
            m.argument_size_in_bytes
            + m.temp_size_in_bytes
            + m.output_size_in_bytes
            - m.alias_size_in_bytes
        ) / 2**30
        if not math.isfinite(gib):
            return "memory unknown"
        return f"{gib:.2f} GiB for a step" if gib >= 0.01 else f"{gib * 2**10:.2f} MiB for a step"
    except (AttributeError, NotImplementedError):
        return "memory unknown"
