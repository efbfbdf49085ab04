"""A trained model from its run directory: what it answers, predicts and scores.

model = jaxsft.load("runs/first")
model.generate("translate: red cat")
model.predict(["a text", "another"])
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsft import halves, plugins, quantised, remote, rundir
from jaxsft.config import compose as composing
from jaxsft.config import resolve as resolving
from jaxsft.config import validate
from jaxsft.config.durations import Clock
from jaxsft.config.schema import (
    Columns,
    Config,
    DataConfig,
    EvaluationConfig,
    GenerateConfig,
    MeshConfig,
)
from jaxsft.data import (
    config_files,
    encoded_split,
    file_records,
    hub,
    prepared,
    splits,
    unseen_labels,
)
from jaxsft.data.encoded_split import Split
from jaxsft.data.file_records import Records
from jaxsft.data.formats import Row
from jaxsft.data.given_rows import Prompt, prompt_row, rows_of, with_predictions
from jaxsft.data.ledger import Aside
from jaxsft.data.pipeline import Batches
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import answered, passes
from jaxsft.evaluation import evaluate as evaluation
from jaxsft.evaluation.generated import generate_answers
from jaxsft.generation import decoding as generation
from jaxsft.generation import stops
from jaxsft.hf import pretrained_folder as pretrained
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import platforms
from jaxsft.training import open_folder, runs
from jaxsft.training.held import Held
from jaxsft.training.hyper import make_hyper
from jaxsft.training.recorder import Result

CHECKPOINT = "checkpoint="
OVERRIDABLE = (
    "data",
    "evaluation",
    "generate",
    "mesh",
    "precision",
    "seed",
    "loss.chunk",
    "model.attention",
    "model.unroll",
)


def load(run: str | os.PathLike | Result, *overrides: str) -> Model:
    """Loads a trained model from its run directory alone.

    Its weights are the best ones, or the newest ones of a run without validation or not yet
    finished. A folder in the layout of Hugging Face is a model too: of task=chat where it has a
    chat template, else of task=lm.

    Args:
      overrides: `key=value` of what cannot change the meaning of the weights: data, evaluation,
        generate, mesh, precision, seed; of a folder `task.variables` too; `checkpoint=STEP` or
        `checkpoint=newest` for another step than the best; and `plugins=[MODULE]`, as the run had
        it.

    Raises:
      ConfigError: not a run directory, or an option that cannot be changed for a trained run.
      CheckpointError: no good checkpoint.
    """
    overrides = tuple(plugins.of_arguments(overrides))
    remote.opened.cache_clear()  # the run may have gone on since
    asked = next(
        (text.partition("=")[2] for text in overrides if text.startswith(CHECKPOINT)), None
    )
    overrides = tuple(text for text in overrides if not text.startswith(CHECKPOINT))
    _refuse_fixed(run, overrides)
    change = functools.partial(_changed, overrides)
    platforms.devices()
    if isinstance(run, Result):
        return Model(runs.open_run(run.mirror.place, change, checkpoint=asked))
    if pretrained.is_source(folder := remote.opened(str(hub.run_dir(str(run))))):
        if asked is not None:
            raise ConfigError(
                f"checkpoint={asked}: {run} is no run directory, and has no steps; leave it out"
            )
        return Model(open_folder.open_folder(folder, change))
    return Model(runs.open_run(run, change, checkpoint=asked))


def _refuse_fixed(run: str | os.PathLike | Result, overrides: Sequence[str]) -> None:
    """Raises ConfigError where an option cannot be changed for a trained run."""
    for text in overrides:
        key = text.partition("=")[0]
        if (
            key.partition(".")[0] not in OVERRIDABLE
            and key not in OVERRIDABLE
            and not _of_untrained(run, key)
        ):
            groups = {
                "generate": GenerateConfig,
                "evaluation": EvaluationConfig,
                "data": DataConfig,
            }
            near = [
                f"; did you mean {name}.{key}?"
                for name, group in groups.items()
                if key in group.__dataclass_fields__
            ]
            raise ConfigError(
                f"{key}: cannot be changed for a trained run; what can is"
                f" {', '.join(OVERRIDABLE)}{''.join(near[:1])}"
            )


def _changed(overrides: Sequence[str], config: Config) -> Config:
    """Returns the config of a run with these options, on the devices that are here."""
    config = composing.override(config, overrides)
    validate.of_run(config)
    config_files.check_columns(config)
    given = any(text.startswith("mesh.") for text in overrides)
    config = dataclasses.replace(
        config, mesh=meshes.resolve(config.mesh) if given else _mesh_here(config.mesh)
    )
    validate.evaluation_batches(config)
    return resolving.with_precision(config, platforms.facts())


def _of_untrained(run: str | os.PathLike | Result, key: str) -> bool:
    """Returns whether an option may be changed because nobody has trained with it.

    That is so for the variables of the template of a folder in the layout of Hugging Face.
    """
    if isinstance(run, Result) or not (
        key == "task.variables" or key.startswith("task.variables.")
    ):
        return False
    return pretrained.is_source(remote.opened(str(hub.run_dir(str(run)))))


def _mesh_here(mesh: MeshConfig) -> MeshConfig:
    """Returns the run's own mesh, or one device where there are fewer than it was trained on."""
    used = math.prod(getattr(mesh, axis) for axis in meshes.AXES)
    if used <= jax.device_count():
        return mesh
    print(
        f"trained on {used} devices; running on one of {jax.device_count()}",
        file=sys.stderr,
    )
    return MeshConfig(data=1)


