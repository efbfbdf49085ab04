"""The losses that `task.loss` may be, each one file here, named as the option names it. What other
terms of an objective are made of is in `terms/`.

The options of a loss are read where JAX is not imported (`--help`, the parent of a sweep), so its
file imports JAX inside its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxsft import plugins
from jaxsft.config.option import Reasons, declarations
from jaxsft.errors import ConfigError
from jaxsft.losses.terms import smoothing

if TYPE_CHECKING:
    from jaxtyping import Array

# What a loss compares the outputs of a head with, and what it gives.
TARGETS = {
    "labels": "logits [..., C] with labels [...]: a value for each label",
    "probabilities": "logits with probabilities, element by element",
    "numbers": "numbers with numbers, element by element",
    "normals": "means and logarithms of variances [..., 2] with numbers [...]: a value for each",
    "together": "cosines of two texts with whether they belong together, element by element",
    "nothing": "unit vectors of two texts [B, T, 2, D], with which are there [B, T]: [B, T]",
}

# What a loss may be given beside outputs and targets, by the names of `Loss.inputs`.
INPUTS = {
    "class_counts": "how many training rows have each label [C]",
    "transition": "the probability of the label that was given, by the true one [C, C]",
    "step": "steps that were taken before this one; infinity in an evaluation",
    "weights": "of the values, 0 where there is no text",
}


@dataclass(frozen=True)
class Loss:
    """A loss of one example, without any reduction: the task weighs and sums its values, and only
    the step divides.

    Attributes:
      values: `(outputs, targets, scalars) -> values`; the scalars are those of `own_scalars`, and
        beside them what `inputs` names.
      targets: a key of `TARGETS`. Every task with an option `task.loss` for such targets has it.
      options: a dataclass whose fields become options of `task.*`, read where the loss is chosen;
        each is declared as traced.
      scalars: the names of traced scalars that it reads beside its own options.
      needs: conditions without which it cannot work, as of `config.option.option`.
      inputs: what it is given beside, keys of `INPUTS`.
    """

    values: Callable[[Array, Array, Mapping[str, Array]], Array]
    targets: str = "numbers"
    options: type | None = None
    scalars: Sequence[str] = ()
    needs: Reasons = field(default=())
    inputs: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in self.inputs:
            if name not in INPUTS:
                raise ConfigError(f"Loss(inputs={name!r}): unknown; there are {', '.join(INPUTS)}")
        if self.targets not in TARGETS:
            raise ConfigError(
                f"Loss(targets={self.targets!r}): unknown; there are {', '.join(TARGETS)}"
            )
        for name, one in self.own_options.items():
            if one.accepts.traced is None:
                raise ConfigError(
                    f"the option {name} of a loss is not traced; declare it with traced=Trace(...)"
                )

    def __hash__(self) -> int:
        return id(self)

    @property
    def own_options(self) -> Mapping[str, Any]:
        """Returns the declarations of its options by name."""
        return {} if self.options is None else declarations(self.options)

    @property
    def own_scalars(self) -> tuple[str, ...]:
        """Returns the names of the traced scalars that `values` is given."""
        return (*self.own_options, *self.scalars)

    def reads(self, answer: str) -> tuple[str, ...]:
        """Returns the names of the traced scalars that the head of a task reads with this loss.

        Args:
          answer: of the task (`TaskSpec.output`). Labels become numbers where the loss compares
            these, and what makes them of labels reads scalars too.
        """
        coded = answer in ("label", "labels") and self.targets in ("probabilities", "numbers")
        return (*self.own_scalars, *(smoothing.SCALARS if coded else ()))


LOSSES = plugins.Registry("losses", plugins.files("jaxsft.losses", "LOSS"))


def get(name: str) -> Loss:
    """Returns the loss of a name. Raises ConfigError for one that is not known."""
    if name not in LOSSES:
        raise ConfigError(f"task.loss={name}: unknown loss; there are {', '.join(sorted(LOSSES))}")
    return LOSSES[name]
