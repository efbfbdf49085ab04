"""What a run is made of beside its weights: tokenizer, task, batches, model and mesh, built from a
config and the records of its splits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxsft import tasks
from jaxsft.config.schema import Config
from jaxsft.data import encoded_split, few_rows, pipeline, split_notes, splits, vectors
from jaxsft.data.chosen_tokenizer import make_tokenizer
from jaxsft.data.encoded_split import Split
from jaxsft.data.file_records import Records
from jaxsft.data.pipeline import Batch, Batches
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.metrics import text_overlap
from jaxsft.models import registry
from jaxsft.models.embedding import LEARNED
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.optim.optimizers import match_params
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import weights
from jaxsft.tasks.task import Task
from jaxsft.training import partition
from jaxsft.training.step import Program, State


@dataclasses.dataclass(frozen=True)
class _Start:
    """The function that makes fresh weights, equal for equal models: JAX knows it again, as of a
    fold or a trial, and neither traces nor compiles it twice.
    """

    model: Transformer

    def __call__(self, key: jax.Array) -> Params:
        """Returns fresh weights, in the boxes that name their axes."""
        return self.model.init(key)


def _start(model: Transformer) -> Callable[[jax.Array], Params]:
    """Returns the function that makes the fresh weights of a model; of its own where a part of the
    model, as the head of a plug-in, has no hash.
    """
    try:
        hash(model)
    except TypeError:
        return model.init
    return _Start(model)


@functools.partial(jax.jit, static_argnums=0)
def _boxed(start: Callable[[jax.Array], Params], key: jax.Array) -> Params:
    return start(key)


def _unboxed(start: Callable[[jax.Array], Params], key: jax.Array) -> Params:
    return nn.meta.unbox(start(key))


@dataclasses.dataclass(frozen=True)
class Components:
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
        """Reads the word vectors that `model.vectors` has for rows of the embedding.

        Returns None without a file.
        """
        return (
            None
            if self.config.model.vectors is None
            else vectors.rows_of(self.config.model.vectors, self.tokenizer.words())
        )

    @functools.cached_property
    def programs(self) -> dict[Any, Any]:
        """Returns the compiled programs that make weights, by what they depend on."""
        return {}

    def compiled(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns the program of a key, made where there is none yet."""
        if key not in self.programs:
            self.programs[key] = make()
        return self.programs[key]

    def with_config(self, config: Config) -> Components:
        """Returns the components with a config that differs in nothing that shapes the weights.

        Weights are made by the same compiled programs, so that another seed compiles nothing.
        """
        own = dataclasses.replace(self, config=config)
        own.__dict__["programs"] = self.programs
        return own

    def init_params(self) -> Params:
        """Initialises the parameters from `seeds.init`, placed on the mesh from the start."""
        placed = meshes.shardings(self.specs, self.mesh)
        init = jax.jit(_unboxed, static_argnums=0, out_shardings=placed)
        return init(_start(self.model), jax.random.key(self.config.seeds.init))

    @property
    def room(self) -> int:
        """Returns the number of tokens that the longest text may have.

        That is the context; a learned table of positions also holds the virtual tokens of an
        adapter, which are subtracted. Raises ConfigError where nothing is left or `data.max_length`
        is greater.
        """
        c, longest = self.config.model, self.config.data.max_length
        room = c.context - (
            getattr(self.model, "position_offset", 0) if c.positions in LEARNED else 0
        )
        if room < 1 or (longest != "auto" and longest > room):
            raise ConfigError(
                f"data.max_length={longest}: adapter.tokens={self.model.position_offset} leaves"
                f" {room} of"
                f" model.context={c.context} learned positions to a text"
            )
        return room

    def split(self, name: str, records: Records, like: Split | None = None) -> Split:
        """Encodes records as a split; its rows are not shorter than those of `like`."""
        rows, where, aside, _, source, _, beside = Records(*records)
        least = {} if like is None else {"min_length": like.limit, "min_source": like.source_limit}
        split = encoded_split.load_split(
            name, rows, where, self.task, self.config.data, self.room, aside=aside, **least
        )
        split = dataclasses.replace(split, beside=beside)
        if source is None:
            return split
        return dataclasses.replace(
            split, mixed=np.array([source[where[row]] for row in split.arrays["row"]])
        )

    def batches(
        self,
        split: Split,
        training: bool = False,
        chosen: np.ndarray | None = None,
        like: Sequence[Batches] = (),
    ) -> Batches:
        """Makes the batches of a split; `training` shuffles by epoch, with `train.batch_size`.

        `chosen` and `like` as of `pipeline.make_batches`.
        """
        size = self.config.train.batch_size if training else self.config.evaluation.batch_size
        seed, here = self.config.seeds.data if training else None, meshes.rows_here(self.mesh, size)
        places = getattr(self.model, "prompt_length", 0)
        made = pipeline.make_batches(
            split, self.config.data, size, seed, here, self.task.corrupt, places, chosen, like
        )
        meshes.check_lengths(self.mesh, made.plan.row_length, made.plan.source_length)
        return made

    def put(self, batch: Batch, batches: Batches) -> Batch:
        """Places a batch on the devices; each process gives the rows that it has read."""
        return meshes.place_rows(batch, self.mesh, batches.batch_size)

    def state_shardings(self, state: State) -> State:
        """Returns the sharding of each array of the state: that of its weight, else replicated.

        Moments and averages lie with the weight that they belong to.
        """
        everywhere, specs = meshes.replicated(self.mesh), self.program.specs
        placed = meshes.shardings(specs, self.mesh)
        return State(
            everywhere,
            everywhere,
            placed,
            match_params(state.opt, specs, placed, everywhere),
            None if state.ema is None else placed,
        )


