"""The loss that training minimises, as a number of rows."""

from __future__ import annotations

from typing import Any

from jaxsft.metrics.base import Metric, Outputs, ratio


def observe(outputs: Outputs) -> Any:
    """Returns of each row the sums of each term and of its weights, `[rows, terms, 2]`."""
    return outputs["loss_terms"]


def value(state: Any) -> dict[str, Any]:
    """Computes the sum over the terms of `sum w v / sum w`, as a step does."""
    return {"loss": ratio(state[..., 0], state[..., 1]).sum(-1)}


METRICS = {
    "loss": Metric(
        ("loss",),
        ("loss_terms",),
        observe,
        value,
        rows_of=lambda outputs: (),
        lower_is_better=("loss",),
    )
}
