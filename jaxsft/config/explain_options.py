"""The options of `jaxsft explain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from jaxsft.config.option import option


@dataclass(frozen=True)
class ExplainOptions:
    """The options of `jaxsft explain`, each as `explain.NAME=`."""

    method: str = option(
        "integrated_gradients",
        "one method or several, with commas: gradient_x_input | integrated_gradients | smoothgrad |"
        " occlusion | lime | shapley | kernelshap | exact | rollout | random",
    )
    rows: int = option(32, "explain the first rows of the file", at_least=1)
    target: str = option(
        "predicted", "predicted | gold | a label: whose score is divided among the tokens"
    )
    baseline: str = option(
        "auto",
        "what stands for an absent token; auto: mask, else pad, else zero",
        choices=("auto", "mask", "pad", "zero", "delete"),
    )
    steps: int = option(32, "points of integrated gradients, at first", at_least=1)
    tolerance: float = option(1e-3, "by which their sum may be wrong", above=0)
    samples: int = option(256, "coalitions, neighbours; noisy copies are a tenth", at_least=10)
    noise: float = option(0.15, "of SmoothGrad, in deviations of the embeddings", above=0)
    faithfulness: bool = option(True, "measure it, against random scores")
    orders: int = option(3, "random orders that faithfulness is compared with", at_least=1)
    rationale: Optional[str] = option(
        None, "a column with the words or the character spans that are the reason"
    )
    against: Optional[str] = option(None, "another run, whose scores are compared")
    against_precision: Optional[str] = option(None, "the same run in another precision, compared")
    influence: Optional[str] = option(None, "a file of training rows: which caused a prediction")
    layers: bool = option(False, "probe each layer, and what layers and heads matter")
    seed: int = option(0, "of all that is drawn", at_least=0)
    level: float = option(0.95, "of the bounds", above=0, below=1)
    replicates: int = option(1000, "of the bootstrap", at_least=40)