def model_functions(run: str | None) -> dict[str, Callable]:
    """Returns the functions through which stages use a model; {} without a run.

    They are `score` (the perplexity of each text, of a run with task=lm) and `predict` (the result
    of `Model.predict`). The model is loaded at the first call.
    """
    if run is None:
        return {}
    model = functools.cache(lambda: load(run))

    def score(texts: Sequence[str]) -> np.ndarray:
        if model().task.spec.output != "continuation":
            raise ConfigError(
                f"run={run}: task={model().task.name} gives no perplexity; expected a run with"
                " task=lm"
            )
        lines = model().predict(list(texts))
        return np.array(
            [
                np.exp(line["nll"] / line["tokens"]) if line.get("tokens") else np.inf
                for line in lines
            ]
        )

    return {"score": score, "predict": lambda records: model().predict(records)}


class Model:
    """The weights of a run and what they were trained with: tokenizer, template, stop tokens,
    labels. Made by `load`.
    """

    def __init__(self, run: runs.Run):
        self._held, self.parts, self.folder, self.step = Held(run), run.parts, run.folder, run.step
        self.config, self.task, self.tokenizer = (
            run.parts.config,
            run.parts.task,
            run.parts.tokenizer,
        )

    def __repr__(self) -> str:
        return f"<jaxsft model of {self.folder}: task={self.task.name}, step {self.step}>"

    @property
    def run(self) -> runs.Run:
        """Returns the run, with its layers stacked."""
        return self._held.run

    @property
    def params(self) -> Any:
        """Returns all weights, frozen ones too, in the layout of `jaxsft.models.transformer`.

        Those of a folder under precision=bf16 on a CPU are rounded to bfloat16; those that a run
        holds in few bits are widened.
        """
        params = quantised.widened(self.run.params)
        return jax.tree.map(lambda w: halves.unpack(w) if halves.are(w) else w, params)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> str | list[str]:
        """Generates the model's answers; with task=lm, continuations. Equals `jaxsft generate`.

        Args:
          prompts: a text or a conversation (a list of messages with role and content): one answer.
            A list of either: a list of answers.
          max_new_tokens: at most so many tokens; None: `generate.max_new_tokens`, whose `auto` is
            twice the longest answer of training.
          temperature: 0 is greedy; None: `generate.temperature`.
          seed: of the samples; None: the run's. A sample depends on the seed and on its place in
            the list.
          options: others of `generate`: top_k, top_p, min_p, repetition_penalty, num_beams,
            length_penalty, stop, batch_size.

        Raises:
          ConfigError: the task generates nothing, or an option is unknown or out of range.
          DataError: a message is malformed, or the assistant has the last word.
        """
        config = self._generating(
            seed, max_new_tokens=max_new_tokens, temperature=temperature, **options
        )
        single = isinstance(prompts, str) or (bool(prompts) and isinstance(prompts[0], Mapping))
        ids = self.prompt_ids([prompts] if single else prompts)
        texts = self._generated(ids, config)
        return texts[0] if single else texts

    def prompt_ids(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Returns the ids that answers to texts or conversations start from, template included.

        Raises DataError as `generate`.
        """
        rows = [prompt_row(prompt, i, self.task) for i, prompt in enumerate(prompts, start=1)]
        return [self.task.prompt(self.task.unlabelled(row, Columns()), row.where) for row in rows]

    def answers_to(self, prompts: Sequence[Sequence[int]], **options: Any) -> list[str]:
        """Generates what follows prompts, given as ids; options and errors as of `generate`."""
        return self._generated(prompts, self._generating(None, **options))

    def _generated(self, ids: Sequence[Sequence[int]], config: Config) -> list[str]:
        few = 1 << max(len(ids) - 1, 0).bit_length()  # few sizes, so that few programs are compiled
        how = dataclasses.replace(
            config.generate,
            batch_size=min(config.generate.batch_size, few * config.generate.num_beams),
        )
        out = generation.generate(
            self.parts.model,
            self._held.layers,
            ids,
            how,
            pieces=self.tokenizer.pieces,
            **self._limits(config),
        )
        return [answer.text for answer in out]

    def stream(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Yields the answer of `generate` in the pieces that become readable, token by token.

        Joined they are the same text. Raises as `generate`.

        Some tokenizers read a character as single bytes once a byte follows that fits no character:
        what was given stays, and the text goes on.
        """
        config = self._generating(seed, max_new_tokens=max_new_tokens, **options)
        if config.generate.num_beams > 1:
            raise ConfigError(
                f"generate.num_beams={config.generate.num_beams}: beams cannot be streamed; set"
                " generate.num_beams=1"
            )
        ids = self.prompt_ids([prompt])
        how, told = dataclasses.replace(config.generate, batch_size=1), ""
        for _, answer, complete in generation.continuations(
            self.parts.model, self._held.layers, ids, how, every=1, **self._limits(config)
        ):
            text = answer.text if complete else stops.shown(answer.text, config.generate.stop)
            # else it grew by nothing, or its end waits for the rest of a character
            if not told.startswith(text):
                yield text[len(os.path.commonprefix([told, text])) :]
                told = text

    def _generating(self, seed: int | None, **options: Any) -> Config:
        """Returns the config with these options of `generate`. Raises ConfigError."""
        if not self.task.can_generate:
            raise ConfigError(
                f"run={self.folder}: task={self.task.name} generates nothing; use jaxsft predict"
            )
        given = {**{f"generate.{key}": value for key, value in options.items()}, "seed": seed}
        config = composing.override(
            self.config,
            [
                f"{key}={json.dumps(value) if isinstance(value, list) else value}"
                for key, value in given.items()
                if value is not None
            ],
        )
        validate.of_run(config)
        return config

    def _limits(self, config: Config) -> dict[str, Any]:
        """Returns the arguments of `models.generate` beside the options of the config."""
        limits = {
            "max_new_tokens": self._new_tokens(config),
            "stop_ids": self.task.stop_ids,
            "seed": config.seed,
        }
        return {
            **limits,
            "mesh": self.parts.mesh,
            "read": self.tokenizer.decode if self.task.generates else self.tokenizer.continued,
            "start": self.task.start_ids,
        }

    def predict(self, rows: Sequence[Mapping[str, Any] | str | Row]) -> list[dict[str, Any]]:
        """Predicts each row, and returns its fields and the prediction, in order.

        For chats the prediction is the generated answer. Equals `jaxsft predict`; labels need not
        be there.

        Args:
          rows: dicts with the columns of training, or texts.

        Raises:
          DataError: a row cannot be read.
        """
        columns = self.config.data.columns
        rows = self._as_trained(
            rows_of(rows, (self.task.inputs(columns) or [columns.text or "text"])[0])
        )
        records, where = (
            [self.task.unlabelled(row, columns) for row in rows],
            [row.where for row in rows],
        )
        if not rows:
            return []
        if self.task.generates:
            return self._answered(rows, records)
        # A row that cannot be predicted is told in its line, never a hole in the output.
        data = dataclasses.replace(self.config.data, max_dropped=1.0)
        split, result = self._evaluate(
            encoded_split.load_split(
                "input", records, where, self.task, data, self.config.model.context
            )
        )
        found = {
            line["row"]: self.task.predicted(line)
            for line in self.task.predictions(split, result.columns, None)
        }
        return with_predictions(
            rows,
            [
                found.get(i) or {"prediction": None, "dropped": split.dropped[i]}
                for i in range(len(records))
            ],
        )

    def answers(self, rows: Sequence[Mapping[str, Any] | str | Row]) -> list[dict[str, Any]]:
        """Generates an answer to each row, and returns its fields with the answer, in order.

        The answer is in `prediction` (with task=lm it is a continuation); `stopped` says whether it
        ended by itself.

        Args:
          rows: dicts with the columns of training, or texts.

        Raises:
          ConfigError: the task generates nothing.
          DataError: a row cannot be read.
        """
        if not self.task.can_generate:
            raise ConfigError(
                f"run={self.folder}: task={self.task.name} generates nothing; use jaxsft predict"
            )
        columns = self.config.data.columns
        rows = self._as_trained(rows_of(rows, self.task.inputs(columns)[0]))
        return self._answered(rows, [self.task.unlabelled(row, columns) for row in rows])

    def _answered(self, rows: list[Row], records: Sequence[Any]) -> list[dict[str, Any]]:
        parts, limit, where = self.parts, self._new_tokens(self.config), [row.where for row in rows]
        texts, stopped = generate_answers(
            self.task,
            parts.model,
            self._held.layers,
            records,
            where,
            self.config,
            limit,
            parts.mesh,
        )
        return with_predictions(
            rows,
            [
                {"prediction": text, "stopped": ended}
                for text, ended in zip(texts, stopped, strict=True)
            ],
        )

    def evaluate(
        self, data: str | os.PathLike | Sequence[Mapping[str, Any] | Row]
    ) -> dict[str, float]:
        """Computes loss and metrics of a file or of rows, by name.

        Equals `jaxsft eval`, whose names begin with that of the file.

        Raises:
          DataError: a row cannot be read, its label is unknown, or there is none.
        """
        return self.scored(data, "rows")[2]

    def scored(
        self, data: Any, name: str, aside: list[Aside] | None = None
    ) -> tuple[Split, evaluation.Evaluation, dict[str, float]]:
        """Evaluates a file or rows: (split of this name, columns and answers, metrics).

        Predictions are written from these. Rows that give no record go into `aside` where
        `data.on_bad_row` is quarantine.
        """
        config, parts = self.config, self.parts
        aside = [] if aside is None else aside
        if isinstance(data, str | os.PathLike):
            data = file_records.read_rows(
                config,
                str(data),
                [
                    *self.task.inputs(config.data.columns),
                    *self.task.outputs(config.data.columns),
                    *file_records.columns_beside(config),
                ],
                aside,
            )
        rows = file_records.usable(config, self._as_trained(rows_of(data, None)), self.task, aside)
        rows, records, _ = file_records.parse_some(config, rows, type(self.task), aside)
        more = file_records.beside(config, rows)
        part = Records(records, [row.where for row in rows], aside, beside=more)
        if config.data.unseen_labels == "drop":
            known = {("label", name) for name in self.task.state.get("labels", ())} | {
                ("text", name) for name in self.task.state.get("intents", ())
            }
            part = unseen_labels.seen(part, self.task, known)
            aside[:] = part.aside
        part = splits.arranged(type(self.task), part, config.data.columns, training=False)
        split, result = self._evaluate(parts.split(name, part))
        if self.task.generates and config.evaluation.generate != "never":
            result = answered.with_answers(
                result, self.task, parts.model, self._held.layers, split, config, parts.mesh
            )
        numbers = {**result.numbers, "rows_read": len(records) + len(aside)}
        return split, dataclasses.replace(result, numbers=numbers), numbers

    def read(self, path: str | os.PathLike, aside: list[Aside] | None = None) -> list[Row]:
        """Reads the rows of a file of inputs, for `predict`.

        Unreadable ones go into `aside` where `data.on_bad_row` is quarantine. Raises DataError.
        """
        return file_records.read_rows(
            self.config,
            str(path),
            self.task.inputs(self.config.data.columns),
            [] if aside is None else aside,
        )

    def encoded(self, path: str | os.PathLike, name: str, limit: int) -> tuple[Split, list[Row]]:
        """Encodes the first rows of a file, as they are predicted; with labels where it has them.

        Returns the split and the rows as they were read. Raises DataError.
        """
        columns, task = self.config.data.columns, self.task
        rows = self.read(path)[:limit]
        if not rows:
            raise DataError(f"{path}: has no rows")
        treated = self._as_trained(rows)
        labelled = all(name in row.fields for row in treated for name in task.outputs(columns))
        make = task.record if labelled else task.unlabelled
        records = [make(row, columns) for row in treated]
        data = dataclasses.replace(self.config.data, max_dropped=1.0)
        context, where = self.config.model.context, [row.where for row in rows]
        return encoded_split.load_split(name, records, where, task, data, context), rows

    @functools.cached_property
    def prepared(self) -> dict[str, Any] | None:
        """Returns the manifest of the prepared set that the model was trained on, if there is one.

        A model that was trained on raw files has None.
        """
        path = self.folder / "prepared.json"
        return rundir.read_json(path) if path.is_file() else None

    # --- inside
    # ----------------------------------------------------------------------------------------------
    @functools.cached_property
    def _pass(self) -> Callable[..., Any]:
        """Compiles the evaluation of a batch.

        It is one function for the life of the model, so that a shape is compiled once.
        """
        return jax.jit(
            self.parts.program.evaluate, out_shardings=meshes.replicated(self.parts.mesh)
        )

    def _step(self, split: Split) -> tuple[Callable[..., Any], Batches, Mapping[str, Any]]:
        """Returns the evaluation of a batch, the batches of a split, and the weights of terms."""
        parts, run = self.parts, self.run
        hyper, batches = make_hyper(self.config, Clock(1, 1, 1)), parts.batches(split)
        step = lambda batch: self._pass(run.weights, run.frozen, parts.put(batch, batches), hyper)
        return step, batches, hyper["terms"]

    def columns(self, split: Split) -> dict[str, np.ndarray]:
        """Computes what the pass gives of each example of a split, by name."""
        step, batches, _ = self._step(split)
        return passes.run_pass(step, batches, self.task.decoded)[1]

    def _evaluate(self, split: Split) -> tuple[Split, evaluation.Evaluation]:
        """Computes loss, metrics and columns of a split, without generated answers."""
        step, batches, weights = self._step(split)
        return batches.split, evaluation.evaluate(step, self.task, batches, weights, {})

    def _as_trained(self, rows: list[Row]) -> list[Row]:
        """Prepares new rows as the training rows were: cleaned, filled and scaled.

        Rows of a set that was prepared alike stay.

        Raises:
          DataError: a row comes from a set that was prepared otherwise, or its stages cannot treat
            it.
        """
        if self.prepared is None:
            return rows
        from jaxsft.prepare import run as preparing

        around = {
            file: prepared.around(file) if Path(file).exists() else None
            for file in {row.file for row in rows}
        }
        for file, found in around.items():
            if found is not None and prepared.treatment(found) != prepared.treatment(self.prepared):
                raise DataError(
                    f"{file} was prepared otherwise than the training data of {self.folder}; give"
                    " the file that it was prepared from"
                )
        new = [row for row in rows if around[row.file] is None]
        treated = iter(
            preparing.replay(self.prepared, new, model_functions(self.prepared.get("run")))
        )
        return [next(treated) if around[row.file] is None else row for row in rows]

    @property
    def answer_limit(self) -> int:
        """Returns how many tokens an answer has at most."""
        return self._new_tokens(self.config)

    def _new_tokens(self, config: Config) -> int:
        """Returns how many tokens are generated at most where there is no reference."""
        limit = config.generate.max_new_tokens
        return self.task.answers_up_to if limit == "auto" else limit
