"""Weights out of run directories: to evaluate a run, to generate with it, to start another one from
it.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft import quantised, remote, rundir, seal
from jaxsft.config import compose
from jaxsft.config.adapters import AdapterConfig, NoAdapter
from jaxsft.config.schema import Config
from jaxsft.data import hub
from jaxsft.data.chosen_tokenizer import tokenizer_at
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import peft_read, peft_saved, pretrained_folder, write
from jaxsft.models import adapters, encoder_decoder, structure, surgery
from jaxsft.models.model_base import Params
from jaxsft.sharding import mesh as meshes
from jaxsft.training import frozen_weights as held
from jaxsft.training import partition, setup, started_from, vocab_rows
from jaxsft.training import pretrained as hf
from jaxsft.training.checkpoint import (
    Checkpoints,
    Damaged,
    check_same_leaves,
    describe,
    flatten,
)
from jaxsft.training.checksums import digest
from jaxsft.training.components import Components, build_components
from jaxsft.training.init_conflicts import check_labels, check_tokenizer, fresh_weights, without

LABEL_NAMES = "label_names.json"  # a copy of the file data.columns.label_names


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished or unfinished run, opened for reading. `weights` are those that evaluation uses
    (best step, moving average).
    """

    folder: Path
    parts: Components
    weights: Params
    frozen: Params
    step: int

    @property
    def params(self) -> Params:
        return partition.merge(self.weights, self.frozen)


def open_run(
    folder: str | Path,
    change: Any = lambda config: config,
    via: Sequence[Path] = (),
    checkpoint: str | None = None,
) -> Run:
    """Reads a run's parts and weights from its directory alone.

    Args:
      change: what a command's overrides make of the run's config.
      via: the runs whose frozen weights are made from this one.
      checkpoint: the step that is opened, or `newest`; None: the best one.

    Raises:
      ConfigError: not a run directory, or a run that starts from itself.
      CheckpointError: no checkpoint; a file of the run or the step is not as it was written; or the
        frozen weights are not those that it was trained with.
    """
    place, folder = folder, remote.opened(str(folder))
    if (here := folder.resolve()) in via:
        raise ConfigError(
            f"{place}: starts from itself{' by way of another run' if len(via) > 1 else ''}, so its"
            " frozen weights cannot be made again"
        )
    compose.check_there(folder / "config.yaml")
    if (name := seal.check(folder)) is None:
        print(
            f"{place}: was written before runs had checksums of their files; they are taken as"
            " they are",
            file=sys.stderr,
        )
    config: Config = change(_with_own_files(compose.read(folder / "config.yaml"), folder))
    if not (folder / "task.json").is_file():
        raise ConfigError(
            f"{folder}: the run stopped before its first step; run the same command again"
        )
    checkpoints = Checkpoints(place, run=name)
    try:
        step = checkpoints.chosen() if checkpoint is None else _asked(checkpoints, checkpoint)
        state = rundir.Stored(rundir.read_json(folder / "task.json"), str(folder / "task.json"))
        return _read(
            folder,
            build_components(config, Tokenizer.load(folder / "tokenizer"), state),
            checkpoints,
            step,
            (*via, here),
        )
    except Damaged as error:
        raise Damaged(
            f"{error}; checkpoint=newest or checkpoint=STEP opens another step of"
            f" {checkpoints.steps()}"
        ) from error
    finally:
        checkpoints.close()


def _with_own_files(config: Config, folder: Path) -> Config:
    """Returns the config with `label_names` of the run's copy: the original may be gone."""
    if not (folder / LABEL_NAMES).is_file():
        return config
    columns = dataclasses.replace(config.data.columns, label_names=str(folder / LABEL_NAMES))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, columns=columns))


