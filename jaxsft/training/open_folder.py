"""A folder in the layout of Hugging Face, opened as a run that was never trained: a model with a
head for texts or tokens classifies them; of the others one with a chat template answers, an
encoder-decoder model writes what becomes of a text, and the rest continue it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxsft import halves
from jaxsft.config.schema import (
    TASKS,
    ChatTask,
    Columns,
    Config,
    DataConfig,
    LMTask,
    MeshConfig,
    ModelConfig,
    PretrainedTokenizer,
    Seeds,
    Seq2SeqTask,
    TaskConfig,
)
from jaxsft.data import schemes
from jaxsft.data.chat.templates import Template
from jaxsft.data.chosen_tokenizer import tokenizer_at
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.hf import generation_config, trained_heads
from jaxsft.hf import pretrained_folder as pretrained
from jaxsft.hf.families.family import Head
from jaxsft.products import ROUNDED
from jaxsft.sharding import hosts
from jaxsft.tasks.seq2seq import Seq2SeqTask as Seq2Seq
from jaxsft.tasks.specs import SPECS, of_problem
from jaxsft.training import pretrained as hf
from jaxsft.training import runs, setup
from jaxsft.training.components import Components, build_components

LONGEST = 120  # tokens of an answer, where no training says it


def open_folder(folder: Path, change: Callable[[Config], Config]) -> runs.Run:
    """Opens a folder in the layout of Hugging Face as a run, with components and weights.

    Args:
      change: what a command's overrides make of the config.

    Raises:
      ConfigError: a model of another kind, or a head, tokenizer or template that cannot be read.
      CheckpointError: the weights are not those of its config.json.
    """
    tokenizer = tokenizer_at(str(folder))
    source = pretrained.open_source(folder)
    if (head := trained_heads.head_of(source.family, source.values)) is not None:
        return _with_head(source, *head, tokenizer, change)
    task = LMTask() if tokenizer.chat_template is None else ChatTask()
    if two := bool(source.model().decoder_layers):
        task = Seq2SeqTask(scores=["exact_match"])
    config = _config(folder, task, change)
    if not config.model.causal and not two:
        raise ConfigError(
            f"{folder}: reads texts in both directions, writes nothing and has no head of a task;"
            " start from it by model.pretrained="
        )
    variables = getattr(config.task, "variables", None)
    learnt = (
        state_of_pairs(config, folder, tokenizer)
        if two
        else state(folder, tokenizer, config.model.vocab_rows, variables)
    )
    parts = build_components(config, tokenizer, learnt)
    asked = generation_config.read(folder, source.values)
    if hosts.first() and (
        told := generation_config.note(asked, config.generate, parts.task.start_ids)
    ):
        print(f"note: {folder}: {told}", file=sys.stderr)
    return _run(folder, parts)


def _run(folder: Path, parts: Components) -> runs.Run:
    """Loads the weights of a folder and returns it as a run.

    On a CPU those of linear layers are rounded once where every product of precision=bf16 would
    round them again; a large model that writes texts holds them in bfloat16, and a note says so.
    """
    rounded = parts.config.precision == "bf16" and jax.default_backend() == "cpu"
    weights = runs.starting_params(parts, rounded=rounded)
    if hosts.first() and any(map(halves.are, jax.tree.leaves(weights))):
        print(
            f"note: {folder}: its weights are held in bfloat16, and widened part by part;"
            " precision=fp32 holds them in float32",
            file=sys.stderr,
        )
    parts = (
        dataclasses.replace(parts, model=dataclasses.replace(parts.model, precision=ROUNDED))
        if rounded
        else parts
    )
    return runs.Run(folder, parts, weights, {}, 0)


def _config(
    folder: Path,
    task: TaskConfig,
    change: Callable[[Config], Config],
    columns: Columns | None = None,
) -> Config:
    weights, texts = ModelConfig(pretrained=str(folder)), PretrainedTokenizer(path=str(folder))
    config = Config(
        task=task,
        model=weights,
        tokenizer=texts,
        mesh=MeshConfig(data=1),
        data=DataConfig(columns=columns or Columns()),
    )
    config = dataclasses.replace(
        config,
        evaluation=dataclasses.replace(config.evaluation, batch_size=config.train.batch_size),
    )
    config = change(setup.like_pretrained(config))
    return dataclasses.replace(
        config, seeds=Seeds(init=config.seed, data=config.seed, dropout=config.seed)
    )


def _with_head(
    source: pretrained.PretrainedFolder,
    kind: str,
    head: Head,
    tokenizer: Tokenizer,
    change: Callable[[Config], Config],
) -> runs.Run:
    """Opens a folder whose class has a head as a run of the task of that head.

    Raises ConfigError where weights of the head are missing or cannot be taken.
    """
    name, names = _task_of(source, kind), trained_heads.names_of(source.values)
    options = trained_heads.options_of(head, source.values, TASKS[name])
    numbers = SPECS[name].output == "numbers"
    if numbers:
        options["standardize"] = False
    columns = Columns(targets=tuple(names)) if numbers and len(names) > 1 else None
    config = _config(source.folder, TASKS[name](**options), change, columns)
    parts = build_components(config, tokenizer, state_of_head(name, names, config.data.columns))
    todo = hf.plan(parts, source)
    if todo.head is not None or any(not path.endswith("/b") for path in todo.fresh):
        why = todo.head or f"{', '.join(todo.fresh)} is not in the files"
        raise ConfigError(
            f"{source.folder}: its head cannot be taken: {why}; start from it by model.pretrained="
        )
    return _run(source.folder, parts)


def _task_of(source: pretrained.PretrainedFolder, kind: str) -> str:
    """Returns the task of a head, as transformers tells them apart by `problem_type`.

    Raises ConfigError where `problem_type` is unknown.
    """
    if kind != "text":
        return kind
    problem = source.values.get("problem_type") or (
        "regression"
        if len(trained_heads.names_of(source.values)) == 1
        else "single_label_classification"
    )
    names = of_problem()
    if not isinstance(problem, str) or problem not in names:
        raise ConfigError(
            f"{source.folder / 'config.json'}: problem_type={problem!r} is unknown; expected one of"
            f" {', '.join(names)}"
        )
    return names[problem]


def state_of_head(name: str, names: Sequence[str], columns: Columns) -> dict[str, Any]:
    """Returns the state that a task would have learnt: labels, in the order of the outputs.

    A head of numbers has `targets`, with mean 0 and deviation 1 each.
    """
    output = SPECS[name].output
    if output == "numbers":
        targets = (
            list(names) if len(names) > 1 else list(columns.targets) or [columns.label or "label"]
        )
        return {"targets": targets, "mean": [0.0] * len(targets), "deviation": [1.0] * len(targets)}
    if output == "stretch":
        # nothing says whether it was trained on questions without an answer
        return {"unanswered": False}
    return {"labels": list(names)} | (
        {"scheme": schemes.of_labels(names) or "none"} if output == "tags" else {}
    )


def state(
    folder: Path, tokenizer: Tokenizer, rows: int, variables: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the state that a task would have learnt in training: stop tokens and chat template.

    The stop tokens are those of generation_config.json, eos, and those that end an answer of the
    template. `variables` are handed to the template; the vocabulary has `rows` rows.
    """
    stop = [
        *generation_config.stop_ids(folder, rows),
        *([] if tokenizer.eos_id is None else [tokenizer.eos_id]),
    ]
    if tokenizer.chat_template is None:
        return {"stop_ids": sorted(set(stop))}
    template = Template.of(tokenizer, require_stop=False, variables=variables)
    return {
        "template": template.stored,
        "stop_ids": sorted({*stop, *template.stop_ids}),
        "longest_answer": LONGEST,
    }


def state_of_pairs(config: Config, folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the state of a task of an encoder-decoder model, which reads a text as it is.

    Raises ConfigError where nothing says what its decoder starts from.
    """
    found = Seq2Seq.fit(config, tokenizer, [], [])
    stops = generation_config.stop_ids(folder, config.model.vocab_rows)
    return found | {
        "stop_ids": sorted({*found["stop_ids"], *stops}),
        "longest_answer": LONGEST,
    }
