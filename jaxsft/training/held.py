"""The weights of a run that is used, held once: layers stacked, as training and evaluation have
them, or each apart, as generation reads them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxsft.generation.kv_cache import depths_of, stacked, unstacked
from jaxsft.training.runs import Run


class Held:
    """A run whose layers are laid apart and together again in place, one leaf after the other."""

    def __init__(self, run: Run):
        self._run = run
        # of weights and frozen ones, while their layers lie apart
        self._depths: tuple[dict[int, int], ...] | None = None

    @property
    def run(self) -> Run:
        """Returns the run with its layers stacked, as training and evaluation read them."""
        if self._depths is not None:
            halves, depths, self._depths = self._taken(), self._depths, None
            weights, frozen = (stacked(half, own) for half, own in zip(halves, depths, strict=True))
            self._run = dataclasses.replace(self._run, weights=weights, frozen=frozen)
        return self._run

    @property
    def layers(self) -> Any:
        """Returns all weights with each layer as a segment of its own, as generation reads them."""
        if self._depths is None:
            halves = self._taken()
            self._depths = tuple(depths_of(half) for half in halves)
            weights, frozen = (unstacked(half, used_up=True) for half in halves)
            self._run = dataclasses.replace(self._run, weights=weights, frozen=frozen)
        return self._run.params

    def _taken(self) -> tuple[Any, Any]:
        """Takes (weights, frozen weights) out of the run, which holds nothing after that.

        The dicts are copies that the caller may change; the arrays are not copied.
        """
        weights, frozen = (
            jax.tree.map(lambda leaf: leaf, half) for half in (self._run.weights, self._run.frozen)
        )
        self._run = dataclasses.replace(self._run, weights={}, frozen={})
        return weights, frozen