def _read(
    folder: Path, parts: Components, checkpoints: Checkpoints, step: int, via: Sequence[Path]
) -> Run:
    shapes = _shapes(parts.program.specs, parts.mesh)
    name = "trainable" if parts.config.train.ema is None else "ema"
    state, meta = checkpoints.restore(
        step, {name: shapes}, select=lambda path: path.startswith(f"{name}/")
    )
    return Run(
        folder, parts, state[name], frozen_weights(parts, meta, checkpoints, step, via), step
    )


def _asked(checkpoints: Checkpoints, asked: str) -> int:
    """Returns the step that `checkpoint=` names. Raises CheckpointError where it does not exist."""
    steps = checkpoints.steps()
    step = (
        steps[-1]
        if asked == "newest" and steps
        else int(asked)
        if asked.isdecimal() and asked.isascii()
        else None
    )
    if step not in steps:
        raise CheckpointError(
            f"checkpoint={asked}: {checkpoints.folder} has no such step; there are {steps}, or"
            " newest"
        )
    print(
        f"checkpoint={asked}: the weights of step {step} are used, whichever is the best",
        file=sys.stderr,
    )
    return step


def _shapes(specs: Any, mesh: jax.sharding.Mesh) -> Any:
    return jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        specs,
        meshes.shardings(specs, mesh),
    )


def frozen_weights(
    parts: Components, meta: dict, checkpoints: Checkpoints, step: int, via: Sequence[Path] = ()
) -> Params:
    """Returns the weights that were not trained, verified.

    They come from the checkpoint where it includes them, else are made again as they were made:
    from the seed, the other run or the folder.

    Raises:
      CheckpointError: they are not those that the run was trained with.
    """
    shapes = held.shapes(parts)
    if not jax.tree.leaves(shapes):
        return {}
    if meta["leaves"]["base"].keys() == flatten(shapes).keys():
        return checkpoints.restore(step, shapes, item="base")[0]
    frozen = held.split(parts, starting_params(parts, via))[1]
    frozen = with_fixed(frozen, meta, checkpoints, step)
    if digest(flatten(frozen)) != meta.get("frozen"):
        source = (
            parts.config.train.init_from
            or parts.config.model.pretrained
            or f"seed {parts.config.seeds.init}"
        )
        raise CheckpointError(
            f"{checkpoints.folder}/{step}: the frozen weights made from {source} are not those that"
            " this run was trained with"
        )
    return frozen


def fixed(frozen: Params) -> Params:
    """Returns the weights that an adapter made from the base and does not train; {} for none.

    They are small, and in every checkpoint, as another machine may round them otherwise.
    """
    return {adapters.NAME: frozen[adapters.NAME]} if frozen.get(adapters.NAME) else {}


def with_fixed(frozen: Params, meta: dict, checkpoints: Checkpoints, step: int) -> Params:
    """Returns the frozen weights with those of `fixed` replaced by what the checkpoint holds."""
    own = fixed(frozen)
    if not own or not meta["leaves"]["base"]:
        return frozen
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), own
    )
    return {
        **frozen,
        **checkpoints.restore(
            step, shapes, item="base", select=lambda path: path.startswith(f"{adapters.NAME}/")
        )[0],
    }


def starting_params(parts: Components, via: Sequence[Path] = (), rounded: bool = False) -> Params:
    """Returns fresh weights, or those of `train.init_from` or `model.pretrained`.

    All weights are taken, strictly, but for those of `train.init_fresh` and `model.init=reset`. An
    adapter of the other run goes on where this one has the same; otherwise it is merged into the
    weights that this one starts from, and an adapter of this run starts anew from them.

    Args:
      via: as of `open_run`.
      rounded: as of `hf.starting`.

    Raises:
      ConfigError: the other run has another tokenizer, or an adapter that cannot be merged.
      CheckpointError: a weight is missing, additional or of another shape.
    """
    config = parts.config
    option, source = (
        ("train.init_from", config.train.init_from)
        if config.train.init_from
        else ("model.pretrained", config.model.pretrained)
    )
    if not source or (config.model.init == "scratch" and not config.train.init_from):
        params = parts.init_params()
        return started(
            parts,
            params if parts.vectors is None else vocab_rows.with_vectors(params, parts.vectors),
        )
    if option == "model.pretrained" and (folder := started_from.folder_of(config)) is not None:
        return _from_folder(parts, folder, rounded)
    hf.check_init(option, remote.opened(str(hub.run_dir(source))))
    return _from_run(parts, option, source, via)


