"""A run as a folder that transformers loads, with its tokenizer, chat template and stop tokens:
`jaxsft export`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsft import patterns, quantised, remote, rundir
from jaxsft.config import compose
from jaxsft.config.schema import Config
from jaxsft.data import hub
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.hf import families, peft_write, pretrained_folder, read
from jaxsft.hf import write as exported
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Head
from jaxsft.models import adapters, structure
from jaxsft.sharding.weight_spec import Flat, WeightSpec
from jaxsft.sharding.weights import flatten
from jaxsft.tasks.task import Task
from jaxsft.training import exported_tokenizer, headless_export, partition, runs, started_from
from jaxsft.training import pretrained as hf
from jaxsft.training.components import Components
from jaxsft.training.runs import Run

SHARD = 4 * 10**9  # bytes of a file
OF_LABELS = ("id2label", "label2id", "num_labels", "problem_type")


def export(
    run: Run,
    to: str | Path,
    *,
    dtype: str | None = None,
    family: str | None = None,
    shard: int = SHARD,
    adapter: str = "merge",
    head: str = "class",
) -> dict[str, Any]:
    """Writes the folder `to`, under another name until it is complete.

    A tensor that training did not touch has the bytes that it had.

    Args:
      dtype: fp32 | bf16 | fp16 of all tensors; None: what each had in the files that the run
        started from, float32 where there were none.
      family: the model_type to write; None: that which the run started from, else the first that
        has all options of the model.
      shard: bytes of a file of weights at most.
      adapter: merge: a run's adapter becomes part of the weights, in float32 before they are
        rounded | peft: only the adapter and the head of the task are written, as the library PEFT
        reads them.
      head: class: the class of transformers that has the head of the task | body: the model without
        it, and the head in a file of its own. A task that makes one vector of a text
        (`task.encoder=bi`) is always written so.

    Returns: class (its name), tensors (how many), and dtypes (how many of each).

    Raises:
      ConfigError: transformers has no class with this computation; or `to` is there already.
    """
    parts, to = run.parts, Path(to)
    _check_asked(run, to, adapter)
    before = rundir.read_json(run.folder / hf.NAME) if (run.folder / hf.NAME).is_file() else None
    kind, values, chosen = _config(parts, f"run={run.folder}", before, family)
    alone = head == "body" or getattr(parts.task, "apart", False)
    reasons = [] if alone else _reasons(parts, kind, chosen)
    # of one alone the place that finds it tells more
    if len(reasons) > 1 or (reasons and _beyond(parts.task)):
        raise ConfigError(f"{'; '.join(reasons)}; {exported.APART}")
    its = None if alone else exported.head_of(chosen, kind, parts.config.task, parts.config.model)
    if adapter == "peft":
        return _peft(run, to, chosen, its, kind)
    weights, specs = _weights(run)
    ready, declared = (weights, specs) if its is None else _head(parts.task, its, weights, specs)
    found = exported.all_moves(chosen, its, declared, f"run={run.folder}")
    dtypes = exported.dtypes_of(chosen, found, before["tensors"] if before else {}, dtype)
    name = chosen.architecture + (chosen.bare if its is None else its.suffix)
    values = _values(run, values, its, kind, before is None)
    values |= {"architectures": [name], "dtype": _most(dtypes)}
    with rundir.atomic_folder(to) as folder:
        exported.write(folder, chosen, found, ready, dtypes, shard)
        rundir.write_json(folder / "config.json", values)
        exported_tokenizer.write(folder, parts.tokenizer, parts.task, kind, before)
        if its is None:
            vectors = parts.config.model.context if chosen.bare in headless_export.LOADED else None
            headless_export.write_beside(folder, parts.task, weights, specs, vectors)
        _check(run, pretrained_folder.open_source(folder), specs, None if its is None else kind)
    return {"class": name, "tensors": len(found), "dtypes": dict(Counter(dtypes.values()))}


def _check_asked(run: Run, to: Path, adapter: str) -> None:
    if jax.process_count() > 1:
        raise ConfigError(
            "jaxsft export runs in one process; start it without the options of hosts"
        )
    if os.path.lexists(to):
        raise ConfigError(f"to={to}: is there already; choose another folder")
    if adapter == "peft" and adapters.of(run.parts.config.adapter) is None:
        raise ConfigError(
            f"export.adapter=peft: run={run.folder} has no adapter; leave the option out"
        )


def refusal(parts: Components, before: dict[str, Any] | None) -> str | None:
    """Returns why `jaxsft export` would not write a class for this run; None where it would.

    Asked before training begins.

    Args:
      before: what the run keeps of its source (`hf.facts`).
    """
    try:
        kind, _, family = _config(parts, "this run", before, None)
    except JaxsftError as error:
        return str(error)
    return "; ".join(_reasons(parts, kind, family)) or None


def _beyond(task: Task) -> str:
    return getattr(task, "beyond_its_outputs", "")


def _reasons(parts: Components, kind: str | None, family: Family) -> list[str]:
    """Lists why no class of this family computes what a task computes, each with what would fit."""
    task, reasons = parts.task, []
    if not getattr(task, "apart", False):
        try:
            exported.head_of(family, kind, parts.config.task, parts.config.model)
        except ConfigError as error:
            reasons.append(str(error).removesuffix(f"; {exported.APART}"))
        if why := _beyond(task):
            reasons.append(why)
        if any(path.startswith("head/features/") for path in flatten(parts.specs)):
            reasons.append(
                "task.features=tokens: transformers has no vectors of columns; train with"
                " task.features=text"
            )
        head, scaled = (
            family.heads.get(kind),
            _of_numbers(task),
        )
        if (
            head is not None
            and scaled
            and head.options.get("bias") is False
            and np.any(task.scale[0])
        ):
            why = (
                f"{family.architecture}{head.suffix} has no bias, which the mean of the targets"
                " would need"
            )
            reasons.append(f"task={task.name}: {why}; train with task.standardize=false")
    if parts.tokenizer.segment:
        reasons.append(f"tokenizer.segment={parts.tokenizer.segment}: {exported_tokenizer.UNSAID}")
    return reasons


def _values(
    run: Run, values: Mapping[str, Any], head: Head | None, kind: str | None, scratch: bool
) -> dict[str, Any]:
    """Returns the values of config.json but for class and dtype.

    Args:
      values: those that describe the architecture.
      head: the head of the class; None for a body alone.
      scratch: whether the model came from no folder, so that ids which nothing names become None.
    """
    task = run.parts.task
    # labels of the source are of another task
    gone = ("torch_dtype", *(() if kind in ("lm", "mlm") else OF_LABELS))
    out = {key: value for key, value in values.items() if key not in gone}
    if scratch:  # a class has ids of its own where none are named
        out = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None} | out
    out |= _about_task(task, head is not None) | (
        {} if head is None else head.words(task.config.task)
    )
    return out | _ids_of_config(run, kind) | exported_tokenizer.start_ids(task)


def _most(dtypes: Mapping[str, str]) -> str:
    return exported.TORCH[Counter(dtypes.values()).most_common(1)[0][0]]


def _check(
    run: Run, written: pretrained_folder.PretrainedFolder, specs: Any, kind: str | None
) -> None:
    """Checks that a reader of the written folder finds every option, name and shape.

    Raises JaxsftError.
    """
    read.plan(written, specs, kind)
    if other := hf.differs(
        started_from.architecture(run.parts.config, written),
        decoders.without_ntk(run.parts.config.model),
    ):
        raise ConfigError(
            f"model.{other[0]}={other[2]}: a config.json of {written.family.model_type} cannot say"
            f" this (it would be {other[1]})"
        )


def _weights(run: Run) -> tuple[Flat, dict[str, Any]]:
    """Returns the weights to be written and their specs, by path, cut into segments.

    An adapter is merged into its base. Raises ConfigError where it cannot be.
    """
    config, specs = run.parts.config, run.parts.specs
    if adapters.of(config.adapter) is None:
        return flatten(quantised.widened(run.params)), flatten(
            partition.merge(*partition.partition(specs, specs, config.train.freeze))
        )
    merged = partition.join(quantised.widened(adapters.merge(config.adapter, run.params)))
    return flatten(merged), flatten(
        {key: child for key, child in specs.items() if key != adapters.NAME}
    )


def _head(
    task: Task, head: Head, weights: Flat, specs: Mapping[str, WeightSpec]
) -> tuple[Flat, Mapping[str, WeightSpec]]:
    """Returns the weights and specs as the class has them.

    Adds a zero bias where the class has one and ours has none, and scales the outputs of a head of
    numbers to the units of the data. Raises ConfigError.
    """
    if any(path.startswith("head/features/") for path in specs):
        raise ConfigError(
            "task.features=tokens: transformers has no vectors of columns; train with"
            f" task.features=text, {exported.APART}"
        )
    ready, declared = exported.with_biases(head, weights, specs)
    if _of_numbers(task):
        mean, deviation = map(np.asarray, task.scale)
        ready = exported.rescaled(ready, head, mean, deviation, f"task={task.name}")
    return ready, declared


def _peft(
    run: Run, to: Path, family: Family, head: Head | None, kind: str | None
) -> dict[str, Any]:
    """Writes the adapter alone, in the format of PEFT, and returns class, tensors and dtypes.

    Raises ConfigError where the head of the task or the base cannot be named in it.
    """
    config = run.parts.config
    if head is None:
        raise ConfigError(
            f"export.adapter=peft: task={config.task.name} is written without its head, which PEFT"
            " cannot say; leave the option out"
        )
    frozen = flatten(partition.frozen_mask(run.parts.specs, config.train.freeze, config.adapter))
    _check_base(run, frozen)
    with rundir.atomic_folder(to) as folder:
        about = {
            "kind": kind,
            "base": adapter_base(config),
            "frozen": frozen,
        }
        weights, specs = _head(
            run.parts.task, head, flatten(partition.join(run.params)), flatten(run.parts.specs)
        )
        count = peft_write.write(
            folder, config.adapter, weights, specs, config.model, family, head, **about
        )
        if labels := _about_task(run.parts.task):
            # for from_pretrained of the base, whose config.json has those of another task
            rundir.write_json(folder / peft_write.LABELS, labels)
    return {
        "class": f"PEFT {config.adapter.name} of {family.architecture + head.suffix}",
        "tensors": count,
        "dtypes": {"F32": count},
    }


def adapter_base(config: Config) -> str | None:
    """Returns the folder or run whose weights the adapter of a run stands on; None: on fresh ones.

    A run that goes on with the adapter of another run stands on what that one stands on: the
    weights of the other run, as they would be opened, have its adapter in them already.

    Raises ConfigError where the other run trained weights beside its adapter that stay frozen here:
    neither that base nor this adapter has them.
    """
    base = config.model.pretrained or config.train.init_from
    if base is None or pretrained_folder.is_source(
        folder := remote.opened(str(hub.run_dir(str(base))))
    ):
        return None if base is None else str(base)
    before = compose.read(folder / "config.yaml")
    if not runs.same_adapter(before.adapter, config.adapter):
        return str(base)
    if left := [one for one in before.adapter.train if one not in config.adapter.train]:
        raise ConfigError(
            f"export.adapter=peft: {base} trained {', '.join(left)} beside the adapter that this"
            " run goes on with, and they are frozen here, so that the adapter lacks them; train"
            f" with adapter.train={json.dumps(list(before.adapter.train))}, or leave the option out"
        )
    return adapter_base(before)


def _check_base(run: Run, frozen: Mapping[str, Any]) -> None:
    """Raises ConfigError where an adapter cannot be opened beside its base by others.

    That is so where frozen weights of this run are not those of the base.
    """
    config = run.parts.config
    what = next((name for name in structure.NONE if structure.changes(config.model, name)), None)
    if what is not None:
        raise ConfigError(
            f"export.adapter=peft: model.{what} made another model of"
            f" {config.model.pretrained}, which PEFT would open as it was; leave the option out"
        )
    for pattern in hf.resets(config):
        for path, spec in flatten(run.parts.specs).items():
            hits = [patterns.full(pattern, p, "init") for p in patterns.paths_of(path, spec)]
            if not path.startswith(("head/", "adapters/")) and np.any(
                np.logical_and(hits, frozen[path])
            ):
                raise ConfigError(
                    f"export.adapter=peft: {path} started anew (train.init_fresh or model.init) and"
                    " was not trained, so that the base which PEFT opens has other values; leave"
                    " the option out"
                )


def _config(
    parts: Components, what: str, before: dict[str, Any] | None, name: str | None
) -> tuple[str | None, dict[str, Any], Family]:
    """Returns (kind of head, values of config.json, family) of an export.

    Args:
      what: names the run in an error.
      before: what the run keeps of its source (`hf.facts`), None without one.
      name: `export.family`; None for that of the source, or the first that fits.

    Raises:
      ConfigError: config.json of this family cannot describe the model.
    """
    config = parts.config
    kind, rows = config.task.spec.head, parts.model.vocab
    if before is None or (name is not None and name != before["config"].get("model_type")):
        family, values = exported.fitting(config.model, rows, name, kind, config.task)
        pad = parts.tokenizer.pad_id
        if values.get("pad_token_id", pad) != pad:  # a family that counts positions from it on
            offset = config.model.position_offset
            raise ConfigError(
                f"model.position_offset={offset}: {family.model_type} would need {pad + 1}, for"
                f" padding has the id {pad}"
            )
        return kind, values, family
    family = families.get(before["config"]["model_type"], hf.NAME).of_model(config.model)
    values = dict(before["config"])
    # as the classes of an encoder alone have it
    if not config.model.decoder_layers and values.get("is_encoder_decoder"):
        values["is_encoder_decoder"] = False
    now = started_from.architecture(
        config, pretrained_folder.PretrainedFolder(Path(), values, family)
    )
    if now.positions == "rope" and (now.rope_scaling, now.context) != (
        config.model.rope_scaling,
        config.model.context,
    ):
        values = decoders.with_rope(values, config.model)
        now = started_from.architecture(
            config, pretrained_folder.PretrainedFolder(Path(), values, family)
        )
    if other := hf.differs(now, decoders.without_ntk(config.model)):
        raise ConfigError(
            f"{what}: has model.{other[0]}={other[2]}, but {hf.NAME} says {other[1]}; set"
            f" export.family={family.model_type}"
        )
    return kind, {**values, "vocab_size": rows}, family


def _of_numbers(task: Task) -> bool:
    """Returns whether the outputs of the head are numbers, which are standardized in training."""
    return task.spec.output == "numbers" or getattr(task, "kind", None) == "score"


def _about_task(task: Task, head: bool = True) -> dict[str, Any]:
    """Returns the labels and, with a head, `problem_type`, as in a classifier's config.json."""
    labels = task.state.get("labels") or task.state.get("tags")
    out: dict[str, Any] = {}
    if head and (problems := task.spec.problems):
        out["problem_type"] = problems[-1 if _of_numbers(task) else 0]
    if labels:
        out |= {
            "id2label": {str(i): str(label) for i, label in enumerate(labels)},
            "label2id": {str(label): i for i, label in enumerate(labels)},
        }
    if out and _of_numbers(task):
        names = task.state.get("targets") or ["LABEL_0"]
        out |= {
            "id2label": {str(i): str(name) for i, name in enumerate(names)},
            "label2id": {str(name): i for i, name in enumerate(names)},
        }
    return out


def _ids_of_config(run: Run, kind: str | None) -> dict[str, int | None]:
    """Returns the ids of special tokens that config.json may name.

    Where positions are counted from the id of padding on, that id is part of the architecture and
    left out. A class that pools the last token finds it by the id of padding, so that for whole
    texts it is that of `padding_of`.
    """
    tokenizer = run.parts.tokenizer
    out: dict[str, int | None] = dict(exported_tokenizer.declared_ids(tokenizer))
    if run.parts.config.model.position_offset:
        out.pop("pad_token_id", None)
    elif kind == "text":
        padding = exported_tokenizer.padding_of(tokenizer)
        out["pad_token_id"] = None if padding is None else tokenizer.special_id(padding)
    return out
