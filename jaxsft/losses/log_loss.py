"""Cross-entropy under the name that scikit-learn gives it."""

from jaxsft.losses.cross_entropy import LOSS

__all__ = ["LOSS"]
