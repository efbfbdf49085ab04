"""Whether the number that an answer comes to is that of a reference, as in GSM8K (Cobbe et al.,
2021): the first one behind `####`, or without that mark the last one of the text.

`1,234.50`, `-7`, `.5`, `2e3`, `3/4`, `1 1/2`, `\\frac{3}{4}` and full-width digits are numbers;
signs of currency, units and percent are passed over. Numbers are compared exactly, as fractions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from jaxsft.metrics.base import Metric, Outputs, ratio
from jaxsft.metrics.text_overlap import references_of

_MARK = "####"
# full-width forms, and the sign U+2212
_ASCII = str.maketrans("０１２３４５６７８９，．／－−", "0123456789,./--")
_LATEX = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = re.compile(
    # digits of a name such as H2O are none; a minus behind what can be subtracted from is no sign
    r"(?<![A-Za-z0-9_])(?P<sign>(?<![A-Za-z0-9_)\]}])-)?[$€£¥₹]?"
    rf"(?:(?P<whole>{_WHOLE}) (?={_WHOLE}\s?/))?"
    rf"(?P<over>(?:{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}})?)"
    rf"(?:\s?/\s?(?P<under>{_WHOLE}(?:\.[0-9]+)?))?"
)


def number_of(text: str) -> Fraction | None:
    """Returns the number that an answer comes to; None where it has none."""
    text = _LATEX.sub(r"\1/\2", text.translate(_ASCII))
    _, mark, behind = text.partition(_MARK)
    found = list(_numbers(behind.partition("\n")[0] if mark else text))
    return (found[0] if mark else found[-1]) if found else None


def _numbers(text: str) -> Iterator[Fraction]:
    """Yields the numbers of a text in order; what is divided by 0 is none."""
    plain = lambda digits: Fraction(digits.replace(",", ""))
    for match in _NUMBER.finditer(text):
        sign, whole, over, under = match.group("sign", "whole", "over", "under")
        if under is None or plain(under):
            value = plain(whole or "0") + plain(over) / plain(under or "1")
            yield -value if sign else value


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row whether its references have a number, whether its answer has one, and
    whether it is that of a reference.
    """
    rows = []
    for answer, references in zip(outputs["answer"], references_of(outputs), strict=True):
        right = {number_of(reference) for reference in references} - {None}
        number = number_of(answer)
        rows.append((bool(right), bool(right) and number is not None, number in right))
    there, found, equal = np.array(rows, np.float64).reshape(-1, 3).T
    return {"rows": there, "found": found, "equal": equal}


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes, of the rows whose references have a number, the share of answers that come to it,
    and of those that have any.
    """
    rows = state["rows"]
    return {
        "numeric_match": ratio(state["equal"], rows),
        "numeric_found": ratio(state["found"], rows),
        "numeric_rows": rows,
    }


METRICS = {
    "numeric_match": Metric(
        ("numeric_match", "numeric_found", "numeric_rows"),
        ("answer", "references"),
        observe,
        value,
        counts=("numeric_rows",),
    )
}
