"""The options of `jaxsft crossval`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from jaxsft.config.option import option


@dataclass(frozen=True)
class CrossvalConfig:
    """The options of `jaxsft crossval`, which trains once for each fold of the rows."""

    folds: int = option(5, "parts of which each is held out once in a repeat", at_least=2)
    repeats: int = option(
        1, "how often all is done again, with other folds and other seeds", at_least=1
    )
    groups: Optional[str] = option(
        None, "a column: rows with the same value in it are never parted"
    )
    choose: list[str] = option(
        [],
        "overrides, such as optim.learning_rate=1e-3, of which each fold takes the one that is best"
        " in inner folds of its own training rows; `;` joins several into one",
    )
    nested: int = option(3, "inner folds that choose", at_least=2, read_if="crossval.choose")
    fractions: list[float] = option(
        [],
        "of the training rows of each fold, on which it is trained as well: a learning curve",
        above=0,
        at_most=1,
    )
    level: float = option(0.95, "of the bounds", above=0, below=1)
    replicates: int = option(1000, "of the bootstrap over rows", at_least=40)
