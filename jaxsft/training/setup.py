"""Everything that a run is made of, from its config: rows, tokenizer, task, batches, model, mesh,
parameters. From top to bottom, as it happens.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxsft import remote, rundir, tasks
from jaxsft.config import compose, pretrained_defaults, validate_backbone
from jaxsft.config.optim import Group, OptimConfig
from jaxsft.config.schema import (
    BpeTokenizer,
    CharTokenizer,
    Config,
    ModelConfig,
    PretrainedTokenizer,
    TrainConfig,
    UnigramTokenizer,
    WordPieceTokenizer,
    WordTokenizer,
)
from jaxsft.config.validate import validate, validate_values
from jaxsft.data import formats, hub, pipeline, prepared, row_weights, vectors, verdicts
from jaxsft.data import records as typed
from jaxsft.data import split_rule as split
from jaxsft.data.chat import named_templates
from jaxsft.data.ledger import Aside
from jaxsft.data.pipeline import Batch, Batches, Split
from jaxsft.data.tokenizers import learn
from jaxsft.data.tokenizers.tokenizer import SPECIAL, Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.hf import read as pretrained
from jaxsft.metrics import text_overlap as text_scores
from jaxsft.models import registry, surgery
from jaxsft.models.encoder_decoder import encoder_of
from jaxsft.models.transformer import Params, Transformer
from jaxsft.optim.optimizers import match_params
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import weights
from jaxsft.tasks.base import Task
from jaxsft.training import partition, pretrained_conflicts
from jaxsft.training import pretrained as hf
from jaxsft.training import split_labels as labels
from jaxsft.training.step import Program, State


class Records(NamedTuple):
    """The records of a split, `file:line` of each, and the rows that gave none."""

    records: list[Any]
    where: list[str]
    aside: Sequence[Aside] = ()
    rows: int | None = None  # of the file, where the task made another number of records of them
    # of a mixture: by `file:line`, the number of the source
    source: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()  # what a reader of the run should know of these rows


# --- config
# --------------------------------------------------------------------------------------------------
def resolve(config: Config) -> Config:
    """The config that runs: checked, and every `auto` that does not depend on the data replaced by
    what it stands for. Raises ConfigError.
    """
    config, brought = with_template_tokens(config)
    if config.model.pretrained:
        config = like_pretrained(config)
    if brought and hasattr(config.adapter, "train"):
        config = _with_trained_rows(config)
    if getattr(config.task, "scores", ()) is None:
        config = dataclasses.replace(
            config, task=dataclasses.replace(config.task, scores=text_scores.installed())
        )
    task = tasks.get(config.task.name)
    check_columns(config, task.record)
    config = of_prepared(config, typed.columns_read(task.record))
    validate_values(compose.flat(compose.to_dict(config)))
    config = config if config.model.pretrained else hf.with_head_of_family(config)
    if config.data.format != "auto":
        formats.named(config.data.format)
    config = dataclasses.replace(
        config, mesh=meshes.resolve(config.mesh, config.train.batch_size // config.train.accumulate)
    )
    validate(
        config,
        metrics=task.metric_names(config),
        causal=task.causal,
        generates=task.generates,
        can_generate=task.can_generate,
    )
    metric = (
        config.evaluation.metric
        if config.evaluation.metric != "auto" or task.metric is None
        else f"validation/{task.metric}"
    )
    return dataclasses.replace(
        config,
        precision="bf16" if config.precision == "auto" else config.precision,
        evaluation=dataclasses.replace(
            config.evaluation,
            metric=metric,
            batch_size=config.evaluation.batch_size or config.train.batch_size,
        ),
        optim=_with_ratio(config),
        train=_with_frozen(config.train),
        seeds=dataclasses.replace(
            config.seeds,
            **{k: config.seed for k, v in dataclasses.asdict(config.seeds).items() if v is None},
        ),
    )


def with_template_tokens(config: Config) -> tuple[Config, bool]:
    """The config with the special tokens that the named chat template writes and the tokenizer
    lacks as `tokenizer.added`; and whether there are.
    """
    name = config.task.template if config.task.name == "chat" else "auto"
    if not named_templates.lacking(name, ()):
        return config, False
    source = config.model.pretrained or getattr(config.tokenizer, "path", None)
    known = {*(tokenizer_at(source).added if source else SPECIAL), *config.tokenizer.added}
    missing = named_templates.lacking(name, known)
    added = (*config.tokenizer.added, *missing)
    return (
        (
            dataclasses.replace(
                config, tokenizer=dataclasses.replace(config.tokenizer, added=added)
            ),
            True,
        )
        if missing
        else (config, False)
    )


def _with_trained_rows(config: Config) -> Config:
    """The config whose adapter trains the rows of added tokens too, and no others: a token without
    a meaning would stay one.
    """
    rows = ["embed/tokens/.*", *([] if config.model.tied else ["head/.*"])]
    # a tuple: a model with an adapter is hashed
    train = (*config.adapter.train, *(one for one in rows if one not in config.adapter.train))
    adapter = dataclasses.replace(config.adapter, train=train)
    given = any(pattern.startswith("embed") for pattern in config.adapter.train)
    return dataclasses.replace(
        config,
        adapter=adapter,
        model=config.model if given else dataclasses.replace(config.model, train_rows="added"),
    )


def _with_ratio(config: Config) -> OptimConfig:
    """The optimizer with the group that `adapter.lr_ratio` stands for; groups that were given come
    first.
    """
    ratio, groups = getattr(config.adapter, "lr_ratio", 1.0), tuple(config.optim.lr_groups)
    group = Group("adapters/.*/b", ratio)
    return (
        config.optim
        if ratio == 1 or group in groups
        else dataclasses.replace(config.optim, lr_groups=(*groups, group))
    )


def _with_frozen(train: TrainConfig) -> TrainConfig:
    """A cached backbone is a frozen one, to all that opens the run later."""
    return (
        train
        if train.backbone == "trained"
        else dataclasses.replace(train, freeze=validate_backbone.frozen(train.freeze))
    )


def like_pretrained(config: Config) -> Config:
    """The architecture, changed as `models/surgery.py` says, and the tokenizer of what
    `model.pretrained` names; `hf.USERS` stay the user's. Raises ConfigError where others were given
    (`asked.check`).
    """
    plain, source = of_source(config)
    found = dataclasses.replace(plain, model=surgery.resized(plain.model))
    pretrained_conflicts.check(config, hf.USERS, source, found)
    if config.model.init != "scratch":
        found = pretrained_defaults.apply(found, _trained_with(found))
    return dataclasses.replace(found, unasked=())


def _trained_with(config: Config) -> pretrained_defaults.Source:
    """Returns the kind and width of the started model, and how `model.pretrained` was
    regularised."""
    m = config.model
    kind = "encoder-decoder" if m.decoder_layers else "decoder" if m.causal else "encoder"
    if (folder := hf.folder_of(config)) is not None:
        values = pretrained.open_source(folder, m.part).values
        return pretrained_defaults.Source(kind, m.embed, pretrained_defaults.dropout_of(values))
    run = compose.read(remote.opened(str(hub.run_dir(m.pretrained))) / "config.yaml")
    return pretrained_defaults.Source(kind, m.embed, run.model.dropout, run.loss.label_smoothing)


def of_source(config: Config) -> tuple[Config, ModelConfig]:
    """The config with the architecture as it is used, and with the tokenizer, of what
    `model.pretrained` names; and that architecture as it is.
    """
    source = config.model.pretrained
    if (folder := hf.folder_of(config)) is not None:
        whole = pretrained.open_source(folder, config.model.part).model(config.model.context)
        return hf.like(config, folder, tokenizer_at(source)), whole
    found = compose.read(remote.opened(str(hub.run_dir(source))) / "config.yaml").model
    own = hf.own_options(config) | ({} if found.decoder_layers else {"causal": config.model.causal})
    if config.model.part == "encoder":
        if not found.decoder_layers and found.part != "encoder":
            raise ConfigError(
                f"model.part=encoder: model.pretrained={source} has no decoder beside an encoder;"
                " leave the option out"
            )
        found = encoder_of(found)
    tokenizer = PretrainedTokenizer(path=source, added=config.tokenizer.added)
    return (
        dataclasses.replace(
            config,
            model=hf.longer(config.model, dataclasses.replace(found, **own)),
            tokenizer=tokenizer,
        ),
        found,
    )


def check_columns(config: Config, record: Any) -> None:
    """Raises ConfigError where an option of data.columns is given that the parser of the task's
    records never reads.
    """
    read = typed.columns_read(record)
    unread = (
        []
        if read is None
        else [name for name in prepared.told(config.data.columns) if name not in read]
    )
    if unread:
        raise ConfigError(
            f"data.columns.{unread[0]}: task={config.task.name} never reads it; it reads"
            f" {', '.join(sorted(read))}"
        )


def of_prepared(config: Config, read: Sequence[str] | None = None) -> Config:
    """`data.path` of a prepared set stands for its splits; columns that are not given are those of
    the preparation, of which the task must `read` them.
    """
    d = config.data
    if not d.path or (found := prepared.manifest(d.path)) is None:
        return config
    if given := [name for name in prepared.SPLITS if getattr(d, name)]:
        raise ConfigError(
            f"data.path={d.path} is a prepared set with its own splits and excludes"
            f" data.{', data.'.join(given)}"
        )
    d = dataclasses.replace(
        d,
        columns=prepared.columns(found, d.columns, read),
        path=None,
        **prepared.paths(d.path, found),
    )
    return dataclasses.replace(config, data=d)


# --- data
# --------------------------------------------------------------------------------------------------
def read_rows(
    config: Config, path: str, columns: Sequence[str], aside: list[Aside], split: str = ""
) -> list[formats.Row]:
    """All rows of what a path means; `columns` are those that the task reads, `split` says whose
    options (`formats.options_of`). Unreadable ones go into `aside`, or are a DataError
    (`data.on_bad_row`).
    """
    d = config.data
    put = lambda bad: aside.append(
        Aside(bad.file, bad.line, "unreadable", f"{bad.where}: {bad.reason}", bad.fields)
    )
    return formats.read(
        path,
        format=d.format,
        header=d.header,
        encoding=d.encoding,
        unit=d.unit,
        columns=columns,
        options=formats.options_of(d.options, split),
        quarantine=put if d.on_bad_row == "quarantine" else None,
    )


def left_out(config: Config) -> list[str]:
    """A sentence for each folder or archive of data of which files are not read, as they describe
    the data; and for scores without their library.
    """
    d, out = config.data, []
    if hasattr(config.task, "scores") and (
        missing := [
            name for name in text_scores.left_out() if name not in (config.task.scores or ())
        ]
    ):
        out.append(
            f"{', '.join(missing)} are left out: they need sacrebleu, which jaxsft[text] brings"
        )
    for path in dict.fromkeys(
        path
        for path in (
            d.path,
            d.train,
            d.validation,
            d.test,
            *(one.path for one in d.mixture.sources),
        )
        if path
    ):
        out += formats.left_out_note(path, d.format)
    return out


def read_records(
    config: Config, path: str, task: type[Task], aside: list[Aside], split: str
) -> tuple[list[formats.Row], list[Any]]:
    """The rows of a split's file that give a record, and their records: every row is checked.
    Raises DataError.
    """
    training = split == "train"
    rows = usable(
        config,
        read_rows(config, path, wanted(config, task, training), aside, split),
        task,
        aside,
        split,
    )
    return records_of(config, rows, task, aside, training)


def wanted(config: Config, task: Any, training: bool) -> list[str]:
    """The columns that a task (or a `records.Kind`) reads of a file; the weight of a row is read
    where it trains.
    """
    columns = config.data.columns
    return [
        *task.inputs(columns),
        *task.outputs(columns),
        *(row_weights.wanted(columns) if training else ()),
    ]


def usable(
    config: Config, rows: Sequence[formats.Row], task: Any, aside: list[Aside], split: str = ""
) -> Sequence[formats.Row]:
    """The rows that the columns beside them, and `data.keep`, let be used (`verdicts.used`); the
    others go into `aside`. `task`: that, or its `records.Kind`. Raises DataError.
    """
    if not rows:
        return rows
    columns = task.infer_columns(rows[0], config.data.columns)
    return verdicts.used(rows, columns, config.data.keep, split, aside, config.task.name)


def records_of(
    config: Config,
    rows: Sequence[formats.Row],
    task: type[Task],
    aside: list[Aside],
    training: bool = False,
) -> tuple[list[formats.Row], list[Any]]:
    """The rows that give a record, and their records, with their weights where they are `training`
    rows; the others go into `aside`, or are a DataError (`data.on_bad_row`).
    """
    if not rows:
        raise DataError(
            "there are no rows"
            + (
                f"; {len(aside)} were put aside, the first because {aside[0].message}"
                if aside
                else ""
            )
        )
    columns = typed.settled_columns(task, rows, config)
    record = (
        (lambda row, columns: row_weights.weighted(task.record(row, columns), row, columns))
        if training
        else task.record
    )
    return typed.parse_rows(rows, record, columns, aside, config.data.on_bad_row)


def read_splits(config: Config, task: type[Task]) -> dict[str, Records]:
    """train, and validation and test where there are any. Of one file that is split, what was put
    aside counts as training rows.
    """
    d, out = config.data, {}
    if d.path:
        aside: list[Aside] = []
        rows = usable(
            config,
            read_rows(config, d.path, wanted(config, task, training=True), aside),
            task,
            aside,
        )
        rows, records = records_of(config, rows, task, aside)
        _some(records, aside, d.path)
        parts, moved = split.split_file(rows, records, task, d.fractions, d.split_seed)
        for name, (those, found) in zip(prepared.SPLITS, parts, strict=True):
            if those:
                out[name] = Records(
                    found, [row.where for row in those], aside if name == "train" else ()
                )
        if "train" not in out:
            raise ConfigError(
                f"data.fractions={list(d.fractions)}: no row of {d.path} is left for training"
            )
        record_of = {id(row): record for row, record in zip(*parts[0], strict=True)}
        # the weight of a row is read where it trains
        weighted = lambda row, columns: row_weights.weighted(record_of[id(row)], row, columns)
        rows, records = typed.parse_rows(parts[0][0], weighted, d.columns, aside, d.on_bad_row)
        notes = (
            (f"{moved:,} rows are in train, which would lack a label of theirs by the split alone",)
            if moved
            else ()
        )
        out["train"] = Records(records, [row.where for row in rows], aside, notes=notes)
    else:
        if d.train:
            prepared.check_alike(
                {name: file for name in prepared.SPLITS if (file := getattr(d, name))}
            )
        else:
            out["train"] = read_mixture(config, task)
        for name in prepared.SPLITS:
            if file := getattr(d, name):
                aside = []
                rows, records = read_records(config, file, task, aside, name)
                _some(records, aside, file)
                out[name] = Records(records, [row.where for row in rows], aside)
    if d.unseen_labels == "drop":
        known = {label for record in out["train"].records for label in task.classes(record)}
        out = {
            name: part if name == "train" else labels.seen(part, task, known)
            for name, part in out.items()
        }
    return {
        name: arranged(task, part, d.columns, training=name == "train")
        for name, part in out.items()
    }


def _some(records: Sequence[Any], aside: Sequence[Aside], file: str) -> None:
    """Raises DataError where no row is left, with what the first was put aside for."""
    if not records:
        raise DataError(
            f"{aside[0].message} (none of the {len(aside)} rows of {file} gives a record)"
        )


def read_mixture(config: Config, task: type[Task]) -> Records:
    """The training rows of `data.mixture.sources`, one source after another. Raises DataError where
    one has no row, or a row is in two of them.
    """
    records: list[Any] = []
    aside: list[Aside] = []
    source: dict[str, int] = {}
    for number, one in enumerate(config.data.mixture.sources):
        prepared.check_raw(one.path)
        rows, found = read_records(config, one.path, task, aside, "train")
        if not found:
            raise DataError(f"data.mixture: no row of {one.path} gives a record")
        if twice := [row.where for row in rows if row.where in source]:
            raise DataError(
                f"{twice[0]}: is in two sources of data.mixture; give each of them its own files"
            )
        source |= {row.where: number for row in rows}
        records += found
    return Records(records, list(source), aside, source=source)


def arranged(task: type[Task], part: Records, columns: Any, training: bool) -> Records:
    """The records as the model meets them (`Task.arrange`)."""
    records, where = task.arrange(part.records, part.where, columns, training)
    return part._replace(
        records=records,
        where=where,
        rows=None if len(records) == len(part.records) else len(part.records),
    )


def write_quarantine(path: str | Path, aside: Mapping[str, Sequence[Aside]]) -> None:
    """A line for every row that was put aside, with split, file, line, reason and message. No file
    where there is none.
    """
    told = lambda bad: {k: v for k, v in dataclasses.asdict(bad).items() if k != "declared"}
    lines = [
        rundir.json_text({"split": name, **told(bad)})
        for name, part in aside.items()
        for bad in part
    ]
    if lines:
        rundir.write_text(path, "\n".join(lines) + "\n")
    else:
        Path(path).unlink(missing_ok=True)


def in_training_too(records: dict[str, Records], task: type[Task]) -> dict[str, int]:
    """How many rows of each other split have a text (`Task.text_key`) of the training split."""
    training = set(map(task.text_key, records["train"].records))
    return {
        name: sum(task.text_key(r) in training for r in part.records)
        for name, part in records.items()
        if name != "train"
    }


def lacking(records: Mapping[str, Records], task: type[Task]) -> dict[str, list[str]]:
    """By split, the labels that other splits have and this one has not. Splits without any are left
    out.
    """
    labels = {
        name: {task.stratum(r) for r in part.records} - {""} for name, part in records.items()
    }
    everywhere = set().union(*labels.values())
    return {name: sorted(everywhere - own) for name, own in labels.items() if everywhere - own}


def make_tokenizer(config: Config, task: type[Task], training: Sequence[Any]) -> Tokenizer:
    """The tokenizer that the config names; what is learnt is learnt from the training split
    only."""
    t, texts = config.tokenizer, (text for record in training for text in task.texts(record))
    match t:
        case PretrainedTokenizer():
            found = tokenizer_at(t.path)
        case BpeTokenizer():
            found = Tokenizer.train(texts, t.vocab_size, t.lowercase)
        case CharTokenizer():
            found = learn.characters(texts, t.min_count, t.lowercase)
        case WordTokenizer():
            found = learn.words(texts, t.min_count, t.vocab_size, t.lowercase, t.segment)
        case WordPieceTokenizer():
            found = learn.wordpiece(texts, t.vocab_size, t.lowercase)
        case UnigramTokenizer():
            found = learn.unigram(texts, t.vocab_size, t.lowercase)
        case _:
            found = Tokenizer.bytes()
    return found.with_added(t.added) if t.added else found


def tokenizer_at(place: str) -> Tokenizer:
    """Of a folder, a run directory or a name of the hub. Raises ConfigError."""
    folder = remote.opened(str(hub.tokenizer_dir(place)))
    return Tokenizer.load(
        folder / "tokenizer" if (folder / "tokenizer" / "tokenizer.json").is_file() else folder
    )


def data_digest(records: Records) -> str:
    hashed = hashlib.sha256()
    for record in records.records:
        hashed.update(repr(record).encode("utf-8", "surrogatepass") + b"\0")
        if (weight := getattr(record, "weight", 1.0)) != 1:
            hashed.update(f"weight {weight!r}\0".encode())
    return hashed.hexdigest()


# --- the run's parts
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Parts:
    """A model that can evaluate and generate: what `eval`, `predict` and `generate` need, and
    training too.
    """

    config: Config
    tokenizer: Tokenizer
    task: Task
    model: Transformer
    specs: Any  # of all weights
    mesh: jax.sharding.Mesh

    @functools.cached_property
    def program(self) -> Program:
        return Program(
            self.config,
            self.task,
            self.model,
            partition.partition(
                self.specs, self.specs, self.config.train.freeze, self.config.adapter
            )[0],
        )

    @functools.cached_property
    def vectors(self) -> vectors.VectorRows | None:
        """What `model.vectors` has for the rows of the embedding."""
        return (
            None
            if self.config.model.vectors is None
            else vectors.rows_of(self.config.model.vectors, self.tokenizer.words())
        )

    def init_params(self) -> Params:
        """Fresh parameters from `seeds.init`, placed on the mesh from the start."""
        init = lambda key: nn.meta.unbox(self.model.init(key))
        return jax.jit(init, out_shardings=meshes.shardings(self.specs, self.mesh))(
            jax.random.key(self.config.seeds.init)
        )

    @property
    def room(self) -> int:
        """The longest text: a learned table of positions has rows for virtual tokens too. Raises
        ConfigError.
        """
        c, longest = self.config.model, self.config.data.max_length
        room = c.context - (
            getattr(self.model, "position_offset", 0) if c.positions == "learned" else 0
        )
        if room < 1 or (longest != "auto" and longest > room):
            raise ConfigError(
                f"data.max_length={longest}: adapter.tokens={self.model.position_offset} leaves"
                f" {room} of"
                f" model.context={c.context} learned positions to a text"
            )
        return room

    def split(self, name: str, records: Records, like: Split | None = None) -> Split:
        """The split, encoded; its rows are not shorter than those of `like`."""
        rows, where, aside, _, source, _ = Records(*records)
        least = {} if like is None else {"min_length": like.limit, "min_source": like.source_limit}
        split = pipeline.load_split(
            name, rows, where, self.task, self.config.data, self.room, aside=aside, **least
        )
        if source is None:
            return split
        return dataclasses.replace(
            split, mixed=np.array([source[where[row]] for row in split.arrays["row"]])
        )

    def batches(self, split: Split, training: bool = False) -> Batches:
        """`training` shuffles by epoch, and has its own size of batches."""
        size = self.config.train.batch_size if training else self.config.evaluation.batch_size
        seed, here = self.config.seeds.data if training else None, meshes.rows_here(self.mesh, size)
        places = getattr(self.model, "prompt_length", 0)
        return pipeline.make_batches(
            split, self.config.data, size, seed, here, self.task.corrupt, places
        )

    def put(self, batch: Batch, batches: Batches) -> Batch:
        """A batch on the devices: each process gives its rows."""
        return meshes.place_rows(batch, self.mesh, batches.batch_size)

    def state_shardings(self, state: State) -> State:
        """Where each array of the state lives: with the weight that it belongs to, else
        everywhere."""
        everywhere, specs = meshes.replicated(self.mesh), self.program.specs
        placed = meshes.shardings(specs, self.mesh)
        return State(
            everywhere,
            everywhere,
            placed,
            match_params(state.opt, specs, placed, everywhere),
            None if state.ema is None else placed,
        )


def make_parts(
    config: Config,
    tokenizer: Tokenizer,
    state: dict[str, Any],
    mesh: jax.sharding.Mesh | None = None,
    reads: Tokenizer | None = None,
) -> Parts:
    """The static parts; `state` is what the task learnt from the training data. `mesh` None: that
    of the config, on the devices that are here. `reads` is the tokenizer of the task, where it has
    more tokens than the model has rows for.
    """
    task = tasks.get(config.task.name)(config, reads or tokenizer, state)
    if config.evaluation.metric == "auto":
        task.config = config = dataclasses.replace(
            config,
            evaluation=dataclasses.replace(
                config.evaluation, metric=f"validation/{task.best_metric}"
            ),
        )
    mesh = mesh or meshes.make_mesh(config.mesh)
    rows = config.model.vocab_rows or tokenizer.vocab_size
    if tokenizer.extends:
        rows = max(rows, tokenizer.vocab_size)
    if rows < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_rows={rows}: the tokenizer has {tokenizer.vocab_size} tokens; give at"
            " least as many rows"
        )
    kind = registry.get(config.model, config.data.packing)
    options = registry.adapting(kind, config)
    model = kind(
        config.model, rows, config.precision, task.head(rows, config.precision), mesh, **options
    )
    specs = weights.specs(jax.eval_shape(model.init, jax.random.key(0)))
    return Parts(config, tokenizer, task, model, specs, mesh)


def prepare(config: Config) -> tuple[Parts, dict[str, Records]]:
    """The parts of a new run, and the records of its splits: tokenizer and labels are learnt from
    all of the training split.
    """
    kind = tasks.get(config.task.name)
    records = read_splits(config, kind)
    tokenizer = make_tokenizer(config, kind, records["train"].records)
    parts = make_parts(config, tokenizer, labels.fitted(config, kind, tokenizer, records))
    return parts, {**records, "train": labels.limit(records["train"], config.data.limit, kind)}
