"""`cross_validate(config)`: from a config to a run directory with the scores of rows that were held
out, fold by fold.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsft import progress as stages
from jaxsft import rundir, seal, tasks
from jaxsft.config import compose
from jaxsft.config.schema import Config
from jaxsft.data import fold_rows, folds, split_notes
from jaxsft.data.folds import FoldUnits
from jaxsft.errors import ConfigError
from jaxsft.evaluation import bounds, crossval, gaps, learning_curve, measured
from jaxsft.evaluation.crossval import BoundOptions, FoldScores
from jaxsft.metrics import by_name
from jaxsft.sharding import hosts, platforms
from jaxsft.training import device, manifest, recorder, setup
from jaxsft.training.callbacks import StopSignal
from jaxsft.training.fold_jobs import FoldJobs, Job, Trained, with_seeds
from jaxsft.training.fold_session import FoldSession, Stopped
from jaxsft.training.recorder import Recorder, Result
from jaxsft.training.session import check_shared

INNER = 1 << 16  # inner folds are drawn by other seeds than outer ones


def cross_validate(config: Config) -> Result:
    """Trains once for each fold, or goes on with the folds that are not finished.

    Raises:
      JaxsftError: anything that the user can mend.
    """
    hosts.start(config.hosts)
    platforms.devices()
    device.keep_programs(config.compilation_cache)
    device.keep_memory()
    _refuse(config)
    asked, config = config, setup.resolve(config)
    with stages.ended(), recorder.opened(config, asked) as (records, config):
        result = _validated(config, records)
        records.mirror.push()
        return dataclasses.replace(result, mirror=records.mirror)


def _refuse(config: Config) -> None:
    """Raises ConfigError for what a cross-validation cannot do, or would not read."""
    if jax.process_count() > 1:
        raise ConfigError("crossval: runs in one process; start it without hosts.count")
    if config.train.backbone == "cached":
        raise ConfigError(
            "train.backbone=cached: crossval trains each fold from the texts; leave it out"
        )
    if config.distil.teacher is not None:
        raise ConfigError(
            f"distil.teacher={config.distil.teacher}: crossval does not read it; leave it out"
        )
    bounds.check(config.crossval.level, config.crossval.replicates)
    unread = {
        "evaluation.slices": config.evaluation.slices,
        "evaluation.dynamics": config.evaluation.dynamics,
        "data.columns.cluster": config.data.columns.cluster,
    }
    if given := next((name for name, value in unread.items() if value), None):
        instead = "; crossval.groups keeps rows together" if given.endswith("cluster") else ""
        raise ConfigError(f"{given}: crossval does not read it; leave it out{instead}")
    early = {"evaluation.patience": config.evaluation.patience, "train.until": config.train.until}
    for name, value in early.items():
        if value is not None:
            raise ConfigError(
                f"{name}={value}: a fold has no validation split, and trains to the end of"
                " train.duration; leave the option out"
            )


def _refuse_answers(config: Config) -> None:
    """Raises ConfigError for a metric of generated answers: a fold generates none."""
    spec, number = config.task.spec, config.evaluation.metric.partition("/")[2]
    if further := measured.asked(config, of_answers=True):
        raise ConfigError(
            f"evaluation.metrics=[{further[0]}]: crossval generates no answers; leave it out"
        )
    own = {name for metric in spec.measures for name in by_name.take(metric).names}
    answers = {name for metric in spec.answer_measures for name in by_name.take(metric).names}
    if number in answers - own:
        raise ConfigError(
            f"evaluation.metric=validation/{number}: crossval generates no answers; choose by"
            " validation/loss"
        )


@dataclasses.dataclass(frozen=True)
class Fold:
    """An outer fold: its training, and the trainings that go with it.

    Attributes:
      job: with the options of the session.
      inner: by candidate, its trainings in the inner folds.
      sizes: trainings on a part of the training rows.
    """

    repeat: int
    fold: int
    job: Job
    inner: tuple[tuple[Job, ...], ...] = ()
    sizes: tuple[Job, ...] = ()

    def chosen(self, config: Config) -> Fold:
        """Returns the fold with the options of a candidate."""
        own = with_seeds(config, self.repeat)
        job = self.job._replace(config=own)
        return dataclasses.replace(
            self, job=job, sizes=tuple(one._replace(config=own) for one in self.sizes)
        )


class Plan:
    """All trainings of a cross-validation, known before the first one."""

    def __init__(self, session: FoldSession, groups: Sequence[str] | None):
        """Divides the rows. Raises ConfigError where there are too few."""
        config, task = session.config, session.task
        self.config, self.rows = config, session.rows
        records = session.records.records
        self.labels = folds.fold_labels(records, task)
        texts = [task.text_key(record) for record in records]
        self.units: FoldUnits = folds.fold_units(texts, self.labels, groups)
        self.candidates = [_candidate(config, text) for text in config.crossval.choose]
        self.folds = [fold for r in range(config.crossval.repeats) for fold in self._repeat(r)]

    def _repeat(self, repeat: int) -> Iterator[Fold]:
        options, rows = self.config.crossval, self.rows
        seed, config = self.config.data.split_seed + repeat, with_seeds(self.config, repeat)
        of_row = folds.assigned(self.units, rows, options.folds, seed)
        for k in range(options.folds):
            name, train, held = f"repeat{repeat}-fold{k}", rows[of_row != k], rows[of_row == k]
            inner = []
            if self.candidates:
                of_inner = folds.assigned(self.units, train, options.nested, seed + INNER)
                parts = [
                    (train[of_inner != i], train[of_inner == i]) for i in range(options.nested)
                ]
                inner = [
                    tuple(
                        Job(f"{name}-choice{c}-inner{i}", with_seeds(own, repeat), *part)
                        for i, part in enumerate(parts)
                    )
                    for c, own in enumerate(self.candidates)
                ]
            sizes = []
            for fraction in sorted({f for f in options.fractions if f < 1}):
                part = folds.subset(self.units, train, fraction, seed)
                sizes.append(Job(f"{name}-size{fraction:g}", config, part, held))
            job = Job(name, config, train, held, whole=True)
            yield Fold(repeat, k, job, tuple(inner), tuple(sizes))

    def jobs(self) -> list[Job]:
        """Returns all trainings."""
        return [
            job
            for fold in self.folds
            for job in (*itertools.chain(*fold.inner), fold.job, *fold.sizes)
        ]

    def make_room(self, session: FoldSession) -> None:
        """Gives the session the shapes that all trainings share."""
        jobs = self.jobs()
        trained = [job.train for job in jobs]
        session.make_room(trained, [*(job.held for job in jobs), *trained])

    def notes(self, session: FoldSession) -> list[str]:
        """Returns what a reader of the scores should know."""
        out = list(session.records.notes)
        records, lost = session.records.records, 0
        for fold in self.folds:
            known = {
                label for row in fold.job.train for label in session.task.classes(records[row])
            }
            lost += sum(
                not set(session.task.classes(records[row])) <= known for row in fold.job.held
            )
        if lost:
            out.append(
                f"{lost:,} rows were held out with a label that no training row of their fold has"
            )
        if not any(self.labels):
            out.append("the rows have no labels: folds are even in size alone")
        if session.task.generates and self.config.evaluation.generate != "never":
            out.append("no answers are generated: folds are scored by their loss and tokens")
        if session.components.tokenizer.digest and self.config.tokenizer.kind not in (
            "bytes",
            "pretrained",
        ):
            out.append(
                f"tokenizer={self.config.tokenizer.kind}: its words are learnt of all rows, those"
                " that are held out included; they see no label"
            )
        return out


def _candidate(config: Config, text: str) -> Config:
    """Returns the config with overrides that a fold may choose. Raises ConfigError."""
    found = compose.override(config, [one.strip() for one in text.split(";")])
    try:
        check_shared(config, found)
    except ConfigError as error:
        raise ConfigError(f"crossval.choose: {text}: {error}") from error
    return found


# --- the run
# --------------------------------------------------------------------------------------------------
def _validated(config: Config, records: Recorder) -> Result:
    """Runs all trainings, and writes what they came to."""
    _refuse_answers(config)
    run_dir = records.run_dir
    given = fold_rows.read_fold_rows(config, tasks.get(config.task.name))
    records.quarantine({"train": given.records, **given.others})
    stages.doing(f"turning {len(given.records.records):,} rows into tokens")
    session = FoldSession(config, given)
    plan = Plan(session, given.groups)
    facts = manifest.manifest(session.components, session.digests)
    manifest.check_unchanged(run_dir, records.mirror.place, facts)
    if (numbers := complete(run_dir, config)) is not None:
        told = f"{records.mirror.place}: this cross-validation is complete; these are its numbers"
        print(told, file=sys.stderr)
        return Result(run_dir, numbers)
    (run_dir / "result.json").unlink(missing_ok=True)  # of another duration
    with seal.rewriting(run_dir, manifest.named(run_dir, facts)):
        session.components.tokenizer.save(run_dir / "tokenizer")
        rundir.write_json(run_dir / "task.json", session.task.state)
        rundir.write_text(run_dir / seal.CONFIG, compose.to_yaml(session.config))
    rundir.write_json(run_dir / "ledger.json", {"train": session.split.ledger})
    plan.make_room(session)
    stages.done()
    with StopSignal("keeping the folds that are finished") as signal:
        jobs = FoldJobs(session, run_dir / "folds", lambda: signal.received is not None)
        try:
            done = [_of_fold(session, jobs, fold) for fold in plan.folds]
        except Stopped:
            place = records.mirror.place
            print(
                f"stopped; the same command with run_dir={place} goes on with the folds that are"
                " not finished",
                file=sys.stderr,
            )
            return Result(run_dir, {}, signal.received)
    numbers = Written(session, plan, jobs, done).write(run_dir)
    return Result(run_dir, numbers)


def complete(run_dir: Path, config: Config) -> dict[str, Any] | None:
    """Returns the numbers of a directory whose trainings reached this very duration, else None."""
    path = run_dir / "result.json"
    if not path.exists():
        return None
    before = compose.read(run_dir / seal.CONFIG).train.duration
    return rundir.read_json(path) if before == config.train.duration else None


@dataclasses.dataclass(frozen=True)
class Done:
    """A fold that is finished.

    Attributes:
      choice: the number of the candidate that it took; None: there were none.
      candidates: of each the mean over the inner folds of the number that chooses.
      curve: its training sets and their scores, by size.
      others: the scores of the sets beside.
    """

    fold: Fold
    trained: Trained
    scores: FoldScores
    choice: int | None
    candidates: tuple[float, ...]
    curve: tuple[FoldScores, ...]
    sizes: tuple[int, ...]
    others: Mapping[str, FoldScores]


def _of_fold(session: FoldSession, jobs: FoldJobs, fold: Fold) -> Done:
    """Runs the trainings of a fold: the choice first, which does not see what is held out."""
    choice, values = None, ()
    if fold.inner:
        choice, values = _choice(session, jobs, fold)
        fold = fold.chosen(fold.inner[choice][0].config)
    trained = jobs.run(fold.job)
    scores = jobs.scores(fold.job, trained, fold.repeat, fold.fold)
    curve = tuple(jobs.scores(job, jobs.run(job), fold.repeat, fold.fold) for job in fold.sizes)
    others = {name: jobs.beside(fold.job, trained, name) for name in session.others}
    metric = session.config.evaluation.metric.partition("/")[2]
    told = f" with {session.config.crossval.choose[choice]}" if choice is not None else ""
    print(
        f"repeat {fold.repeat} fold {fold.fold}: {len(fold.job.train):,} rows trained,"
        f" {len(fold.job.held):,} held out{told}: {metric}"
        f" {scores.numbers('held_out')[metric]:.4g}",
        flush=True,
    )
    sizes = tuple(len(job.train) for job in fold.sizes)
    return Done(fold, trained, scores, choice, tuple(values), curve, sizes, others)


def _choice(session: FoldSession, jobs: FoldJobs, fold: Fold) -> tuple[int, list[float]]:
    """Returns the number of the best candidate, and the mean of each over the inner folds.

    Raises ConfigError where no candidate has a finite number.
    """
    metric = session.config.evaluation.metric.partition("/")[2]
    sign, values = session.task.sign(metric), []
    for mine in fold.inner:
        found = [jobs.scores(job, jobs.run(job)).numbers("held_out")[metric] for job in mine]
        values.append(float(np.mean(found)))
    finite = [i for i, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        raise ConfigError(
            f"evaluation.metric={metric}: is no finite number in the inner folds of"
            f" {fold.job.name}; choose another one"
        )
    return max(finite, key=lambda i: sign * values[i]), values


# --- the files
# --------------------------------------------------------------------------------------------------
class Written:
    """The results of a cross-validation, as files."""

    def __init__(
        self, session: FoldSession, plan: Plan, jobs: FoldJobs, done: Sequence[Done]
    ) -> None:
        self.session, self.plan, self.jobs, self.done = session, plan, jobs, done
        options = session.config.crossval
        self.options = BoundOptions(options.level, options.replicates, session.config.seed)
        self.scores = [one.scores for one in done]

    def write(self, run_dir: Path) -> dict[str, Any]:
        """Writes figures, predictions and `result.json`, which comes last; returns its numbers."""
        units = self.plan.units.of_row
        pooled = crossval.pooled_bounds(self.scores, units, self.options)
        means = crossval.fold_means(self.scores, self.options.level)
        table = self._gaps()
        content = {
            **self._facts(),
            "pooled": pooled,
            "mean": means,
            "folds": [self._of_fold(one) for one in self.done],
        }
        if curve := self._curve():
            content["learning_curve"] = curve
        rundir.write_json(run_dir / "figures" / "crossval.json", content)
        rundir.write_json(run_dir / "figures" / "gaps.json", table)
        intervals = {f"held_out/{name}": entry for name, entry in pooled.items()}
        for name, entry in means.items():
            about = {"method": "t of folds", "level": self.options.level, "n": len(self.plan.rows)}
            intervals[f"mean/{name}"] = entry | about
        rundir.write_json(run_dir / "intervals.json", intervals)
        self._write_predictions(run_dir)
        numbers = {f"held_out/{name}": entry["value"] for name, entry in pooled.items()}
        # a row counts in each repeat
        repeats = self.session.config.crossval.repeats
        for name in crossval.counts(self.scores[0]) & pooled.keys():
            numbers[f"held_out/{name}"] = int(pooled[name]["value"]) // repeats
        numbers |= {f"mean/{name}": entry["value"] for name, entry in means.items()}
        numbers |= {f"mean/{name}_se": e["se"] for name, e in means.items() if "se" in e}
        numbers |= {f"train/{name}": e["value"] for name, e in table["sets"]["train"].items()}
        numbers |= {"train/steps": sum(one.trained.steps for one in self.done)}
        rundir.write_json(run_dir / "result.json", numbers)
        return numbers

    def _facts(self) -> dict[str, Any]:
        options = self.session.config.crossval
        return {
            "settings": {
                "folds": options.folds,
                "repeats": options.repeats,
                "groups": options.groups,
                "choose": list(options.choose),
                "nested": options.nested if options.choose else None,
                "fractions": list(options.fractions),
                "level": options.level,
                "replicates": options.replicates,
            },
            "metric": self.session.config.evaluation.metric.partition("/")[2],
            "rows": len(self.plan.rows),
            "units": len(np.unique(self.plan.units.of_row[self.plan.rows])),
            "compiled": dict(self.session.compiled),
            "notes": [
                *self.plan.notes(self.session),
                *split_notes.left_out(self.session.config.data),
            ],
        }

    def _of_fold(self, one: Done) -> dict[str, Any]:
        units, scores = self.plan.units.of_row, one.scores
        out = {
            "repeat": scores.repeat,
            "fold": scores.fold,
            "train_rows": len(scores.rows["train"]),
            "held_out_rows": len(scores.rows["held_out"]),
            "steps": one.trained.steps,
            "loss": scores.losses,
            "numbers": crossval.fold_bounds(scores, units, self.options),
            "train": scores.numbers("train"),
        }
        if one.choice is not None:
            choose = self.session.config.crossval.choose
            out["choice"] = choose[one.choice]
            out["candidates"] = dict(zip(choose, one.candidates, strict=True))
        return out

    def _lower(self) -> list[str]:
        names = self.scores[0].numbers("held_out")
        return [name for name in names if self.session.task.sign(name) < 0]

    def _gaps(self) -> dict[str, Any]:
        others = {
            name: [one.others[name].numbers("held_out") for one in self.done]
            for name in self.session.others
        }
        return gaps.fold_gaps(self.scores, self._lower(), self.options.level, others)

    def _curve(self) -> dict[str, Any]:
        """Returns the points of the learning curve of each number, and its fit."""
        if not self.session.config.crossval.fractions:
            return {}
        points, lower = [], self._lower()
        for one in self.done:
            of_sizes = [*zip(one.sizes, one.curve, strict=True)]
            if 1 in self.session.config.crossval.fractions:
                of_sizes.append((len(one.scores.rows["train"]), one.scores))
            for rows, scores in of_sizes:
                at = {"repeat": scores.repeat, "fold": scores.fold, "rows": rows}
                points.append({**at, "numbers": scores.numbers("held_out")})
        left_out = crossval.counts(self.scores[0])
        names = [name for name in points[0]["numbers"] if name not in left_out]
        # folds differ by a row or so; a size is the mean over them
        each = len(points) // len(self.done)
        sizes = [float(np.mean([p["rows"] for p in points[i::each]])) for i in range(each)]
        rows = [sizes[i % each] for i in range(len(points))]
        fits = {
            name: learning_curve.power_law(
                rows, [p["numbers"][name] for p in points], name in lower, self.options
            )
            for name in names
        }
        return {"points": points, "fits": fits}

    def _write_predictions(self, run_dir: Path) -> None:
        """Writes `predictions/oof.jsonl`: each row by the model that did not train on it."""
        lines = []
        for one in self.done:
            job, split = one.fold.job, self.session.split
            own = {k: x for k, x in one.trained.columns.items() if "/" not in k}
            held = set(job.held.tolist())
            for line in self.jobs.task(job, one.trained).predictions(split, own, None):
                if line["row"] in held:
                    at = {"repeat": one.fold.repeat, "fold": one.fold.fold}
                    lines.append({**line, **at, "where": split.where[line["row"]]})
        lines.sort(key=lambda line: (line["repeat"], line["row"]))
        with rundir.atomic_lines(run_dir / "predictions" / "oof.jsonl") as file:
            for line in lines:
                file.write(rundir.json_text(line) + "\n")
