"""Distillation into classes (`distil.*`): a trained model reads the training rows once, before the
first step, and its logits stand beside their labels in the batches.

    teacher   rows, its tokenizer -> logits [rows, C], in the order of the student's labels
    each step student's logits -> loss of the labels + weight T^2 KL of both softmaxes

A teacher costs nothing in a step. A run that goes on asks it again, and trials of a stack share its
answers.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

from jaxsft import remote
from jaxsft.config.schema import Config
from jaxsft.data import hub
from jaxsft.data.file_records import Records
from jaxsft.data.pipeline import Batches
from jaxsft.errors import ConfigError
from jaxsft.hf import pretrained_folder
from jaxsft.sharding import hosts
from jaxsft.sharding import mesh as meshes
from jaxsft.tasks import rows
from jaxsft.tasks.task import Task
from jaxsft.training import open_folder, runs
from jaxsft.training.components import Components


def attach(parts: Components, batches: Batches) -> list[str]:
    """Attaches the teacher's logits to the training rows.

    Returns the line of the banner about it; [] without a teacher.

    Raises:
      ConfigError: the teacher is of another task, or lacks a label or a row.
    """
    name = parts.config.distil.teacher
    if name is None:
        return []
    if hosts.many():
        raise ConfigError(f"distil.teacher={name}: works in one process; start it without hosts")
    run = _opened(name, parts.config)
    places = _places(name, run, parts.task)
    split = batches.split
    found, logits = _of_rows(run, split.records, split.where)
    if lost := sorted(set(np.unique(split.arrays["row"])) - set(found)):
        raise ConfigError(
            f"{split.where[lost[0]]}: the teacher of distil.teacher={name} cannot read this row"
            " (it is longer than its context, or empty); leave it out"
        )
    at = np.searchsorted(found, split.arrays["row"])
    given = logits[at][:, places].astype(np.float32)
    batches.split = dataclasses.replace(split, arrays={**split.arrays, "segment.teacher": given})
    gold = split.arrays["segment.label"].reshape(-1).astype(int)
    right = float((given.argmax(-1) == gold).mean())
    return [f"{name} teaches: {right:.1%} of the training rows have the label that it would give"]


def _opened(name: str, config: Config) -> runs.Run:
    folder = remote.opened(str(hub.run_dir(name)))
    like = lambda its: dataclasses.replace(its, mesh=config.mesh, precision=config.precision)
    if pretrained_folder.is_source(folder):
        return open_folder.open_folder(Path(folder), like)
    return runs.open_run(folder, like)


def _places(name: str, run: runs.Run, student: Task) -> list[int]:
    """Returns the place of each of our labels among those of the teacher. Raises ConfigError."""
    task, labels = run.parts.task, student.labels
    if task.spec is not student.spec:
        raise ConfigError(
            f"distil.teacher={name}: was trained by task={task.name}; expected task={student.name}"
        )
    if missing := [label for label in labels if label not in task.labels]:
        raise ConfigError(
            f"distil.teacher={name}: does not know the label {missing[0]!r} ({len(missing)} of"
            f" {len(labels)} are missing); train it on these labels"
        )
    return [task.labels.index(label) for label in labels]


def _of_rows(run: runs.Run, records: list, where: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that the teacher reads, and its logits of each, `[rows, C]`."""
    parts = run.parts
    # the labels are not read: a row without a true one may have any
    given = [dataclasses.replace(record, label=parts.task.labels[0]) for record in records]
    split = parts.split("train", Records(given, list(where)))
    batches, params = parts.batches(split), run.params
    read = jax.jit(
        lambda params, batch: parts.task.read(parts.model, params, batch, None),
        out_shardings=meshes.replicated(parts.mesh),
    )
    values = None
    for step in range(len(batches)):
        ids = batches.example_ids(step)
        logits = np.asarray(read(params, parts.put(batches[step], batches)))
        if values is None:
            values = np.zeros((split.examples, logits.shape[-1]), np.float32)
        values[ids[ids >= 0]] = logits[ids >= 0]
    return rows.kept(split)[0], rows.mean(split, values)
