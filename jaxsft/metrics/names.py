"""Names of the numbers that metrics give, for those who must know them without JAX."""

from __future__ import annotations

AVERAGES = ("macro", "micro", "weighted")
ERRORS = ("mse", "rmse", "mae")  # of which less is better
NUMBERS = (*ERRORS, "r2", "pearson", "spearman")
_SCORES = ("precision", "recall", "f1")
LABEL = ("accuracy", *(f"{m}_{a}" for m in _SCORES for a in AVERAGES))  # of one label a text
LABEL_SETS = (  # of any number of labels a text
    *(f"{m}_{a}" for m in _SCORES for a in (*AVERAGES, "samples")),
    "subset_accuracy",
    "hamming_loss",
    "rows",
)
CHUNKS = tuple(f"{m}_{a}" for m in _SCORES for a in ("micro", "macro", "weighted"))  # of words
OF_WORDS = tuple(f"word_{name}" for name in CHUNKS)
