"""Losses of the routers of sparse experts, from sums over real tokens (`metrics/expert_load.py`).

T is their number times that of the layers: all layers are one population, as in the reference code
of Mixtral.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float, Int


def balance(
    chosen: Int[Array, "layers experts"], probability: Float[Array, "layers experts"], tokens: Any
) -> Any:
    """Computes the load-balancing loss `E sum_e f_e P_e`.

    Fedus et al., 2021, arXiv:2101.03961, eq. 4 to 6: f_e is the share of the tokens that chose
    expert e, P_e the mean of its probability. An even load gives the number of experts per
    token. The counts have no gradient.

    A product of two means: it adds over parts of a batch in `probability` alone, with the counts of
    the whole batch.
    """
    return chosen.shape[1] * (chosen.sum(0) / tokens * (probability.sum(0) / tokens)).sum()


def router_z(square: Float[Array, layers], tokens: Any) -> Any:
    """Computes the mean of `(log sum exp(scores))^2`, which keeps router scores small.

    Zoph et al., 2022, arXiv:2202.08906, eq. 5.
    """
    return square.sum() / tokens
