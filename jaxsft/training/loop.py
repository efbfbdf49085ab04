"""`train(config)`: from a config to a run directory with weights, numbers and a report. Reads from
top to bottom as a run goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsft import progress as stages
from jaxsft import remote, rundir, seal
from jaxsft.config import compose, durations, metric_names
from jaxsft.config.schema import Config
from jaxsft.data import hub, pipeline, prepared
from jaxsft.data.records import label_names
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.evaluation import evaluate as evaluation
from jaxsft.metrics import states
from jaxsft.models import surgery
from jaxsft.sharding import hosts, platforms
from jaxsft.sharding import mesh as meshes
from jaxsft.training import backbone, device, manifest, partition, pretrained, runs, setup
from jaxsft.training import export as exporting
from jaxsft.training.callbacks import Metrics, Progress, StopSignal, banner, memory_text
from jaxsft.training.checkpoint import Checkpoints, Damaged, digest, flatten
from jaxsft.training.setup import Parts
from jaxsft.training.step import State, Sums, check_unfreezing, make_hyper, objective_value


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to: its directory, the numbers of `result.json`, and how it ended."""

    run_dir: Path  # on this machine
    numbers: dict[str, float]
    stopped_by: int | None = None  # a signal, if it is unfinished
    # to the directory at a store, if it lies there: what is written into `run_dir` later must be
    # pushed
    mirror: remote.Mirror | None = None


class Diverged(JaxsftError):
    """A loss or gradient was not finite under train.on_nan=stop."""


def train(config: Config, write_more: Callable[[Path], Any] = lambda run_dir: None) -> Result:
    """Runs, or continues, one training.

    Args:
      write_more: what the first process writes into the directory of a complete run, before another
        may write there.

    Raises:
      JaxsftError: anything that the user can mend; the run directory then holds what was finished
        before.
    """
    hosts.start(config.hosts)
    platforms.devices()
    device.keep_programs(config.compilation_cache)
    device.keep_memory()
    config = setup.resolve(config)
    with hosts.collective_errors(), stages.ended():
        same = {
            k: v
            for k, v in compose.flat(compose.to_dict(config)).items()
            if not k.startswith(("hosts.", "run_dir"))
        }
        # before arrays are placed: another mesh would hang
        hosts.check_same({f"option {k}": v for k, v in same.items()})
        home = hosts.from_first_process(lambda: _home(config))
        run_dir = remote.working_copy(home, jax.process_index())
        if remote.is_remote(home):
            rundir.create(run_dir, stem="")
        if not run_dir.is_dir():
            raise ConfigError(
                f"run_dir={run_dir}: process {jax.process_index()} does not see it; it must lie"
                " where all processes do"
            )
        with (
            rundir.RunLock(run_dir)
            if hosts.first() or remote.is_remote(home)
            else contextlib.nullcontext()
        ):
            try:
                remote.pull(home, run_dir)
                if hosts.first():
                    rundir.sweep(run_dir)
                mirror = remote.Mirror(home, run_dir)
                manifest.check_config(run_dir, config)
                result = Loop(config, run_dir, mirror).run()
                if result.stopped_by is None and hosts.first():
                    write_more(run_dir)
                    mirror.push()
                return dataclasses.replace(result, mirror=mirror)
            except JaxsftError:
                # a working copy of its own, or the one that all see
                mine = hosts.first() or remote.is_remote(home)
                # refused before anything was written
                if mine and [p.name for p in run_dir.iterdir()] == [rundir.RunLock.NAME]:
                    shutil.rmtree(run_dir)
                raise


def _home(config: Config) -> str:
    """Where the run directory lies: made, if it is a local one. Raises ConfigError where the store
    cannot be reached from here.
    """
    if config.run_dir is not None and remote.is_remote(config.run_dir):
        remote.path(config.run_dir)
        return config.run_dir
    return str(rundir.create(config.run_dir, stem=config.task.name))


