"""`train.until`: a condition on a number of the validation split that ends a training."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import NamedTuple

PATTERN = r"(validation/[\w@.-]+) *(>=|<=|>|<) *([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
SIGNS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


class Until(NamedTuple):
    """One comparison of a number with a bound."""

    metric: str  # validation/NAME
    sign: str
    bound: float

    @classmethod
    def read(cls, text: str) -> Until:
        """Reads a condition, whose form the declaration of the option has checked.

        >>> Until.read("validation/f1 >= 0.9")
        Until(metric='validation/f1', sign='>=', bound=0.9)
        """
        metric, sign, bound = re.fullmatch(PATTERN, text).groups()
        return cls(metric, sign, float(bound))

    def holds(self, numbers: Mapping[str, float]) -> bool:
        """Returns whether it holds for the numbers of an evaluation; it does not for NaN."""
        return SIGNS[self.sign](numbers[self.metric.partition("/")[2]], self.bound)
