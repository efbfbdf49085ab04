"""The options of pruning: which trained weights become zero, and when."""

from __future__ import annotations

from dataclasses import dataclass

from jaxsft.config.option import Trace, option

_NO_AVERAGE = (("train.ema=null", "an average of weights is zero nowhere"),)
_CHOSEN = "prune.kind=magnitude"


@dataclass(frozen=True)
class PruneConfig:
    kind: str = option(
        "none",
        "none | magnitude: the smallest weights become zero and stay so | 2:4: of each four inputs"
        " of an output the two smallest, at prune.begin (arXiv:2104.08378)",
        choices=("none", "magnitude", "2:4"),
        needs={"magnitude": _NO_AVERAGE, "2:4": _NO_AVERAGE},
    )
    sparsity: float = option(
        0.5,
        "share of the weights that are zero from prune.end on",
        above=0,
        below=1,
        read_if=_CHOSEN,
        traced=Trace(name="sparsity", when="read"),
    )
    scope: str = option(
        "layer",
        "layer: that share of each matrix of each layer | global: of all of them together",
        choices=("layer", "global"),
        read_if=_CHOSEN,
    )
    weights: list[str] = option(
        (".*layers/.*/(q|k|v|o|gate|up|down)/w",),
        "patterns of the matrices that are pruned; each must be trained",
        read_if="prune.kind!=none",
    )
    begin: str = option(
        "0steps",
        "when the first weights become zero",
        duration=True,
        at_least=0,
        read_if="prune.kind!=none",
        traced=Trace(name="prune_begin", when="read", kind="whole_steps"),
    )
    end: str = option(
        "50%",
        "when the last ones do; between the two the share grows along a cubic (arXiv:1710.01878,"
        " equation 1)",
        duration=True,
        at_least=0,
        read_if=_CHOSEN,
        traced=Trace(name="prune_end", when="read", kind="whole_steps"),
    )
    every: str = option(
        "10steps",
        "between two times at which weights become zero",
        duration=True,
        above=0,
        read_if=_CHOSEN,
        traced=Trace(name="prune_every", when="read", kind="whole_steps"),
    )