def _from_folder(parts: Components, folder: Path, rounded: bool) -> Params:
    """Reads weights from a folder in the layout of Hugging Face.

    Adds the rows of added tokens and makes the changes of `models/surgery.py`. Raises ConfigError
    and CheckpointError.
    """
    config, specs, given = parts.config, flatten(parts.specs), hf.resets(parts.config)
    theirs = tokenizer_at(config.model.pretrained)
    check_tokenizer(theirs, parts, f"model.pretrained={config.model.pretrained}")
    if not (vocab_rows.extends(parts.tokenizer, theirs) or structure.asked(config.model)):
        return started(
            parts, hf.starting(parts, folder, fresh_weights(given, specs, specs), rounded)
        )
    base = source_parts(parts)
    there = flatten(base.specs)
    changed = _changed(parts, hf.starting(base, folder, fresh_weights(given, there, there)), base)
    own = (
        {adapters.NAME: parts.init_params()[adapters.NAME]} if adapters.NAME in parts.specs else {}
    )
    return started(parts, _placed(parts, {**changed, **own}))


def _from_run(parts: Components, option: str, source: str, via: Sequence[Path]) -> Params:
    """Reads the weights of another run, whose directory `option` names.

    Raises ConfigError and CheckpointError.
    """
    config, specs = parts.config, flatten(parts.specs)
    params = parts.init_params()
    run = open_run(hub.run_dir(source), lambda its: dataclasses.replace(its, mesh=config.mesh), via)
    check_tokenizer(run.parts.tokenizer, parts, f"{option}={source}")
    there, goes_on = (
        partition.join(quantised.widened(run.params)),
        same_adapter(run.parts.config.adapter, config.adapter),
    )
    if not goes_on:
        there = partition.join(adapters.merge(run.parts.config.adapter, there))
    stored, wanted = flatten(_changed(parts, there, run.parts)), flatten(params)
    theirs = flatten(_part(parts, run.parts.specs, run.parts))
    fresh = fresh_weights(hf.resets(config), specs, theirs)
    all_fresh = {name for name, layers in fresh.items() if np.all(layers)} | {
        n for n in wanted if n.startswith(f"{adapters.NAME}/") and not goes_on
    }
    check_labels(run.parts, parts, all_fresh, f"{option}={source}")
    try:
        check_same_leaves(
            describe(without(stored, all_fresh)),
            describe(without(wanted, all_fresh)),
            f"{option}={source}",
        )
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; leave it out by train.init_fresh=[PATTERN], or use the same model options"
        ) from error

    def start(name: str, like: jax.Array) -> jax.Array:
        if name in all_fresh:
            return like
        taken = jax.device_put(stored[name], like.sharding)
        if not np.any(fresh[name]):
            return taken
        # some layers of a stack
        return jnp.where(jnp.reshape(fresh[name], (-1, *[1] * (like.ndim - 1))), like, taken)

    params = jax.tree.unflatten(
        jax.tree.structure(params), [start(name, like) for name, like in wanted.items()]
    )
    return params if goes_on else started(parts, params)


def started(parts: Components, params: Params) -> Params:
    """Returns the parameters with the adapter's initial values, some of which depend on the base.

    Takes the adapter of `adapter.start_from` where it is set.
    """
    if adapters.NAME not in params:
        return params
    start = functools.partial(adapters.start, parts.config.adapter)
    own = parts.compiled(
        ("start", repr(parts.config.adapter)),
        lambda: jax.jit(
            lambda *a: start(*a)[adapters.NAME],
            out_shardings=meshes.shardings(parts.specs[adapters.NAME], parts.mesh),
        ),
    )
    base, key = held.widened(parts, params), jax.random.key(parts.config.seeds.init)
    params = {**params, adapters.NAME: own(base, key)}
    return (
        params
        if getattr(parts.config.adapter, "start_from", None) is None
        else _from_peft(parts, params)
    )


