"""How each training row was learnt: what the model thought of it at every evaluation.

Confidence is the mean probability of the right label, variability its standard deviation,
correctness the share of evaluations that were right (Swayamdipta et al., 2020). A row is forgotten
where it was right and then wrong at the next evaluation (Toneva et al., 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxsft.metrics.base import Outputs


def observed(outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """Returns the probability of the right label of each row, `[rows]`, and whether it is the
    prediction.
    """
    logits = outputs["logits"]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    p = np.take_along_axis(odds, outputs["label"][:, None], 1)[:, 0] / odds.sum(1)
    return p, outputs["predicted"] == outputs["label"]


def statistics(
    probability: Float[np.ndarray, "evaluations rows"],
    correct: Bool[np.ndarray, "evaluations rows"],
) -> dict[str, np.ndarray]:
    """Returns confidence, variability, correctness and the number of times forgotten, `[rows]`."""
    return {
        "confidence": probability.mean(0),
        "variability": probability.std(0),
        "correctness": correct.mean(0),
        "forgotten": (correct[:-1] & ~correct[1:]).sum(0),
    }


def added(before: Mapping[str, Any] | None, step: int, outputs: Outputs) -> dict[str, Any]:
    """Returns the content of `figures/dynamics.json` with one evaluation more.

    Evaluations of this step or a later one, from before a run went on from a checkpoint, give way.
    A file of other rows is begun anew.
    """
    rows, (p, correct) = outputs.rows.tolist(), observed(outputs)
    history = []
    if before is not None and before["rows"] == rows:
        history = [one for one in before["evaluations"] if one["step"] < step]
    history = [
        *history,
        {
            "step": step,
            "probability": np.round(p, 4).tolist(),
            "correct": correct.astype(int).tolist(),
        },
    ]
    found = statistics(
        np.array([one["probability"] for one in history]),
        np.array([one["correct"] for one in history], bool),
    )
    plain = {name: np.round(values, 4).tolist() for name, values in found.items()}
    return {"rows": rows, **plain, "evaluations": history}