def build_components(
    config: Config,
    tokenizer: Tokenizer,
    state: dict[str, Any],
    mesh: jax.sharding.Mesh | None = None,
    reads: Tokenizer | None = None,
) -> Components:
    """Builds the static parts of a run: tokenizer, task, model, weight specs and mesh.

    Args:
      state: what the task learnt from the training data (labels, template ...).
      mesh: None for that of the config, on the devices of this machine.
      reads: the tokenizer of the task, where it has more tokens than the model has rows for.

    Raises:
      ConfigError: `model.vocab_rows` is less than the size of the tokenizer.
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
    options = registry.adapting(kind, config.adapter, config.model.kind)
    model = kind(
        config.model, rows, config.precision, task.head(rows, config.precision), mesh, **options
    )
    specs = weights.specs(_boxed.eval_shape(_start(model), jax.random.key(0)))
    return Components(config, tokenizer, task, model, specs, mesh)


def fitted(
    config: Config, task: type[Task], tokenizer: Tokenizer, records: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what the task learns of the training split (`Task.fit`).

    With `data.unseen_labels=learn` the labels of the other splits are known too.
    """
    if config.data.unseen_labels == "learn":
        classes = {
            label
            for part in records.values()
            for record in part.records
            for label in task.classes(record)
        }
        kinds = {"labels": "label", "intents": "text"}
        more = {
            option: [name for of, name in sorted(classes) if of == kind]
            for option, kind in kinds.items()
            if hasattr(config.task, option)
        }
        given = {
            option: names for option, names in more.items() if getattr(config.task, option) is None
        }
        config = dataclasses.replace(config, task=dataclasses.replace(config.task, **given))
    return task.fit(config, tokenizer, records["train"].records, records["train"].where)


def left_out(config: Config) -> list[str]:
    """Returns a sentence for each thing that this config leaves out.

    Such are files of a folder or archive that only describe the data, and scores without their
    library.
    """
    missing = (
        [name for name in text_overlap.left_out() if name not in (config.task.scores or ())]
        if hasattr(config.task, "scores")
        else []
    )
    note = f"{', '.join(missing)} are left out: they need sacrebleu, which jaxsft[text] brings"
    return [*([note] if missing else []), *split_notes.left_out(config.data)]


def prepare(config: Config) -> tuple[Components, dict[str, Records]]:
    """Builds the parts of a new run and reads the records of its splits.

    Tokenizer and labels are learnt from all of the training split, before `data.limit` cuts it.
    """
    kind = tasks.get(config.task.name)
    records = splits.read_splits(config, kind)
    tokenizer = make_tokenizer(config.tokenizer, kind, records["train"].records)
    parts = build_components(config, tokenizer, fitted(config, kind, tokenizer, records))
    return parts, {**records, "train": few_rows.limit(records["train"], config.data.limit, kind)}