class Loop:
    """One training, its parts made in the order in which they are needed."""

    def __init__(self, config: Config, run_dir: Path, mirror: remote.Mirror):
        self.config, self.run_dir, self.mirror, self.began = config, run_dir, mirror, time.time()
        self.parts, self.batches, self.ledger = self._data()
        self.program, self.task = self.parts.program, self.parts.task
        train = self.batches["train"]
        clock = durations.Clock(len(train), train.examples)
        self.total = durations.steps(config.train.duration, clock, "train.duration")
        if (
            train.mix is not None
            and config.data.mixture.exhausted == "error"
            and self.total > len(train)
        ):
            raise ConfigError(
                f"train.duration={config.train.duration}: {self.total} steps, but a source of"
                f" data.mixture is used up after {len(train)}; train less, or set"
                " data.mixture.exhausted=stop|repeat"
            )
        self.clock = dataclasses.replace(clock, total=self.total)
        self.hyper = make_hyper(config, self.clock)
        check_unfreezing(self.program, self.hyper, self.total)
        self.every = {
            "log": durations.steps(config.train.log_every, self.clock, "train.log_every"),
            "checkpoint": durations.steps(config.checkpoint.every, self.clock, "checkpoint.every"),
            "evaluation": durations.steps(config.evaluation.every, self.clock, "evaluation.every"),
        }
        self.answers = self._answers()
        self._stage("making the weights")
        self._check_same()
        self.params = runs.starting_params(self.parts)
        trainable, self.frozen = partition.partition(
            self.params, self.parts.specs, config.train.freeze, config.adapter
        )
        self.state = self._place_state(trainable)
        self.spread = meshes.check_spread(
            {"state": self.state, "frozen": self.frozen},
            self.parts.mesh,
            config.mesh.allow_replicated,
        )
        self.best: dict[str, Any] = {"value": None, "step": None}
        # evaluations without improvement, and the step of the last one
        self.impatience, self.validated = 0, 0
        self.stopped_by: int | None = None  # a signal
        self.window: Any = None  # merged sums since the last log line
        self.window_skipped = 0  # steps
        self.meter = device.Meter(self.parts.mesh.devices)
        self.trace = device.Trace(config.profile, run_dir / "profile", self.total)

    def _data(self) -> tuple[Parts, dict[str, pipeline.Batches], dict[str, Any]]:
        self._stage("reading the data")
        parts, records = setup.prepare(self.config)
        self.config = parts.config  # the metric of tags hangs on what they are
        self._stage(
            f"turning {sum(len(part.records) for part in records.values()):,} rows into tokens"
        )
        self.digests = {name: setup.data_digest(part) for name, part in records.items()}
        if hosts.first():  # before too many of them may end the run
            setup.write_quarantine(
                self.run_dir / "quarantine.jsonl",
                {name: part.aside for name, part in records.items()},
            )
        leaks, lacks = (
            setup.in_training_too(records, type(parts.task)),
            setup.lacking(records, type(parts.task)),
        )
        batches, ledger, training = {}, {}, None
        for name, part in records.items():
            batches[name] = parts.batches(
                parts.split(name, part, like=training), training=name == "train"
            )
            # evaluation shares the shape of training, unless its rows are longer
            training = batches["train"].split
            ledger[name] = pipeline.ledger_entry(batches[name]) | (
                {"also_in_train": leaks[name]} if name in leaks else {}
            )
            ledger[name] |= ({"lacks": lacks[name]} if name in lacks else {}) | (
                {"notes": list(part.notes)} if part.notes else {}
            )
            # several references of a source
            ledger[name] |= {} if part.rows is None else {"rows_of_the_file": part.rows}
        return parts, batches, ledger

    def _stage(self, what: str) -> None:
        if hosts.first():
            stages.doing(what)

    def _place_state(self, trainable: Any) -> State:
        self.shardings = self.parts.state_shardings(
            jax.eval_shape(self.program.init_state, trainable)
        )
        return jax.jit(self.program.init_state, out_shardings=self.shardings)(trainable)

    def _check_same(self) -> None:
        """What all processes must have alike, or their batches would differ, or one would wait for
        a step that another does not have.
        """
        facts = {
            "config": manifest.config_hash(self.config),
            "tokenizer": self.parts.tokenizer.digest,
            "number of steps": self.total,
        }
        hosts.check_same(
            {
                **{f"split {name}": digest for name, digest in self.digests.items()},
                **facts,
                "task state": self.task.state,
            }
        )

    # --- the run
    # ----------------------------------------------------------------------------------------------
    def run(self) -> Result:
        facts = manifest.manifest(self.parts, self.digests)
        manifest.check_unchanged(self.run_dir, self.mirror.place, facts)
        if told := hosts.from_first_process(lambda: "\n".join(seal.heal(self.run_dir))):
            print(told, file=sys.stderr)
        if (done := self._complete()) is not None:
            if told:
                self._write_start(None)
            return done
        self.cached = backbone.attach(self.parts, self.params, list(self.batches.values()))
        facts = manifest.named(self.run_dir, facts)
        checkpoints = Checkpoints(self.mirror.place, run=facts.get("run"))
        start = self._resume(checkpoints)
        self._write_start(facts)
        self._stage("compiling the training step")
        compiled = self._compile()
        stages.done()
        if hosts.first():
            print(banner(self.config, self.mirror.place, self._facts(compiled, start)), flush=True)
            if self.config.mesh.show:
                print(meshes.table({"state": self.state, "frozen": self.frozen}), flush=True)
        self.session = lambda step: manifest.add_session(
            self.run_dir, self.began, start, step, self.parts.mesh
        )
        metrics, progress = (
            Metrics(self.run_dir, start, self.validated, self.config),
            Progress(self.total, start),
        )
        try:
            with StopSignal() as stop:
                # a run that stopped early, and then was killed before its results
                if not self._out_of_patience():
                    self._steps(start, compiled, checkpoints, metrics, progress, stop)
                if self.stopped_by is not None:
                    checkpoints.close()
                    self.session(int(self.state.step))
                    progress.say(
                        f"stopped at step {int(self.state.step)}; the same command with"
                        f" run_dir={self.mirror.place} continues"
                    )
                    return Result(self.run_dir, {}, self.stopped_by)
            checkpoints.wait()
            result = self._finish(checkpoints, progress)
            metrics.finish(result.numbers)
            return result
        finally:
            self.trace.close()
            progress.close()
            metrics.close()
            checkpoints.close()

    def _complete(self) -> Result | None:
        """The result of a run that has reached this very duration."""
        path = self.run_dir / "result.json"
        if (
            not path.exists()
            or compose.read(self.run_dir / "config.yaml").train.duration
            != self.config.train.duration
        ):
            return None
        if hosts.first():
            print(
                f"{self.mirror.place}: this run is complete; these are its numbers", file=sys.stderr
            )
        return Result(self.run_dir, rundir.read_json(path))

    def _write_start(self, facts: dict[str, Any] | None) -> None:
        """What the run is: written before it starts, so that a crash leaves a directory that
        explains itself. Without facts the run is complete.
        """
        hosts.sync("the run directory was read")
        if not hosts.first():
            return
        with seal.rewriting(self.run_dir, facts):
            self._write_files()
            if facts is not None:
                # of a shorter duration: the run is unfinished again
                (self.run_dir / "result.json").unlink(missing_ok=True)
        self.mirror.push()

    def _write_files(self) -> None:
        self.parts.tokenizer.save(self.run_dir / "tokenizer")
        rundir.write_json(self.run_dir / "task.json", self.task.state)
        rundir.write_json(self.run_dir / "ledger.json", self.ledger)
        if names := self.config.data.columns.label_names:
            rundir.write_json(self.run_dir / runs.LABEL_NAMES, list(label_names(names)))
        if found := prepared.around(self.config.data.train or ""):
            # what new rows must go through before they are predicted
            rundir.write_json(self.run_dir / "prepared.json", found)
        parts = runs.source_parts(self.parts) if surgery.asked(self.config.model) else self.parts
        if found := pretrained.facts(parts, lambda place: remote.opened(str(hub.run_dir(place)))):
            rundir.write_json(self.run_dir / pretrained.NAME, found)
            print(pretrained.told(found), flush=True)
        rundir.write_text(self.run_dir / seal.CONFIG, compose.to_yaml(self.config))

    def _resume(self, checkpoints: Checkpoints) -> int:
        shapes = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            jax.eval_shape(lambda: self.state),
            self.shardings,
        )
        found = checkpoints.restore_newest(shapes)
        if found is None:
            return 0
        self.state, meta = (
            found[0],
            rundir.Stored(found[1], f"{checkpoints.folder}: the meta of step {int(found[0].step)}"),
        )
        self.best, self.impatience, self.validated = (
            meta["best"],
            meta["impatience"],
            meta["validated"],
        )
        self.window, self.window_skipped = (
            _from_json(meta["window"], self._empty_sums()),
            meta["window_skipped"],
        )
        self.frozen = runs.with_fixed(self.frozen, meta, checkpoints, int(self.state.step))
        if meta["frozen"] != digest(flatten(self.frozen)):
            raise ConfigError(
                f"run_dir={self.mirror.place}: the frozen weights are not those that this run was"
                " started with"
            )
        if (start := int(self.state.step)) > self.total:
            raise ConfigError(
                f"run_dir={self.mirror.place}: has trained {start} steps already, more than"
                f" train.duration={self.config.train.duration} ({self.total} steps); give a longer"
                " one, or another run_dir="
            )
        return start

    def _empty_sums(self) -> Any:
        sums = jax.eval_shape(
            self.program.step, self.state, self.frozen, self._first_batch(), self.hyper
        )[1]
        return jax.tree.map(
            lambda s: np.zeros(s.shape, s.dtype), (sums.terms, sums.totals, sums.states)
        )

    def _compile(self) -> Any:
        """The step, compiled once before the first batch; `AOT` means that another shape is an
        error, not a recompilation.
        """
        step = jax.jit(
            self.program.step,
            donate_argnums=0,
            out_shardings=(self.shardings, meshes.replicated(self.parts.mesh)),
        )
        self.evaluate = jax.jit(
            self.program.evaluate, out_shardings=meshes.replicated(self.parts.mesh)
        )
        return step.lower(self.state, self.frozen, self._first_batch(), self.hyper).compile()

    def _model_flops(self, lengths: np.ndarray) -> float:
        return device.model_flops(
            self.config, self.task, self.parts.specs, self.program.specs, lengths
        )

    def _first_batch(self) -> pipeline.Batch:
        train = self.batches["train"]
        return self.parts.put(train[0], train)

    def _facts(self, compiled: Any, start: int) -> dict[str, Any]:
        count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
        notes = [f"resumed at step {start}"] if start else []
        notes += [
            f"{path} stays whole on every device: the mesh does not divide it"
            for path in meshes.whole(self.parts.specs, self.parts.mesh)
        ]
        notes += [
            *self.spread,
            *self.cached,
            *setup.left_out(self.config),
            *filter(None, [platforms.unused_gpu(jax.devices())]),
        ]
        if refused := exporting.refusal(
            self.parts,
            pretrained.config_of(self.config, lambda place: remote.opened(str(hub.run_dir(place)))),
        ):
            notes.append(f"jaxsft export writes no class of transformers: {refused}")
        if (used := self.parts.mesh.size) < jax.device_count():
            notes.append(
                f"{used} of {jax.device_count()} devices are used: mesh.data x mesh.fsdp must"
                " divide the rows of a micro-batch"
            )
        if (found := self.parts.vectors) is not None:
            share = len(found.rows) / max(found.words, 1)
            notes.append(
                f"{len(found.rows):,} of {found.words:,} words of the vocabulary ({share:.1%})"
                f" start from the vectors of {self.config.model.vectors}"
            )
        notes += self.ledger["train"].get("notes", [])
        if (
            tokens := self.task.state.get("score_tokens") or "13a"
        ) != "13a" and self.config.task.score_tokens == "auto":
            notes.append(
                f"BLEU and ROUGE-L count the tokens {tokens} of sacrebleu, which fit the script of"
                " the targets (task.score_tokens)"
            )
        if "validation" not in self.batches:
            notes.append("no validation data: the last weights are the result")
        generated = self.config.evaluation.generate_rows
        for name, (limit, cut) in self.answers.items():
            rows = self.batches[name].split.examples
            some = (
                f"the first {generated} rows of {name} only (evaluation.generate_rows=null: all)"
                if generated and rows > generated
                else name
            )
            unreachable = (
                f"; {cut} references are longer and count as wrong (generate.allow_cut)"
                if cut
                else ""
            )
            notes.append(f"answers of up to {limit} tokens are generated for {some}{unreachable}")
        return {
            "parameters": count(self.params),
            "trainable": count(self.state.trainable),
            "ledger": self.ledger,
            "steps": self.total,
            "steps_per_epoch": self.clock.steps_per_epoch,
            "devices": device.describe(self.parts.mesh.devices),
            "memory": memory_text(compiled),
            "flops": self._model_flops(self.batches["train"].sizes(0)),
            "peak": device.peak_flops(jax.devices()[0]),
            "notes": notes,
        }

    def _answers(self) -> dict[str, tuple[int, int]]:
        """Of each split for which answers are generated: how many tokens, and how many references
        need more. Raises ConfigError.
        """
        if not self.task.generates or self.config.evaluation.generate == "never":
            return {}
        names = [
            name for name in self.batches if name != "train" or self.config.evaluation.on_train
        ]
        return {
            name: evaluation.answer_limit(self.task, self.batches[name].split, self.config)
            for name in names
        }

    # --- the loop
    # ----------------------------------------------------------------------------------------------
    def _steps(
        self,
        start: int,
        compiled: Any,
        checkpoints: Checkpoints,
        metrics: Metrics,
        progress: Progress,
        stop: StopSignal,
    ) -> None:
        """Nothing here waits for the device but evaluation, checkpoints and the read of the step
        before.
        """
        late: tuple[Sums, np.ndarray] | None = None
        if (
            0 < start < self.total
            and start % self.every["evaluation"] == 0
            and self.validated != start
        ):
            # a signal came at this step, and waits for no evaluation
            self._validate(start, metrics, progress)
            if self._out_of_patience():
                return
        self.meter.resume()
        train, agreed = self.batches["train"], hosts.Agreement(self.parts.mesh)
        for batch in pipeline.stream(train, start, self.total):
            self.trace.before(start + 1)
            self.state, sums = compiled(
                self.state, self.frozen, self.parts.put(batch, train), self.hyper
            )
            lengths = train.sizes(start)
            start += 1
            self.trace.after(start, sums)
            if late is not None:
                self._read(*late, metrics, progress)
            stopped_by = agreed(stop.received or 0)
            late = (sums, lengths)
            ends = start == self.total or stopped_by
            evaluates = not ends and start % self.every["evaluation"] == 0
            if ends or evaluates or start % self.every["checkpoint"] == 0:
                self._read(*late, metrics, progress)
                late = None
                self.meter.pause()
                if stopped_by and start < self.total:
                    self.stopped_by = stopped_by
                    self._save(checkpoints, metrics)
                    return
                if evaluates or ends:
                    self._validate(start, metrics, progress)
                self._save(checkpoints, metrics)
                self.meter.resume()
                if self._out_of_patience():
                    progress.say(
                        f"no improvement of {self.config.evaluation.metric} for {self.impatience}"
                        " evaluations: stopped early"
                    )
                    return

    def _read(self, sums: Sums, lengths: np.ndarray, metrics: Metrics, progress: Progress) -> None:
        """The numbers of one step, read from the device after the next one was started."""
        sums = fetch(sums)
        step = int(sums.step) + 1
        self.window_skipped += int(sums.skipped)
        if sums.skipped:
            progress.say(
                f"step {step}: skipped (gradient norm {float(sums.grad_norm)}, {_show_terms(sums)})"
            )
            if self.config.train.on_nan == "stop" and not (
                np.isfinite(sums.grad_norm) and all(np.isfinite(v) for v in sums.terms.values())
            ):
                raise Diverged(
                    f"step {step}: the gradient is not finite (norm {float(sums.grad_norm)},"
                    f" {_show_terms(sums)}); the newest checkpoint is from before it; lower"
                    " optim.learning_rate, or set train.on_nan=skip"
                )
        self.window = states.merge(
            self.window, states.widen((sums.terms, sums.totals, sums.states))
        )
        self.meter.add(int(lengths.sum()), self._model_flops(lengths))
        if step % self.every["log"] == 0 or step == self.total:
            terms, totals, merged = self.window
            values = {"loss": objective_value(terms, totals, self.hyper["terms"])}
            for state in merged.values():
                values |= state.brief()
            values |= {
                "learning_rate": float(sums.learning_rate),
                **self._group_rates(float(sums.learning_rate)),
                "grad_norm": float(sums.grad_norm),
                "skipped": self.window_skipped,
            }
            values |= self.meter.read()
            metrics.write(step, "train", values)
            progress.update(step, values)
            self.window, self.window_skipped = None, 0

    def _group_rates(self, rate: float) -> dict[str, float]:
        """The rate of each group by its pattern, of whose signs only words are left: trackers take
        no others.
        """
        return {
            f"learning_rate_{'_'.join(re.findall(r'[A-Za-z0-9]+', g.pattern))}": rate * g.factor
            for g in self.config.optim.lr_groups
        }

    def _validate(self, step: int, metrics: Metrics, progress: Progress) -> None:
        if "validation" not in self.batches:
            return
        self.validated = step
        always = self.config.evaluation.generate == "always"
        result = self._evaluate("validation", self.program.weights(self.state), generate=always)
        metrics.write(step, "validation", result.numbers)
        name = self.config.evaluation.metric.partition("/")[2]
        progress.say(f"step {step:,}: validation {metric_names.brief(result.numbers, name)}")
        value, sign = result.numbers[name], self.task.sign(name)
        if math.isfinite(value) and (
            self.best["value"] is None or sign * value > sign * self.best["value"]
        ):
            self.best, self.impatience = {"value": value, "step": step}, 0
        else:
            self.impatience += 1

    def _out_of_patience(self) -> bool:
        patience = self.config.evaluation.patience
        return patience is not None and self.impatience >= patience

    def _save(self, checkpoints: Checkpoints, metrics: Metrics) -> None:
        metrics.sync()  # a checkpoint must not know of lines that a power cut could lose
        if hosts.first():
            self.mirror.push()
        meta = {"best": self.best, "impatience": self.impatience, "validated": self.validated}
        meta |= {
            "window": _to_json(self.window),
            "window_skipped": self.window_skipped,
            "frozen": digest(flatten(self.frozen)),
            "jaxsft": manifest.VERSION,
        }
        base = self.frozen if self.config.checkpoint.include_base else runs.fixed(self.frozen)
        checkpoints.save(int(self.state.step), self.state, meta, self.best["step"], base)

    # --- results
    # ----------------------------------------------------------------------------------------------
    def _evaluate(self, name: str, weights: Any, *, generate: bool) -> evaluation.Evaluation:
        objective = lambda terms, totals: objective_value(terms, totals, self.hyper["terms"])
        batches = (
            self.parts.batches(self.batches[name].split) if name == "train" else self.batches[name]
        )
        run = lambda batch: self.evaluate(
            weights, self.frozen, self.parts.put(batch, batches), self.hyper
        )
        result = evaluation.evaluate(run, self.task, batches, objective, tune=name == "validation")
        if not (generate and self.task.generates):
            return result
        params = partition.merge(weights, self.frozen)
        answers, numbers = evaluation.answer(
            self.task, self.parts.model, params, batches.split, self.config, self.parts.mesh
        )
        return evaluation.Evaluation(result.numbers | numbers, result.columns, answers)

    def _finish(self, checkpoints: Checkpoints, progress: Progress) -> Result:
        """Evaluates the best weights on every split and writes the results; `result.json` comes
        last: it says that the run is complete.
        """
        last, skipped = int(self.state.step), int(self.state.skipped)
        if self.best["step"] is not None and self.best["step"] != last:
            shapes = jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                jax.eval_shape(lambda: self.state),
                self.shardings,
            )
            try:
                self.state = checkpoints.restore(self.best["step"], shapes)[0]
            except Damaged as error:
                moved = checkpoints.set_aside(self.best["step"])
                checkpoints.forget_best(last)
                progress.say(
                    f"{error}{f'; moved to {moved}' if moved else ''}: the last weights are the"
                    " result, not the best ones"
                )
        elif self.best["step"] is None and "validation" in self.batches:
            name = self.config.evaluation.metric
            progress.say(
                f"evaluation.metric={name} was no finite number in any evaluation: the last weights"
                " are the result; choose another one"
            )
        numbers = {
            "train/steps": last,
            "train/skipped_steps": skipped,
            "train/best_step": int(self.state.step),
        }
        names = [n for n in self.batches if n != "train"] + (
            ["train"] if self.config.evaluation.on_train else []
        )
        for name in names:
            result = self._evaluate(
                name,
                self.program.weights(self.state),
                generate=self.config.evaluation.generate != "never",
            )
            numbers |= {f"{name}/{k}": v for k, v in result.numbers.items()}
            if hosts.first():
                evaluation.write_results(self.run_dir, self.task, self.batches[name].split, result)
        self.session(last)
        if hosts.first():
            with seal.rewriting(self.run_dir):
                # with what was tuned on the validation split
                rundir.write_json(self.run_dir / "task.json", self.task.state)
            rundir.write_json(self.run_dir / "result.json", numbers)
            self.mirror.push()
        hosts.sync("results are written")
        return Result(self.run_dir, numbers)


def fetch(tree: Any) -> Any:
    """The one place where the loop reads from the device."""
    return jax.device_get(tree)


def _show_terms(sums: Sums) -> str:
    return ", ".join(
        f"{k} {float(v) / max(float(sums.totals[k]), 1e-30):.4g}" for k, v in sums.terms.items()
    )


def _to_json(window: Any) -> list | None:
    return None if window is None else [np.asarray(x).tolist() for x in jax.tree.leaves(window)]


def _from_json(values: list | None, like: Any) -> Any:
    if values is None:
        return None
    leaves = [
        np.asarray(v, np.int64 if x.dtype.kind == "i" else np.float64)
        for v, x in zip(values, jax.tree.leaves(like), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def exit_code(result: Result) -> int:
    """0, or what a shell expects of a program that a signal stopped."""
    return 0 if result.stopped_by is None else 128 + int(result.stopped_by or signal.SIGINT)
