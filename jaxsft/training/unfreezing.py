"""Which of the trainable weights move in a step: new rows of the vocabulary alone
(`model.train_rows=added`), or layer after layer from the top (`train.unfreeze_every`).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxsft import patterns
from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.sharding.weight_spec import LAYERS, WeightSpec
from jaxsft.tasks.task import Task
from jaxsft.training import vocab_rows
from jaxsft.training.hyper import Hyper


@dataclasses.dataclass(frozen=True)
class Movable:
    """Which weights move; `specs` are those of the trainable parameters."""

    model: ModelConfig
    specs: Any
    task: Task

    def gradients(self, grads: Any, step: Array, hyper: Hyper) -> Any:
        """Returns the gradients with zeros for what does not move, whose moments stay zero then."""
        if self.row_masks is not None:
            grads = vocab_rows.only(self.row_masks, grads)
        unfrozen = self._unfrozen_mask(step, hyper)
        if unfrozen is None:
            return grads
        return jax.tree.map(lambda g, on: jnp.where(on, g, 0), grads, unfrozen)

    def updates(self, updates: Any, step: Array, hyper: Hyper) -> Any:
        """Returns the updates without those of what does not move: decay would change it too."""
        if self.row_masks is not None:
            updates = vocab_rows.only(self.row_masks, updates)
        unfrozen = self._unfrozen_mask(step, hyper)
        if unfrozen is None:
            return updates
        # w + (-0.0) == w bitwise, also for w = -0.0
        keep = lambda u, on: jnp.where(on, u, jnp.asarray(-0.0, u.dtype))
        return jax.tree.map(keep, updates, unfrozen)

    @functools.cached_property
    def row_masks(self) -> Any:
        """Returns which rows are trained under `model.train_rows=added`, as masks; else None."""
        if self.model.train_rows != "added":
            return None
        return vocab_rows.trained(self.specs, self.task.tokenizer)

    @functools.cached_property
    def unfreeze_order(self) -> Any:
        """Returns when each trainable parameter is unfrozen, in units of `train.unfreeze_every`.

        Heads are at 0, the top layer at 1, the embedding last; a stack has one for each layer,
        `[n]`.
        """
        layers = self.model.layers

        def of_leaf(path: tuple, spec: WeightSpec) -> Any:
            at = [_layer_of(p) for p in patterns.paths_of(patterns.path_string(path), spec)]
            low = layers + 1 if "embed" in (getattr(k, "key", None) for k in path) else 0
            return (
                np.array([low if layer is None else layers - layer for layer in at])
                if spec.stacked
                else low
            )

        return jax.tree_util.tree_map_with_path(of_leaf, self.specs)

    def _unfrozen_mask(self, step: Array, hyper: Hyper) -> Any:
        """Returns flags of the parameters that are trained in this step; None for all of them.

        A flag broadcasts against its weight along the first axis (Howard and Ruder 2018,
        arXiv:1801.06146, section 3.3).
        """
        if "unfreeze_every" not in hyper:
            return None

        def of_leaf(spec: WeightSpec, place: Any) -> Array:
            on = step >= jnp.asarray(place) * hyper["unfreeze_every"]
            return on.reshape(on.shape + (1,) * (len(spec.shape) - 1)) if on.ndim else on

        return jax.tree.map(of_leaf, self.specs, self.unfreeze_order)

    def check(self, hyper: Hyper, total: int, every: str | None) -> None:
        """Raises ConfigError where a run of `total` steps ends before everything is unfrozen.

        `every` is `train.unfreeze_every`, as it was given.
        """
        last = max(int(np.max(place)) for place in jax.tree.leaves(self.unfreeze_order))
        if "unfreeze_every" in hyper and (at := last * int(hyper["unfreeze_every"])) >= total:
            raise ConfigError(
                f"train.unfreeze_every={every}: the last of {last} turns"
                f" would come at step {at}, but the run has {total} steps; give a shorter one, or"
                " freeze what is not to be trained by train.freeze"
            )


def _layer_of(path: str) -> int | None:
    """Returns the number of the layer that a virtual path names; None where it names none."""
    found = re.search(rf"(?:^|/){LAYERS}/(\d+)/", path)
    return int(found[1]) if found else None
