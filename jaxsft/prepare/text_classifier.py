"""A small classifier of texts, for out-of-fold probabilities without any trained model.

Logistic regression of scikit-learn on hashed words and pairs of words, weighted by rarity: a minute
of training for ten thousand texts, and reproducible.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxsft.data.scripts import words
from jaxsft.errors import DataError
from jaxsft.extras import need

BUCKETS = 2**14
EPOCHS, DECAY = 20, 1e-5


def features(texts: Sequence[str], asked: str) -> Float[np.ndarray, "N D"]:
    """Computes hashed features of each text, a sparse matrix.

    A value is `1 + log(count)` times the rarity of the bucket, scaled to unit length.

    Raises:
      ConfigError: scikit-learn is not installed; it names the option `asked`.
    """
    text = need("sklearn.feature_extraction.text", asked, "quality")
    counts = text.HashingVectorizer(
        tokenizer=words,
        token_pattern=None,
        ngram_range=(1, 2),
        n_features=BUCKETS,
        alternate_sign=False,
        norm=None,
    ).transform([one.encode("utf-8", "backslashreplace").decode() for one in texts])
    return text.TfidfTransformer(sublinear_tf=True).fit_transform(counts)


def cross_val_probabilities(
    texts: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    folds: int = 5,
    seed: int = 0,
    asked: str = "cross-validation",
) -> Float[np.ndarray, "N C"]:
    """Computes each text's probabilities by a classifier that was trained on the other folds.

    Each class is spread evenly over the folds.

    Args:
      labels: `[N]`, 0 to C-1.
      asked: the option that asks for it, for errors.

    Raises:
      DataError: fewer than two classes, or a class with fewer rows than folds: a fold's classifier
        would not know it.
      ConfigError: as `features`.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < folds:
        raise DataError(
            f"cross-validation: {len(counts)} classes, the smallest with {counts.min()} rows;"
            f" expected two, each with {folds} rows at least"
        )
    x = features(texts, asked)
    linear = need("sklearn.linear_model", asked, "quality")
    selection = need("sklearn.model_selection", asked, "quality")
    return selection.cross_val_predict(
        linear.SGDClassifier(
            loss="log_loss", alpha=DECAY, max_iter=EPOCHS, tol=None, random_state=seed
        ),
        x,
        labels,
        cv=selection.StratifiedKFold(folds, shuffle=True, random_state=seed),
        method="predict_proba",
    )