def _from_peft(parts: Components, params: Params) -> Params:
    """Returns the parameters with the adapter of `adapter.start_from`.

    Raises ConfigError or CheckpointError where it is not one of this model.
    """
    config, flat, specs = parts.config, flatten(params), flatten(parts.specs)
    folder = started_from.folder_of(config)
    if folder is None:
        family, values = write.fitting(config.model, parts.model.vocab, None)
    else:
        opened = pretrained_folder.open_source(folder, config.model.part)
        family, values = opened.family, opened.values
    source = remote.opened(str(config.adapter.start_from))
    of_head = functools.partial(
        peft_saved.head_of,
        family=family,
        values=values,
        specs={path: spec for path, spec in specs.items() if path.startswith("head/")},
        asked=hf.asked(parts),
        reset=hf.resets_head(parts),
    )
    frozen = partition.frozen_mask(parts.specs, config.train.freeze, config.adapter)
    found = peft_read.read(
        source,
        config.adapter,
        flat,
        specs,
        config.model,
        family,
        family.heads.get(hf.asked(parts).kind),
        flatten(frozen),
        of_head,
    )
    leaves = [
        jax.device_put(found[path], like.sharding) if path in found else like
        for path, like in flat.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def same_adapter(a: AdapterConfig, b: AdapterConfig) -> bool:
    """Returns whether two adapters are alike in all that changes what their weights mean."""
    other = ("train", "dropout", "lr_ratio", "start_from")  # what only training reads
    plain = lambda c: {
        k: tuple(v) if isinstance(v, list | tuple) else v
        for k, v in vars(c).items()
        if k not in other
    }
    return plain(a) == plain(b) and a.name != NoAdapter.name


def _placed(parts: Components, params: Params) -> Params:
    return jax.tree.map(jax.device_put, params, meshes.shardings(parts.specs, parts.mesh))


def source_parts(parts: Components) -> Components:
    """Builds the parts of the model that `model.pretrained` names, before any change to it."""
    config = parts.config
    plain = dataclasses.replace(
        config,
        adapter=NoAdapter(),
        model=structure.without(config.model),
        tokenizer=dataclasses.replace(config.tokenizer, added=()),
    )
    return build_components(
        setup.of_source(plain)[0],
        tokenizer_at(config.model.pretrained),
        parts.task.state,
        parts.mesh,
        parts.tokenizer,
    )


def _part(parts: Components, tree: Params, base: Components) -> Params:
    """Returns the half of a tree of `base` that `parts` uses (`model.part`).

    A model without halves is returned whole.
    """
    both = base.config.model.decoder_layers and parts.config.model.part == "encoder"
    return encoder_decoder.half(tree, "encoder") if both else tree


def _changed(parts: Components, stored: Params, base: Components) -> Params:
    """Converts weights of the model of `base` for that of `parts`.

    Takes the half that is used, resizes the model as the options say, and adds rows for added
    tokens.
    """
    m, stored = parts.config.model, _part(parts, stored, base)
    if m.pretrained and structure.asked(m):
        old = structure.encoder_of(base.config.model) if m.part == "encoder" else base.config.model
        stored = surgery.apply(stored, old, m, parts.config.seeds.init)
    if not vocab_rows.extends(parts.tokenizer, base.tokenizer):
        return stored
    grown = vocab_rows.grown(flatten(stored), flatten(parts.specs), parts.tokenizer)
    return jax.tree.unflatten(jax.tree.structure(stored), [grown[name] for name in flatten(stored)])
