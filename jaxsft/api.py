"""jaxsft from Python: compose a config, train, open a run, use its model. The commands are thin
readers of arguments over this file.

config = jaxsft.compose("task=classify", "data.path=all.csv", seed=1)
result = jaxsft.train(config)
model = jaxsft.load(result)
model.predict(["a text", "another"])
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxsft import remote, rundir, tasks
from jaxsft.config import compose as composing
from jaxsft.config import overrides as over
from jaxsft.config import validate
from jaxsft.config.durations import Clock
from jaxsft.config.schema import (
    Columns,
    Config,
    DataConfig,
    EvaluationConfig,
    GenerateConfig,
    MeshConfig,
    QualityConfig,
)
from jaxsft.data import hub, pipeline, prepared
from jaxsft.data.formats import Row, jsonl
from jaxsft.data.ledger import Aside
from jaxsft.data.pipeline import Batches, Split
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import evaluate as evaluation
from jaxsft.generation import decoding as generation
from jaxsft.generation import stops
from jaxsft.hf import read as pretrained
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import platforms
from jaxsft.training import export as exporting
from jaxsft.training import headless_export, loop, runs, setup, split_labels
from jaxsft.training.held import Held
from jaxsft.training.loop import Result
from jaxsft.training.step import make_hyper, objective_value

if TYPE_CHECKING:
    from jaxsft.check import CheckResult as Checked

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

Message = Mapping[str, Any]
Prompt = str | Sequence[Message]  # a text, or a conversation that waits for the assistant's turn


# --- train
# --------------------------------------------------------------------------------------------------
def compose(*overrides: str, **options: Any) -> Config:
    """The config of `jaxsft train` with these options, from the same groups of `conf/`.

    Args:
      overrides: `key=value`, as on the command line.
      options: the same as Python values, applied after them: `seed=1`, `task="classify"`,
        `data={"train": path}`.

    Raises:
      ConfigError: an unknown option, a wrong type or a missing value.
    """
    return over.composed([*overrides, *over.from_values(options)])


def batches(config: Config) -> tuple[Batches, Tokenizer]:
    """The batches that training would see, `batches[step]` (a `jaxsft.data.pipeline.Batch`), and
    the tokenizer that reads them.

    Raises:
      JaxsftError: as `train`, for what is wrong with config or data.
    """
    parts, records = setup.prepare(setup.resolve(config))
    return parts.batches(parts.split("train", records["train"]), training=True), parts.tokenizer


def train(config: Config | str, *overrides: str, **options: Any) -> Result:
    """Trains, or continues the unfinished run in `run_dir`, and writes the figures and the report.

    Args:
      config: what `compose` gave; or the first of overrides, which with `options` are composed
        here.

    Returns: the run directory and the numbers of `result.json`; after Ctrl-C `stopped_by` is the
    signal, and the same call continues.

    Raises:
      JaxsftError: anything that the user can mend.
    """
    config = _composed(config, overrides, options)
    from jaxsft.reports import outputs  # with matplotlib, which nothing else here needs

    return loop.train(config, outputs.write_all)


def _composed(config: Config | str, overrides: Sequence[str], options: Mapping[str, Any]) -> Config:
    if not isinstance(config, Config):
        return compose(config, *overrides, **options)
    if overrides or options:
        raise ConfigError(
            "give a Config, or overrides: a Config is complete; dataclasses.replace changes it"
        )
    return config


# --- data
# --------------------------------------------------------------------------------------------------
def check(config: Config | str, *overrides: str, **options: Any) -> Checked:
    """Looks at the data of a config before training, as `jaxsft check`: findings with severity,
    rows and repair; nothing is trained.

    Args:
      config, overrides, options: as for `train`.

    Raises:
      ConfigError: an option is wrong, or there is no data. What is wrong with the data is a
        finding.
    """
    from jaxsft import check as checking

    return checking.check(_composed(config, overrides, options))


def quality(config: QualityConfig | str, *overrides: str, **options: Any) -> dict[str, Any]:
    """Measures a data set, as `jaxsft quality` with these options: the card that the command writes
    as card.json. No file is written.

    Args:
      config: a QualityConfig; or the first of overrides, which with `options` are composed here.

    Raises:
      ConfigError: an option is wrong; or `output` or `compare` is given, of which nothing would
        come.
      DataError: a file cannot be read, or there is no row.
    """
    from jaxsft.prepare import quality as measuring

    if not isinstance(config, QualityConfig):
        config = over.composed([config, *overrides, *over.from_values(options)], "quality")
    elif overrides or options:
        raise ConfigError(
            "give a QualityConfig, or overrides: a config is complete; dataclasses.replace"
            " changes it"
        )
    if given := [name for name in ("output", "compare") if getattr(config, name) is not None]:
        raise ConfigError(
            f"{given[0]}: jaxsft.quality gives the card and writes nothing;"
            " jaxsft.prepare.quality.card_comparison sets two cards side by side"
        )
    return measuring.card(measuring.of_config(config.data, config.split_column), config)


# --- prepare
# --------------------------------------------------------------------------------------------------
def prepare(
    *overrides: str, models: Mapping[str, Callable] | None = None, **options: Any
) -> tuple[dict[str, Any], bool]:
    """Takes a data set through stages, as `jaxsft prepare` with these options: (the manifest,
    whether anything was done).

    Args:
      models: functions `score` and `predict` for stages that need a model; None: those of the run
        directory `run`, if there is one.

    Raises:
      JaxsftError: anything that the user can mend.
    """
    from jaxsft.prepare import run as preparing

    config = over.composed([*overrides, *over.from_values(options)], "prepare")
    return preparing.prepare(config, model_functions(config.run) if models is None else models)


def model_functions(run: str | None) -> dict[str, Callable]:
    """What stages use a model through: `score` (the perplexity of each text, of a run with task=lm)
    and `predict` (what `Model.predict` gives). The model is loaded when it is first asked; without
    a run there are none.
    """
    if run is None:
        return {}
    model = functools.cache(lambda: load(run))

    def score(texts: Sequence[str]) -> np.ndarray:
        if model().task.name != "lm":
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


# --- use
# --------------------------------------------------------------------------------------------------
def load(run: str | os.PathLike | Result, *overrides: str) -> Model:
    """A trained model, from its run directory alone: the best weights (the newest ones of a run
    without validation or not yet finished). A folder in the layout of Hugging Face is a model too:
    of task=chat where it has a chat template, else of task=lm.

    Args:
      overrides: `key=value` of what cannot change the meaning of the weights: data, evaluation,
        generate, mesh, precision, seed; of a folder `task.variables` too; and `checkpoint=STEP` or
        `checkpoint=newest` for another step than the best.

    Raises:
      ConfigError: not a run directory, or an option that cannot be changed for a trained run.
      CheckpointError: no good checkpoint.
    """
    remote.opened.cache_clear()  # the run may have gone on since
    asked = next(
        (text.partition("=")[2] for text in overrides if text.startswith(CHECKPOINT)), None
    )
    overrides = tuple(text for text in overrides if not text.startswith(CHECKPOINT))
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

    def change(config: Config) -> Config:
        config = composing.override(config, overrides)
        validate.validate_values(composing.flat(composing.to_dict(config)))
        setup.check_columns(config, tasks.get(config.task.name).record)
        given = any(text.startswith("mesh.") for text in overrides)
        config = dataclasses.replace(
            config, mesh=meshes.resolve(config.mesh) if given else _mesh_here(config.mesh)
        )
        validate.evaluation_batches(config)
        return (
            config if config.precision != "auto" else dataclasses.replace(config, precision="bf16")
        )

    platforms.devices()
    if isinstance(run, Result):
        return Model(runs.open_run(run.mirror.place, change, checkpoint=asked))
    if pretrained.is_source(folder := remote.opened(str(hub.run_dir(str(run))))):
        if asked is not None:
            raise ConfigError(
                f"checkpoint={asked}: {run} is no run directory, and has no steps; leave it out"
            )
        return Model(headless_export.open_folder(folder, change))
    return Model(runs.open_run(run, change, checkpoint=asked))


def _of_untrained(run: str | os.PathLike | Result, key: str) -> bool:
    """Returns whether an option may be changed for a folder of Hugging Face: nobody has trained
    with the variables of its template.
    """
    if isinstance(run, Result) or not (
        key == "task.variables" or key.startswith("task.variables.")
    ):
        return False
    return pretrained.is_source(remote.opened(str(hub.run_dir(str(run)))))


def export(
    run: str | os.PathLike | Result,
    to: str | os.PathLike,
    *,
    dtype: str | None = None,
    family: str | None = None,
    shard: int = exporting.SHARD,
    adapter: str = "merge",
    head: str = "class",
    checkpoint: str | None = None,
) -> dict[str, Any]:
    """Writes the model of a run as a folder that transformers loads. Equal to `jaxsft export`.

    Args:
      dtype: fp32 | bf16 | fp16; None: what each tensor had in the files that the run started from,
        else float32.
      family: the model_type to write; None: that which the run started from, else the first that
        has all options of the model.
      shard: bytes of a file of weights at most.
      adapter: merge: it becomes part of the weights | peft: it alone is written, for the library
        PEFT.
      head: class: the class of transformers that has the head of the task | body: the model without
        it, and the head in head.safetensors.
      checkpoint: the step, or newest; None: the best one.

    Raises:
      ConfigError: transformers has no class with this computation, or the folder is there already.
      CheckpointError: no good checkpoint.
    """
    asked = [] if checkpoint is None else [f"{CHECKPOINT}{checkpoint}"]
    opened = load(run, "precision=fp32", *asked).run
    return exporting.export(
        opened, to, dtype=dtype, family=family, shard=shard, adapter=adapter, head=head
    )


def _mesh_here(mesh: MeshConfig) -> MeshConfig:
    """The run's own mesh, or one device where there are fewer than it was trained on."""
    if mesh.data * mesh.fsdp * mesh.tensor <= jax.device_count():
        return mesh
    print(
        f"trained on {mesh.data * mesh.fsdp * mesh.tensor} devices; running on one of"
        f" {jax.device_count()}",
        file=sys.stderr,
    )
    return MeshConfig(data=1)


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
        """The run, with its layers stacked."""
        return self._held.run

    @property
    def params(self) -> Any:
        """All weights, frozen ones too, in the layout of `jaxsft.models.transformer`; of a folder
        under precision=bf16 on a CPU, rounded to it.
        """
        return self.run.params

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> str | list[str]:
        """What the model answers; with task=lm, how it continues a text. Equal to `jaxsft
        generate`.

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
        rows = [
            self._prompt_row(prompt, i)
            for i, prompt in enumerate([prompts] if single else prompts, start=1)
        ]
        ids = [self.task.prompt(self.task.unlabelled(row, Columns()), row.where) for row in rows]
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
        texts = [answer.text for answer in out]
        return texts[0] if single else texts

    def stream(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """The answer of `generate` in the pieces that become readable, token by token: joined they
        are the same text. Raises as `generate`.

        Some tokenizers read a character as single bytes once a byte follows that fits no character:
        what was given stays, and the text goes on.
        """
        config = self._generating(seed, max_new_tokens=max_new_tokens, **options)
        if config.generate.num_beams > 1:
            raise ConfigError(
                f"generate.num_beams={config.generate.num_beams}: beams cannot be streamed; set"
                " generate.num_beams=1"
            )
        row = self._prompt_row(prompt, 1)
        ids = [self.task.prompt(self.task.unlabelled(row, Columns()), row.where)]
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
        """The config with these options of `generate`. Raises ConfigError."""
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
        validate.validate_values(composing.flat(composing.to_dict(config)))
        return config

    def _limits(self, config: Config) -> dict[str, Any]:
        """What `models.generate` needs beside the options."""
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
        """Per row, in order, its fields and what is predicted (for chats the generated answer).
        Equal to `jaxsft predict`; labels need not be there.

        Args:
          rows: dicts with the columns of training, or texts.

        Raises:
          DataError: a row cannot be read.
        """
        columns = self.config.data.columns
        rows = self._as_trained(
            self._rows(rows, (self.task.inputs(columns) or [columns.text or "text"])[0])
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
            pipeline.load_split("input", records, where, self.task, data, self.config.model.context)
        )
        found = {
            line["row"]: self.task.predicted(line)
            for line in self.task.predictions(split, result.columns, None)
        }
        return _beside(
            rows,
            [
                found.get(i) or {"prediction": None, "dropped": split.dropped[i]}
                for i in range(len(records))
            ],
        )

    def answers(self, rows: Sequence[Mapping[str, Any] | str | Row]) -> list[dict[str, Any]]:
        """Per row, in order, its fields, `prediction` (the answer, or with task=lm the
        continuation) and `stopped`: whether it ended by itself.

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
        rows = self._as_trained(self._rows(rows, self.task.inputs(columns)[0]))
        return self._answered(rows, [self.task.unlabelled(row, columns) for row in rows])

    def _answered(self, rows: list[Row], records: Sequence[Any]) -> list[dict[str, Any]]:
        parts, limit, where = self.parts, self._new_tokens(self.config), [row.where for row in rows]
        texts, stopped = evaluation.generate_answers(
            self.task,
            parts.model,
            self._held.layers,
            records,
            where,
            self.config,
            limit,
            parts.mesh,
        )
        return _beside(
            rows,
            [
                {"prediction": text, "stopped": ended}
                for text, ended in zip(texts, stopped, strict=True)
            ],
        )

    def evaluate(
        self, data: str | os.PathLike | Sequence[Mapping[str, Any] | Row]
    ) -> dict[str, float]:
        """Loss and metrics of a file or of rows, by name. Equal to `jaxsft eval`, whose names begin
        with that of the file.

        Raises:
          DataError: a row cannot be read, its label is unknown, or there is none.
        """
        return self.scored(data, "rows")[2]

    def scored(
        self, data: Any, name: str, aside: list[Aside] | None = None
    ) -> tuple[Split, evaluation.Evaluation, dict[str, float]]:
        """(the split of this name, columns and answers of its rows, its numbers): what predictions
        are written from. Rows that give no record go into `aside` where `data.on_bad_row` is
        quarantine.
        """
        config, parts = self.config, self.parts
        aside = [] if aside is None else aside
        if isinstance(data, str | os.PathLike):
            data = setup.read_rows(
                config,
                str(data),
                [*self.task.inputs(config.data.columns), *self.task.outputs(config.data.columns)],
                aside,
            )
        rows = setup.usable(config, self._as_trained(self._rows(data, None)), self.task, aside)
        rows, records = setup.records_of(config, rows, type(self.task), aside)
        part = setup.Records(records, [row.where for row in rows], aside)
        if config.data.unseen_labels == "drop":
            known = {("label", name) for name in self.task.state.get("labels", ())} | {
                ("text", name) for name in self.task.state.get("intents", ())
            }
            part = split_labels.seen(part, self.task, known)
            aside[:] = part.aside
        part = setup.arranged(type(self.task), part, config.data.columns, training=False)
        split, result = self._evaluate(parts.split(name, part))
        if self.task.generates and config.evaluation.generate != "never":
            answers, numbers = evaluation.answer(
                self.task, parts.model, self._held.layers, split, config, parts.mesh
            )
            result = evaluation.Evaluation(result.numbers | numbers, result.columns, answers)
        return split, result, {**result.numbers, "rows_read": len(records) + len(aside)}

    def read(self, path: str | os.PathLike, aside: list[Aside] | None = None) -> list[Row]:
        """The rows of a file of inputs, for `predict`; unreadable ones go into `aside` where
        `data.on_bad_row` is quarantine. Raises DataError.
        """
        return setup.read_rows(
            self.config,
            str(path),
            self.task.inputs(self.config.data.columns),
            [] if aside is None else aside,
        )

    @functools.cached_property
    def prepared(self) -> dict[str, Any] | None:
        """The manifest of the prepared set that the model was trained on; None where it was trained
        on raw files.
        """
        path = self.folder / "prepared.json"
        return rundir.read_json(path) if path.is_file() else None

    # --- inside
    # ----------------------------------------------------------------------------------------------
    @functools.cached_property
    def _pass(self) -> Callable[..., Any]:
        """The evaluation of a batch; one function for the life of the model, so that a shape is
        compiled once.
        """
        return jax.jit(
            self.parts.program.evaluate, out_shardings=meshes.replicated(self.parts.mesh)
        )

    def _evaluate(self, split: Split) -> tuple[Split, evaluation.Evaluation]:
        """Loss, metrics and columns; without generated answers."""
        parts, run = self.parts, self.run
        hyper, batches = make_hyper(self.config, Clock(1, 1, 1)), parts.batches(split)
        step = lambda batch: self._pass(run.weights, run.frozen, parts.put(batch, batches), hyper)
        objective = lambda terms, totals: objective_value(terms, totals, hyper["terms"])
        return batches.split, evaluation.evaluate(step, self.task, batches, objective)

    def _as_trained(self, rows: list[Row]) -> list[Row]:
        """New rows, cleaned, filled and scaled as the training rows were; those of a set that was
        prepared alike stay.

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

    def _new_tokens(self, config: Config) -> int:
        """How many tokens are generated at most where there is no reference."""
        limit = config.generate.max_new_tokens
        return self.task.answers_up_to if limit == "auto" else limit

    @staticmethod
    def _rows(given: Sequence[Any], text: str | None) -> list[Row]:
        """Rows with a place for messages; `text` is the column of what is given as a text, None
        where a text will not do. Raises DataError.
        """
        if isinstance(given, str | Mapping):
            raise DataError(
                f"expected a list of rows (found one {type(given).__name__}); put it into a list"
            )
        out = []
        for i, row in enumerate(given, start=1):
            if isinstance(row, str) and text is not None:
                row = {text: row}
            if not isinstance(row, Row | Mapping):
                raise DataError(
                    f"rows:{i}: found a {type(row).__name__}, expected a dict of columns"
                    + (" or a text" if text else "")
                )
            out.append(row if isinstance(row, Row) else _of_characters(Row(dict(row), "rows", i)))
        return out

    def _prompt_row(self, prompt: Prompt, number: int) -> Row:
        """The row of a prompt, under the names of `Columns()`. Raises DataError."""
        if isinstance(prompt, str):
            return _of_characters(Row({self.task.inputs(Columns())[0]: prompt}, "prompt", number))
        if (
            not isinstance(prompt, Sequence)
            or not prompt
            or not all(isinstance(message, Mapping) for message in prompt)
        ):
            raise DataError(
                f"prompt:{number}: found {prompt!r:.60}, expected a text or a list of messages with"
                " role and content"
            )
        if self.task.name != "chat":
            raise DataError(
                f"prompt:{number}: found messages, but task={self.task.name} reads a text"
            )
        if prompt[-1].get("role") == "assistant":
            raise DataError(
                f"prompt:{number}: the last message is from the assistant, expected one that it can"
                " answer"
            )
        return _of_characters(
            Row({"messages": [dict(message) for message in prompt]}, "prompt", number)
        )


def _of_characters(row: Row) -> Row:
    """Raises DataError where a text of it is not one: no tokenizer reads such a text."""
    if (half := jsonl.surrogate(row.fields)) is not None:
        raise DataError(f"{row.where}: a text holds {half}, {jsonl.NO_CHARACTER}")
    return row


def _beside(rows: Sequence[Row], lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The fields of each row and what was predicted. Raises DataError where a name is taken."""
    for row, line in zip(rows, lines, strict=True):
        if taken := [name for name in line if name in row.fields]:
            raise DataError(
                f"{row.where}: has a column {taken[0]!r}, which the prediction would overwrite;"
                " rename it"
            )
    return [{**row.fields, **line} for row, line in zip(rows, lines, strict=True)]
